import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from test_classifier import VARIABLES, people

from countervid.autoencoder.classifier import AttributeClassifier, fit
from countervid.autoencoder.directions import Direction, along, move, published_edit
from countervid.errors import ConfigError, InterventionError
from goldens_rule import golden

MODEL = fit(VARIABLES, *people())
PEOPLE, LABELS = people(64, seed=2)


def test_published_edits() -> None:
    tensors, _ = golden("classifier_edit")
    statistics = {"mean": tensors["conds_mean"], "std": tensors["conds_std"]}
    cases = 0
    for key, expected in tensors.items():
        if key.startswith("edit_"):
            kind, row, scale = key.split(".", 2)
            weights = tensors["W"][int(row.removeprefix("c"))]
            chosen = statistics if kind == "edit_normalized" else {}
            edited = published_edit(tensors["avg"], weights, float(scale.removeprefix("s")), **chosen)
            torch.testing.assert_close(edited, expected, atol=1e-5, rtol=0)
            cases += 1
    assert cases == 6


def test_strength_zero_is_the_identity_bit_for_bit() -> None:
    assert torch.equal(move(PEOPLE, MODEL, {"age": "old"}, ["beard"], strength=0.0), PEOPLE)
    assert torch.equal(move(PEOPLE, MODEL, {}, ["beard"]), PEOPLE)


@pytest.mark.parametrize("length", ["keep", "unit", "free"])
def test_changed_attributes_arrive_and_kept_ones_do_not_move(length: str) -> None:
    young = PEOPLE[LABELS[:, 0] == 0]
    moved = move(young, MODEL, {"age": "old"}, ["hair", "beard"], length=length)
    before, after = MODEL(young), MODEL(moved)
    for name in ("hair", "beard"):
        part = MODEL.outputs(name)
        contrasts = [logits[:, part] - logits[:, part][:, :1] * (name == "hair") for logits in (before, after)]
        torch.testing.assert_close(contrasts[1], contrasts[0], atol=1e-4, rtol=0)  # float32 result, logits of some 10
    wanted = MODEL.classifier(MODEL.value_mean("age", "old"))[MODEL.outputs("age")]
    torch.testing.assert_close(after[:, MODEL.outputs("age")], wanted.expand(len(young), 1), atol=1e-4, rtol=0)
    if length != "free":
        torch.testing.assert_close(moved.norm(dim=1), torch.ones(len(young)), atol=1e-5, rtol=0)
    assert all(person["age"] == "old" for person in MODEL.predict(moved))


def test_categorical_values_arrive() -> None:
    dark = PEOPLE[LABELS[:, 1] == 0]
    moved = move(dark, MODEL, {"hair": "grey", "beard": "yes"}, ["age"])
    assert all(person["hair"] == "grey" and person["beard"] == "yes" for person in MODEL.predict(moved))
    assert [p["age"] for p in MODEL.predict(moved)] == [p["age"] for p in MODEL.predict(dark)]


def test_the_mean_of_a_clip_keeps_its_length_and_small_strengths_move_little() -> None:
    mean = PEOPLE[:8].mean(dim=0)
    moved = move(mean, MODEL, {"beard": "yes"}, ["age"], strength=1e-4)
    assert moved.shape == mean.shape and moved.norm().item() == pytest.approx(mean.norm().item(), abs=1e-6)
    assert (moved - mean).abs().max() < 1e-3


def test_the_move_is_the_smallest_in_the_datas_own_metric() -> None:
    z = PEOPLE[0]
    moved = move(z, MODEL, {"age": "old"}, ["beard"], length="free")
    precision = torch.linalg.inv(0.999 * MODEL.covariance / torch.outer(MODEL.std, MODEL.std) + 1e-3 * torch.eye(24))
    delta = (moved - z) / MODEL.std
    rows = torch.cat([MODEL.classifier.weight[MODEL.outputs(name)] for name in ("age", "beard")])
    other = torch.randn(100, 24, generator=torch.Generator().manual_seed(0))
    other = delta + 0.1 * (other - other @ torch.linalg.pinv(rows) @ rows)  # same logits, other ways there
    cost = ((other @ precision) * other).sum(dim=1)
    assert (cost > delta @ precision @ delta).all()


@settings(max_examples=40, deadline=None)
@given(
    person=st.integers(0, 63),
    variable=st.sampled_from(["age", "beard"]),
    value=st.integers(0, 1),
    strengths=st.tuples(st.floats(0, 2), st.floats(0, 2)),
)
def test_the_response_to_strength_is_monotone(
    person: int, variable: str, value: int, strengths: tuple[float, float]
) -> None:
    keep = [name for name in VARIABLES if name != variable]
    low, high = (
        MODEL(move(PEOPLE[person], MODEL, {variable: VARIABLES[variable][value]}, keep, strength=s, length="free"))
        for s in sorted(strengths)
    )
    rise = (high - low)[MODEL.outputs(variable)].item() * (1 if value else -1)
    assert rise >= -1e-4  # float32 logits of some 10


def test_each_change_has_its_own_strength_and_mistakes_are_told() -> None:
    both = {"age": "old", "beard": "yes"}
    only = move(PEOPLE, MODEL, both, ["hair"], strength={"beard": 0.0})
    age = move(PEOPLE, MODEL, {"age": "old"}, ["hair", "beard"])
    torch.testing.assert_close(only, age)
    with pytest.raises(ConfigError, match="hair, which does not change"):
        move(PEOPLE, MODEL, both, strength={"hair": 1.0})
    with pytest.raises(ConfigError, match="0 or more"):
        move(PEOPLE, MODEL, both, strength=-0.5)
    with pytest.raises(InterventionError, match="has no value ancient"):
        move(PEOPLE, MODEL, {"age": "ancient"})
    with pytest.raises(InterventionError, match="Keep fewer variables"):
        move(torch.ones(2), AttributeClassifier(VARIABLES, 2), {"age": "old"}, ["hair", "beard"])


def test_a_direction_by_name_is_the_published_edit() -> None:
    classifier = MODEL
    z = PEOPLE[:3]
    name = next(name for name, values in classifier.variables.items() if len(values) == 2)
    row = classifier.classifier.weight[classifier.outputs(name)][0]
    expected = published_edit(z, row, 0.25, mean=classifier.mean, std=classifier.std)
    torch.testing.assert_close(along(z, classifier, Direction(attribute=name, scale=0.25)), expected)
    torch.testing.assert_close(along(z, classifier, Direction(attribute=name, scale=0.5), strength=0.5), expected)
    first, second = classifier.variables[name]
    torch.testing.assert_close(along(z, classifier, Direction(attribute=name, value=second, scale=0.25)), expected)
    torch.testing.assert_close(along(z, classifier, Direction(attribute=name, value=first, scale=-0.25)), expected)
    plain = along(z, classifier, Direction(attribute=name, scale=0.25, normalise=False))
    torch.testing.assert_close(plain, published_edit(z, row, 0.25))


def test_a_direction_names_what_it_does_not_know() -> None:
    classifier = MODEL
    z = PEOPLE[0]
    name, values = next((name, values) for name, values in classifier.variables.items() if len(values) > 2)
    with pytest.raises(InterventionError, match=f"several values: {', '.join(values)}"):
        along(z, classifier, Direction(attribute=name, scale=1.0))
    before, after = (
        classifier(along(z, classifier, Direction(attribute=name, value=values[1], scale=scale)))[
            classifier.outputs(name)
        ]
        for scale in (-0.5, 0.5)
    )
    assert after.softmax(0)[1] > before.softmax(0)[1]
    misspelt = name[:-1] + "x"
    with pytest.raises(InterventionError, match=f"does not know `{misspelt}`. Did you mean `{name}`"):
        along(z, classifier, Direction(attribute=misspelt, scale=1.0))
