"""`countervid models`: which weights are there and under which licence, and how published ones come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from countervid.cli.common import console, progress
from countervid.errors import ConfigError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """List the model weights, fetch published ones, import those of other programs."""


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")] = False,
) -> None:
    """Show every installed model: what it is, size, licence, origin, and whether its checksum is the released one."""
    from countervid.models import bundled_folder, listings

    rows = listings()
    if as_json:
        fields = ("name", "what", "licence", "source", "size", "checksum")
        entries = [{**{f: getattr(row, f) for f in fields}, "folder": str(row.folder)} for row in rows]
        typer.echo(json.dumps(entries, indent=2))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "what", "MB", "licence", "checksum", "from"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for row in rows:
        table.add_row(row.name, row.what, f"{row.size / 1e6:.1f}", row.licence, row.checksum, row.source)
    console().print(table)
    console().print(f"Folder: {bundled_folder()}", soft_wrap=True)


@app.command()
def seal() -> None:
    """Record the checksums of the bundled weights as the right ones, after training them yourself."""
    from countervid.models import seal as seal_bundle

    typer.echo(f"Recorded in {seal_bundle()}.")


WhatArgument = Annotated[str, typer.Argument(help="Which model: dva; to fetch also lpips, i3d.", show_default=False)]
OutOption = Annotated[Path, typer.Option(help="The model's folder, for `countervid edit --model`.")]
HalfOption = Annotated[bool, typer.Option("--half", help="Store half precision: half the space, a rounding apart.")]


@app.command("import")
def import_model(
    what: WhatArgument,
    checkpoint: Annotated[Path, typer.Option(help="The autoencoder: last.ckpt.", show_default=False)],
    statistics: Annotated[Optional[Path], typer.Option(help="Latent statistics: latent.pkl.")] = None,
    classifier: Annotated[Optional[Path], typer.Option(help="The attribute classifier: last.ckpt.")] = None,
    identity: Annotated[Optional[Path], typer.Option(help="model_ir_se50.pth, if not in the checkpoint.")] = None,
    landmarks: Annotated[Optional[Path], typer.Option(help="mobilenet_224_...pth.tar, if not in it.")] = None,
    parser: Annotated[Optional[Path], typer.Option(help="79999_iter.pth, if not in it.")] = None,
    half: HalfOption = False,
    out: OutOption = Path("models/dva"),
) -> None:
    """Turn checkpoint files of the published autoencoder into a folder that `countervid edit --model` takes."""
    if what != "dva":
        raise ConfigError(f"There is nothing to import of `{what}`. Importing is for: dva.")
    frozen = {"identity": identity, "landmarks": landmarks, "parser": parser}
    _import(checkpoint, statistics, classifier, {role: path for role, path in frozen.items() if path}, half, out)


@app.command()
def pull(
    what: WhatArgument,
    half: HalfOption = False,
    files: Annotated[Path, typer.Option(help="Where the authors' files are kept.")] = Path("models/downloads"),
    out: OutOption = Path("models/dva"),
) -> None:
    """Fetch what its authors published; the autoencoder is imported too. The same command goes on where it stopped."""
    from countervid.models.download import RELEASES, fetch

    if what not in RELEASES:
        raise ConfigError(f"There is no published model `{what}`. There are: {', '.join(RELEASES)}.")
    release = RELEASES[what]
    screen = console()
    screen.print(f"{release.what}, by {release.authors}", soft_wrap=True)
    screen.print(f"From {release.home}. Licence: {release.licence}.", soft_wrap=True)
    paths = []
    for file in release.files:
        with progress(file.name) as advance:
            paths.append(fetch(file, files / what, advance))
    if what != "dva":  # what metrics look with is read as its authors saved it
        screen.print(f"Use it: countervid measure ... --weights {what}={files / what}", soft_wrap=True)
        return
    _import(paths[0], paths[1], paths[2], {}, half, out)


def _import(
    checkpoint: Path, statistics: Path | None, classifier: Path | None, frozen: dict[str, Path], half: bool, out: Path
) -> None:
    import torch

    from countervid.autoencoder.checkpoint import import_dva

    result = import_dva(
        out,
        checkpoint,
        statistics=statistics,
        classifier=classifier,
        frozen=frozen,
        dtype=torch.float16 if half else torch.float32,
    )
    screen = console()
    for sentence in result.sentences():
        screen.print(sentence, soft_wrap=True)
    if classifier is None:
        screen.print("There is no classifier, so attributes cannot be read or set by name.", style="yellow")
    screen.print(f"Use it: countervid edit CLIP --do age=old --model {out}", soft_wrap=True)
