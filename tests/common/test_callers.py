"""The caller of a call follows it into its tasks and threads, and never into another call."""

import asyncio

from services.common.callers import ANONYMOUS, Caller, Credential, current_caller, set_caller


async def test_caller_reaches_tasks_and_threads_and_no_other_call() -> None:
    async def serve(name: str) -> tuple[str, str]:
        set_caller(Caller(name, Credential.API_KEY))
        await asyncio.sleep(0)
        task = asyncio.create_task(asyncio.to_thread(current_caller))
        return (await task).name, current_caller().name

    served = await asyncio.gather(serve("one"), serve("two"))
    assert served == [("one", "one"), ("two", "two")]
    assert current_caller() is ANONYMOUS
