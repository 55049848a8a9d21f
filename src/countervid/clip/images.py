"""Folders of pictures as clips."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from countervid.clip.colour import over_black
from countervid.clip.sources import MAX_FRAMES, MAX_PIXELS, Source, Tracks, digest_of_files
from countervid.errors import ClipError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SIDECAR = "clip.json"  # times and metadata, beside the pictures that `Clip.write` wrote
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Pictures of one size, one a frame."""

    files: Sequence[Path]
    height: int
    width: int
    stamps: Sequence[int]
    time_base: Fraction
    rate: Fraction
    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    tracks: Tracks | None = None
    aspect: Fraction | None = None
    last: int | None = None
    notes: Sequence[str] = ()

    @staticmethod
    def probe(folder: Path, fps: float | None) -> FolderSource:
        """Look at a folder: names in natural order, every header read, no pixels decoded.

        Raises:
            ClipError: No pictures, pictures of different sizes, or one that is not a picture.
        """
        try:
            files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
        except OSError as error:
            raise ClipError(f"`{folder}` cannot be listed: {error.strerror}.") from error
        if not files:
            raise ClipError(f"`{folder}` holds no pictures. Give a folder of PNG, JPEG or WebP files, or a video file.")
        return FolderSource.probe_files(sorted(files, key=natural_key), fps, folder)

    @staticmethod
    def probe_files(files: Sequence[Path], fps: float | None, folder: Path | None = None) -> FolderSource:
        """The same for pictures that are already listed and sorted."""
        if len(files) > MAX_FRAMES:
            raise ClipError(f"`{folder}` holds {len(files)} pictures; at most {MAX_FRAMES} make a clip. Split it.")
        width, height = size_of(files[0])
        for file in files[1:]:
            if (other := size_of(file)) != (width, height):
                raise ClipError(
                    f"The pictures differ in size: `{files[0]}` is {width} x {height}, `{file}` is "
                    f"{other[0]} x {other[1]}. Bring them to one size."
                )
        if fps is not None and not 0 < fps < 10_000:
            raise ClipError(f"`fps` must be above 0 and below 10000, got {fps}.")
        rate = Fraction(fps or 25).limit_denominator(1001)
        stamps: Sequence[int] = range(len(files))
        time_base = 1 / rate
        metadata: dict[str, str] = {}
        last: int | None = None
        if folder is not None and fps is None and (folder / SIDECAR).is_file():
            stamps, time_base, rate, metadata, last = _read_sidecar(folder / SIDECAR, len(files))
        return FolderSource(files, height, width, stamps, time_base, rate, folder or files[0], metadata, last=last)

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        for first in range(start, len(self.files), size):
            yield first, torch.stack([self._decode(file) for file in self.files[first : first + size]])

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        return torch.stack([self._decode(self.files[index]) for index in indices])

    def _decode(self, file: Path) -> Tensor:
        try:
            with Image.open(file) as image:
                pixels = pixels_of(ImageOps.exif_transpose(image) if is_turnable(image) else image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ClipError(f"`{file}` is damaged or cut off and cannot be decoded. Replace it.") from error
        if pixels.shape != (self.height, self.width, 3):
            raise ClipError(f"`{file}` changed its size while it was being read.")
        return torch.from_numpy(pixels)

    def digest(self) -> str:
        sidecar = self.path / SIDECAR
        return digest_of_files([*self.files, *([sidecar] if sidecar.is_file() else [])])


def sidecar_text(source: Source, metadata: Mapping[str, str]) -> str:
    """What `clip.json` says: exact rational times, so that a folder written and read keeps them."""
    content = {
        "time_base": str(source.time_base),
        "rate": str(source.rate),
        "stamps": list(source.stamps),
        "last": source.last,  # ticks that the last picture is shown; null: as long as pictures last on average
        "metadata": dict(metadata),
    }
    return json.dumps(content, indent=1)


def _read_sidecar(path: Path, count: int) -> tuple[list[int], Fraction, Fraction, dict[str, str], int | None]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stamps = [int(stamp) for stamp in content["stamps"]]
        time_base, rate = Fraction(content["time_base"]), Fraction(content["rate"])
        metadata = {str(name): str(text) for name, text in content["metadata"].items()}
        last = None if content.get("last") is None else int(content["last"])  # older folders do not say
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ClipError(f"`{path}` is not readable as the times of this folder. Mend or remove it.") from error
    increasing = all(a < b for a, b in zip(stamps, stamps[1:], strict=False))
    if len(stamps) != count or not increasing or time_base <= 0 or rate <= 0 or (last is not None and last <= 0):
        raise ClipError(f"`{path}` holds {len(stamps)} increasing times for {count} pictures. Mend or remove it.")
    return stamps, time_base, rate, metadata, last


def natural_key(path: Path) -> tuple[object, ...]:
    """Sort key that puts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", path.stem.lower())
    return (*((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts), path.name)


def size_of(file: Path) -> tuple[int, int]:
    """Width and height as shown, from the header alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(file) as image:
                width, height = image.size
                turned = is_turnable(image) and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Image.DecompressionBombError as error:
        raise ClipError(f"`{file}` is too large; at most {MAX_PIXELS} pixels are read. Scale it down.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ClipError(f"`{file}` is not a picture that can be read. Replace or remove it.") from error
    if width * height > MAX_PIXELS:
        raise ClipError(f"`{file}` is {width} x {height}; at most {MAX_PIXELS} pixels are read. Scale it down.")
    return (height, width) if turned else (width, height)


def is_turnable(image: Image.Image) -> bool:
    """Whether an orientation mark counts. Not in PNG: there it may stand behind the pixels, and is hardly used."""
    return image.format in ("JPEG", "MPO", "WEBP")


def pixels_of(image: Image.Image) -> np.ndarray:
    """Any picture as `(H, W, 3)` uint8; 16 bits keep their upper eight, transparency is laid over black."""
    if image.mode.startswith("I"):  # grey of 16 bits
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return over_black(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))
