from pathlib import Path

import pytest
import torch
from torch import Tensor

from countervid.autoencoder.classifier import AttributeClassifier, LatentStatistics, fit, published_steps
from countervid.errors import InterventionError, ModelError
from goldens_rule import golden

VARIABLES = {"age": ("young", "old"), "hair": ("black", "blond", "grey"), "beard": ("no", "yes")}


def people(count: int = 1500, seed: int = 0, channels: int = 24) -> tuple[Tensor, Tensor]:
    """Unit vectors that show correlated attributes, and the attributes."""
    generator = torch.Generator().manual_seed(seed)
    age = torch.randint(2, (count,), generator=generator)
    grey = (torch.rand(count, generator=generator) < 0.1 + 0.7 * age).long()
    hair = torch.where(grey == 1, 2, torch.randint(2, (count,), generator=generator))
    beard = (torch.rand(count, generator=generator) < 0.3 + 0.3 * age).long()
    axes = torch.randn(5, channels, generator=torch.Generator().manual_seed(99))
    shown = torch.stack([age, hair == 1, hair == 2, beard, torch.ones(count)], dim=1).float() @ axes
    z = torch.nn.functional.normalize(shown + 0.5 * torch.randn(count, channels, generator=generator), dim=1)
    return z, torch.stack([age, hair, beard], dim=1)


def test_published_training_steps() -> None:
    tensors, metadata = golden("classifier_train")
    model = AttributeClassifier({str(index): ("no", "yes") for index in range(40)}, 512)
    with torch.no_grad():
        model.classifier.weight.copy_(tensors["W0"])
        model.classifier.bias.copy_(tensors["b0"])
        model.mean.copy_(tensors["conds_mean"])
        model.std.copy_(tensors["conds_std"])
    labels = (tensors["labels"] > 0).long()
    model.loss(tensors["feats"][:8], labels[:8]).backward()
    torch.testing.assert_close(model.classifier.weight.grad, tensors["grad_W_step0"], atol=1e-5, rtol=0)
    batches = zip(tensors["feats"].split(8), labels.split(8), strict=True)
    settings = {"learning_rate": metadata["lr"], "ema_decay": metadata["ema_decay"]}
    steps = list(published_steps(model, batches, **settings))
    for (loss, average_loss, _), expected in zip(steps, tensors["losses"].tolist(), strict=True):
        assert [loss, average_loss] == pytest.approx(expected, abs=1e-5)
    average = steps[-1][2]
    torch.testing.assert_close(model.classifier.weight, tensors["W3"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.classifier.bias, tensors["b3"], atol=1e-5, rtol=0)
    torch.testing.assert_close(average.weight, tensors["ema_W3"], atol=1e-5, rtol=0)
    torch.testing.assert_close(average.bias, tensors["ema_b3"], atol=1e-5, rtol=0)


def test_streamed_statistics_are_those_of_the_whole() -> None:
    z, _ = people()
    statistics = LatentStatistics(24)
    for part in z.split([1, 999, 0, 200, 300]):
        statistics.update(part)
    torch.testing.assert_close(statistics.mean, z.double().mean(dim=0), atol=1e-12, rtol=0)
    torch.testing.assert_close(statistics.covariance, torch.cov(z.double().T), atol=1e-12, rtol=0)
    torch.testing.assert_close(statistics.std, z.double().std(dim=0), atol=1e-12, rtol=0)
    with pytest.raises(ModelError, match="at least 2"):
        _ = LatentStatistics(3).covariance


def test_statistics_are_the_published_formula() -> None:
    tensors, _ = golden("classifier_edit")
    statistics = LatentStatistics(512)
    statistics.update(tensors["stats_conds"])
    torch.testing.assert_close(statistics.mean.float(), tensors["conds_mean"], atol=1e-6, rtol=0)
    torch.testing.assert_close(statistics.std.float(), tensors["conds_std"], atol=1e-6, rtol=0)


def test_fit_tells_the_attributes_of_unseen_people() -> None:
    model = fit(VARIABLES, *people())
    z, labels = people(400, seed=1)
    for row, predicted in zip(labels.tolist()[:3], model.predict(z)[:3], strict=True):
        assert set(predicted) == set(VARIABLES) and len(row) == 3
    for column, (name, values) in enumerate(VARIABLES.items()):
        probabilities = model.probabilities(z)[name]
        assert probabilities.shape == (400, len(values))
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(400))
        assert (probabilities.argmax(dim=1) == labels[:, column]).float().mean() > 0.9
    chance = AttributeClassifier(VARIABLES, 24)
    assert model.loss(z, labels).item() < 0.4 * chance.loss(z, labels).item()


def test_fit_stands_at_the_optimum() -> None:
    z, labels = people(300)
    model = fit(VARIABLES, z, labels, decay=1e-2)
    loss = model.loss(z, labels) + 0.5 * 1e-2 * model.classifier.weight.square().sum()
    loss.backward()
    assert model.classifier.weight.grad.abs().max() < 1e-4


def test_saved_classifiers_come_back_and_wrong_names_are_told(tmp_path: Path) -> None:
    model = fit(VARIABLES, *people(200))
    model.save_pretrained(tmp_path)
    again = AttributeClassifier.from_pretrained(tmp_path)
    assert again.variables == VARIABLES
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    with pytest.raises(InterventionError, match="does not know `hat`"):
        again.outputs("hat")
    with pytest.raises(InterventionError, match="one of black, blond, grey"):
        again.index("hair", "green")
    z, labels = people(50)
    with pytest.raises(ModelError, match="hair = grey"):
        fit(VARIABLES, z, labels * torch.tensor([1, 0, 1]) + torch.arange(50)[:, None] % 2 * torch.tensor([0, 1, 0]))
    with pytest.raises(ModelError, match="labels of shape"):
        fit(VARIABLES, z, labels[:, :2])
