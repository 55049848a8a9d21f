"""Video files opened through PyAV, and nothing but the file that was named: no other file, no address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from countervid.clip.sources import MAX_PIXELS
from countervid.errors import ClipError

# Demuxers that fetch other files or addresses, read devices, or turn any text into a picture.
_REFUSED_FORMATS = frozenset(
    "adf alsa applehttp asf_o ass bin concat dash fbdev ffmetadata hls idf image2 image2pipe imf kmsgrab lavfi oss "
    "rtp rtsp sap sdp srt tty txd video4linux2,v4l2 webm_dash_manifest webvtt x11grab xbin".split()
)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A container of a local file, or a `ClipError` that says why not, also for errors while it is read."""
    try:
        formats = ",".join(sorted(av.formats_available - _REFUSED_FORMATS))
        # `file:` and the whitelists: neither a name nor the file's content may lead to another file or to the network.
        limits = {"protocol_whitelist": "file", "format_whitelist": formats}
        limits["scan_all_pmts"] = "1"  # MPEG-TS: tracks that only a later part of the file has are known from the start
        with av.open(
            f"file:{path.resolve()}", mode="r", container_options=limits, metadata_errors="replace"
        ) as container:
            yield container
    except PermissionError as error:
        raise ClipError(f"`{path}` may not be read. Change its permissions.") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        if path.is_file() and path.stat().st_size == 0:
            raise ClipError(f"`{path}` is empty (0 bytes). Get the file again.") from error
        raise ClipError(
            f"`{path}` is not a video that can be read: no known format, or cut off, or damaged. "
            "Check that it plays, or get it again."
        ) from error


def video_stream(container: Any, path: Path) -> Any:
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        kind = "sound but no video" if container.streams.audio else "no video"
        raise ClipError(f"`{path}` holds {kind}. Give a file with pictures in it.")
    stream = streams[0]
    if stream.codec_context is None:
        raise ClipError(f"`{path}` is coded in a way that this build of FFmpeg cannot decode. Convert it to H.264.")
    if stream.width * stream.height > MAX_PIXELS:
        raise ClipError(
            f"`{path}` has frames of {stream.width} x {stream.height}; at most {MAX_PIXELS} pixels are read. "
            "Scale it down."
        )
    return stream
