"""One stage of the miniature: train, measure on unseen people, write weights and card."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from countervid.errors import ModelError
from countervid.files.whole import write_whole
from countervid.models.folder import WEIGHTS, load_weights
from countervid.phantom.dataset import PhantomFrames
from countervid.training.cards import write_card
from countervid.training.loop import LoopConfig, Report, fit
from countervid.training.miniature.base import Stage


def train_stage(
    stage: Stage,
    train: PhantomFrames,
    validation: PhantomFrames,
    folder: Path,
    models: Path,
    *,
    steps: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    start: Path | None = None,
    device: torch.device | None = None,
    report: Report | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Train `stage` into `models/<stage.name>`; the same call resumes from `folder`.

    Args:
        train, validation: Rendered people; no person in both.
        folder: The run: state, log, sample sheet, figures.
        models: Where finished models lie; later stages read the earlier ones there.
        start: A folder of models whose weights of this stage training goes on from, instead of random ones. Stages
            that come after others go on from what is in `models` all the same.
        device: Where to train; the CPU if None.

    Returns:
        The measured figures, which also stand in `folder/figures.json` and in the model's card.
    """
    loop: LoopConfig = stage.loop
    loop = replace(loop, steps=loop.steps if steps is None else steps, seed=loop.seed if seed is None else seed)
    size = stage.batch if batch is None else batch
    for name in stage.needs:
        if not (models / name / WEIGHTS).exists():
            raise ModelError(
                f"The stage `{stage.name}` needs `{name}`, which is not in {models}. Train it first: --stage {name}."
            )
    torch.manual_seed(loop.seed)  # initial weights; everything later draws from generators of its own
    folder.mkdir(parents=True, exist_ok=True)
    model, loss = stage.build(train, size, models)
    target = models / stage.target
    # A stage that goes on from another's model has its start already, and a solved one needs none.
    began_from = ""
    if start is not None and loss is not None and not stage.after:
        began_from = _begin_from(start / stage.name / stage.weights, stage.network(model))
    began = time.monotonic()
    average = model if loss is None else fit(model, loss, loop, folder, report, device)
    note(f"{stage.name}: measuring on {len(validation)} unseen crops")
    figures = stage.evaluate(average, validation, models)
    if stage.sheet is not None:
        stage.sheet(average, validation, folder / "sheet.png", models)
    stage.save(stage.network(average), target, train)
    facts = {
        "stage": stage.name,
        "started_from": began_from,
        "summary": stage.summary,
        "parameters": sum(p.numel() for p in stage.network(average).parameters()),
        "bytes": (target / stage.weights).stat().st_size,
        "loop": asdict(loop),
        "batch": 0 if loss is None else size,
        "people": int(train.column("person").unique().numel()),
        "crops": len(train),
        "validation_people": int(validation.column("person").unique().numel()),
        "seconds_this_run": round(time.monotonic() - began, 1),
        "figures": {name: round(value, 4) for name, value in figures.items()},
    }
    write_whole(folder / "figures.json", json.dumps(facts, indent=2) + "\n")
    before = [folder.parent / name / "figures.json" for name in stage.after]
    write_card(target, facts, [json.loads(path.read_text()) for path in before if path.exists()])
    return figures


def _begin_from(file: Path, network: nn.Module) -> str:
    """Load the weights in `file`, to be trained on; returns its SHA-256."""
    load_weights(file.parent, network, file.name)
    network.requires_grad_(True)
    return hashlib.sha256(file.read_bytes()).hexdigest()
