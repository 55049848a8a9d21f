"""Light: what colour a surface point sends to the camera.

Skin is lit by wrapped diffuse light whose red wraps farther than its green and blue: a cheap stand-in for light that
enters and leaves elsewhere. Hair has Kajiya-Kay highlights (SIGGRAPH 1989, eq. 14). Tone mapping is the rational fit of
a film curve by Hable's recipe (toe, straight line, shoulder), in its short form by Narkowicz.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from countervid.phantom.anatomy import CAMERA_DISTANCE
from countervid.phantom.camera import ray
from countervid.phantom.compile import kernel, parallel, sources
from countervid.phantom.hair import strands
from countervid.phantom.paint import (
    beard_colour,
    cloth_colour,
    eye_colour,
    hair_colour,
    relief,
    skin_colour,
)
from countervid.phantom.person import (
    BACKGROUND,
    BEARD,
    CLOTHES,
    EYE,
    GLASSES,
    HAIR,
    HAT,
    MOUTH,
    OCCLUDER,
    SKIN,
    TEETH,
    to_head,
    to_occluder,
    to_torso,
    turn_to_head,
)
from countervid.phantom.primitives import film, mix, smoothstep
from countervid.phantom.solids import normal, occlusion, shadow
from countervid.phantom.surfaces import unwarp
from countervid.phantom.trace import BLOCK
from countervid.phantom.wear import cloth_edge


@kernel
def power(x: float, n: int) -> float:
    """x to the power 2^n, for 0 <= x."""
    for _ in range(n):
        x = x * x
    return x


@kernel
def lit(
    r: float, g: float, b: float, ndl: float, up: float, open_sky: float, sun: float, soft: float, light: Any
) -> tuple[float, float, float]:
    """Diffuse light on an albedo. `soft` 0..1 wraps the key light around, red first; `up` is the normal's height."""
    wr, wg, wb = 0.10 + 0.42 * soft, 0.10 + 0.20 * soft, 0.10 + 0.13 * soft
    kr = max(0.0, (ndl + wr) / (1.0 + wr))
    kg = max(0.0, (ndl + wg) / (1.0 + wg))
    kb = max(0.0, (ndl + wb) / (1.0 + wb))
    sr = mix(sun, math.sqrt(sun), 0.6 * soft)
    h = 0.5 + 0.5 * up
    ar = open_sky + soft * 0.18 * open_sky * (1.0 - open_sky)
    er = light.key_r * kr * sr + (0.06 + mix(light.bounce_r, light.fill_r, h)) * ar
    eg = light.key_g * kg * sun + (0.06 + mix(light.bounce_g, light.fill_g, h)) * open_sky
    eb = light.key_b * kb * sun + (0.06 + mix(light.bounce_b, light.fill_b, h)) * open_sky
    return r * er, g * eg, b * eb


@kernel
def shade(
    wx: float, wy: float, wz: float, dx: float, dy: float, dz: float, material: int, t: float,
    field: Any, body: Any, pose: Any, light: Any, pixel: float,
) -> tuple[float, float, float, int]:  # fmt: skip
    """Linear RGB of the surface at a world point seen along (dx, dy, dz), and its class in the mask."""
    width = pixel * t
    # Head space serves all lighting: shadows and openness are looked up there.
    x, y, z = to_head(wx, wy, wz, pose)
    vx, vy, vz = turn_to_head(-dx, -dy, -dz, pose)
    lx, ly, lz = turn_to_head(pose.lx, pose.ly, pose.lz, pose)
    ux, uy, uz = pose.r10, pose.r11, pose.r12  # world's up, in head space
    kind = material
    r, g, b, gloss, soft, sharp, shift = 0.5, 0.5, 0.5, 0.2, 0.0, 4, 0.0
    nx, ny, nz = 0.0, 0.0, 1.0
    own = 1.0
    if material == CLOTHES:
        px, py, pz = to_torso(wx, wy, wz, pose)
        sx, sy, sz = normal(px, py, pz, CLOTHES, body, pose, 0.004)
        ax, az = pose.bc * sx + pose.bs * sz, -pose.bs * sx + pose.bc * sz
        nx, ny, nz = turn_to_head(ax, sy, az, pose)
        edge = cloth_edge(px, py, pz, body)
        rim = (0.0, 0.0, -0.085, -0.16)[body.clothes]  # collars and hoods stand up against the neck
        if edge < rim:
            r, g, b, gloss, soft, kind = body.skin_r, body.skin_g, body.skin_b, 0.25, 1.0, SKIN
            own = 0.72 + 0.28 * smoothstep(0.0, -0.10, edge)
        else:
            r, g, b = cloth_colour(px, py, pz, edge, body, width)
            gloss, soft, sharp = 0.06, 0.15, 3
        own *= 0.55 + 0.45 * smoothstep(-1.35, -1.75, py - 0.25 * abs(px))
    elif material == OCCLUDER:
        px, py, pz = to_occluder(wx, wy, wz, pose)
        sx, sy, sz = normal(px, py, pz, OCCLUDER, body, pose, 0.004)
        nx, ny, nz = turn_to_head(pose.oc * sx - pose.os * sy, pose.os * sx + pose.oc * sy, sz, pose)
        r, g, b = pose.oor, pose.oog, pose.oob
        if pose.occluder_kind == 0:
            gloss, soft = 0.3, 1.0
        elif pose.occluder_kind == 2 and py > -0.2:
            mesh = 0.5 + 0.5 * math.sin(px * 70.0) * math.sin(py * 70.0) * smoothstep(0.02, 0.008, width)
            r, g, b, gloss = 0.10 + 0.1 * mesh, 0.10 + 0.1 * mesh, 0.11 + 0.1 * mesh, 0.5
        else:
            gloss, sharp = 0.5, 5
    elif material == EYE:
        side = 1.0 if x >= 0.0 else -1.0
        nx, ny, nz = (x - side * body.eye_x) / body.eye_r, (y - body.eye_y) / body.eye_r, (z - body.eye_z) / body.eye_r
        r, g, b, _iris = eye_colour(x, y, z, body, pose)
        soft = 0.6
    else:
        nx, ny, nz = normal(x, y, z, material, body, pose, max(0.0025, 0.3 * width))
        if material == SKIN:
            qx, qy, qz, _gap = unwarp(x, y, z, body, pose)
            if y > -1.1:
                h = max(0.004, 0.4 * width)
                h0 = relief(qx, qy, qz, body, pose, width)
                bx = (relief(qx + h, qy, qz, body, pose, width) - h0) / h
                by = (relief(qx, qy + h, qz, body, pose, width) - h0) / h
                nx, ny = nx - bx, ny - by
                s = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz)
                nx, ny, nz = nx * s, ny * s, nz * s
            r, g, b, gloss, lip = skin_colour(qx, qy, qz, x, y, body, pose, width)
            soft = 1.0
            if lip > 0.5:
                kind = MOUTH
                sharp = 5 if body.lipstick > 0.5 else 4
        elif material == HAIR:
            r, g, b, shift = hair_colour(x, y, z, body, width)
        elif material == BEARD:
            qx, qy, qz, _gap = unwarp(x, y, z, body, pose)
            r, g, b, shift = beard_colour(qx, qy, qz, body, width)
            kind = HAIR
        elif material == TEETH:
            ax = abs(x)
            between = smoothstep(0.35, 0.5, abs(ax * 12.0 - math.floor(ax * 12.0) - 0.5)) * smoothstep(
                0.02, 0.008, width
            )
            k = (1.0 - 0.22 * between) * (1.0 - 0.75 * smoothstep(0.05, 0.26, ax))
            r, g, b = 0.80 * k, 0.77 * k, 0.70 * k
            gloss, kind = 0.4, MOUTH
        elif material == MOUTH:
            r, g, b, gloss = 0.16, 0.030, 0.030, 0.15
        elif material == HAT:
            r, g, b, gloss, sharp = body.hat_r, body.hat_g, body.hat_b, 0.05, 3
            soft = 0.1
        elif material == GLASSES:
            r, g, b, gloss, sharp = body.glasses_r, body.glasses_g, body.glasses_b, 0.9, 6
    ndl = nx * lx + ny * ly + nz * lz
    ndv = max(0.0, nx * vx + ny * vy + nz * vz)
    up = nx * ux + ny * uy + nz * uz
    open_sky, sun = 1.0, 1.0
    # A light behind the shoulder, opposite to the key: it parts the person from the background, as in a studio.
    kx = -0.9 if pose.lx > 0.0 else 0.9
    kx, ky, kz = turn_to_head(kx, 0.35, -0.55, pose)
    behind = smoothstep(0.05, 0.9, nx * kx + ny * ky + nz * kz) * 0.30
    if material != OCCLUDER:
        if material == MOUTH or material == TEETH:  # inside the neutral head, where the field knows nothing
            open_sky, sun = 0.62, 0.55
        else:
            open_sky = occlusion(x, y, z, nx, ny, nz, field) * own
        if ndl > -0.55 and material != MOUTH and material != TEETH:
            sun = shadow(x + 0.03 * nx, y + 0.03 * ny, z + 0.03 * nz, lx, ly, lz, field, light.softness)
        sun *= 0.35 + 0.65 * smoothstep(0.15, 0.7, open_sky)
    hx, hy, hz = lx + vx, ly + vy, lz + vz
    s = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-12)
    hx, hy, hz = hx * s, hy * s, hz * s
    fresnel = power(1.0 - ndv, 2)
    behind *= open_sky
    if material == HAIR or material == BEARD:
        # Tangent: across the gradient of the strands' coordinate.
        e = 0.01
        tx, ty, tz = 0.0, -1.0, 0.0
        if material == HAIR:
            c0, _ = strands(x, y, z, body)
            cx, _ = strands(x + e, y, z, body)
            cy, _ = strands(x, y + e, z, body)
            cz, _ = strands(x, y, z + e, body)
            cx, cy, cz = cx - c0, cy - c0, cz - c0
            tx, ty, tz = ny * cz - nz * cy, nz * cx - nx * cz, nx * cy - ny * cx
        s = 1.0 / math.sqrt(tx * tx + ty * ty + tz * tz + 1e-12)
        tx, ty, tz = tx * s + shift * nx, ty * s + shift * ny, tz * s + shift * nz
        th = tx * hx + ty * hy + tz * hz
        ring = power(math.sqrt(max(0.0, 1.0 - th * th)), 5)
        wide = power(math.sqrt(max(0.0, 1.0 - th * th)), 3)
        e0, e1, e2 = lit(r, g, b, 0.75 * ndl + 0.2, up, open_sky, sun, 0.35, light)
        face_light = smoothstep(-0.1, 0.5, ndl) * sun
        white = 0.10 if material == HAIR else 0.03
        back = fresnel * 0.30 * open_sky
        r = e0 + light.key_r * face_light * (white * ring + 0.55 * r * wide) + back * (0.03 + r)
        g = e1 + light.key_g * face_light * (white * ring + 0.55 * g * wide) + back * (0.03 + g)
        b = e2 + light.key_b * face_light * (white * ring + 0.55 * b * wide) + back * (0.03 + b)
        return (
            r + behind * (0.05 + body.hair_r * 0.9),
            g + behind * (0.05 + body.hair_g * 0.9),
            b + behind * (0.055 + body.hair_b * 0.9),
            HAIR,
        )
    ndh = max(0.0, nx * hx + ny * hy + nz * hz)
    if material == EYE:
        e0, e1, e2 = lit(r, g, b, 0.5 * ndl + 0.35, up, 0.35 + 0.65 * open_sky, 0.5 + 0.5 * sun, 0.5, light)
        # The catchlight of a window near the key light: always there, never blown out of the iris.
        kx, ky, kz = mix(lx, 0.0, 0.35), mix(ly, 0.55, 0.35), mix(lz, 0.9, 0.35)
        s = 1.0 / math.sqrt(kx * kx + ky * ky + kz * kz)
        c = 2.0 * ndv
        rx, ry, rz = c * nx - vx, c * ny - vy, c * nz - vz
        k = (rx * kx + ry * ky + rz * kz) * s
        spot = smoothstep(0.900, 0.945, k)
        glow = 0.06 * smoothstep(-0.2, 1.0, ry) + 0.25 * smoothstep(0.75, 0.97, -k * 0.6 - ry * 0.55)
        spec = 1.7 * spot + glow * 0.5
        return e0 + spec, e1 + spec, e2 + spec, EYE
    e0, e1, e2 = lit(r, g, b, ndl, up, open_sky, sun, soft, light)
    lobe = gloss * (0.30 * power(ndh, sharp) + 0.12 * power(ndh, sharp + 2)) * sun * smoothstep(-0.1, 0.2, ndl)
    rim = fresnel * open_sky * (0.05 + 0.10 * gloss) * (0.7 + 0.3 * up)
    if soft > 0.9:  # peach fuzz: the silhouette of skin is lit from all around
        e0, e1, e2 = e0 + 0.22 * rim * 3.0 * r, e1 + 0.16 * rim * 3.0 * g, e2 + 0.15 * rim * 3.0 * b
    return (
        e0 + light.key_r * lobe + (light.fill_r + 0.2) * rim + behind * (0.9 * r + 0.02),
        e1 + light.key_g * lobe + (light.fill_g + 0.2) * rim + behind * (0.9 * g + 0.02),
        e2 + light.key_b * lobe + (light.fill_b + 0.2) * rim + behind * (0.9 * b + 0.02),
        kind,
    )


def _make_shade(salt: int) -> Any:
    @parallel
    def shade_rays(
        field: Any, bodies: Any, poses: Any, lights: Any, rays: Any, size: int,
        depths: Any, materials: Any, colours: Any, kinds: Any,
    ) -> None:  # fmt: skip
        """Fill `colours` (N, 3), display values, and mask classes `kinds` (N,) of rays that met something."""
        _ = salt  # closed over: see `compile`
        count = rays.shape[0]
        half = (count + 2 * BLOCK - 1) // (2 * BLOCK)
        for k in numba.prange(2 * half):
            block = (k % half) * 2 + k // half
            for n in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
                material, t = materials[n], depths[n]
                kinds[n] = 0
                if material == BACKGROUND:
                    continue
                pose, light = poses[int(rays[n, 0])], lights[0]
                dx, dy, dz = ray(rays[n, 1], rays[n, 2], size, pose)
                r, g, b, kind = shade(
                    t * dx, t * dy, CAMERA_DISTANCE + t * dz, dx, dy, dz, material, t,
                    field, bodies[0], pose, light, rays[n, 3],
                )  # fmt: skip
                e = light.exposure
                colours[n, 0], colours[n, 1], colours[n, 2], kinds[n] = film(r * e), film(g * e), film(b * e), kind

    return shade_rays


shade_rays = _make_shade(sources(__file__))
