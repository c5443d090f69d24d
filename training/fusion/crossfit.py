"""Scores of branches that were trained on the clips themselves, by models that have not seen the clip.

The synchrony head learns from the same few clips as fusion. Its served model would score them too well, and
fusion would trust it too much, so each clip is scored by the model of the fold that held it out.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.common.errors import ModelNotDeployedError
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.fusion.pipeline import FusionInput
from services.fusion.synchrony import SYNC_MODEL, Synchrony
from training.data import folds

FOLDS = 5


def fold_repository(cache: Path, fold: int, served_sha256: str) -> Path:
    """Model repository of the synchrony head that held out one fold, made in the run that made the served one."""
    return cache / "sync" / served_sha256[:16] / f"fold{fold}"


class HeldOutSynchrony:
    """The SYNC line of a clip's ledger by a model that was not trained on its group.

    Args:
        cache: where ``training.sync`` keeps the models of its folds.
        served: the repository with the served model.
        seed: of the folds; that of ``training.sync``.
    """

    def __init__(self, cache: Path, served: ModelRepository, seed: int) -> None:
        self._seed = seed
        self._branches: list[Synchrony] = []
        try:
            digest = served.card(SYNC_MODEL).sha256
        except ModelNotDeployedError:
            return
        roots = [fold_repository(cache, fold, digest) for fold in range(FOLDS)]
        if all((root / SYNC_MODEL / "card.json").is_file() for root in roots):
            repositories = [ModelRepository(root) for root in roots]
        else:
            repositories = [served] * FOLDS
        self.held_out = repositories[0] is not served
        self._branches = [Synchrony(EmbeddedEngine(found), found) for found in repositories]

    held_out = False
    """Whether models of folds were found; otherwise the served one answers."""

    def report(self, clip: FusionInput, group: str) -> BranchReport:
        """The SYNC line of one clip's ledger."""
        if not self._branches:
            return BranchReport(Branch.SYNC, Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)
        branch = self._branches[int(folds([group], FOLDS, self._seed)[0])]
        found = branch.score(clip.motions, clip.voice, clip.reports, wanted=True, timeout=60)
        return asyncio.run(found).report
