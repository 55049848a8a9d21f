"""The forty attributes of CelebA, in which published classifiers speak, and what a causal graph calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ATTRIBUTES = tuple(
    """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
    Wearing_Necktie Young
    """.split()
)
"""In the order of the published classifier's rows (CelebAMask-HQ-attribute-anno.txt)."""

VALUES = ("no", "yes")

_HAIR = {"black": "Black_Hair", "brown": "Brown_Hair", "blond": "Blond_Hair", "grey": "Gray_Hair"}
_MEANING: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "age": {"young": {"Young": "yes"}, "old": {"Young": "no"}},
    "gender": {"woman": {"Male": "no"}, "man": {"Male": "yes"}},
    "beard": {"no": {"No_Beard": "yes"}, "yes": {"No_Beard": "no"}},
    "bald": {value: {"Bald": value} for value in VALUES},
    "moustache": {value: {"Mustache": value} for value in VALUES},
    "glasses": {value: {"Eyeglasses": value} for value in VALUES},
    "smiling": {value: {"Smiling": value} for value in VALUES},
    "lipstick": {value: {"Wearing_Lipstick": value} for value in VALUES},
    "hat": {value: {"Wearing_Hat": value} for value in VALUES},
    "hair_colour": {
        colour: {name: VALUES[name == own] for name in _HAIR.values()} for colour, own in _HAIR.items()
    },
}  # fmt: skip
"""A graph's variable -> its value -> the attributes that say so."""


def meaning(variable: str, value: str, known: Mapping[str, Sequence[str]]) -> dict[str, str] | None:
    """What a classifier of the variables `known` calls `variable = value`; None where it has no words for it."""
    if variable in known:
        return {variable: value} if value in known[variable] else None
    said = _MEANING.get(variable, {}).get(value)
    return dict(said) if said is not None and said.keys() <= known.keys() else None


def reading(probabilities: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """A classifier's probabilities, value by value, with those of the graph's variables added that its words can say.

    A value's probability is the mean of its attributes', and a variable's values are brought to a sum of 1.
    """
    found = {name: dict(values) for name, values in probabilities.items()}
    for variable, values in _MEANING.items():
        words = {name for said in values.values() for name in said}
        if variable in probabilities or not words <= probabilities.keys():
            continue
        weights = {
            value: sum(probabilities[name][is_so] for name, is_so in said.items()) / len(said)
            for value, said in values.items()
        }
        total = sum(weights.values()) or 1.0
        found[variable] = {value: weight / total for value, weight in weights.items()}
    return found
