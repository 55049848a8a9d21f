"""A caption is true of the person, says what it says it states, and is read so by the causal graph's lexicon."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from countervid.causal.graph import CausalGraph
from countervid.causal.lexicon import read
from countervid.phantom.captions import caption, caption_of
from countervid.phantom.scm import DOMAINS

GRAPH = CausalGraph.load("phantom")
PEOPLE = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in DOMAINS.items()})
SEEDS = st.integers(0, 2**32 - 1)


@given(PEOPLE, SEEDS)
def test_a_caption_is_true_and_the_lexicon_reads_nothing_else(person: dict[str, str], seed: int) -> None:
    said = caption(person, np.random.default_rng(seed))
    assert said.states and said.true_of(person)
    assert caption(person, np.random.default_rng(seed)) == said
    for name, value in read(said.text, GRAPH).stated.items():
        assert said.states[name] == value, said.text


@given(PEOPLE, st.lists(st.sampled_from(sorted(DOMAINS)), min_size=1, max_size=4, unique=True), SEEDS)
def test_what_is_asked_to_be_said_is_said(person: dict[str, str], names: list[str], seed: int) -> None:
    states = {name: person[name] for name in names}
    said = caption_of(states, np.random.default_rng(seed))
    assert said.states == states  # no word that says more ("boy") unless that is to be said too
    assert " a a" not in f" {said.text}" and not said.text.endswith((" ", ","))


def test_every_value_can_be_said_in_words_that_the_lexicon_knows() -> None:
    rng = np.random.default_rng(0)
    for name, values in DOMAINS.items():
        for value in values:
            texts = {caption_of({name: value}, rng).text for _ in range(40)}
            assert len(texts) >= 5, (name, value, texts)
            for text in texts:
                assert read(text, GRAPH).stated == {name: value}, text
