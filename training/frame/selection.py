"""What the frame classifier learns from, what it never sees, and how batches are mixed.

Held out for good: the DFDC validation groups, the whole MesoNet set, and whole sources of the mixed set
together with their methods: swaps, reenactment, attribute editing, inversion and diffusion, so that the
figures on them say what happens on forgeries that nobody trained on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data import Example

Rows = npt.NDArray[np.int64]

HELD_OUT_SOURCES = frozenset(
    {
        "GGGHSL/InfoSwap-master",
        "yuezunli/celeb-deepfakeforensics",
        "ai-forever/ghost",
        "Sanoojan/REFace",
        "haofanwang/inswapper",
        "StelaBou/stylegan_directions_face_reenactment",
        "vincent-thevenin/Realistic-Neural-Talking-Head-Models",
        "OpenTalker/StyleHEAT",
        "imlixinyang/HiSD",
        "facebookresearch/FaderNetworks",
        "danielroich/PTI",
        "yuval-alaluf/hyperstyle",
        "ziqihuangg/Collaborative-Diffusion",
    }
)
CONFOUNDED_SOURCES = frozenset(
    {
        "StelaBou/HyperReenact",
        "dfaker/df",
        "yuval-alaluf/SAM",
        "harlanhong/CVPR2022-DaGAN",
        "zsyOAOA/DifFace",
        "gwang-kim/DiffusionCLIP",
        "aaronchong888/DeepFake-Detect",
    }
)
"""Inside these, sharpness, brightness or colour tells the classes apart."""
DEGRADED_SOURCES = frozenset(
    {"wzhouxiff/RestoreFormer", "sczhou/CodeFormer", "yangxy/GPEN", "TencentARC/GFPGAN", "zsyOAOA/DifFace"}
)
"""Their real pictures are degraded photographs."""
_SUBTLE_ENDINGS = ("-makeup", "-blend", "-inpainting", "-inpaint", "-colorization", "-color", "-recon", "-proj")
_SUBTLE_METHODS = frozenset(
    {
        "pSp-encoding",
        "StyleGAN3-inversion",
        "GPEN-restoration",
        "GFPGAN",
        "CodeFormer",
        "RestoreFormer",
        "DFDNet",
        "PSFRGAN",
        "PULSE",
        "Wan-oldphoto",
        "DifFace",
    }
)


def is_subtle(method: str) -> bool:
    """Whether a method changes so little, or restores, that calling its output fake teaches noise."""
    return method in _SUBTLE_METHODS or method.endswith(_SUBTLE_ENDINGS)


def held_out_rows(examples: Sequence[Example]) -> Rows:
    """Rows of the mixed set on which unseen sources and methods are measured; subtle methods left out."""
    chosen = [
        index
        for index, example in enumerate(examples)
        if example.fields["source"] in HELD_OUT_SOURCES and not is_subtle(example.fields["method"])
    ]
    return np.array(chosen, dtype=np.int64)


def training_rows(examples: Sequence[Example]) -> Rows:
    """Rows of the mixed set to train on: no held-out source or method, nothing subtle or confounded."""
    unseen = {
        example.fields["method"]
        for example in examples
        if example.fake and example.fields["source"] in HELD_OUT_SOURCES
    }
    avoided = HELD_OUT_SOURCES | CONFOUNDED_SOURCES
    chosen = []
    for index, example in enumerate(examples):
        method, source = example.fields["method"], example.fields["source"]
        if source in avoided or method in unseen:
            continue
        if is_subtle(method) if example.fake else source in DEGRADED_SOURCES:
            continue
        chosen.append(index)
    return np.array(chosen, dtype=np.int64)


def pairs(examples: Sequence[Example]) -> Rows:
    """Rows of one real and one fake picture of each group: int64 [groups, 2]."""
    by_group: dict[str, dict[int, int]] = defaultdict(dict)
    for index, example in enumerate(examples):
        by_group[example.group].setdefault(example.fake, index)
    return np.array([(both[0], both[1]) for both in by_group.values() if len(both) == 2], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class MixedSampler:
    """Draws real and fake rows of the mixed set, balanced over sources and methods."""

    real_by_source: Mapping[str, Rows]
    fake_by_source: Mapping[str, Rows]
    fake_by_method: Mapping[str, Rows]

    @classmethod
    def of(cls, examples: Sequence[Example], rows: Rows) -> MixedSampler:
        """A sampler over some rows of a set."""
        tables: tuple[defaultdict[str, list[int]], ...] = (defaultdict(list), defaultdict(list), defaultdict(list))
        for index in rows.tolist():
            example = examples[index]
            tables[example.fake][example.fields["source"]].append(index)
            if example.fake:
                tables[2][example.fields["method"]].append(index)
        return cls(*({key: np.array(value) for key, value in sorted(table.items())} for table in tables))

    def draw(self, random: np.random.Generator) -> tuple[int, int]:
        """One real and one fake row: of one source two times in three, else balanced over methods."""
        if random.random() < 0.67:
            both = sorted(self.real_by_source.keys() & self.fake_by_source.keys())
            source = self._weighted(both, self.fake_by_source, random)
            return self._any(self.real_by_source[source], random), self._any(self.fake_by_source[source], random)
        source = self._weighted(list(self.real_by_source), self.real_by_source, random)
        method = self._weighted(list(self.fake_by_method), self.fake_by_method, random)
        return self._any(self.real_by_source[source], random), self._any(self.fake_by_method[method], random)

    @staticmethod
    def _weighted(keys: Sequence[str], table: Mapping[str, Rows], random: np.random.Generator) -> str:
        """A key, by the square root of its number of rows."""
        weights = np.sqrt([len(table[key]) for key in keys])
        return keys[int(random.choice(len(keys), p=weights / weights.sum()))]

    @staticmethod
    def _any(rows: Rows, random: np.random.Generator) -> int:
        return int(rows[int(random.integers(len(rows)))])
