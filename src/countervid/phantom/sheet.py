"""Contact sheets: people in rows, the same moment under each intervention in columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from countervid.errors import OutputError
from countervid.files.whole import replacing
from countervid.phantom.render import render
from countervid.phantom.world import Attributes, Person, sample_person

INTERVENTIONS: tuple[dict[str, str], ...] = (
    {"age": "other"},
    {"gender": "other"},
    {"beard": "other"},
    {"bald": "other"},
    {"moustache": "other"},
    {"glasses": "other"},
    {"smiling": "other"},
    {"lipstick": "other"},
    {"hat": "other"},
    {"hair_colour": "red"},
)
"""Columns of the default sheet; "other" is the value that the person does not have."""

INK, PAPER, QUIET = (28, 30, 34), (250, 249, 246), (120, 124, 130)


def other_value(person: Person, do: Mapping[str, str]) -> Attributes:
    """`do` with each "other" replaced by the binary value that the person does not have."""
    return {
        name: next(v for v in person.graph.variables[name].values if v != person.attributes[name])
        if value == "other"
        else value
        for name, value in do.items()
    }


def write_sheet(
    out: Path,
    seeds: Sequence[int],
    interventions: Sequence[Mapping[str, str]] = INTERVENTIONS,
    size: int = 256,
    second: float = 4.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw people x interventions into one picture, the factual first; `second` says which moment of take 0: by
    default one when nothing can be passing before the face.

    Raises:
        OutputError: The picture cannot be written there.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"`{out.name}` should end in .png or .jpg.")
    unit = max(10, size // 16)
    gap, caption, margin = max(2, size // 32), 2 * unit, unit
    small, large = _font(unit * 0.86), _font(unit * 1.05)
    columns, rows = 1 + len(interventions), len(seeds)
    width = 2 * margin + columns * (size + gap) - gap
    height = 2 * margin + rows * (size + caption + gap) - gap
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, seed in enumerate(seeds):
        person = sample_person(seed)
        worlds: list[tuple[str, Attributes]] = [(_describe(person), person.attributes)]
        for do in interventions:
            truth = person.counterfactual(other_value(person, do))
            follows = [c.variable.replace("_", " ") for c in truth.changes if c.variable not in truth.do]
            label = ", ".join(f"{name.replace('_', ' ')} = {value}" for name, value in truth.do.items())
            worlds.append((label + (f"  → {', '.join(follows)}" if follows else ""), truth.attributes))
        for column, (label, attributes) in enumerate(worlds):
            x = margin + column * (size + gap)
            y = margin + row * (size + caption + gap)
            motion = person.motion_at(0, np.array([second]), attributes)
            picture = render(person.look(attributes), person.scene(0), motion, size).frames[0]
            sheet.paste(Image.fromarray(np.asarray(picture)), (x, y))
            font, ink = (large, INK) if column == 0 else (small, INK)
            draw.text((x, y + size + unit // 4), _fit(draw, label, font, size), fill=ink, font=font)
            if progress is not None:
                progress(row * columns + column + 1, rows * columns)
    kind = "PNG" if out.suffix.lower() == ".png" else "JPEG"
    try:
        with replacing(out) as partial:
            sheet.save(partial, kind)
    except OSError as error:
        raise OutputError(f"`{out}` cannot be written ({error.strerror or error}). Choose another place.") from error
    return out


def _describe(person: Person) -> str:
    return f"{person.attributes['gender']}, {person.years:.0f}"


def _font(px: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), round(px))  # comes with matplotlib


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text.rstrip(" ,→") + "…"
