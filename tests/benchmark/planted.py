"""Results whose answers are known: every editor and steering does a planted share of the true change.

An edit's `amount` (0 nothing, 1 right) comes from its editor, steering and intervention; its `mess` from its editor.
All scores follow from these two, the clip and a little noise, so that tests can say what tables must find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from countervid.benchmark.results import Results, Row, attributes_text

EDITORS = ("tokenflow", "flatten", "tune-a-video", "dva")
STEERINGS = ("none", "paraphrase", "csvc-paper", "auto")
VARIABLES = {"age": ("young", "old"), "gender": ("man", "woman"), "beard": ("no", "yes"), "bald": ("no", "yes")}

_AMOUNT = dict(zip(EDITORS, (0.45, 0.65, 0.3, 0.8), strict=True))
_MESS = dict(zip(EDITORS, (0.25, 0.2, 0.5, 0.05), strict=True))
_PUSH = dict(zip(STEERINGS, (0.0, 0.02, 0.1, 0.25), strict=True))
_HARD = dict(zip(VARIABLES, (0.1, -0.1, 0.05, 0.0), strict=True))
_SECONDS = dict(zip(EDITORS, (40.0, 55.0, 90.0, 6.0), strict=True))


def planted(
    *,
    editors: Sequence[str] = EDITORS,
    steerings: Sequence[str] = STEERINGS,
    clips: int = 8,
    seeds: int = 1,
    noise: float = 0.1,
    references: bool = True,
    failed: Sequence[str] = (),
    absent: Sequence[str] = (),
    better: dict[str, float] | None = None,
    seed: int = 0,
) -> Results:
    """Results of a grid.

    Args:
        failed, absent: Beginnings of the names of jobs that failed, or are not done yet.
        better: Editor -> by how much its amount is above the usual, give or take a fifth from clip to clip.
        seed: Of the noise.
    """
    rows: list[Row] = []
    for number in range(clips):
        clip, draw = f"phantom-{2_000_000 + number}", np.random.default_rng([seed, number])
        factual = {name: values[int(draw.integers(2))] for name, values in VARIABLES.items()}
        factual["gender"] = ("man", "woman")[number % 2]
        hardness = draw.normal(scale=0.1)
        arms = [(editor, steering, "edit", one) for editor in editors for steering in steerings for one in range(seeds)]
        if references:
            arms += [(name, "none", "reference", 0) for name in ("nothing", "copy-target", "oracle")]
        for variable, values in VARIABLES.items():
            value = next(one for one in values if one != factual[variable])
            distance = float(np.exp(draw.normal(-2.8, 0.3)))  # how far the truth is
            for index, (editor, steering, kind, repeat) in enumerate(arms):
                rng = np.random.default_rng([seed, number, list(VARIABLES).index(variable), index])
                job = f"{clip}/{editor}/{steering}/{variable}={value}/{repeat}"
                start = (job, clip, editor, steering, variable, value, f"{variable}={value}", repeat, kind)
                if job.startswith(tuple(absent)):
                    continue
                if job.startswith(tuple(failed)):
                    rows.append(Row(*start, attributes_text(factual), "failed", 1.0))
                    continue
                if kind == "edit":
                    gain = (better or {}).get(editor, 0) * (1 + 0.2 * np.random.default_rng([number, 1]).normal())
                    amount = _AMOUNT[editor] + gain + _PUSH[steering] * (editor != "dva")
                    amount += _HARD[variable] + hardness + noise * rng.normal()
                    mess = abs(_MESS[editor] + _PUSH[steering] / 2 + 0.5 * noise * rng.normal())
                else:
                    amount = {"nothing": 0.0, "copy-target": 0.9, "oracle": 1.0}[editor]
                    mess = {"nothing": 0.0, "copy-target": 3.0, "oracle": 0.1}[editor]
                scores = _scores(rng, amount, mess, distance, variable, editor, steering, kind)
                rows += [Row(*start, attributes_text(factual), name, score) for name, score in scores.items()]
    config = {"clips": {f"phantom:{clips}": None}, "editors": dict.fromkeys(editors, {}), "steering": list(steerings),
              "seeds": seeds}  # fmt: skip
    return Results(config, sorted(rows, key=lambda row: (row.job, row.metric)))


def _scores(
    rng: np.random.Generator, amount: float, mess: float, distance: float, variable: str, editor: str, steering: str,
    kind: str,
) -> dict[str, float | None]:  # fmt: skip
    error = distance * (abs(1 - amount) + 0.5 * mess)
    target = float(amount + 0.1 * rng.normal() > 0.5)
    kept = {name: float(rng.random() > 0.25 * mess) for name in VARIABLES if name != variable}
    edits = 1.0 if steering in ("none", "paraphrase") else float(rng.integers(1, 5))
    satisfied = float(amount + 0.2 * rng.normal() > 0.5)
    found: dict[str, float | None] = {
        "failed": 0.0,
        "effectiveness.target": target,
        "effectiveness.changed": target,
        "effectiveness.kept": float(np.mean(list(kept.values()))),
        **{f"effectiveness.{name}": kept.get(name, target) for name in VARIABLES},
        "truth.skill": 1 - error / distance,
        "truth.edited_error": error,
        "clip.consistency": 0.98 - 0.01 * mess + 0.002 * rng.normal(),
        "clip.text": 20 + 6 * amount + rng.normal(),
        "identity.tl_id": 1 - 0.02 * mess + 0.004 * rng.normal(),
        "identity.likeness": 0.9 - 0.3 * amount - 0.3 * mess + 0.02 * rng.normal(),
        "psnr": 32 - 8 * amount - 4 * mess + rng.normal(),
        "ssim": 0.95 - 0.1 * amount - 0.1 * mess + 0.01 * rng.normal(),
        "cost.seconds": 0.0 if kind == "reference" else _SECONDS[editor] * edits * (1 + 0.05 * rng.normal()),
        "cost.evaluations": 0.0 if kind == "reference" else 1600 * edits,
        "cost.edits": 0.0 if kind == "reference" else edits,
        "cost.calls": 0.0 if kind == "reference" else edits,
    }
    if kind == "edit":
        found["steering.satisfied"] = satisfied
        found["steering.false_stop"] = 1 - target if satisfied else None
    return found


def configuration(**changes: Any) -> dict[str, Any]:
    """A configuration, some of it changed."""
    return {**planted(editors=EDITORS[:1], clips=1, references=False).config, **changes}
