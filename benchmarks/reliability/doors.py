"""Where generated input goes in: the gateway's own code, in this process, without a network."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.message import DecodeError

from benchmarks.reliability.inputs import Input, Kind
from bonafide.v1 import analysis_pb2
from services.common.errors import BonafideError
from services.common.errors import Kind as ErrorKind
from services.common.validation import Rules
from services.gateway.budget import Budget, Storage
from services.gateway.converters import chunks_from_proto, opening_from_proto, options_from_proto
from services.gateway.decoding import decode
from services.gateway.ingest import Spool
from services.gateway.limits import DecodeLimits
from services.gateway.reception import receive

LIMITS = DecodeLimits(max_pixels=4_000_000, max_duration_us=60_000_000, max_frames=2000, max_seconds=30.0, threads=1)
MAX_FILE_BYTES = 4 << 20
SPOOL_MEMORY_BYTES = 16 << 10
BLAMELESS = frozenset({ErrorKind.INVALID_ARGUMENT, ErrorKind.FAILED_PRECONDITION, ErrorKind.DEADLINE_EXCEEDED})
"""What bad input may be answered with; anything else is a fault of ours."""


class Doors:
    """Gives an input to the door of its kind.

    Every refusal must be a typed error that blames the input; anything else that is raised is a crash.
    """

    def __init__(self, reasons: frozenset[str]) -> None:
        self._rules = Rules()
        self._reasons = reasons
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(1))  # a pool that grows would look like a leak

    def enter(self, given: Input) -> str:
        """Take one input; the reason of its refusal, or "accepted".

        Raises:
            AssertionError: the refusal is not a documented one.
            Exception: whatever the code under test let out.
        """
        try:
            match given.kind:
                case Kind.CONTAINER:
                    self._file(given.messages[0])
                case Kind.STREAM:
                    self._upload(given.messages)
                case Kind.OPTIONS:
                    self._options(given.messages[0])
        except DecodeError:
            return "not a message"  # gRPC turns it away before our code
        except BonafideError as error:
            if error.kind not in BLAMELESS or error.reason not in self._reasons:
                raise AssertionError(f"{error.kind} {error.reason}: {error.message}") from error
            return error.reason
        return "accepted"

    def close(self) -> None:
        """Let go of the loop."""
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _file(self, data: bytes) -> None:
        decode(io.BytesIO(data), limits=LIMITS)

    def _options(self, wire: bytes) -> None:
        options = analysis_pb2.AnalyzeOptions.FromString(wire)
        self._rules.check(analysis_pb2.AnalyzeRequest(options=options))
        options_from_proto(options)

    def _upload(self, wires: Sequence[bytes]) -> None:
        self._loop.run_until_complete(self._take(wires))

    async def _take(self, wires: Sequence[bytes]) -> None:
        async def messages() -> AsyncIterator[analysis_pb2.AnalyzeRequest]:
            for wire in wires:
                message = analysis_pb2.AnalyzeRequest.FromString(wire)
                self._rules.check(message)
                yield message

        incoming = messages()
        options = options_from_proto(opening_from_proto(await anext(incoming, None)))
        with Spool(MAX_FILE_BYTES, SPOOL_MEMORY_BYTES) as spool:
            spool.expect(options.size_bytes)
            storage = Storage(Budget(MAX_FILE_BYTES), Budget(MAX_FILE_BYTES), SPOOL_MEMORY_BYTES)
            await receive(spool, storage, chunks_from_proto(incoming))
            decode(spool.finish(), limits=LIMITS)
