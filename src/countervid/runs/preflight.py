"""What a run will take, said before it begins: time, memory and room in the cache.

Evaluations are counted from the settings (`editor.work`). What one of them takes on this machine is known from earlier
runs, kept in `speeds.json` of the cache; without any, one batch is evaluated and timed. So is memory known from earlier
runs, and not said before there is one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countervid.clip import Clip
from countervid.editors.base import Editor
from countervid.editors.cache import Cache, as_cache, human
from countervid.errors import ConfigError
from countervid.files.whole import write_whole

SPEEDS = "speeds.json"  # in the cache's folder
ASSUMED = 0.015  # seconds an evaluation, for an editor that has no `probe`: the miniature autoencoder's on one core
WORTH_SAYING = 60.0  # seconds: a shorter run just begins


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run takes at most: what an earlier one has kept, it does not compute again."""

    evaluations: int  # of the network, one a frame and stream
    seconds: float
    memory: int | None  # bytes at the peak, as a run of these settings took before; None: there was none
    disk: int  # bytes in the cache
    free: int  # bytes on its disk
    basis: str  # where the speed comes from: "earlier runs", "one batch" or "assumed"

    def sentence(self) -> str:
        """In words: about 14 min, 1.1 GB of memory, 620 MB in the cache (free: 80 GB)."""
        memory = "" if self.memory is None else f"{human(self.memory)} of memory, "
        return f"about {_duration(self.seconds)}, {memory}{human(self.disk)} in the cache (free: {human(self.free)})"


def estimate(editor: Editor, clip: Clip, *, edits: int = 1) -> Estimate | None:
    """What preparing a clip and so many edits of it take; None for an editor that cannot tell its work.

    Args:
        editor: Its settings, weights and device count.
        clip: Nothing is decoded.
        edits: 0 is preparing alone.
    """
    if not hasattr(editor, "work") or not hasattr(editor, "cache"):
        return None
    work, cache = editor.work(clip, edits), as_cache(editor.cache)
    known = _speeds(cache).get(_key(editor))
    if known is None:
        probe = getattr(editor, "probe", None)
        seconds = ASSUMED if probe is None else probe(clip)
        basis, memory = "assumed" if probe is None else "one batch", None
    else:
        seconds, basis, memory = known["seconds"], "earlier runs", int(known["memory"]) or None
    return Estimate(
        evaluations=work.evaluations, seconds=seconds * work.evaluations, memory=memory, disk=work.disk,
        free=cache.free, basis=basis,
    )  # fmt: skip


def check(editor: Editor, clip: Clip, expected: Estimate) -> None:
    """Refuse before anything is computed what memory or disk will not do. Makes room in the cache where it can.

    Raises:
        OutputError: More than the cache may hold.
        ConfigError: More than the disk has free, or the machine has memory.
    """
    cache: Cache = as_cache(editor.cache)  # type: ignore[attr-defined]
    there = sum(e.size for e in cache.entries() if e.digest == clip.digest() and e.editor == editor.name)
    missing = max(0, expected.disk - there)  # what was prepared before is not written again
    if missing > expected.free:
        raise ConfigError(
            f"This run needs {human(missing)} in the cache, and the disk of `{cache.path}` has {human(expected.free)} "
            "free. Name another with `--cache DIR`, remove old clips with `countervid cache prune`, or edit fewer "
            "frames with `--max-frames N`."
        )
    cache.make_room(missing, for_clip=clip.digest())
    total = _installed_memory()
    if expected.memory is not None and total is not None and expected.memory > total:
        raise ConfigError(
            f"Runs like this take {human(expected.memory)} of memory, and this machine has {human(total)}. Compute "
            "fewer frames at a time: `--set batch=2`, or a smaller `window`."
        )


def learn(editor: Editor, seconds: float, evaluations: int) -> None:
    """Keep what an evaluation took, for the next estimate; half of it is the latest run's, half the ones' before."""
    if evaluations <= 0 or not hasattr(editor, "work") or not hasattr(editor, "cache"):
        return
    cache = as_cache(editor.cache)
    speeds, key = _speeds(cache), _key(editor)
    latest, before = seconds / evaluations, speeds.get(key)
    speed = latest if before is None else (latest + before["seconds"]) / 2
    speeds[key] = {"seconds": speed, "memory": _peak_memory(editor)}
    write_whole(cache.path / SPEEDS, json.dumps(speeds, indent=1, sort_keys=True))


def _key(editor: Editor) -> str:
    """What the speed depends on beside the number of evaluations."""
    config = editor.config
    names = ("precision", "batch", "window", "region", "device", "flow", "checkpointing")
    settings = {name: getattr(config, name) for name in names if hasattr(config, name)}
    text = json.dumps([editor.weights(), settings], sort_keys=True, default=str)
    return f"{editor.name}/{getattr(editor, 'device', 'cpu')}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _speeds(cache: Cache) -> dict[str, dict[str, float]]:
    try:
        values = json.loads((cache.path / SPEEDS).read_text(encoding="utf-8"))
        return {
            str(key): {"seconds": float(value["seconds"]), "memory": float(value["memory"])}
            for key, value in values.items()
            if 0 < float(value["seconds"]) < 1e6 and 0 <= float(value["memory"]) < 1e15
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}  # none yet, or damaged: found out again


def _peak_memory(editor: Any) -> int:
    """Bytes that this process has taken at most, of the device's memory where that is a GPU; 0 where unknown."""
    import torch

    device = torch.device(getattr(editor, "device", "cpu"))
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on this system
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def _installed_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, ValueError, StopIteration):
        return None


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            number = seconds / length
            return f"{number:.1f} {unit}" if number < 10 and unit != "min" else f"{number:.0f} {unit}"
    return f"{seconds:.0f} s"
