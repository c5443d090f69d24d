"""What measuring costs: processor time of all metric updates of one clip, and of one scrape.

``python -m benchmarks.metrics_cost`` starts the four services with embedded engines, analyses the demo clip, and
counts updates and processor time between two scrapes; one update is timed in this process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import urllib.request
from pathlib import Path

from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bonafide import Client
from deploy.local.demo_clip import demo_clip, speech_synthesiser
from deploy.local.stack import ROOT, Stack, StackOptions
from services.common.settings import EngineChoice
from services.common.telemetry import BRANCH_OUTCOMES, STAGE_DURATION, Telemetry

UPDATES = 50_000
SCRAPES = 50
TIMES = 5
ACCEPT = {"Accept": "application/openmetrics-text;version=1.0.0"}


def seconds_an_update() -> float:
    """Processor time of one update with labels, counters and histograms in equal parts; the best of several runs."""
    telemetry, found = Telemetry("gateway"), []
    for _ in range(TIMES):
        began = time.process_time()
        for _ in range(UPDATES // 2):
            telemetry.count(BRANCH_OUTCOMES, branch="frame", outcome="scored", reason="none")
            telemetry.observe(STAGE_DURATION, 0.1, stage="decode")
        found.append((time.process_time() - began) / UPDATES)
    return min(found)


def scrape(address: str) -> str:
    """The metrics of a service of ours."""
    request = urllib.request.Request(f"http://{address}/metrics", headers=ACCEPT)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return str(answer.read().decode())


def seconds_a_scrape(address: str) -> float:
    """Processor time that one scrape takes of a service."""
    before = processor_seconds_in(scrape(address))
    for _ in range(SCRAPES - 1):
        scrape(address)
    return (processor_seconds_in(scrape(address)) - before) / SCRAPES


def parsed(text: str) -> list[Family]:
    """The metrics in a text."""
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def updates_in(text: str) -> float:
    """How many updates made these values: of counters that go up by one, and of histograms."""
    families = [family for family in parsed(text) if family.name.startswith("bonafide_")]
    samples = [(family.type, sample) for family in families for sample in family.samples]
    counts = [sample.value for kind, sample in samples if kind == "counter" and sample.labels]
    return float(sum(counts) + sum(sample.value for _, sample in samples if sample.name.endswith("_count")))


def processor_seconds_in(text: str) -> float:
    """Processor time that the service has used."""
    return next(float(each.samples[0].value) for each in parsed(text) if each.name == "process_cpu_seconds")


def main() -> None:
    """Measure, and print one line a figure."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    clip = demo_clip(ROOT / ".cache" / "demo", speech_synthesiser())
    with tempfile.TemporaryDirectory() as folder:
        options = StackOptions(engine=EngineChoice.EMBEDDED, run_directory=Path(folder))
        with Stack(options, lambda _: None) as stack, Client(stack.gateway) as client:
            before = {name: scrape(address) for name, address in stack.metrics.items()}
            client.analyze(clip)
            after = {name: scrape(address) for name, address in stack.metrics.items()}
            scrapes = {name: seconds_a_scrape(address) for name, address in stack.metrics.items()}
    updates = sum(updates_in(text) for text in after.values()) - sum(updates_in(text) for text in before.values())
    used = sum(processor_seconds_in(after[name]) - processor_seconds_in(before[name]) for name in after)
    each = seconds_an_update()
    print(f"one update: {each * 1e6:.1f} us")
    print(
        f"one clip: {updates:.0f} updates, {updates * each * 1e3:.2f} ms of {used:.2f} s: {updates * each / used:.3%}"
    )
    for name, seconds in scrapes.items():
        print(f"one scrape of {name}: {seconds * 1e3:.1f} ms, {len(after[name]) / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
