"""One finished run on toy weights, made once."""

import pytest

from countervid.clip import Clip
from countervid.editors import load_editor
from countervid.metrics.base import Eyes
from countervid.metrics.examiner import Examiner, ExaminerConfig
from countervid.models.folder import save_model
from countervid.runs.run import counterfactual
from tiny_models import VARIABLES, astronaut_frames, save_tiny_models

FACTUAL = {
    "age": "young", "gender": "woman", "beard": "no", "bald": "no", "moustache": "no", "glasses": "no",
    "smiling": "yes", "lipstick": "no", "hat": "no", "hair_colour": "brown",
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    return save_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def eyes(tiny_models):
    variables = tuple(f"{name}={' '.join(values)}" for name, values in VARIABLES.items())
    examiner = Examiner(ExaminerConfig(variables=variables, width=8)).eval()
    save_model(tiny_models / "examiner", examiner, examiner.config)
    return Eyes(folders={"examiner": str(tiny_models / "examiner"), "identity": str(tiny_models / "identity")})


@pytest.fixture(scope="session")
def editor(tiny_models, tmp_path_factory):
    return load_editor("dva", tiny_models, cache=tmp_path_factory.mktemp("cache"), steps=3, window=8, batch=4)


@pytest.fixture(scope="session")
def footage(tmp_path_factory):
    """An mp4 of a virtual camera over a photograph, and what stands for its truth."""
    folder = tmp_path_factory.mktemp("footage")
    frames = astronaut_frames()
    Clip.from_frames(frames).write(folder / "talk.mp4", crf=4)
    brighter = frames.clone()
    brighter[:, 40:90, 40:100] = (brighter[:, 40:90, 40:100].int() + 40).clamp(max=255).to(frames.dtype)
    Clip.from_frames(brighter).write(folder / "truth.mp4", crf=4)
    return folder


@pytest.fixture(scope="session")
def run(editor, footage, eyes):
    """`run(**changes)`: the same counterfactual again, but for the changes."""

    def again(clip=None, do=None, **changes):
        return counterfactual(
            clip or Clip.read(footage / "talk.mp4"), do or {"age": "old"},
            **{"editor": editor, "factual": FACTUAL, "eyes": eyes, **changes},
        )  # fmt: skip

    return again


@pytest.fixture(scope="session")
def finished(run, footage, tmp_path_factory):
    """A finished run with the truth, in a folder."""
    return run(truth=Clip.read(footage / "truth.mp4"), out=tmp_path_factory.mktemp("runs") / "run")
