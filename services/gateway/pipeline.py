"""The story of one clip: decode, ask the branches, fuse, answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from services.common.errors import BonafideError
from services.common.evidence import (
    VISUAL_BRANCHES,
    AudioEvidence,
    Branch,
    BranchReport,
    FusionResult,
    Outcome,
    ReasonCode,
    Verdict,
    VisualEvidence,
)
from services.common.media import MediaInfo
from services.common.tracing import span
from services.gateway.analysis import (
    Analysis,
    AudioBranches,
    Case,
    Event,
    Evidence,
    Fusion,
    Options,
    Stage,
    VisualBranches,
)
from services.gateway.clock import Clock, progress
from services.gateway.decode_pool import DecodePool
from services.gateway.decoding import DecodedClip
from services.gateway.ingest import Spool
from services.gateway.ledger import Ledger, failure, sync_line

_CHEAPEST_VISUAL_BRANCH = Branch.PATCH


@dataclass(frozen=True, slots=True)
class Allowances:
    """Seconds that one clip may use.

    ``fusion_seconds`` are kept back of the caller's time to form the verdict, but never more than a quarter
    of what is left.
    """

    branch_seconds: float
    fusion_seconds: float


@dataclass(frozen=True, slots=True)
class _Side:
    """What became of one side of the fan-out: its lines, its evidence, or why there is none."""

    reports: tuple[BranchReport, ...]
    visual: VisualEvidence | None = None
    audio: AudioEvidence | None = None
    error: BonafideError | None = None


class Pipeline:
    """Analyses clips; holds no state between them."""

    def __init__(
        self,
        decoder: DecodePool,
        visual: VisualBranches,
        audio: AudioBranches,
        fusion: Fusion,
        allowances: Allowances,
    ) -> None:
        self._decoder = decoder
        self._visual = visual
        self._audio = audio
        self._fusion = fusion
        self._allowances = allowances

    async def run(
        self, options: Options, spool: Spool, clock: Clock, decoded: Callable[[DecodedClip], None]
    ) -> AsyncGenerator[Event, None]:
        """Analyse one upload.

        Args:
            options: what the caller wants.
            spool: the whole file; closed as soon as it is decoded, and in any case.
            clock: the caller's deadline.
            decoded: told of the clip as soon as it is decoded.

        Yields:
            Progress, each ledger line as it lands, and last the Analysis.

        Raises:
            InvalidInputError, LimitExceededError: the file or the options cannot be taken.
            UnavailableError: fusion, or every branch that applies, could not be reached.
            DeadlineError: the time was used up.
        """
        with spool:
            yield clock.enter(Stage.DECODING)
            with span("decode"):
                clip = await clock.within(self._decoder.decode(spool.finish()))
            decoded(clip)
            media = replace(clip.info, size_bytes=spool.size_bytes, sha256=spool.sha256)

        yield clock.enter(Stage.ANALYZING)
        ledger = Ledger(options.branches)
        for report in [*ledger.lines.values(), *ledger.add(_lacking_lines(clip))]:
            yield report
        sides: list[_Side] = []
        async with self._asked(clip, options.branches, media.sha256, clock) as asked:
            for landing in asyncio.as_completed(asked):
                sides.append(await landing)
                for report in ledger.add(sides[-1].reports):
                    yield report
                yield progress(Stage.ANALYZING, 0.9 * len(sides) / len(asked), until=Stage.FUSING)
        for report in ledger.missing(set(Branch) - {Branch.SYNC}):
            yield report

        yield clock.enter(Stage.FUSING)
        evidence = _gather(sides)
        verdict = await self._fuse(ledger, evidence, options, media.sha256, clock)
        if media.interrupted:
            verdict = _withheld(verdict)
        for report in ledger.add([_sync(verdict, clip, sides)]):
            yield report
        ledger.raise_if_unreachable()
        yield clock.enter(Stage.DONE)
        yield replace(_answer(options, ledger, evidence, verdict, media), timings=clock.timings)

    @asynccontextmanager
    async def _asked(
        self, clip: DecodedClip, branches: frozenset[Branch], content: str, clock: Clock
    ) -> AsyncIterator[list[asyncio.Task[_Side]]]:
        """The calls to the services that this clip needs, under way; cancelled if the block is left early."""
        left = clock.left()
        kept = min(self._allowances.fusion_seconds, left / 4)
        timeout = min(left - kept, self._allowances.branch_seconds)
        tasks: list[asyncio.Task[_Side]] = []
        needs_sync = Branch.SYNC in branches and clip.audio is not None and bool(clip.survey)
        if clip.survey and (needs_sync or branches & set(VISUAL_BRANCHES)):
            wanted = branches & frozenset(VISUAL_BRANCHES) or frozenset({_CHEAPEST_VISUAL_BRANCH})
            tasks.append(asyncio.create_task(self._ask_visual(clip, wanted, content, timeout)))
        if clip.audio is not None and (needs_sync or Branch.AUDIO in branches):
            wanted = branches & frozenset({Branch.AUDIO}) or frozenset({Branch.SYNC})
            tasks.append(asyncio.create_task(self._ask_audio(clip, wanted, content, timeout)))
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_visual(self, clip: DecodedClip, branches: frozenset[Branch], content: str, timeout: float) -> _Side:
        began = time.monotonic()
        try:
            evidence = await self._visual.analyze(clip.survey, clip.dense, branches, timeout=timeout, content=content)
        except BonafideError as error:
            return _Side(_budgeted(_failures(branches, error, began), timeout), error=error)
        return _Side(_budgeted(evidence.reports, timeout), visual=evidence)

    async def _ask_audio(self, clip: DecodedClip, branches: frozenset[Branch], content: str, timeout: float) -> _Side:
        assert clip.audio is not None
        began = time.monotonic()
        try:
            evidence = await self._audio.analyze(clip.audio, branches, timeout=timeout, content=content)
        except BonafideError as error:
            return _Side(_budgeted(_failures(branches & {Branch.AUDIO}, error, began), timeout), error=error)
        return _Side(_budgeted(evidence.reports, timeout), audio=evidence)

    async def _fuse(
        self, ledger: Ledger, evidence: Evidence, options: Options, content: str, clock: Clock
    ) -> FusionResult:
        lines = tuple(line for line in ledger.lines.values() if line.branch is not Branch.SYNC)
        case = Case(lines, evidence, options.branches, options.policy, content)
        with span("fuse"):
            return await self._fusion.fuse(case, timeout=clock.left())


def _lacking(clip: DecodedClip) -> ReasonCode | None:
    """The side that the file does not have; pictures are named first."""
    if not clip.survey:
        return ReasonCode.NO_VIDEO
    return ReasonCode.NO_AUDIO if clip.audio is None else None


def _lacking_lines(clip: DecodedClip) -> Iterable[BranchReport]:
    if not clip.survey:
        for branch in VISUAL_BRANCHES:
            yield BranchReport(branch, Outcome.NOT_APPLICABLE, ReasonCode.NO_VIDEO)
    if clip.audio is None:
        yield BranchReport(Branch.AUDIO, Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO)


def _failures(branches: Iterable[Branch], error: BonafideError, began: float) -> tuple[BranchReport, ...]:
    milliseconds = (time.monotonic() - began) * 1000
    return tuple(failure(branch, error, milliseconds) for branch in sorted(branches))


def _budgeted(reports: Iterable[BranchReport], timeout: float) -> tuple[BranchReport, ...]:
    """The lines of branches that were asked, with the time they were given (seconds)."""
    return tuple(
        report
        if report.outcome is Outcome.NOT_REQUESTED
        else replace(report, budget_milliseconds=max(timeout, 0.0) * 1000)
        for report in reports
    )


def _gather(sides: Iterable[_Side]) -> Evidence:
    evidence = Evidence()
    for side in sides:
        evidence = Evidence(side.visual or evidence.visual, side.audio or evidence.audio)
    return evidence


def _withheld(verdict: FusionResult) -> FusionResult:
    """No verdict: damage inside a file leaves traces that nobody can tell from a forger's."""
    return replace(verdict, verdict=Verdict.INCONCLUSIVE, probability=None, reasons=(ReasonCode.TOO_LITTLE_EVIDENCE,))


def _sync(verdict: FusionResult, clip: DecodedClip, sides: Iterable[_Side]) -> BranchReport:
    error = next((side.error for side in sides if side.error is not None), None)
    return sync_line(verdict.sync, lacking=_lacking(clip), error=error)


def _answer(options: Options, ledger: Ledger, evidence: Evidence, verdict: FusionResult, media: MediaInfo) -> Analysis:
    return Analysis(
        request_id=options.request_id,
        fusion=verdict,
        reasons=_reasons(verdict, evidence, partial=media.partial),
        branches=ledger.complete(),
        media=media,
        timings=(),
        evidence=evidence,
    )


def _reasons(verdict: FusionResult, evidence: Evidence, *, partial: bool) -> tuple[ReasonCode, ...]:
    """Fusion's grounds, then what the gateway knows besides."""
    reasons = list(verdict.reasons)
    if partial:
        reasons.append(ReasonCode.PARTIAL_MEDIA)
    if evidence.visual is not None and evidence.visual.tracks_skipped:
        reasons.append(ReasonCode.TRACKS_SKIPPED)
    return tuple(dict.fromkeys(reasons))
