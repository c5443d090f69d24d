"""What the gateway measures of real decodes and of branches whose answers are known."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import DeadlineError, UnavailableError
from services.common.evidence import Branch
from services.common.media import MediaInfo
from services.common.telemetry import (
    ANALYSIS_DURATION,
    ANSWERS_COMPUTED,
    ANSWERS_REUSED,
    BRANCH_DURATION,
    BRANCH_OUTCOMES,
    BRANCH_SCORE,
    BREAKER_OPEN,
    BYTES_RECEIVED,
    FRAMES_DECODED,
    MEDIA_SECONDS,
    QUEUE_DEPTH,
    QUEUE_OLDEST,
    REQUESTS_REFUSED,
    STAGE_DURATION,
    VERDICTS,
    Metric,
)
from services.fusion.store import SHIPPED_HEADS
from services.gateway.analysis import Options, Priority
from services.gateway.batch import Batches, BatchLimits, Item
from services.gateway.breaker import BreakerRule, CircuitBreaker
from services.gateway.metrics import SHIPPED_POLICIES, STAGES, GatewayMetrics, media_class
from tests.gateway.stand_ins import Audio, Visual
from tests.gateway.test_pipeline import CLIP, RULES, Gateway, chunks
from tests.gateway.test_reception import STILL, analyze, until


def read(gateway: Gateway, metric: Metric, suffix: str = "", **labels: str) -> float | None:
    return gateway.telemetry.registry.get_sample_value(metric.name + suffix, labels)


async def test_an_analysis_leaves_its_marks_once_and_the_same_again_only_that_of_reuse() -> None:
    gateway = Gateway()
    await analyze(gateway, CLIP)
    again = await analyze(gateway, CLIP)
    assert again.cached
    counts = {name: read(gateway, STAGE_DURATION, "_count", stage=name) for name in STAGES.values()}
    assert counts == {"receive": 2, "queue": 1, "decode": 1, "analyze": 1, "fuse": 1}
    assert read(gateway, BYTES_RECEIVED) == 2 * len(CLIP)
    assert read(gateway, FRAMES_DECODED) == again.media.frames_sampled > 0
    assert read(gateway, MEDIA_SECONDS) == pytest.approx(again.media.duration_us / 1e6)
    assert read(gateway, ANSWERS_COMPUTED) == 1
    assert read(gateway, ANSWERS_REUSED, source="kept") == 1
    assert read(gateway, ANSWERS_REUSED, source="flight") == 0
    assert read(gateway, VERDICTS, policy="balanced", verdict="AUTHENTIC") == 1
    assert read(gateway, ANALYSIS_DURATION, "_count", priority="interactive") == 1
    line = {"branch": "audio", "codec": "aac", "resolution": "none"}
    assert read(gateway, BRANCH_SCORE, "_sum", **line) == 0.75
    line = {"branch": "frame", "codec": "h264", "resolution": "240p"}
    assert read(gateway, BRANCH_SCORE, "_bucket", le="0.3", **line) == 1
    assert read(gateway, BRANCH_SCORE, "_bucket", le="0.2", **line) == 0
    assert read(gateway, BRANCH_OUTCOMES, branch="frame", outcome="scored", reason="none") == 1


async def test_who_waits_for_the_same_clip_shares_a_flight() -> None:
    gateway = Gateway(visual=Visual(seconds=0.2))
    first = asyncio.create_task(analyze(gateway, CLIP))
    await gateway.visual.begun.wait()
    assert (await analyze(gateway, CLIP)).cached
    await first
    assert read(gateway, ANSWERS_REUSED, source="flight") == 1
    assert read(gateway, ANSWERS_COMPUTED) == 1


async def test_lines_of_an_analysis_that_fails_count_too() -> None:
    gateway = Gateway(visual=Visual(UnavailableError("gone"), seconds=0.01), audio=Audio(UnavailableError("gone")))
    with pytest.raises(UnavailableError):
        await analyze(gateway, CLIP)
    for branch in ("patch", "frame", "temporal", "audio"):
        assert read(gateway, BRANCH_OUTCOMES, branch=branch, outcome="failed", reason="BRANCH_UNAVAILABLE") == 1
    assert read(gateway, BRANCH_DURATION, "_count", branch="frame") == 1
    assert read(gateway, STAGE_DURATION, "_count", stage="fuse") == 1
    assert read(gateway, ANSWERS_COMPUTED) == 0


async def test_items_of_a_batch_that_are_refused_count_like_calls() -> None:
    gateway = Gateway()
    batches = Batches(gateway.reception, GatewayMetrics(gateway.telemetry), BatchLimits(items=4, concurrency=2))

    async def broken() -> AsyncIterator[bytes]:
        raise ValueError
        yield b""

    items = [Item(Options("empty"), lambda: chunks(b"")), Item(Options("broken"), broken)]
    items += [Item(Options("good"), lambda: chunks(STILL))]
    assert len([ending async for ending in batches.run(items, timeout=30)]) == 3
    await gateway.decoder.close()
    assert [read(gateway, REQUESTS_REFUSED, reason=reason) for reason in ("EMPTY_INPUT", "INTERNAL")] == [1, 1]
    assert read(gateway, ANSWERS_COMPUTED) == 1


async def test_the_queue_is_seen_while_it_stands_and_its_wait_even_of_those_who_give_up() -> None:
    gateway = Gateway(visual=Visual(seconds=30), rules=replace(RULES, analyses=1))
    circuit = CircuitBreaker("it", BreakerRule(least_calls=1))
    GatewayMetrics(gateway.telemetry).watch(gateway.admission, {"visual": circuit})
    busy = asyncio.create_task(analyze(gateway, CLIP, Options("busy", policy="one")))
    await gateway.visual.begun.wait()
    waiting = asyncio.create_task(analyze(gateway, CLIP, Options("waiting", policy="two"), timeout=0.5))
    await until(lambda: gateway.admission.state.waiting[Priority.INTERACTIVE] == 1)
    gateway.telemetry.refresh()
    assert [read(gateway, QUEUE_DEPTH, priority=lane) for lane in ("interactive", "backfill")] == [1, 0]
    oldest = read(gateway, QUEUE_OLDEST, priority="interactive")
    assert oldest is not None
    assert 0 < oldest < 0.5
    assert read(gateway, BREAKER_OPEN, peer="visual") == 0
    with pytest.raises(DeadlineError):
        await waiting
    assert read(gateway, STAGE_DURATION, "_count", stage="queue") == 2

    async def broken() -> None:
        raise UnavailableError("gone")

    with pytest.raises(UnavailableError):
        await circuit.call(broken, unwell=lambda _: True)
    gateway.telemetry.refresh()
    assert read(gateway, QUEUE_DEPTH, priority="interactive") == 0
    assert read(gateway, BREAKER_OPEN, peer="visual") == 1
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    await gateway.decoder.close()


async def test_names_that_operators_and_files_bring_become_few_labels() -> None:
    gateway = Gateway()
    analysis = await gateway.run(CLIP)
    metrics = GatewayMetrics(gateway.telemetry)
    for number in range(50):
        fusion = replace(analysis.fusion, policy=replace(analysis.fusion.policy, name=f"own-{number}"))
        media = replace(analysis.media, video_codec=f"codec{number}", audio_codec=f"codec{number}", height=number * 100)
        metrics.computed(replace(analysis, fusion=fusion, media=media), Priority.BATCH)
    assert read(gateway, VERDICTS, policy="custom", verdict="AUTHENTIC") == 50
    (scores,) = [each for each in gateway.telemetry.registry.collect() if each.name == BRANCH_SCORE.name]
    classes = {(each.labels["codec"], each.labels["resolution"]) for each in scores.samples}
    assert classes <= {("h264", "240p"), ("aac", "none"), ("other", "none"), ("other", "240p"), ("other", "360p")}


@pytest.mark.parametrize(
    ("info", "branch", "expected"),
    [
        (MediaInfo(video_codec="hevc", width=1080, height=1920), Branch.PATCH, ("hevc", "1080p")),
        (MediaInfo(video_codec="av1", width=3840, height=2160), Branch.SYNC, ("av1", "more")),
        (MediaInfo(video_codec="png", width=640, height=481, still=True), Branch.FRAME, ("image", "720p")),
        (MediaInfo(video_codec="prores", width=320, height=240), Branch.TEMPORAL, ("other", "240p")),
        (MediaInfo(video_codec="h264", audio_codec="pcm_s16le", width=9, height=9), Branch.AUDIO, ("pcm", "none")),
        (MediaInfo(audio_codec="speex"), Branch.AUDIO, ("other", "none")),
    ],
)
def test_media_fall_into_few_classes(info: MediaInfo, branch: Branch, expected: tuple[str, str]) -> None:
    assert media_class(info, branch) == expected


def test_the_policies_that_are_named_are_those_that_ship() -> None:
    assert {path.stem for path in Path(SHIPPED_HEADS, "policies").glob("*.json")} == SHIPPED_POLICIES
