"""What the phantom world adds to a clip: layers that metrics look under, pools to compare with, other graphs' truths.

Nothing here measures. A benchmark on phantom people asks this file for what `World`, `cld` and `obedience` need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.face import align
from countervid.face.parse import BACKGROUND, OCCLUDER
from countervid.metrics.base import Asked, Eyes, Window, World, measured
from countervid.phantom.dataset import SPLITS
from countervid.phantom.render import Rendering, render
from countervid.phantom.world import Person, render_clip, sample_person

PRESENT = ("bald", "beard", "moustache", "glasses", "hat")  # of a look: there or not there, drawn from one half on
FACE_PX = 128  # side of the crops that the bundled models look at


def world_of(rendering: Rendering) -> World:
    """The layers of a rendering of the truth, as metrics take them.

    A window of `phantom.world.iter_clip(..., layers=True)` gives the world of that window; its flow reaches into the
    next one, as `World.part` has it.

    Raises:
        ValueError: It was rendered without layers.
    """
    if rendering.masks is None or rendering.flow is None or rendering.visible is None:
        raise ValueError("This rendering has no layers. Render the truth with `layers=True`.")
    masks = torch.from_numpy(rendering.masks)
    return World(
        flow=torch.from_numpy(rendering.flow),
        visible=torch.from_numpy(rendering.visible) > 0,
        occluder=masks == OCCLUDER,
        background=masks == BACKGROUND,
    )


def pictures(rendering: Rendering) -> Tensor:
    """The frames `(F, 3, S, S)`, float32 in 0..1."""
    return torch.from_numpy(rendering.frames).permute(0, 3, 1, 2).float() / 255


def face_crops(rendering: Rendering, size: int = FACE_PX) -> Tensor:
    """The face's squares by the true landmarks, `(F, 3, size, size)`, float32 in 0..1."""
    squares = align.quads(rendering.landmarks - 0.5, framing=align.PORTRAIT)  # counted from pixels' middles
    frames = torch.from_numpy(rendering.frames).float() / 255
    return align.crop(frames, squares, size).permute(0, 3, 1, 2)


def pool(
    attributes: Mapping[str, str], clips: int, *, first: int = SPLITS["validation"], take: int = 0, **clip: Any
) -> Iterator[Rendering]:
    """Clips of other people who have the same attributes: other bones, skin, place, light, camera and motion.

    For CLD: once with the factual attributes, once with the counterfactual ones. The same people are in both, so that
    the two pools differ in the attributes and in nothing else.

    Args:
        attributes: A value for every attribute of the phantom world.
        clips: How many people.
        first: Seed of the first; keep away from the people under test.
        take: Which of their clips.
        clip: `frames`, `fps`, `size` of `phantom.world.render_clip`.
    """
    for seed in range(first, first + clips):
        yield render_clip(sample_person(seed), take, attributes=attributes, **clip)


def told(person: Person, do: Mapping[str, str], graphs: Mapping[str, CausalGraph]) -> dict[str, dict[str, str]]:
    """All attributes of a person's true counterfactual under each of several graphs, by the graphs' names.

    Under the person's own graph their own noise is used. Under another it is abducted, the likeliest where the
    attributes leave it open. Attributes that a graph does not know stay as they are.

    Args:
        person: Whose.
        do: The intervention; every graph must know its variables.
        graphs: Name -> graph: the true one, one without edges, one turned round, an absurd one.

    Raises:
        InterventionError: A graph does not know a variable of `do`.
    """
    found = {}
    for name, graph in graphs.items():
        own = graph is person.graph
        known = {variable: person.attributes[variable] for variable in graph.variables}
        after = person.counterfactual(do) if own else graph.counterfactual(known, dict(do))
        found[name] = person.attributes | after.attributes
    return found


def paths(person: Person, do: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The attributes under the total effect of `do`, and under its direct effect: its descendants held as they are."""
    total = person.counterfactual(do).attributes
    return {"total": total, "direct": person.attributes | dict(do)}


def dosed(
    person: Person,
    attributes: Mapping[str, str],
    strength: float,
    take: int = 0,
    frames: int = 48,
    fps: float = 25.0,
    size: int = 256,
) -> Rendering:
    """The true counterfactual at a strength between 0 (the factual, bit for bit) and 1 (the truth, bit for bit).

    What is continuous in a look (bones, years, colours, lengths) lies on the line between the two looks. What is there
    or not there (a beard, glasses, a style, a smile) changes at one half.

    Args:
        person, take, frames, fps, size: As for `phantom.world.render_clip`.
        attributes: The counterfactual ones.
        strength: 0..1.

    Raises:
        ValueError: The strength is outside 0..1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"`strength` must be 0..1, got {strength}.")
    nearer = person.attributes if strength < 0.5 else attributes
    before, after, look = person.look(), person.look(attributes), person.look(nearer)
    mixed: dict[str, Any] = {}
    for field in fields(look):
        one, two = getattr(before, field.name), getattr(after, field.name)
        if isinstance(one, int) or field.name in PRESENT:
            continue
        between = (1 - strength) * one + strength * two
        mixed[field.name] = between if isinstance(one, float) else np.asarray(between, np.float32)
    return render(replace(look, **mixed), person.scene(take), person.motion(take, frames, fps, nearer), size)


def spreads(people: int, *, first: int = SPLITS["test"], frames: int = 4, size: int = 256) -> dict[str, float]:
    """What every factor's error is between clips that have nothing to do with each other: person k + 1 for person k.

    Args:
        people: How many; the last is compared with the first.
        first: Seed of the first.
        frames, size: Of each clip; frames lie a second apart.
    """
    asked = [sample_person(first + k) for k in range(people)]
    clips = [render_clip(one, frames=frames, fps=1.0, size=size, layers=True) for one in asked]
    eyes = Eyes()
    return _means(
        measured(["factors"], [_pair(clips[k], clips[k - 1], person, eyes)], ("truth", "face", "world", "attributes"))
        for k, person in enumerate(asked)
    )


def noise(people: int, *, first: int = SPLITS["test"], frames: int = 4, size: int = 256) -> dict[str, float]:
    """What every factor's error is between the truth and the truth rendered anew, arguments as `spreads`.

    Anew: with another film grain, and at twice the size, averaged down. An edit cannot be told from the truth below it.
    """
    eyes, found = Eyes(), []
    for seed in range(first, first + people):
        person = sample_person(seed)
        once = render_clip(person, frames=frames, fps=1.0, size=size, layers=True)
        scene = replace(person.scene(), grain_seed=person.scene().grain_seed + 1)
        large = render(person.look(), scene, person.motion(0, frames, 1.0), 2 * size).frames
        mean = large.reshape(frames, size, 2, size, 2, 3).mean((2, 4)).round().astype(np.uint8)
        window = _pair(once, replace(once, frames=mean), person, eyes)
        found.append(measured(["factors"], [window], ("truth", "face", "world", "attributes")))
    return _means(iter(found))


def _pair(truth: Rendering, edited: Rendering, person: Person, eyes: Eyes) -> Window:
    """One window that takes a rendering for an edit of another; each face in its own square."""
    whole, crops = (pictures(truth), pictures(edited)), (face_crops(truth), face_crops(edited))
    names = ("truth", "counterfactual")
    return Window(
        start=0,
        frames=dict(zip(names, whole, strict=True)) | {"factual": whole[0]},
        faces=dict(zip(names, crops, strict=True)) | {"factual": crops[0]},
        rows=torch.arange(len(whole[0])),
        world=world_of(truth),
        asked=Asked(factual=person.attributes, do={}, counterfactual=person.attributes),
        eyes=eyes,
    )


def _means(found: Iterator[dict[str, float]]) -> dict[str, float]:
    """Means over clips of what is defined, by the numbers' names."""
    rows = list(found)
    known = {name: [row[name] for row in rows if np.isfinite(row[name])] for name in rows[0]}
    return {name: float(np.mean(values)) for name, values in known.items() if values}
