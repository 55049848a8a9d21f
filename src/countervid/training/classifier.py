"""Statistics of identity vectors, and the linear classifier that attribute edits come from, on anybody's pictures.

The published training runs Adam through the whole encoder over ten passes of CelebA-HQ. The encoder does not learn: so
every picture is looked at once (and once mirrored), its vector kept, and the convex problem solved in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from countervid.autoencoder import celeba
from countervid.autoencoder.classifier import AttributeClassifier, LatentStatistics, fit
from countervid.autoencoder.faces import FaceNetworks
from countervid.errors import ConfigError, ModelError
from countervid.files.names import utf8_path
from countervid.files.whole import replacing
from countervid.models.finite import check_finite
from countervid.phantom.dataset import ATTRIBUTES, PhantomFrames
from countervid.phantom.scm import DOMAINS
from countervid.training.crops import images
from countervid.training.videos import VideoFolders, read_frame

Progress = Callable[[int, int], None]

ANNOTATIONS = "CelebAMask-HQ-attribute-anno.txt"
PICTURES = "CelebA-HQ-img"
_BATCH = 32


def read_celeba(root: Path) -> tuple[list[Path], Tensor]:
    """CelebA-HQ as it is distributed: pictures, and which of the forty attributes each shows.

    Args:
        root: Holds `CelebAMask-HQ-attribute-anno.txt` and the folder `CelebA-HQ-img`.

    Returns:
        Files, and labels int64 `(n, 40)`, 1 where the attribute is there. Pictures that are not there are left out.

    Raises:
        ConfigError: The annotations are missing or of another kind, or there are no pictures.
    """
    path = root / ANNOTATIONS
    if not path.is_file():
        raise ConfigError(f"`{root}` is not CelebA-HQ: it has no `{ANNOTATIONS}`. Give the folder that holds it.")
    lines = path.read_text(encoding="utf-8").splitlines()
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    if names != celeba.ATTRIBUTES:
        raise ConfigError(f"`{path}` does not list the forty attributes of CelebA in its second line.")
    files, labels = [], []
    for number, line in enumerate(lines[2:], start=3):
        name, *values = line.split()
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise ConfigError(f"`{path}`, line {number}: not a file name and forty times 1 or -1.")
        picture = root / PICTURES / name
        if picture.exists():
            files.append(picture)
            labels.append([value == "1" for value in values])
    if not files:
        raise ConfigError(f"`{root / PICTURES}` holds none of the pictures that `{path.name}` names.")
    return files, torch.tensor(labels).long()


@torch.no_grad()
def vectors_of(
    files: Sequence[Path], networks: FaceNetworks, device: torch.device, progress: Progress | None = None
) -> Tensor:
    """Identity vectors of pictures and of their mirror images, `(2 n, D)`, pair by pair."""
    found = []
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        pictures = torch.stack([read_frame(path, flip, networks.size) for path in part for flip in (False, True)])
        found.append(networks.identity(pictures.to(device)).cpu())
        if progress is not None:
            progress(start + len(part), len(files))
    return torch.cat(found)


@torch.no_grad()
def vectors_of_people(
    frames: PhantomFrames, networks: FaceNetworks, device: torch.device, progress: Progress | None = None
) -> Tensor:
    """Identity vectors of all crops of rendered people, `(N, D)`."""
    found = []
    for rows in torch.arange(len(frames)).split(_BATCH):
        found.append(networks.identity(images(frames, rows).to(device)).cpu())
        if progress is not None:
            progress(int(rows[-1]) + 1, len(frames))
    return torch.cat(found)


def statistics_of(batches: Iterator[Tensor], channels: int) -> LatentStatistics:
    """Statistics of vectors `(n, D)` that come in batches."""
    statistics = LatentStatistics(channels)
    for batch in batches:
        statistics.update(batch)
    return statistics


def frames_of(root: Path, split: str = "test") -> list[Path]:
    """All frames of a split, for statistics.

    Raises:
        ConfigError: There is no such split.
    """
    return [path for video in VideoFolders.scan(root, split, least=1).videos for path in video]


def save_statistics(statistics: LatentStatistics, path: Path) -> None:
    """Write mean, spread, covariance and count as safetensors, float64, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance, "count": torch.tensor(statistics.count)}
    with replacing(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def load_statistics(path: Path) -> LatentStatistics:
    """What `save_statistics` wrote.

    Raises:
        ModelError: It is something else.
    """
    try:
        with utf8_path(path) as name:
            tensors = load_file(name)
        check_finite(tensors, path)
        return LatentStatistics.of(tensors["mean"], tensors["covariance"], int(tensors["count"]))
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(
            f"`{path}` holds no latent statistics ({error}). Make them: `countervid train statistics`."
        ) from None


def train_celeba(
    root: Path,
    networks: FaceNetworks,
    device: torch.device,
    *,
    statistics: LatentStatistics | None = None,
    progress: Progress | None = None,
) -> tuple[AttributeClassifier, dict[str, float]]:
    """A classifier of CelebA's attributes, and its accuracy on every tenth picture, which it did not learn from.

    Attributes that all or none of the pictures show are left out, for there is nothing to learn.
    """
    files, labels = read_celeba(root)
    vectors = vectors_of(files, networks, device, progress)
    double = labels.repeat_interleave(2, dim=0)
    held = torch.arange(len(files)).repeat_interleave(2) % 10 == 9
    learnt = double[~held]
    usable = [column for column in range(learnt.shape[1]) if 0 < int(learnt[:, column].sum()) < len(learnt)]
    if not usable:
        raise ConfigError(f"{len(files)} pictures of `{root}` do not differ in any attribute. Give more of them.")
    variables = {celeba.ATTRIBUTES[column]: celeba.VALUES for column in usable}
    model = fit(variables, vectors[~held], learnt[:, usable], statistics=statistics)
    figures: dict[str, float] = {}
    if held.any():
        right = ((model(vectors[held]) > 0).long() == double[held][:, usable]).float().mean(0)
        figures = dict(zip(variables, (100 * right).tolist(), strict=True))
    return model, figures


def train_phantom(
    people: PhantomFrames,
    others: PhantomFrames,
    networks: FaceNetworks,
    device: torch.device,
    *,
    statistics: LatentStatistics | None = None,
    progress: Progress | None = None,
) -> tuple[AttributeClassifier, dict[str, float]]:
    """A classifier of rendered people's attributes, and its accuracy on `others`, whom no network has seen.

    Raises:
        ConfigError: Too few people: some attribute has one value among all of them.
    """
    labels, truth = (torch.stack([part.attribute(name) for name in ATTRIBUTES], 1) for part in (people, others))
    for column, name in enumerate(ATTRIBUTES):
        if labels[:, column].unique().numel() < len(DOMAINS[name]):
            raise ConfigError(f"{len(people)} crops do not show every value of `{name}`. Render more `--people`.")
    vectors = vectors_of_people(people, networks, device, progress)
    model = fit({name: DOMAINS[name] for name in ATTRIBUTES}, vectors, labels, statistics=statistics, decay=1e-3)
    said = model.probabilities(vectors_of_people(others, networks, device))
    right = {name: (said[name].argmax(1) == truth[:, i]).float().mean() for i, name in enumerate(ATTRIBUTES)}
    return model, {name: 100 * float(value) for name, value in right.items()}
