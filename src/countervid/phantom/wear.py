"""What people wear and hold: clothes, glasses, hats, and what passes before the face."""

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
    torus,
)

CREW, V_NECK, COLLAR, HOOD = range(4)
ROUND, RECTANGULAR, HALF_RIM = range(3)
BEANIE, CAP, BRIMMED = range(3)
HAND, CUP, MICROPHONE = range(3)


@kernel
def cloth_edge(x: float, y: float, z: float, body: Any) -> float:
    """Signed distance to the neckline along the torso: positive where there is cloth."""
    rho = math.sqrt(x * x + (z + 0.20) * (z + 0.20))
    edge = rho - 0.47 - 0.10 * smoothstep(0.0, 0.5, z + 0.2)
    if body.clothes == V_NECK and z > -0.2:
        edge = min(edge, (abs(x) - (y + 2.13) * 0.42) * 0.9)
    return edge


@kernel
def torso(x: float, y: float, z: float, body: Any) -> float:
    """Distance to shoulders, chest and clothes, in torso space."""
    ax = abs(x)
    w = body.shoulder
    d = capsule(ax, y, z, 0.5 * w, -1.98, -0.22, 1.28 * w, -2.14, -0.24, 0.40, 0.37)
    d = smooth_min(d, ellipsoid(ax, y + 2.75, z + 0.12, 1.28 * w, 1.20, 0.66), 0.25)
    d = smooth_min(d, capsule(ax, y, z, 0.10, -1.42, -0.30, 0.80 * w, -1.86, -0.27, 0.30, 0.26), 0.30)
    d = smooth_min(d, capsule(ax, y, z, 1.34 * w, -2.2, -0.24, 1.50 * w, -3.4, -0.22, 0.36, 0.34), 0.12)
    if d > 0.5:
        return d - 0.12
    edge = cloth_edge(x, y, z, body)
    d -= 0.035 * smoothstep(-0.012, 0.02, edge) + 0.022 * bump((edge - 0.05) / 0.055)
    if body.clothes == COLLAR:
        front = smoothstep(-0.1, 0.35, z)
        rho = math.sqrt(x * x + (z + 0.20) * (z + 0.20)) - 0.43 - 0.16 * front
        rise = y + 1.43 + 0.20 * front
        lean = rho + rise * 0.55
        flap = max(abs(lean) - 0.018, abs(rise) - 0.135 - 0.03 * front)
        vee = 0.05 - ax + max(0.0, -rise) * 0.55 if z > 0.0 else -1.0
        d = min(d, smooth_max(flap - 0.02, vee, 0.03))
        d += 0.012 * bump((x - 0.05) / 0.02) * smoothstep(0.0, 0.2, z)
    elif body.clothes == HOOD:
        tilt = y + 1.58 + 0.34 * (z + 0.2)
        ring = torus(x * 0.92, tilt * 0.95, z + 0.24, 0.60, 0.17)
        d = smooth_min(d, ring, 0.08)
        d = min(d, capsule(ax, y, z, 0.16, -1.75, 0.52, 0.17, -2.30, 0.56, 0.024, 0.024))
    # Folds of the cloth.
    crease = math.sin(7.0 * y + 5.0 * ax + 3.0 * math.sin(2.0 * x + body.seed))
    d += 0.012 * crease * smoothstep(0.15, 0.6, edge) * clamp01(ax)
    return d * 0.9


@kernel
def lens_outline(px: float, py: float, body: Any) -> float:
    """Signed distance to the outline of one lens in front view (px, py from its middle)."""
    if body.glasses_style == ROUND:
        return math.sqrt(px * px + py * py * 1.1) - 0.235
    wide, high, corner = 0.245, 0.17, 0.09
    if body.glasses_style == HALF_RIM:
        wide, high, corner = 0.25, 0.155, 0.12
    qx, qy = abs(px) - wide + corner, abs(py) - high + corner
    mx, my = max(qx, 0.0), max(qy, 0.0)
    return math.sqrt(mx * mx + my * my) + min(max(qx, qy), 0.0) - corner


@kernel
def glasses(ax: float, y: float, z: float, body: Any) -> float:
    """Distance to the frame of the glasses, in head space (|x|)."""
    gx, gy, gz = body.eye_x + 0.012, body.eye_y - 0.012, 0.845
    if y < -0.5 or y > 0.5 or z < -0.2:
        return max(max(-0.3 - y, y - 0.3), 0.03 - z)
    px, py = ax - gx, y - gy
    pz = z - gz + 0.5 * ax * ax
    out = lens_outline(px, py, body)
    tube = 0.018
    if body.glasses_style == RECTANGULAR:
        tube = 0.024
    ring = math.sqrt(out * out + pz * pz) - tube
    if body.glasses_style == HALF_RIM:
        ring = max(ring, -py - 0.02)
        ring = min(ring, math.sqrt(out * out + pz * pz) - 0.007)
    d = ring
    bridge = capsule(ax, y, z, 0.0, gy + 0.055, gz - 0.005, gx - 0.225, gy + 0.03, gz - 0.02, 0.017, 0.017)
    d = min(d, bridge)
    hx = gx + 0.235
    hz = gz - 0.5 * hx * hx
    temple = capsule(ax, y, z, hx, gy + 0.05, hz, body.cranium_x + 0.012, gy + 0.045, 0.0, 0.017, 0.017)
    return min(d, temple)


@kernel
def hat_line(x: float, z: float, body: Any) -> float:
    """Height of the hat's lower edge."""
    if body.hat_style == BEANIE:
        return 0.40 + 0.22 * z
    return 0.44 + 0.16 * z


@kernel
def hat(x: float, y: float, z: float, body: Any) -> float:
    """Distance to the hat, in head space."""
    line = hat_line(x, z, body)
    cy = body.cranium_cy
    if body.hat_style == BEANIE:
        d = ellipsoid(x, y - cy - 0.06, z + 0.10, body.cranium_x + 0.13, body.cranium_y + 0.20, body.cranium_z + 0.13)
        fold = smoothstep(0.25, 0.20, y - line)
        d -= 0.045 * fold
        around = math.atan2(x, z + 0.1)
        d -= 0.010 * math.sin(around * 44.0) * smoothstep(1.15, 0.7, y)
        return smooth_max(d, line - y, 0.07)
    d = ellipsoid(x, y - cy - 0.05, z + 0.10, body.cranium_x + 0.12, body.cranium_y + 0.16, body.cranium_z + 0.12)
    if body.hat_style == CAP:
        crown = smooth_max(d, line - y, 0.04)
        peak_y = 0.565 - 0.18 * (z - 0.75) - 0.35 * x * x
        rx, rz = x / 0.62, (z - 0.60) / 0.72
        peak = max(abs(y - peak_y) - 0.012, (math.sqrt(rx * rx + rz * rz) - 1.0) * 0.6)
        peak = max(peak, 0.35 - z) - 0.015
        button = sphere(x, y - cy - body.cranium_y - 0.21, z + 0.10, 0.05)
        seam = 0.008 * bump(x / 0.03)
        return min(smooth_min(crown + seam, peak, 0.04), button)
    flat = smooth_max(d, y - 1.05 - 0.06 * math.cos(4.0 * x), 0.22)
    crown = smooth_max(flat, line - y, 0.04)
    rho = math.sqrt(x * x * 1.12 + (z + 0.05) * (z + 0.05))
    brim_y = line + 0.03 + 0.16 * max(0.0, abs(x) - 0.6) - 0.05 * max(0.0, z - 0.7)
    brim = max(abs(y - brim_y) - 0.015, rho - 1.36) - 0.02
    return smooth_min(crown, brim, 0.06)


@kernel
def occluder(x: float, y: float, z: float, kind: int) -> float:
    """Distance to what passes before the face, in its own space (palm at the origin, z towards the camera)."""
    if kind == HAND:
        d = ellipsoid(x, y, z, 0.33, 0.36, 0.15)
        for i in range(4):
            bx = -0.25 + 0.165 * i
            length = 0.50 + 0.09 * (1.0 - (i - 1.4) * (i - 1.4) * 0.45)
            spread = 1.25
            finger = capsule(x, y, z, bx, 0.24, 0.0, bx * spread, 0.26 + length, 0.04, 0.092, 0.074)
            d = smooth_min(d, finger, 0.05)
        d = smooth_min(d, capsule(x, y, z, 0.22, -0.16, 0.04, 0.52, 0.20, 0.10, 0.105, 0.085), 0.09)
        return smooth_min(d, capsule(x, y, z, 0.0, -0.3, -0.03, 0.05, -2.6, 0.1, 0.21, 0.30), 0.14)
    if kind == CUP:
        rho = math.sqrt(x * x + z * z)
        radius = 0.32 + 0.06 * y
        d = smooth_max(rho - radius, abs(y) - 0.38, 0.06)
        qx, qy = abs(x - 0.40), y
        ring = math.sqrt(qx * qx + qy * qy) - 0.20
        return min(d, math.sqrt(ring * ring + z * z) - 0.05)
    d = sphere(x, y, z, 0.24)
    d = smooth_min(d, capsule(x, y, z, 0.0, -0.2, 0.0, 0.0, -2.4, 0.05, 0.13, 0.10), 0.03)
    return d
