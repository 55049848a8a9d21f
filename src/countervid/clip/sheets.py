"""Sample sheets: rows of pictures with a caption, as one PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from countervid.files.whole import replacing

CAPTION = 18  # pixels above each row


def write_rows(path: Path, rows: Mapping[str, Tensor]) -> None:
    """Write one row of pictures for each caption.

    Args:
        path: A PNG, written whole.
        rows: caption -> `(n, 3, S, S)` in [-1, 1].
    """
    count, _, _, size = next(iter(rows.values())).shape
    canvas = Image.new("RGB", (count * size, len(rows) * (size + CAPTION)), "white")
    pen = ImageDraw.Draw(canvas)
    for place, (caption, pictures) in enumerate(rows.items()):
        top = place * (size + CAPTION)
        pen.text((4, top + 3), caption, fill="black")
        levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        strip = torch.cat(list(levels.permute(0, 2, 3, 1)), dim=1)
        canvas.paste(Image.fromarray(strip.contiguous().numpy()), (0, top + CAPTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        canvas.save(partial, "PNG")
