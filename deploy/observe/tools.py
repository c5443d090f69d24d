"""Prometheus and promtool without root: those on PATH, or Debian's package, taken apart under .cache.

``python -m deploy.observe.tools`` fetches the package and says what it found, or in one sentence why there is nothing.
apt checks the package against Debian's signed lists; the version that the rules were last tested with is pinned
by hash besides.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "prometheus"
PACKAGE = "prometheus"
TESTED_SHA256 = {
    "prometheus_2.42.0+ds-5+deb12u1_amd64.deb": "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
}
"""SHA-256 of the packages that the rules were tested with."""
_SECONDS = 300


class ToolsUnavailableError(Exception):
    """This machine has no Prometheus and cannot fetch it; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The two executables."""

    prometheus: Path
    promtool: Path

    def version(self) -> str:
        """What promtool says of itself, and the SHA-256 of both."""
        said = subprocess.run([self.promtool, "--version"], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
        files = (self.prometheus, self.promtool)
        hashes = (f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files)
        return "\n".join([(said.stdout or said.stderr).splitlines()[0], *hashes])


def find() -> Tools | None:
    """Those on PATH, else those fetched before; None without either."""
    for folder in (None, str(CACHE / "usr" / "bin")):
        found = [shutil.which(name, path=folder) for name in ("prometheus", "promtool")]
        if found[0] and found[1]:
            return Tools(Path(found[0]), Path(found[1]))
    return None


def fetch() -> Tools:
    """Those that ``find`` finds, or those of Debian's package, which is downloaded and unpacked.

    Raises:
        ToolsUnavailableError: there is neither apt nor a package.
    """
    if tools := find():
        return tools
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if missing:
        raise ToolsUnavailableError(f"no prometheus on PATH, and no {missing[0]} to fetch it with")
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent, prefix="prometheus-") as draft:
        package = _downloaded(Path(draft))
        unpacked = Path(draft) / "unpacked"
        _run(["dpkg", "-x", str(package), str(unpacked)], Path(draft))
        shutil.rmtree(CACHE, ignore_errors=True)
        unpacked.rename(CACHE)
    tools = find()
    if tools is None:
        raise ToolsUnavailableError(f"{package.name} holds no prometheus and promtool")
    return tools


def _downloaded(folder: Path) -> Path:
    _run(["apt-get", "download", PACKAGE], folder)
    (package,) = folder.glob("*.deb")
    expected = TESTED_SHA256.get(package.name.replace("%2b", "+"))
    if expected is not None and hashlib.sha256(package.read_bytes()).hexdigest() != expected:
        raise ToolsUnavailableError(f"{package.name} is not the file that was tested")
    return package


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - commands of our own making
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolsUnavailableError(f"{command[0]} took too long") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise ToolsUnavailableError(f"{command[0]} could not fetch the package {PACKAGE}: {lines[-1]}")


def main() -> int:
    """Fetch and say what there is; never fails, for everything but its own tests works without."""
    try:
        print(fetch().version())
    except ToolsUnavailableError as error:
        print(f"Prometheus is not to be had here: {error}; the tests that need it are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
