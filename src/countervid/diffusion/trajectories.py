"""Which cells of a clip's latents show the same point: flow, followed from frame to frame (FLATTEN, arXiv:2310.05922).

Trajectories partition a clip: every cell of every frame is in exactly one. So attention along them needs no mask: cells
are grouped by the length of their trajectory, and each group is one batch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def displacements(flow: Tensor, rows: int, columns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A flow `(F - 1, H, W, 2)` in whole cells of a grid, `(F - 1, rows, columns, 2)`, and what rounding took off.

    Each cell moves as its upper left pixel does; halves are rounded to even.
    """
    _, height, width, _ = flow.shape
    at = flow[:, torch.arange(rows) * height // rows][:, :, torch.arange(columns) * width // columns].double().numpy()
    moved = at * np.array([columns / width, rows / height])
    whole = np.rint(moved).astype(np.int64)
    return whole, np.linalg.norm(moved - whole, axis=-1)


def successors(moves: NDArray[np.int64], error: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """The cell of the next frame that each cell goes on in, `(F - 1, rows * columns)`; -1 where it ends.

    Of several that reach one cell, that of the smallest rounding `error` goes on, the first of equal ones.
    Deviation: the published code draws one without a seed.
    """
    steps, rows, columns, _ = moves.shape
    y, x = np.mgrid[0:rows, 0:columns]
    x, y = x + moves[..., 0], y + moves[..., 1]
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    reached = np.where(inside, y * columns + x, -1).reshape(steps, -1)
    best = np.zeros(reached.shape) if error is None else error.reshape(steps, -1)
    result = np.full_like(reached, -1)
    for t in range(steps):  # a frame's winners do not depend on another's, but memory is bounded so
        going = np.flatnonzero(reached[t] >= 0)
        order = going[np.lexsort((going, best[t, going]))]
        _, first = np.unique(reached[t, order], return_index=True)
        kept = order[first]
        result[t, kept] = reached[t, kept]
    return result


def trajectories(following: NDArray[np.int64]) -> Tensor:
    """Numbers of the trajectories of all cells, int64 `(F, cells)`, counted by their first cell, frame by frame."""
    steps, cells = following.shape
    ids = np.empty((steps + 1, cells), np.int64)
    ids[0], count = np.arange(cells), cells
    for t in range(steps):
        ids[t + 1] = -1
        going = following[t] >= 0
        ids[t + 1, following[t, going]] = ids[t, going]
        new = np.flatnonzero(ids[t + 1] < 0)
        ids[t + 1, new] = count + np.arange(len(new))
        count += len(new)
    return torch.from_numpy(ids)


def follow(flow: Tensor, rows: int, columns: int) -> Tensor:
    """The trajectories of a grid of cells under a flow `(F - 1, H, W, 2)`: int64 `(F, rows * columns)`."""
    return trajectories(successors(*displacements(flow, rows, columns)))


def groups(ids: Tensor) -> list[Tensor]:
    """The cells of each trajectory in time order, by length: int64 `(n, L)` for each length L above 1.

    Cells are numbered through the clip, `frame * cells + cell`. A trajectory of one cell is in no group.
    """
    flat = ids.flatten()
    order = torch.argsort(flat, stable=True)
    lengths = torch.bincount(flat)
    starts = lengths.cumsum(0) - lengths
    found = []
    for length in lengths.unique().tolist():
        if length > 1:
            first = starts[lengths == length]
            found.append(order[first[:, None] + torch.arange(length, device=ids.device)])
    return found


def attend_along(q: Tensor, k: Tensor, v: Tensor, along: list[Tensor], heads: int) -> Tensor:
    """Softmax attention of each token to those of its trajectory: all `(S, F * cells, C)`, the same shape back."""
    result = v.clone()  # a token alone sees itself
    clips, _, width = v.shape
    for cells in along:
        count, length = cells.shape

        def part(x: Tensor, cells: Tensor = cells, count: int = count, length: int = length) -> Tensor:
            rows = x[:, cells.flatten()].view(clips * count, length, heads, width // heads)
            return rows.transpose(1, 2)

        out = F.scaled_dot_product_attention(part(q), part(k), part(v))
        result[:, cells.flatten()] = out.transpose(1, 2).reshape(clips, count * length, width)
    return result
