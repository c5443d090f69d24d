"""Hedged calls: where an answer is late, ask once more and take whichever comes first.

Sound only for calls that are small, cheap and change nothing: forming the verdict, not judging pictures,
whose hundreds of megabytes would make a slow hop slower. Source: Dean and Barroso, "The Tail at Scale"
(2013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


async def hedged(work: Callable[[], Awaitable[Result]], *, after: float) -> Result:
    """The result of ``work``, begun a second time if the first has not ended ``after`` seconds.

    The first success wins and the other is cancelled; when both fail, the first failure is raised.
    """
    tasks = [asyncio.ensure_future(work())]
    try:
        await asyncio.wait(tasks, timeout=after)
        if not tasks[0].done():
            tasks.append(asyncio.ensure_future(work()))
        waiting = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    return task.result()
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
