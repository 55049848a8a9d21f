"""The bundled critic on rendered people that it has never seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.causal.questions import questions
from countervid.critics.base import Request
from countervid.critics.bundled import BundledCritic
from countervid.errors import ConfigError
from countervid.phantom.dataset import DatasetConfig, PhantomFrames, decode, people_of, render_dataset

PHANTOM = CausalGraph.load("phantom")


@pytest.fixture(scope="module")
def critic() -> BundledCritic:
    return BundledCritic.load()


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, list[dict[str, str]]]:
    """Crops of ten people, one each, nothing before their faces; and what they look like."""
    split = people_of("validation", 12)
    folder = render_dataset(tmp_path_factory.mktemp("people"), split, DatasetConfig(takes=1, frames=1))
    frames = PhantomFrames(folder, split)
    rows = torch.nonzero(frames.column("occluded") == 0).flatten()[:10]
    return frames.crops(rows), [decode(frames.column("attributes")[row]) for row in rows]


def request(pictures: Tensor, attributes: dict[str, str], **changed: str) -> Request:
    kept = {name: value for name, value in attributes.items() if name not in changed}
    return Request(
        pictures=pictures, frames=tuple(range(len(pictures))), questions=questions(PHANTOM), changed=changed, kept=kept
    )


def test_it_reads_people_that_it_has_never_seen(
    critic: BundledCritic, people: tuple[Tensor, list[dict[str, str]]]
) -> None:
    crops, known = people
    right = []
    for picture, attributes in zip(crops, known, strict=True):
        answers = critic.judge(request(picture[None], attributes)).answers
        right += [answers[name].value == value for name, value in attributes.items()]
    assert len(right) == 100 and sum(right) >= 92


def test_frames_vote_and_what_is_wrong_is_said(
    critic: BundledCritic, people: tuple[Tensor, list[dict[str, str]]]
) -> None:
    crops, known = people
    bearded = next(i for i, attributes in enumerate(known) if attributes["beard"] == "yes")
    shaven = next(i for i, attributes in enumerate(known) if attributes["beard"] == "no")
    pictures = torch.stack([crops[bearded], crops[bearded], crops[bearded], crops[shaven]])
    asked = request(pictures, {**known[bearded], "beard": "no"}, beard="no")
    answer = critic.judge(asked).answers["beard"]
    assert answer.value == "yes" and answer.votes == {"no": 0.25, "yes": 0.75}
    assert (
        "beard should be no and still looks yes" in answer.critique and "in 25% of the frames only" in answer.critique
    )
    content = critic.judge(request(crops[bearded][None], known[bearded])).answers["beard"]
    assert content.value == "yes" and not content.critique
    lost = critic.judge(request(crops[shaven][None], {**known[shaven], "beard": "yes"}))
    assert "beard should have stayed yes and now looks no" in lost.critique


def test_one_frame_does_not_depend_on_the_others(
    critic: BundledCritic, people: tuple[Tensor, list[dict[str, str]]]
) -> None:
    crops, _ = people
    together, alone = critic.read(crops[:4]), critic.read(crops[2:3])
    for name, shares in together.items():
        torch.testing.assert_close(shares[2], alone[name][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(shares.sum(1), torch.ones(4), atol=1e-5, rtol=0)
    mirrored = critic.read(crops[:4].flip(2))
    for name, shares in together.items():
        torch.testing.assert_close(mirrored[name], shares, atol=1e-5, rtol=0)


def test_a_graph_that_it_cannot_answer_for_is_refused(critic: BundledCritic, tmp_path: Path) -> None:
    critic.check(PHANTOM)
    critic.check(CausalGraph.load("reversed"))
    other = CausalGraph.parse("name: hats\nvariables:\n  hat: {kind: categorical, values: [cap, none]}\n")
    with pytest.raises(ConfigError, match="no answer for `hat` of graph hats .cap, none."):
        critic.check(other)


def test_a_request_is_known_by_all_that_an_answer_depends_on(people: tuple[Tensor, list[dict[str, str]]]) -> None:
    crops, known = people
    one = request(crops[:1], known[0])
    others = [
        replace(one, pictures=crops[1:2]), replace(one, frames=(3,)), replace(one, prompt="x"),
        replace(one, questions=one.questions[:2]), replace(one, changed={"age": "old"}),
    ]  # fmt: skip
    assert len({one.key(), *(other.key() for other in others)}) == 6
    assert replace(one, pictures=crops[:1].clone()).key() == one.key()
