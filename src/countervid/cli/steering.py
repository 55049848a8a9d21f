"""What `edit` says of steering: its options, and each round as it is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from countervid.cli.common import console, settings_of
from countervid.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

    from countervid.causal.graph import CausalGraph
    from countervid.editors.base import Editor
    from countervid.steering.base import Round

PAPER = "csvc-paper"  # also a preset: the editor as in the paper's experiments, steered as there

CriticOption = Annotated[
    Optional[str],
    typer.Option(
        help="Who looks at the edits and steers: bundled, openai:MODEL, transformers:MODEL or replay:FILE.",
        show_default="nobody",
    ),
]
UrlOption = Annotated[
    Optional[str], typer.Option("--critic-url", help="Address of an OpenAI-compatible server, for critic and writer.")
]
WriterOption = Annotated[
    str, typer.Option(help="Who rewrites prompts: rules (offline), openai:MODEL or transformers:MODEL.")
]
SteeringOption = Annotated[
    str, typer.Option(help="How: auto, csvc, strengths, csvc-paper, paraphrase, vpo, promptist or none.")
]
MaxEditsOption = Annotated[int, typer.Option(help="Most edits of a steered run, the first among them.")]
MaxCallsOption = Annotated[
    Optional[int], typer.Option(help="Most calls of language models, critic and writer together.")
]
MaxCostOption = Annotated[Optional[float], typer.Option(help="Most US dollars, critic and writer together.")]
LooksOption = Annotated[Optional[int], typer.Option(help="Frames that the critic sees.", show_default="5")]
CandidatesOption = Annotated[
    int, typer.Option(help="Edits of each prompt with different seeds, where the editor has one.")
]
ChatOption = Annotated[
    Optional[list[str]],
    typer.Option("--chat", metavar="NAME=VALUE", help="Any setting of the language model: --chat timeout=20."),
]


def steering_options(
    editor: Editor, graph: CausalGraph, *, critic: str | None, url: str | None, writer: str, steering: str,
    max_edits: int, max_calls: int | None, max_cost: float | None, looks: int | None, chat: list[str] | None,
    candidates: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """What `counterfactual` takes of the options; nothing where no critic is named."""
    from countervid.chat.base import Budget, ChatConfig
    from countervid.critics.base import load_critic
    from countervid.editors.base import make_config
    from countervid.steering.candidates import check_candidates
    from countervid.steering.choose import load_steerer, load_writer
    from countervid.steering.loop import LoopConfig

    loop = LoopConfig(max_edits=max_edits, looks=looks, candidates=candidates)
    given = {"url": url, "max_calls": max_calls, "max_cost": max_cost}
    told = {**settings_of(chat or [], "--chat"), **{name: value for name, value in given.items() if value is not None}}
    config: ChatConfig = make_config(ChatConfig, told, "chat")
    if critic is None:
        if told or steering != "auto" or writer != "rules" or looks is not None or candidates > 1:
            raise ConfigError("Steering needs somebody who looks. Add `--critic bundled`, or another critic.")
        return {}
    check_candidates(candidates, editor)
    budget = Budget(config.max_calls, config.max_cost) if config.one_budget else None
    looking = load_critic(critic, config, budget)
    looking.check(graph)
    steerer = load_steerer(steering, editor, graph, load_writer(writer, config, budget))
    return {"critic": looking, "steerer": steerer, "loop": loop, "watch": shower()}


def shower() -> Callable[[Round, Path | None], None]:
    """Prints each round: what was asked, what was seen, and where its picture is."""
    from rich.text import Text

    screen = console()

    def show(round: Round, picture: Path | None) -> None:
        screen.print(Text(f"round {round.number}", style="bold"), Text(round.step.note, style="dim"))
        if round.step.target.prompt:
            screen.print(Text(f"  “{round.step.target.prompt}”"))
        screen.print(seen(round))
        if picture is not None:
            screen.print(Text(f"  {picture}", style="dim"), soft_wrap=True)

    return show


def seen(round: Round) -> Text:
    """What the critic saw before and after, in a line: what should change first, then what was lost."""
    from rich.text import Text

    from countervid.runs.steered import seen_as

    line = Text("  ")
    if round.verdict is None:
        return line.append(round.failure or "not judged", style="yellow")
    for name in (*round.step.target.changed, *round.lost):
        answer = round.verdict.answers.get(name)
        if answer is None:
            continue
        good = name not in round.missing and name not in round.lost and name not in round.already
        line.append("✓ " if good else "✗ ", style="green" if good else "red")
        line.append(f"{name.replace('_', ' ')} {seen_as(round, name)} {answer.confidence:.0%}   ")
    return line
