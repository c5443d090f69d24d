"""The heads and policies in force, read again by every readiness check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from services.common.errors import ModelRepositoryError, UnavailableError
from services.common.evidence import Branch
from services.common.models import ModelRepository
from services.fusion.heads import Head, load_heads
from services.fusion.policy import PolicySet, load_policies

SHIPPED_HEADS = Path(__file__).parent / "heads"
"""The heads that come with the service."""
DEFAULT_POLICY = "balanced"


class HeadStore:
    """Keeps the last set of heads and policies whose every file was as its manifest says.

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
        self._loaded: tuple[Mapping[frozenset[Branch], Head], PolicySet] | None = None

    def refresh(self) -> None:
        """Read and verify everything.

        Raises:
            ModelRepositoryError: a file is missing, altered or unusable, or the heads were fitted on other models
                than those served (``HEADS_OF_OTHER_MODELS``); what was loaded before stays.
        """
        heads = load_heads(self._directory)
        if self._repository is not None:
            check_models(heads.values(), self._repository.contents())
        policies = load_policies(self._directory, self._own_policies, self._default_policy)
        self._loaded = (heads, policies)

    @property
    def heads(self) -> Mapping[frozenset[Branch], Head]:
        """The head of each set of branches.

        Raises:
            UnavailableError: none have been loaded yet.
        """
        return self._current()[0]

    @property
    def policies(self) -> PolicySet:
        """The decision policies.

        Raises:
            UnavailableError: none have been loaded yet.
        """
        return self._current()[1]

    def _current(self) -> tuple[Mapping[frozenset[Branch], Head], PolicySet]:
        if self._loaded is None:
            raise UnavailableError("the fusion heads are not loaded", reason="HEADS_NOT_LOADED")
        return self._loaded


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
        documents = {name for name in served if name.endswith(".json")}
        for name in sorted((documents | fitted_on.keys()) & served.keys()):
            if fitted_on.get(name) != served[name]:
                raise ModelRepositoryError(
                    f"the fusion heads were fitted on another {name} ({str(fitted_on.get(name))[:12]}) than the one "
                    f"served ({served[name][:12]}): run `make train-fusion`, or put the model back",
                    reason="HEADS_OF_OTHER_MODELS",
                )
