"""The comparison video: every picture in its place, captions that fit, sizes that codecs take."""

import numpy as np
import pytest
import torch

from countervid.clip import Clip
from countervid.runs.comparison import Header, Panel, compare, difference

CAPTIONS = [Panel(caption=name, detail="a detail") for name in ("factual", "counterfactual", "truth", "difference")]


def flat(value, size=(64, 64), frames=3):
    return Clip.from_frames(torch.full((frames, *size, 3), value, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(64, 64), (90, 160), (160, 90), (33, 47)])
@pytest.mark.parametrize("truth", [True, False])
def test_panels_show_their_clips(size, truth):
    captions = CAPTIONS if truth else [*CAPTIONS[:2], CAPTIONS[3]]
    header = Header(title="do(age = old)", lines=["age: young to old"])
    board = compare(header, flat(40, size), flat(200, size), flat(120, size) if truth else None, captions)
    assert board.width % 2 == 0 and board.height % 2 == 0 and board.width <= 1920
    frames = board.frames
    assert frames.shape == (3, board.height, board.width, 3)
    shares = {value: (frames[0] == value).all(-1).float().mean().item() for value in (40, 200, 120)}
    assert shares[40] == pytest.approx(shares[200], rel=0.02) and shares[40] > 0.05
    assert (shares[120] > 0.05) == truth


def test_long_lines_are_cut_to_fit():
    header = Header(title="do(age = old)", lines=["word " * 400])
    assert compare(header, flat(40), flat(200), None, [CAPTIONS[0]] * 3).frames.shape[2] <= 1920


def test_the_difference_glows_where_something_changed():
    before = np.full((8, 8, 3), 100, dtype=np.uint8)
    after = before.copy()
    after[2:4, 2:4] += 50
    glow = difference(before, after).astype(int).sum(-1)
    assert glow[2:4, 2:4].min() > 2 * glow[5:, 5:].max()
