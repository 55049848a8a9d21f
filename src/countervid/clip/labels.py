"""What a container and its tracks say of themselves, languages, titles, dates, covers, and what of it stays true."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av.stream import Disposition

# What belongs to the file that was read and is not true of another.
_OF_THE_FILE = frozenset(
    "major_brand minor_version compatible_brands encoder location-eng duration number_of_frames number_of_bytes bps "
    "rotate vendor_id alpha_mode stereo_mode source_id statistics_writing_app".split()
)
_USUAL_HANDLERS = frozenset(("VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler"))
# QuickTime's own list of languages in FFmpeg's spelling; others are lost in .mov.
_QUICKTIME = {"deu": "ger", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb"}
_QUICKTIME |= {
    name: name
    for name in "eng fra ger ita dut sve spa dan por nor heb jpn ara fin gre ice mlt tur chi urd hin tha kor lit pol "
    "hun est lav rus alb ron ces slk slv yid mac bul ukr bel".split()
}
_COVER_KEY = "com.apple.quicktime.artwork"
_COVER_TYPES = {b"\xff\xd8\xff": 13, b"\x89PNG": 14, b"BM": 27}  # QuickTime's well-known types of metadata values


def kept_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Names (lower case) and texts that stay true when the file is written anew."""
    kept = {}
    for name, text in metadata.items():
        name = name.lower()
        plain = name.lstrip("_").removesuffix("-eng")
        of_the_file = name in _OF_THE_FILE or plain in _OF_THE_FILE or plain.startswith("statistics_")
        if not of_the_file and not (name == "software" and text.startswith("Lavf")):
            kept[name] = text
    return kept


def label(source: Any, target: Any, muxer: str) -> list[str]:
    """Give a track the language, title and disposition of the one that it comes from.

    Returns:
        What could not be kept, a few words each.
    """
    kept = kept_metadata(source.metadata)
    if kept.get("handler_name") in _USUAL_HANDLERS:
        del kept["handler_name"]
    if "name" in kept and muxer != "matroska":  # how FFmpeg reads the title of an mp4 track, which it writes as `title`
        kept.setdefault("title", kept["name"])
    if "name" in kept:
        kept.setdefault("title", kept.pop("name"))
    lost = []
    language = kept.get("language", "und")
    if muxer == "mov" and language != "und":
        if language in _QUICKTIME:
            kept["language"] = _QUICKTIME[language]
        else:
            lost.append(f"the language {language}")
    disposition = Disposition(source.disposition) & ~Disposition.attached_pic
    if muxer == "mov" and disposition & ~Disposition.default:
        lost.append(f"the mark {(disposition & ~Disposition.default).name}")
    target.metadata.update(kept)
    target.disposition = int(disposition)
    return lost


def mime_type(image: bytes) -> tuple[str, str]:
    """(type, suffix) of a picture."""
    return ("image/png", "png") if image.startswith(b"\x89PNG") else ("image/jpeg", "jpg")


class Cover:
    """A picture for mp4 and mov, whose muxer has no room for one beside metadata of own names.

    A text of the picture's length is written under QuickTime's name for it, and overwritten in the finished file.
    """

    def __init__(self, image: bytes) -> None:
        self._image = image
        token = secrets.token_hex(16)
        self._place = (token * (len(image) // len(token) + 1))[: len(image)].encode()

    @staticmethod
    def fits(image: bytes) -> bool:
        return len(image) >= 64 and any(image.startswith(magic) for magic in _COVER_TYPES)

    @property
    def metadata(self) -> dict[str, str]:
        return {_COVER_KEY: self._place.decode()}

    def fill(self, path: Path) -> None:
        """Put the picture into the finished file."""
        kind = next(number for magic, number in _COVER_TYPES.items() if self._image.startswith(magic))
        with path.open("r+b") as file:
            head = b""
            while (at := head.find(self._place)) < 0:
                block = file.read(1 << 20)
                if not block:
                    return
                head += block
            file.seek(at - 8)  # before the text: its type and its locale
            file.write(kind.to_bytes(4, "big") + bytes(4) + self._image)
