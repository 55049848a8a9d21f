from dataclasses import fields

import numpy as np
import pytest

from countervid.errors import InterventionError
from countervid.phantom import scm
from countervid.phantom.parameters import BONES, HAIR_STYLES, Look

PLAIN = {
    "age": "young", "gender": "woman", "beard": "no", "bald": "no", "moustache": "no", "glasses": "no",
    "smiling": "no", "lipstick": "no", "hat": "no", "hair_colour": "brown",
}  # fmt: skip


def changed(a: Look, b: Look) -> set[str]:
    return {f.name for f in fields(Look) if not np.array_equal(getattr(a, f.name), getattr(b, f.name))}


def test_a_seed_is_one_person_and_another_seed_another():
    first, again, other = (scm.look(scm.draw_exogenous(seed), PLAIN) for seed in (4, 4, 5))
    assert changed(first, again) == set()
    assert {"bones", "skin", "texture_seed"} <= changed(first, other)


def test_streams_are_independent_of_each_other_and_of_their_order():
    assert scm.stream(1, "a").random() == scm.stream(1, "a").random()
    assert len({scm.stream(*key).random() for key in [(1, "a"), (1, "b"), (2, "a"), (1, "a", 0), (1, "a", 1)]}) == 5


@pytest.mark.parametrize(
    ("name", "value", "touched"),
    [
        ("beard", "yes", {"beard"}),
        ("bald", "yes", {"bald"}),
        ("moustache", "yes", {"moustache"}),
        ("glasses", "yes", {"glasses"}),
        ("hat", "yes", {"hat"}),
        ("smiling", "yes", set()),  # moves the face, not the look
        ("lipstick", "yes", {"lipstick", "lips"}),
        ("hair_colour", "red", {"hair", "brow"}),
        ("age", "old", {"bones", "years", "skin", "lips"}),
        ("gender", "man", {"bones", "lips", "hair_style", "hair_length", "hair_volume"}),
    ],
)
def test_each_attribute_changes_what_it_names_and_nothing_else(name, value, touched):
    for seed in range(5):
        person = scm.draw_exogenous(seed)
        assert changed(scm.look(person, PLAIN), scm.look(person, {**PLAIN, name: value})) <= touched
    if touched:
        assert changed(scm.look(person, PLAIN), scm.look(person, {**PLAIN, name: value}))


def test_age_is_one_quantile_of_two_ranges_that_do_not_meet():
    for seed in range(50):
        person = scm.draw_exogenous(seed)
        young, old = scm.years_of(person, "young"), scm.years_of(person, "old")
        assert 18 <= young <= 38 < 58 <= old <= 85
        assert (young - 18) / 20 == pytest.approx((old - 58) / 27)


def test_gender_shifts_bones_by_more_than_people_differ():
    def mean_bones(gender: str) -> np.ndarray:
        looks = [scm.look(scm.draw_exogenous(seed), {**PLAIN, "gender": gender}) for seed in range(200)]
        return np.mean([look.bones for look in looks], axis=0)

    shift = mean_bones("man") - mean_bones("woman")
    for name in ("jaw_width", "brow_ridge", "neck_width", "brow_thickness"):
        assert shift[BONES.index(name)] > 1.5
    assert shift[BONES.index("lip_fullness")] < -1


def test_people_span_humanitys_skins_irises_and_hair():
    looks = [
        scm.look(scm.draw_exogenous(seed), {**PLAIN, "gender": g}) for seed in range(150) for g in ("woman", "man")
    ]
    red = np.array([look.skin[0] for look in looks])
    assert red.min() < 0.18 and red.max() > 0.65
    assert all((look.skin[0] > look.skin[1] > look.skin[2]) for look in looks)  # skin is never green or blue
    assert len({look.hair_style for look in looks}) == len(HAIR_STYLES)
    blue = np.mean([look.iris[2] > look.iris[0] for look in looks])
    assert 0.05 < blue < 0.5


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({**PLAIN, "species": "cat"}, "`species` is not an attribute"),
        ({**PLAIN, "age": "ancient"}, "`age` cannot be `ancient`. Use one of: young, old"),
        ({"age": "old"}, "missing: gender"),
    ],
)
def test_wrong_attributes_are_named_in_one_line(attributes, words):
    with pytest.raises(InterventionError, match=words) as caught:
        scm.look(scm.draw_exogenous(0), attributes)
    assert "\n" not in str(caught.value)
