"""What the renderer needs to know: how a person looks, where they sit, and how they move.

`Look` is all that an intervention may change. `Scene` and `Motion` are exogenous: the factual and
the counterfactual share them, to the bit. Colours are linear RGB in 0..1; lengths are in head
units (1 = half the height of an average head); angles are radians.

Head space: x to the person's left (right in the image at yaw 0), y up, z out of the face, towards
the camera; the origin is the middle of the head, between the ears.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BONES = (
    "face_width",
    "face_length",
    "jaw_width",
    "chin_length",
    "chin_forward",
    "cheekbones",
    "cheek_fullness",
    "brow_ridge",
    "forehead_height",
    "nose_length",
    "nose_width",
    "nose_bridge",
    "nose_tip",
    "eye_size",
    "eye_spacing",
    "eye_tilt",
    "brow_thickness",
    "brow_arch",
    "lip_fullness",
    "mouth_width",
    "ear_size",
    "neck_width",
    "shoulder_width",
)
"""Parameters of bone structure and face; each about N(0, 1), clipped to +-2.5."""

HAIR_STYLES = ("cropped", "side parting", "swept back", "bob", "long", "curls", "bun")
GLASSES_STYLES = ("round", "rectangular", "half rim")
HAT_STYLES = ("beanie", "cap", "brimmed")
CLOTHES = ("crew neck", "v neck", "collar", "hood")
BACKGROUNDS = ("wall", "bookshelf", "window", "office", "park", "street", "hills", "studio")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One person's appearance under one set of attributes; constant over a clip."""

    bones: Array  # (len(BONES),) after the effects of age and gender
    years: float  # 18..90: wrinkles, sagging, skin spots follow
    skin: Array  # (3,) linear RGB
    iris: Array  # (3,)
    hair: Array  # (3,) hair colour as seen (grey included)
    brow: Array  # (3,)
    lips: Array  # (3,) natural lip colour, or lipstick when worn
    lipstick: float  # 0 or 1: gloss and edge of the lips
    hair_style: int  # index into HAIR_STYLES
    hair_length: float  # 0..1 within the style
    hair_volume: float  # 0..1
    hair_curl: float  # 0..1: amplitude of the strands' waves
    bald: float  # 1: no hair on the scalp (the style is ignored)
    beard: float  # 1: full beard on jaw, chin and cheeks, without the upper lip
    beard_length: float  # 0..1: from trimmed to long
    moustache: float  # 1: hair on the upper lip
    freckles: float  # 0..1
    glasses: float  # 0 or 1
    glasses_style: int
    glasses_colour: Array  # (3,)
    hat: float  # 0 or 1; the sides and the nape stay visible below it
    hat_style: int
    hat_colour: Array  # (3,)
    clothes: int  # index into CLOTHES
    clothes_colour: Array  # (3,)
    texture_seed: int  # strands, pores, spots, wrinkles: where they lie


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything around the person; constant over a clip."""

    background: int  # index into BACKGROUNDS
    background_seed: int
    background_blur: float  # 0..1: depth of field
    key_light: Array  # (3,) unit vector towards the light, in camera space (x right, y up, z to the camera)
    key_colour: Array  # (3,) linear RGB, about 1
    fill: Array  # (3,) ambient light from the sky side
    bounce: Array  # (3,) ambient light from below
    key_softness: float  # 0..1: how soft the shadows are
    exposure: float  # about 1
    focal_length: float  # in units of the frame's half height; 3.2 is a portrait lens
    grain: float  # standard deviation of the film grain, in 8-bit levels (0..2)
    grain_seed: int


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How head, face and camera move; one row a frame."""

    yaw: Array  # (F,) radians, positive: the face turns to the right of the image
    pitch: Array  # (F,) positive: looks up
    roll: Array  # (F,) positive: counter-clockwise in the image
    position: Array  # (F, 3) head centre in camera space before the camera moves
    jaw: Array  # (F,) 0..1 how far the mouth is open
    mouth_wide: Array  # (F,) -1..1: rounded .. spread lips (speech)
    smile: Array  # (F,) 0..1, the attribute `smiling` included
    blink: Array  # (F,) 0 open .. 1 closed
    brow_raise: Array  # (F,) -1..1
    gaze: Array  # (F, 2) radians, right and up, relative to the head
    camera: Array  # (F, 3) pan, tilt (radians) and zoom (factor about 1) of a hand-held camera
    light_turn: Array  # (F,) radians the key light turns about the vertical
    occluder: Array  # (F, 4) x, y of the palm in the frame (-1..1, y up), angle, presence (0 or 1)
    occluder_kind: int  # 0 hand, 1 cup, 2 microphone
    occluder_colour: Array  # (3,)
    fps: float

    def __len__(self) -> int:
        return len(self.yaw)
