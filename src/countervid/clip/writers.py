"""Clips to files: H.264 with sound, GIF, folders of pictures. Whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from countervid.clip.audio import AudioCarrier
from countervid.clip.images import SIDECAR, sidecar_text
from countervid.clip.sources import Progress, Source
from countervid.clip.video import SCALING
from countervid.errors import OutputError

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_WINDOW = 16  # frames held while writing

# x264's AVX-512 code gives other bytes from one run to the next; with older instructions the same come each time.
_SAME_BYTES = {"x264-params": "asm=sse4.2"} if platform.machine().lower() in ("x86_64", "amd64") else {}


def write_clip(
    source: Source,
    path: Path,
    *,
    crf: int,
    lossless: bool,
    metadata: Mapping[str, str],
    progress: Progress | None,
) -> None:
    """Write a source to a path; see `Clip.write`."""
    if not 0 <= crf <= 51:
        raise OutputError(f"`crf` must be from 0 (best) to 51, got {crf}.")
    suffix = path.suffix.lower()
    with _mended_errors(path):
        if suffix in CONTAINERS:
            with replacing(path) as partial:
                _write_video(source, partial, CONTAINERS[suffix], crf, lossless, metadata, progress)
        elif suffix == ".gif":
            with replacing(path) as partial:
                _write_gif(source, partial, metadata, progress)
        elif suffix == "":
            _write_folder(source, path, metadata, progress)
        else:
            raise OutputError(
                f"`{path}` cannot be written: `{suffix}` is not known. "
                "Use .mp4, .mov, .mkv, .gif, or no suffix for a folder."
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; becomes `path` when the block ends well, is removed when it does not."""
    if path.is_dir():
        raise OutputError(f"`{path}` is a folder. Give the name of a file.")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _mended_errors(path: Path) -> Iterator[None]:
    """Errors of the disk as one clear line."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:  # PyAV's errors carry the number too
        number = error.errno
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutputError(
                f"`{path}` could not be written: the disk is full. Free some space and repeat."
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"`{path}` may not be written there. Choose another place or its permissions.") from error
        if number in (errno.ENOENT, errno.ENOTDIR):
            raise OutputError(
                f"`{path}` cannot be written: the folder `{path.parent}` does not exist. Make it."
            ) from error
        raise OutputError(f"`{path}` could not be written: {error.strerror or error}.") from error


def _frames(source: Source, progress: Progress | None) -> Iterator[tuple[int, np.ndarray]]:
    total = len(source.stamps)
    for start, window in source.windows(_WINDOW):
        for offset, frame in enumerate(window.numpy()):
            yield start + offset, np.ascontiguousarray(frame)
            if progress is not None:
                progress(start + offset + 1, total)


def _durations(stamps: Sequence[int], rate: Fraction, time_base: Fraction) -> list[int]:
    """How long each frame is shown; the last one as long as a frame lasts on average."""
    gaps = [later - sooner for sooner, later in zip(stamps, stamps[1:], strict=False)]
    return [*gaps, max(1, round(1 / rate / time_base))]


def _write_video(
    source: Source,
    partial: Path,
    container: str,
    crf: int,
    lossless: bool,
    metadata: Mapping[str, str],
    progress: Progress | None,
) -> None:
    even = source.width % 2 == 0 and source.height % 2 == 0
    # 4:2:0 shares one colour among four pixels, so it has no odd sizes; 4:4:4 has.
    layout = "rgb24" if lossless else "yuv420p" if even else "yuv444p"
    # A fixed number of threads: x264's output depends on it, and must not depend on the machine.
    quality = {"preset": "veryfast", "qp": "0"} if lossless else {"preset": "fast", "crf": str(crf)}
    # Own names of metadata survive in mp4 only with this flag; with the index first, browsers can start at once.
    flags = {"movflags": "use_metadata_tags+faststart"} if container in ("mp4", "mov") else {}
    if flags:
        # When each track begins is counted in the movie's own ticks; these hold the stamps exactly.
        scale = math.lcm(source.time_base.denominator, 90_000)
        flags["movie_timescale"] = str(scale if scale < 1 << 31 else 90_000)
    with av.open(f"file:{partial.absolute()}", mode="w", format=container, container_options=flags) as output:
        output.metadata.update(metadata)
        stream = output.add_stream("libx264rgb" if lossless else "libx264", rate=source.rate)
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, layout
        stream.options = {**quality, "threads": "4", **_SAME_BYTES}
        stream.codec_context.time_base = stream.time_base = source.time_base
        if source.aspect is not None:
            stream.codec_context.sample_aspect_ratio = source.aspect
        if not lossless:
            stream.codec_context.color_range = ColorRange.MPEG
            for tag in ("colorspace", "color_primaries", "color_trc"):
                setattr(stream.codec_context, tag, 1)  # BT.709 (ITU-T H.273)
        durations = _durations(source.stamps, source.rate, source.time_base)
        with AudioCarrier.opened(source.audio, output) as sound:
            for index, pixels in _frames(source, progress):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if not lossless:
                    frame = frame.reformat(
                        format=layout,
                        src_color_range=ColorRange.JPEG,
                        dst_colorspace=Colorspace.ITU709,
                        dst_color_range=ColorRange.MPEG,
                        interpolation=SCALING,
                    )
                frame.pts, frame.time_base = source.stamps[index], source.time_base
                frame.duration = durations[index]
                output.mux(stream.encode(frame))
                sound.carry(until=source.stamps[index] * source.time_base)
            output.mux(stream.encode(None))
            sound.carry(until=None)


def _write_gif(source: Source, partial: Path, metadata: Mapping[str, str], progress: Progress | None) -> None:
    hundredths: list[int] = []
    for stamp in source.stamps:
        time = round(stamp * source.time_base * 100)
        hundredths.append(max(time, hundredths[-1] + 1) if hundredths else time)
    durations = _durations(hundredths, source.rate, Fraction(1, 100))
    with av.open(f"file:{partial.absolute()}", mode="w", format="gif") as output:
        stream = output.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, "pal8"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        for index, pixels in _frames(source, progress):
            picture = Image.fromarray(pixels).quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
            colours = np.zeros((256, 4), dtype=np.uint8)
            table = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            colours[: len(table), 1:], colours[:, 0] = table, 255  # ARGB, opaque
            frame = av.VideoFrame(source.width, source.height, "pal8")
            _fill(frame.planes[0], np.asarray(picture))
            frame.planes[1].update(colours[:, ::-1].tobytes())  # native words: B, G, R, A in memory
            frame.pts, frame.time_base, frame.duration = hundredths[index], Fraction(1, 100), durations[index]
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


def _write_folder(source: Source, path: Path, metadata: Mapping[str, str], progress: Progress | None) -> None:
    if path.is_file():
        raise OutputError(
            f"`{path}` is a file. Give another name for the folder of pictures, or a name that ends in .mp4."
        )
    if path.is_dir() and any(path.iterdir()) and not (path / SIDECAR).is_file():
        raise OutputError(f"`{path}` already holds other files. Choose a new folder for the pictures.")
    token = secrets.token_hex(4)
    partial, old = (path.with_name(f".{path.name}.{token}.{kind}") for kind in ("partial", "old"))
    try:
        partial.mkdir()
        digits = max(6, len(str(len(source.stamps))))
        for index, pixels in _frames(source, progress):
            Image.fromarray(pixels).save(partial / f"{index:0{digits}d}.png", compress_level=3)
        times = sidecar_text(source.stamps, source.time_base, source.rate, metadata)
        (partial / SIDECAR).write_text(times, encoding="utf-8")
        if path.is_dir():
            os.replace(path, old)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
