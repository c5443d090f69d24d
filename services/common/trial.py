"""One candidate on trial: whom it meets, what it has cost so far, and the end of its trial when that is too much."""

from __future__ import annotations

import logging
from enum import StrEnum

from services.common.budget import Budget
from services.common.models import ModelRepository
from services.common.rollout_plan import Candidate, Mode, position
from services.common.telemetry import (
    ROLLBACKS,
    ROLLOUT_COMPARISONS,
    ROLLOUT_DISAGREEMENT,
    ROLLOUT_ERRORS,
    ROLLOUT_SHARE,
    Telemetry,
)

ERRORS, DISAGREEMENT = "ERRORS", "DISAGREEMENT"
"""Which budget was overdrawn."""
_log = logging.getLogger(__name__)


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    """The candidate cannot take part yet, or may not; ``reason`` says why."""
    RUNNING = "running"
    ROLLED_BACK = "rolled_back"
    """It cost more than its budgets and takes no more part until the rollout file says something else of it."""


class Trial:
    """What is known of one candidate; lives on one event loop.

    Args:
        model: name in the model repository.
        candidate: what the plan says of it.
        repository: the models of a clip that the candidate answers.
        telemetry: is told how it does.
    """

    def __init__(self, model: str, candidate: Candidate, repository: ModelRepository, telemetry: Telemetry) -> None:
        self.model = model
        self.candidate = candidate
        self.repository = repository
        self.state = TrialState.WAITING
        self.reason = ""
        self.dropped = 0
        self._telemetry = telemetry
        self._labels = {"model": model, "candidate": candidate.version}
        telemetry.expect(ROLLBACKS, [self._labels | {"reason": reason} for reason in (ERRORS, DISAGREEMENT)])
        budgets = candidate.budgets
        self.errors = Budget(budgets.errors, budgets.minimum)
        self.disagreements = Budget(budgets.disagreement, budgets.minimum)

    def __repr__(self) -> str:
        return f"{self.model}/{self.candidate.version}"

    @property
    def share(self) -> float:
        """Share of the clips that the candidate meets now."""
        return self.candidate.share if self.state is TrialState.RUNNING else 0.0

    def watches(self, content: str) -> bool:
        """Whether the candidate is compared on a clip that the stable version answers."""
        if self.candidate.mode is not Mode.SHADOW or not content:
            return False
        return position(content, f"shadow:{self.model}") < self.share

    def wait(self, reason: str) -> None:
        """Take no part for now, for a reason in upper snake case."""
        if self.state is not TrialState.ROLLED_BACK and (self.state, self.reason) != (TrialState.WAITING, reason):
            _log.warning("%s takes no part: %s", self, reason)
            self._become(TrialState.WAITING, reason)

    def run(self) -> None:
        """Take part from now on, unless it was rolled back."""
        if self.state is TrialState.WAITING:
            _log.info("%s takes part: %s, %g of the clips", self, self.candidate.mode, self.candidate.share)
            self._become(TrialState.RUNNING, "")

    def drop(self) -> None:
        """Note a comparison that was left out, because another was under way or the stable version was busy."""
        self.dropped += 1

    def note_failure(self) -> None:
        """Note a clip on which the candidate failed and the stable version did not."""
        self._telemetry.count(ROLLOUT_ERRORS, 1, **self._labels)
        if self.errors.add(bad=True):
            self._roll_back(ERRORS)

    def note_success(self) -> None:
        """Note a clip on which the candidate answered."""
        self.errors.add(bad=False)

    def note_difference(self, difference: float) -> None:
        """Note by how much the two versions differ on a clip, as a probability in [0, 1]."""
        self._telemetry.count(ROLLOUT_COMPARISONS, 1, **self._labels, mode=self.candidate.mode.value)
        self._telemetry.observe(ROLLOUT_DISAGREEMENT, difference, **self._labels)
        if self.disagreements.add(bad=difference >= self.candidate.budgets.margin):
            self._roll_back(DISAGREEMENT)

    def end(self) -> None:
        """Be shown no longer: the plan says nothing more of it."""
        self._telemetry.show(ROLLOUT_SHARE, 0, **self._labels)

    def _roll_back(self, reason: str) -> None:
        if self.state is TrialState.RUNNING:
            self._telemetry.count(ROLLBACKS, 1, **self._labels, reason=reason)
            _log.warning(
                "%s is rolled back (%s): %d of %d clips failed, %d of %d differed",
                self,
                reason,
                self.errors.bad,
                self.errors.outcomes,
                self.disagreements.bad,
                self.disagreements.outcomes,
            )
            self._become(TrialState.ROLLED_BACK, reason)

    def _become(self, state: TrialState, reason: str) -> None:
        self.state, self.reason = state, reason
        heard = self.share if self.candidate.mode is Mode.CANARY else 0.0
        self._telemetry.show(ROLLOUT_SHARE, heard, **self._labels)
