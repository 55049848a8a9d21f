"""People of the phantom world, their clips, and the true counterfactual of each clip.

A `Person` is a seed, the attributes the causal graph drew, that graph's noise, and the exogenous
draws of `scm`. A take is another clip of the same person: another place, light, camera and motion.
Rendering with other attributes and everything exogenous held fixed gives the true counterfactual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from countervid.causal.counterfactual import Counterfactual, Noise
from countervid.causal.graph import CausalGraph
from countervid.errors import ConfigError
from countervid.phantom import scm
from countervid.phantom.motion import express, make_motion, motion_at
from countervid.phantom.parameters import BACKGROUNDS, Array, Look, Motion, Scene
from countervid.phantom.render import Rendering, render

Attributes = dict[str, str]


@cache
def phantom_graph() -> CausalGraph:
    """The graph that the attributes of phantom people follow."""
    return CausalGraph.load("phantom")


@dataclass(frozen=True)
class Person:
    """Somebody whose every counterfactual is known."""

    seed: int
    attributes: Attributes
    noise: Noise
    exogenous: scm.Exogenous = field(repr=False)
    graph: CausalGraph = field(repr=False)

    @property
    def years(self) -> float:
        """Age in years, 18..85."""
        return scm.years_of(self.exogenous, self.attributes["age"])

    def look(self, attributes: Mapping[str, str] | None = None) -> Look:
        """How the person looks under these attributes; as they are, by default."""
        return scm.look(self.exogenous, self.attributes if attributes is None else attributes)

    def scene(self, take: int = 0) -> Scene:
        """Place, light and lens of a take."""
        return make_scene(self.seed, take)

    def motion(
        self, take: int = 0, frames: int | slice = 48, fps: float = 25.0, attributes: Mapping[str, str] | None = None
    ) -> Motion:
        """How the person moves in a take: `frames` frames from its start, or a slice of it.

        The smile is the only channel that the attributes (`smiling`) touch.
        """
        part = slice(0, frames) if isinstance(frames, int) else frames
        start, stop = part.start or 0, part.stop
        if part.step not in (None, 1) or stop is None or not 0 <= start < stop:
            raise ConfigError(
                f"A motion needs at least one frame, got {part}. Ask for slice(start, stop) with start < stop."
            )
        if not fps > 0:
            raise ConfigError(f"`fps` must be above 0, got {fps}.")
        motion = make_motion(_take_key(self.seed, take), start, stop, fps)
        return express(motion, self._smiles(attributes))

    def motion_at(self, take: int, seconds: np.ndarray, attributes: Mapping[str, str] | None = None) -> Motion:
        """The motion at any times `(F,)` of a take, in seconds: for frames that lie far apart."""
        motion = motion_at(_take_key(self.seed, take), np.asarray(seconds, np.float64), fps=25.0)
        return express(motion, self._smiles(attributes))

    def counterfactual(self, do: Mapping[str, str]) -> Counterfactual:
        """What the graph predicts for this person, with the person's true noise.

        Raises:
            InterventionError: `do` names an unknown attribute or value.
        """
        return self.graph.counterfactual(self.attributes, dict(do), noise=self.noise)

    def _smiles(self, attributes: Mapping[str, str] | None) -> bool:
        return (self.attributes if attributes is None else attributes)["smiling"] == "yes"


def sample_person(seed: int, graph: CausalGraph | None = None, interventional: bool = False) -> Person:
    """Draw person `seed`; the same seed is the same person, always.

    Args:
        seed: Any integer.
        graph: What the attributes follow; the phantom world's by default.
        interventional: Draw every attribute uniformly and independently instead, which covers all
            that interventions can reach (a bearded woman, a young man with grey hair).
    """
    graph = phantom_graph() if graph is None else graph
    attributes, noise = graph.sample(scm.stream(seed, "attributes"))
    if interventional:
        # An intervention on everything, in the same graph: what comes after still follows from true noise.
        do = {
            name: values[int(scm.stream(seed, "interventional", name).integers(len(values)))]
            for name, values in scm.DOMAINS.items()
        }
        drawn = graph.counterfactual(attributes, do, noise=noise)
        attributes, noise = drawn.attributes, drawn.noise
    scm.check_attributes(attributes)
    return Person(seed, dict(attributes), noise, scm.draw_exogenous(seed), graph)


def make_scene(seed: int, take: int) -> Scene:
    """Place, light and lens of take `take` of person `seed`: varied, and the face always well lit."""

    def u(name: str) -> float:
        return float(scm.stream(seed, "scene", take, name).random())

    azimuth = np.deg2rad(-60 + 120 * u("azimuth"))
    elevation = np.deg2rad(15 + 35 * u("elevation"))
    key = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    warmth = 2 * u("warmth") - 1  # -1 a blue morning .. 1 a lamp
    strength = 0.90 + 0.25 * u("strength")
    fill = 0.30 + 0.20 * u("fill")
    bounce = 0.12 + 0.14 * u("bounce")
    fill_tint = 2 * u("fill tint") - 1
    return Scene(
        background=int(u("background") * len(BACKGROUNDS)),
        background_seed=int(2**31 * u("background seed")),
        background_blur=0.25 + 0.75 * u("blur"),
        key_light=np.array(key, np.float32),
        key_colour=_tinted(strength, warmth),
        fill=_tinted(fill, -0.6 * warmth + 0.4 * fill_tint),
        bounce=_tinted(bounce, 0.4 + 0.5 * fill_tint),
        key_softness=0.3 + 0.7 * u("softness"),
        exposure=0.94 + 0.16 * u("exposure"),
        focal_length=3.0 + 0.6 * u("focal length"),
        grain=1.6 * u("grain"),
        grain_seed=int(2**31 * u("grain seed")),
    )


def render_clip(
    person: Person,
    take: int = 0,
    frames: int = 48,
    fps: float = 25.0,
    size: int = 256,
    attributes: Mapping[str, str] | None = None,
    layers: bool = False,
) -> Rendering:
    """A whole clip at once, `(frames, size, size, 3)`; `iter_clip` gives the same in bounded memory.

    Args:
        person: Whom to render.
        take: Which of the person's clips.
        frames, fps, size: Length in frames, frames a second, side in pixels (64..512).
        attributes: As they are by default; `person.counterfactual(do).attributes` for the truth.
        layers: Also masks, optical flow and visibility.
    """
    motion = person.motion(take, frames, fps, attributes)
    return render(person.look(attributes), person.scene(take), motion, size, layers=layers)


def iter_clip(
    person: Person,
    take: int = 0,
    frames: int = 48,
    fps: float = 25.0,
    size: int = 256,
    attributes: Mapping[str, str] | None = None,
    layers: bool = False,
    window: int = 32,
    first: int = 0,
) -> Iterator[Rendering]:
    """The clip of `render_clip` from frame `first` on, in windows of `window` frames, bit for bit.

    With `layers` a window's flow and visibility reach into the next window's first frame: one row
    for each frame of the window but for the clip's last. Concatenated, they are the whole clip's.
    """
    motion = person.motion(take, frames, fps, attributes)  # 120 bytes a frame: an hour is 11 MB
    look, scene = person.look(attributes), person.scene(take)
    for start in range(first, frames, window):
        stop = min(start + window, frames)
        reach = min(stop + 1, frames) if layers else stop
        part = render(look, scene, motion, size, frames=slice(start, reach), layers=layers)
        yield _first_frames(part, stop - start) if reach > stop else part


def _first_frames(part: Rendering, count: int) -> Rendering:
    """Drop the last frame, and keep the flow that leads to it."""
    masks = None if part.masks is None else part.masks[:count]
    return Rendering(
        frames=part.frames[:count], landmarks=part.landmarks[:count], masks=masks, flow=part.flow, visible=part.visible
    )


def _take_key(seed: int, take: int) -> int:
    return int(scm.stream(seed, "motion", take).integers(2**63))


def _tinted(strength: float, warmth: float) -> Array:
    return (strength * np.array([1 + 0.10 * warmth, 1.0, 1 - 0.16 * warmth])).astype(np.float32)
