"""Where faces are in a frame.

A detector is anything that turns frames into boxes, scores and five points; `register` adds one, `load` finds it by
name. The one that comes with the package is YuNet (Wu et al., Machine Intelligence Research 2023; MIT licence), run by
OpenCV: a small public network trained on real faces, which finds the rendered ones too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from countervid import models
from countervid.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Detections:
    """The faces of one frame, best first."""

    boxes: npt.NDArray[np.float32]  # (n, 4) left, top, right, bottom; pixels
    scores: npt.NDArray[np.float32]  # (n,) 0..1
    points: npt.NDArray[np.float32]  # (n, 5, 2) eyes, nose tip, mouth corners; left in the picture first; pixels

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds faces, each frame on its own: a frame's result must not depend on the batch."""

    name: str

    def __call__(self, frames: Tensor) -> list[Detections]:
        """Faces of frames `(F, H, W, 3)`, uint8 RGB: one `Detections` a frame."""
        ...


@dataclass(frozen=True, kw_only=True)
class YuNetConfig:
    score: float = 0.6  # a face must reach it; tracking throws out what is seen once only
    overlap: float = 0.3  # boxes that overlap more are one face (intersection over union)
    long_side: int = 640  # larger frames are reduced to this for speed,
    retry_long_side: int = 1600  # and looked at again in this size if nothing was found: small faces in large frames
    most: int = 50  # faces a frame, at most


class YuNet:
    """The bundled detector, on the CPU, deterministic."""

    name = "yunet"

    def __init__(self, model: Path | None = None, config: YuNetConfig | None = None) -> None:
        """
        Args:
            model: The ONNX file, or its folder; the bundled one if None.
        """
        self.config = config or YuNetConfig()
        path = model if model is not None else models.bundled("yunet")
        if path.is_dir():
            files = sorted(path.glob("*.onnx"))
            if not files:
                raise ModelError(f"No .onnx file in {path}. Put the YuNet detector there.")
            path = files[0]
        if not path.is_file():
            raise ModelError(f"The face detector {path} does not exist. Name a YuNet .onnx file.")
        # OpenCV 5 warns on stderr that its new engine has no targets to choose from; nothing was chosen.
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), self.config.score, self.config.overlap, self.config.most
            )
        except cv2.error as error:
            raise ModelError(f"{path} is not a YuNet detector that OpenCV {cv2.__version__} can read.") from error
        finally:
            cv2.utils.logging.setLogLevel(level)

    def __call__(self, frames: Tensor) -> list[Detections]:
        return [self._detect(frame) for frame in frames.cpu().numpy()]

    def _detect(self, frame: npt.NDArray[np.uint8]) -> Detections:
        found = self._detect_at(frame, self.config.long_side)
        if len(found) == 0 and max(frame.shape[:2]) > self.config.long_side:
            found = self._detect_at(frame, self.config.retry_long_side)
        return found

    def _detect_at(self, frame: npt.NDArray[np.uint8], long_side: int) -> Detections:
        height, width = frame.shape[:2]
        scale = min(1.0, long_side / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = frame if scale == 1.0 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        self._network.setInputSize(size)
        _, rows = self._network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        # Row: x, y, width, height, then eyes, nose, mouth corners from the picture's left, then the score.
        rows = np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)
        rows = rows[np.lexsort((rows[:, 0], -rows[:, 14]))]
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        corner, extent = rows[:, 0:2], rows[:, 2:4]
        boxes = np.asarray(np.concatenate([corner, corner + extent], 1) * np.tile(ratio, 2), np.float32)
        return Detections(boxes, rows[:, 14].copy(), rows[:, 4:14].reshape(-1, 5, 2) * ratio)


_DETECTORS: dict[str, Callable[[], Detector]] = {}


def register(name: str, make: Callable[[], Detector]) -> None:
    """Make a detector known under `name`; `make` builds it with its defaults."""
    if name in _DETECTORS:
        raise ConfigError(f"A detector named `{name}` is registered already. Choose another name.")
    _DETECTORS[name] = make


def names() -> tuple[str, ...]:
    """Names that `load` knows."""
    return tuple(sorted(_DETECTORS))


def load(name: str = "yunet") -> Detector:
    """The detector registered as `name`."""
    if name not in _DETECTORS:
        raise ConfigError(f"Unknown face detector `{name}`. Known: {', '.join(names())}.")
    return _DETECTORS[name]()


register("yunet", YuNet)
