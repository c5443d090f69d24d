"""The rules file of Prometheus: what is recorded, and what raises an alert."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from deploy.observe import alerts, objectives
from deploy.observe.files import RUNBOOKS_URL

Rule = dict[str, object]

_STALE = " or ".join(
    f'max by (namespace, priority) (bonafide_admission_queue_oldest_seconds{{priority="{lane}"}}) > bool {limit:g}'
    for lane, limit in objectives.QUEUE_SECONDS.items()
)
_CRITICAL_AT_1_PERCENT = 1.63  # of the two-sample Kolmogorov-Smirnov statistic, large samples
_SIX_HOURS, _WEEK = 6 * 3600, 7 * 86_400


def _record(name: str, expression: str) -> Rule:
    return {"record": f"bonafide:{name}", "expr": expression}


STATES = (
    _record("queue_stale:max", _STALE),
    _record("not_ready:ratio", "1 - avg by (namespace, component) (bonafide_ready)"),
)
"""States that are 1 while something is wrong, from which the share of time follows."""

RATES = (
    _record("verdicts:rate5m", "sum by (namespace, policy, verdict) (rate(bonafide_verdicts_total[5m]))"),
    _record("branch_score_bucket:rate5m", "sum by (namespace, branch, le) (rate(bonafide_branch_score_bucket[5m]))"),
)
"""Few series that stand for many, so that a week of them is cheap to look at."""


def _cumulative(window: str) -> str:
    """The distribution function of a branch's scores over a window."""
    series = f"bonafide:branch_score_bucket:rate{window}"
    return f'{series} / ignoring (le) group_left () ({series}{{le="+Inf"}} > 0)'


def _abstained(window: str) -> str:
    everything = f"sum by (namespace, policy) (avg_over_time(bonafide:verdicts:rate5m[{window}]))"
    withheld = 'bonafide:verdicts:rate5m{verdict="INCONCLUSIVE"}'
    inconclusive = f"sum by (namespace, policy) (avg_over_time({withheld}[{window}]))"
    return f"({inconclusive} or 0 * {everything}) / ({everything} > 0)"


_RECENT = f'(bonafide:branch_score_bucket:rate6h{{le="+Inf"}} * {_SIX_HOURS})'
_USUAL = f'(bonafide:branch_score_bucket:rate7d{{le="+Inf"}} * {_WEEK})'

DRIFT = (
    _record("abstain:ratio1h", _abstained("1h")),
    _record("abstain:ratio7d", _abstained("7d")),
    _record("verdicts:count1h", "3600 * sum by (namespace, policy) (avg_over_time(bonafide:verdicts:rate5m[1h]))"),
    _record("branch_score_bucket:rate6h", "avg_over_time(bonafide:branch_score_bucket:rate5m[6h])"),
    _record("branch_score_bucket:rate7d", "avg_over_time(bonafide:branch_score_bucket:rate5m[7d] offset 6h)"),
    _record("branch_score_drift:ks6h", f"max without (le) (abs({_cumulative('6h')} - {_cumulative('7d')}))"),
    _record(
        "branch_score_drift:critical6h",
        f"max without (le) ({_CRITICAL_AT_1_PERCENT} * sqrt(({_RECENT} + {_USUAL}) / ({_RECENT} * {_USUAL})))",
    ),
)
"""How far verdicts and scores are from what they were.

The distance is that of Kolmogorov and Smirnov between two distributions: the largest difference of their
cumulative shares, which the buckets of a histogram are. From buckets it is never more than the true distance.
It is 0 to 1 whatever the bins, and comes with a bound of what chance explains for so many clips.
"""


def document() -> dict[str, list[dict[str, object]]]:
    """The whole rules file."""
    return {
        "groups": [
            _group("bonafide-states", "30s", STATES),
            _group("bonafide-rates", "1m", RATES),
            _group("bonafide-objectives", "30s", objectives.recording_rules(objectives.SHORT_WINDOWS)),
            _group("bonafide-objectives-long", "2m", objectives.recording_rules(objectives.LONG_WINDOWS)),
            _group("bonafide-budgets", "1m", objectives.counting_rules()),
            _group("bonafide-drift", "2m", DRIFT),
            _group("bonafide-objective-alerts", "30s", objectives.alerting_rules()),
            _group("bonafide-health", "30s", _rules(alerts.HEALTH)),
            _group("bonafide-capacity", "1m", _rules(alerts.CAPACITY)),
            _group("bonafide-branches", "1m", _rules(alerts.BRANCHES)),
            _group("bonafide-models", "1m", _rules(alerts.MODELS)),
        ]
    }


def _rules(several: Iterable[alerts.Alert]) -> list[Rule]:
    return [alert.rule() for alert in several]


def _group(name: str, interval: str, rules: Iterable[Rule]) -> dict[str, object]:
    return {"name": name, "interval": interval, "rules": [_linked(rule) for rule in rules]}


def _linked(rule: Rule) -> Rule:
    """The rule, with the address of its page where it is an alert."""
    if "alert" not in rule:
        return rule
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    return {**rule, "annotations": {**annotations, "runbook_url": f"{RUNBOOKS_URL}/{rule['alert']}.md"}}


def render() -> str:
    """The text of ``rules.yaml``."""
    head = "# Written by make dashboards; edit deploy/observe/rules.py and what it imports.\n"
    return head + yaml.safe_dump(document(), sort_keys=False, width=200, allow_unicode=True)
