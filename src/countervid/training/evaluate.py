"""The finished miniature, measured end to end on people that no model has seen.

Every clip is edited by the real editor from its frames; the true counterfactual is rendered beside it;
the examiner reads both. Cases are kept one a line, so that a stopped measurement goes on.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.autoencoder.codec import VAE
from countervid.autoencoder.identity import IdentityNet
from countervid.clip import Clip
from countervid.clip.sheets import write_rows
from countervid.editors.base import Target, load_editor
from countervid.face.align import PORTRAIT, crop, quads
from countervid.files.whole import write_whole
from countervid.metrics.examiner import Examiner
from countervid.metrics.identity import tg_id, tl_id
from countervid.metrics.truth import skill
from countervid.phantom.dataset import FACE, SPLITS
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import Person, render_clip, sample_person
from countervid.training.cards import add_section

if TYPE_CHECKING:
    from rich.table import Table

FRAMES = 16
SIZE = 256  # of the clips, pixels
FPS = 8.0  # head, mouth and gaze move more between frames than at 25
CROP = 128


@dataclass(frozen=True)
class Judges:
    """What looks at results; none of it takes part in editing but the autoencoder, whose loss is one of the rows."""

    examiner: Examiner
    identity: IdentityNet
    vae: VAE


def evaluate_miniature(
    clips: int, out: Path, models: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Table:
    """Edit `clips` unseen people under each intervention of the published graph; returns the table to print.

    `out` receives `cases.jsonl`, `figures.json` and a sheet of the first people; the cards in `models/dva`
    and `models/examiner` stay as they are but for the section `End to end` of the former.
    """
    out.mkdir(parents=True, exist_ok=True)
    judges = Judges(
        Examiner.from_folder(models / "examiner"),
        IdentityNet.from_folder(models / "identity"),
        VAE.from_folder(models / "vae"),
    )
    path = out / "cases.jsonl"
    cases = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(case["person"], case["do"]) for case in cases}
    with tempfile.TemporaryDirectory() as cache:
        editor = load_editor("dva", models, cache=Path(cache))
        for index in range(clips):
            person = sample_person(SPLITS["test"] + index)
            if any((person.seed, name) not in done for name in FACE):
                fresh = [
                    case for case in _person(person, editor, judges, out) if (case["person"], case["do"]) not in done
                ]
                with open(path, "a") as file:
                    file.writelines(json.dumps(case) + "\n" for case in fresh)
                cases += fresh
            progress(index + 1, clips)
    figures = summarise(cases)
    write_whole(out / "figures.json", json.dumps(figures, indent=2) + "\n")
    add_section(models / "dva", "End to end", figures)
    return _table(figures, clips)


def _person(person: Person, editor: Any, judges: Judges, out: Path) -> list[dict[str, Any]]:
    factual = render_clip(person, frames=FRAMES, fps=FPS, size=SIZE)
    frames = torch.from_numpy(factual.frames)
    squares = quads(factual.landmarks - 0.5, framing=PORTRAIT)  # the face pipeline counts from pixel centres
    prepared = editor.prepare(Clip.from_frames(frames, fps=FPS), person.attributes)
    before = _crops(frames, squares)
    source_identity = judges.identity(before * 2 - 1)
    through = judges.vae.decode(judges.vae.encode(before * 2 - 1)).clamp(-1, 1) / 2 + 0.5
    cases, rows = [], {"factual": before[:1]}
    for name in FACE:
        value = next(v for v in DOMAINS[name] if v != person.attributes[name])
        counterfactual = person.counterfactual({name: value})
        target = Target(factual=person.attributes, do={name: value}, counterfactual=counterfactual.attributes)
        edited = _crops(editor.edit(prepared, target).frames, squares)
        truth = _crops(
            torch.from_numpy(
                render_clip(person, frames=FRAMES, fps=FPS, size=SIZE, attributes=counterfactual.attributes).frames
            ),
            squares,
        )
        seen, ceiling = judges.examiner.read(edited * 2 - 1), judges.examiner.read(truth * 2 - 1)
        asked = counterfactual.attributes
        identity = judges.identity(edited * 2 - 1)
        cases.append(
            {
                "person": person.seed,
                "do": name,
                "value": value,
                "changed": {k: seen[k] == v for k, v in target.changed.items()},
                "changed_in_truth": {k: ceiling[k] == v for k, v in target.changed.items()},
                "kept": {k: seen[k] == v for k, v in target.kept.items()},
                "kept_in_truth": {k: ceiling[k] == v for k, v in target.kept.items()},
                "age": asked["age"],
                "gender": asked["gender"],
                "skill": skill(before, edited, truth),
                "skill_through_vae": skill(before, through, truth),
                "tl_id": float(tl_id(source_identity, identity)),
                "tg_id": float(tg_id(source_identity, identity)),
                "likeness_to_truth": float(F.cosine_similarity(identity, judges.identity(truth * 2 - 1)).mean()),
            }
        )
        rows[f"do({name} = {value}): edited"], rows[f"do({name} = {value}): truth"] = edited[:1], truth[:1]
    middle = {caption: pictures * 2 - 1 for caption, pictures in rows.items()}
    write_rows(out / f"person-{person.seed}.png", middle)
    return cases


def _crops(frames: Tensor, squares: Any) -> Tensor:
    """Face crops `(F, 3, 128, 128)`, 0..1, of uint8 frames."""
    return crop(frames, squares, CROP).permute(0, 3, 1, 2).float() / 255


def summarise(cases: list[Mapping[str, Any]]) -> dict[str, float]:
    """The table of the evaluation from its cases: attribute shares over (case, attribute) pairs, skills over cases."""

    def share(field: str, do: str | None = None) -> float:
        right = [ok for case in cases if do in (None, case["do"]) for ok in case[field].values()]
        return 100 * float(sum(right)) / max(1, len(right))

    skills = [case["skill"] for case in cases]
    figures = {"clips": float(len({case["person"] for case in cases})), "edits": float(len(cases))}
    figures["changed attributes seen (%)"] = share("changed")
    figures |= {f"  do({name}) (%)": share("changed", name) for name in FACE}
    figures["  on the truth, the examiner's ceiling (%)"] = share("changed_in_truth")
    figures["kept attributes kept (%)"] = share("kept")
    figures["  on the truth, the examiner's ceiling (%)  "] = share("kept_in_truth")
    figures["skill, mean"] = statistics.fmean(skills)
    figures |= {f"  do({n}) skill": statistics.fmean([c["skill"] for c in cases if c["do"] == n]) for n in FACE}
    figures["skill > 0 (% of edits)"] = 100 * sum(s > 0 for s in skills) / len(skills)
    figures["skill of doing nothing"] = 0.0
    figures["skill of the source through the VAE"] = statistics.fmean([case["skill_through_vae"] for case in cases])
    figures["TL-ID"] = statistics.fmean([case["tl_id"] for case in cases])
    figures["TG-ID"] = statistics.fmean([case["tg_id"] for case in cases])
    figures["identity, cosine to the truth"] = statistics.fmean([case["likeness_to_truth"] for case in cases])
    return figures


def _table(figures: Mapping[str, float], clips: int) -> Table:
    from rich.table import Table

    table = Table(title=f"The miniature on {clips} unseen people, {FRAMES} frames, {SIZE} px")
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}")
    return table
