"""What is on trial: the rollout file, and which of two versions a clip gets.

The file is JSON. For each model it may name the version that is stable, where that is not the one of the root
card, and one candidate: its version, whether it only watches (shadow) or answers a share of the clips (canary),
and the budgets that end its trial. ``docs/rollout.md`` has an example.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from services.common.errors import ModelRepositoryError

_STRICT = ConfigDict(extra="forbid")
_Version = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_LARGEST_FILE = 1 << 20


class Mode(StrEnum):
    """What a candidate may do: be compared and never heard, or answer a share of the clips."""

    SHADOW = "shadow"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, config=_STRICT)
class Budgets:
    """What a candidate may cost before its trial ends by itself.

    ``errors`` is the share of clips on which it may fail where the stable version does not; ``disagreement`` the
    share on which its probability may differ by ``margin`` or more; ``minimum`` the clips before which nothing
    is concluded; ``seconds`` the time that one call to it, or one comparison, may take.
    """

    errors: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    disagreement: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.25
    minimum: Annotated[int, Field(ge=1)] = 20
    seconds: Annotated[float, Field(gt=0)] = 10.0


@dataclass(frozen=True, slots=True, config=_STRICT)
class Candidate:
    """A version on trial; ``share`` is that of the clips on which it is compared, or which it answers."""

    version: _Version
    mode: Mode
    share: Annotated[float, Field(ge=0, le=1)]
    budgets: Budgets = Budgets()


@dataclass(frozen=True, slots=True, config=_STRICT)
class ModelPlan:
    """One model: its stable version, None for that of the root card, and its candidate, if it has one.

    ``previous`` is the stable version before, kept for whoever wants to go back; the services do not read it.
    """

    stable: _Version | None = None
    candidate: Candidate | None = None
    previous: _Version | None = None


@dataclass(frozen=True, slots=True, config=_STRICT)
class RolloutPlan:
    """The whole file. Canaries have disjoint shares of the clips, so that no clip has two."""

    format: Literal[1] = 1
    models: Mapping[_Name, ModelPlan] = field(default_factory=dict)

    @property
    def stable(self) -> dict[str, str]:
        """Name → version of the models whose stable version is not left to the root card."""
        return {name: plan.stable for name, plan in sorted(self.models.items()) if plan.stable is not None}

    @property
    def candidates(self) -> dict[str, Candidate]:
        """Those on trial, by model."""
        return {name: plan.candidate for name, plan in sorted(self.models.items()) if plan.candidate is not None}

    def canary_of(self, content: str) -> str:
        """The model whose canary answers a clip; empty for most clips.

        Args:
            content: hash of the clip; the same clip always gets the same answer while the plan stays.
        """
        place, end = position(content, "canary"), 0.0
        for name, candidate in self.candidates.items():
            if candidate.mode is Mode.CANARY:
                end += candidate.share
                if place < end:
                    return name
        return ""


_ADAPTER = TypeAdapter(RolloutPlan)


def position(content: str, salt: str) -> float:
    """Where a clip stands in [0, 1), evenly spread, the same for ever; another ``salt`` shuffles all clips anew."""
    digest = hashlib.sha256(f"{salt}:{content}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def parse_plan(text: bytes | str) -> RolloutPlan:
    """A plan from JSON.

    Raises:
        ModelRepositoryError: it is none (ROLLOUT_INVALID); says what is wrong where.
    """
    try:
        plan = _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise _invalid(f"{place}: {first['msg']}") from error
    canaries = [each.share for each in plan.candidates.values() if each.mode is Mode.CANARY]
    if sum(canaries) > 1:
        raise _invalid("the shares of all canaries add up to more than 1")
    for name, model in plan.models.items():
        if model.candidate is not None and model.candidate.version == model.stable:
            raise _invalid(f"{name}: its candidate is its stable version")
    return plan


def dump_plan(plan: RolloutPlan) -> str:
    """A plan as JSON, without what is not set."""
    return _ADAPTER.dump_json(plan, indent=2, exclude_none=True).decode() + "\n"


class RolloutFile:
    """The rollout file, parsed again when it changes; one that is not there rolls nothing out."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._plan = RolloutPlan()

    def read(self) -> RolloutPlan:
        """The plan that the file holds now.

        Raises:
            ModelRepositoryError: it cannot be read, or is no plan (ROLLOUT_INVALID).
        """
        if self._path is None:
            return self._plan
        try:
            with self._path.open("rb") as stream:
                facts = os.fstat(stream.fileno())
                seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
                if seen == self._seen:
                    return self._plan
                text = stream.read(_LARGEST_FILE)
        except FileNotFoundError:
            self._seen, self._plan = None, RolloutPlan()
            return self._plan
        except OSError as error:
            raise _invalid("it cannot be read") from error
        self._plan = parse_plan(text)
        self._seen = seen
        return self._plan


def _invalid(what: str) -> ModelRepositoryError:
    return ModelRepositoryError(f"the rollout file is invalid: {what}", reason="ROLLOUT_INVALID")
