"""The other services as the pipeline sees them, over gRPC. Every call has a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bonafide.v1 import audio_pb2_grpc, fusion_pb2_grpc, visual_pb2_grpc
from services.common.errors import BonafideError, InvalidInputError, UnavailableError
from services.common.evidence import AudioEvidence, Branch, FusionResult, VisualEvidence
from services.common.media import AudioTrack, Frame
from services.common.status import error_reason, from_rpc_error
from services.gateway.analysis import Case
from services.gateway.converters import (
    audio_evidence_from_proto,
    faces_request,
    fuse_request,
    fusion_from_proto,
    speech_request,
    visual_from_proto,
)

HEALTH_SECONDS = 2.0

Response = TypeVar("Response")


class Peer:
    """A connection to one service of ours."""

    def __init__(self, title: str, channel: grpc.aio.Channel) -> None:
        self.title = title
        self.channel = channel
        self._health: Any = health_pb2_grpc.HealthStub(self.channel)  # grpc_health is untyped

    async def answer(self, call: Awaitable[Response]) -> Response:
        """Wait for a call; its failure becomes an error of ours."""
        try:
            return await call
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.title) from error

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
        self._stub: visual_pb2_grpc.VisualServiceAsyncStub = visual_pb2_grpc.VisualServiceStub(peer.channel)

    async def analyze(
        self, survey: Sequence[Frame], dense: Sequence[Frame], branches: frozenset[Branch], *, timeout: float
    ) -> VisualEvidence:
        """See VisualBranches."""
        request = await asyncio.to_thread(faces_request, tuple(survey), tuple(dense), branches)
        return visual_from_proto(await self._peer.answer(self._stub.AnalyzeFaces(request, timeout=timeout)))


class AudioClient:
    """AudioBranches over gRPC."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub: audio_pb2_grpc.AudioServiceAsyncStub = audio_pb2_grpc.AudioServiceStub(peer.channel)

    async def analyze(self, audio: AudioTrack, branches: frozenset[Branch], *, timeout: float) -> AudioEvidence:
        """See AudioBranches."""
        request = speech_request(audio, branches)
        return audio_evidence_from_proto(await self._peer.answer(self._stub.AnalyzeSpeech(request, timeout=timeout)))


class FusionClient:
    """Fusion over gRPC."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub: fusion_pb2_grpc.FusionServiceAsyncStub = fusion_pb2_grpc.FusionServiceStub(peer.channel)

    async def fuse(self, case: Case, *, timeout: float) -> FusionResult:
        """See Fusion.

        Raises:
            InvalidInputError: the caller's policy does not exist (UNKNOWN_POLICY).
            BonafideError: fusion failed, is late or cannot be reached.
        """
        try:
            answer = await self._stub.Fuse(fuse_request(case), timeout=timeout)
        except grpc.RpcError as error:
            if error_reason(error) == "UNKNOWN_POLICY":
                raise InvalidInputError("there is no policy of that name", reason="UNKNOWN_POLICY") from error
            raise from_rpc_error(error, self._peer.title) from error
        return fusion_from_proto(answer)


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
