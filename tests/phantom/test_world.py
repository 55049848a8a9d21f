from pathlib import Path

import cv2
import numpy as np
import pytest

from countervid.errors import ConfigError, InterventionError
from countervid.phantom.render import render
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import iter_clip, make_scene, phantom_graph, render_clip, sample_person

SIZE = 64
BACKGROUND, SKIN, OCCLUDER = 0, 1, 8


def pictures(person, do=None, frames=1, layers=False, **kwargs):
    attributes = person.counterfactual(do).attributes if do else None
    return render_clip(person, frames=frames, size=SIZE, attributes=attributes, layers=layers, **kwargs)


def test_the_graph_and_the_renderer_agree_on_attributes():
    assert {name: v.values for name, v in phantom_graph().variables.items()} == DOMAINS


def test_the_same_seed_gives_the_same_bytes():
    first, again = pictures(sample_person(3), frames=2), pictures(sample_person(3), frames=2)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.landmarks, again.landmarks)
    assert not np.array_equal(first.frames, pictures(sample_person(4), frames=2).frames)


def test_another_take_is_the_same_person_elsewhere():
    person = sample_person(3)
    a, b = person.scene(0), person.scene(1)
    assert not np.array_equal(a.key_light, b.key_light)
    assert not np.array_equal(person.motion(0, 5).yaw, person.motion(1, 5).yaw)
    assert not np.array_equal(pictures(person).frames, pictures(person, take=1).frames)


def test_faces_are_well_lit_in_every_scene():
    for seed in range(40):
        scene = make_scene(seed, 0)
        assert scene.key_light[2] > 0.3  # from in front
        assert np.linalg.norm(scene.key_light) == pytest.approx(1, abs=1e-5)
        assert scene.exposure * (scene.key_colour.mean() + scene.fill.mean()) > 1.0


@pytest.mark.parametrize("name", list(DOMAINS))
def test_each_attribute_shows_and_leaves_the_background_alone(name):
    person = next(
        p for p in map(sample_person, range(200)) if p.attributes["bald"] == "no" and p.attributes["hat"] == "no"
    )
    value = next(v for v in DOMAINS[name] if v != person.attributes[name])
    before, after = pictures(person, layers=True), pictures(person, {name: value}, layers=True)
    differs = np.asarray(before.frames != after.frames).any(-1)
    face = np.asarray(before.masks != BACKGROUND)
    assert differs.sum() >= 0.01 * face.sum(), "the attribute cannot be seen"
    behind = (np.asarray(before.masks) == BACKGROUND) & (np.asarray(after.masks) == BACKGROUND)
    # Masks tell what fills most of a pixel: an edge pixel may hold a little of the person.
    near = cv2.dilate((~behind).astype(np.uint8)[0], np.ones((3, 3), np.uint8)).astype(bool)[None]
    assert not (differs & behind & ~near).any()
    assert (behind & ~near).sum() > 100


def test_doing_what_is_already_so_changes_nothing():
    person = sample_person(8)
    same = person.counterfactual({"gender": person.attributes["gender"]})
    assert same.attributes == person.attributes and same.changes == ()


def test_a_counterfactual_keeps_pose_and_landmarks_of_what_it_does_not_touch():
    person = next(p for p in map(sample_person, range(100)) if p.attributes["glasses"] == "no")
    before, after = pictures(person), pictures(person, {"glasses": "yes"})
    np.testing.assert_array_equal(before.landmarks, after.landmarks)


def test_interventional_people_cover_what_observed_people_never_are():
    people = [sample_person(seed, interventional=True) for seed in range(150)]
    observed = [sample_person(seed) for seed in range(150)]

    def bearded_women(group):
        return sum(p.attributes["gender"] == "woman" and p.attributes["beard"] == "yes" for p in group)

    assert bearded_women(people) > 15 and bearded_women(observed) == 0
    for person in people[:20]:  # their counterfactuals are defined as well
        other = person.counterfactual({"age": "old" if person.attributes["age"] == "young" else "young"})
        assert other.attributes["gender"] == person.attributes["gender"]


def test_windows_equal_the_whole_clip():
    person = sample_person(5)
    whole = pictures(person, frames=7, layers=True)
    parts = list(iter_clip(person, frames=7, size=SIZE, layers=True, window=3))
    assert [len(p.frames) for p in parts] == [3, 3, 1]
    for name in ("frames", "landmarks", "masks", "flow", "visible"):
        joined = np.concatenate([np.asarray(getattr(p, name)) for p in parts])
        np.testing.assert_array_equal(joined, np.asarray(getattr(whole, name)), err_msg=name)


def test_wrong_requests_say_what_is_wrong():
    person = sample_person(0)
    with pytest.raises(InterventionError, match="species"):
        person.counterfactual({"species": "cat"})
    with pytest.raises(InterventionError, match="ancient"):
        person.counterfactual({"age": "ancient"})
    with pytest.raises(ConfigError, match="at least one frame"):
        person.motion(0, 0)
    with pytest.raises(ConfigError, match="fps"):
        person.motion(0, 5, fps=0)


def detector(size: int) -> cv2.FaceDetectorYN:
    from countervid.models import bundled

    model = next(iter(sorted(Path(bundled("yunet")).rglob("*.onnx"))), None)
    assert model is not None
    return cv2.FaceDetectorYN.create(str(model), "", (size, size), score_threshold=0.5)


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.slow)], ids=["a dozen people", "500 people"])
def test_a_public_detector_finds_the_people(count):
    size, found = 256, 0
    net = detector(size)
    for seed in range(count):
        person = sample_person(seed)
        motion = person.motion_at(0, np.array([4.0]))  # nothing passes before a face at that time
        made = render(person.look(), person.scene(0), motion, size)
        _, faces = net.detect(np.ascontiguousarray(made.frames[0][..., ::-1]))
        if faces is not None and float(faces[:, -1].max()) >= 0.8:
            found += 1
    assert found >= 0.98 * count, f"{found} of {count}"


def test_layers_fit_the_picture():
    made = pictures(sample_person(2), frames=2, layers=True)
    assert np.asarray(made.masks).max() <= OCCLUDER
    assert (np.asarray(made.masks) == SKIN).mean() > 0.03
    assert made.flow is not None and made.flow.shape == (1, SIZE, SIZE, 2)
