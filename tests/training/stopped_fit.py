"""Run as a process of its own: trains a tiny network, slowly, into the folder that is named."""

import sys
import time
from pathlib import Path

import torch

from countervid.training.loop import LoopConfig, fit


def loss_of(model, pause):
    def loss(generator):
        time.sleep(pause)
        return {"loss": model(torch.randn(4, 3, generator=generator)).square().mean()}

    return loss


if __name__ == "__main__":
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    fit(network, loss_of(network, 0.02), LoopConfig(steps=10_000, save_every=3600.0), Path(sys.argv[1]))
