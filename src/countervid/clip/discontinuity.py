"""One clock for a file whose time stamps start again, jump back, or stand still.

Joined recordings (MPEG-TS and program streams written one after another, Matroska segments, a recorder that was reset)
carry the stamps of each part. Every part is moved behind the one before it, its picture and its sound by the same time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby

from countervid.clip.timing import AHEAD, Listing, Run

_TOGETHER = 2  # seconds: the picture and the sound of one part begin within this of one another
_NEAR = 10  # seconds of frames: a stream's packets may stand this far from the others'
_FINEST = (1 << 31) - 1  # ticks a second that containers can hold


@dataclass(frozen=True)
class Part:
    """Frames between two jumps of the clock, in seconds of the file."""

    frame: int  # number of its first frame
    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class Clock:
    """When frames appear, on one clock."""

    stamps: list[int]  # strictly increasing, ticks of `time_base`
    time_base: Fraction
    last: int | None  # ticks that the last frame is shown
    notes: tuple[str, ...] = ()
    parts: tuple[tuple[int, Fraction], ...] = ()  # (frames before a part, seconds added to its stamps)
    sound: Mapping[int, tuple[tuple[int, Fraction], ...]] = field(default_factory=dict)  # the same, a stream's packets
    sound_start: Fraction | None = None  # seconds, where the sound was moved


def one_clock(listing: Listing, shown: Sequence[int | None], rate: Fraction) -> Clock:
    """Stamps that increase from frame to frame, none lost and none passed over.

    Args:
        listing: What the packets say.
        shown: Stamps of the frames; in the order of showing where `listing.restarts`, else in any.
        rate: Frames a second, for frames without a stamp.
    """
    base, frame = listing.time_base, 1 / rate
    known = [stamp for stamp in shown if stamp is not None]
    if len(known) < len(shown) or (len(known) > 1 and min(known) == max(known)):
        counted = [round(index / rate / base) for index in range(len(shown))]
        note = f"The file holds no times of its frames: they are shown at {float(rate):g} a second."
        return Clock(counted, base, None, (note,) if len(shown) > 1 else ())
    notes: list[str] = []
    starts = _jumps(known, listing, rate) if listing.restarts else []
    if not listing.restarts:
        known.sort()  # packets come in the order of decoding
    parts = []
    for first, after in zip([0, *starts], [*starts, len(known)], strict=True):
        parts.append(Part(first, min(known[first:after]) * base, max(known[first:after]) * base + frame))
    moved, sound = _join(parts, listing, rate)
    ticks = [math.ceil(offset / base) for offset in moved]
    stamps: list[int] = []
    for index, part in enumerate(parts):
        after = parts[index + 1].frame if index + 1 < len(parts) else len(known)
        stamps += [stamp + ticks[index] for stamp in known[part.frame : after]]
    if starts:
        notes.append(
            f"The clock of the file jumps in {len(starts)} place{'s' * (len(starts) > 1)}, as in recordings that were "
            "joined: each part follows the one before it, with its sound."
        )
    stamps, factor, still = spread(stamps, max(1, round(frame / base)), _FINEST // base.denominator)
    if still:
        notes.append(f"{still} frames have no time of their own: each is shown between its neighbours.")
    began = [runs[0].start + sound[stream][0][1] for stream, runs in listing.sound.items() if stream in sound]
    return Clock(
        stamps,
        base / factor,
        None if listing.last is None else listing.last * factor,
        tuple(notes),
        tuple((part.frame, tick * base) for part, tick in zip(parts, ticks, strict=True)) if starts else (),
        sound,
        min(began, default=None),
    )


def spread(stamps: Sequence[int], frame: int, finest: int) -> tuple[list[int], int, int]:
    """Strictly increasing stamps: what stands still or falls back for a moment is spread over the time to the next.

    Args:
        stamps: In the order of showing.
        frame: Ticks of a frame, for the last.
        finest: Most parts that a tick may be cut into.

    Returns:
        The stamps, the parts that each tick was cut into, and how many frames had no time of their own.
    """
    if all(sooner < later for sooner, later in zip(stamps, stamps[1:], strict=False)):
        return list(stamps), 1, 0
    highest, raised = stamps[0], []
    for stamp in stamps:
        highest = max(highest, stamp)
        raised.append(highest)
    groups = [(stamp, len(list(same))) for stamp, same in groupby(raised)]
    room = [later[0] - sooner[0] for sooner, later in zip(groups, groups[1:], strict=False)] + [frame * groups[-1][1]]
    factor = max(math.ceil(count / gap) for (_, count), gap in zip(groups, room, strict=True))
    factor = max(1, min(factor, finest))
    result: list[int] = []
    for (stamp, count), gap in zip(groups, room, strict=True):
        for index in range(count):
            wanted = stamp * factor + index * gap * factor // count
            result.append(max(wanted, result[-1] + 1) if result else wanted)
    return result, factor, len(stamps) - len(groups)


def _jumps(shown: Sequence[int], listing: Listing, rate: Fraction) -> list[int]:
    """Numbers of the frames before which the clock was set anew."""
    base, second = listing.time_base, math.ceil(rate)
    found: list[int] = []
    highest = shown[0]
    for index in range(1, len(shown)):
        stamp = shown[index]
        gap = (stamp - highest) * base
        back = gap < 0 and not _returns(shown, index, highest, base, rate, second)
        if back or (listing.resettable and gap > AHEAD and _sound_jumps(listing, stamp * base)):
            found.append(index)
            highest = stamp
        highest = max(highest, stamp)
    return found


def _returns(shown: Sequence[int], index: int, highest: int, base: Fraction, rate: Fraction, second: int) -> bool:
    """Whether a clock that fell back is where it would have been within a second: some wrong stamps, no restart."""
    for later in range(index + 1, min(len(shown), index + second)):
        expected = highest * base + (later - index + 1) / rate
        if shown[later] > highest and abs(shown[later] * base - expected) < Fraction(1, 2):
            return True
    return False


def _sound_jumps(listing: Listing, start: Fraction) -> bool:
    """Whether the sound jumps ahead to the same time; true where there is none. Else one frame is shown for long."""
    runs = [run for runs in listing.sound.values() for run in runs]
    return not runs or any(run.ahead and abs(run.start - start) <= _TOGETHER for run in runs)


def _join(
    parts: Sequence[Part], listing: Listing, rate: Fraction
) -> tuple[list[Fraction], dict[int, tuple[tuple[int, Fraction], ...]]]:
    """Seconds to add to each part, and to each run of sound, so that nothing overlaps and all stays in step."""
    belongs = {stream: _match(runs, parts, rate) for stream, runs in listing.sound.items()}
    added: dict[int, list[Fraction]] = {stream: [] for stream in listing.sound}
    ends: dict[int, Fraction] = {}

    def place(stream: int, run: Run, offset: Fraction) -> None:
        added[stream].append(offset)
        ends[stream] = run.end + offset

    def place_until(stream: int, part: int | None) -> Run | None:
        """Runs that jump alone go on where the sound was; returns the first that belongs to `part` or a later one."""
        runs = listing.sound[stream]
        while len(added[stream]) < len(runs):
            index = len(added[stream])
            owner = belongs[stream][index]
            if owner is not None and (part is None or owner >= part):
                return runs[index]
            before = added[stream][-1] if added[stream] else Fraction(0)
            alone = index > 0 and not runs[index].ahead
            place(stream, runs[index], ends[stream] - runs[index].start if alone else before)
        return None

    base = listing.time_base
    moved: list[Fraction] = []
    end = Fraction(0)
    for index, part in enumerate(parts):
        starting = {}
        for stream in listing.sound:
            run = place_until(stream, index)
            if run is not None and belongs[stream][len(added[stream])] == index:
                starting[stream] = run
        late = [] if index == 0 else [end - part.start, *(ends[s] - r.start for s, r in starting.items() if s in ends)]
        offset = math.ceil(max(late) / base) * base if late else Fraction(0)
        moved.append(offset)
        end = part.end + offset
        for stream, run in starting.items():
            place(stream, run, offset)
    for stream in listing.sound:
        place_until(stream, None)
    return moved, {
        stream: tuple((run.packet, offset) for run, offset in zip(runs, added[stream], strict=True))
        for stream, runs in listing.sound.items()
        if len(runs) > 1 or any(added[stream])
    }


def _match(runs: Sequence[Run], parts: Sequence[Part], rate: Fraction) -> list[int | None]:
    """The part with which each run of a stream's sound begins; None for one that jumps alone."""
    result: list[int | None] = []
    lowest = 0
    for number, run in enumerate(runs):
        near = [
            index
            for index in range(lowest, len(parts))
            if abs(parts[index].start - run.start) <= _TOGETHER and abs(parts[index].frame - run.frame) <= _NEAR * rate
        ]
        best = min(near, key=lambda index: abs(parts[index].frame - run.frame), default=None)
        if number == 0 and best is None:
            best = 0  # sound that begins late, or early
        result.append(best)
        lowest = lowest if best is None else best + 1
    return result
