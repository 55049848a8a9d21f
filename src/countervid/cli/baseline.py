"""`countervid baseline`: the prompts of a file, each given to an editor as it stands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from countervid.cli.common import CacheLimitOption, CacheOption, console
from countervid.cli.edit import (
    DeviceOption,
    GraphOption,
    ModelOption,
    PresetOption,
    RegionOption,
    SettingsOption,
    make_editor,
)
from countervid.errors import ClipError

app = typer.Typer(no_args_is_help=True)


@app.command()
def baseline(
    prompts: Annotated[Path, typer.Argument(help="JSON as CSVC's counterfactual_explicit.json.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Where NAME.mp4 or the folder NAME lies, for each name of the file.")],
    editor: Annotated[str, typer.Option(help="Which editor.")] = "tokenflow",
    out: Annotated[Path, typer.Option(help="OUT/NAME/ATTRIBUTE.mp4 are written.")] = Path("baseline"),
    only: Annotated[
        Optional[list[str]], typer.Option(help="Interventions to make: --only age. All by default.")
    ] = None,
    max_frames: Annotated[Optional[int], typer.Option(help="Edit the first frames only.")] = None,
    model: ModelOption = None,
    preset: PresetOption = None,
    region: RegionOption = None,
    settings: SettingsOption = None,
    graph: GraphOption = "face",
    device: DeviceOption = None,
    cache: CacheOption = None,
    cache_limit: CacheLimitOption = None,
) -> None:
    """Edit every clip of a file by the file's own prompts, unsteered. The same command goes on."""
    from countervid.cli.stages import stages, wait_politely

    wait_politely()
    from countervid.causal.graph import CausalGraph
    from countervid.causal.lexicon import parse
    from countervid.clip import Clip
    from countervid.editors.base import Target
    from countervid.runs import provenance
    from countervid.runs.footage import clip_of, read_prompts
    from countervid.runs.records import results_in
    from countervid.runs.run import versions

    wanted = read_prompts(prompts)
    plan, screen = CausalGraph.load(graph), console()
    there = {name: path for name in wanted if (path := clip_of(data, name)) is not None}
    if not there:
        raise ClipError(f"None of the {len(wanted)} clips of `{prompts}` is in `{data}`.")
    chosen = make_editor(
        editor, model, cache, cache_limit=cache_limit, preset=preset, region=region, device=device, settings=settings
    )
    with results_in(out, "baseline.json") as results:
        for name, path in there.items():
            entry, clip = wanted[name], Clip.read(path)
            if max_frames is not None:
                clip = clip.first(max_frames)
            factual = parse(entry["factual"], plan)
            for attribute, prompt in entry["counterfactual"].items():
                if only and attribute not in only:
                    continue
                after = parse(prompt, plan)
                do = {attribute: after[attribute]} if attribute in after else {}
                target = Target(factual=factual, do=do, counterfactual=after, prompt=prompt)

                def edit(file: Path, clip: Clip = clip, target: Target = target, said: str = entry["factual"]) -> None:
                    with stages() as report:
                        prepared = chosen.prepare(clip, target.factual, prompt=said, report=report)
                        edited = clip.zipped(provenance.mark, chosen.edit(prepared, target, report=report))
                        tags = provenance.metadata(target.do, version=versions()["countervid"], editor=chosen.name)
                        edited.write(file, metadata=tags, progress=lambda done, total: report("editing", done, total))

                made_from = {
                    "clip": clip.digest(), "source_prompt": entry["factual"], "target": target.to_json(),
                    "editor": chosen.name, "editor_settings": asdict(chosen.config), "weights": chosen.weights(),
                }  # fmt: skip
                file = Path(name, f"{attribute}.mp4")
                if results.make(str(file), made_from, edit):
                    screen.print(f"{out / file}: {prompt}", soft_wrap=True, markup=False)
    absent = [name for name in wanted if name not in there]
    if absent:
        screen.print(f"Not in {data}, and left out: {', '.join(absent[:8])}{' ...' if len(absent) > 8 else ''}")
