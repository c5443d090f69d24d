"""How tensors get to Triton: in the message, or by shared memory where that works and pays.

The choice is made by trying: the first call that is large enough is run both ways, and shared memory is used
from then on if both answers agree. That finds out whether Triton is on this node and may map our memory
better than any setting could.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from services.common.errors import BonafideError
from services.common.shared_tensors import Loan, SharedTensors
from services.common.triton_care import tensors_of

Array = npt.NDArray[Any]
Outputs = dict[str, Array]
Call = Callable[[list[Any]], Awaitable[Outputs]]
LOST = "SHARED_MEMORY_LOST"
_log = logging.getLogger(__name__)


class _Way(Enum):
    UNTRIED = auto()
    TRYING = auto()
    SHARED = auto()
    PLAIN = auto()


class TensorPassing:
    """Chooses a way for every call.

    Args:
        shared: the pool of regions; None to send messages only.
        from_bytes: smallest inputs that go by shared memory; below, it costs more than it saves.
    """

    def __init__(self, shared: SharedTensors | None, *, from_bytes: int) -> None:
        self._shared = shared
        self._from_bytes = from_bytes
        self._way = _Way.UNTRIED if shared is not None else _Way.PLAIN
        self._told_of_room = False

    @property
    def by_shared_memory(self) -> bool:
        """Whether large tensors go by shared memory now."""
        return self._way is _Way.SHARED

    async def run(self, inputs: Mapping[str, Array], call: Call) -> Outputs:
        """Make a call with these inputs, by the way that suits them."""
        if self._shared is None or self._way in {_Way.PLAIN, _Way.TRYING} or not self._suits(self._shared, inputs):
            return await call(tensors_of(inputs))
        if self._way is _Way.UNTRIED:
            return await self._try(self._shared, inputs, call)
        found = await self._by_shared_memory(self._shared, inputs, call)
        return found if found is not None else await call(tensors_of(inputs))

    async def close(self) -> None:
        """Let go of the regions."""
        if self._shared is not None:
            await self._shared.close()

    def _suits(self, shared: SharedTensors, inputs: Mapping[str, Array]) -> bool:
        return sum(values.nbytes for values in inputs.values()) >= self._from_bytes and shared.fits(inputs)

    async def _try(self, shared: SharedTensors, inputs: Mapping[str, Array], call: Call) -> Outputs:
        """Run a call both ways and keep to shared memory if that gives the same answer."""
        self._way = _Way.TRYING
        try:
            plain = await call(tensors_of(inputs))
            await shared.tidy()
            other = await self._by_shared_memory(shared, inputs, call)
        except BaseException:
            self._way = _Way.UNTRIED  # it says nothing of shared memory
            raise
        if other is None:
            self._way = _Way.UNTRIED if self._way is _Way.TRYING else self._way
        elif _agree(plain, other):
            self._way = _Way.SHARED
            _log.info("large tensors go to the inference server by shared memory")
        else:
            self._turn_plain("answers by shared memory differ")
        return plain

    async def _by_shared_memory(self, shared: SharedTensors, inputs: Mapping[str, Array], call: Call) -> Outputs | None:
        """The outputs; None where this way does not work, now or ever."""
        loan = await self._loan(shared, inputs)
        if loan is None:
            return None
        try:
            return await call(loan.tensors)
        except BonafideError as error:
            if error.reason != LOST:
                raise
            shared.lost(loan)
            loan = None
            return None
        finally:
            if loan is not None:
                shared.give_back(loan)

    async def _loan(self, shared: SharedTensors, inputs: Mapping[str, Array]) -> Loan | None:
        try:
            return await shared.lend(inputs)
        except OSError as error:  # may pass: those that have a region keep it
            if not self._told_of_room:
                _log.warning("shared memory has no room (%s): tensors go in messages", error.strerror)
            self._told_of_room = True
        except InferenceServerException as error:
            if str(error.status()).rpartition(".")[2] not in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
                self._turn_plain(f"the inference server cannot map it: {error.message()}")
        return None

    def _turn_plain(self, reason: str) -> None:
        self._way = _Way.PLAIN
        _log.info("tensors go to the inference server in messages (%s)", reason)


def _agree(one: Outputs, other: Outputs) -> bool:
    return one.keys() == other.keys() and all(
        np.allclose(one[name], other[name], rtol=1e-3, atol=1e-4, equal_nan=True) for name in one
    )
