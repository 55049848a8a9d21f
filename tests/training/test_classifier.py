from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from countervid.autoencoder import celeba
from countervid.autoencoder.classifier import AttributeClassifier, LatentStatistics
from countervid.autoencoder.faces import FaceNetworks
from countervid.cli.main import app
from countervid.errors import ConfigError, ModelError
from countervid.phantom.dataset import DatasetConfig, PhantomFrames, people_of, render_dataset
from countervid.phantom.scm import DOMAINS
from countervid.training.classifier import (
    ANNOTATIONS,
    PICTURES,
    load_statistics,
    read_celeba,
    save_statistics,
    train_celeba,
    train_phantom,
    vectors_of,
    vectors_of_people,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures: pale ones smile, striped ones wear a hat; one is missing."""
    root = tmp_path_factory.mktemp("celeba")
    (root / PICTURES).mkdir()
    random = np.random.default_rng(0)
    lines = ["61", " ".join(celeba.ATTRIBUTES)]
    for index in range(61):
        pale, striped = random.random() < 0.5, random.random() < 0.5
        pixels = random.integers(0, 40, (64, 64, 3)) + (150 if pale else 30)
        pixels[:: 4 if striped else 64] = 255
        if index < 60:
            Image.fromarray(pixels.astype(np.uint8)).save(root / PICTURES / f"{index}.jpg")
        shown = {"Smiling": pale, "Wearing_Hat": striped}
        lines.append(f"{index}.jpg " + " ".join("1" if shown.get(name) else "-1" for name in celeba.ATTRIBUTES))
    (root / ANNOTATIONS).write_text("\n".join(lines) + "\n")
    return root


def test_attributes_are_learnt_and_those_that_never_vary_are_left_out(root: Path, networks: FaceNetworks) -> None:
    files, labels = read_celeba(root)
    assert len(files) == 60 and labels.shape == (60, 40)
    model, figures = train_celeba(root, networks, torch.device("cpu"))
    assert tuple(model.variables) == ("Smiling", "Wearing_Hat") == tuple(figures)
    assert figures["Smiling"] > 80
    vectors = vectors_of(files, networks, torch.device("cpu"))
    torch.testing.assert_close(
        model.mean, vectors.double()[[i for i in range(120) if i // 2 % 10 != 9]].mean(0).float()
    )


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    statistics = LatentStatistics(6)
    statistics.update(z[:30])
    save_statistics(statistics, tmp_path / "statistics.safetensors")
    again = load_statistics(tmp_path / "statistics.safetensors")
    for one in (statistics, again):
        one.update(z[30:])  # more can be taken in later
    torch.testing.assert_close(again.covariance, statistics.covariance)
    torch.testing.assert_close(again.std.float(), z.std(0))
    (tmp_path / "other").write_text("no")
    with pytest.raises(ModelError, match="holds no latent statistics"):
        load_statistics(tmp_path / "other")


def test_the_commands_write_what_edit_takes(root: Path, models: Path, tmp_path: Path) -> None:
    call = CliRunner().invoke
    for video in ("a", "b"):
        folder = tmp_path / "set" / "test" / video
        folder.mkdir(parents=True)
        for picture in sorted((root / PICTURES).iterdir())[:5]:
            (folder / picture.name).write_bytes(picture.read_bytes())
    stats = tmp_path / "statistics.safetensors"
    options = ["--networks", str(models), "--cpu"]
    result = call(app, ["train", "statistics", "--data", str(tmp_path / "set"), "--out", str(stats), *options])
    assert result.exit_code == 0, result.output
    assert "20 vectors" in result.output and load_statistics(stats).count == 20
    own = tmp_path / "own"
    command = ["train", "classifier", "--data", str(root), "--model", str(own), "--statistics", str(stats), *options]
    result = call(app, command)
    assert result.exit_code == 0, result.output
    reader = AttributeClassifier.from_pretrained(own / "dva" / "classifier")
    torch.testing.assert_close(reader.mean, load_statistics(stats).mean.float())


def test_rendered_people_need_no_files(networks: FaceNetworks, models: Path, tmp_path: Path) -> None:
    people = people_of("train", 40)
    frames = PhantomFrames(render_dataset(tmp_path / "people", people, DatasetConfig(takes=1, frames=1)))
    reader, figures = train_phantom(frames, frames, networks, torch.device("cpu"))
    assert reader.variables == DOMAINS and set(figures) == set(DOMAINS)
    vectors = vectors_of_people(frames, networks, torch.device("cpu"))
    said = reader.probabilities(vectors)["beard"].argmax(1)
    assert (
        100 * (said == frames.attribute("beard")).float().mean() == pytest.approx(figures["beard"])
        and figures["beard"] > 70
    )
    with pytest.raises(ConfigError, match="Render more `--people`"):
        train_phantom(PhantomFrames(frames.folder, range(32, 40)), frames, networks, torch.device("cpu"))
    stats = tmp_path / "statistics.safetensors"
    command = ["train", "statistics", "--data", "phantom", "--people", "1", "--out", str(stats), "--networks"]
    result = CliRunner().invoke(app, [*command, str(models), "--cpu"])
    assert result.exit_code == 0, result.output
    assert load_statistics(stats).count == 4  # two takes, each with its counterfactual


def test_what_is_not_celeba_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not CelebA-HQ"):
        read_celeba(tmp_path)
    path = tmp_path / ANNOTATIONS
    path.write_text("1\nA B\n")
    with pytest.raises(ConfigError, match="forty attributes"):
        read_celeba(tmp_path)
    head = "\n".join((root / ANNOTATIONS).read_text().splitlines()[:2])
    path.write_text(f"{head}\n0.jpg 1 -1\n")
    with pytest.raises(ConfigError, match="line 3"):
        read_celeba(tmp_path)
    path.write_text((root / ANNOTATIONS).read_text())
    with pytest.raises(ConfigError, match="holds none of the pictures"):
        read_celeba(tmp_path)
