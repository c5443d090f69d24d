"""``python -m training.fusion``: fit all heads, calibrate the policies, write them beside the service."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from services.audio.pipeline import SPOOF_MODEL
from services.common.evidence import Branch
from services.common.models import ModelRepository
from services.fusion.heads import branch_sets, head_key
from services.fusion.policy import ANY_HEAD, Thresholds
from services.fusion.store import SHIPPED_HEADS, HeadStore
from services.fusion.synchrony import SYNC_MODEL
from services.visual import temporal
from services.visual.scoring import FRAME_MODEL, PATCH_MODEL
from training.data import clips, folds, group_fraction
from training.fusion.boosting import boosted_report
from training.fusion.calibration import TARGETS, Scores, Target, choose_thresholds
from training.fusion.corpus import Evidence, LabelledClip, labelled_clips
from training.fusion.crossfit import FOLDS, HeldOutSynchrony
from training.fusion.export import head_document, policy_document, write_set
from training.fusion.fitting import Fit, feature_names, fit_head, fit_temperature, held_out_log_odds
from training.fusion.report import counts, held_out_report
from training.fusion.rows import LabelledRow, labelled_row, rows_for, table_for
from training.fusion.statistics import statistics_of
from training.fusion.stills import still_rows
from training.served import ROOT

CACHE = ROOT / ".cache" / "fusion"
CLASSES = (0, 1)
FloatArray = npt.NDArray[np.float64]
STRENGTH = 1.0
"""Inverse L2 penalty: a stronger one shrinks the log-odds of strong evidence most, a weaker one gains nothing on whole
sources held out."""


MODEL_OF: Mapping[Branch, str] = MappingProxyType(
    {
        Branch.PATCH: PATCH_MODEL,
        Branch.FRAME: FRAME_MODEL,
        Branch.TEMPORAL: temporal.MODEL,
        Branch.AUDIO: SPOOF_MODEL,
        Branch.SYNC: SYNC_MODEL,
    }
)


def deployed(repository: ModelRepository) -> frozenset[Branch]:
    """Branches whose model is in the repository."""
    present = set(repository.names())
    return frozenset(branch for branch, name in MODEL_OF.items() if name in present)


def clip_rows(
    labelled: Iterable[LabelledClip], synchrony: HeldOutSynchrony, biased: frozenset[Branch]
) -> list[LabelledRow]:
    """Rows of clips, with synchrony scored by models that have not seen their group.

    Args:
        labelled: clips with their ledgers.
        synchrony: scores the SYNC line.
        biased: branches whose only model was trained on these clips; their scores are left out.
    """
    rows = []
    for clip in tqdm(labelled, desc="synchrony", unit="clip"):
        reports = (*clip.ledger.reports, synchrony.report(clip.ledger, clip.group))
        fair = [report for report in reports if report.branch not in biased]
        found = statistics_of(replace(clip.ledger, reports=reports))
        rows.append(labelled_row(clip.name, clip.group, clip.source, clip.kind, fair, found))
    return rows


def fit_all(
    rows: Sequence[LabelledRow], seed: int, facts: dict[str, Any]
) -> tuple[dict[frozenset[Branch], Any], dict[str, dict[str, Thresholds]]]:
    """Heads of all sets of branches, and each policy's thresholds by head.

    A set of branches for which there are no rows of both classes (one of them is not deployed yet) borrows.
    """
    heads: dict[frozenset[Branch], Any] = {}
    thresholds: dict[str, dict[str, Thresholds]] = {target.name: {} for target in TARGETS}
    for branches in branch_sets():
        chosen = rows_for(rows, branches)
        if len({row.fake for row in chosen}) < len(CLASSES):
            _borrow(branches, heads, thresholds, facts)
            continue
        table = table_for(chosen, branches)
        dealt = folds(table.groups, FOLDS, seed)
        log_odds = held_out_log_odds(table, dealt, STRENGTH)
        temperature = fit_temperature(log_odds, table)
        calibrated = log_odds / temperature
        probabilities = 0.5 * (1 + np.tanh(0.5 * calibrated))
        report = {
            **facts,
            "prior_odds": table.odds,
            "rows": counts(chosen),
            "held_out": held_out_report(chosen, probabilities, seed),
            "boosted": boosted_report(chosen, table, dealt, STRENGTH, seed),
        }
        heads[branches] = head_document(branches, fit_head(table, STRENGTH), temperature, report)
        scores = Scores(calibrated, table.labels, table.groups, table.weights)
        for target in TARGETS:
            thresholds[target.name][head_key(branches)] = choose_thresholds(scores, target)
    return heads, thresholds


def _borrow(
    branches: frozenset[Branch],
    heads: dict[frozenset[Branch], Any],
    thresholds: dict[str, dict[str, Thresholds]],
    facts: dict[str, Any],
) -> None:
    """Give a set of branches without clips the head of its largest fitted subset, or one that never decides."""
    subset = max((known for known in heads if known < branches), key=len, default=frozenset[Branch]())
    own = feature_names(branches)
    if not subset:
        empty = Fit(np.zeros(len(own)), np.ones(len(own)), np.zeros(len(own)), 0.0)
        heads[branches] = head_document(branches, empty, 1.0, {**facts, "rows": {}, "note": "no clips: undecided"})
        return
    lender = heads[subset]
    place = {name: at for at, name in enumerate(lender["features"])}

    def spread(values: Sequence[float], missing: float) -> FloatArray:
        return np.array([values[place[name]] if name in place else missing for name in own])

    fit = Fit(
        mean=spread(lender["scaler"]["mean"], 0.0),
        scale=spread(lender["scaler"]["scale"], 1.0),
        coefficients=spread(lender["coefficients"], 0.0),
        intercept=lender["intercept"],
    )
    note = f"no clips with all these branches: the head of {head_key(subset)}, with weight 0 for the others"
    heads[branches] = head_document(branches, fit, lender["temperature"], {**lender["training"], "note": note})
    for by_head in thresholds.values():
        if head_key(subset) in by_head:
            by_head[head_key(branches)] = by_head[head_key(subset)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, calibrate, write and check."""
    parser = argparse.ArgumentParser(prog="python -m training.fusion", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of forgeries, folds and bootstrap draws")
    parser.add_argument("--clips", type=int, default=None, help="only so many clips, drawn by the seed")
    parser.add_argument("--without-temporal", action="store_true", help="leave the temporal branch out")
    parser.add_argument("--out", type=Path, default=SHIPPED_HEADS, help="directory of the heads")
    options = parser.parse_args(arguments)
    evidence = Evidence(CACHE, options.seed)
    repository = evidence.pipelines.repository
    synchrony = HeldOutSynchrony(ROOT / ".cache", repository, options.seed)
    if temporal.MODEL in repository.names() and not options.without_temporal:
        evidence.held_out.fit_folds(clips(), CACHE, ROOT / ".cache" / "temporal" / "corpus", repository, options.seed)
    taken = sorted(clips(), key=lambda clip: group_fraction(clip.example.file, options.seed))[: options.clips]
    labelled = labelled_clips(taken, evidence, options.seed, deployed(repository))
    fair = {Branch.SYNC: synchrony.held_out, Branch.TEMPORAL: evidence.held_out.held_out}
    rows = clip_rows(labelled, synchrony, frozenset(branch for branch, is_fair in fair.items() if not is_fair))
    rows += still_rows(evidence, options.seed, options.clips)
    facts = {
        "seed": options.seed,
        "command": f"python -m training.fusion --seed {options.seed}",
        "date": datetime.now(UTC).date().isoformat(),
        "split": f"{FOLDS} folds by identity; synchrony by models of its own folds: {synchrony.held_out}",
        "inverse_penalty": STRENGTH,
        "models": repository.contents(),
    }
    heads, thresholds = fit_all(rows, options.seed, facts)
    policies = {target.name: _policy(target, thresholds[target.name], facts) for target in TARGETS}
    write_set(options.out, heads, policies)
    store = HeadStore(options.out, repository=repository)
    store.refresh()
    print(f"{len(store.heads)} heads and {len(policies)} policies in {options.out}")


def _policy(target: Target, thresholds: dict[str, Thresholds], facts: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    never = Thresholds(deepfake=1.0, authentic=0.0, false_positive_bound=0.0)
    note = "bounds hold for clips exchangeable with the calibration clips, and for no others"
    return policy_document(target, {**thresholds, ANY_HEAD: never}, {**facts, "note": note})


if __name__ == "__main__":
    main()
