"""Crops that are kept while a clip is analysed: the last one taken counts, and the file holds what was put in."""

import numpy as np
import pytest
import torch

from countervid.clip import Clip
from countervid.editors.taken import RowFile, TakenCrops, crops_by_window
from countervid.face import align
from countervid.face.crops import Crops
from countervid.face.pipeline import FacePipeline
from tiny_models import astronaut_frames


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_rows_come_out_as_they_went_in(tmp_path, dtype):
    rows = torch.arange(40).view(10, 2, 2).to(dtype)
    file = RowFile(tmp_path)
    assert [file.append(rows[:4]), file.append(rows[4:])] == [0, 4]
    assert torch.equal(file.read([9, 0, 4, 4]), rows[[9, 0, 4, 4]])
    file.append(rows[:1])
    assert torch.equal(file.read([10]), rows[:1]) and file.read([]).shape == (0, 2, 2)
    assert not list(tmp_path.iterdir())  # it has no name


def test_the_crop_taken_last_is_the_faces(tmp_path):
    track = FacePipeline().analyze(Clip.from_frames(astronaut_frames(6)))

    def crops(*values):
        index = np.array(sorted(values))
        frames = torch.tensor([value * 10 for value in values], dtype=torch.uint8)[:, None, None, None]
        return Crops(index, frames.expand(-1, 4, 4, 3), np.zeros((len(index), 4, 2)), np.zeros((len(index), 68, 2)))

    taken = TakenCrops(4, tmp_path)
    taken.take(0, crops(0, 1, 2))
    taken.take(1, crops(2, 3, 4, 5))
    taken.take(7, crops(0, 1, 2, 3, 4, 5))  # another's
    again = crops(1)
    taken.take(0, Crops(again.index, again.frames + 200, again.quads, again.landmarks))
    assert not taken.complete
    taken.finish(track, (0, 1))
    assert taken.complete and taken.read(np.arange(6))[:, 0, 0, 0].tolist() == [0, 210, 20, 30, 40, 50]


def test_crops_are_the_clips(tmp_path):
    clip, taken = Clip.from_frames(astronaut_frames(10)), TakenCrops(32, tmp_path)
    track = FacePipeline().analyze(clip, sink=taken)
    nothing = TakenCrops(32, tmp_path)
    for start, index, crops in crops_by_window(clip, track, [0, 8], 4, 32, taken):
        assert torch.equal(crops, align.crop(clip.frames[torch.from_numpy(index)], track.quads[index], 32)), start
    read = list(crops_by_window(clip, track, [4, 8], 4, 32, nothing))
    assert [start for start, _, _ in read] == [4, 8]
    for _, index, crops in read:
        assert torch.equal(crops, taken.read(index))
