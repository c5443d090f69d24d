"""Rows of the shared clips by models and heads that never met them.

The temporal network, the synchrony head and the fusion heads learn from all of the shared clips. So here each
clip is scored by the models of the fold that held it out, as the heads were fitted, and fused by heads that have
not seen its group; a policy's thresholds are those that were chosen on these very scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.evidence import Branch, BranchReport, Outcome
from services.fusion.heads import branch_sets, head_key
from services.fusion.policy import PolicySet
from services.visual import temporal
from training.data import Clip, folds
from training.evaluation.rows import CLEAN, FUSED, GENERATED, REAL, Row
from training.fusion.__main__ import CACHE, STRENGTH, deployed
from training.fusion.corpus import Evidence, Kind, LabelledClip, Part, labelled_clips
from training.fusion.crossfit import FOLDS, HeldOutSynchrony
from training.fusion.fitting import fit_temperature, held_out_log_odds
from training.fusion.rows import LabelledRow, labelled_row, rows_for, table_for
from training.fusion.stills import still_rows
from training.served import ROOT

SEED = 0
NAMES = {Kind.REAL: REAL, Kind.GENERATED: GENERATED}
CLASSES = 2


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """One variant of a clip with its whole ledger, every line by models that had not met it."""

    clip: LabelledClip
    reports: tuple[BranchReport, ...]

    @property
    def row(self) -> LabelledRow:
        """What heads are fitted on."""
        clip = self.clip
        return labelled_row(clip.name, clip.group, clip.source, clip.kind, self.reports)


def held_out_clip_rows(clips: Sequence[Clip], policies: PolicySet | None) -> list[Row]:
    """One row a variant of a clip; see the module.

    Args:
        clips: the shared clips.
        policies: those whose verdicts are wanted; None if there are no heads yet.
    """
    evidence = Evidence(CACHE, SEED)
    scored = _scored(clips, evidence)
    fused = _fused([*(one.row for one in scored), *still_rows(evidence, SEED)])
    examples = {clip.example.file: clip for clip in clips}
    return [_row(one, examples, fused.get(one.clip.name, {}), policies) for one in scored]


def _scored(clips: Sequence[Clip], evidence: Evidence) -> list[ScoredClip]:
    repository = evidence.pipelines.repository
    synchrony = HeldOutSynchrony(ROOT / ".cache", repository, SEED)
    biased = frozenset() if synchrony.held_out else frozenset({Branch.SYNC})
    if temporal.MODEL in repository.names():
        evidence.held_out.fit_folds(tuple(clips), CACHE, ROOT / ".cache" / "temporal" / "corpus", repository, SEED)
    found = []
    for clip in labelled_clips(clips, evidence, SEED, deployed(repository)):
        reports = (*clip.ledger.reports, synchrony.report(clip.ledger, clip.group))
        found.append(ScoredClip(clip, tuple(report for report in reports if report.branch not in biased)))
    return found


def _fused(rows: Sequence[LabelledRow]) -> dict[str, dict[frozenset[Branch], float]]:
    """Name of a row → P(deepfake) of the head of every set of its branches, fitted without its group."""
    fused: dict[str, dict[frozenset[Branch], float]] = {}
    for branches in branch_sets():
        learnt = rows_for(rows, branches)
        if len({row.fake for row in learnt}) < CLASSES:
            continue
        log_odds, temperature = _out_of_fold(learnt, branches)
        for row, value in zip(learnt, log_odds / temperature, strict=True):
            fused.setdefault(row.name, {})[branches] = float(0.5 * (1 + np.tanh(0.5 * value)))
    return fused


def _out_of_fold(rows: Sequence[LabelledRow], branches: frozenset[Branch]) -> tuple[npt.NDArray[np.float64], float]:
    table = table_for(rows, branches)
    log_odds = held_out_log_odds(table, folds(table.groups, FOLDS, SEED), STRENGTH)
    return log_odds, fit_temperature(log_odds, table)


def _row(
    one: ScoredClip,
    examples: Mapping[str, Clip],
    fused: Mapping[frozenset[Branch], float],
    policies: PolicySet | None,
) -> Row:
    file, _, pictures, sound = one.clip.name.rsplit(":", 3)
    fields = examples[file].example.fields
    branches = one.row.branches
    scores = {
        report.branch.value: report.score
        for report in one.reports
        if report.outcome is Outcome.SCORED and report.score is not None
    }
    verdicts: dict[str, str] = {}
    if branches in fused:
        scores[FUSED] = fused[branches]
        if policies is not None:
            decided = ((name, policies.get(name).decide(branches, fused[branches])) for name in policies.names())
            verdicts = {name: decision[0].value for name, decision in decided}
    kind = NAMES.get(one.clip.kind, one.clip.kind.value)
    forged = {pictures, sound} - {Part.PLAIN, Part.RECOMPRESSED}
    return Row(
        name=one.clip.name,
        collection="clips",
        label=one.clip.fake,
        group=one.clip.group,
        scores=scores,
        source=one.clip.source,
        method=fields.get("method", "") if kind == GENERATED else "",
        kind=kind,
        condition=Part.RECOMPRESSED.value if Part.RECOMPRESSED in (pictures, sound) else CLEAN,
        traits={"forged_here": float(bool(forged))},
        subsets={head_key(members).replace("_", "+"): value for members, value in fused.items()},
        verdicts=verdicts,
    )
