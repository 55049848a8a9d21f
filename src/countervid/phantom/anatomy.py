"""From a `Look` and a `Motion` to measurements: what the distance functions read.

`body_of` turns bones and attributes into lengths (one record a clip); `poses_of` turns motion into rigid transforms
and expression (one record a frame). Compiled code reads the records by field name.

Head space is that of `Look`: x to the person's left, y up, z out of the face; the chin is near y = -1, the crown near
y = 1, the eyes near y = 0.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from countervid.phantom.parameters import BONES, Look, Motion, Scene

Records = NDArray[np.void]

CAMERA_DISTANCE = 8.0
"""From the camera to the middle of the head: with a focal length of 3.2, head and hair are half the frame high."""

PIVOT = (0.0, -0.55, -0.15)
"""Where head and neck meet, in head space: the head turns about this point."""

BODY = np.dtype(
    [
        (name, np.float64)
        for name in (
            "cranium_x cranium_y cranium_z cranium_cy face_x face_y face_z face_cy face_cz "
            "chin_y chin_z chin_r jaw_x jaw_y jaw_r bone_x bone_y bone_z bone_r cheek_x cheek_y cheek_z cheek_r "
            "ridge_r ridge_y temple eye_x eye_y eye_z eye_r eye_a eye_up eye_low eye_tilt socket bag "
            "nose_top_y nose_top_z nose_top_r nose_y nose_z nose_tip_r nose_mid_r wing_x wing_r "
            "mouth_y mouth_w lip_up lip_low lip_z ear_r neck_r shoulder brow_y brow_h brow_arch hairline "
            "years age wrinkle lipstick freckles bald beard beard_length moustache hair_length volume curl "
            "glasses hat "
            "skin_r skin_g skin_b iris_r iris_g iris_b hair_r hair_g hair_b brow_r brow_g brow_b lips_r lips_g lips_b "
            "glasses_r glasses_g glasses_b hat_r hat_g hat_b cloth_r cloth_g cloth_b part"
        ).split()
    ]
    + [(name, np.int64) for name in ("hair_style", "glasses_style", "hat_style", "clothes", "seed")]
)
"""Measurements of one person; lengths in head units, colours linear RGB."""

POSE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "r00 r01 r02 r10 r11 r12 r20 r21 r22 tx ty tz "  # head space -> world: p_world = R p + t
            "bc bs bx by bz "  # torso space -> world: turn about y by (cos, sin), then shift
            "neck_x neck_y neck_z "  # lower end of the neck, in head space
            "c00 c01 c02 c10 c11 c12 c20 c21 c22 focal "  # camera space -> world (rotation only)
            "lx ly lz "  # towards the key light, world
            "jaw wide smile blink brow gaze_x gaze_y "
            "ox oy oc os occluder oor oog oob"
        ).split()
    ]
    + [("occluder_kind", np.int64), ("index", np.int64)]
)
"""One frame: transforms, light, expression, occluder."""

LIGHT = np.dtype(
    [
        (name, np.float64)
        for name in (
            "key_r key_g key_b fill_r fill_g fill_b bounce_r bounce_g bounce_b softness exposure grain blur"
        ).split()
    ]
    + [(name, np.int64) for name in ("grain_seed", "background", "background_seed")]
)
"""Light, grain and background of a clip."""


def _colour(values: dict[str, float], name: str, colour: NDArray[np.floating[Any]]) -> None:
    for letter, channel in zip("rgb", colour, strict=True):
        values[f"{name}_{letter}"] = float(channel)


def body_of(look: Look) -> Records:
    """Measurements of a look, as one `BODY` record in an array of length 1."""
    bone = {name: float(value) for name, value in zip(BONES, look.bones, strict=True)}
    wide = 1 + 0.045 * bone["face_width"]
    long = 1 + 0.045 * bone["face_length"]
    age = float(np.clip((look.years - 28) / 50, 0, 1))
    nose_y = -0.335 * long - 0.028 * bone["nose_length"] - 0.02 * age
    mouth_y = -0.575 * long - 0.008 * bone["nose_length"]
    eye_r = 0.188 * (1 + 0.045 * bone["eye_size"])
    v = dict[str, float](
        cranium_x=0.765 * wide, cranium_y=0.775 + 0.03 * bone["forehead_height"], cranium_z=0.88, cranium_cy=0.235,
        face_x=0.575 * wide, face_y=0.70 * long, face_z=0.575, face_cy=-0.28 * long, face_cz=0.17,
        chin_y=-0.845 * long - 0.045 * bone["chin_length"], chin_z=0.475 + 0.04 * bone["chin_forward"],
        chin_r=0.165 + 0.012 * bone["jaw_width"],
        jaw_x=0.385 * wide + 0.045 * bone["jaw_width"], jaw_y=-0.56 * long, jaw_r=0.20 + 0.012 * bone["jaw_width"],
        bone_x=0.43 * wide + 0.02 * bone["cheekbones"], bone_y=-0.13, bone_z=0.42 + 0.01 * bone["cheekbones"],
        bone_r=0.185 + 0.016 * bone["cheekbones"],
        cheek_x=0.335 * wide, cheek_y=-0.36 * long - 0.05 * age, cheek_z=0.45 - 0.02 * age,
        cheek_r=0.235 + 0.024 * bone["cheek_fullness"] - 0.012 * age,
        ridge_r=0.115 + 0.017 * bone["brow_ridge"], ridge_y=0.225, temple=0.0,
        eye_x=0.295 * wide + 0.018 * bone["eye_spacing"], eye_y=0.01, eye_z=0.545, eye_r=eye_r,
        eye_a=eye_r * 0.98, eye_up=0.108 * (1 + 0.07 * bone["eye_size"]) - 0.022 * age,
        eye_low=0.066 * (1 + 0.05 * bone["eye_size"]),
        eye_tilt=0.07 + 0.07 * bone["eye_tilt"] - 0.08 * age, socket=0.17, bag=age,
        nose_top_y=0.10, nose_top_z=0.665 + 0.022 * bone["nose_bridge"], nose_top_r=0.085 + 0.006 * bone["nose_bridge"],
        nose_y=nose_y, nose_z=0.865 + 0.02 * bone["nose_length"] + 0.02 * bone["nose_tip"],
        nose_tip_r=0.105 + 0.011 * bone["nose_width"] + 0.008 * bone["nose_tip"] + 0.01 * age,
        nose_mid_r=0.062 + 0.008 * bone["nose_bridge"],
        wing_x=0.103 + 0.02 * bone["nose_width"], wing_r=0.066 + 0.006 * bone["nose_width"] + 0.004 * age,
        mouth_y=mouth_y, mouth_w=0.235 + 0.022 * bone["mouth_width"],
        lip_up=(0.058 + 0.014 * bone["lip_fullness"]) * (1 - 0.3 * age),
        lip_low=(0.078 + 0.017 * bone["lip_fullness"]) * (1 - 0.25 * age),
        lip_z=(0.040 + 0.008 * bone["lip_fullness"]) * (1 - 0.3 * age),
        ear_r=0.215 * (1 + 0.11 * bone["ear_size"]) * (1 + 0.08 * age),
        neck_r=0.315 + 0.03 * bone["neck_width"], shoulder=1.0 + 0.07 * bone["shoulder_width"],
        brow_y=0.262 + 0.012 * bone["brow_arch"] - 0.012 * age, brow_h=0.042 * (1 + 0.2 * bone["brow_thickness"]),
        brow_arch=0.035 + 0.02 * bone["brow_arch"], hairline=0.60 + 0.035 * bone["forehead_height"],
        years=float(look.years), age=age, wrinkle=float(np.clip((look.years - 34) / 40, 0, 1)),
        lipstick=look.lipstick, freckles=look.freckles, bald=look.bald, beard=look.beard,
        beard_length=look.beard_length, moustache=look.moustache, hair_length=look.hair_length,
        volume=look.hair_volume, curl=look.hair_curl, glasses=look.glasses, hat=look.hat,
        part=-1.0 if look.texture_seed % 2 else 1.0,
    )  # fmt: skip
    # The film curve pales what is light: fair skin is given back its blood.
    fair = float(np.clip((np.mean(look.skin) - 0.18) / 0.35, 0, 1))
    skin = np.asarray(look.skin) * (1 - fair * np.array([0.06, 0.16, 0.23]))
    for name, colour in (
        ("skin", skin), ("iris", look.iris), ("hair", look.hair), ("brow", look.brow), ("lips", look.lips),
        ("glasses", look.glasses_colour), ("hat", look.hat_colour), ("cloth", look.clothes_colour),
    ):  # fmt: skip
        _colour(v, name, colour)
    whole = {"hair_style": look.hair_style, "glasses_style": look.glasses_style, "hat_style": look.hat_style,
             "clothes": look.clothes, "seed": look.texture_seed % 1_000_003}  # fmt: skip
    record = np.zeros(1, BODY)
    for name in BODY.names or ():
        record[name] = whole[name] if name in whole else v[name]
    return record


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Head space -> world, (3, 3): first roll, then pitch (positive looks up), then yaw (positive: to +x)."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(turn @ nod @ tilt)


def poses_of(body: Records, scene: Scene, motion: Motion) -> Records:
    """Transforms and expression of every frame, `(F,)` records of type `POSE`."""
    count = len(motion)
    for field in fields(motion):
        value = getattr(motion, field.name)
        if isinstance(value, np.ndarray) and field.name != "occluder_colour" and len(value) != count:
            raise ValueError(f"`motion.{field.name}` has {len(value)} rows, `motion.yaw` {count}. Give one a frame.")
    poses = np.zeros(count, POSE)
    pivot = np.array(PIVOT)
    for i in range(count):
        pose = poses[i]
        position = np.asarray(motion.position[i], np.float64)
        turn = rotation(float(motion.yaw[i]), float(motion.pitch[i]), float(motion.roll[i]))
        shift = position + pivot - turn @ pivot
        body_yaw = 0.3 * float(motion.yaw[i])
        bc, bs = math.cos(body_yaw), math.sin(body_yaw)
        neck = np.array([0.0, -1.62, -0.26])  # in torso space
        neck_world = np.array([bc * neck[0] + bs * neck[2], neck[1], -bs * neck[0] + bc * neck[2]]) + position
        neck_head = turn.T @ (neck_world - shift)
        pan, tilt, zoom = (float(c) for c in motion.camera[i])
        camera = rotation(-pan, tilt, 0.0)  # pan to the right turns the view towards +x, seen along -z
        angle = float(motion.light_turn[i])
        kx, ky, kz = (float(c) for c in scene.key_light)
        ox, oy, oa, present = (float(c) for c in motion.occluder[i])
        values = dict[str, Any](
            tx=shift[0], ty=shift[1], tz=shift[2], bc=bc, bs=bs, bx=position[0], by=position[1], bz=position[2],
            neck_x=neck_head[0], neck_y=neck_head[1], neck_z=neck_head[2], focal=scene.focal_length * zoom,
            lx=math.cos(angle) * kx + math.sin(angle) * kz, ly=ky, lz=-math.sin(angle) * kx + math.cos(angle) * kz,
            jaw=motion.jaw[i], wide=motion.mouth_wide[i], smile=motion.smile[i], blink=motion.blink[i],
            brow=motion.brow_raise[i], gaze_x=motion.gaze[i, 0], gaze_y=motion.gaze[i, 1],
            ox=ox, oy=oy, oc=math.cos(oa), os=math.sin(oa), occluder=present,
            oor=motion.occluder_colour[0], oog=motion.occluder_colour[1], oob=motion.occluder_colour[2],
            occluder_kind=motion.occluder_kind, index=i,
        )  # fmt: skip
        for row in range(3):
            for column in range(3):
                values[f"r{row}{column}"] = turn[row, column]
                values[f"c{row}{column}"] = camera[row, column]
        for name in POSE.names or ():
            pose[name] = values[name]
    return poses


def light_of(scene: Scene) -> Records:
    """Light, grain and background of a scene, as one `LIGHT` record in an array of length 1."""
    v = dict[str, float](
        softness=scene.key_softness, exposure=scene.exposure, grain=scene.grain, blur=scene.background_blur,
        grain_seed=scene.grain_seed % 1_000_003, background=scene.background,
        background_seed=scene.background_seed % 1_000_003,
    )  # fmt: skip
    for name, colour in (("key", scene.key_colour), ("fill", scene.fill), ("bounce", scene.bounce)):
        _colour(v, name, colour)
    record = np.zeros(1, LIGHT)
    for name in LIGHT.names or ():
        record[name] = v[name]
    return record
