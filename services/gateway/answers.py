"""Answers given before, so that the same request again gets the same analysis.

Kept are only complete answers: one that lacks a branch because of an outage would repeat the outage long
after it is over. An answer holds for the bytes, branches and policy that were asked for, for as long as the
models do: it is forgotten when the model repository changes, when a newer answer shows other models at work,
and after a while in any case (a policy may change under its name). What a candidate on trial has answered is not
kept: its trial may end at any moment. Callers never see each other's answers.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.common.errors import InvalidInputError
from services.common.evidence import Branch, ModelInfo, Outcome
from services.gateway.analysis import Analysis, Evidence

_BYTES_AN_ANSWER = 8192
_BYTES_A_POINT = 160


@dataclass(frozen=True, slots=True)
class Question:
    """What makes two requests the same: who asks, the file's hash, the models, and the caller's wishes.

    ``models`` is a fingerprint of the model repository.
    """

    caller: str
    sha256: str
    models: str
    branches: frozenset[Branch]
    policy: str


@dataclass(frozen=True, slots=True)
class _Kept:
    analysis: Analysis
    size: int
    until: float


class Answers:
    """The latest answers, the oldest of which make room.

    Args:
        max_bytes: about how much memory they may take; with 0 nothing is kept, and nothing shared.
        seconds: how long an answer is kept.
        now: monotonic seconds.
    """

    def __init__(self, max_bytes: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._now = now
        self._kept: OrderedDict[Question, _Kept] = OrderedDict()
        self._serving: dict[str, ModelInfo] = {}
        self.held_bytes = 0

    @property
    def wanted(self) -> bool:
        """Whether the same question may get the same answer at all."""
        return self._max_bytes > 0

    def find(self, question: Question) -> Analysis | None:
        """The answer given before, if there is one and it still holds."""
        kept = self._kept.get(question)
        if kept is None:
            return None
        if kept.until < self._now() or not self._holds(kept.analysis):
            self._forget(question)
            return None
        self._kept.move_to_end(question)
        return kept.analysis

    def keep(self, question: Question, analysis: Analysis) -> None:
        """Remember a fresh answer if it is complete."""
        on_trial = any(model.candidate for model in analysis.models)
        self._serving.update({model.name: model for model in analysis.models if not model.candidate})
        if on_trial or not is_complete(analysis):
            return
        analysis = without_sequences(analysis)
        size = _weight(analysis)
        if size > self._max_bytes:
            return
        self._forget(question)
        self._kept[question] = _Kept(analysis, size, self._now() + self._seconds)
        self.held_bytes += size
        while self.held_bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))

    def _holds(self, analysis: Analysis) -> bool:
        """Whether the models that took part are, for all that is known, those at work now."""
        return all(self._serving.get(model.name, model) == model for model in analysis.models)

    def _forget(self, question: Question) -> None:
        kept = self._kept.pop(question, None)
        if kept is not None:
            self.held_bytes -= kept.size


class RequestIds:
    """What each request id stood for, by caller: an id names one request and no other.

    Args:
        most: ids that are remembered; the oldest are forgotten first.
        seconds: how long an id is remembered.
        now: monotonic seconds.
    """

    def __init__(self, most: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._now = now
        self._known: OrderedDict[tuple[str, str], tuple[Question, float]] = OrderedDict()

    def claim(self, request_id: str, question: Question) -> None:
        """Say what an id stands for.

        Raises:
            InvalidInputError: it stands for another request of the same caller (reason REQUEST_ID_REUSED).
        """
        now = self._now()
        key = (question.caller, request_id)
        asked = replace(question, models="")  # the same request under new models is still the same request
        known, until = self._known.get(key, (asked, now))
        if until >= now and known != asked:
            raise InvalidInputError("this request_id was used for other content or options", reason="REQUEST_ID_REUSED")
        self._known[key] = (asked, now + self._seconds)
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)


def is_complete(analysis: Analysis) -> bool:
    """Whether no branch is missing for want of time or because something was out of order."""
    return all(line.outcome not in {Outcome.FAILED, Outcome.TIMED_OUT} for line in analysis.branches)


def without_sequences(analysis: Analysis) -> Analysis:
    """The same answer without lip motion and voice features, which no caller ever sees."""
    visual, audio = analysis.evidence.visual, analysis.evidence.audio
    return replace(
        analysis,
        evidence=Evidence(
            replace(visual, motions=()) if visual is not None else None,
            replace(audio, voice=None) if audio is not None else None,
        ),
    )


def _weight(analysis: Analysis) -> int:
    """About how much memory an answer takes, bytes."""
    visual, audio = analysis.evidence.visual, analysis.evidence.audio
    points = sum(len(line.timeline) for line in analysis.branches)
    points += sum(len(track.behaviour.eye_aspect) + 4 for track in visual.tracks) if visual is not None else 0
    points += len(audio.windows) if audio is not None else 0
    return _BYTES_AN_ANSWER + points * _BYTES_A_POINT
