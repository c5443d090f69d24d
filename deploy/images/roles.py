"""What each image holds: ``python -m deploy.images.roles`` writes the requirements of every role.

A role gets the distributions that its modules import, and what those declare, at the versions and hashes of
``requirements/serving.txt``; nothing else.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.topology import COMPONENTS, ROOT

IMAGES = Path(__file__).parent
LOCK = ROOT / "requirements" / "serving.txt"
_LIST_IMPORTS = """
import importlib, importlib.metadata, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
owners = importlib.metadata.packages_distributions()
print(*{owner for name in {name.partition(".")[0] for name in sys.modules} for owner in owners.get(name, ())})
"""


@dataclass(frozen=True, slots=True)
class Role:
    """An image: the modules that it runs, and distributions that they import only when needed."""

    name: str
    modules: tuple[str, ...]
    late: tuple[str, ...] = ()

    @property
    def dockerfile(self) -> Path:
        """How it is built."""
        return IMAGES / f"{self.name}.Dockerfile"

    @property
    def requirements(self) -> Path:
        """What is installed."""
        return IMAGES / "requirements" / f"{self.name}.txt"


ROLES = (
    *(Role(component.name, (f"services.{component.name}.__main__",)) for component in COMPONENTS),
    Role("client", ("deploy.images.first_verdict", "bonafide.cli"), late=("scikit-image",)),
)


def render(role: Role) -> str:
    """The role's requirements, with hashes."""
    lock = locked()
    command = [sys.executable, "-c", _LIST_IMPORTS, *role.modules]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)  # noqa: S603 - ourselves
    imported = {canonicalize_name(name) for name in answer.stdout.split()} | set(role.late)
    return "".join(lock[name] for name in sorted(_with_needs(imported & lock.keys())))


def locked() -> dict[str, str]:
    """The lines of the lock by distribution."""
    blocks = re.split(r"^(?=[a-zA-Z])", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {canonicalize_name(re.split("[=[ ]", block)[0]): block for block in blocks if "==" in block}


def _with_needs(names: Iterable[str]) -> set[str]:
    """Distributions and all that they declare to need here, extras that the lock asks for included."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        each = waiting.pop()
        name = canonicalize_name(each.name)
        if name in found and not each.extras:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *each.extras)):
                waiting.append(need)
    return found


if __name__ == "__main__":
    for each in ROLES:
        each.requirements.parent.mkdir(exist_ok=True)
        each.requirements.write_text(render(each), encoding="utf-8")
