"""The heads and policies in force, read again by every readiness check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.common.errors import UnavailableError
from services.common.evidence import Branch
from services.fusion.heads import Head, load_heads
from services.fusion.policy import PolicySet, load_policies

SHIPPED_HEADS = Path(__file__).parent / "heads"
"""The heads that come with the service."""
DEFAULT_POLICY = "balanced"


class HeadStore:
    """Keeps the last set of heads and policies whose every file was as its manifest says."""

    def __init__(
        self,
        directory: Path = SHIPPED_HEADS,
        own_policies: Path | None = None,
        default_policy: str = DEFAULT_POLICY,
    ) -> None:
        self._directory = directory
        self._own_policies = own_policies
        self._default_policy = default_policy
        self._loaded: tuple[Mapping[frozenset[Branch], Head], PolicySet] | None = None

    def refresh(self) -> None:
        """Read and verify everything.

        Raises:
            ModelRepositoryError: a file is missing, altered or unusable; what was loaded before stays.
        """
        heads = load_heads(self._directory)
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
