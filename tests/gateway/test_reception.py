"""The way in: what is decided before a byte is read, one computation a question, and places that come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from services.common.callers import Caller, set_caller
from services.common.errors import BonafideError, DeadlineError, InvalidInputError, UnavailableError
from services.common.evidence import Branch, BranchReport, Outcome
from services.gateway.analysis import Analysis, Event, Options, Priority
from services.gateway.upload_pace import UploadPace
from services.gateway.waiting_room import LaneRule
from tests import media_factory as media
from tests.gateway.stand_ins import Audio, Visual
from tests.gateway.test_pipeline import RULES, UPLOADS, Gateway, chunks

STILL = media.still_picture("PNG")
OTHER = media.still_picture("JPEG")
SOUND = media.sound_file(sound=media.tone(1.0))


async def events(gateway: Gateway, data: bytes, options: Options, timeout: float = 30.0) -> list[Event]:
    return [event async for event in gateway.reception.analyze(options, chunks(data), timeout=timeout)]


async def analyze(gateway: Gateway, data: bytes, options: Options | str = "r", timeout: float = 30.0) -> Analysis:
    options = Options(options) if isinstance(options, str) else options
    last = (await events(gateway, data, options, timeout))[-1]
    assert isinstance(last, Analysis)
    return last


async def by_someone_else(gateway: Gateway, data: bytes) -> Analysis:
    """To be run as a task of its own, for it changes who is calling."""
    set_caller(Caller("someone else"))
    return await analyze(gateway, data)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came about")


async def refusal(gateway: Gateway, data: bytes | AsyncIterator[bytes], options: Options) -> str:
    source = chunks(data) if isinstance(data, bytes) else data
    with pytest.raises(BonafideError) as refused:
        async for _ in gateway.reception.analyze(options, source, timeout=30.0):
            pass
    return refused.value.reason


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0.001)


def idle(gateway: Gateway) -> bool:
    state = gateway.admission.state
    return (state.receiving, state.analyzing, state.spool_bytes, state.memory_bytes) == (0, 0, 0, 0)


async def test_the_same_request_again_gets_the_same_analysis() -> None:
    gateway = Gateway()
    first = await analyze(gateway, STILL)
    again = await events(gateway, STILL, Options("r"))
    second = again[-1]
    assert isinstance(second, Analysis)
    assert (first.cached, second.cached) == (False, True)
    assert (second.fusion, second.branches, second.media) == (first.fusion, first.branches, first.media)
    assert [event.branch for event in again if isinstance(event, BranchReport)] == list(Branch)
    assert (await analyze(gateway, STILL, "another")).request_id == "another"
    assert len(gateway.visual.asked) == 1
    assert idle(gateway)


async def test_an_id_used_for_something_else_is_refused() -> None:
    gateway = Gateway()
    await analyze(gateway, STILL)
    assert await refusal(gateway, OTHER, Options("r")) == "REQUEST_ID_REUSED"
    assert await refusal(gateway, STILL, Options("r", policy="strict")) == "REQUEST_ID_REUSED"
    await asyncio.create_task(by_someone_else(gateway, OTHER))
    assert len(gateway.visual.asked) == 2


async def test_callers_do_not_see_each_others_answers() -> None:
    gateway = Gateway()
    await analyze(gateway, STILL)
    assert not (await asyncio.create_task(by_someone_else(gateway, STILL))).cached
    assert len(gateway.visual.asked) == 2


async def test_a_partial_answer_is_worked_out_anew() -> None:
    gateway = Gateway(visual=Visual(error=UnavailableError("gone")), audio=Audio())
    clip = media.Clip(frames=5).bytes()
    first = await analyze(gateway, clip)
    assert Outcome.FAILED in {line.outcome for line in first.branches}
    gateway.visual.error = None
    second = await analyze(gateway, clip)
    assert not second.cached
    assert Outcome.FAILED not in {line.outcome for line in second.branches}


async def test_two_at_once_share_one_computation_and_outlive_the_leader() -> None:
    gateway = Gateway(visual=Visual(seconds=0.2))
    leader = asyncio.create_task(analyze(gateway, STILL, "1"))
    await gateway.visual.begun.wait()
    follower = asyncio.create_task(analyze(gateway, STILL, "2"))
    await settle()
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    answer = await follower
    assert (answer.request_id, answer.cached) == ("2", True)
    assert len(gateway.visual.asked) == 1
    assert not gateway.visual.cancelled
    assert idle(gateway)


async def test_when_all_who_wanted_it_have_left_the_work_stops() -> None:
    gateway = Gateway(visual=Visual(seconds=60))
    tasks = [asyncio.create_task(analyze(gateway, STILL, name)) for name in "12"]
    await gateway.visual.begun.wait()
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert gateway.visual.cancelled
    assert idle(gateway)


async def test_a_follower_with_more_time_does_not_suffer_the_leaders_deadline() -> None:
    gateway = Gateway(visual=Visual(seconds=0.2, error=DeadlineError("late")))
    leader = asyncio.create_task(analyze(gateway, STILL, "1"))
    await gateway.visual.begun.wait()
    follower = asyncio.create_task(analyze(gateway, STILL, "2"))
    with pytest.raises(UnavailableError):
        await leader
    gateway.visual.error = None
    assert not (await follower).cached
    assert len(gateway.visual.asked) == 2
    assert idle(gateway)


async def test_an_error_of_the_file_is_everyones() -> None:
    gateway = Gateway()
    tasks = [asyncio.create_task(analyze(gateway, media.text_file(), name)) for name in "12"]
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, InvalidInputError)
    assert idle(gateway)


async def test_what_cannot_come_in_is_refused_before_a_byte_is_read() -> None:
    read = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield STILL

    lanes = {priority: LaneRule(weight=1.0, places=1) for priority in Priority}
    gateway = Gateway(rules=replace(RULES, analyses=1, lanes=lanes, spool_bytes=1 << 19), visual=Visual(seconds=60))
    running = asyncio.create_task(analyze(gateway, STILL))
    await gateway.visual.begun.wait()
    assert await refusal(gateway, counted(), Options("2", size_bytes=1 << 30)) == "FILE_TOO_LARGE"
    assert await refusal(gateway, counted(), Options("2", size_bytes=1 << 19)) == "SPOOL_FULL"
    waiting = asyncio.create_task(analyze(gateway, OTHER, "3"))
    await until(lambda: gateway.admission.state.waiting[Priority.INTERACTIVE] == 1)
    assert await refusal(gateway, counted(), Options("4")) == "QUEUE_FULL"
    assert read == 0
    for task in (waiting, running):
        task.cancel()
    await asyncio.gather(waiting, running, return_exceptions=True)
    assert idle(gateway)


async def test_an_upload_that_trickles_gives_its_place_back() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield STILL[:10]
        await asyncio.Event().wait()

    gateway = Gateway(uploads=replace(UPLOADS, pace=UploadPace(1000.0, 1.0, idle_seconds=0.02)))
    assert await refusal(gateway, trickle(), Options("slow")) == "UPLOAD_TOO_SLOW"
    assert idle(gateway)


async def test_an_upload_without_a_declared_size_counts_as_it_comes() -> None:
    gateway = Gateway(rules=replace(RULES, spool_bytes=1000))
    assert await refusal(gateway, bytes(2000), Options("r")) == "SPOOL_FULL"
    assert idle(gateway)


async def test_a_caller_who_leaves_the_queue_gives_everything_back() -> None:
    gateway = Gateway(rules=replace(RULES, analyses=1), visual=Visual(seconds=60))
    running = asyncio.create_task(analyze(gateway, STILL))
    await gateway.visual.begun.wait()
    with pytest.raises(DeadlineError):
        await analyze(gateway, OTHER, "late", timeout=0.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert idle(gateway)
