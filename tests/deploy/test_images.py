"""What the Dockerfiles copy and install is what the roles run, no less and no more."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.helm.render import CASES, golden
from deploy.images.roles import IMAGES, ROLES, Role, locked, render
from deploy.topology import COMPONENTS, ROOT
from tests.deploy import rendered

# Imports the modules of a role as its image would: nothing on the path but what was copied, and no distribution but
# those that are installed there.
IMPORT_AS_IN_THE_IMAGE = """
import importlib, importlib.metadata, re, sys
allowed = set(sys.argv[1].split(","))
owners = importlib.metadata.packages_distributions()
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
class Fence:
    def find_spec(self, name, path=None, target=None):
        whose = [normal(each) for each in owners.get(name.partition(".")[0], ()) if normal(each) != "bonafide"]
        if whose and not allowed & set(whose):
            raise ModuleNotFoundError(f"{name} is not installed in the image", name=name)
sys.meta_path = [Fence()] + [each for each in sys.meta_path if "editable" not in repr(each)]
sys.path.insert(0, sys.argv[2])
for name in sys.argv[3:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.argv[2]), module.__file__
"""


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request: pytest.FixtureRequest) -> Role:
    return request.param


def dockerfiles() -> list[Path]:
    return sorted(IMAGES.glob("*.Dockerfile"))


def instructions(dockerfile: Path) -> list[str]:
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    return re.sub(r" *\\\n *", " ", "\n".join(lines)).strip().splitlines()


def copied_into(directory: Path, dockerfile: Path) -> Path:
    """Do what the COPY lines of /app say."""
    for line in instructions(dockerfile):
        words = line.split()
        if words[:1] != ["COPY"] or words[1].startswith("--") or not words[-1].startswith("/app"):
            continue
        target = directory / words[-1].removeprefix("/")
        for source in (ROOT / word for word in words[1:-1]):
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place = target / source.name if words[-1].endswith("/") else target
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, place)
    return directory / "app"


def test_the_role_imports_with_what_the_image_holds(role: Role, tmp_path: Path) -> None:
    application = copied_into(tmp_path, role.dockerfile)
    installed = ",".join(re.findall(r"^([\w.-]+)==", role.requirements.read_text(), re.MULTILINE))
    command = [sys.executable, "-I", "-c", IMPORT_AS_IN_THE_IMAGE, installed, str(application), *role.modules]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr[-500:]


def test_requirements_are_those_of_the_modules(role: Role) -> None:
    assert role.requirements.read_text() == render(role), "run: python -m deploy.images.roles"


def test_versions_and_hashes_are_those_that_were_tested(role: Role) -> None:
    lock = locked()
    for block in re.split(r"^(?=[a-z])", role.requirements.read_text(), flags=re.MULTILINE)[1:]:
        assert block in lock.values()
        assert "--hash=sha256:" in block


def test_no_service_carries_another(role: Role) -> None:
    others = {component.name for component in COMPONENTS} - {role.name}
    text = role.dockerfile.read_text()
    assert not [other for other in others if f"services/{other}" in text]


@pytest.mark.parametrize("dockerfile", dockerfiles(), ids=lambda file: file.stem)
def test_images_run_as_nobody_in_particular(dockerfile: Path) -> None:
    lines = instructions(dockerfile)
    last_stage = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER 10001:10001" in last_stage
    assert next(line for line in last_stage if line.startswith("ENTRYPOINT")).startswith('ENTRYPOINT ["')
    assert not [line for line in last_stage if "pip install" in line or "build-essential" in line]
    if any("PYTHON" in line for line in lines):
        assert any("pip uninstall --yes" in line for line in last_stage)


def test_services_have_the_same_dockerfile_but_for_their_name() -> None:
    shapes = {
        component.settings.__name__: (IMAGES / f"{component.name}.Dockerfile")
        .read_text()
        .replace(component.name, "NAME")
        .replace(str(component.port), "PORT")
        for component in COMPONENTS
    }
    assert len(set(shapes.values())) == 1


def test_every_image_of_the_chart_can_be_built() -> None:
    built = {file.stem for file in dockerfiles()}
    for case in CASES:
        for pod in rendered.pods(golden(case)).values():
            for container in rendered.containers(pod):
                name = re.search(r"/bonafide-([a-z-]+)[:@]", container["image"])
                assert name is None or name[1] in built, container["image"]
