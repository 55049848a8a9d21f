"""The watermark: faint, confined to the edit, read back after re-encoding; and the container's statement."""

import io

import av
import cv2
import numpy as np
import pytest
import torch
from skimage import data

from countervid.clip import Clip
from countervid.runs import provenance


def scene(frames=40, size=256):
    """A camera that pans over a photograph, with film grain."""
    picture, grain = data.astronaut(), np.random.default_rng(0)
    out = np.empty((frames, size, size, 3), dtype=np.uint8)
    for index in range(frames):
        scale = size / (300 + 40 * np.sin(index / 9))
        shift = np.array([[scale, 0, -60 + 12 * np.sin(index / 10)], [0, scale, -5 + 5 * np.cos(index / 7)]])
        view = cv2.warpAffine(picture, shift, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        out[index] = np.clip(view + grain.normal(0, 1, view.shape), 0, 255).round()
    return torch.from_numpy(out)


@pytest.fixture(scope="module")
def pair():
    """A clip and an edit of it inside an ellipse of a seventh of the frame."""
    source = scene()
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    face = ((y - 110) / 70) ** 2 + ((x - 120) / 55) ** 2 < 1
    edited = source.clone()
    edited[:, face] = (edited[:, face].int() + 9).clamp(0, 255).to(torch.uint8)
    return source, edited, face


def encoded(frames, crf):
    """The frames after H.264 and back."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        return torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))


def score(frames):
    return provenance.watermark_score(Clip.from_frames(frames))


def test_the_mark_stays_where_the_edit_is(pair):
    source, edited, face = pair
    marked = provenance.mark(source, edited)
    assert torch.equal(marked[:, ~face], source[:, ~face])
    error = (marked[:, face].double() - edited[:, face].double()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 38  # dB: below what is noticed in moving skin


def test_no_edit_no_mark(pair):
    source, _, _ = pair
    assert torch.equal(provenance.mark(source, source), source)


@pytest.mark.parametrize("crf", [16, 23])
def test_the_mark_survives_the_codec(pair, crf):
    source, edited, _ = pair
    first = encoded(provenance.mark(source, edited), 16)
    assert score(first if crf == 16 else encoded(first, crf)) > provenance.THRESHOLD + 1


def test_a_cropped_video_still_shows_it(pair):
    source, edited, _ = pair
    assert score(encoded(provenance.mark(source, edited), 16)[:, 21:240, 37:230]) > provenance.THRESHOLD


@pytest.mark.parametrize("crf", [16, 28])
def test_other_videos_do_not_show_it(pair, crf):
    source, edited, _ = pair
    assert score(encoded(edited, crf)) < 5
    assert score(encoded(source.flip(0), crf)) < 5


def test_flat_pictures_score_nothing():
    assert score(torch.full((3, 80, 70, 3), 128, dtype=torch.uint8)) == 0.0


def test_the_container_says_so(pair, tmp_path):
    source, edited, _ = pair
    path = tmp_path / "marked.mp4"
    tags = provenance.metadata({"age": "old"}, version="0.1", editor="dva")
    Clip.from_frames(provenance.mark(source, edited)).write(path, metadata=tags)
    marks = provenance.verify(Clip.read(path))
    assert marks.statement is not None and marks.statement["do"] == {"age": "old"}
    assert marks.watermarked and marks.synthetic
    plain = tmp_path / "plain.mp4"
    Clip.from_frames(source[:8]).write(plain)
    assert not provenance.verify(Clip.read(plain)).synthetic
