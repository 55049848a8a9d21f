import shutil

import numpy as np
import pytest
import torch

from countervid.errors import ConfigError
from countervid.face.align import PORTRAIT, quads, side
from countervid.phantom.dataset import (
    ATTRIBUTES,
    DatasetConfig,
    PhantomFrames,
    decode,
    encode,
    people_of,
    person_of,
    random_intervention,
    render_dataset,
)

SMALL = DatasetConfig(takes=1, frames=2, size=32, pairs=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_dataset(tmp_path_factory.mktemp("data") / "set", range(3), SMALL, shard_people=2)


def test_rows_are_people_takes_frames_and_their_counterfactuals(folder):
    data = PhantomFrames(folder)
    assert len(data) == 3 * 2 * 2 and data.size == 32
    assert data.column("person").tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(data.factual) == 6 and len(data.pairs) == 6
    for before, after in data.pairs.tolist():
        assert data.column("person")[before] == data.column("person")[after]
        assert data.column("seconds")[before] == data.column("seconds")[after]
        assert torch.equal(data.column("squares")[before], data.column("squares")[after])
        name = ATTRIBUTES[int(data.column("intervention")[after])]
        assert data.attribute(name)[before] != data.attribute(name)[after]


def test_pictures_come_by_row_from_any_shard(folder):
    data = PhantomFrames(folder)
    rows = [9, 0, 4]
    crops = data.crops(rows)
    assert crops.shape == (3, 32, 32, 3) and crops.dtype == torch.uint8
    for crop, row in zip(crops, rows, strict=True):
        assert torch.equal(crop, data[row]["crops"])
    assert data.masks(torch.tensor(rows)).max() <= 8


def test_the_face_fills_the_crop_and_landmarks_lie_in_its_pixels(folder):
    data = PhantomFrames(folder)
    rows = data.factual
    squares = quads(data.column("landmarks")[rows].numpy(), smooth=False, framing=PORTRAIT)
    # The crop is the square itself, shaken: centre and size come back within the shaking.
    np.testing.assert_allclose(squares.mean(1), 15.5, atol=32 * 0.012 * 2.5 + 0.3)
    np.testing.assert_allclose(side(squares), 32, rtol=0.08)
    middle = data.masks(rows)[:, 12:22, 12:22]
    assert (middle > 0).float().mean() > 0.95


def test_the_same_configuration_gives_the_same_bytes(folder, tmp_path):
    again = render_dataset(tmp_path / "again", range(3), SMALL, shard_people=2)
    for shard in folder.glob("*.safetensors"):
        assert shard.read_bytes() == (again / shard.name).read_bytes()


def test_a_stopped_data_set_goes_on_and_grows(folder, tmp_path):
    out = tmp_path / "set"
    render_dataset(out, range(1), SMALL, shard_people=2)
    seen = []
    render_dataset(out, range(3), SMALL, shard_people=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
    assert sorted(p.name for p in out.glob("*.safetensors")) == sorted(p.name for p in folder.glob("*.safetensors"))
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.safetensors")}
    render_dataset(out, range(3), SMALL, shard_people=2)
    assert before == {p.name: p.stat().st_mtime_ns for p in out.glob("*.safetensors")}
    assert not list(out.glob("*.partial"))


def test_another_configuration_in_the_same_folder_is_refused(folder):
    with pytest.raises(ConfigError, match="other settings"):
        render_dataset(folder, range(3), DatasetConfig(takes=2, frames=2, size=32), shard_people=2)


def test_splits_share_nobody_and_wrong_ones_are_named():
    ranges = [people_of(split, 1_000_000) for split in ("train", "validation", "test", "examiner")]
    assert all(a.stop <= b.start for a, b in zip(ranges, ranges[1:], strict=False))
    with pytest.raises(ConfigError, match="`exam` is not a split"):
        people_of("exam", 3)
    with pytest.raises(ConfigError, match="no shards"):
        PhantomFrames("/nonexistent")


def test_codes_name_attributes_both_ways():
    person = person_of(1, 0.5)
    assert decode(encode(person.attributes)) == person.attributes
    name, value = random_intervention(person)
    assert person.attributes[name] != value


@pytest.mark.parametrize("kind", ["zeroed", "one byte", "cut"])
def test_a_damaged_shard_is_rendered_again(folder, tmp_path, kind):
    out = tmp_path / "set"
    shutil.copytree(folder, out)
    path = sorted(out.glob("*.safetensors"))[0]
    whole = path.read_bytes()
    bad = {"zeroed": bytes(len(whole)), "one byte": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "cut": whole[:99]}
    path.write_bytes(bad[kind])
    if kind != "one byte":
        with pytest.raises((ConfigError, ValueError)):
            PhantomFrames(out)
    render_dataset(out, range(3), SMALL, shard_people=2)
    assert path.read_bytes() == whole
