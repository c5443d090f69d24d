"""The bill of materials of an image names every package that is installed, with version and hashes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.helm.documented_values import CHART

REQUIREMENTS = sorted((CHART.parents[2] / "deploy" / "images" / "requirements").glob("*.txt"))


@pytest.mark.parametrize("requirements", REQUIREMENTS, ids=lambda file: file.stem)
def test_every_package_is_listed_with_its_hashes(requirements: Path, tmp_path: Path) -> None:
    bill = tmp_path / "sbom.json"
    tool = Path(sys.executable).with_name("cyclonedx-py")
    subprocess.run([tool, "requirements", "--spec-version", "1.6", "--output-file", bill, requirements], check=True)
    content = json.loads(bill.read_text())
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    listed = {(each["name"], each["version"]) for each in content["components"]}
    assert listed == set(re.findall(r"^([\w.-]+)==([\w.+-]+)", requirements.read_text(), re.MULTILINE))
    assert all(each["externalReferences"][0]["hashes"] for each in content["components"])
