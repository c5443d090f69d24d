"""Manifests, archives and splits."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest

from training.data import clips, data_root, folds, group_fraction, held_out, read_manifest, zip_set, zip_sets

pytestmark = pytest.mark.training


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    picture = np.zeros((8, 6, 3), dtype=np.uint8)
    picture[:, :, 0] = 200
    encoded = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
    with zipfile.ZipFile(folder / "some_faces.zip", "w") as archive:
        archive.writestr("real/a.png", encoded)
        archive.writestr("fake/b.png", b"no picture")
    (folder / "some_faces.tsv").write_text(
        "file\tlabel\tgroup\tmethod\nreal/a.png\treal\tg\t-\nfake/b.png\tfake\tg\tX\n"
    )
    (folder / "alone.tsv").write_text("file\tlabel\tgroup\n")
    return tmp_path


def test_reads_a_set(root):
    found = zip_sets(root)
    assert [item.name for item in found] == ["some_faces"]
    real, fake = found[0].examples
    assert (real.fake, fake.fake, fake.fields["method"]) == (0, 1, "X")
    pixels = found[0].picture(real)
    assert pixels.shape == (8, 6, 3)
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert not found[0].is_sound
    with pytest.raises(ValueError, match="not a picture"):
        found[0].picture(fake)


def test_says_what_is_missing(root):
    with pytest.raises(FileNotFoundError, match="no_such"):
        zip_set("no_such", root)
    (root / "bad.tsv").write_text("file\tlabel\na\treal\n")
    with pytest.raises(ValueError, match="group"):
        read_manifest(root / "bad.tsv")
    assert clips(root) == ()


def test_splits_keep_groups_whole_and_never_drift():
    groups = [f"g{number // 3}" for number in range(3000)]
    chosen = held_out(groups, 0.2)
    assert 0.15 < chosen.mean() < 0.25
    assert all(len({bool(value) for value in chosen[start : start + 3]}) == 1 for start in range(0, 3000, 3))
    assert set(folds(groups, 5).tolist()) == {0, 1, 2, 3, 4}
    assert group_fraction("g1") == group_fraction("g1") != group_fraction("g1", seed=1)


def test_shared_data_is_readable():
    if not data_root().is_dir():
        pytest.skip("the setting BONAFIDE_DATA names no directory")
    names = {item.name: item for item in zip_sets()}
    faces = names["dfdc_faces_val"]
    assert faces.picture(faces.examples[0]).dtype == np.uint8
    speech = names["speech_train"]
    assert speech.is_sound
    assert np.abs(speech.samples(speech.examples[0])).max() <= 1
    assert all(clip.path.is_file() for clip in clips())
