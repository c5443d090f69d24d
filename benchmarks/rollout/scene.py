"""The real stack over tiny models in several versions, with the heads that belong to each."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.reliability.tiny_models import STAND_IN, GraphBuilder, frame_classifier, write_heads, write_repository
from bonafide.models_rollout import main as step
from bonafide.models_staging import stage
from deploy.local.stack import ROOT, Stack, StackOptions
from deploy.topology import COMPONENTS
from services.common.models import HEADS, ModelRepository
from services.fusion.heads import MANIFEST
from services.fusion.store import SHIPPED_HEADS

MODEL = "frame_classifier"
SECONDS_BETWEEN_LOOKS = 0.5
"""How often the services look at the rollout file here."""
GOOD, BAD, SILENT, SLOW = "2", "3", "4", "5"
"""Versions of MODEL beside the stable 1: as good, upside down, without a number for a face, and much too slow."""
BLACK_CROP = 135.0
"""Minus the stable version's log-odds of a black crop."""
TURNS = 2_000_000.0
"""Turns of a loop that take a core about a second."""


class SceneError(Exception):
    """Something did not come about in time; the sentence says what."""


class AlteredGraph(GraphBuilder):
    """A graph whose log-odds are altered on their way out.

    Args:
        alter: makes one node of another.
    """

    def __init__(self, alter: Callable[[GraphBuilder, str], str]) -> None:
        super().__init__(MODEL)
        self._alter = alter

    def give(self, name: str, source: str, shape: Sequence[int | str]) -> None:
        """See GraphBuilder."""
        super().give(name, self._alter(self, source) if name == "logit" else source, shape)


def _light(graph: GraphBuilder, logit: str) -> str:
    """Above 0 for a face, and 0 for a black crop, with which models are tried and probed."""
    return graph.node("Abs", [graph.scaled(logit, 1.0, BLACK_CROP)])


def _root_of_less_than_nothing(graph: GraphBuilder, logit: str) -> str:
    """No number for a face."""
    return graph.node("Sqrt", [graph.scaled(_light(graph, logit), -1.0, 0.0)])


def _round_and_round(graph: GraphBuilder, logit: str) -> str:
    """The same number after about a second of one core."""
    any_light = graph.node("Sign", [graph.node("ReduceMax", [_light(graph, logit)], keepdims=0)])
    turns = graph.node("Cast", [graph.scaled(any_light, TURNS, 0.0)], to=TensorProto.INT64)
    scalars = [("turn", TensorProto.INT64), ("on", TensorProto.BOOL)]
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), helper.make_node("Identity", ["value"], ["same"])],
        "turn",
        [
            *(helper.make_tensor_value_info(name, kind, []) for name, kind in scalars),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 1]),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, ["n", 1]),
        ],
    )
    return graph.node("Loop", [turns, graph.constant(value=True, kind=np.bool_), logit], body=body)


ALTERATIONS: Mapping[str, Callable[[GraphBuilder, str], str]] = {
    GOOD: lambda graph, logit: graph.scaled(logit, 1.0, 0.05),
    BAD: lambda graph, logit: graph.scaled(logit, -1.0, 0.0),
    SILENT: _root_of_less_than_nothing,
    SLOW: _round_and_round,
}


class Scene:
    """Starts the stack over version 1 and stages the others; a context manager.

    Args:
        directory: for everything; what it held is removed.
    """

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        self.directory = directory
        self.repository = write_repository(directory / "models", ROOT / "model_repository")
        self.heads = write_heads(directory / "heads", SHIPPED_HEADS, self.repository)
        often = {
            f"{component.prefix}READINESS_INTERVAL_SECONDS": str(SECONDS_BETWEEN_LOOKS) for component in COMPONENTS
        }
        options = StackOptions(
            repository=directory / "models",
            run_directory=directory,
            environment={"PYTHONPATH": str(ROOT), **often},  # the code of this checkout
            own_environment={"fusion": {"BONAFIDE_FUSION_HEADS": str(self.heads)}},
            start_seconds=180,
            patience_seconds=60,
        )
        self.stack = Stack(options, say=lambda _: None)

    def __enter__(self) -> Self:
        self.stack.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.stop()

    def stage(self, version: str) -> None:
        """Put a version of MODEL beside the others, with a set of heads of the same number that was fitted on it."""
        source = self.directory / f"training-{version}"
        builder = AlteredGraph(ALTERATIONS[version])
        frame_classifier(builder)
        content = builder.model().SerializeToString()
        file = source / MODEL / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        card = {
            "version": "1",
            "sha256": hashlib.sha256(content).hexdigest(),
            "trained_on": STAND_IN,
            "headline": "none: it judges nothing",
            "licence": "as this project",
        }
        (source / MODEL / "card.json").write_text(json.dumps(card), encoding="utf-8")
        stage(self.repository, MODEL, version, source / MODEL)
        self.stage_heads(version, self.repository.at({MODEL: version}), 0.0)

    def stage_heads(self, version: str, repository: ModelRepository, intercept: float) -> None:
        """Put a set of heads beside the others, fitted on these models, with log-odds moved by ``intercept``."""
        source = write_heads(self.directory / f"heads-{version}", self.heads, repository)
        manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        for name in manifest["files"]:
            content = json.loads((source / name).read_text(encoding="utf-8"))
            if "intercept" in content:
                content["intercept"] += intercept * content["temperature"]
            encoded = json.dumps(content).encode()
            (source / name).write_bytes(encoded)
            manifest["files"][name] = hashlib.sha256(encoded).hexdigest()
        (source / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        stage(self.repository, HEADS, version, source)

    def step(self, *words: str) -> None:
        """Do a step of ``bonafide models``.

        Raises:
            SceneError: it was refused.
        """
        places = ["--repository", str(self.repository.root), "--file", str(self.stack.rollout_file)]
        if step([words[0], *words[1:], *places]):
            raise SceneError(f"refused: {' '.join(words)}")

    def metric(self, service: str, name: str, **labels: str) -> float:
        """A metric of a service now, summed over the labels that are not named."""
        with urllib.request.urlopen(f"http://{self.stack.metrics[service]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def comparisons(self, version: str) -> float:
        """Clips on which a version of MODEL was compared so far."""
        return self.metric("visual", "bonafide_rollout_comparisons_total", candidate=version)

    def until(self, happened: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
        """Wait for something; answers how long it took, seconds.

        Raises:
            SceneError: it did not happen in time.
        """
        began = time.monotonic()
        while not happened():
            if time.monotonic() - began > seconds:
                raise SceneError(f"in {seconds:g} s it did not come about that {what}")
            time.sleep(0.1)
        return time.monotonic() - began
