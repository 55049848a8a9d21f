"""`countervid prepare`: what every edit of a clip needs, done once and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from countervid.cli.common import CacheLimitOption, CacheOption, console
from countervid.cli.edit import (
    DeviceOption,
    ModelOption,
    PresetOption,
    RegionOption,
    SettingsOption,
    make_editor,
)
from countervid.cli.preflight import preflight
from countervid.errors import ClipError, ConfigError

app = typer.Typer(no_args_is_help=True)


@app.command()
def prepare(
    clips: Annotated[
        Optional[list[Path]], typer.Argument(help="Videos, or folders of pictures.", show_default=False)
    ] = None,
    editor: Annotated[str, typer.Option(help="Which editor.")] = "tokenflow",
    source_prompts: Annotated[
        Optional[Path], typer.Option(help='Instead of clips: JSON, {"NAME": "He is young.", ...}; with --data.')
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option(help="Where NAME.mp4 or the folder NAME lies, for each name of the file.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What the clips show, for clips named here.")] = "",
    model: ModelOption = None,
    preset: PresetOption = None,
    region: RegionOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = None,
    cache: CacheOption = None,
    cache_limit: CacheLimitOption = None,
) -> None:
    """Invert, encode, fine-tune: all that does not depend on what is asked for. The same command goes on."""
    from countervid.cli.stages import stages, wait_politely

    wait_politely()
    from countervid.clip import Clip
    from countervid.runs.footage import clip_of

    if (source_prompts is None) != (data is None):
        raise ConfigError("`--source-prompts FILE` and `--data DIR` go together. Give both, or name clips.")
    if source_prompts is None or data is None:
        asked = [(path, prompt) for path in clips or []]
        if not asked:
            raise ConfigError("Nothing to prepare: name clips, or give `--source-prompts FILE --data DIR`.")
        absent: list[str] = []
    else:
        prompts = read_prompts(source_prompts)
        found = {name: clip_of(data, name) for name in prompts}
        asked = [(path, prompts[name]) for name, path in found.items() if path is not None]
        absent = [name for name, path in found.items() if path is None]
        if not asked:
            raise ClipError(f"None of the {len(prompts)} clips of `{source_prompts}` is in `{data}`.")
    chosen = make_editor(
        editor, model, cache, cache_limit=cache_limit, preset=preset, region=region, device=device, settings=settings
    )
    screen = console()
    for path, said in asked:
        clip = Clip.read(path)
        with stages() as bars, preflight(chosen, clip, bars, edits=0) as report:
            prepared = chosen.prepare(clip, {}, prompt=said, report=report)
        screen.print(f"{path.name}: {len(prepared.clip)} frames, kept as {prepared.key}", soft_wrap=True)
    if absent:
        screen.print(f"Not in {data}, and left out: {', '.join(absent[:8])}{' ...' if len(absent) > 8 else ''}")


def read_prompts(path: Path) -> dict[str, str]:
    """A file of source prompts: name of a clip -> sentence."""
    from countervid.runs.footage import read_entries

    values = read_entries(path)
    if not all(isinstance(value, str) for value in values.values()):
        raise ConfigError(f'`{path}` is not a file of source prompts. It should read {{"NAME": "He is young.", ...}}.')
    return {name: str(value) for name, value in values.items()}
