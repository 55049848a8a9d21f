"""Clips to files: H.264 with sound, GIF, folders of pictures. Whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import av
import numpy as np
from PIL import Image
from torch import Tensor

from countervid.clip.encoding import CONTAINERS, write_video
from countervid.clip.gif import write_gif
from countervid.clip.images import SIDECAR, sidecar_text
from countervid.clip.labels import kept_metadata
from countervid.clip.sources import Pictures, Progress, Source
from countervid.errors import OutputError
from countervid.files.whole import replacing, replacing_folder

_WRITTEN_AT_ONCE = 16  # frames held while writing


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
    with writing(source, path, crf=crf, lossless=lossless, metadata=metadata) as add:
        for start, window in source.windows(_WRITTEN_AT_ONCE):
            for offset in range(len(window)):
                add(window[offset : offset + 1])
                if progress is not None:
                    progress(start + offset + 1, len(source.stamps))


@contextmanager
def writing(
    source: Source, path: Path, *, crf: int, lossless: bool, metadata: Mapping[str, str]
) -> Iterator[Callable[[Tensor], None]]:
    """A function that takes the frames of a source, window by window, `(f, H, W, 3)` uint8; see `Clip.writer`."""
    if not 0 <= crf <= 51:
        raise OutputError(f"`crf` must be from 0 (best) to 51, got {crf}.")
    with ExitStack() as stack:
        with _mended_errors(path):
            pictures = _begun(stack, source, path, crf, lossless, metadata)
            next(pictures)
        waiting = len(source.stamps)

        def add(frames: Tensor) -> None:
            nonlocal waiting
            with _mended_errors(path), suppress(StopIteration):  # the last frame ends the file
                for pixels in frames.numpy():
                    waiting -= 1
                    pictures.send(np.ascontiguousarray(pixels))

        yield add
        if waiting:
            raise ValueError(f"`{path}` lacks {waiting} of {len(source.stamps)} frames.")
        with _mended_errors(path):
            stack.close()


def _begun(
    stack: ExitStack, source: Source, path: Path, crf: int, lossless: bool, metadata: Mapping[str, str]
) -> Pictures:
    """The writer of a path's kind. What it leaves is renamed, or removed, when the stack is closed."""
    suffix = path.suffix.lower()
    if suffix in CONTAINERS:
        partial = stack.enter_context(replacing(path))
        pictures = write_video(source, partial, CONTAINERS[suffix], crf, lossless, metadata)
    elif suffix == ".gif":
        pictures = write_gif(source, stack.enter_context(replacing(path)), metadata)
    elif suffix == "":
        pictures = _write_folder(source, path, metadata)
    else:
        raise OutputError(
            f"`{path}` cannot be written: `{suffix}` is not known. "
            "Use .mp4, .mov, .mkv, .gif, or no suffix for a folder."
        )
    stack.callback(pictures.close)  # before the file goes to its place, or away
    return pictures


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


def _write_folder(source: Source, path: Path, metadata: Mapping[str, str]) -> Pictures:
    if path.is_file():
        raise OutputError(
            f"`{path}` is a file. Give another name for the folder of pictures, or a name that ends in .mp4."
        )
    if path.is_dir() and any(path.iterdir()) and not (path / SIDECAR).is_file():
        raise OutputError(f"`{path}` already holds other files. Choose a new folder for the pictures.")
    with replacing_folder(path) as partial:
        digits = max(6, len(str(len(source.stamps))))
        for index in range(len(source.stamps)):
            pixels = yield
            Image.fromarray(pixels).save(partial / f"{index:0{digits}d}.png", compress_level=3)
        times = sidecar_text(source, {**kept_metadata(source.metadata), **metadata})
        (partial / SIDECAR).write_text(times, encoding="utf-8")
