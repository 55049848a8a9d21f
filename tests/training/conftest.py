from pathlib import Path

import pytest
import torch

from countervid.autoencoder.faces import FaceNetworks, load_networks
from tiny_models import save_tiny_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks with random weights."""
    return save_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def networks(models: Path) -> FaceNetworks:
    """The frozen ones of them."""
    return load_networks({"vae": models / "vae", "identity": models / "identity"}, torch.device("cpu"))
