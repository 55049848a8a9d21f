"""How often a run decodes its clip: while it is analysed, and while its files are written."""

import pytest

from countervid.clip import Clip
from countervid.clip.seeking import DECODED
from countervid.editors import load_editor
from countervid.runs.run import counterfactual
from tiny_models import astronaut_frames

MOST = 2.5  # of each frame, in a whole run


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """40 frames in groups of 8: more than a window of any editor below."""
    frames = astronaut_frames(40)
    return Clip.from_frames(frames).write(tmp_path_factory.mktemp("clip") / "talk.mp4")


def test_a_run_decodes_each_frame_twice(path, tiny_models, eyes, tmp_path):
    editor = load_editor("dva", tiny_models, cache=tmp_path / "cache", steps=3, window=8, batch=4)
    DECODED.clear()
    clip = Clip.read(path)
    counterfactual(clip, {"age": "old"}, editor=editor, eyes=eyes, factual="She is young.", out=tmp_path / "run")
    assert len(clip) <= DECODED[path] <= MOST * len(clip)
    DECODED.clear()  # what is kept is not looked at again
    counterfactual(
        clip, {"age": "old"}, editor=editor, eyes=eyes, factual="She is young.", strength=2.0, out=tmp_path / "more"
    )
    assert DECODED[path] <= 1.1 * len(clip)
