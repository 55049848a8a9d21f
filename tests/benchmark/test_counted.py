"""What an editor costs, counted over all processes that worked on it."""

import pytest
import torch

from benchmark.tint import Tint
from countervid.benchmark.counted import PREPARING, Counted
from countervid.clip import Clip
from countervid.editors.base import Target

FACTUAL, TARGET = {"age": "young"}, Target(factual={"age": "young"}, do={"age": "old"}, counterfactual={"age": "old"})


class Stopped(Tint):
    """Is stopped after so much work, as by Ctrl-C."""

    after = 0

    def _stop(self):
        if self.after:
            self.evaluations += self.after
            raise KeyboardInterrupt

    def prepare(self, clip, factual, *, prompt="", report=None):
        self._stop()
        return super().prepare(clip, factual, prompt=prompt, report=report)

    def edit(self, prepared, target, *, report=None):
        self._stop()
        return super().edit(prepared, target, report=report)


def counted(tmp_path, after=0):
    """As in a new process."""
    editor = Stopped(cache=tmp_path / "cache")
    editor.after = after
    return Counted(editor, tmp_path / "costs")


def test_what_a_stopped_process_computed_counts(tmp_path):
    clip = Clip.from_frames(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    for after in (20, 5):
        with pytest.raises(KeyboardInterrupt):
            counted(tmp_path, after).prepare(clip, FACTUAL)
    whole = counted(tmp_path)
    prepared = whole.prepare(clip, FACTUAL)
    assert whole.cost(prepared, PREPARING)["evaluations"] == 20 + 5 + 7
    with pytest.raises(KeyboardInterrupt):
        counted(tmp_path, 2).edit(prepared, TARGET)
    whole.edit(prepared, TARGET)
    assert whole.cost(prepared, whole.mark(TARGET))["evaluations"] == 2 + 3
    assert not list((tmp_path / "costs").rglob("*unfinished*"))
    again = counted(tmp_path)
    again.prepare(clip, FACTUAL)  # all of it is found: what it took then stays
    assert again.cost(prepared, PREPARING)["evaluations"] == 32
