"""What the gateway measures, in its own words; which metric each fact becomes is decided here."""

from __future__ import annotations

from collections.abc import Mapping

from services.common.evidence import Branch, BranchReport, Outcome, Verdict
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
    CUSTOM,
    FRAMES_DECODED,
    MEDIA_SECONDS,
    NONE,
    OTHER,
    QUEUE_DEPTH,
    QUEUE_OLDEST,
    REQUESTS_REFUSED,
    STAGE_DURATION,
    VERDICTS,
    Telemetry,
)
from services.gateway.admission import Admission
from services.gateway.analysis import Analysis, Priority, Stage
from services.gateway.breaker import CircuitBreaker, State

KEPT, FLIGHT = "kept", "flight"
"""Where an answer comes from that is not worked out anew: the answers kept, or the same analysis under way."""
SHIPPED_POLICIES = frozenset({"balanced", "cautious"})
STAGES = {
    Stage.RECEIVING: "receive",
    Stage.QUEUED: "queue",
    Stage.DECODING: "decode",
    Stage.ANALYZING: "analyze",
    Stage.FUSING: "fuse",
}
"""Stages that take time, and their names among the metrics."""
_ASKED = frozenset({Outcome.SCORED, Outcome.TIMED_OUT, Outcome.FAILED})
_VIDEO_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})
_AUDIO_CODECS = frozenset({"aac", "mp3", "opus", "vorbis", "flac"})
_IMAGE, _PCM, _LARGER = "image", "pcm", "more"
_HEIGHTS = (240, 360, 480, 720, 1080)


class GatewayMetrics:
    """Turns what happens to requests into metrics."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        policies = (*SHIPPED_POLICIES, CUSTOM)
        telemetry.expect(VERDICTS, [{"policy": policy, "verdict": each} for policy in policies for each in Verdict])
        telemetry.expect(ANSWERS_REUSED, [{"source": source} for source in (KEPT, FLIGHT)])

    def watch(self, admission: Admission, circuits: Mapping[str, CircuitBreaker]) -> None:
        """Show the queue and the circuits of the services, by name, at every scrape."""

        def read() -> None:
            state = admission.state
            for priority, waiting in state.waiting.items():
                self._telemetry.show(QUEUE_DEPTH, waiting, priority=priority)
                self._telemetry.show(QUEUE_OLDEST, state.oldest_seconds[priority], priority=priority)
            for peer, circuit in circuits.items():
                self._telemetry.show(BREAKER_OPEN, circuit.state is not State.CLOSED, peer=peer)

        self._telemetry.before_scrape(read)

    def stage(self, stage: Stage, seconds: float) -> None:
        """A stage of a request has ended."""
        self._telemetry.observe(STAGE_DURATION, seconds, stage=STAGES[stage])

    def received(self, size_bytes: int) -> None:
        """So much of a clip has come in."""
        self._telemetry.count(BYTES_RECEIVED, size_bytes)

    def decoded(self, info: MediaInfo) -> None:
        """A clip has been decoded."""
        self._telemetry.count(FRAMES_DECODED, info.frames_sampled)
        self._telemetry.count(MEDIA_SECONDS, info.duration_us / 1e6)

    def reported(self, line: BranchReport) -> None:
        """A line of the ledger has landed."""
        reason = line.reason.value if line.reason is not None else NONE
        self._telemetry.count(BRANCH_OUTCOMES, branch=line.branch, outcome=line.outcome, reason=reason)
        if line.outcome in _ASKED and line.milliseconds:
            self._telemetry.observe(BRANCH_DURATION, line.milliseconds / 1000, branch=line.branch)

    def computed(self, analysis: Analysis, priority: Priority) -> None:
        """An analysis has been worked out."""
        policy = analysis.fusion.policy.name
        self._telemetry.count(ANSWERS_COMPUTED)
        self._telemetry.count(
            VERDICTS, policy=policy if policy in SHIPPED_POLICIES else CUSTOM, verdict=analysis.fusion.verdict
        )
        milliseconds = sum(each.milliseconds for each in analysis.timings if each.stage is not Stage.RECEIVING)
        self._telemetry.observe(ANALYSIS_DURATION, milliseconds / 1000, priority=priority)
        for line in analysis.branches:
            if line.score is not None:
                codec, resolution = media_class(analysis.media, line.branch)
                self._telemetry.observe(
                    BRANCH_SCORE, line.score, branch=line.branch, codec=codec, resolution=resolution
                )

    def reused(self, source: str) -> None:
        """An answer was given again; KEPT or FLIGHT."""
        self._telemetry.count(ANSWERS_REUSED, source=source)

    def refused(self, reason: str) -> None:
        """An item of a batch ended with an error of ours; calls are counted at the door."""
        self._telemetry.count(REQUESTS_REFUSED, reason=reason)


def media_class(info: MediaInfo, branch: Branch) -> tuple[str, str]:
    """Codec and resolution of what a branch judged, each one of a few classes."""
    if branch is Branch.AUDIO:
        codec = _PCM if info.audio_codec.startswith("pcm_") else info.audio_codec
        return (codec if codec in {*_AUDIO_CODECS, _PCM} else OTHER), NONE
    codec = _IMAGE if info.still else info.video_codec
    side = min(info.width, info.height)
    resolution = next((f"{height}p" for height in _HEIGHTS if side <= height), _LARGER)
    return (codec if codec in {*_VIDEO_CODECS, _IMAGE} else OTHER), resolution
