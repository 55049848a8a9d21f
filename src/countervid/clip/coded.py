"""How the frames of a video file are coded, and whether results can be coded the same way."""

from __future__ import annotations

from typing import Any, NamedTuple

from countervid.clip.colour import Colour, LightLevels, light_of

_DEEP = {f"yuv{chroma}p{bits}le": bits for chroma in (420, 422, 444) for bits in (10, 12)}
_SHALLOW = {f"yuv{j}{chroma}p": 8 for chroma in (420, 422, 444) for j in ("", "j")}
_WIDE = (9, 11, 12)  # primaries of BT.2020, DCI-P3 and Display P3
_UNSAID = 2  # of H.273's code points: unspecified
_LEAST = 16  # pixels of a side; x265 takes none that are shorter


class Coded(NamedTuple):
    """The coding of a file, as its first frame tells it."""

    layout: str  # FFmpeg's name of the pixel format
    bits: int
    height: int  # as stored
    width: int
    colour: Colour
    tags: tuple[int, int, int, int]  # matrix, primaries, transfer and range as written in the file, 2 and 0: not said
    light: LightLevels

    @staticmethod
    def of(frame: Any) -> Coded:
        """The coding of a decoded frame."""
        colour, matrix = Colour.of(frame), int(frame.colorspace)
        if matrix != _UNSAID:
            matrix = colour.matrix  # what is written of it may be what it cannot be
        return Coded(
            layout=frame.format.name,
            bits=max(component.bits for component in frame.format.components),
            height=frame.height,
            width=frame.width,
            colour=colour,
            tags=(matrix, int(frame.color_primaries), int(frame.color_trc), int(frame.color_range)),
            light=light_of(frame),
        )

    @property
    def deep(self) -> bool:
        """Whether samples have more than 8 bits."""
        return self.bits > 8

    @property
    def kept(self) -> bool:
        """Whether results are written in this coding, and not as SDR BT.709 of 8 bits.

        It must be more than that, there must be an encoder for it, and a way back from RGB to its samples.
        """
        wide = self.layout in _SHALLOW and (self.colour.hdr or self.colour.primaries in _WIDE)
        odd = ("420" in self.layout and self.height % 2) or ("444" not in self.layout and self.width % 2)
        large = min(self.height, self.width) >= _LEAST
        return (self.layout in _DEEP or wide) and self.colour.invertible and large and not odd

    @property
    def note(self) -> str | None:
        """What a run says of how results are written; None where they are coded as nearly every video is."""
        if self.kept:
            return (
                f"mp4, mov and mkv files of the same size are written in the file's own colour and {self.bits} bits "
                f"({'HEVC' if self.deep else 'H.264'}): samples that an edit does not change go to the encoder as they "
                "were decoded. Comparisons, GIF files, folders and lossless files are SDR BT.709 of 8 bits."
            )
        if self.deep or not self.colour.plain:
            return "Results are written as SDR BT.709 of 8 bits."
        return None
