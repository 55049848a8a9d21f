"""End-point error of optical flow against the phantom world's truth.

    python benchmarks/flow.py [CLIPS]

Of 128 px clips at 8 frames a second, on what is seen of the person in both frames, in pixels; `still` says that nothing
moves. RAFT is left out where torchvision cannot be imported.
"""

from __future__ import annotations

import statistics
import sys

import torch

from countervid.diffusion.flow import FLOWS, end_point_error, optical_flow
from countervid.errors import MissingExtraError
from countervid.phantom.dataset import SPLITS
from countervid.phantom.world import render_clip, sample_person


def main(clips: int = 6) -> None:
    errors: dict[str, list[float]] = {"still": []}
    for index in range(clips):
        part = render_clip(sample_person(SPLITS["test"] + index), frames=8, fps=8.0, size=128, layers=True)
        assert part.flow is not None and part.visible is not None and part.masks is not None
        truth = torch.from_numpy(part.flow).float()
        seen = torch.from_numpy(part.visible).bool() & (torch.from_numpy(part.masks[:-1]) > 0)
        errors["still"].append(end_point_error(torch.zeros_like(truth), truth, seen))
        for name in FLOWS:
            try:
                estimate = optical_flow(name)
            except MissingExtraError as error:
                if index == 0:
                    print(error)
                continue
            flow = estimate(torch.from_numpy(part.frames))
            errors.setdefault(name, []).append(end_point_error(flow, truth, seen))
    for name, values in errors.items():
        print(f"{name}: {statistics.fmean(values):.2f} px ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
