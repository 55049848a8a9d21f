"""A clip with a cut between two people: one of them is edited, or both, each as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from countervid.clip import Clip
from countervid.editors import load_editor
from countervid.errors import ConfigError
from countervid.runs.report import report_of
from countervid.runs.run import counterfactual

CUT = Path(__file__).parent.parent / "cases" / "cut.mp4"  # an old man in 16 frames, a young one in 16 more
AT = 4  # of the frames taken from it, the first that shows the other


@pytest.fixture(scope="module")
def clip():
    return Clip.from_frames(Clip.read(CUT).frames[16 - AT : 16 + 5])


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    return load_editor("dva", cache=tmp_path_factory.mktemp("cache"), steps=3, batch=4)


@pytest.fixture(scope="module")
def alone(clip, editor):
    return counterfactual(clip, {"glasses": "yes"}, editor=editor, marking=False)


@pytest.fixture(scope="module")
def both(clip, editor):
    return counterfactual(clip, {"glasses": "yes"}, editor=editor, marking=False, everyone=True)


def test_the_other_person_is_the_sources_bit_for_bit(clip, alone):
    source, result = clip.frames, alone.clip.frames
    assert torch.equal(result[:AT], source[:AT])
    assert all(not torch.equal(result[i], source[i]) for i in range(AT, len(source)))


def test_attributes_are_read_off_the_person_that_is_edited(alone, both):
    assert alone.outcome.factual["age"] == "young" and alone.outcome.factual["hair_colour"] == "black"
    old = both.people[1].outcome.factual
    assert old["age"] == "old" and old["hair_colour"] == "grey"
    assert both.people[0].outcome.factual == alone.outcome.factual


def test_everyone_is_edited_each_by_their_own_state(clip, alone, both):
    source, one, result = clip.frames, alone.clip.frames, both.clip.frames
    assert torch.equal(result[AT:], one[AT:])  # who was edited alone is edited the same
    assert all(not torch.equal(result[i], source[i]) for i in range(AT))
    assert [one.person for one in both.people] == [0, 1]
    assert all(one.target.changed == {"glasses": "yes"} for one in both.people)


def test_the_record_and_the_report_tell_of_each_person(both):
    people = both.record["people"]
    assert [person["factual"]["age"] for person in people] == ["young", "old"]
    assert all(person["counterfactual"]["glasses"] == "yes" and person["noise"] for person in people)
    page = report_of(both)
    assert "person 1: glasses no to yes" in page and "shot 1 shows person 1; shot 2 shows person 0" in page


def test_what_is_of_one_person_is_refused(clip, editor):
    with pytest.raises(ConfigError, match="`--everyone` does not go with `--critic`"):
        counterfactual(clip, {"glasses": "yes"}, editor=editor, everyone=True, critic="bundled")
    with pytest.raises(ConfigError, match="`--factual` describes one"):
        counterfactual(clip, {"glasses": "yes"}, editor=editor, everyone=True, factual="He is old.")
