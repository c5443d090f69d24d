"""Write every file of the chart that follows from others: ``python -m deploy.helm.generate``."""

from __future__ import annotations

import json
from pathlib import Path

from deploy import topology
from deploy.helm import readme, values_schema
from deploy.helm.documented_values import CHART
from deploy.observe.files import installed


def files() -> dict[Path, str]:
    """What each generated file should hold."""
    return {
        CHART / "files" / "topology.json": json.dumps(topology.as_json(), indent=2) + "\n",
        **{CHART / "files" / "observe" / name: text for name, text in installed().items()},
        CHART / "values.schema.json": values_schema.render(),
        CHART / "README.md": readme.render(),
    }


if __name__ == "__main__":
    for file, content in files().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
