import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from countervid.autoencoder.config import AutoencoderConfig, LossConfig, UNetConfig
from countervid.autoencoder.faces import FaceNetworks
from countervid.errors import ConfigError, ModelError
from countervid.phantom.dataset import DatasetConfig, PhantomFrames, people_of, render_dataset
from countervid.training.autoencoder import PRESETS, FolderSource, PhantomSource, TrainConfig, train
from countervid.training.videos import VideoFolders

TINY = AutoencoderConfig(
    unet=UNetConfig(
        size=16, in_channels=4, model_channels=8, channel_multipliers=(1, 2), residual_blocks=1,
        attention_resolutions=(), embed_channels=16, condition_channels=16, norm_groups=4, dropout=0.1,
    ),
    identity_channels=128,
    clip=False,
)  # fmt: skip
QUICK = TrainConfig(
    model=TINY, steps=6, videos=2, frames=2, precision="no", lr=1e-3, save_every=3, sample_every=6, validate_every=3,
    log_every=2, sample_steps=2, loss=LossConfig(regulariser_gain=3.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PhantomSource:
    people = people_of("validation", 4)
    folder = render_dataset(tmp_path_factory.mktemp("people"), people, DatasetConfig(takes=1, frames=2))
    return PhantomSource(PhantomFrames(folder, people))


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_stopped_and_resumed_training_is_the_same_bit_for_bit(
    networks: FaceNetworks, source: PhantomSource, models: Path, tmp_path: Path
) -> None:
    for config in (QUICK, replace(QUICK, accumulate=2, sample_every=100)):
        name = f"accumulate-{config.accumulate}"
        whole, halves = tmp_path / name / "whole", tmp_path / name / "halves"
        keep = {"vae": models / "vae", "identity": models / "identity"}
        figures = train(source, source, networks, whole, config, cpu=True, keep=keep)
        train(source, source, networks, halves, replace(config, steps=3), cpu=True)
        train(source, source, networks, halves, config, cpu=True)
        first, second = (load_file(folder / "dva" / "model.safetensors") for folder in (whole, halves))
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert lines(whole)[-1]["validation_loss"] == pytest.approx(figures["validation_loss"], abs=1e-5)
        assert {"loss", "images_per_second", "memory_gb"} <= lines(whole)[0].keys()
        if config is QUICK:
            assert Image.open(whole / "samples" / "00000006.png").size[0] == 4 * 128
        assert (whole / "vae" / "config.json").exists()


def test_an_interruption_costs_no_more_than_the_time_since_the_last_state(
    networks: FaceNetworks, source: PhantomSource, tmp_path: Path
) -> None:
    config = replace(QUICK, save_every=100, save_seconds=0.0)

    def stop(step: int, means: object) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(source, source, networks, tmp_path / "stopped", config, cpu=True, report=stop)
    assert torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["step"] == 3
    for folder in ("stopped", "whole"):
        train(source, source, networks, tmp_path / folder, config, cpu=True)
    first, second = (load_file(tmp_path / name / "dva" / "model.safetensors") for name in ("stopped", "whole"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    stopped, whole = ([line["step"] for line in lines(tmp_path / name)] for name in ("stopped", "whole"))
    assert stopped == whole  # what was logged after the state is forgotten and logged again


def test_training_learns(networks: FaceNetworks, source: PhantomSource, tmp_path: Path) -> None:
    config = replace(
        QUICK,
        steps=32,
        validate_every=16,
        sample_every=100,
        loss=LossConfig(noise_terms=1, regulariser_weight=0),
        ema=0.5,
    )
    train(source, source, networks, tmp_path, config, cpu=True)
    losses = [line["validation_loss"] for line in lines(tmp_path) if "validation_loss" in line]
    assert len(losses) == 2 and losses[-1] < 0.97 * losses[0]


def test_what_cannot_go_on_is_said_and_nothing_is_lost(
    networks: FaceNetworks, source: PhantomSource, tmp_path: Path
) -> None:
    train(source, source, networks, tmp_path, replace(QUICK, steps=3), cpu=True)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ConfigError, match="no tracker `nonsense`. There are: .*tensorboard"):
        train(source, source, networks, tmp_path, QUICK, cpu=True, trackers=("nonsense",))
    with pytest.raises(ModelError, match="another training|another lr"):
        train(source, source, networks, tmp_path, replace(QUICK, lr=1.0), cpu=True)
    fresh = tmp_path / "nan"

    class Breaking:
        def batch(self, generator: torch.Generator, step: int, videos: int, frames: int):
            pictures, landmarks = source.batch(generator, step, videos, frames)
            return pictures / (step < 2), landmarks

    with pytest.raises(ModelError, match="stopped at step 2: the loss is not a number"):
        train(Breaking(), source, networks, fresh, replace(QUICK, save_every=1), cpu=True)
    kept = torch.load(fresh / "state.pt", weights_only=True)
    assert kept["step"] == 2 and all(value.isfinite().all() for value in kept["model"].values())
    assert (tmp_path / "state.pt").read_bytes() == before


def test_presets_are_the_published_numbers(networks: FaceNetworks) -> None:
    paper = PRESETS["paper-256"](networks)
    assert (paper.videos * paper.frames, paper.lr, paper.ema, paper.precision) == (16, 1e-4, 0.9999, "fp16")
    assert paper.loss.distance == "l1" and paper.loss.noise_terms == 2 and paper.loss.regulariser_weight == 1
    assert PRESETS["miniature"](networks).model.unet.in_channels == networks.codec.channels


def frames_of(folder: Path, count: int, size: tuple[int, int] = (40, 40)) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.full((*size, 3), 10 * index, np.uint8)
        pixels[:, : size[1] // 2] = 255
        Image.fromarray(pixels).save(folder / f"{index}.png")


def test_folders_of_frames_are_drawn_as_published(tmp_path: Path) -> None:
    for video, count in (("a", 12), ("b", 5), ("c", 4), ("short", 3)):
        frames_of(tmp_path / "train" / video, count)
    frames_of(tmp_path / "train" / "wide", 4, (40, 60))
    (tmp_path / "train" / "a" / "broken.png").write_bytes(b"no picture")
    found = VideoFolders.scan(tmp_path, "train", least=4)
    assert [len(video) for video in found.videos] == [12, 5, 4]
    assert [path.name for path in found.videos[0]][-1] == "11.png"  # counted, not spelt
    reasons = "\n".join(found.skipped)
    assert "not a picture" in reasons and "60 x 40" in reasons and "3 usable frames, 4 are needed" in reasons
    source = FolderSource(found, 32, seed=0)
    pictures, landmarks = source.batch(torch.Generator().manual_seed(0), 0, 2, 4)
    assert pictures.shape == (8, 3, 32, 32) and landmarks.numel() == 0 and pictures.abs().max() <= 1
    assert torch.equal(pictures, source.batch(torch.Generator().manual_seed(0), 0, 2, 4)[0])
    dark = pictures.amin((1, 2, 3))
    assert len(set(dark[:4].tolist())) == 4  # distinct frames of one video
    left = pictures[:, 0, 16, 0] > 0.99
    assert 0 < left.sum() < 8  # each mirrored or not
    order = [found.epoch(0, 0), found.epoch(1, 0)]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in order)


@pytest.mark.slow  # two processes load everything anew
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for video in ("a", "b"):
            frames_of(tmp_path / "data" / split / video, 4, (128, 128))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1",
        "--master_port=29513", "-m", "countervid.cli.main", "train", "autoencoder", "--data", str(tmp_path / "data"),
        "--preset", "miniature", "--steps", "2", "--videos", "2", "--frames", "2", "--cpu", "--out",
        str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("For edits by attribute") == 1  # one of them speaks
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] == 2
    assert [line["step"] for line in lines(tmp_path / "out")] == [2, 2]


@pytest.mark.parametrize(
    ("videos", "words"), [((), "holds 0 usable videos"), (("a",), "at least two people"), (None, "no folder `train`")]
)
def test_data_sets_that_cannot_train_are_refused(tmp_path: Path, videos: tuple[str, ...] | None, words: str) -> None:
    if videos is not None:
        (tmp_path / "train").mkdir()
        for video in videos:
            frames_of(tmp_path / "train" / video, 5)
    with pytest.raises(ConfigError, match=words):
        VideoFolders.scan(tmp_path, "train")
