"""`countervid align`: raw videos into aligned face crops to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from countervid.cli.common import console, progress
from countervid.errors import ConfigError, FaceError

app = typer.Typer(no_args_is_help=True)


@app.command()
def align(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The data set: OUT/{train,test}/VIDEO/FRAME.png.")] = Path("Video_Dataset"),
    preset: Annotated[
        str, typer.Option(help="What the crops are for: paper-256, FFHQ's square; miniature, 128 px of a wider one.")
    ] = "paper-256",
    size: Annotated[Optional[int], typer.Option(help="Side of a crop in pixels, instead of the preset's.")] = None,
    every: Annotated[int, typer.Option(help="Keep one of so many frames.")] = 1,
    least_side: Annotated[int, typer.Option(help="Smallest face's square in its frame, pixels.")] = 128,
    least_frames: Annotated[int, typer.Option(help="Fewest usable frames of a video.")] = 8,
    test_share: Annotated[float, typer.Option(help="Share of the people that training never sees.")] = 0.05,
    person: Annotated[
        str, typer.Option(help="Who is who: `video`, or `folder` if a folder holds one person.")
    ] = "video",
) -> None:
    """Cut aligned face crops out of raw videos, for `countervid train autoencoder`. The same command resumes."""
    from rich.table import Table

    from countervid.autoencoder.faces import CROPS
    from countervid.training.align import AlignConfig, align_videos, find_videos

    if preset not in CROPS:
        raise ConfigError(f"There is no preset `{preset}`. There are: {', '.join(CROPS)}.")
    side, framing = CROPS[preset]
    config = AlignConfig(
        size=side if size is None else size, framing=framing, every=every, least_side=least_side,
        least_frames=least_frames, test_share=test_share, person=person,  # type: ignore[arg-type]
    )  # fmt: skip
    found = find_videos(videos)
    with progress("aligning") as advance:
        results = align_videos(found, out, config, report=lambda _, done, total: advance(done, total))
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("video", "split", "frames", "skipped"):
        table.add_column(column, justify="right" if column == "frames" else "left")
    for result in results:
        skipped = ", ".join(f"{count} {reason}" for reason, count in result.skipped.items())
        table.add_row(Path(result.video).name, result.split or "left out", str(result.kept), result.reason or skipped)
    console().print(table)
    kept = [result for result in results if result.split]
    if not kept:
        raise FaceError(f"None of {len(results)} videos gave enough usable frames. The table above says why.")
    console().print(f"{sum(result.kept for result in kept):,} frames of {len(kept)} videos in {out}/", soft_wrap=True)
