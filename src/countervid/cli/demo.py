"""`countervid demo`: a rendered clip, its counterfactual, the truth and a report; offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from countervid.cli.common import DoOption, console
from countervid.cli.edit import make_editor, show

app = typer.Typer()

SEED = 2_000_019  # of the people that no model was trained on
FRAMES, FPS, SIZE = 48, 24.0, 256


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("countervid-demo"),
    do: DoOption = ["age=old"],  # noqa: B006 (typer copies it)
    seed: Annotated[int, typer.Option(help="Which person of the phantom world.")] = SEED,
    strength: Annotated[float, typer.Option(help="0 is the source, 1 the edit as asked.")] = 1.0,
    model: Annotated[
        Optional[Path], typer.Option(help="A folder of weights; the bundled miniature by default.")
    ] = None,
) -> None:
    """Make a clip, its counterfactual, the truth and a report. No network, no GPU; about a minute."""
    from countervid.cli.stages import stages, wait_politely

    wait_politely()
    from countervid.clip import Clip
    from countervid.editors.base import Target
    from countervid.errors import OutputError
    from countervid.phantom.export import person_clip, truth_name
    from countervid.phantom.world import sample_person
    from countervid.runs.run import PHANTOM_MARK, counterfactual

    started = time.perf_counter()
    person = sample_person(seed)
    asked = person.graph.interventions(do)
    predicted = person.counterfactual(asked)
    source, truth = out / f"person-{seed}.mp4", out / f"person-{seed}-{truth_name(asked)}"
    editor = make_editor("dva", model, out / "prepared")
    Target(factual={}, do={}, counterfactual={}, strength=strength)  # before anything is made: is it in range?
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"`{out}` cannot be made ({error.strerror}). Choose another `--out`.") from error
    with stages() as report:
        for path, attributes, what in (
            (source, person.attributes, "rendering"),
            (truth, predicted.attributes, "rendering truth"),
        ):
            if not path.exists():
                rendered = person_clip(person, frames=FRAMES, fps=FPS, size=SIZE, attributes=attributes)
                rendered.write(
                    path, crf=8, metadata={"comment": f"{PHANTOM_MARK} world"},
                    progress=lambda done, total, what=what: report(what, done, total),  # type: ignore[misc]
                )  # fmt: skip
        # The world knows its people: given their attributes and noise, the truth is of the very same counterfactual.
        result = counterfactual(
            Clip.read(source), asked, editor=editor, graph=person.graph, factual=person.attributes, noise=person.noise,
            truth=Clip.read(truth), strength=strength,
            out=out / "-".join(f"{name}-{value}" for name, value in asked.items()), report=report,
        )  # fmt: skip
    show(result)
    screen = console()
    screen.print(
        f"{time.perf_counter() - started:.0f} s. Open {result.folder}/report.html in a browser.", soft_wrap=True
    )
