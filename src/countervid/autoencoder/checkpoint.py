"""The published weights, read from their authors' files and kept in this package's folders.

The released training checkpoint holds the network twice, as trained and averaged (`ema_model.`), with the three frozen
networks in each copy and one of them under two names. Editing uses the average; the rest is left, and said. Pickles
are read with `weights_only=True`: tensors and plain containers, nothing that runs.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from countervid.autoencoder import celeba
from countervid.autoencoder.classifier import AttributeClassifier
from countervid.autoencoder.config import AutoencoderConfig
from countervid.autoencoder.encoders import FaceParser, Frozen, IdentityNetwork, LandmarkNetwork
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.errors import ModelError
from countervid.models.finite import check_finite

M = TypeVar("M", bound=nn.Module)

AVERAGED = "ema_model."  # the copy that editing uses
_PREFIXES = (AVERAGED, "model.", "module.", "")  # of a network's names, the best first
_FROZEN: Mapping[str, tuple[str, type[Frozen]]] = {  # role -> its place in the checkpoint, its class
    "identity": ("encoder.idnet.backbone.", IdentityNetwork),
    "landmarks": ("encoder.lndnet.backbone.", LandmarkNetwork),
    "parser": ("encoder.bgnet.backbone.", FaceParser),
}
_UNUSED = (  # of the averaged copy: what inference never reads
    (
        re.compile(r"encoder\.lndnet\.backbone\.pretrain_net\."),
        "second names of the landmark network, and its old head",
    ),
    (re.compile(r"encoder\.bgnet\.backbone\.conv_out(16|32)\."), "two outputs of the parser that only trained it"),
)


@dataclass
class Imported:
    """What an import did: which models were written, and what of the files was not needed and why."""

    folder: Path
    models: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)  # reason -> tensors

    def sentences(self) -> list[str]:
        """The same, to be read."""
        return [f"Wrote {', '.join(self.models)} to {self.folder}."] + [
            f"Left {count:,} tensors: {reason}." for reason, count in self.left.items()
        ]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a file of PyTorch's, of whatever training framework; other entries are passed over.

    Raises:
        ModelError: There is no such file, it is damaged, holds code, or no tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no file `{path}`.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # a damaged pickle can fail in any way
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise ModelError(
                f"`{path}` was not read: beside tensors it holds `{code[1]}`, which could run as code. Save its "
                "tensors alone, with torch.save(state_dict, ...), on a machine that trusts it."
            ) from None
        raise ModelError(f"`{path}` is damaged or not a file of PyTorch's. Download it again.") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise ModelError(f"`{path}` holds no tensors by name. Give the checkpoint that training wrote.")
    return tensors


def import_dva(
    folder: str | Path,
    checkpoint: str | Path,
    *,
    statistics: str | Path | None = None,
    classifier: str | Path | None = None,
    frozen: Mapping[str, str | Path] | None = None,
    config: AutoencoderConfig | None = None,
    dtype: torch.dtype = torch.float32,
) -> Imported:
    """Turn the authors' files into a folder that the editor takes: `dva`, `identity`, `landmarks`, `parser`.

    All files are read and checked before anything is written.

    Args:
        folder: Where the models' folders go.
        checkpoint: The autoencoder's, with names as the released one.
        statistics: `latent.pkl`: `conds_mean`, `conds_std`, and perhaps the vectors `conds` they are of.
        classifier: Its checkpoint, with statistics of its own; without it there are no attributes to edit by.
        frozen: Files of the frozen networks by role (`identity`, `landmarks`, `parser`), where they are not to be taken
            from the checkpoint.
        config: Shape of the network; None: the published one.
        dtype: Of the stored weights. Half precision halves the 1 GB on disk and moves results by its rounding.

    Raises:
        ModelError: A file is damaged or of something else; the message names the first tensors that do not fit.
    """
    result = Imported(Path(folder))
    config = config or AutoencoderConfig()
    path, files = Path(checkpoint), dict(frozen or {})
    tensors, rest = _network(path, read_tensors(path), "input_blocks.0.0.weight")
    result.left["the network as trained; the average is used"] += rest

    model = DiffusionAutoencoder(config)
    parts = {f"unet.{name}": t for name, t in tensors.items() if not name.startswith("encoder.")}
    parts |= {name: t for name, t in tensors.items() if name.startswith("encoder.linear.")}
    _fill(model, parts, path, result.left, "of the noise estimator, unknown")

    networks: dict[str, Frozen] = {}
    for role, (place, kind) in _FROZEN.items():
        source = Path(files[role]) if role in files else path
        if role in files:
            anchor = next(name for name in kind().state_dict()).removeprefix("backbone.")
            own, _ = _network(source, read_tensors(source), anchor)
            own = {place + name: tensor for name, tensor in own.items()}
        else:
            own = {name: tensor for name, tensor in tensors.items() if name.startswith(place)}
        used: dict[str, Tensor] = {}
        for name, tensor in own.items():
            why = next((reason for pattern, reason in _UNUSED if pattern.match(name)), None)
            if why:
                result.left[why] += 1
            else:
                used["backbone." + name.removeprefix(place)] = tensor
        networks[role] = _fill(kind().freeze(), used, source, result.left, f"of the {role} network, unknown")

    reader = None
    if classifier is not None:
        reader = _classifier(Path(classifier), None if statistics is None else Path(statistics), result.left)
    elif statistics is not None:
        raise ModelError(f"The statistics `{statistics}` mean nothing without their classifier. Give that file too.")

    target = Path(folder)
    for role, network in networks.items():
        network.save_pretrained(target / role, dtype=dtype)
    if reader is not None:
        reader.save_pretrained(target / "dva" / "classifier")
    model.save_pretrained(target / "dva", dtype=dtype)
    result.models = ["dva", *(["dva/classifier"] if reader is not None else []), *networks]
    result.left = +result.left  # without those that never occurred
    return result


def _network(path: Path, tensors: Mapping[str, Tensor], anchor: str) -> tuple[dict[str, Tensor], int]:
    """The tensors below the best prefix under which `anchor` is found, without it; and how many lie elsewhere."""
    for prefix in _PREFIXES:
        if prefix + anchor in tensors:
            found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            return found, len(tensors) - len(found)
    raise ModelError(
        f"`{path}` is a checkpoint of something else: it lacks `{anchor}` and holds {_listed(tensors)}. "
        "Give the file that the authors published, or one that training wrote."
    )


def _fill(model: M, tensors: Mapping[str, Tensor], path: Path, left: Counter[str], unknown: str) -> M:
    """Copy `tensors` into `model`; all that it needs must be there, and fit."""
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    if missing:
        raise ModelError(
            f"`{path}` lacks {len(missing):,} of the {len(own):,} tensors of {type(model).__name__}: "
            f"{_listed(missing)}. Give a complete checkpoint."
        )
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise ModelError(
                f"`{path}` is of another configuration: `{name}` is {tuple(tensors[name].shape)}, "
                f"needed is {tuple(value.shape)}."
            )
    check_finite({name: tensors[name] for name in own}, path)
    left[unknown] += len(tensors) - len(own)
    model.load_state_dict({name: tensors[name] for name in own})
    return model.eval().requires_grad_(False)


def _classifier(path: Path, statistics: Path | None, left: Counter[str]) -> AttributeClassifier:
    tensors, _ = _network(path, read_tensors(path), "classifier.weight")
    needed = {name: tensors.get(name) for name in ("classifier.weight", "classifier.bias", "conds_mean", "conds_std")}
    missing = [name for name, tensor in needed.items() if tensor is None]
    if missing:
        raise ModelError(f"`{path}` is not a classifier's checkpoint: it lacks {', '.join(missing)}.")
    check_finite({name: tensor for name, tensor in needed.items() if tensor is not None}, path)
    weight, bias, mean, std = (tensor.float() for tensor in needed.values() if tensor is not None)
    mean, std = mean.flatten(), std.flatten()
    if len(weight) != len(celeba.ATTRIBUTES) or weight.shape[1:] != mean.shape or mean.shape != std.shape:
        raise ModelError(
            f"`{path}` reads {len(weight)} attributes from {weight.shape[1]} numbers with statistics of {len(mean)}; "
            f"needed are the {len(celeba.ATTRIBUTES)} of CelebA and as many statistics as numbers."
        )
    left["the classifier's slow average, which editing does not use"] += sum("ema_classifier" in n for n in tensors)
    model = AttributeClassifier(dict.fromkeys(celeba.ATTRIBUTES, celeba.VALUES), len(mean))
    covariance = torch.diag(std.square())
    if statistics is not None:
        known = read_tensors(statistics)
        lacking = [name for name in ("conds_mean", "conds_std") if name not in known]
        if lacking:
            raise ModelError(f"`{statistics}` holds no latent statistics: it lacks {', '.join(lacking)}.")
        check_finite(known, statistics)
        for name, own in (("conds_mean", mean), ("conds_std", std)):
            other = known[name].float().flatten()
            if other.shape != own.shape or not torch.allclose(other, own, rtol=1e-3, atol=1e-5):
                raise ModelError(
                    f"`{statistics}` are the statistics of another model: their `{name}` is not that of `{path}`. "
                    "Statistics and classifier must come from one training."
                )
        vectors = known.get("conds")
        if vectors is not None and vectors.ndim == 2 and len(vectors) > 2 * len(mean):  # fewer would not span the space
            covariance = torch.cov(vectors.double().T).float()
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
        model.mean.copy_(mean)
        model.std.copy_(std)
        model.covariance.copy_(covariance)
        model.suppose_value_means()
    return model.eval()


def _is_zip(path: Path) -> bool:
    """Whether the file is of the kind that can be mapped into memory instead of read."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _listed(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return ", ".join(f"`{name}`" for name in names[:most]) + (", ..." if len(names) > most else "")
