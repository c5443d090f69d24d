"""The way of a request to its analysis: in at the door, then the answer given before, or a turn of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from services.common.callers import current_caller
from services.common.errors import DeadlineError, UnavailableError
from services.common.evidence import BranchReport, Outcome
from services.common.tracing import span
from services.gateway.admission import Admission, Applicant
from services.gateway.analysis import Analysis, Event, Options, Priority, Stage
from services.gateway.answers import Answers, Question, RequestIds
from services.gateway.budget import Storage
from services.gateway.clock import Clock, progress
from services.gateway.decoding import DecodedClip
from services.gateway.flights import Flights
from services.gateway.ingest import Spool
from services.gateway.journal import Entry, written_down
from services.gateway.metrics import FLIGHT, KEPT, GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.served_models import ModelFingerprint
from services.gateway.upload_pace import UploadPace, keep_pace

COPIES_OF_A_CLIP = 4
"""Decoded pictures exist as arrays, as a request's bytes and as gRPC's copy of those; the decoder holds some more."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bytes of one upload, in all and kept in memory, how fast they must come, and where the others are kept.

    Without a ``directory`` that is the system's for temporary files.
    """

    max_file_bytes: int
    spool_memory_bytes: int
    pace: UploadPace
    directory: Path | None = None


class Reception:
    """Takes uploads in and has them analysed.

    Args:
        pipeline: analyses clips.
        admission: the door and the turns.
        answers: those given before.
        request_ids: what they stood for.
        models: the fingerprint of the models at work.
        metrics: told what becomes of requests.
        limits: of one upload.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        admission: Admission,
        answers: Answers,
        request_ids: RequestIds,
        models: ModelFingerprint,
        metrics: GatewayMetrics,
        limits: UploadLimits,
    ) -> None:
        self._pipeline = pipeline
        self._admission = admission
        self._answers = answers
        self._request_ids = request_ids
        self._models = models
        self._metrics = metrics
        self._limits = limits
        self._flights: Flights[tuple[Question, Priority], Event] = Flights()

    async def analyze(
        self, options: Options, chunks: AsyncIterator[bytes], *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """Analyse one upload.

        Args:
            options: what the caller wants.
            chunks: the file's bytes as they arrive.
            timeout: seconds until the caller's deadline.

        Yields:
            Progress, each ledger line once, and last the Analysis.

        Raises:
            ResourceExhaustedError: there is no place, or no room, for this request now.
            InvalidInputError: the request id was used for another request; and what ``Pipeline.run`` raises.
            BonafideError: what ``Pipeline.run`` raises, and for uploads that are too large, slow, empty or not
                those that were declared.
        """
        with written_down(options) as entry:
            async with aclosing(self._events(options, chunks, Clock(timeout, self._metrics.stage), entry)) as events:
                async for event in events:
                    entry.note(event)
                    yield event

    async def _events(
        self, options: Options, chunks: AsyncIterator[bytes], clock: Clock, entry: Entry
    ) -> AsyncGenerator[Event, None]:
        with ExitStack() as held:
            spool = held.enter_context(self._spool())
            storage = held.enter_context(self._admission.storage())
            spool.expect(options.size_bytes)
            with self._admission.door(_applicant(options, clock)):
                storage.hold(options.size_bytes)
                yield clock.enter(Stage.RECEIVING)
                try:
                    with span("receive"):
                        await clock.within(receive(spool, storage, keep_pace(chunks, self._limits.pace)))
                finally:
                    clock.stop()
                    self._metrics.received(spool.size_bytes)
            spool.verify(options.sha256)
            entry.identified(spool.sha256)
            question = await self._question(options, spool)
            self._request_ids.claim(options.request_id, question)
            known = await self._known(question, options, clock)
            if known is not None:
                for event in _told_again(known, options):
                    yield event
                return
            work = self._compute(question, options, spool, clock)
            flight = self._flights.start((question, options.priority), work)
            flight.when_over(held.pop_all().close)
        async with aclosing(flight.watch()) as events:
            async for event in events:
                yield event

    def _spool(self) -> Spool:
        limits = self._limits
        return Spool(limits.max_file_bytes, limits.spool_memory_bytes, limits.directory)

    async def _question(self, options: Options, spool: Spool) -> Question:
        models = await self._models.current()
        return Question(current_caller().name, spool.sha256, models, options.branches, options.policy)

    async def _known(self, question: Question, options: Options, clock: Clock) -> Analysis | None:
        """The answer that need not be worked out; None when there is none."""
        if kept := self._answers.find(question):
            self._metrics.reused(KEPT)
            return kept
        if shared := await self._shared(question, options, clock):
            self._metrics.reused(FLIGHT)
            return shared
        return None

    async def _shared(self, question: Question, options: Options, clock: Clock) -> Analysis | None:
        """The answer to the same question that is being worked out already; None to work it out anew.

        Whoever began it may have had less time than there is here, and fail or lack branches for that.
        """
        flight = self._flights.find((question, options.priority))
        if flight is None or not self._answers.wanted:
            return None
        try:
            answer = await clock.within(flight.last())
        except (DeadlineError, UnavailableError):
            if not clock.left():
                raise
            return None
        late = isinstance(answer, Analysis) and any(line.outcome is Outcome.TIMED_OUT for line in answer.branches)
        return answer if isinstance(answer, Analysis) and not late else None

    async def _compute(
        self, question: Question, options: Options, spool: Spool, clock: Clock
    ) -> AsyncGenerator[Event, None]:
        yield clock.enter(Stage.QUEUED)
        try:
            async with AsyncExitStack() as turn:
                with span("queue"):
                    holds = await turn.enter_async_context(self._admission.turn(_applicant(options, clock)))

                def decoded(clip: DecodedClip) -> None:
                    holds(COPIES_OF_A_CLIP * clip.size_bytes)
                    self._metrics.decoded(clip.info)

                async with aclosing(self._pipeline.run(options, spool, clock, decoded)) as events:
                    async for event in events:
                        if isinstance(event, BranchReport):
                            self._metrics.reported(event)
                        elif isinstance(event, Analysis):
                            self._metrics.computed(event, options.priority)
                            self._answers.keep(question, event)
                        yield event
        finally:
            clock.stop()


def _applicant(options: Options, clock: Clock) -> Applicant:
    return Applicant(current_caller().name, options.priority, clock.left())


async def receive(spool: Spool, storage: Storage, chunks: AsyncIterator[bytes]) -> None:
    """Write an upload down as it arrives, within the room that its storage finds."""
    async for chunk in chunks:
        storage.hold(spool.size_bytes + len(chunk))
        await asyncio.to_thread(spool.write, chunk)


def _told_again(analysis: Analysis, options: Options) -> Iterator[Event]:
    """An answer that is known, as if it had just been worked out; it says that it was not."""
    yield from analysis.branches
    yield progress(Stage.DONE)
    yield replace(analysis, request_id=options.request_id, cached=True)
