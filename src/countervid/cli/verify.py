"""`countervid verify`: read the marks of synthetic video back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from countervid.cli.common import console

app = typer.Typer(no_args_is_help=True)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A video file, a folder of pictures, or a run's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Say whether a video carries the marks of synthetic video. Exit code 0 if it does, 1 if none was found."""
    from countervid.clip import Clip
    from countervid.runs.folder import read_record
    from countervid.runs.provenance import THRESHOLD
    from countervid.runs.provenance import verify as read_marks

    record = read_record(file) if file.is_dir() else None
    marks = read_marks(Clip.read(file / "counterfactual.mp4" if record is not None else file))
    if as_json:
        answer = {
            "synthetic": marks.synthetic,
            "metadata": marks.statement,
            "watermark": {"found": marks.watermarked, "score": round(marks.score, 2), "threshold": THRESHOLD},
            "run": None if record is None else {"do": record["settings"]["do"], "versions": record["versions"]},
        }
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        screen = console()
        if marks.statement is None:
            screen.print("metadata   says nothing of countervid")
        else:
            do = marks.statement.get("do")
            listed = ", ".join(f"{name} = {value}" for name, value in do.items()) if isinstance(do, dict) else "?"
            screen.print(f"metadata   synthetic, do({listed}), {marks.statement.get('software')}", soft_wrap=True)
        found = "found" if marks.watermarked else "not found"
        screen.print(f"watermark  {found}: {marks.score:.1f} standard deviations above chance, {THRESHOLD:g} needed")
        if record is not None:
            screen.print(f"run.json   do {record['settings']['do']}", soft_wrap=True)
        screen.print("This video is marked as synthetic." if marks.synthetic else "No mark was found.")
    raise typer.Exit(0 if marks.synthetic else 1)
