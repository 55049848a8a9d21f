"""Minimality by factors, and what the phantom world adds to a clip: on rendered people, against what it knows."""

import doctest
import math

import numpy as np
import pytest
import torch
from scipy import stats

from countervid.autoencoder.identity import IdentityNet
from countervid.causal.graph import CausalGraph
from countervid.errors import InterventionError
from countervid.face import align
from countervid.metrics import factors, rendered
from countervid.metrics.base import Asked, Window, measured
from countervid.metrics.cld import video_cld
from countervid.metrics.obedience import dose
from countervid.phantom.world import iter_clip, render_clip, sample_person
from rendered_windows import EYES, faces, pictures, squares, windows

HAS = ("truth", "face", "world", "attributes")
PERSON = 6  # a hand passes before this face in frames 17 to 35


@pytest.fixture(scope="module")
def person():
    return sample_person(PERSON)


@pytest.fixture(scope="module")
def asked(person):
    do = {"age": "young"}
    return Asked(factual=person.attributes, do=do, counterfactual=person.counterfactual(do).attributes)


@pytest.fixture(scope="module")
def clips(person, asked):
    """Factual and truth, 5 frames of 1.2 s, the occluder in the last two: (factual, truth, squares, world)."""
    settings = {"frames": 5, "fps": 4.0, "size": 128}
    factual = render_clip(person, **settings)
    truth = render_clip(person, **settings, attributes=asked.counterfactual, layers=True)
    return pictures(factual), pictures(truth), squares(factual), rendered.world_of(truth)


WORLD = ("factors.background", "factors.background_light", "factors.occluder")
FACE = ("factors.landmarks", "factors.pose", "factors.light", "factors.surroundings")


def scores(clips, asked, edited, size=4, names=("factors",)):
    factual, truth, where, world = clips
    triple = {"factual": factual, "counterfactual": edited, "truth": truth}
    return measured(names, windows(triple, where, size=size, world=world, asked=asked), HAS)


@pytest.mark.parametrize("module", [factors, rendered])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_the_truth_itself_has_no_error_in_any_factor(clips, asked):
    found = scores(clips, asked, clips[1])
    assert set(found) == {f"factors.{n}" for n in (
        "landmarks", "pose", "identity", "light", "surroundings", "relative", "background", "background_light",
        "occluder", "attributes",
    )}  # fmt: skip
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-6)


def test_doing_nothing_errs_where_the_truth_moves(clips, asked):
    found = scores(clips, asked, clips[0])
    assert found["factors.landmarks"] > 0.01 and found["factors.identity"] > 0.05  # ageing moves both
    assert found["factors.background_light"] < 0.01  # and leaves the room alone
    assert found["factors.occluder"] < 0.02


def test_what_lies_behind_and_what_passes_are_told_apart(clips, asked):
    truth, world = clips[1], clips[3]
    behind = truth.clone()
    behind[:, 2] = torch.where(world.background, (behind[:, 2] + 0.3).clamp(0, 1), behind[:, 2])
    found = scores(clips, asked, behind, names=WORLD)
    error = ((behind - truth).abs().mean(1) * world.background).sum((1, 2)) / world.background.sum((1, 2))
    assert found["factors.background"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert found["factors.occluder"] == 0.0

    found = scores(clips, asked, truth * ~world.occluder[:, None], names=WORLD)
    shown = world.occluder.flatten(1).any(1)
    assert 0 < int(shown.sum()) < len(truth)
    under = (truth.mean(1) * world.occluder).sum((1, 2))[shown] / world.occluder.sum((1, 2))[shown]
    assert found["factors.occluder"] == pytest.approx(float(under.mean()), rel=1e-5)  # over the frames that have one
    assert found["factors.background"] == found["factors.background_light"] == 0.0


def test_light_and_place_are_told_apart(clips, asked):
    dim = scores(clips, asked, clips[1] * 0.85, names=FACE)
    assert dim["factors.light"] > 0.03 and dim["factors.landmarks"] < 0.03  # the shape is still there
    moved = scores(clips, asked, clips[1].roll(3, dims=3), names=FACE)
    assert moved["factors.landmarks"] > 0.05 and moved["factors.pose"] < 0.04  # carried along, not turned


def test_windows_do_not_change_a_number(clips, asked):
    edited = torch.lerp(clips[0], clips[1], 0.5)
    assert scores(clips, asked, edited, 5) == pytest.approx(scores(clips, asked, edited, 2), rel=1e-4, abs=1e-6)


def test_a_world_of_another_size_is_refused(clips, asked):
    factual, truth, where, world = clips
    small = {
        name: clip[:, :, ::2, ::2] for name, clip in (("factual", factual), ("counterfactual", truth), ("truth", truth))
    }
    window = Window(start=0, frames=small, eyes=EYES, asked=asked, world=world)
    with pytest.raises(ValueError, match="mask of the background is .*Render both at one size"):
        measured(["factors.background"], [window], HAS)


def test_landmarks_and_pose_agree_with_the_world():
    """The estimators against what the renderer knows: 16 frames of as many people."""
    found, true, yaw = [], [], []
    for seed in range(16):
        someone = sample_person(100 + seed)
        clip = render_clip(someone, frames=1, size=128)
        where = squares(clip)
        window = Window(start=0, frames={}, faces={"truth": faces(pictures(clip), where)}, eyes=EYES)
        found.append(factors.landmarks(window, "truth")[0])
        true.append(align.to_square(clip.landmarks - 0.5, where)[0] * 128 - 0.5)
        yaw.append(someone.motion(0, 1).yaw[0])
    errors = factors.landmark_error(np.array(found), np.array(true))
    assert np.median(errors) < 0.05
    assert stats.spearmanr(factors.pose(np.array(found))[:, 0], yaw).statistic > 0.9


def test_shading_by_hand():
    rng = np.random.default_rng(0)
    one, two, mask = rng.random((2, 3, 32, 32)), rng.random((2, 3, 32, 32)), rng.random((2, 32, 32)) < 0.5
    mask[:, :8, :8] = False
    mask[0, 0, 0] = True  # a cell that is nearly empty does not count
    expected = []
    for f in range(2):
        apart, weight = 0.0, 0.0
        for i in range(0, 32, 8):
            for j in range(0, 32, 8):
                under = mask[f, i : i + 8, j : j + 8]
                if under.mean() < 1 / 16:
                    continue
                means = [clip[f, :, i : i + 8, j : j + 8][:, under].mean(1) for clip in (one, two)]
                apart += under.mean() * np.abs(means[0] - means[1]).mean()
                weight += under.mean()
        expected.append(apart / weight)
    found = factors.shading_error(torch.from_numpy(one), torch.from_numpy(two), torch.from_numpy(mask))
    assert found.numpy() == pytest.approx(expected)
    assert math.isnan(
        factors.shading_error(torch.from_numpy(one), torch.from_numpy(two), torch.zeros(2, 32, 32) > 1)[0]
    )


def test_attributes_by_hand(seeded):
    one, two = (
        {n: torch.randn(3, 4, generator=seeded(s + k)).log_softmax(1) for k, n in enumerate("ab")} for s in (0, 9)
    )
    distance = [np.abs(np.exp(one[n].numpy()) - np.exp(two[n].numpy())).sum(1) / 2 for n in "ab"]
    assert factors.attribute_error(one, two, {"a": "x", "b": "y", "unknown": "z"}).numpy() == pytest.approx(
        np.mean(distance, 0), rel=1e-5
    )
    assert factors.attribute_error(one, two, {}).isnan().all()


def test_the_constants_are_what_the_world_gives():
    found = rendered.spreads(3, first=50, frames=1, size=128)
    for name, spread in factors.SPREADS.items():
        if name in found:  # nothing passes before these three
            assert found[name] == pytest.approx(spread, rel=0.7), name
    for name, still in factors.NOISE.items():
        assert still < 0.05 * factors.SPREADS[name], name


def test_a_world_in_windows_is_the_world(person):
    whole = rendered.world_of(render_clip(person, frames=5, fps=5.0, size=64, layers=True))
    start = 0
    for part in iter_clip(person, frames=5, fps=5.0, size=64, layers=True, window=2):
        stop = start + len(part.frames)
        found, expected = rendered.world_of(part), whole.part(slice(start, stop))
        for name in ("flow", "visible", "occluder", "background"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        start = stop
    assert whole.visible.dtype == whole.occluder.dtype == torch.bool
    with pytest.raises(ValueError, match="layers=True"):
        rendered.world_of(render_clip(person, frames=1, size=64))


def test_pools_show_other_people_with_the_attributes_asked(person, asked):
    own = [pictures(clip) for clip in rendered.pool(person.attributes, 3, frames=2, size=64)]
    target = [pictures(clip) for clip in rendered.pool(asked.counterfactual, 3, frames=2, size=64)]
    assert all(clip.shape == (2, 3, 64, 64) for clip in own + target)
    assert not torch.equal(own[0], own[1]) and not torch.equal(own[0], target[0])
    x, y = (pictures(render_clip(person, frames=2, size=64, attributes=a)) for a in (None, asked.counterfactual))
    found = video_cld(x, y, own, target, truth=y)
    assert found["cld_excess"] == 0.0
    # Pixels of other people are always farther away: what the module's first lines warn of.
    assert found["cld"] == pytest.approx(math.log(0.8 + 0.2 * math.e))


def test_truths_of_several_graphs(person):
    graphs = {"true": person.graph} | {name: CausalGraph.load(name) for name in ("empty", "reversed", "absurd")}
    found = rendered.told(person, {"age": "young"}, graphs)
    assert found["true"] == person.counterfactual({"age": "young"}).attributes
    assert found["empty"] == person.attributes | {"age": "young"} == rendered.paths(person, {"age": "young"})["direct"]
    bald = rendered.told(person, {"bald": "yes"}, graphs)
    assert bald["absurd"]["hat"] == "yes" and bald["reversed"]["age"] == "old"
    assert all(attributes["glasses"] == person.attributes["glasses"] for attributes in bald.values())
    with pytest.raises(InterventionError, match="hat"):
        rendered.told(person, {"hat": "yes"}, graphs)


def test_identity_vectors_tell_the_truth_from_doing_nothing(person):
    """What pixels cannot: the same pools, looked at by the identity encoder."""
    attributes = person.counterfactual({"gender": "man"}).attributes
    settings = {"frames": 1, "size": 128}
    network = EYES.get("identity", IdentityNet.from_folder)

    def look(clips):
        return [network(rendered.face_crops(clip) * 2 - 1) for clip in clips]

    with torch.inference_mode():
        own, target = (look(rendered.pool(a, 4, **settings)) for a in (person.attributes, attributes))
        x, y = look(render_clip(person, **settings, attributes=a) for a in (None, attributes))
    truth, nothing = video_cld(x, y, own, target)["cld"], video_cld(x, x, own, target, truth=y)
    assert nothing["cld"] == pytest.approx(math.log(0.8 + 0.2 * math.e))
    assert truth < nothing["cld"] and nothing["cld_excess"] > 0


def test_a_dose_of_the_truth(person, asked):
    settings = {"frames": 2, "size": 64}
    young = asked.counterfactual
    clips = [rendered.dosed(person, young, strength, **settings).frames for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert np.array_equal(clips[0], render_clip(person, **settings).frames)
    assert np.array_equal(clips[-1], render_clip(person, **settings, attributes=young).frames)
    away = [np.abs(clip.astype(float) - clips[0]).mean() for clip in clips]
    assert dose(away, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]).rank == pytest.approx(1)
    with pytest.raises(ValueError, match="must be 0..1, got 1.5"):
        rendered.dosed(person, young, 1.5, **settings)
