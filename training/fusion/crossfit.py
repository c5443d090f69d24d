"""Scores of branches that were trained on the clips themselves, by models that have not seen the clip.

The synchrony head and the temporal network learn from the same few clips as fusion. Their served models would
score them too well, and fusion would trust them too much, so each clip is scored by the model of the fold that
held it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from services.common.errors import ModelNotDeployedError
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode
from services.common.inference import Array, EmbeddedEngine, InferenceEngine
from services.common.models import ModelRepository
from services.fusion.pipeline import FusionInput
from services.fusion.synchrony import SYNC_MODEL, Synchrony
from services.visual import temporal
from training.cards import Card, write_card
from training.data import Clip, folds
from training.temporal.__main__ import SERVED
from training.temporal.corpus import read_corpus
from training.temporal.embeddings import with_embeddings
from training.temporal.evaluation import fit_blend, held_out, out_of_fold, source_folds
from training.temporal.export import build, export
from training.temporal.fitting import Sequences, fit_members

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


class HeldOutEngine:
    """An engine whose temporal network is, for each clip, one that met neither its source nor its identity.

    Args:
        engine: runs everything else, and the temporal network until folds are given.
    """

    kind = "embedded"

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine
        self._folds: list[EmbeddedEngine] = []
        self._fold_of: Mapping[str, int] = {}
        self._current: InferenceEngine = engine

    @property
    def held_out(self) -> bool:
        """Whether there are networks of folds."""
        return bool(self._folds)

    def fit_folds(self, clips: tuple[Clip, ...], cache: Path, corpus: Path, served: ModelRepository, seed: int) -> None:
        """Fit the temporal network once for each fold of sources, as ``training.temporal`` does, or recall it.

        Args:
            clips: the manifest.
            cache: where the networks of the folds are kept.
            corpus: where ``training.temporal`` keeps what it read.
            served: the repository with the served network.
            seed: of ``training.temporal``.
        """
        rows = with_embeddings(read_corpus(clips, corpus, seed), clips, corpus)
        fit = partial(fit_members, plan=Sequences(), kinds=SERVED)
        dealt = source_folds(rows, seed)
        self._fold_of = {row.name: at for at, fold in enumerate(dealt) for row in rows if row.source in fold}
        roots = [cache / "temporal" / served.card(temporal.MODEL).sha256[:16] / f"fold{at}" for at in range(len(dealt))]
        if not all((root / temporal.MODEL / "card.json").is_file() for root in roots):
            blend = fit_blend(rows, out_of_fold(rows, fit, seed), SERVED)
            for root, fold in zip(roots, dealt, strict=True):
                learnt = [rows[place] for place in held_out(rows, fold)[0]]
                export(build(fit(learnt, seed), learnt, blend), root)
                write_card(fold_card(temporal.MODEL, "python -m training.fusion"), root)
        self._folds = [EmbeddedEngine(ModelRepository(root)) for root in roots]

    def turn_to(self, clip: str) -> None:
        """From now on score this clip of the manifest; one that no fold holds out is scored by the first."""
        if self._folds:
            self._current = self._folds[self._fold_of.get(clip, 0)]

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        """See InferenceEngine."""
        engine = self._current if model == temporal.MODEL else self._engine
        return await engine.infer(model, inputs, timeout=timeout)

    async def close(self) -> None:
        """See InferenceEngine."""
        await self._engine.close()


def fold_card(name: str, command: str) -> Card:
    """The card of a model that only held-out scores are read from; it is never served."""
    return Card(
        name=name,
        task="one fold of cross-validation",
        trained_on="all clips but those of one fold",
        headline="see the card of the served model",
        data=["clips"],
        split="one fold held out",
        seed=0,
        command=command,
        metrics={"none": {}},
        licence="see the card of the served model",
        limits=[],
        inputs={},
        outputs={},
    )
