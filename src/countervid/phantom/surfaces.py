"""The face as a distance function: skull, flesh, features, and the expression that bends them.

A query point in head space is first carried back to the neutral face (`unwarp`: smile, jaw and brows are warps of
space), then measured against the neutral head (`skin`). Eyelids and the gap between the lips are cut afterwards, in
front-view coordinates. The face is mirror-symmetric: functions take |x| where they can.
"""

from __future__ import annotations

import math
from typing import Any

from countervid.phantom.compile import kernel
from countervid.phantom.primitives import (
    bump,
    capsule,
    clamp01,
    ellipsoid,
    smooth_max,
    smooth_min,
    smoothstep,
    sphere,
)


@kernel
def mouth_half_width(body: Any, pose: Any) -> float:
    """Half the mouth's width under the expression (the corners of the gap), in warped space."""
    return float(body.mouth_w * (1.0 + 0.16 * pose.wide + 0.24 * pose.smile))


@kernel
def mouth_gap(x: float, body: Any, pose: Any) -> tuple[float, float, float]:
    """Middle, upper rim and lower rim (heights above the middle) of the gap between the lips at abscissa `x`."""
    u = abs(x) / mouth_half_width(body, pose)
    s = max(0.0, 1.0 - u * u)
    middle = body.mouth_y + (0.075 * pose.smile - 0.004) * (min(u, 1.6) * min(u, 1.6))
    teeth = max(0.0, pose.smile - 0.30) * 0.075
    up = (0.028 * pose.jaw + teeth) * s
    down = (0.185 * pose.jaw * (1.0 - 0.25 * pose.smile) + 0.55 * teeth) * s
    return middle, up, down


@kernel
def unwarp(x: float, y: float, z: float, body: Any, pose: Any) -> tuple[float, float, float, float]:
    """Carry a point of the moving face back to the neutral face.

    Returns:
        The neutral point, and the signed gap value: negative inside the opening of the mouth.
    """
    gap = 1.0
    front = smoothstep(-0.25, 0.35, z)
    if front <= 0.0 or y > 0.62 or y < -1.6:
        return x, y, z, gap
    ax = abs(x)
    side = 1.0 if x >= 0.0 else -1.0
    # Brows.
    if y > 0.0:
        lift = bump((y - body.brow_y - 0.05) / 0.32) * (1.0 - 0.3 * bump(ax / 0.12))
        return x, y - 0.062 * pose.brow * front * lift, z, gap
    # The gap opens, the jaw falls.
    middle, up, down = mouth_gap(x, body, pose)
    below = y - middle
    if pose.jaw + pose.smile > 0.001 and z > 0.3:
        w = mouth_half_width(body, pose)
        gap = max(max(below - up, -down - below), ax - w)
    q = y
    if below > 0.0:
        q = y - min(below, up * (1.0 - smoothstep(0.0, 0.22, below - up)))
    else:
        deep = smoothstep(0.0, 0.34, -below - down)
        full = 0.185 * pose.jaw * (1.0 - 0.25 * pose.smile)
        fall = (down * (1.0 - deep) + full * deep) * (1.0 - 0.4 * smoothstep(0.35, 0.7, ax) * (1.0 - deep))
        q = y + min(-below, fall) * front
    # The mouth's corners: wider and up with a smile, narrower when the lips round.
    wide = 0.16 * pose.wide + 0.24 * pose.smile
    near = bump((y - body.mouth_y) / 0.42) * front
    lateral = body.mouth_w * wide * smoothstep(0.0, body.mouth_w, ax) * (1.0 - smoothstep(0.3, 0.62, ax)) * near
    lift = (middle - body.mouth_y) * (1.0 - smoothstep(0.26, 0.62, ax)) * bump((y - middle) / 0.36) * front
    cheek = 0.045 * pose.smile * bump((y + 0.30) / 0.3) * bump((ax - 0.34) / 0.3) * front
    pout = 0.03 * max(0.0, -pose.wide) * bump(ax / 0.3) * bump((y - body.mouth_y) / 0.25)
    return x - side * lateral, q - lift - cheek, z - pout, gap


@kernel
def warp(x: float, y: float, z: float, body: Any, pose: Any) -> tuple[float, float, float]:
    """Carry a point of the neutral face to where the expression moves it: `unwarp` solved by iteration."""
    qx, qy, qz = x, y, z
    for _ in range(8):
        px, py, pz, _gap = unwarp(qx, qy, qz, body, pose)
        qx, qy, qz = qx + 0.8 * (x - px), qy + 0.8 * (y - py), qz + 0.8 * (z - pz)
    return qx, qy, qz


@kernel
def lid_gap(ax: float, y: float, body: Any, pose: Any) -> tuple[float, float, float]:
    """The eye's opening in front view: signed value (negative inside), height of the upper and of the lower rim."""
    u = (ax - body.eye_x) / body.eye_a
    s = max(0.0, 1.0 - u * u)
    tilt = body.eye_tilt * (ax - body.eye_x)
    closed = clamp01(pose.blink)
    up = body.eye_up * (1.0 + 0.10 * pose.brow - 0.10 * pose.smile) * math.sqrt(s) * (0.72 + 0.28 * s)
    low = body.eye_low * (1.0 - 0.30 * pose.smile) * s
    rim_low = body.eye_y + tilt - low * (1.0 - 0.15 * closed)
    rim_up = body.eye_y + tilt + up
    rim_up = rim_up + (rim_low - 0.006 - rim_up) * closed
    return max(max(y - rim_up, rim_low - y) * 0.9, (abs(u) - 1.0) * body.eye_a), rim_up, rim_low


@kernel
def lips(ax: float, y: float, body: Any) -> tuple[float, float]:
    """Lips in neutral front view: how much this is lip (0..1, soft edge), and their relief (0..1)."""
    u = ax / body.mouth_w
    if u > 1.06 or abs(y - body.mouth_y) > 0.2:
        return 0.0, 0.0
    s = max(0.0, 1.0 - u * u)
    v = y - body.mouth_y
    if v > 0.0:
        bow = 1.0 - 0.22 * bump(ax / 0.055) + 0.10 * bump((ax - 0.07) / 0.07)
        edge = body.lip_up * bow * (0.25 * math.sqrt(s) + 0.75 * s) + 0.004
    else:
        edge = body.lip_low * (0.35 * math.sqrt(s) + 0.65 * s) + 0.004
    t = abs(v) / edge
    ink = (1.0 - smoothstep(0.88, 1.12, t)) * smoothstep(1.05, 0.94, u)
    relief = max(0.0, 1.0 - (t - 0.42) * (t - 0.42) / 0.5) * math.sqrt(s)
    return ink, relief * smoothstep(1.35, 0.75, t)


@kernel
def ear(ax: float, y: float, z: float, body: Any) -> float:
    """An ear: a dished ellipsoid with a lobe, tilted back a little."""
    r = body.ear_r
    px, py, pz = ax - body.cranium_x * 0.985, y + 0.07, z + 0.03
    px, pz = px * 0.88 + pz * 0.47, pz * 0.88 - px * 0.47  # swung out from the skull
    py, pz = py * 0.97 - pz * 0.2, pz * 0.97 + py * 0.2
    outer = ellipsoid(px, py, pz, r * 0.36, r, r * 0.64)
    dish = ellipsoid(px - r * 0.34, py - r * 0.1, pz + r * 0.02, r * 0.24, r * 0.68, r * 0.38)
    inner = ellipsoid(px - r * 0.10, py - r * 0.02, pz + r * 0.05, r * 0.16, r * 0.42, r * 0.16)
    d = smooth_max(outer, -dish, 0.05)
    d = smooth_min(d, inner, 0.03)
    return smooth_min(d, ellipsoid(px - 0.01, py + r * 0.88, pz - r * 0.2, r * 0.2, r * 0.26, r * 0.28), 0.07)


@kernel
def base(ax: float, y: float, z: float, body: Any) -> float:
    """The neutral head without eyes, lips, ears and nose: what hair and beard lie on."""
    d = ellipsoid(ax, y - body.cranium_cy, z + 0.10, body.cranium_x, body.cranium_y, body.cranium_z)
    d = smooth_min(d, ellipsoid(ax, y - body.face_cy, z - body.face_cz, body.face_x, body.face_y, body.face_z), 0.22)
    if y < 0.1 and z > -0.5:
        cy, cz, r = body.chin_y, body.chin_z, body.chin_r
        d = smooth_min(d, capsule(ax, y, z, 0.0, cy, cz, 0.09, cy + 0.02, cz - 0.04, r, r), 0.24)
        d = smooth_min(d, sphere(ax - body.jaw_x, y - body.jaw_y, z - 0.06, body.jaw_r), 0.26)
        d = smooth_min(d, sphere(ax - body.cheek_x, y - body.cheek_y, z - body.cheek_z, body.cheek_r), 0.16)
        d = smooth_min(d, ellipsoid(ax, y - body.mouth_y - 0.02, z - 0.56, 0.26, 0.22, 0.205), 0.16)
    if z > 0.0 and y < 0.3:
        d = smooth_min(d, sphere(ax - body.bone_x, y - body.bone_y, z - body.bone_z, body.bone_r), 0.14)
    return d


@kernel
def nose(ax: float, y: float, z: float, body: Any) -> tuple[float, float]:
    """Nose without nostrils, and the nostrils' hollow."""
    ny, nz = body.nose_y, body.nose_z
    ty, tz, r = body.nose_top_y, body.nose_top_z, body.nose_top_r * 0.85
    d = capsule(ax, y, z, 0.0, ty, tz, 0.0, ny + 0.07, nz - 0.03, r, body.nose_mid_r)
    r = body.nose_tip_r
    d = smooth_min(d, ellipsoid(ax, y - ny, z - nz, r * 1.06, r * 0.92, r), 0.09)
    r = body.wing_r
    wing = ellipsoid(ax - body.wing_x, y - ny + 0.03, z - nz + 0.095, r, r * 0.92, r * 1.25)
    d = smooth_min(d, wing, 0.05)
    r = 0.03 + 0.1 * (body.wing_x - 0.1)
    hole = ellipsoid(ax - body.wing_x * 0.56, y - ny + 0.098, z - nz + 0.055, r, 0.036, 0.052)
    return d, hole


@kernel
def skin(x: float, y: float, z: float, gap: float, qx: float, qy: float, qz: float, body: Any, pose: Any) -> float:
    """Distance to the skin.

    Args:
        x, y, z: The point carried back to the neutral face.
        gap: Signed opening of the mouth at the point, from `unwarp`.
        qx, qy, qz: The same point where it is, in head space (lids and neck do not follow the warp).
    """
    ax = abs(x)
    d = base(ax, y, z, body)
    if z > 0.25 and d > 0.6:
        d -= 0.3  # the nose stands out by less
    elif z > 0.25:
        by, r = body.ridge_y, body.ridge_r
        brow = capsule(ax, y, z, 0.10, by, 0.685, 0.40, by + 0.02, 0.53, r, r * 0.85)
        d = smooth_min(d, brow, 0.16)
        ex, ey, ez = ax - body.eye_x, y - body.eye_y, z - body.eye_z
        if ex * ex + ey * ey < 0.2:
            d = smooth_max(d, -ellipsoid(ex, ey - 0.01, ez - 0.30, 0.215, 0.155, 0.17), 0.14)
        tip, hole = nose(ax, y, z, body)
        d = smooth_min(d, tip, 0.10)
        d = smooth_max(d, -hole, 0.035)
        ink, relief = lips(ax, y, body)
        if relief > 0.0:
            d -= body.lip_z * relief
        d += 0.012 * bump(ax / 0.05) * bump((y - 0.5 * (body.mouth_y + body.nose_y)) / 0.09)  # philtrum
        d += 0.03 * bump((y - body.mouth_y + body.lip_low + 0.055) / 0.075) * bump(ax / 0.24)  # fold above the chin
        if ex * ex + ey * ey < 0.2:
            wx, wy, wz = abs(qx) - body.eye_x, qy - body.eye_y, qz - body.eye_z
            d = smooth_min(d, math.sqrt(wx * wx + wy * wy + wz * wz) - (body.eye_r + 0.024), 0.055)
            opening, _up, _low = lid_gap(abs(qx), qy, body, pose)
            d = smooth_max(d, -opening, 0.016)
    if abs(qx) > 0.5 and abs(qy) < 0.6 and abs(qz) < 0.55:
        d = smooth_min(d, ear(abs(qx), qy, qz, body), 0.06)
    if gap < 0.2:
        d = smooth_max(d, -max(gap, 0.50 - z), 0.02)
    if qy < -0.2:
        r = body.neck_r
        neck = capsule(qx, qy, qz, 0.0, -0.45, -0.17, pose.neck_x, pose.neck_y, pose.neck_z, r, r * 1.12)
        d = smooth_min(d, neck, 0.13)
    return d


@kernel
def eyeball(ax: float, y: float, z: float, body: Any) -> float:
    """Distance to the eyes, with the cornea's bulge left out."""
    return sphere(ax - body.eye_x, y - body.eye_y, z - body.eye_z, body.eye_r)


@kernel
def mouth_inside(x: float, y: float, z: float, gap: float, body: Any, pose: Any) -> tuple[float, float]:
    """Distances to the teeth and to the dark back of the mouth, in warped space."""
    ax = abs(x)
    arch = 0.70 - 0.9 * ax * ax
    mid = body.mouth_y + 0.075 * pose.smile * (ax / 0.3) * (ax / 0.3)
    upper = max(max(abs(z - arch + 0.06) - 0.03, abs(y - mid - 0.035) - 0.075), ax - 0.27)
    fall = 0.185 * pose.jaw
    lower = max(max(abs(z - (arch - 0.085)) - 0.03, abs(y - mid + fall + 0.055) - 0.05), ax - 0.25)
    back = max(max(z - 0.52, -0.2 - z), max(ax - 0.32, abs(y - body.mouth_y + 0.1) - 0.24))
    tongue = ellipsoid(ax, y - mid + fall + 0.03, z - 0.50, 0.17, 0.06, 0.15)
    return min(upper, lower), min(back, tongue)
