"""Accept what the chart renders now: ``python -m deploy.helm.goldens`` rewrites the golden manifests."""

from __future__ import annotations

from deploy.helm.render import CASES, GOLDEN, as_text, golden_file, template, values_file
from deploy.helm.tools import HELMS, fetch

if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    helm = fetch(HELMS[0])
    for stale in set(GOLDEN.glob("*.yaml")) - {golden_file(case) for case in CASES}:
        stale.unlink()
    for case in CASES:
        golden_file(case).write_text(as_text(template(helm, values_file(case))), encoding="utf-8")
