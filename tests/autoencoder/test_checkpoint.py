import gzip
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from countervid.autoencoder import celeba
from countervid.autoencoder.checkpoint import import_dva, read_tensors
from countervid.autoencoder.classifier import AttributeClassifier, LatentStatistics
from countervid.autoencoder.config import AutoencoderConfig, UNetConfig
from countervid.autoencoder.encoders import FaceEncoders, FaceParser, IdentityNetwork, LandmarkNetwork
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.errors import ModelError
from goldens_rule import FOLDER

TINY = AutoencoderConfig(
    unet=UNetConfig(size=32, model_channels=32, channel_multipliers=(1, 1), residual_blocks=1, attention_resolutions=())
)


def zeros(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Any shape in the space of one number, on disk too."""
    return torch.zeros((), dtype=dtype).expand(shape)


def released() -> dict[str, Tensor]:
    """The names, shapes and types of the released checkpoint; all numbers are zero."""
    lines = gzip.decompress((FOLDER / "keys_full.txt.gz").read_bytes()).decode().splitlines()
    tensors = {}
    for line in lines:
        name, shape, dtype = line.rsplit(" ", 2)
        tensors[name] = zeros(tuple(int(n) for n in shape.split("x") if n), getattr(torch, dtype))
    return tensors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a training of a tiny noise estimator would leave it: the frozen networks have only one size."""
    state = {name: t for name, t in released().items() if ".encoder." in name and ".linear." not in name}
    torch.manual_seed(0)
    model = DiffusionAutoencoder(TINY)
    for name, tensor in model.state_dict().items():
        for copy, scale in (("model.", 1.0), ("ema_model.", 0.5)):
            state[copy + name.removeprefix("unet.")] = scale * tensor
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    torch.save({"state_dict": state, "global_step": 3, "optimizer_states": [{"lr": 1e-4}]}, path)
    return path


def classifier_file(folder: Path, mean: Tensor) -> Path:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(40, 512, generator=generator)
    state = {
        "conds_mean": mean[None], "conds_std": torch.full((1, 512), 0.04), "classifier.weight": weight,
        "classifier.bias": torch.randn(40, generator=generator), "ema_classifier.weight": weight * 0.4,
        "ema_classifier.bias": torch.zeros(40),
    }  # fmt: skip
    path = folder / "classifier.ckpt"
    torch.save({"state_dict": state}, path)
    return path


@pytest.mark.slow  # 250 M numbers
@pytest.mark.timeout(600)
def test_the_released_checkpoint_is_consumed_and_what_is_left_is_said(tmp_path: Path) -> None:
    state = released()
    assert len(state) == 3972
    path = tmp_path / "epoch=51-step=1000000.ckpt"
    torch.save({"state_dict": state, "global_step": 1_000_000}, path)
    result = import_dva(tmp_path / "dva", path, dtype=torch.float16)
    assert result.models == ["dva", "identity", "landmarks", "parser"]
    model = DiffusionAutoencoder.from_pretrained(tmp_path / "dva" / "dva")
    assert sum(p.numel() for p in model.unet.parameters()) == 190_576_643
    used = sum(len(m.state_dict()) for m in (model, FaceEncoders()))
    assert sum(result.left.values()) == 3972 - used
    assert sorted(result.left.values(), reverse=True)[0] == 1986
    assert not any("unknown" in reason for reason in result.left)


@pytest.mark.slow  # the frozen networks alone are 60 M numbers
def test_the_averaged_weights_are_taken_and_load_again(checkpoint: Path, tmp_path: Path) -> None:
    mean = torch.linspace(-1, 1, 512) / 30
    classifier = classifier_file(tmp_path, mean)
    statistics = tmp_path / "latent.pkl"
    torch.save({"conds": torch.zeros(64, 512), "conds_mean": mean, "conds_std": torch.full((512,), 0.04)}, statistics)
    result = import_dva(
        tmp_path / "out", checkpoint, statistics=statistics, classifier=classifier, config=TINY, dtype=torch.float16
    )
    assert "Wrote dva, dva/classifier, identity" in result.sentences()[0]
    model = DiffusionAutoencoder.from_pretrained(tmp_path / "out" / "dva")
    torch.manual_seed(0)
    trained = DiffusionAutoencoder(TINY)
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], 0.5 * tensor, atol=1e-3, rtol=1e-3)
    reader = AttributeClassifier.from_pretrained(tmp_path / "out" / "dva" / "classifier")
    assert tuple(reader.variables) == celeba.ATTRIBUTES
    torch.testing.assert_close(reader.mean, mean)
    for role, kind in (("identity", IdentityNetwork), ("landmarks", LandmarkNetwork), ("parser", FaceParser)):
        assert not any(p.requires_grad for p in kind.from_pretrained(tmp_path / "out" / role).parameters())
    with pytest.raises(ModelError, match="holds ir-se-50, needed is bisenet"):
        FaceParser.from_pretrained(tmp_path / "out" / "identity")

    other = tmp_path / "other.pkl"
    torch.save({"conds_mean": mean + 0.01, "conds_std": torch.full((512,), 0.04)}, other)
    with pytest.raises(ModelError, match="statistics of another model: their `conds_mean`"):
        import_dva(tmp_path / "no", checkpoint, statistics=other, classifier=classifier, config=TINY)
    with pytest.raises(ModelError, match="of another configuration"):
        bigger = AutoencoderConfig(unet=UNetConfig(**{**TINY.unet.__dict__, "model_channels": 64}))
        import_dva(tmp_path / "no", checkpoint, config=bigger)
    assert not (tmp_path / "no").exists()


def test_files_of_something_else_are_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}}, path)
    with pytest.raises(
        ModelError, match=r"something else: it lacks `input_blocks.0.0.weight` and holds `conv1.weight`"
    ):
        import_dva(tmp_path / "out", path)
    torch.save({"state_dict": {"input_blocks.0.0.weight": torch.zeros(128, 3, 3, 3)}}, path)
    with pytest.raises(ModelError, match="lacks .* of the .* tensors of DiffusionAutoencoder"):
        import_dva(tmp_path / "out", path, config=TINY)
    assert not (tmp_path / "out").exists()


class Harmful:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_that_run_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": Harmful()}, path)
    with pytest.raises(ModelError, match="could run as code"):
        read_tensors(path)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ModelError, match="could run as code|is damaged"):
        read_tensors(tmp_path / "plain.pkl")
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize("size", [0, 3, 1000])
def test_truncated_and_missing_files_are_said(tmp_path: Path, size: int) -> None:
    whole = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(4000)}}, whole)
    path = tmp_path / "cut.ckpt"
    path.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(ModelError, match="cut.ckpt` is damaged"):
        read_tensors(path)
    path.write_bytes(b"hello, this is no checkpoint")
    with pytest.raises(ModelError, match="cut.ckpt` is damaged"):
        read_tensors(path)
    with pytest.raises(ModelError, match="There is no file"):
        read_tensors(tmp_path / "none.ckpt")


def test_supposed_value_means_are_those_of_a_normal_cloud() -> None:
    generator = torch.Generator().manual_seed(3)
    shape = torch.randn(4, 4, generator=generator).double()
    people = torch.randn(400_000, 4, generator=generator).double() @ shape.T + 0.3
    model = AttributeClassifier({"a": ("no", "yes"), "b": ("no", "yes")}, 4)
    statistics = LatentStatistics(4)
    statistics.update(people)
    model.set_statistics(statistics)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([[1.0, 0.5, 0.0, -1.0], [0.0, 2.0, 1.0, 0.0]]))
        model.classifier.bias.copy_(torch.tensor([0.7, -1.5]))
    model.suppose_value_means()
    yes = model(people.float()) > 0
    normal = model.normalise(people.float())
    for column, name in enumerate(("a", "b")):
        for value, chosen in (("no", ~yes[:, column]), ("yes", yes[:, column])):
            torch.testing.assert_close(model.value_mean(name, value), normal[chosen].mean(0), atol=0.01, rtol=0)


def test_graph_words_are_said_in_celebas_and_read_back() -> None:
    known = dict.fromkeys(celeba.ATTRIBUTES, celeba.VALUES)
    assert len(celeba.ATTRIBUTES) == 40 and celeba.ATTRIBUTES[22] == "Mustache" and celeba.ATTRIBUTES[39] == "Young"
    assert celeba.meaning("beard", "yes", known) == {"No_Beard": "no"}
    grey = celeba.meaning("hair_colour", "grey", known)
    assert grey == {"Black_Hair": "no", "Brown_Hair": "no", "Blond_Hair": "no", "Gray_Hair": "yes"}
    assert celeba.meaning("hair_colour", "red", known) is None
    assert celeba.meaning("beard", "yes", {"beard": ("no", "yes")}) == {"beard": "yes"}
    assert celeba.meaning("beard", "yes", {"age": ("young", "old")}) is None
    sure = {name: {"no": 0.9, "yes": 0.1} for name in celeba.ATTRIBUTES} | {"Blond_Hair": {"no": 0.2, "yes": 0.8}}
    found = celeba.reading(sure)
    assert found["age"]["old"] == pytest.approx(0.9) and found["beard"]["yes"] == pytest.approx(0.9)
    assert max(found["hair_colour"], key=found["hair_colour"].__getitem__) == "blond"
    assert sum(found["hair_colour"].values()) == pytest.approx(1)
