"""Input tensors in system shared memory, for a Triton on the same node: one copy in place of a message's five.

Regions are files in /dev/shm, one a call under way, kept from call to call and removed at the end.

* Room is reserved when a region is made, so a full /dev/shm is an error then and not a crash later.
* Each file is locked (flock) by the process that made it. A file that anybody else can lock has lost its
  process, in whatever container that was, and is removed.
* A call that ended without an answer may still be read by Triton when its region is lent again. That harms
  nobody: the answer it belongs to has no reader, Triton's mapping stays, and Triton refuses to unregister a
  region in use (seen in 2.51).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Array = npt.NDArray[Any]
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
PATTERN = "bonafide-*-tensors-*"
_ALIGNMENT = 64
_ASKING_SECONDS = 2.0
_KEPT_FREE = 4
"""Regions' worth that must stay free: Triton's own backends need shared memory, and fail without it."""


@dataclass(slots=True, eq=False)
class Region:
    """One file of shared memory, mapped here and, once registered, by Triton."""

    name: str
    path: Path
    descriptor: int
    memory: mmap.mmap
    registered: bool = False

    @classmethod
    def make(cls, directory: Path, name: str, size: int) -> Region:
        """Make, lock and reserve a region.

        Raises:
            OSError: there is no room, or no such directory.
        """
        path = directory / name
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _leave_room(descriptor, size)
            os.posix_fallocate(descriptor, 0, size)
            return cls(name, path, descriptor, mmap.mmap(descriptor, size))
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise

    def drop(self) -> None:
        """Remove the file and let go of the memory; Triton's own mapping stays until it is unregistered."""
        self.path.unlink(missing_ok=True)
        self.memory.close()
        os.close(self.descriptor)


@dataclass(slots=True)
class Loan:
    """A region lent to one call, and the call's inputs as Triton's client takes them."""

    region: Region
    tensors: list[Any] = field(default_factory=list)


def sweep(directory: Path = SHARED_MEMORY) -> list[str]:
    """Remove the regions of processes that are no more; answers their names."""
    removed = []
    for path in directory.glob(PATTERN):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # gone already, or another user's
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                removed.append(path.name)
        finally:
            os.close(descriptor)
    return removed


class SharedTensors:
    """A bounded pool of regions for the inputs of one Triton.

    Args:
        client: connection to Triton.
        regions: most calls that hold one at once; others send plain messages.
        region_bytes: size of each; larger inputs are sent plain.
        directory: where shared memory is.
    """

    def __init__(self, client: Any, *, regions: int, region_bytes: int, directory: Path = SHARED_MEMORY) -> None:  # noqa: ANN401
        self._client = client
        self._regions = regions
        self._size = region_bytes
        self._directory = directory
        self._prefix = f"bonafide-{os.getpid()}-tensors-{secrets.token_hex(4)}"
        self._made = 0
        self._all: list[Region] = []
        self._free: list[Region] = []

    def fits(self, inputs: Mapping[str, Array]) -> bool:
        """Whether a region has room for these inputs."""
        return sum(_padded(values.nbytes) for values in inputs.values()) <= self._size

    async def lend(self, inputs: Mapping[str, Array]) -> Loan | None:
        """A region that holds these inputs, which must fit; None when all are lent.

        Raises:
            OSError: shared memory has no room.
            InferenceServerException: Triton cannot map it.
        """
        region = self._take()
        if region is None:
            return None
        try:
            if not region.registered:
                key = f"/{region.path.name}"
                await self._client.register_system_shared_memory(
                    region.name, key, self._size, client_timeout=_ASKING_SECONDS
                )
                region.registered = True
            return Loan(region, _placed(region, inputs))
        except BaseException:
            self._discard(region)
            raise

    def give_back(self, loan: Loan) -> None:
        """End a loan."""
        self._free.append(loan.region)

    def lost(self, loan: Loan) -> None:
        """End a loan whose region Triton no longer knows, because it was restarted."""
        self._discard(loan.region)

    async def close(self) -> None:
        """Unregister what can be, and remove every file."""
        for region in tuple(self._all):
            if region.registered:
                await self._unregister(region.name)
            self._discard(region)

    async def tidy(self) -> None:
        """Remove what processes left that are no more: their files here, their mappings in Triton.

        Raises:
            InferenceServerException: Triton cannot be asked.
        """
        sweep(self._directory)
        answer = await self._client.get_system_shared_memory_status(client_timeout=_ASKING_SECONDS)
        for name, region in answer.regions.items():
            key = str(region.key).removeprefix("/")
            if Path(key).match(PATTERN) and not (self._directory / key).exists():
                await self._unregister(name)

    def _take(self) -> Region | None:
        """A region that nobody holds, made if there may be more."""
        if self._free:
            return self._free.pop()
        if len(self._all) == self._regions:
            return None
        self._made += 1
        region = Region.make(self._directory, f"{self._prefix}-{self._made}", self._size)
        self._all.append(region)
        return region

    async def _unregister(self, name: str) -> None:
        with contextlib.suppress(InferenceServerException):  # in use, or the server is gone
            await self._client.unregister_system_shared_memory(name, client_timeout=_ASKING_SECONDS)

    def _discard(self, region: Region) -> None:
        if region in self._all:
            self._all.remove(region)
        if region in self._free:
            self._free.remove(region)
        region.drop()


def _leave_room(descriptor: int, size: int) -> None:
    room = os.fstatvfs(descriptor)
    if room.f_bavail * room.f_frsize < _KEPT_FREE * size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _placed(region: Region, inputs: Mapping[str, Array]) -> list[Any]:
    """Copy the inputs into a region, one after the other."""
    tensors, offset = [], 0
    for name, values in inputs.items():
        room = np.frombuffer(region.memory, values.dtype, values.size, offset).reshape(values.shape)
        np.copyto(room, values)
        tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_shared_memory(region.name, values.nbytes, offset)
        tensors.append(tensor)
        offset += _padded(values.nbytes)
    return tensors


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
