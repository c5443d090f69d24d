"""The other services as the pipeline sees them, over gRPC. Every call has a deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bonafide.v1 import audio_pb2_grpc, fusion_pb2, fusion_pb2_grpc, visual_pb2
from services.common.admission import MESSAGE_BYTES_KEY
from services.common.errors import (
    BonafideError,
    DeadlineError,
    InvalidInputError,
    ResourceExhaustedError,
    UnavailableError,
)
from services.common.evidence import AudioEvidence, Branch, FusionResult, VisualEvidence
from services.common.media import AudioTrack, Frame
from services.common.status import from_rpc_error
from services.gateway.analysis import Case
from services.gateway.breaker import CircuitBreaker
from services.gateway.converters import (
    audio_evidence_from_proto,
    fuse_request,
    fusion_from_proto,
    speech_request,
    visual_from_proto,
)
from services.gateway.faces_request import faces_request
from services.gateway.hedging import hedged

HEALTH_SECONDS = 2.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
FAIR_SECONDS = 10.0
"""Who had less time than this may time out without the service being unwell."""

Request = Message | bytes
Response = TypeVar("Response")


class Peer:
    """A connection to one service of ours."""

    def __init__(self, title: str, channel: grpc.aio.Channel, breaker: CircuitBreaker) -> None:
        self.title = title
        self.channel = channel
        self.breaker = breaker
        self._health: Any = health_pb2_grpc.HealthStub(self.channel)  # grpc_health is untyped

    async def ask(self, method: Callable[..., Awaitable[Response]], request: Request, *, timeout: float) -> Response:
        """Call a method through this peer's circuit; while the peer is at its limit, again after a pause.

        Args:
            method: the stub's.
            request: what to ask; bytes for a method that takes its message serialised.
            timeout: seconds for all attempts together.

        Raises:
            BonafideError: what the failure stands for.
        """

        def unwell(error: BaseException) -> bool:
            return isinstance(error, BonafideError) and _says_unwell(error, timeout)

        return await self.breaker.call(lambda: self._attempt(method, request, timeout), unwell=unwell)

    async def _attempt(self, method: Callable[..., Awaitable[Response]], request: Request, timeout: float) -> Response:
        ends = time.monotonic() + timeout
        size = len(request) if isinstance(request, bytes) else request.ByteSize()
        metadata = ((MESSAGE_BYTES_KEY, str(size)),)
        pause = FIRST_PAUSE_SECONDS
        while True:
            left = ends - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"no time was left to ask {self.title}")
            try:
                return await method(request, timeout=left, metadata=metadata)
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self.title)
                # Spread at random, so that requests which were refused together do not come back together.
                wait = max(pause, failure.retry_after_seconds or 0.0) * random.uniform(1.0, 1.5)  # noqa: S311
                if not _asks_to_wait(failure) or time.monotonic() + wait >= ends:
                    raise failure from error
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def check_serving(self) -> None:
        """Ask for its health.

        Raises:
            UnavailableError: it cannot be reached or must not get traffic.
        """
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
        except grpc.RpcError as error:
            raise UnavailableError(f"{self.title} cannot be reached") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise UnavailableError(f"{self.title} is not ready")

    async def close(self) -> None:
        """Close the connection."""
        await self.channel.close()


class VisualClient:
    """VisualBranches over gRPC."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        method = visual_pb2.DESCRIPTOR.services_by_name["VisualService"].methods_by_name["AnalyzeFaces"]
        # No stub: the request is bytes already.
        self._analyze_faces: grpc.aio.UnaryUnaryMultiCallable[bytes, visual_pb2.AnalyzeFacesResponse]
        self._analyze_faces = peer.channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            response_deserializer=visual_pb2.AnalyzeFacesResponse.FromString,
        )

    async def analyze(
        self,
        survey: Sequence[Frame],
        dense: Sequence[Frame],
        branches: frozenset[Branch],
        *,
        timeout: float,
        content: str = "",
    ) -> VisualEvidence:
        """See VisualBranches."""
        request = await asyncio.to_thread(faces_request, tuple(survey), tuple(dense), branches, content)
        return visual_from_proto(await self._peer.ask(self._analyze_faces, request, timeout=timeout))


class AudioClient:
    """AudioBranches over gRPC."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub: audio_pb2_grpc.AudioServiceAsyncStub = audio_pb2_grpc.AudioServiceStub(peer.channel)

    async def analyze(
        self, audio: AudioTrack, branches: frozenset[Branch], *, timeout: float, content: str = ""
    ) -> AudioEvidence:
        """See AudioBranches."""
        request = speech_request(audio, branches, content)
        return audio_evidence_from_proto(await self._peer.ask(self._stub.AnalyzeSpeech, request, timeout=timeout))


class FusionClient:
    """Fusion over gRPC. Its calls are small and change nothing, so one that is late is asked a second time.

    Args:
        peer: the service.
        hedge_seconds: how late.
    """

    def __init__(self, peer: Peer, hedge_seconds: float) -> None:
        self._peer = peer
        self._hedge_seconds = hedge_seconds
        self._stub: fusion_pb2_grpc.FusionServiceAsyncStub = fusion_pb2_grpc.FusionServiceStub(peer.channel)

    async def fuse(self, case: Case, *, timeout: float) -> FusionResult:
        """See Fusion.

        Raises:
            InvalidInputError: the caller's policy does not exist (UNKNOWN_POLICY).
            BonafideError: fusion failed, is late or cannot be reached.
        """
        request = fuse_request(case)

        def ask() -> Awaitable[fusion_pb2.FuseResponse]:
            return self._peer.ask(self._stub.Fuse, request, timeout=timeout)

        try:
            answer = await hedged(ask, after=self._hedge_seconds)
        except BonafideError as error:
            if error.reason == "UNKNOWN_POLICY":
                raise InvalidInputError("there is no policy of that name", reason="UNKNOWN_POLICY") from error
            raise
        return fusion_from_proto(answer)


def _asks_to_wait(failure: BonafideError) -> bool:
    """Whether a service refused because it is at its limit now; a message that is too large never fits."""
    return isinstance(failure, ResourceExhaustedError) and failure.retry_after_seconds is not None


def _says_unwell(failure: BonafideError, timeout: float) -> bool:
    """Whether a failure is a sign that the service itself is out of order.

    An error inside the service is none: one caller's odd clips must not take the branch from all others.
    """
    if isinstance(failure, DeadlineError):
        return timeout >= FAIR_SECONDS
    return isinstance(failure, UnavailableError) and not isinstance(failure, ResourceExhaustedError)


async def check_ready(fusion: Peer, branches: Sequence[Peer]) -> None:
    """A verdict is possible: fusion serves, and so does at least one side.

    Raises:
        BonafideError: it is not; says whom it waits for.
    """
    await fusion.check_serving()
    answers = await asyncio.gather(*(peer.check_serving() for peer in branches), return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BonafideError)]
    if len(failures) == len(branches):
        raise failures[0]
