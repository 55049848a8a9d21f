"""Which attributes an identity vector shows: latent statistics and one linear layer on top of them.

The Diffusion Video Autoencoder edits along the rows of a linear classifier in the space of normalised identity vectors
(arXiv:2212.02802, section 3.3). Here its outputs are the variables of a causal graph: one logit for a variable of two
values (of the second: `yes` in `no, yes`), one for each value of the others.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.errors import InterventionError, ModelError
from countervid.models.folder import load_weights, read_config, save_model

KIND = "attribute-classifier"


class LatentStatistics:
    """Mean, spread and covariance of vectors that stream by in batches; float64, exact whatever the batches.

    Batches are merged by Chan's formula, so a million vectors cost no more memory than one batch.

    Deviation: the published code keeps the last batch alone (frames of a single video); these statistics cover all.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._products = torch.zeros(channels, channels, dtype=torch.float64)  # sum of (z - mean)(z - mean)^T

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor, count: int) -> LatentStatistics:
        """Statistics that were known before: `(D,)`, `(D, D)`, of so many vectors."""
        statistics = cls(len(mean))
        statistics.mean, statistics.count = mean.double(), count
        statistics._products = covariance.double() * (count - 1)
        return statistics

    def update(self, z: Tensor) -> None:
        """Take in vectors `(n, D)`."""
        if len(z) == 0:
            return
        z = z.detach().to("cpu", torch.float64)
        count = self.count + len(z)
        mean = z.mean(dim=0)
        centred, apart = z - mean, mean - self.mean
        self._products += centred.T @ centred + torch.outer(apart, apart) * (self.count * len(z) / count)
        self.mean += apart * (len(z) / count)
        self.count = count

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, float64 `(D, D)`.

        Raises:
            ModelError: Fewer than two vectors have been seen.
        """
        if self.count < 2:
            raise ModelError(f"Statistics need at least 2 identity vectors, got {self.count}. Encode more clips.")
        return self._products / (self.count - 1)

    @property
    def std(self) -> Tensor:
        """Unbiased standard deviation of each number, float64 `(D,)`."""
        return self.covariance.diagonal().sqrt()


class AttributeClassifier(nn.Module):
    """A linear layer on normalised identity vectors, with the statistics that normalise them.

    Attributes:
        variables: Name -> values of every variable, in the order of the logits.
        classifier: The layer, `(outputs, D)`.
        mean, std, covariance: Statistics of the identity vectors, `(D,)`, `(D,)`, `(D, D)`.
        value_means: Mean normalised vector of those that show a value, `(values, D)`, all variables' values in order.
    """

    mean: Tensor
    std: Tensor
    covariance: Tensor
    value_means: Tensor

    def __init__(self, variables: Mapping[str, Sequence[str]], channels: int) -> None:
        super().__init__()
        self.variables = {name: tuple(values) for name, values in variables.items()}
        for name, values in self.variables.items():
            if len(values) < 2 or len(set(values)) != len(values):
                raise ModelError(f"The variable {name} needs two or more different values, got {', '.join(values)}.")
        self.classifier = nn.Linear(channels, sum(_outputs(values) for values in self.variables.values()))
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("covariance", torch.eye(channels))
        self.register_buffer("value_means", torch.zeros(sum(map(len, self.variables.values())), channels))

    def set_statistics(self, statistics: LatentStatistics) -> None:
        """Take over the statistics; a number that never varies keeps a spread of 1."""
        std = statistics.std
        self.mean.copy_(statistics.mean)
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))
        self.covariance.copy_(statistics.covariance)

    @torch.no_grad()
    def suppose_value_means(self) -> None:
        """Set the value means of a classifier that came without people: those of a normal cloud that it divides.

        With `u ~ N(0, R)`, `R` the correlation, a logit `w u + b` is normal with spread `s = sqrt(w R w)`. The mean of
        those it calls "yes" is `R w / s * phi(b / s) / Phi(b / s)`, and of the others the same with the sign of `b` and
        of the whole turned. For variables of two values.
        """
        outer = torch.outer(self.std, self.std).double()
        correlation = self.covariance.double() / outer
        weight, bias = self.classifier.weight.double(), self.classifier.bias.double()
        towards = weight @ correlation
        spread = (towards * weight).sum(1).sqrt()
        normal = torch.distributions.Normal(0.0, 1.0)
        place = bias / spread
        density = normal.log_prob(place).exp()
        yes = (density / normal.cdf(place) / spread)[:, None] * towards
        no = -(density / normal.cdf(-place) / spread)[:, None] * towards
        self.value_means.copy_(torch.stack([no, yes], dim=1).flatten(0, 1))

    def normalise(self, z: Tensor) -> Tensor:
        """`(z - mean) / std` of vectors `(..., D)`."""
        return (z - self.mean) / self.std

    def forward(self, z: Tensor) -> Tensor:
        """Logits `(..., outputs)` of identity vectors `(..., D)`."""
        logits: Tensor = self.classifier(self.normalise(z))
        return logits

    def outputs(self, variable: str) -> slice:
        """Which logits are a variable's.

        Raises:
            InterventionError: The classifier does not know the variable.
        """
        start = 0
        for name, values in self.variables.items():
            if name == variable:
                return slice(start, start + _outputs(values))
            start += _outputs(values)
        near = difflib.get_close_matches(variable, self.variables, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`? " if near else ""
        raise InterventionError(
            f"The classifier does not know `{variable}`. {hint}It knows {', '.join(self.variables)}."
        )

    def index(self, variable: str, value: str) -> int:
        """A value's place among its variable's values.

        Raises:
            InterventionError: The classifier does not know the variable or the value.
        """
        self.outputs(variable)
        values = self.variables[variable]
        if value not in values:
            raise InterventionError(f"{variable} has no value {value}. It is one of {', '.join(values)}.")
        return values.index(value)

    def value_mean(self, variable: str, value: str) -> Tensor:
        """Mean normalised vector `(D,)` of the people who show a value."""
        place = self.index(variable, value)
        for name, values in self.variables.items():
            if name == variable:
                break
            place += len(values)
        return self.value_means[place]

    @torch.no_grad()
    def probabilities(self, z: Tensor) -> dict[str, Tensor]:
        """Variable -> probability of each of its values, `(n, values)`, for vectors `(n, D)`."""
        logits = self(z)
        return {name: _probabilities(logits[:, self.outputs(name)], len(v)) for name, v in self.variables.items()}

    def predict(self, z: Tensor) -> list[dict[str, str]]:
        """The likeliest attributes of each of `n` vectors `(n, D)`."""
        likely = {name: values.argmax(dim=1).tolist() for name, values in self.probabilities(z).items()}
        return [{name: self.variables[name][likely[name][row]] for name in likely} for row in range(len(z))]

    def loss(self, z: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of vectors `(n, D)` over variables; `labels`, int64 `(n, variables)`, number values."""
        return _cross_entropy(self(z), labels, [len(values) for values in self.variables.values()])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, float32: directions are too small for less."""
        variables = {name: list(values) for name, values in self.variables.items()}
        config = {"kind": KIND, "variables": variables, "channels": self.mean.numel()}
        save_model(folder, self, config, dtype=torch.float32)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AttributeClassifier:
        """The classifier of a folder.

        Raises:
            ModelError: The folder is incomplete, damaged, or holds something else.
        """
        config = read_config(folder, KIND)
        model = cls(config["variables"], config["channels"])
        load_weights(folder, model)
        return model


def fit(
    variables: Mapping[str, Sequence[str]],
    z: Tensor,
    labels: Tensor,
    *,
    decay: float = 1e-4,
    iterations: int = 200,
    statistics: LatentStatistics | None = None,
) -> AttributeClassifier:
    """A classifier of cached identity vectors: the optimum of a convex problem, found in seconds by L-BFGS.

    The published one runs Adam through the whole encoder over ten passes of pictures; `published_steps` keeps its rule.

    Args:
        variables: Name -> values, in the order of the columns of `labels`.
        z: Identity vectors, `(n, D)`.
        labels: Which value each shows, counted from 0, int64 `(n, variables)`.
        decay: Weight of half the squared weights; keeps separable attributes from growing without end.
        iterations: Most that L-BFGS may take.
        statistics: Of all vectors there are; None: of `z`.

    Raises:
        ModelError: A value is shown by nobody, or the numbers of vectors and labels differ.
    """
    _check_labels(variables, z, labels)
    if statistics is None:
        statistics = LatentStatistics(z.shape[1])
        statistics.update(z)
    model = AttributeClassifier(variables, z.shape[1])
    model.set_statistics(statistics)
    normal = model.normalise(z).double()
    counts = [len(values) for values in model.variables.values()]
    weight = torch.zeros(model.classifier.weight.shape, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(model.classifier.bias.shape, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, tolerance_grad=1e-8, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = _cross_entropy(F.linear(normal, weight, bias), labels, counts) + 0.5 * decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
        means = [
            normal[labels[:, column] == value].mean(dim=0)
            for column, count in enumerate(counts)
            for value in range(count)
        ]
        model.value_means.copy_(torch.stack(means))
    return model.eval()


def published_steps(
    model: AttributeClassifier,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.9999,
) -> Iterator[tuple[float, float, nn.Linear]]:
    """The published training: Adam on the mean cross-entropy, unbalanced, and a slow average of the layer beside it.

    Args:
        model: Trained in place; its statistics are set.
        batches: Identity vectors `(n, D)` and labels int64 `(n, variables)`.
        learning_rate: Adam's; no decay, no clipping.
        ema_decay: Of the average, updated after every step. Editing does not use it.

    Yields:
        For each batch: loss before its step, the average's loss before its step, the average after it.
    """
    average = copy.deepcopy(model.classifier).requires_grad_(False)
    counts = [len(values) for values in model.variables.values()]
    optimiser = torch.optim.Adam(model.classifier.parameters(), lr=learning_rate)
    for z, labels in batches:
        normal = model.normalise(z)
        loss = _cross_entropy(model.classifier(normal), labels, counts)
        with torch.no_grad():
            average_loss = _cross_entropy(average(normal), labels, counts)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.classifier.parameters(), strict=True):
                slow.mul_(ema_decay).add_(fast, alpha=1 - ema_decay)
        yield loss.item(), average_loss.item(), average


def _outputs(values: Sequence[str]) -> int:
    return 1 if len(values) == 2 else len(values)


def _probabilities(logits: Tensor, values: int) -> Tensor:
    if values == 2:
        second = logits.sigmoid()
        return torch.cat([1 - second, second], dim=1)
    return logits.softmax(dim=1)


def _cross_entropy(logits: Tensor, labels: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean over items and variables; variables of two values all at once, for there may be forty."""
    terms, binary, columns, start = [], [], [], 0
    for column, count in enumerate(counts):
        if count == 2:
            binary.append(start)
            columns.append(column)
            start += 1
        else:
            terms.append(F.cross_entropy(logits[:, start : start + count], labels[:, column]))
            start += count
    if binary:
        targets = labels[:, columns].to(logits.dtype)
        terms.append(len(binary) * F.binary_cross_entropy_with_logits(logits[:, binary], targets))
    return torch.stack(terms).sum() / len(counts)


def _check_labels(variables: Mapping[str, Sequence[str]], z: Tensor, labels: Tensor) -> None:
    if labels.shape != (len(z), len(variables)):
        raise ModelError(
            f"{len(z)} identity vectors and {len(variables)} variables need labels of shape "
            f"({len(z)}, {len(variables)}), got {tuple(labels.shape)}."
        )
    for column, (name, values) in enumerate(variables.items()):
        shown = torch.bincount(labels[:, column], minlength=len(values))
        for value, count in zip(values, shown.tolist(), strict=True):
            if count == 0:
                raise ModelError(f"Nobody in the data has {name} = {value}. Add such clips, or leave the variable out.")
