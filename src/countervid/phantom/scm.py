"""The structural equations of appearance: exogenous draws and attributes in, a `Look` out.

`Exogenous` is everything about a person that no attribute decides, drawn once from the person's
seed. `look(exogenous, attributes)` is deterministic, so the factual and the counterfactual person
share every draw: that is what makes the rendered counterfactual the true one.

Each draw has a random stream of its own, named by (seed, name). Adding a draw shifts no other.
Colours are linear RGB in 0..1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from countervid.errors import InterventionError
from countervid.phantom.parameters import BONES, CLOTHES, GLASSES_STYLES, HAIR_STYLES, HAT_STYLES, Array, Look

Float = NDArray[np.float64]
Colour = tuple[float, float, float]

DOMAINS: dict[str, tuple[str, ...]] = {
    "age": ("young", "old"),
    "gender": ("woman", "man"),
    "beard": ("no", "yes"),
    "bald": ("no", "yes"),
    "moustache": ("no", "yes"),
    "glasses": ("no", "yes"),
    "smiling": ("no", "yes"),
    "lipstick": ("no", "yes"),
    "hat": ("no", "yes"),
    "hair_colour": ("black", "brown", "blond", "red", "grey"),
}
"""The attributes that can be drawn, and their values."""

YOUNG_YEARS = (18.0, 38.0)
OLD_YEARS = (58.0, 85.0)

# What a man's bones have more of than a woman's, in standard deviations; each moves by half.
GENDER_BONES = {
    "jaw_width": 2.6,
    "chin_length": 1.2,
    "chin_forward": 0.9,
    "brow_ridge": 2.4,
    "cheekbones": -0.6,
    "cheek_fullness": -0.5,
    "face_length": 0.7,
    "face_width": 0.4,
    "nose_width": 0.8,
    "nose_length": 0.6,
    "eye_size": -1.7,
    "brow_thickness": 2.8,
    "brow_arch": -1.9,
    "lip_fullness": -2.0,
    "ear_size": 0.5,
    "neck_width": 2.4,
    "shoulder_width": 2.2,
}
# What the years from 18 to 85 add: cartilage grows on, lips and cheeks thin, lids come down.
AGE_BONES = {
    "nose_length": 0.9,
    "nose_width": 0.4,
    "nose_tip": -0.7,
    "ear_size": 1.4,
    "lip_fullness": -1.3,
    "cheek_fullness": -0.9,
    "eye_size": -0.7,
    "brow_arch": -0.4,
    "jaw_width": 0.3,
}

# (chance, style) as worn by women and by men; indices into HAIR_STYLES follow from the names.
STYLES: dict[str, tuple[tuple[float, str], ...]] = {
    "woman": ((0.36, "long"), (0.26, "bob"), (0.20, "curls"), (0.18, "bun")),
    "man": ((0.38, "side parting"), (0.34, "cropped"), (0.28, "swept back")),
}

# Two ends of each natural hair colour's range.
HAIR_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "black": ((0.008, 0.008, 0.010), (0.018, 0.014, 0.013)),
    "brown": ((0.085, 0.038, 0.017), (0.150, 0.070, 0.030)),
    "blond": ((0.40, 0.265, 0.105), (0.60, 0.440, 0.230)),
    "red": ((0.22, 0.048, 0.014), (0.34, 0.092, 0.030)),
    "grey": ((0.33, 0.34, 0.36), (0.60, 0.61, 0.63)),
}
IRISES: tuple[tuple[Colour, Colour], ...] = (  # from dark to light; how dark follows the skin, loosely
    ((0.030, 0.013, 0.006), (0.065, 0.028, 0.012)),  # dark brown
    ((0.100, 0.045, 0.016), (0.170, 0.080, 0.028)),  # brown
    ((0.200, 0.120, 0.035), (0.190, 0.150, 0.060)),  # hazel
    ((0.110, 0.190, 0.090), (0.170, 0.260, 0.130)),  # green
    ((0.200, 0.270, 0.310), (0.300, 0.350, 0.380)),  # grey
    ((0.080, 0.200, 0.400), (0.200, 0.360, 0.560)),  # blue
)
LIPSTICKS: tuple[Colour, ...] = (
    (0.50, 0.010, 0.030), (0.36, 0.008, 0.040), (0.55, 0.030, 0.120), (0.46, 0.012, 0.080), (0.58, 0.035, 0.030),
)  # fmt: skip
CLOTH: tuple[Colour, ...] = (
    (0.60, 0.58, 0.54), (0.05, 0.07, 0.16), (0.04, 0.04, 0.05), (0.36, 0.06, 0.06), (0.06, 0.20, 0.14),
    (0.10, 0.24, 0.42), (0.55, 0.36, 0.10), (0.30, 0.14, 0.30), (0.42, 0.22, 0.14), (0.22, 0.26, 0.30),
    (0.16, 0.32, 0.32), (0.62, 0.38, 0.34),
)  # fmt: skip
HATS: tuple[Colour, ...] = (
    (0.50, 0.05, 0.05), (0.06, 0.12, 0.36), (0.55, 0.33, 0.04), (0.05, 0.22, 0.16), (0.30, 0.08, 0.30),
    (0.06, 0.30, 0.38), (0.58, 0.20, 0.05), (0.62, 0.58, 0.50),
)  # fmt: skip
FRAMES: tuple[Colour, ...] = (
    (0.012, 0.012, 0.014), (0.060, 0.022, 0.010), (0.020, 0.030, 0.080), (0.090, 0.010, 0.014), (0.022, 0.050, 0.035),
)  # fmt: skip


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The random stream of this name: independent of every other, the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *names)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


@dataclass(frozen=True)
class Exogenous:
    """A person's draws: what stays whatever is intervened on. `u[name]` are uniform in [0, 1)."""

    seed: int
    bones: Float  # (len(BONES),) N(0, 0.8^2), clipped to +-1.6 so that effects have room up to 2.5
    u: dict[str, float]


_UNIFORM = (
    "age", "melanin", "haemoglobin", "undertone", "iris", "iris shade", "hair shade", "freckled", "freckles",
    "lip shade", "lipstick", "clothes", "clothes colour", "clothes shade", "glasses style", "glasses colour",
    "hat style", "hat colour", "beard length", "curl",
    "style as woman", "length as woman", "volume as woman", "style as man", "length as man", "volume as man",
)  # fmt: skip


def draw_exogenous(seed: int) -> Exogenous:
    """Everything about person `seed` that attributes do not decide."""
    bones = np.array([stream(seed, "bone", name).standard_normal() for name in BONES])
    u = {name: float(stream(seed, name).random()) for name in _UNIFORM}
    return Exogenous(seed, np.clip(0.8 * bones, -1.6, 1.6), u)


def check_values(attributes: Mapping[str, str]) -> None:
    """Raise `InterventionError` unless every name and value is one that the phantom world can draw."""
    for name, value in attributes.items():
        if name not in DOMAINS:
            raise InterventionError(f"`{name}` is not an attribute of the phantom world. It has: {', '.join(DOMAINS)}.")
        if value not in DOMAINS[name]:
            raise InterventionError(f"`{name}` cannot be `{value}`. Use one of: {', '.join(DOMAINS[name])}.")


def check_attributes(attributes: Mapping[str, str]) -> None:
    """As `check_values`, and none of the attributes may be missing."""
    check_values(attributes)
    missing = [name for name in DOMAINS if name not in attributes]
    if missing:
        raise InterventionError(f"A phantom person needs every attribute; missing: {', '.join(missing)}.")


def years_of(exogenous: Exogenous, age: str) -> float:
    """Age in years: the same quantile of 18..38 when young and of 58..85 when old."""
    low, high = OLD_YEARS if age == "old" else YOUNG_YEARS
    return low + (high - low) * exogenous.u["age"]


def look(exogenous: Exogenous, attributes: Mapping[str, str]) -> Look:
    """The appearance that this person has under these attributes.

    Args:
        exogenous: The person's draws.
        attributes: A value for every name in `DOMAINS`.

    Raises:
        InterventionError: An attribute is unknown, missing, or has an unknown value.
    """
    check_attributes(attributes)
    u = exogenous.u
    gender = attributes["gender"]
    years = years_of(exogenous, attributes["age"])
    aged = (years - YOUNG_YEARS[0]) / (OLD_YEARS[1] - YOUNG_YEARS[0])  # 0..1

    bones = exogenous.bones.copy()
    for name, effect in GENDER_BONES.items():
        bones[BONES.index(name)] += (0.5 if gender == "man" else -0.5) * effect
    for name, effect in AGE_BONES.items():
        bones[BONES.index(name)] += aged * effect

    skin = skin_colour(u["melanin"], u["haemoglobin"], u["undertone"], aged)
    hair = _between(HAIR_COLOURS[attributes["hair_colour"]], u["hair shade"])
    wears_lipstick = attributes["lipstick"] == "yes"
    # Lips stand out more in women and in the young (facial contrast; Russell 2009, doi:10.1068/p6331).
    contrast = (1.0 if gender == "woman" else 0.72) * (1 - 0.45 * aged)
    natural_lips = skin * (1 - contrast * np.array([0.12, 0.56, 0.55])) * (0.88 + 0.24 * u["lip shade"])
    style, length, volume = (u[f"{part} as {gender}"] for part in ("style", "length", "volume"))
    freckled = u["freckled"] < 0.45 * (1 - u["melanin"])

    return Look(
        bones=_single(np.clip(bones, -2.5, 2.5)),
        years=years,
        skin=_single(skin),
        iris=_single(_iris(u)),
        hair=_single(hair),
        brow=_single(_brow(attributes["hair_colour"], hair)),
        lips=_single(np.array(_pick(LIPSTICKS, u["lipstick"])) if wears_lipstick else natural_lips),
        lipstick=float(wears_lipstick),
        hair_style=_style(gender, style),
        hair_length=length,
        hair_volume=volume,
        hair_curl=float(np.clip(0.75 * u["curl"] ** 1.5 + 0.25 * u["melanin"], 0.0, 1.0)),
        bald=_worn(attributes, "bald"),
        beard=_worn(attributes, "beard"),
        beard_length=0.25 + 0.75 * u["beard length"],
        moustache=_worn(attributes, "moustache"),
        freckles=(0.3 + 0.7 * u["freckles"]) if freckled else 0.0,
        glasses=_worn(attributes, "glasses"),
        glasses_style=int(u["glasses style"] * len(GLASSES_STYLES)),
        glasses_colour=_single(np.array(_pick(FRAMES, u["glasses colour"]))),
        hat=_worn(attributes, "hat"),
        hat_style=int(u["hat style"] * len(HAT_STYLES)),
        hat_colour=_single(np.array(_pick(HATS, u["hat colour"]))),
        clothes=int(u["clothes"] * len(CLOTHES)),
        clothes_colour=_single(np.array(_pick(CLOTH, u["clothes colour"])) * (0.75 + 0.5 * u["clothes shade"])),
        texture_seed=int(stream(exogenous.seed, "texture").integers(2**31)),
    )


def skin_colour(melanin: float, haemoglobin: float, undertone: float, aged: float) -> Float:
    """Skin's reflectance, linear RGB.

    Beer-Lambert absorption by two pigments over a pale dermis, the usual two-pigment model
    (Tsumura et al. 1999, doi:10.1364/JOSAA.16.002169); coefficients chosen by eye.

    Args:
        melanin, haemoglobin, undertone: Quantiles 0..1; the undertone runs from rosy to golden.
        aged: 0 at 18 years, 1 at 85: a little paler and yellower.
    """
    pigment = 0.03 + 0.97 * melanin**1.6
    blood = 0.35 + 0.65 * haemoglobin
    absorbed = pigment * np.array([1.65, 2.25, 2.75]) + (1 - 0.35 * aged) * blood * np.array([0.02, 0.30, 0.26])
    colour = np.array([0.84, 0.68, 0.57]) * np.exp(-absorbed)
    colour = colour * np.array([1.0, 0.96 + 0.09 * undertone, 1.08 - 0.22 * undertone])
    grey = colour.mean()
    return np.asarray((colour + 0.20 * aged * (grey - colour)) * (1 + 0.06 * aged) * np.array([1, 1, 1 - 0.06 * aged]))


def _iris(u: Mapping[str, float]) -> Float:
    """Dark skin nearly always goes with brown eyes; light skin with any of the six."""
    place = u["iris"] * (1.0 - 0.8 * u["melanin"] ** 0.7) * len(IRISES)
    return _between(IRISES[min(int(place), len(IRISES) - 1)], u["iris shade"])


def _brow(name: str, hair: Float) -> Float:
    """Brows are a shade darker than blond hair, and otherwise much like the hair."""
    return hair * {"blond": 0.55, "red": 0.75, "grey": 0.9}.get(name, 0.85)


def _style(gender: str, u: float) -> int:
    for chance, name in STYLES[gender]:
        if u < chance:
            return HAIR_STYLES.index(name)
        u -= chance
    return HAIR_STYLES.index(STYLES[gender][0][1])


def _worn(attributes: Mapping[str, str], name: str) -> float:
    return 1.0 if attributes[name] == "yes" else 0.0


def _between(ends: tuple[Colour, Colour], t: float) -> Float:
    return np.asarray((1 - t) * np.array(ends[0]) + t * np.array(ends[1]))


def _pick(palette: tuple[Colour, ...], u: float) -> Colour:
    return palette[int(u * len(palette))]


def _single(x: Float) -> Array:
    return np.ascontiguousarray(np.clip(x, -2.5, 2.5), dtype=np.float32)
