"""The grid: the same jobs in the same order, and what cannot be is refused or left out, with a reason."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from countervid.benchmark.clips import people
from countervid.benchmark.grid import BenchmarkConfig, make_grid, seeded
from countervid.errors import ConfigError, CountervidError

CONFIG = BenchmarkConfig(
    clips=("phantom:2",), editors=("tokenflow", "dva"), steering=("none", "csvc-paper", "auto", "coupled"), seeds=2
)


def changed(**values: Any) -> BenchmarkConfig:
    return dataclasses.replace(CONFIG, **values)


def test_the_same_configuration_gives_the_same_jobs_in_the_same_order() -> None:
    one, two = make_grid(CONFIG), make_grid(CONFIG)
    assert one.jobs == two.jobs and one.record() == two.record()
    assert len({job.id for job in one.jobs}) == len(one.jobs)
    references = 2 * 3 * 4
    by_words = 2 * 2 * (4 * 3 + 2)  # coupled where age and gender are causes: of beard and baldness
    assert len(one.jobs) == references + by_words + 2 * 2 * (4 * 2)
    assert sum(map(len, one.units(one.jobs))) == len(one.jobs)


def test_more_clips_are_the_same_clips_and_more() -> None:
    few, more = (set(make_grid(changed(clips=(word,))).jobs) for word in ("phantom:2", "phantom:4"))
    assert few < more
    assert set(make_grid(changed(clips=("phantom:2@2",))).jobs) == more - few


def test_people_are_men_and_women_by_turns() -> None:
    assert [person.attributes["gender"] for person in people(4)] == ["man", "woman"] * 2
    assert [person.seed for person in people(2, 2)] == [person.seed for person in people(4)][2:]


def test_every_variable_is_set_to_another_value_than_it_has() -> None:
    grid = make_grid(changed(interventions=("age", "beard", "hair_colour", "gender=man")))
    for subject in grid.subjects:
        assert all(subject.factual[ask.variable] != ask.value for ask in subject.asks)
    men = [subject for subject in grid.subjects if subject.factual["gender"] == "man"]
    assert men and all(ask.variable != "gender" for subject in men for ask in subject.asks)


def test_what_does_not_fit_together_is_left_out_with_its_reason() -> None:
    grid = make_grid(CONFIG)
    assert "not told by a prompt" in grid.left_out["dva/csvc-paper"]
    assert not any(job.editor == "dva" and job.steering in ("csvc-paper", "coupled") for job in grid.jobs)
    assert {job.variable for job in grid.jobs if job.steering == "coupled"} == {"beard", "bald"}


def test_settings_presets_and_seeds_reach_the_editors() -> None:
    grid = make_grid(changed(editors=("tune-a-video", "dva"), settings=("tune-a-video.tuning_steps=3", "dva.steps=5")))
    assert grid.editors["tune-a-video"]["tuning_steps"] == 3 and grid.editors["dva"]["steps"] == 5
    assert grid.record()["editors"]["dva"]["steps"] == 5
    assert seeded(grid.editors["tune-a-video"], 2) == {"tuning_seed": 35} and seeded(grid.editors["dva"], 2) == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"editors": ("tokenflw",)}, ["tokenflw", "Did you mean `tokenflow`?", "dva"]),
        ({"steering": ("sideways",)}, ["sideways", "csvc-paper", "coupled"]),
        ({"steering": ("none", "none")}, ["twice"]),
        ({"interventions": ("height",)}, ["height", "beard"]),
        ({"interventions": ("beard=blue",)}, ["beard=blue", "yes"]),
        ({"clips": ("phantom:none",)}, ["phantom:none", "phantom:8"]),
        ({"clips": ("nowhere",)}, ["nowhere", "phantom:N"]),
        ({"clips": ()}, ["clips"]),
        ({"seeds": 0}, ["seeds", "at least 1"]),
        ({"settings": ("dva.speed=2",)}, ["speed", "steps"]),
        ({"settings": ("flatten.steps=2",)}, ["flatten", "does not take part"]),
        ({"settings": ("steps=2",)}, ["EDITOR.NAME=VALUE"]),
        ({"preset": ("rococo",)}, ["rococo"]),
        ({"preset": ("dva=rococo",)}, ["dva", "rococo"]),
        ({"modules": ("no_such_module_here",)}, ["no_such_module_here"]),
        ({"editors": ("dva",), "steering": ("csvc-paper",)}, ["nothing to do", "not told by a prompt"]),
    ],
)
def test_what_there_is_not_is_refused_at_once(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CountervidError) as caught:
        make_grid(changed(**values))
    assert all(word in str(caught.value) for word in words), caught.value


# --- footage ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    for name in ("one", "two", "stranger"):
        (tmp_path / "clips" / name).mkdir(parents=True)
    return tmp_path / "clips"


def prompts(folder: Path, entries: Any) -> str:
    (folder / "prompts.json").write_text(json.dumps(entries))
    return str(folder / "prompts.json")


PUBLISHED = {
    "one": {
        "factual": "He is young.",
        "counterfactual": {"age": "He is old, he has beard.", "gender": "She is young."},
    },
    "two": {"factual": "She is old.", "counterfactual": {"beard": "She is old, she has beard."}},
    "absent": {"factual": "She is old.", "counterfactual": {"beard": "She is old, she has beard."}},
}


def test_published_prompts_say_what_is_asked(footage: Path, tmp_path: Path) -> None:
    grid = make_grid(changed(clips=(f"celebv:{footage}",), prompts=prompts(tmp_path, PUBLISHED)))
    one = next(subject for subject in grid.subjects if subject.name == "one")
    assert one.factual == {"age": "young", "gender": "man", "beard": "no", "bald": "no"}
    assert [(ask.intervention, ask.prompt) for ask in one.asks] == [
        ("age=old", "He is old, he has beard."), ("gender=woman", "She is young."),
    ]  # fmt: skip
    assert one.asks[0].counterfactual["beard"] == "yes"
    assert "not in" in grid.left_out["absent"] and "asks nothing" in grid.left_out["stranger"]
    assert {job.editor for job in grid.jobs if job.kind == "reference"} == {"nothing"}  # the truth is not known


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"nobody": PUBLISHED["one"]}, ["does not fit the clips", "1 names"]),
        ({"one": {"factual": "He is young."}}, ["entry `one`"]),
        ({"one": {"factual": "He is young.", "counterfactual": {"hat": "He is young."}}}, ["hat", "graph face"]),
        ([], ["no names"]),
    ],
)
def test_prompts_that_do_not_fit_are_refused(footage: Path, tmp_path: Path, entries: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_grid(changed(clips=(str(footage),), prompts=prompts(tmp_path, entries)))
    assert all(word in str(caught.value) for word in words), caught.value


def test_footage_needs_prompts(footage: Path) -> None:
    with pytest.raises(ConfigError, match="--prompts"):
        make_grid(changed(clips=(str(footage),)))
