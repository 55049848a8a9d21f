"""Moving an identity so that it shows other attributes.

`published_edit` is the rule of the Diffusion Video Autoencoder (arXiv:2212.02802, section 3.3 and its code): add a
multiple of the classifier's row. A row of weights tells attributes apart; it is not where people who have the attribute
lie, and following it drags correlated attributes along. `move` asks for logits instead: those that change go to where
people with the wanted values are, those that must stay do not move, and among all ways there it takes the likeliest
one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.autoencoder.classifier import AttributeClassifier
from countervid.errors import ConfigError, InterventionError

Length = Literal["keep", "unit", "free"]


@dataclass(frozen=True, kw_only=True)
class Direction:
    """The published edit, asked for by name: along one row of the classifier, whatever else that drags along.

    Attributes:
        attribute: One of the classifier's variables.
        value: Which of its values, where there are more than two.
        scale: How far, either sign; 0.25 adds a moustache in the published example.
        normalise: Move in the space of normalised vectors, as published; else add the row as it is.
    """

    attribute: str
    scale: float
    value: str = ""
    normalise: bool = True

    def said(self) -> tuple[str, str, str]:
        """What is edited, as it was, and as it is to be: in words, for those who read of it."""
        return f"{self.attribute}={self.value}" if self.value else self.attribute, "as it is", f"{self.scale:+g}"


_SHRINKAGE = 1e-3  # of the covariance towards the identity: directions that the data hardly vary in stay expensive


def published_edit(
    z: Tensor, row: Tensor, scale: float, *, mean: Tensor | None = None, std: Tensor | None = None
) -> Tensor:
    """The published edit of an identity, unit length.

    With statistics: `u = (z - mean) / std + scale sqrt(D) row / |row|`, then `unit(u std + mean)`; this is what the
    published scripts always do. Without: `unit(z + scale sqrt(D) row)`, the row as it is.

    Args:
        z: Identity vectors, `(..., D)`, not necessarily unit length.
        row: The attribute's row of the classifier's weight, `(D,)`.
        scale: How far, either sign; 0.25 adds a moustache in the published example.
        mean, std: Latent statistics, `(D,)`; both or neither.
    """
    reach = scale * math.sqrt(row.numel())
    if mean is None or std is None:
        return F.normalize(z + reach * row, dim=-1)
    moved = (z - mean) / std + reach * row / row.norm()
    return F.normalize(moved * std + mean, dim=-1)


@torch.no_grad()
def along(z: Tensor, classifier: AttributeClassifier, direction: Direction, strength: float = 1.0) -> Tensor:
    """Identities `(..., D)` moved as published; the row of one value among several is its own less the others' mean.

    Raises:
        InterventionError: The classifier does not know the attribute, or which of its values is meant.
    """
    rows = classifier.classifier.weight[classifier.outputs(direction.attribute)]
    values = classifier.variables[direction.attribute]
    if len(rows) == 1:
        row = rows[0] if direction.value in ("", values[1]) else -rows[0]
        if direction.value:
            classifier.index(direction.attribute, direction.value)
    elif direction.value:
        chosen = classifier.index(direction.attribute, direction.value)
        others = torch.arange(len(rows)) != chosen
        row = rows[chosen] - rows[others].mean(0)
    else:
        raise InterventionError(
            f"{direction.attribute} has several values: {', '.join(values)}. Say which: "
            f"{direction.attribute}={values[-1]}."
        )
    statistics = {"mean": classifier.mean, "std": classifier.std} if direction.normalise else {}
    return published_edit(z, row, strength * direction.scale, **statistics)


@torch.no_grad()
def move(
    z: Tensor,
    classifier: AttributeClassifier,
    changes: Mapping[str, str],
    keep: Iterable[str] = (),
    *,
    strength: float | Mapping[str, float] = 1.0,
    length: Length = "keep",
) -> Tensor:
    """The identity with some attributes changed and others held.

    In normalised space, with `W` the rows of all changed and kept variables and `S` the covariance, the smallest move
    in the metric of `S` that changes the logits by `d` is `S W^T (W S W^T)^-1 d`. `d` is zero for kept variables; for a
    changed one it leads from where `z` is to the mean logits of people with the wanted value, times the strength. It
    never leads away from the wanted value, however typical `z` is of it already. Changed logits are linear in the
    strength, hence monotone; strength 0 everywhere returns `z` itself, bit for bit.

    Args:
        z: Identity vectors, `(..., D)`.
        classifier: With statistics and value means, as `fit` makes it.
        changes: Variable -> wanted value.
        keep: Variables whose logits must not move; changed ones among them are ignored.
        strength: 0 for no change, 1 for the wanted value's mean, beyond 1 for more of it; one number, or one a variable
            (1 where it is missing).
        length: Of the result: "keep" has that of `z`, "unit" is 1, "free" is as it falls. Corrected in the subspace
            that no logit of `W` sees, so the logits stay as asked.

    Returns:
        Moved vectors, shape and type of `z`.

    Raises:
        InterventionError: The classifier does not know a variable or value, or more logits are tied than numbers.
        ConfigError: A strength is negative or not a number, or is given for a variable that does not change.
    """
    strengths = _strengths(changes, strength)
    if not any(strengths.values()):
        return z
    kept = [name for name in dict.fromkeys(keep) if name not in changes]
    std, mean = classifier.std.double(), classifier.mean.double()
    start = (z.double() - mean) / std
    rows, steps = [], []
    for name, value in changes.items():
        contrast = _contrast(classifier, name)
        rows.append(contrast)
        way = (classifier.value_mean(name, value).double() - start) @ contrast.T
        if len(contrast) == 1:  # past the mean already: no way back
            way = way.clamp(min=0) if classifier.index(name, value) == 1 else way.clamp(max=0)
        steps.append(strengths[name] * way)
    for name in kept:
        rows.append(_contrast(classifier, name))
        steps.append(start.new_zeros(*start.shape[:-1], len(rows[-1])))
    constraints = torch.cat(rows)
    if len(constraints) >= z.shape[-1]:
        raise InterventionError(
            f"{len(constraints)} logits cannot be held in identities of {z.shape[-1]} numbers. Keep fewer variables."
        )
    moved = start + torch.cat(steps, dim=-1) @ _response(constraints, _spread(classifier)).T
    result = moved * std + mean
    if length != "free":
        goal = z.double().norm(dim=-1, keepdim=True) if length == "keep" else torch.ones_like(result[..., :1])
        result = _with_length(result, constraints / std, goal)
    return result.to(z.dtype)


def _contrast(classifier: AttributeClassifier, variable: str) -> Tensor:
    """What tells a variable's values apart, float64 `(values - 1, D)`: rows less the first; a lone row is its own."""
    rows = classifier.classifier.weight[classifier.outputs(variable)].double()
    return rows if len(rows) == 1 else rows[1:] - rows[:1]


def _spread(classifier: AttributeClassifier) -> Tensor:
    """Covariance of normalised vectors, shrunk a little, float64 `(D, D)`."""
    std = classifier.std.double()
    covariance = classifier.covariance.double() / torch.outer(std, std)
    return (1 - _SHRINKAGE) * covariance + _SHRINKAGE * torch.eye(len(std), dtype=torch.float64, device=std.device)


def _response(constraints: Tensor, spread: Tensor) -> Tensor:
    """`S W^T (W S W^T)^-1`, `(D, outputs)`: the likeliest move for a unit change of each logit, the others held."""
    towards = spread @ constraints.T
    inverse: Tensor = torch.linalg.pinv(constraints @ towards, hermitian=True)
    return towards @ inverse


def _with_length(z: Tensor, constraints: Tensor, goal: Tensor) -> Tensor:
    """`z` with its part outside the span of the constraints' rows scaled until `|z| = goal`.

    Where the part inside is longer than the goal by itself the whole is scaled down, and the logits give way a little.
    """
    basis, _ = torch.linalg.qr(constraints.T)  # orthonormal columns that span the rows
    inside = (z @ basis) @ basis.T
    outside = z - inside
    room = goal.square() - inside.square().sum(dim=-1, keepdim=True)
    free = outside.norm(dim=-1, keepdim=True)
    fitted = inside + outside * (room.clamp(min=0).sqrt() / free.clamp(min=1e-12))
    return torch.where((room > 0) & (free > 1e-12), fitted, F.normalize(z, dim=-1) * goal)


def _strengths(changes: Mapping[str, str], strength: float | Mapping[str, float]) -> dict[str, float]:
    if isinstance(strength, Mapping):
        unknown = sorted(set(strength) - set(changes))
        if unknown:
            raise ConfigError(f"A strength is given for {', '.join(unknown)}, which does not change. Leave it out.")
        strengths = {name: float(strength.get(name, 1.0)) for name in changes}
    else:
        strengths = dict.fromkeys(changes, float(strength))
    for name, value in strengths.items():
        if not value >= 0 or math.isinf(value):
            raise ConfigError(f"The strength of {name} must be 0 or more, got {value:g}.")
    return strengths
