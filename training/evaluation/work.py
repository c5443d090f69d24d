"""Runs many small jobs on a few processes, with a bar that shows how far it is."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm


@dataclass(frozen=True, slots=True)
class Means:
    """Where models and the cache are, and how many processes work."""

    models: Path
    cache: Path
    processes: int = 1


Job = TypeVar("Job")
Result = TypeVar("Result")


def done(
    run: Callable[[Job], Result], jobs: Sequence[Job], *, title: str, processes: int = 1
) -> Iterator[tuple[Job, Result]]:
    """Run every job; yields each with its result as it ends.

    Args:
        run: a function of a module, so that other processes can find it.
        jobs: what to run it on.
        title: shown beside the bar.
        processes: 1 means the calling process itself.
    """
    bar = tqdm(total=len(jobs), desc=title, file=sys.stderr, disable=not jobs, mininterval=5, dynamic_ncols=True)
    with bar:
        if processes <= 1 or len(jobs) <= 1:
            for job in jobs:
                yield job, run(job)
                bar.update()
            return
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")  # the processes are the parallelism
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
            waiting = {pool.submit(run, job): job for job in jobs}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
                bar.update()
