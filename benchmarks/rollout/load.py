"""A steady load of unlike clips, and what every answer said of the models that gave it."""

from __future__ import annotations

import io
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from benchmarks.reliability.samples import Sample, make_samples
from bonafide.calls import RetryPolicy
from bonafide.client import Client
from bonafide.errors import ClientError


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request; ``error`` is empty unless it failed."""

    sample: str
    began: float
    seconds: float
    error: str = ""
    verdict: str = ""
    probability: float | None = None
    versions: tuple[tuple[str, str], ...] = ()
    on_trial: tuple[str, ...] = ()
    failed_branches: tuple[str, ...] = ()

    def version(self, model: str) -> str:
        """The version of a model that took part; empty if none did."""
        return next((version for name, version in self.versions if name.startswith(model)), "")


class Load:
    """Sends clips one after another on some threads until the block ends; nothing is sent a second time.

    Args:
        address: HOST:PORT of the gateway.
        threads: requests under way at once.
        rate: requests a second at most, of all threads together.
    """

    def __init__(self, address: str, *, threads: int = 2, rate: float = 8.0) -> None:
        self._address = address
        self._pause = threads / rate
        self._ended = threading.Event()
        self._samples = [sample for sample in make_samples() if sample.name != "no face"]
        self._threads = [threading.Thread(target=self._send, args=(seed,)) for seed in range(threads)]
        self.replies: list[Reply] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def since(self, moment: float) -> list[Reply]:
        """Replies to requests that began after a moment (``time.monotonic``)."""
        return [reply for reply in list(self.replies) if reply.began >= moment]

    def _send(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - clips, no secret
        with Client(self._address, retries=RetryPolicy(attempts=1)) as client:
            while not self._ended.is_set():
                began = time.monotonic()
                self.replies.append(ask(client, chance.choice(self._samples), chance.randbytes(16)))
                self._ended.wait(max(self._pause - (time.monotonic() - began), 0))


def ask(client: Client, sample: Sample, nonce: bytes) -> Reply:
    """Send one clip whose bytes no other has."""
    began = time.monotonic()
    try:
        answer = client.analyze(io.BytesIO(sample.body + sample.trailer(nonce)), name=sample.name, timeout=60)
    except ClientError as error:
        return Reply(sample.name, began, time.monotonic() - began, error=f"{error.code} {error.reason}")
    return Reply(
        sample.name,
        began,
        time.monotonic() - began,
        verdict=answer.verdict.value,
        probability=answer.probability,
        versions=tuple((model.name, model.version) for model in answer.models),
        on_trial=tuple(model.name for model in answer.models if model.candidate),
        failed_branches=tuple(
            line.branch.value for line in answer.branches if line.outcome.value in {"failed", "timed_out"}
        ),
    )


def failures(replies: Sequence[Reply]) -> Counter[str]:
    """How often requests failed, or lacked a branch because something was out of order, by what is said of it."""
    said = (reply.error or ", ".join(reply.failed_branches) for reply in replies)
    return Counter(each for each in said if each)
