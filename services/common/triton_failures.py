"""What a failed call to Triton means: the error of ours, and whether waiting a moment may help.

Triton's codes are coarse and its texts say more, so both are read; each case was seen with Triton 2.51.
"""

from __future__ import annotations

from dataclasses import dataclass

from tritonclient.utils import InferenceServerException

from services.common.errors import (
    BonafideError,
    DeadlineError,
    ModelNotDeployedError,
    ResourceExhaustedError,
    UnavailableError,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed call.

    ``passing`` is True for what may be over in a moment; ``dead`` for a model whose process no longer
    answers, which only a reload brings back.
    """

    error: BonafideError
    passing: bool = False
    dead: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    """One row of the table: a status code (any when empty), a part of the text, and what they mean."""

    code: str
    text: str
    kind: type[BonafideError]
    says: str
    reason: str | None = None
    passing: bool = False
    dead: bool = False


_CASES = (
    # Draining, rolling out, or being reloaded.
    _Case(
        "", "no available versions", UnavailableError, "model {} is not loaded", reason="MODEL_NOT_LOADED", passing=True
    ),
    _Case(
        "", "not at ready state", UnavailableError, "model {} is not loaded", reason="MODEL_NOT_LOADED", passing=True
    ),
    _Case("", "is not ready", UnavailableError, "model {} is not loaded", reason="MODEL_NOT_LOADED", passing=True),
    # The model's process was killed or stopped; the server still calls it ready.
    _Case("", "is not healthy", UnavailableError, "model {} is dead", reason="MODEL_DEAD", passing=True, dead=True),
    _Case(
        "UNAVAILABLE",
        "maximum queue size",
        ResourceExhaustedError,
        "model {} has a full queue",
        reason="MODEL_QUEUE_FULL",
        passing=True,
    ),
    _Case(
        "UNAVAILABLE",
        "timeout expired",
        ResourceExhaustedError,
        "model {} has a full queue",
        reason="MODEL_QUEUE_FULL",
        passing=True,
    ),
    _Case(
        "UNAVAILABLE",
        "",
        UnavailableError,
        "the inference server cannot be reached",
        reason="INFERENCE_UNREACHABLE",
        passing=True,
    ),
    _Case("DEADLINE_EXCEEDED", "", DeadlineError, "model {} did not answer in time"),
    # Triton was restarted and has forgotten what was registered.
    _Case(
        "",
        "Unable to find shared memory region",
        UnavailableError,
        "model {} lost its inputs",
        reason="SHARED_MEMORY_LOST",
    ),
    _Case("NOT_FOUND", "", ModelNotDeployedError, "model {} is unknown to the inference server"),
    _Case("INVALID_ARGUMENT", "", BonafideError, "model {} does not take these inputs", reason="MODEL_REFUSED_INPUT"),
    _Case("", "", UnavailableError, "model {} failed", reason="MODEL_FAILED"),
)


def failure_of(model: str, raised: InferenceServerException) -> Failure:
    """Read a failed inference of a model."""
    code, text = str(raised.status() or "").rpartition(".")[2], str(raised.message())
    case = next(each for each in _CASES if each.code in {"", code} and each.text in text)
    error = case.kind(case.says.format(model), reason=case.reason)
    return Failure(error, passing=case.passing, dead=case.dead)
