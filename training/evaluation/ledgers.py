"""From clips to rows: which forgeries to make, and what the branches and the heads say of each variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from services.common.errors import BonafideError
from services.common.evidence import Branch, BranchReport, Outcome
from services.fusion.features import clip_features, scored_branches
from services.fusion.heads import head_key
from services.fusion.pipeline import FusionInput
from training.data import Clip, group_fraction
from training.evaluation.clips import CODED, ORIGINAL, ClipJob, collect, jobs_in_order
from training.evaluation.discovery import ClipSet
from training.evaluation.rows import CLEAN, FUSED, GENERATED, REAL, Row
from training.evaluation.work import done
from training.forging import Forgery, Source, donors, shift_of
from training.served import ServedPipelines

ENOUGH_OF_A_KIND = 5
"""A set that brings fewer clips of a kind gets some made from its real ones."""
CODED_CLIPS_A_CLASS = 12
RATE_FACTORS = (32, 40)
_KIND_MARKS = (("still", Forgery.STILL), ("shift", Forgery.SHIFTED), ("dub", Forgery.DUBBED), ("swap", Forgery.DUBBED))


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """Where models, heads and cache are, how many processes work, and whether robustness is measured."""

    models: Path
    heads: Path
    cache: Path
    processes: int = 1
    robustness: bool = True


@dataclass(frozen=True, slots=True)
class ClipRows:
    """Rows of all variants, and the names of the clips that the gateway refused."""

    rows: tuple[Row, ...]
    refused: tuple[str, ...]


def kind_of(clip: Clip) -> str:
    """``real``, ``generated``, a forgery's name, or empty for a clip shifted by nothing.

    Labels like ``real_shifted`` name what was done to a real clip; ``fake`` is a generated or altered face.
    """
    label = clip.example.label.lower()
    if not clip.example.fake:
        return REAL
    for mark, forgery in _KIND_MARKS:
        if mark in label:
            unmoved = forgery is Forgery.SHIFTED and _number(clip.example.fields.get("offset_ms"), 1.0) == 0
            return "" if unmoved else str(forgery)
    return GENERATED


def score_clips(found: ClipSet, options: ClipOptions) -> ClipRows:
    """Rows of a set's clips and of forgeries made from its real ones where it lacks them."""
    kinds = {clip.path: kind_of(clip) for clip in found.clips}
    clips = [clip for clip in found.clips if kinds[clip.path]]
    jobs = jobs_in_order(_jobs(clips, kinds, options))
    evidence = {
        job.path: ledgers.variants
        for job, ledgers in done(collect, jobs, title=f"clips of {found.name}", processes=options.processes)
    }
    judge = Judge(ServedPipelines(options.models, options.heads))
    rows, refused = [], []
    for clip in clips:
        variants = evidence[clip.path]
        if not variants:
            refused.append(clip.path.name)
        for variant, ledger in variants.items():
            rows.append(_row(clip, found.name, variant, kinds[clip.path], judge.scores(ledger)))
    return ClipRows(tuple(rows), tuple(refused))


def _jobs(clips: Sequence[Clip], kinds: Mapping[Path, str], options: ClipOptions) -> list[ClipJob]:
    present = list(kinds.values())
    lacking = tuple(forgery for forgery in Forgery if present.count(forgery) < ENOUGH_OF_A_KIND)
    speaking = [clip for clip in clips if kinds[clip.path] == REAL and _has_sound(clip)]
    sources = [
        Source(str(clip.path), clip.example.group, _number(clip.example.fields.get("seconds"), 0.0))
        for clip in speaking
    ]
    lent = donors(sources)
    coded = _coded(clips, kinds) if options.robustness else frozenset()
    jobs = []
    for clip in clips:
        donor = lent.get(str(clip.path))
        forgeries = lacking if clip in speaking else ()
        if donor is None:
            forgeries = tuple(forgery for forgery in forgeries if forgery is not Forgery.DUBBED)
        jobs.append(
            ClipJob(
                models=options.models,
                cache=options.cache / "evidence",
                path=clip.path,
                forgeries=forgeries,
                donor=Path(donor) if donor is not None else None,
                shift_us=shift_of(clip.path.name),
                rate_factors=RATE_FACTORS if clip.path in coded else (),
            )
        )
    return jobs


def _coded(clips: Sequence[Clip], kinds: Mapping[Path, str]) -> frozenset[Path]:
    """The clips that are also re-encoded: some of each class, whole draws by name."""
    chosen: set[Path] = set()
    for kind in (REAL, GENERATED):
        of_kind = sorted(
            (clip.path for clip in clips if kinds[clip.path] == kind), key=lambda p: group_fraction(p.name)
        )
        chosen |= set(of_kind[:CODED_CLIPS_A_CLASS])
    return frozenset(chosen)


def _has_sound(clip: Clip) -> bool:
    return _number(clip.example.fields.get("has_audio"), 1.0) > 0


def _number(text: str | None, missing: float) -> float:
    try:
        return float(text) if text else missing
    except ValueError:
        return missing


@dataclass(frozen=True, slots=True)
class ClipScores:
    """What one ledger leads to: by branch, by head of fewer branches, and the verdict of each policy."""

    scores: Mapping[str, float]
    subsets: Mapping[str, float]
    verdicts: Mapping[str, str]


class Judge:
    """Fuses ledgers as served, and as if branches were missing."""

    def __init__(self, pipelines: ServedPipelines) -> None:
        self._pipelines = pipelines
        self._fuses = not pipelines.heads_fault

    def scores(self, ledger: FusionInput) -> ClipScores:
        """Scores of all branches that answered."""
        if not self._fuses:
            return ClipScores(_by_branch([*ledger.reports, self._pipelines.synchrony(ledger)]), {}, {})
        result = self._pipelines.fuse(ledger)
        reports = [*ledger.reports, result.sync]
        scores = _by_branch(reports)
        if result.probability is None:
            return ClipScores(scores, {}, {})
        branches = scored_branches(reports)
        return ClipScores(
            {**scores, FUSED: result.probability}, self._subsets(reports), self._verdicts(branches, result.probability)
        )

    def _subsets(self, reports: Sequence[BranchReport]) -> dict[str, float]:
        """P(deepfake) of the head of every set of the branches that scored."""
        features = clip_features(reports)
        present = sorted(scored_branches(reports))
        heads = self._pipelines.heads.heads
        found = {}
        for size in range(1, len(present) + 1):
            for chosen in combinations(present, size):
                branches = frozenset(chosen)
                found[head_key(branches).replace("_", "+")] = heads[branches].probability(features)
        return found

    def _verdicts(self, branches: frozenset[Branch], probability: float) -> dict[str, str]:
        policies = self._pipelines.heads.policies
        found = {}
        for name in policies.names():
            try:
                found[name] = policies.get(name).decide(branches, probability)[0].value
            except BonafideError:
                continue
        return found


def _by_branch(reports: Sequence[BranchReport]) -> dict[str, float]:
    return {
        report.branch.value: report.score
        for report in reports
        if report.outcome is Outcome.SCORED and report.score is not None
    }


def _row(clip: Clip, collection: str, variant: str, kind: str, found: ClipScores) -> Row:
    forged = variant in set(Forgery)
    fields = clip.example.fields
    condition = variant if variant.startswith(CODED) else CLEAN
    return Row(
        name=clip.path.name if variant == ORIGINAL else f"{clip.path.name}:{variant}",
        collection=collection,
        label=1 if forged else clip.example.fake,
        group=clip.example.group,
        scores=found.scores,
        source=fields.get("source") or "",
        method=(fields.get("method") or "") if kind == GENERATED and not forged else "",
        kind=variant if forged else kind,
        condition=condition,
        traits={"forged_here": float(forged)},
        subsets=found.subsets,
        verdicts=found.verdicts,
    )
