"""Edited frames in a file's own coding: its samples where the RGB is what was read, changed ones where it is not."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange

from countervid.clip.colour import Colour, LightLevels, plane, tables
from countervid.clip.sources import DerivedSource, Source
from countervid.clip.video import Upright, VideoSource

_HELD_BYTES = 512 << 20  # decoded frames that wait for their edit; of those that are further ahead none is kept
_HELD_FRAMES = 8  # that many always
# Fixed numbers of threads: what x265 writes depends on them. It would also write what processor it ran on. Its AVX2 and
# AVX-512 code writes outside of its memory (seen with small pictures); with older instructions it does not.
_OLDER = ["asm=sse4.2"] if platform.machine().lower() in ("x86_64", "amd64") else []
_X265 = ["log-level=error", "info=0", "frame-threads=2", "pools=4", *_OLDER]
_SHORT = 2  # frames; x265 gives no decoding times to fewer than its B-frames need


def native_of(source: Source) -> VideoSource | None:
    """The video file in whose coding a source can be written: one of the same size, of whose frames these are made.

    None where there is none, or where its coding is that of SDR BT.709.
    """
    size = (source.height, source.width)
    while isinstance(source, DerivedSource):
        source = source.base
        if (source.height, source.width) != size:
            return None
    return source if isinstance(source, VideoSource) and source.coded is not None and source.coded.kept else None


class NativeFrames:
    """Takes edited frames in order, and gives them in the coding of the file that they were made from.

    Every pass over the file leaves its frames here as it decodes them, so that nothing is decoded for this alone. What
    was not left (frames of earlier passes, of windows that are too large to be held) is decoded once more.
    """

    def __init__(self, source: VideoSource) -> None:
        assert source.coded is not None
        self._source, self._coded = source, source.coded
        self._held: dict[int, tuple[Any, np.ndarray]] = {}
        self._next = 0
        size = self._coded.height * self._coded.width * (3 + 3 * (1 + self._coded.deep))
        self._most = max(_HELD_FRAMES, _HELD_BYTES // size)
        self._again: Iterator[tuple[int, Any]] = iter(())
        self._again_at = -1  # number of the next of these frames; -1: there is none

    def __enter__(self) -> NativeFrames:
        self._source.listeners.append(self._offer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.listeners.remove(self._offer)
        self._held.clear()

    def _offer(self, number: int, frame: Any, pixels: np.ndarray) -> None:
        if self._next <= number < self._next + self._most and number not in self._held:
            self._held[number] = frame, pixels.copy()  # whoever gets the window may write into it

    def _take(self, number: int) -> tuple[Any, np.ndarray]:
        """A decoded frame, and what was read of it, `(H, W, 3)` uint8 as stored."""
        self._next = number + 1
        for old in [held for held in list(self._held) if held < number]:
            del self._held[old]
        if number in self._held:
            frame, pixels = self._held.pop(number)
            return frame, self._source.upright.undo(pixels)
        if not 0 <= self._again_at <= number:
            self._again = self._source.decoded(number)
        for found, frame in self._again:
            self._again_at = found + 1
            if found == number:
                return frame, self._source.reader.read(frame)
        raise AssertionError(number)  # a file that ends early is refused before

    def edited(self, number: int, pixels: np.ndarray) -> Any:
        """The frame to encode.

        Args:
            number: Of the frame; they ascend from call to call.
            pixels: `(H, W, 3)` uint8, edited, as shown.
        """
        from countervid.clip.kernels import put_edit  # numba, where it is needed

        frame, seen = self._take(number)
        coded = self._coded
        bits, full = coded.bits, coded.colour.full
        result = av.VideoFrame(coded.width, coded.height, coded.layout)
        planes = [plane(result, index) for index in range(3)]
        colour = Colour.of(frame)._replace(peak=coded.colour.peak)
        if frame.format.name == coded.layout and colour == coded.colour:
            for index, samples in enumerate(planes):
                samples[...] = plane(frame, index)
        else:  # a file that changes its coding: all of the frame counts as edited, from black
            seen = np.zeros_like(seen)
            planes[0][...] = 0 if full else 16 << (bits - 8)
            planes[1][...] = planes[2][...] = 1 << (bits - 1)
        most = (1 << bits) - 1
        scales = np.array((most, most) if full else (219 << (bits - 8), 224 << (bits - 8)), np.float32)
        edit = self._source.upright.undo(pixels)
        put_edit(seen, edit, tables(coded.colour), *planes, float(most), scales)
        return result

    @property
    def aspect(self) -> Any:
        """Of a pixel as stored; None for square ones."""
        aspect, turned = self._source.aspect, self._source.upright.transpose
        return 1 / aspect if aspect is not None and turned else aspect

    def add_stream(self, output: Any, crf: int, count: int) -> Any:
        """Add the stream of pictures to an output: the file's coding, its tags, and how it is turned to be shown.

        Args:
            output: The container to write.
            crf: Quality, 0 (best) to 51.
            count: How many frames will come.
        """
        coded = self._coded
        stream = output.add_stream("libx265" if coded.deep else "libx264", rate=self._source.rate)
        stream.width, stream.height, stream.pix_fmt = coded.width, coded.height, coded.layout
        stream.options = {"preset": "fast", "crf": str(crf)}
        context = stream.codec_context
        if coded.deep:
            parameters = [*_X265, *(["bframes=0"] if count <= _SHORT else []), *_light_parameters(coded.light)]
            stream.options |= {"x265-params": ":".join(parameters)}
            if output.format.name != "matroska":
                context.codec_tag = "hvc1"  # the one that Apple's players take
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = coded.tags
        if coded.colour.full:
            context.color_range = ColorRange.JPEG
        if self._source.upright != Upright():
            stream.set_display_matrix(self._source.upright.matrix())
        return stream


def _light_parameters(light: LightLevels) -> list[str]:
    parameters = ["hdr10=1"] if light.mastering or light.max_cll else []
    if light.mastering:
        parameters.append(f"master-display={light.mastering}")
    if light.max_cll:
        parameters.append(f"max-cll={light.max_cll},{light.max_fall}")
    return parameters
