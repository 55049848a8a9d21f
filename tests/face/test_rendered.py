"""The pipeline on rendered people, whose landmarks and counterfactuals are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from countervid.face import align
from countervid.face.landmarks import FittedLandmarks
from countervid.face.parse import EllipseParser, edit_mask
from countervid.face.paste import paste
from countervid.face.pipeline import FacePipeline
from face.support import clip_of

pytestmark = pytest.mark.slow  # the renderer compiles for a minute on first use


def test_rendered_people_are_found_and_the_square_is_near_the_true_one():
    from countervid.phantom.world import render_clip, sample_person

    pipeline = FacePipeline(landmarker=FittedLandmarks(), parser=EllipseParser())
    for seed in (0, 1):
        made = render_clip(sample_person(seed), frames=8, size=256)
        track = pipeline.analyze(clip_of(torch.as_tensor(made.frames)))
        true = align.quads(made.landmarks - 0.5)  # the renderer counts from the picture's corner
        assert track.present.all()
        assert np.linalg.norm(track.quads - true, axis=-1).mean() < 0.1 * align.side(true).mean()


def test_the_true_counterfactuals_crop_pasted_comes_near_the_true_frame():
    from countervid.phantom import render
    from countervid.phantom.world import sample_person

    person = sample_person(0)
    after = person.counterfactual({"beard": "yes"}).attributes
    scene, motion, size = person.scene(0), person.motion(0, 2, 25.0), 256
    factual, truth = (render(look, scene, motion, size) for look in (person.look(), person.look(after)))
    quads = align.quads(factual.landmarks - 0.5)
    crops = [
        render(look, scene, motion, size, view=quads + 0.5, view_size=128, layers=True)
        for look in (person.look(), person.look(after))
    ]
    before, edited = (torch.as_tensor(crop.frames) for crop in crops)
    masks = edit_mask(*(torch.as_tensor(crop.masks) for crop in crops))
    source, want = torch.as_tensor(factual.frames), torch.as_tensor(truth.frames).float()
    error = {"nothing": (source - want).abs().mean()}
    for mode in ("replace", "residual", "adaptive"):
        got = paste(source, edited, quads, masks, before=before, mode=mode)
        error[mode] = (got - want).abs().mean()
    assert error["adaptive"] <= error["residual"] * 1.02 and error["adaptive"] < error["replace"]
    assert error["adaptive"] < 0.5 * error["nothing"]
