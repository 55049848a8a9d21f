"""What the first and the next edit of a clip cost: `python benchmarks/editing.py [frames] [size]`.

Ratios are taken within one run. Network evaluations are counted, a frame each.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from countervid.clip import Clip
from countervid.editors import Target, load_editor
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import render_clip, sample_person

T = TypeVar("T")
ASKED = ("age", "beard", "smiling")


def main(frames: int = 48, size: int = 256) -> None:
    """Prepare a rendered clip, edit it three times; prints seconds, ratios, evaluations and the peak of memory."""
    person = sample_person(2_000_000)
    clip = Clip.from_frames(torch.from_numpy(render_clip(person, frames=frames, size=size).frames))
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        loaded, editor = _timed(lambda: load_editor("dva", cache=Path(folder)))
        evaluations = 0

        def count(_module: object, arguments: tuple[torch.Tensor, ...]) -> None:
            nonlocal evaluations
            evaluations += len(arguments[0])

        editor.autoencoder.unet.register_forward_pre_hook(count)  # type: ignore[attr-defined]
        preparing, ready = _timed(lambda: editor.prepare(clip, person.attributes))
        print(f"{frames} frames of {size} px, {torch.get_num_threads()} threads, torch {torch.__version__}")
        print(f"load weights  {loaded:6.1f} s")
        print(f"prepare       {preparing:6.1f} s  {evaluations / frames:5.1f} evaluations a frame")
        for name in ASKED:
            evaluations = 0
            do = {name: next(value for value in DOMAINS[name] if value != person.attributes[name])}
            counterfactual = person.counterfactual(do).attributes
            target = Target(factual=person.attributes, do=do, counterfactual=counterfactual)
            seconds, _ = _timed(lambda target=target: editor.edit(ready, target).frames)
            each, share = evaluations / frames, seconds / (preparing + seconds)
            print(f"{name:13} {seconds:6.1f} s  {each:5.1f} evaluations a frame, {share:.0%} of a first edit")
        again, _ = _timed(lambda: editor.prepare(clip, person.attributes))
        print(f"prepare again {again:6.1f} s, {again / preparing:.1%} of the first time")
    print(f"peak memory   {_peak():6.0f} MiB, {_peak() - before:.0f} more than before loading")


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
