"""``bonafide models trials HOST:PORT ...``: how candidates do, from the metrics of the services that try them."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from services.common.telemetry import (
    ROLLBACKS,
    ROLLOUT_COMPARISONS,
    ROLLOUT_DISAGREEMENT,
    ROLLOUT_ERRORS,
    ROLLOUT_SHARE,
)

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What one process says of one candidate.

    ``share`` is that of the clips which it answers now, ``difference`` the mean one of probability; ``rolled_back``
    names the budget that it has overdrawn, empty while it has not.
    """

    address: str
    model: str
    version: str
    share: float
    comparisons: int
    difference: float
    errors: int
    rolled_back: str

    def __str__(self) -> str:
        state = f"rolled back ({self.rolled_back})" if self.rolled_back else f"answers {self.share:g} of the clips"
        return (
            f"{self.address}  {self.model}/{self.version}  {state}; {self.comparisons} compared,"
            f" {self.difference:.3f} apart on average; {self.errors} failed"
        )


def read_trials(address: str) -> list[TrialReport]:
    """The trials of the process whose metrics are at HOST:PORT.

    Raises:
        OSError: it does not answer, or not with metrics.
    """
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_SECONDS) as answer:
            text = answer.read().decode()
        return list(trials_in(address, text))
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"{address} does not answer with metrics") from error


def trials_in(address: str, text: str) -> Iterator[TrialReport]:
    """The trials that a page of metrics speaks of, by model and version."""
    samples = [
        (each.name, each.labels, each.value)
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if "candidate" in each.labels
    ]
    for model, version in sorted({(labels["model"], labels["candidate"]) for _, labels, _ in samples}):
        own = [
            (name, labels, value)
            for name, labels, value in samples
            if (labels["model"], labels["candidate"]) == (model, version)
        ]
        compared = _sum(own, ROLLOUT_COMPARISONS.name)
        taken_back = [labels["reason"] for name, labels, value in own if name == ROLLBACKS.name and value]
        yield TrialReport(
            address=address,
            model=model,
            version=version,
            share=_sum(own, ROLLOUT_SHARE.name),
            comparisons=int(compared),
            difference=_sum(own, f"{ROLLOUT_DISAGREEMENT.name}_sum") / max(compared, 1),
            errors=int(_sum(own, ROLLOUT_ERRORS.name)),
            rolled_back=taken_back[0] if taken_back else "",
        )


def _sum(samples: Iterable[tuple[str, dict[str, str], float]], wanted: str) -> float:
    return sum(value for name, _, value in samples if name == wanted)
