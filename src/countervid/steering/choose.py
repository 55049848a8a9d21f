"""Steerers and writers by name."""

from __future__ import annotations

from countervid.causal.graph import CausalGraph
from countervid.chat.base import Budget, BudgetError, ChatConfig, load_chat
from countervid.editors.base import Editor, Target
from countervid.errors import CallError, ConfigError
from countervid.steering.base import Steerer
from countervid.steering.baselines import Once
from countervid.steering.drafts import no_description
from countervid.steering.gradient import ChatWriter
from countervid.steering.rewrite import RuleWriter, Writer
from countervid.steering.strengths import Strengths
from countervid.steering.words import Words, published

STEERERS = {
    "csvc": "rewrite the prompt by the verdict; move guidance and strength; keep the best",
    "strengths": "move each attribute's own strength, for editors that move along directions",
    "csvc-paper": "as published: one frame judged, two rewritings, words alone, the last edit returned",
    "paraphrase": "reword the prompt expressively, once",
    "vpo": "reword it by VPO (CCCCCC/VPO-5B), once",
    "promptist": "reword it by Promptist (microsoft/Promptist), once",
    "none": "one edit as asked, judged for the record",
}


def load_writer(name: str = "rules", config: ChatConfig | None = None, budget: Budget | None = None) -> Writer:
    """Who rewrites prompts: `rules`, offline, or a language model, `openai:MODEL` or `transformers:MODEL`.

    `budget` is one that it shares with others.
    """
    return RuleWriter() if name == "rules" else ChatWriter(load_chat(name, config, budget))


def load_steerer(
    name: str, editor: Editor, graph: CausalGraph, writer: Writer | None = None, *, optimiser: str | None = None
) -> Steerer:
    """A steerer by name; `auto` is what suits the editor.

    Args:
        optimiser: A folder or hub name in place of the published one, for `vpo` and `promptist`.

    Raises:
        ConfigError: There is no such steerer, or it moves what the editor does not answer to.
        ModelError: The optimiser's weights cannot be had.
    """
    writer = writer or RuleWriter()
    by_words = "prompt" in editor.knobs
    if name == "auto":
        name = "csvc" if by_words else "strengths"
    if name not in STEERERS:
        raise ConfigError(f"There is no steering `{name}`. There are: auto, {', '.join(STEERERS)}.")
    if name == "none":
        return Once()
    if name == "strengths":
        if "strengths" not in editor.knobs:
            raise ConfigError(f"`{editor.name}` moves all attributes together: steer it by `csvc`, not by `strengths`.")
        return Strengths()
    if not by_words:
        raise ConfigError(f"`{editor.name}` is not told by a prompt: steer it by `strengths`, not by `{name}`.")
    if name == "csvc":
        return Words(graph, writer, getattr(editor.config, "guidance", 1.0), controls=frozenset(editor.knobs))
    if name == "csvc-paper":
        return published(graph, writer, editor.config.guidance)
    if name == "paraphrase":
        return Once(name, lambda target: _paraphrase(target, graph, writer), writer.costs)
    from countervid.chat.optimisers import VPO, Promptist

    chosen: type[VPO] | type[Promptist] = VPO if name == "vpo" else Promptist
    optimise = chosen() if optimiser is None else chosen(optimiser)

    def reworded(target: Target) -> str:
        prompt = optimise(target.prompt)
        return target.prompt if no_description(prompt) else prompt

    return Once(name, reworded)


def _paraphrase(target: Target, graph: CausalGraph, writer: Writer) -> str:
    """The prompt in other words, by the rules where the writer fails."""
    for one in (writer, RuleWriter()):
        try:
            return one.paraphrase(target.prompt, target.counterfactual, graph)
        except BudgetError:
            raise
        except CallError:
            continue
    return target.prompt
