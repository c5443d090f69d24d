"""An open-loop load generator in a process of its own: requests leave on schedule, however slow the answers are.

``python -m benchmarks.reliability.load PLAN ANSWERS`` reads a ``LoadPlan`` as JSON, says ``started`` on stdout when
the first request leaves, and writes one ``Answer`` as JSON a line. Everything that a request sends is made
beforehand but its id and a few bytes, and nothing is read of an answer while the load lasts.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from rich.console import Console
from rich.progress import Progress

from benchmarks.reliability.checker import Answer, Line
from benchmarks.reliability.samples import Sample, read_samples
from bonafide.aio_statuses import ServerStatuses
from bonafide.analysis import Analysis, analysis_from_proto
from bonafide.v1 import analysis_pb2

METHOD = "/bonafide.v1.AnalysisService/Analyze"
CHUNK_BYTES = 128 * 1024
CHANNELS = 4
LONGEST_TEXT = 100
RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
PRIORITY_FIELD = analysis_pb2.AnalyzeOptions.DESCRIPTOR.fields_by_name.get("priority")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One load.

    ``targets`` are HOST:PORT of gateways; ``rate`` is in requests a second on average, spaced as a Poisson
    process or evenly; ``attempts`` is how often a request is sent in all while the answer says that trying again may
    help, with the same id and bytes and no sooner than the server asks, as the client does. ``count`` 0 means as
    many as fit into ``seconds``. With ``most_outstanding`` above 0 a request waits for one to end when so many are
    under way; ``began`` is then when it really left. After ``stop_after`` seconds, when above 0, none leaves.
    """

    targets: Sequence[str]
    samples: str
    rate: float
    seconds: float
    count: int = 0
    deadline_seconds: float = 20.0
    attempts: int = 1
    priorities: Sequence[str] = ("interactive",)
    evenly: bool = False
    most_outstanding: int = 0
    stop_after: float = 0.0
    seed: int = 0
    metadata: Sequence[tuple[str, str]] = field(default_factory=tuple)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Request:
    """One request to be: what it is, when it leaves, and the messages it sends."""

    number: int
    sample: Sample
    priority: str
    leaves: float
    request_id: str
    nonce: bytes
    messages: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, unread: the last message, or the error."""

    request: Request
    seconds: float
    last: bytes
    error: grpc.RpcError | None


class LoadGenerator:
    """Sends what a plan says and keeps every reply."""

    def __init__(self, plan: LoadPlan, samples: Sequence[Sample]) -> None:
        self._plan = plan
        self._samples = samples
        self._bodies = {sample.name: _chunks(sample.body) for sample in samples}
        self._random = random.Random(plan.seed)  # noqa: S311 - a schedule, no secret
        self._began = 0.0

    async def run(self, progress: Progress, started: Callable[[], None] = lambda: None) -> list[Reply]:
        """Send everything; returns when each request has ended. ``started`` is called as the first one leaves."""
        leaving = self._schedule()
        bar = progress.add_task("answered", total=len(leaving) if not self._plan.stop_after else None)
        channels = [self._channel() for _ in range(CHANNELS)]
        calls: list[Any] = [channel.stream_stream(METHOD) for channel in channels]
        gate = asyncio.Semaphore(self._plan.most_outstanding or len(leaving) + 1)
        await asyncio.gather(*(_connected(channel) for channel in channels))
        started()
        self._began = time.monotonic()
        tasks = []
        for number, planned in enumerate(leaving):
            await asyncio.sleep(max(self._began + planned - time.monotonic(), 0))
            await gate.acquire()
            now = time.monotonic() - self._began
            if 0 < self._plan.stop_after < now:
                break
            leaves = now if self._plan.most_outstanding else planned
            task = asyncio.create_task(self._send(calls[number % CHANNELS], self._request(number, leaves)))
            tasks.append(task)

            def landed(_: asyncio.Task[Reply]) -> None:
                gate.release()
                progress.advance(bar)

            task.add_done_callback(landed)
        replies = await asyncio.gather(*tasks)
        await asyncio.gather(*(channel.close() for channel in channels))
        return replies

    def _schedule(self) -> list[float]:
        """When each request leaves, seconds from the start."""
        plan, clock = self._plan, 0.0
        times: list[float] = []
        while len(times) < plan.count or (not plan.count and clock < plan.seconds):
            times.append(clock)
            clock += 1 / plan.rate if plan.evenly else self._random.expovariate(plan.rate)
        return times

    def _channel(self) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        ]
        return grpc.aio.insecure_channel("ipv4:" + ",".join(self._plan.targets), options=options)

    def _request(self, number: int, leaves: float) -> Request:
        sample = self._samples[number % len(self._samples)]
        priority = self._plan.priorities[number % len(self._plan.priorities)]
        nonce = self._random.randbytes(16)
        request_id = f"load-{self._plan.seed}-{number}"
        options = analysis_pb2.AnalyzeOptions(request_id=request_id)
        if PRIORITY_FIELD is not None:
            kinds: Any = PRIORITY_FIELD.enum_type
            setattr(options, "priority", kinds.values_by_name[f"PRIORITY_{priority.upper()}"].number)  # noqa: B010
        first = analysis_pb2.AnalyzeRequest(options=options).SerializeToString()
        last = analysis_pb2.AnalyzeRequest(chunk=sample.trailer(nonce)).SerializeToString()
        messages = [first, *self._bodies[sample.name], last]
        return Request(number, sample, priority, leaves, request_id, nonce, messages)

    async def _send(self, call: Any, request: Request) -> Reply:  # noqa: ANN401 - grpc's multicallable
        ends = self._began + request.leaves + self._plan.deadline_seconds
        attempt = 0
        while True:
            attempt += 1
            last, error = await self._attempt(call, request, ends - time.monotonic())
            again = error is not None and error.code() in RETRIED
            pause = max(0.2 * 2**attempt, _pushback_seconds(error))
            if not again or attempt >= self._plan.attempts or time.monotonic() + pause > ends:
                return Reply(request, time.monotonic() - self._began - request.leaves, last, error)
            await asyncio.sleep(pause * self._random.uniform(0.5, 1))

    async def _attempt(self, call: Any, request: Request, timeout: float) -> tuple[bytes, grpc.RpcError | None]:  # noqa: ANN401
        last = b""

        async def messages() -> AsyncIterator[bytes]:
            for message in request.messages:
                yield message

        under_way = call(messages(), timeout=max(timeout, 0.001), metadata=self._plan.metadata or None)
        statuses = ServerStatuses(under_way)
        try:
            async for event in under_way:
                last = event
        except grpc.RpcError as error:
            return last, await statuses.best(error)
        finally:
            under_way.cancel()
        return last, None


def _pushback_seconds(error: grpc.RpcError | None) -> float:
    """How long the server asks to wait before another attempt; 0 when it says nothing."""
    trailers: Any = error.trailing_metadata() if error is not None else ()
    return max((float(value) / 1000 for key, value in trailers or () if key == "grpc-retry-pushback-ms"), default=0.0)


async def _connected(channel: grpc.aio.Channel) -> None:
    try:
        await asyncio.wait_for(channel.channel_ready(), 10)
    except TimeoutError:
        return  # the load then says so itself


def _chunks(body: bytes) -> list[bytes]:
    return [
        analysis_pb2.AnalyzeRequest(chunk=body[start : start + CHUNK_BYTES]).SerializeToString()
        for start in range(0, len(body), CHUNK_BYTES)
    ]


def read_reply(reply: Reply) -> Answer:
    """What a reply says, and what it should have said of who asked."""
    request = reply.request
    common: dict[str, Any] = {
        "number": request.number,
        "sample": request.sample.name,
        "priority": request.priority,
        "began": request.leaves,
        "seconds": reply.seconds,
        "expected_id": request.request_id,
        "expected_sha256": request.sample.sha256(request.nonce),
    }
    if reply.error is not None:
        text = (reply.error.details() or "")[:LONGEST_TEXT]
        return Answer(**common, code=reply.error.code().name, reason=error_info(reply.error), text=text)
    event = analysis_pb2.AnalyzeResponse.FromString(reply.last)
    if event.WhichOneof("event") != "analysis":
        return Answer(**common, code="OK")
    return Answer(**common, code="OK", **read_analysis(analysis_from_proto(event.analysis)))


def read_analysis(analysis: Analysis) -> dict[str, Any]:
    """The facts of an analysis that are compared."""
    return {
        "request_id": analysis.request_id,
        "sha256": analysis.media.sha256,
        "verdict": analysis.verdict.value,
        "probability": analysis.probability,
        "lines": {
            line.branch.value: Line(line.outcome.value, line.reason.value if line.reason else "", line.score)
            for line in analysis.branches
        },
        "log_odds": {part.feature: part.log_odds for part in analysis.contributions},
    }


def error_info(error: grpc.RpcError) -> str:
    """The reason of the ErrorInfo that a failed call carries; empty without one."""
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:  # the details contradict the code
        return ""
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return str(info.reason)
    return ""


def main() -> None:
    """Carry out one plan."""
    plan = LoadPlan(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    generator = LoadGenerator(plan, read_samples(Path(plan.samples)))
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        replies = asyncio.run(generator.run(progress, lambda: print("started", flush=True)))
    with Path(sys.argv[2]).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(read_reply(reply).to_dict()) + "\n" for reply in replies)


if __name__ == "__main__":
    main()
