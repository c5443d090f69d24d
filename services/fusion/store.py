"""The heads and policies in force, read again by every readiness check."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import BonafideError, ModelRepositoryError, UnavailableError
from services.common.evidence import Branch, ModelInfo
from services.common.models import HEADS, ModelRepository, fits
from services.fusion.heads import Head, head_set, load_heads
from services.fusion.policy import PolicySet, load_policies

SHIPPED_HEADS = Path(__file__).parent / "heads"
"""The heads that come with the service."""
SHIPPED_VERSION = "1"
DEFAULT_POLICY = "balanced"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeadSet:
    """Heads and the policies that were calibrated with them; ``info`` names them as a whole."""

    info: ModelInfo
    heads: Mapping[frozenset[Branch], Head]
    policies: PolicySet

    @property
    def version(self) -> str:
        """Its version."""
        return self.info.version

    def check_models(self, served: Mapping[str, str]) -> None:
        """See ``check_models``."""
        check_models(self.heads.values(), served)


class HeadStore:
    """Keeps the sets of heads and policies whose every file was as its manifest says.

    The set that comes with the service is version 1; others lie in the model repository, one a version.

    Args:
        directory: the heads, their policies and the manifest.
        own_policies: the operator's own policies.
        default_policy: used when a caller names none.
        repository: the models served beside; heads that were fitted on the scores of others are refused.
    """

    def __init__(
        self,
        directory: Path = SHIPPED_HEADS,
        own_policies: Path | None = None,
        default_policy: str = DEFAULT_POLICY,
        repository: ModelRepository | None = None,
    ) -> None:
        self._directory = directory
        self._own_policies = own_policies
        self._default_policy = default_policy
        self._repository = repository
        self._sets: tuple[HeadSet, ...] = ()
        self._stable: dict[str, str] = {}
        self._chosen: dict[frozenset[ModelInfo], HeadSet] = {}

    def refresh(self, stable: ModelRepository | None = None) -> None:
        """Read and verify everything.

        Args:
            stable: the models that answer most clips, and the version of the heads that reads them where several
                could; those of the root cards when None.

        Raises:
            ModelRepositoryError: a file of the shipped set is missing, altered or unusable, or no set was fitted on
                the models served (``HEADS_OF_OTHER_MODELS``); what was loaded before stays.
        """
        repository = stable or self._repository
        sets, served = [self._read(SHIPPED_VERSION, self._directory)], dict[str, str]()
        if repository is not None:
            served = repository.contents()
            sets += self._staged(repository)
            wanted = repository.versions.get(HEADS, SHIPPED_VERSION)
            sets.sort(key=lambda each: each.version != wanted)
            first = _first_fitting(sets, served)
            sets.sort(key=lambda each: each is not first)
        self._repository, self._stable = repository, served
        self._sets, self._chosen = tuple(sets), {}

    @property
    def heads(self) -> Mapping[frozenset[Branch], Head]:
        """The head of each set of branches, for the stable models.

        Raises:
            UnavailableError: none have been loaded yet.
        """
        return self._current()[0].heads

    @property
    def policies(self) -> PolicySet:
        """The decision policies, for the stable models.

        Raises:
            UnavailableError: none have been loaded yet.
        """
        return self._current()[0].policies

    def at_work(self) -> list[ModelInfo]:
        """All sets that are loaded, that of the stable models first."""
        return [each.info for each in self._current()]

    def chosen_for(self, models: Iterable[ModelInfo]) -> HeadSet:
        """The set that may read the scores of these models, and of the stable ones for all others.

        Raises:
            UnavailableError: none have been loaded yet, or none of them may.
        """
        sets, key = self._current(), frozenset(models)
        if key not in self._chosen:
            try:
                self._chosen[key] = _first_fitting(sets, self._served(key))
            except ModelRepositoryError as error:
                raise UnavailableError(error.message, reason=error.reason) from error
        return self._chosen[key]

    def fitting(self, version: str, models: Iterable[ModelInfo]) -> HeadSet | None:
        """The set of a version, if there is one that may read the scores of these models."""
        found = [each for each in self._sets if each.version == version]
        try:
            return _first_fitting(found, self._served(frozenset(models))) if found else None
        except ModelRepositoryError:
            return None

    def _current(self) -> tuple[HeadSet, ...]:
        """All sets, that of the stable models first."""
        if not self._sets:
            raise UnavailableError("the fusion heads are not loaded", reason="HEADS_NOT_LOADED")
        return self._sets

    def _served(self, models: frozenset[ModelInfo]) -> dict[str, str]:
        """SHA-256 of all models and documents as a clip got them that these took part in."""
        taken = [each for each in models if each.name in self._stable]
        if self._repository is None or all(self._stable[each.name] == each.sha256 for each in taken):
            return self._stable
        candidate_last = sorted(taken, key=lambda model: (model.candidate, model.name))
        try:
            found = self._repository.at({each.name: each.version for each in candidate_last}).contents()
        except BonafideError as error:  # of a version that is not here only the hash is known
            _log.info("a version that took part in a clip is not here: %s", error.message)
            found = self._stable
        return found | {each.name: each.sha256 for each in taken}

    def _staged(self, repository: ModelRepository) -> Iterator[HeadSet]:
        for version in repository.staged(HEADS):
            try:
                card = repository.at({HEADS: version}).verified(HEADS)
                if version == SHIPPED_VERSION:
                    raise ModelRepositoryError("version 1 are the heads that come with the service")
                yield self._read(version, repository.model_file(card).parent)
            except BonafideError as error:
                _log.warning("fusion heads %s are left out: %s", version, error.message)

    def _read(self, version: str, directory: Path) -> HeadSet:
        policies = load_policies(directory, self._own_policies, self._default_policy)
        return HeadSet(head_set(directory, version), load_heads(directory), policies)


def _first_fitting(sets: Sequence[HeadSet], served: Mapping[str, str]) -> HeadSet:
    """The first set that may read the scores of these models; raises what is wrong with the very first if none may."""
    problem: ModelRepositoryError | None = None
    for each in sets:
        try:
            each.check_models(served)
        except ModelRepositoryError as error:
            problem = problem or error
        else:
            return each
    assert problem is not None
    raise problem


def check_models(heads: Iterable[Head], served: Mapping[str, str]) -> None:
    """Refuse heads that were fitted on the scores of other models than those served.

    A model or document that is not served is no fault: its branch does not answer, and another head does.

    Args:
        heads: each with the SHA-256 of what it was fitted on under ``models`` in its training report; heads
            that record nothing are not checked.
        served: name → SHA-256 of the models served, and of the documents beside them.

    Raises:
        ModelRepositoryError: with the reason ``HEADS_OF_OTHER_MODELS``; names one of them.
    """
    for head in heads:
        fitted_on = head.training.get("models")
        if fitted_on is None:
            continue
        name = fits(fitted_on, served)
        if name:
            raise ModelRepositoryError(
                f"the fusion heads were fitted on another {name} ({str(fitted_on.get(name))[:12]}) than the one "
                f"served ({served[name][:12]}): run `make train-fusion`, or put the model back",
                reason="HEADS_OF_OTHER_MODELS",
            )
