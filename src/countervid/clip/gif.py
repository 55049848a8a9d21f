"""A clip as an animated GIF: 256 colours a frame, times to 1/100 s, no sound."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from countervid.clip.sources import Pictures, Source, durations, rounded


def write_gif(source: Source, partial: Path, metadata: Mapping[str, str]) -> Pictures:
    """Write what is sent in, a frame at a time; finished with the source's last one."""
    hundredths, last = rounded(source, Fraction(1, 100))
    shown_for = durations(hundredths, source.rate, Fraction(1, 100), last)
    options = {"final_delay": str(min(last, 65_535))}  # a word of the format
    with av.open(f"file:{partial.absolute()}", mode="w", format="gif", container_options=options) as output:
        stream = output.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, "pal8"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        for index in range(len(source.stamps)):
            pixels = yield
            picture = Image.fromarray(pixels).quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
            colours = np.zeros((256, 4), dtype=np.uint8)
            table = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            colours[: len(table), 1:], colours[:, 0] = table, 255  # ARGB, opaque
            frame = av.VideoFrame(source.width, source.height, "pal8")
            _fill(frame.planes[0], np.asarray(picture))
            frame.planes[1].update(colours[:, ::-1].tobytes())  # native words: B, G, R, A in memory
            frame.pts, frame.time_base, frame.duration = hundredths[index], Fraction(1, 100), shown_for[index]
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    if metadata:
        _append_gif_comment(partial, json.dumps(dict(metadata), ensure_ascii=True))


def _fill(plane: Any, values: np.ndarray) -> None:
    """Copy `(H, W)` uint8 into a plane whose lines may be padded."""
    padded = np.zeros((values.shape[0], plane.line_size), dtype=np.uint8)
    padded[:, : values.shape[1]] = values
    plane.update(padded.tobytes())


def _append_gif_comment(path: Path, text: str) -> None:
    """Put a comment extension (GIF89a, section 24) before the trailer."""
    data = text.encode("ascii")
    blocks = b"".join(bytes([len(part)]) + part for part in (data[i : i + 255] for i in range(0, len(data), 255)))
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x21\xfe" + blocks + b"\x00\x3b")
