"""Fixtures that many tests share: tiny clips, as tensors and as real files."""

from __future__ import annotations

import os
import sys

# One thread a process, before torch and numba look: the suite runs a process on every core, and threads that wait spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.clip import Clip


def moving_picture(frames: int, height: int, width: int) -> Tensor:
    """A smooth gradient with a bright square that moves: `(F, H, W, 3)` uint8, different in every frame."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    pictures = []
    for index in range(frames):
        phase = index / max(frames, 2)
        square = torch.exp(-(((x - 0.2 - 0.5 * phase) / 0.2) ** 4) - ((y - 0.5) / 0.3) ** 4)  # soft: 4:2:0 blurs edges
        colours = torch.stack([x, y, 0.5 + 0.5 * torch.cos(6.28 * (x + phase))], dim=-1)
        pictures.append(torch.lerp(0.15 + 0.6 * colours, torch.tensor([0.9, 0.8, 0.2]), square[..., None]))
    return (torch.stack(pictures) * 255).round().to(torch.uint8)


@pytest.fixture(scope="session")
def tiny_frames() -> Tensor:
    """12 frames of 48 x 64, `(F, H, W, 3)` uint8."""
    return moving_picture(12, 48, 64)


@pytest.fixture
def tiny_clip(tiny_frames: Tensor) -> Clip:
    """The same as a clip in memory, 25 fps."""
    return Clip.from_frames(tiny_frames, 25)


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A maker of real video files: `make_video(frames, name, codec=..., pix_fmt=..., audio=...) -> Path`."""

    def make(
        frames: Tensor,
        name: str = "clip.mp4",
        *,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        stamps: list[int] | None = None,
        time_base: Fraction = Fraction(1, 25),
        audio: str | None = None,
        audio_delay: float = 0.0,
        rotation: int = 0,
        flip: bool = False,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path_factory.mktemp("video") / name
        stamps = list(range(len(frames))) if stamps is None else stamps
        with av.open(str(path), "w", container_options=container_options or {}) as output:
            stream = output.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
            stream.options = options or ({"crf": "10"} if codec == "libx264" else {})
            stream.codec_context.time_base = time_base
            if rotation or flip:
                stream.set_display_rotation(rotation, hflip=flip)
            sound = output.add_stream(audio, rate=48_000, layout="mono") if audio else None
            for stamp, pixels in zip(stamps, frames.numpy(), strict=True):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = stamp, time_base
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if sound is not None:
                seconds = float(stamps[-1] * time_base) + 0.04
                tone = np.sin(np.arange(int(48_000 * seconds)) * 0.05).astype(np.float32) * 0.5
                wave = av.AudioFrame.from_ndarray((tone[None] * 32767).astype(np.int16), format="s16", layout="mono")
                wave.sample_rate, wave.pts, wave.time_base = 48_000, round(audio_delay * 48_000), Fraction(1, 48_000)
                output.mux(sound.encode(wave))
                output.mux(sound.encode(None))
        return path

    return make


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    """`seeded(n)`: a generator of its own, so that no test touches the global seed."""
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key, no address and no proxy of this machine, and no keychain either."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    # Reading the machine's certificates takes longer than a test.
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(sys.modules, "keyring", None)  # as if not installed
