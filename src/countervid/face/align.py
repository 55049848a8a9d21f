"""The oriented square around a face, and the crop it cuts out.

The square is the one of the FFHQ data set, or a wider one (`Framing`), smoothed over time as in Diffusion Video
Autoencoders (arXiv:2212.02802): it follows eyes and mouth, so that the face stands still in the crop while head and
camera move. A square ("quad") is `(..., 4, 2)`: upper left, lower left, lower right, upper right; pixels, x then y,
with whole numbers at pixel centres.

`face/reference.py` has the crop and the paste of the published code, kept for its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from countervid.face.smooth import smooth as smooth_over_time

Points = npt.NDArray[np.float64]

SIGMA_CENTRE = 1.0  # frames: the square follows the head's place closely,
SIGMA_AXES = 3.0  # frames: and its size and angle slowly, for they shake most

Squares = tuple[Points, Points]  # centres (F, 2) and half x axes (F, 2)


@dataclass(frozen=True)
class Framing:
    """How much of the head a square holds, in sides of the FFHQ square."""

    scale: float = 1.0  # the square's side
    up: float = 0.0  # how far its centre lies above


FFHQ = Framing()  # what published weights were trained on; it cuts the crown off tall heads
PORTRAIT = Framing(scale=1.15, up=0.05)  # holds hair and hats: what the miniature is trained on


def five_points(landmarks: npt.ArrayLike) -> Points:
    """Eye centres, nose tip, mouth corners `(..., 5, 2)` of 68 landmarks `(..., 68, 2)`; left in the picture first."""
    points = np.asarray(landmarks, dtype=np.float64)
    parts = [points[..., 36:42, :].mean(-2), points[..., 42:48, :].mean(-2)]
    parts += [points[..., 30, :], points[..., 48, :], points[..., 54, :]]
    return np.stack(parts, -2)


def oriented_squares(points: npt.ArrayLike) -> Squares:
    """Centre and half x axis of the FFHQ square, unsmoothed.

    The half y axis is the half x axis turned by 90 degrees, so that the square needs no third vector.

    Args:
        points: 68 landmarks `(F, 68, 2)` or five points `(F, 5, 2)`, pixels.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] not in ((68, 2), (5, 2)):
        raise ValueError(f"`points` must be (F, 68, 2) or (F, 5, 2), got {points.shape}.")
    five = five_points(points) if points.shape[1] == 68 else points
    left, right = five[:, 0], five[:, 1]
    eyes = (left + right) * 0.5
    across, down = right - left, (five[:, 3] + five[:, 4]) * 0.5 - eyes
    x = across - np.stack([-down[:, 1], down[:, 0]], -1)
    half = np.maximum(np.hypot(*across.T) * 2.0, np.hypot(*down.T) * 1.8)
    length = np.hypot(*x.T)
    # A face seen so oddly that both vectors cancel has no direction; it is taken as upright.
    x = np.where(length[:, None] > 1e-9, x, np.array([1.0, 0.0])) / np.maximum(length, 1e-9)[:, None] * half[:, None]
    return eyes + down * 0.1, x


def corners(centre: Points, x: Points) -> Points:
    """Squares `(F, 4, 2)` of centres and half x axes `(F, 2)`."""
    y = np.stack([-x[:, 1], x[:, 0]], -1)
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y], 1)


def quads(landmarks: npt.ArrayLike, smooth: bool = True, framing: Framing = FFHQ) -> Points:
    """The squares to crop, `(F, 4, 2)` float64, of one unbroken run of frames.

    Args:
        landmarks: `(F, 68, 2)` or five points `(F, 5, 2)`, pixels.
        smooth: Steady the square over time. Frames before and after a gap must not be smoothed into each other: call
            it once a run of frames.
        framing: How much of the head the squares hold.
    """
    centre, x = oriented_squares(landmarks)
    if smooth:
        # y is x turned, and smoothing is linear: smoothing x smooths y.
        centre, x = smooth_over_time(centre, SIGMA_CENTRE), smooth_over_time(x, SIGMA_AXES)
    down = np.stack([-x[:, 1], x[:, 0]], -1)
    return corners(centre - 2 * framing.up * down, framing.scale * x)


def side(quads: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Length of the upper edge, pixels, `(F,)`."""
    quads = np.asarray(quads, dtype=np.float64)
    return np.asarray(np.hypot(*(quads[..., 3, :] - quads[..., 0, :]).T), dtype=np.float64)


def to_square(points: npt.ArrayLike, quads: npt.ArrayLike) -> Points:
    """Frame points `(F, N, 2)` as fractions of their squares `(F, 4, 2)`; (0, 0) is the upper left corner, (1, 1) the
    lower right. In a crop of `size` pixels, pixel coordinates are `fraction * size - 0.5`."""
    points, quads = np.asarray(points, dtype=np.float64), np.asarray(quads, dtype=np.float64)
    return np.asarray(np.einsum("fij,fnj->fni", _inverse_axes(quads), points - quads[:, None, 0]), dtype=np.float64)


def from_square(fractions: npt.ArrayLike, quads: npt.ArrayLike) -> Points:
    """Fractions of squares `(F, N, 2)` as frame points in pixels: the inverse of `to_square`."""
    fractions, quads = np.asarray(fractions, dtype=np.float64), np.asarray(quads, dtype=np.float64)
    right, down = quads[:, 3] - quads[:, 0], quads[:, 1] - quads[:, 0]
    place = quads[:, None, 0] + fractions[..., :1] * right[:, None] + fractions[..., 1:] * down[:, None]
    return np.asarray(place, dtype=np.float64)


def _inverse_axes(quads: Points) -> Points:
    """`(F, 2, 2)` matrices from frame offsets to fractions of the square."""
    skew = np.abs(quads[:, 0] + quads[:, 2] - quads[:, 1] - quads[:, 3]).max(initial=0.0)
    if skew > 1e-6 * max(1.0, float(np.abs(quads).max(initial=0.0))):
        raise ValueError(f"`quads` must be parallelograms (corners 0 + 2 = 1 + 3); off by {skew:.3g} px.")
    return np.asarray(np.linalg.inv(np.stack([quads[:, 3] - quads[:, 0], quads[:, 1] - quads[:, 0]], -1)))


@dataclass(frozen=True)
class Part:
    """Where a piece of a frame lies in it, pixels."""

    left: int
    top: int
    right: int  # the first column and row that are not of the piece
    bottom: int
    height: int  # of the whole frame
    width: int

    def holds(self, other: Part) -> bool:
        """Whether another piece lies within this one."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )


def footprint(quad: npt.ArrayLike, size: int, height: int, width: int, room: float = 0.0) -> Part:
    """The piece of a frame that `crop` reads for a square `(4, 2)`.

    Args:
        quad: Pixels.
        size: Side of the crop, pixels.
        height, width: Of the frame.
        room: How far the square may still move or grow, in sides of it.
    """
    corner = np.asarray(quad, dtype=np.float64)
    longest = float(np.hypot(*(corner - np.roll(corner, 1, 0)).T).max())
    # Bilinear sampling reads the next pixel; blocks are whole ones and one more on each side.
    margin = 2 + room * longest + 2 * 2.0 ** max(np.floor(np.log2(max((1 + room) * longest / size, 1e-9))) - 1, 0)
    low, high = np.floor(corner.min(0) - margin), np.ceil(corner.max(0) + margin)
    reached = [
        _mirror(torch.arange(int(low[axis]), int(high[axis]) + 1), length) for axis, length in ((0, width), (1, height))
    ]
    left, top, right, bottom = (int(f(axis)) for f in (torch.min, torch.max) for axis in reached)
    return Part(left, top, right + 1, bottom + 1, height, width)


def crop(frames: Tensor, quads: npt.ArrayLike, size: int, part: Part | None = None) -> Tensor:
    """The squares cut out of their frames, all frames at once.

    Antialiased: where the square is larger than the crop, each output pixel is the mean of a grid of bilinear samples
    at most 1.25 pixels apart over its footprint, from a frame first reduced by whole blocks if the square is at least
    four times the crop. Outside the frame the picture is mirrored. A frame's crop does not depend on other frames.

    Args:
        frames: `(F, H, W, C)`, uint8 0..255 or floating point.
        quads: `(F, 4, 2)` pixels; any quadrilateral.
        size: Side of the crop, pixels.
        part: Where in their frames the given pieces lie, if `frames` are pieces; they must hold the `footprint`.

    Returns:
        `(F, size, size, C)`, of the frames' dtype (uint8 is rounded).
    """
    corner = np.asarray(quads, dtype=np.float64)
    if frames.ndim != 4 or corner.shape != (len(frames), 4, 2):
        got = f"{tuple(frames.shape)} and {corner.shape}"
        raise ValueError(f"`frames` must be (F, H, W, C) and `quads` (F, 4, 2), got {got}.")
    edges = [np.hypot(*(corner[:, a] - corner[:, b]).T) for a, b in ((3, 0), (2, 1), (1, 0), (2, 3))]
    ratio = np.maximum(np.max(edges, axis=0) / size, 1e-9)
    # One group for each density of sampling: a frame is then sampled the same in whatever batch it comes.
    block = 2 ** np.maximum(np.floor(np.log2(ratio)) - 1, 0).astype(int)
    samples = np.ceil(ratio / block / 1.25).astype(int)
    result = torch.empty((len(frames), size, size, frames.shape[-1]), dtype=frames.dtype, device=frames.device)
    for pair in sorted(set(zip(block.tolist(), samples.tolist(), strict=True))):
        chosen = np.flatnonzero((block == pair[0]) & (samples == pair[1]))
        # Large squares one at a time: their blocks are read from the square's surroundings, not from whole frames.
        for rows in [chosen] if pair[0] == 1 else chosen[:, None]:
            start, stop = int(rows[0]), int(rows[-1]) + 1
            group = frames[start:stop] if stop - start == len(rows) else frames[torch.from_numpy(rows)]
            place, within = corner[rows], part
            if pair[0] > 1:
                group, place = _reduce(group, place, pair[0], part)
                within = None
            value = _sample_grid(group, torch.from_numpy(place).to(frames.device), size, pair[1], within)
            value = value.round_().clamp_(0, 255) if frames.dtype == torch.uint8 else value
            result[torch.from_numpy(rows)] = value.to(frames.dtype)
    return result


def _reduce(frame: Tensor, corner: Points, block: int, part: Part | None) -> tuple[Tensor, Points]:
    """The surroundings of one square in blocks averaged, counted from the frame's corner, and the square in them."""
    low = np.floor((corner[0].min(0) + 0.5) / block).astype(int) - 1
    high = np.ceil((corner[0].max(0) + 0.5) / block).astype(int) + 1
    columns, rows = (torch.arange(int(low[i]) * block, int(high[i]) * block, device=frame.device) for i in (0, 1))
    part = part or Part(0, 0, frame.shape[2], frame.shape[1], frame.shape[1], frame.shape[2])
    rows, columns = _mirror(rows, part.height) - part.top, _mirror(columns, part.width) - part.left
    region = frame[0].index_select(0, rows).index_select(1, columns)
    reduced = region[::block].to(_working(frame))
    for row in range(1, block):
        reduced += region[row::block]
    reduced = torch.stack([reduced[:, column::block] for column in range(block)]).sum(0) / block**2
    return reduced[None], (corner + 0.5) / block - 0.5 - low


def _sample_grid(frames: Tensor, corner: Tensor, size: int, count: int, part: Part | None) -> Tensor:
    total = torch.zeros((len(frames), size, size, frames.shape[-1]), dtype=_working(frames), device=frames.device)
    cell = torch.arange(size, dtype=torch.float64, device=frames.device)
    for row in range(count):
        for column in range(count):
            u, v = (cell + (column + 0.5) / count) / size, (cell + (row + 0.5) / count) / size
            total += bilinear(frames, patch(corner, u[None, :, None], v[:, None, None]), part)
    return total / count**2


def patch(corner: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Points of quadrilaterals `(F, 4, 2)` at fractions `u`, `v` (broadcasting to `(h, w, 1)`): `(F, h, w, 2)`."""
    upper_left, lower_left, lower_right, upper_right = corner[:, None, None].unbind(3)
    across, down = upper_right - upper_left, lower_left - upper_left
    return upper_left + across * u + down * v + (lower_right - lower_left - upper_right + upper_left) * (u * v)


def bilinear(frames: Tensor, place: Tensor, part: Part | None = None) -> Tensor:
    """Frames `(F, H, W, C)`, or pieces of them, at `place` `(F, h, w, 2)`, pixels (x, y) of the frame, mirrored
    outside: `(F, h, w, C)` float."""
    count, height, width, channels = frames.shape
    base = place.floor()
    weight = (place - base).to(_working(frames))
    base = base.to(torch.int64)
    whole = part or Part(0, 0, width, height, height, width)
    x0, x1 = (_mirror(base[..., 0] + step, whole.width) - whole.left for step in (0, 1))
    y0, y1 = (_mirror(base[..., 1] + step, whole.height) - whole.top for step in (0, 1))
    flat = frames.reshape(-1, channels)
    first = torch.arange(count, device=frames.device)[:, None, None] * (height * width)

    def at(y: Tensor, x: Tensor) -> Tensor:
        return flat.index_select(0, (first + y * width + x).reshape(-1)).reshape(*x.shape, channels).to(weight.dtype)

    wx, wy = weight[..., :1], weight[..., 1:]
    upper, lower = torch.lerp(at(y0, x0), at(y0, x1), wx), torch.lerp(at(y1, x0), at(y1, x1), wx)
    return torch.lerp(upper, lower, wy)


def _mirror(index: Tensor, length: int) -> Tensor:
    folded = index % (2 * length)
    return torch.minimum(folded, 2 * length - 1 - folded)


def _working(frames: Tensor) -> torch.dtype:
    return frames.dtype if frames.dtype in (torch.float32, torch.float64) else torch.float32
