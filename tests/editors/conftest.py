"""Toy weights and a clip of a photograph, made once."""

import pytest

from countervid.clip import Clip
from tiny_models import astronaut_frames, save_tiny_models


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    return save_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_clip():
    return Clip.from_frames(astronaut_frames())
