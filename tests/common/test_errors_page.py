"""docs/errors.md names every reason that the code can give, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GIVEN = re.compile(r'reason\s*=\s*"([A-Z_]+)"')
RULE = re.compile(r'\bid: "([A-Z_]+)"')
NAMED = re.compile(r"`([A-Z]+(?:_[A-Z]+)*)`")


def test_every_reason_is_documented_and_every_documented_reason_exists() -> None:
    sources = [path for folder in ("services", "bonafide") for path in (ROOT / folder).rglob("*.py")]
    given = {reason for path in sources for reason in GIVEN.findall(path.read_text(encoding="utf-8"))}
    contract = (ROOT / "protos" / "bonafide").rglob("*.proto")
    given |= {reason for path in contract for reason in RULE.findall(path.read_text(encoding="utf-8"))}
    named = set(NAMED.findall((ROOT / "docs" / "errors.md").read_text(encoding="utf-8")))
    assert given == named
