"""The story of one sound: find speech, cut windows, score each, draw them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.audio.preparation import prepare
from services.audio.speech import describe_window, find_speech, plan_windows
from services.audio.voice import VoiceAnalyzer
from services.common.clip_models import ClipModels, FixedModels, Models
from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError
from services.common.evidence import (
    AudioEvidence,
    Branch,
    BranchReport,
    ModelInfo,
    Outcome,
    ReasonCode,
    ScorePoint,
    SpeechWindow,
    VoiceSequence,
)
from services.common.inference import InferenceEngine
from services.common.media import SAMPLE_RATE, AudioTrack
from services.common.models import ModelCard, ModelRepository
from services.common.telemetry import Telemetry
from services.common.tracing import branch_span, note_report

SPOOF_MODEL = "spoof_classifier"
FEATURE = "audio_prob_fake"
LEAST_SECONDS = 0.8
STEP = SAMPLE_RATE // 100


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How a sound is cut for scoring.

    ``seconds`` is the length of a window, ``least_speech_seconds`` the speech it must hold to be scored,
    and ``most`` how many are scored, spread over the sound when there are more.
    """

    seconds: float = 4.0
    least_speech_seconds: float = 0.5
    most: int = 24


@dataclass(frozen=True, slots=True)
class _Sound:
    """What is known of a sound before any network ran: all windows, and those to score, prepared."""

    speech_fraction: float = 0.0
    windows: tuple[SpeechWindow, ...] = ()
    chosen: tuple[SpeechWindow, ...] = ()
    prepared: tuple[npt.NDArray[np.float32], ...] = ()
    voice: VoiceSequence | None = None


class AudioPipeline:
    """Says of a clip's sound where speech is and how likely it is synthetic.

    Args:
        engine: where the network runs.
        repository: holds its card.
        plan: how sounds are cut.
        telemetry: where stages are timed; nobody scrapes it when None.
        models: chooses the version of the network; that of the card on ``engine`` when None.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        repository: ModelRepository,
        plan: WindowPlan,
        telemetry: Telemetry | None = None,
        models: Models | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry("audio")
        self._models = models or FixedModels(engine, repository)
        self._plan = plan
        self._voice = VoiceAnalyzer()

    async def analyze(
        self, audio: AudioTrack, branches: frozenset[Branch], *, timeout: float, content: str = ""
    ) -> AudioEvidence:
        """Find speech and score it.

        Args:
            audio: the clip's sound; its start is respected in every time of the answer.
            branches: what to score; empty means all. Speech and voice features are given in any case.
            timeout: seconds that this may take.
            content: hash of the clip's file, where it is known.

        Returns:
            Exactly one report, of AUDIO; ``audio_prob_fake`` is among its features when it is SCORED. A
            model that fails or is late is written into the report, so that speech and voice still count.
        """
        begun = time.monotonic()
        with self._telemetry.stage("listen"):
            sound = await self._listen(audio)
        reason = _missing(audio, sound)
        models: tuple[ModelInfo, ...] = ()
        if branches and Branch.AUDIO not in branches:
            report = BranchReport(Branch.AUDIO, Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED)
        elif reason is not None:
            report = BranchReport(Branch.AUDIO, Outcome.NOT_APPLICABLE, reason, milliseconds=_since(begun))
        else:

            async def score(models: ClipModels, seconds: float) -> tuple[BranchReport, tuple[ModelInfo, ...]]:
                return await _report(sound, begun, models, seconds)

            left = timeout - (time.monotonic() - begun)
            with branch_span(Branch.AUDIO) as opened, self._telemetry.stage("score"):
                report, models = await self._models.answer(content, score, timeout=left)
                note_report(opened, report)
        return AudioEvidence((report,), sound.windows, sound.speech_fraction, sound.voice, models)

    async def _listen(self, audio: AudioTrack) -> _Sound:
        """What is known before any network runs; in steps, so that a caller who hangs up ends it soon."""
        speech = await asyncio.to_thread(find_speech, audio.samples)
        planned = plan_windows(speech, seconds=self._plan.seconds)
        if not planned:
            return _Sound()
        voice = await asyncio.to_thread(self._voice.sequence, audio)
        windows = [describe_window(speech, window, audio.start_us) for window in planned]
        spoken = [int(speech[start:end].sum()) * STEP / SAMPLE_RATE for start, end in planned]
        enough = [index for index, seconds in enumerate(spoken) if seconds >= self._plan.least_speech_seconds]
        chosen = _spread(enough, self._plan.most)
        cuts = [audio.samples[planned[index][0] * STEP : planned[index][1] * STEP] for index in chosen]
        return _Sound(
            speech_fraction=float(speech.mean()),
            windows=tuple(windows),
            chosen=tuple(windows[index] for index in chosen),
            prepared=tuple(await asyncio.to_thread(lambda: [prepare(cut) for cut in cuts])),
            voice=voice,
        )


async def _report(
    sound: _Sound, begun: float, models: ClipModels, timeout: float
) -> tuple[BranchReport, tuple[ModelInfo, ...]]:
    try:
        card = models.repository.card(SPOOF_MODEL)
        logits = await _score(sound, models, timeout)
    except BonafideError as error:
        outcome, reason = _failure(error)
        return BranchReport(Branch.AUDIO, outcome, reason, milliseconds=_since(begun)), ()
    weights = [window.speech_fraction * (window.end_us - window.start_us) for window in sound.chosen]
    probability = _sigmoid(float(np.average(logits, weights=weights)))
    report = BranchReport(
        Branch.AUDIO,
        Outcome.SCORED,
        score=probability,
        milliseconds=_since(begun),
        model=f"{card.name}/{card.version}",
        features={FEATURE: probability},
        timeline=tuple(
            ScorePoint(window.start_us, window.end_us - window.start_us, 0, _sigmoid(logit))
            for window, logit in zip(sound.chosen, logits, strict=True)
        ),
    )
    return report, (models.info(card),)


async def _score(sound: _Sound, models: ClipModels, timeout: float) -> list[float]:
    """Calibrated log-odds of each chosen window; each has its own length, so each is its own call."""
    if timeout <= 0:
        raise DeadlineError("no time was left to score the sound")
    calls = [
        asyncio.ensure_future(models.engine.infer(SPOOF_MODEL, {"samples": samples[None]}, timeout=timeout))
        for samples in sound.prepared
    ]
    try:
        return [float(answer["logit"][0, 0]) for answer in await asyncio.gather(*calls)]
    finally:  # the first failure ends the rest, which nobody waits for
        for call in calls:
            call.cancel()


def verified_models(repository: ModelRepository) -> dict[str, ModelCard]:
    """Cards of all networks that this service runs, each file as its card says.

    Raises:
        BonafideError: one of them is absent or not to be trusted.
    """
    return repository.verify_all((SPOOF_MODEL,))


def _missing(audio: AudioTrack, sound: _Sound) -> ReasonCode | None:
    """Why a sound cannot be scored, if it cannot."""
    if audio.samples.size == 0:
        return ReasonCode.NO_AUDIO
    if not sound.chosen:
        short = audio.samples.size < LEAST_SECONDS * SAMPLE_RATE
        return ReasonCode.CLIP_TOO_SHORT if short else ReasonCode.NO_SPEECH
    return None


def _failure(error: BonafideError) -> tuple[Outcome, ReasonCode]:
    if isinstance(error, ModelNotDeployedError):
        return Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED
    if isinstance(error, DeadlineError):
        return Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT
    return Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE


def _spread(items: Sequence[int], most: int) -> list[int]:
    """At most ``most`` items, evenly spaced, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index)] for index in np.linspace(0, len(items) - 1, most)]


def _sigmoid(logit: float) -> float:
    return float(1.0 / (1.0 + np.exp(-logit)))


def _since(begun: float) -> float:
    return (time.monotonic() - begun) * 1000.0
