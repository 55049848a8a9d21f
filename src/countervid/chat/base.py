"""What a language model is to the rest of the house: messages in, one answer out, and what it cost.

Critics show it pictures, writers ask it for words. Who it is does not matter to either: `load_chat("openai:gpt-4o")`
speaks to any server of that interface, `load_chat("transformers:llava-hf/llava-v1.6-mistral-7b-hf")` runs one here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from countervid.errors import CallError, ConfigError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn: words, and pictures that belong to them, `(H, W, 3)` uint8 RGB each."""

    role: Role
    text: str
    pictures: Sequence[Tensor] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back. `cost` is in US dollars where a price is known."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    seconds: float = 0.0
    cut: bool = False  # it ended at the limit of tokens, not of itself


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """What both kinds need; `url` and what follows are of remote models alone."""

    max_tokens: int = 1000  # of an answer
    temperature: float = 0.0
    top_p: float | None = None  # None leaves it to the model
    side: int = 512  # px: the longer side that pictures are scaled down to
    url: str | None = None  # an OpenAI-compatible endpoint; None is the vendor's
    timeout: float = 60.0  # seconds of one try
    tries: int = 4  # of one call; waits double between them, from `wait`
    wait: float = 1.0  # seconds
    calls_per_minute: float | None = None  # no faster than this
    max_calls: int | None = None  # of a run, critic and writer together
    max_cost: float | None = None  # US dollars of a run, likewise; needs a price
    one_budget: bool = True  # False: critic and writer have a budget of that size each
    price_in: float | None = None  # US dollars a million tokens; None is unknown
    price_out: float | None = None
    device: str = "auto"  # of local models

    def __post_init__(self) -> None:
        for name in ("max_tokens", "side", "timeout", "tries"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"`{name}` must be above 0, got {getattr(self, name)}.")
        if self.wait < 0:
            raise ConfigError(f"`wait` must be 0 or more seconds, got {self.wait}.")
        if self.calls_per_minute is not None and not self.calls_per_minute > 0:
            raise ConfigError(f"`calls_per_minute` must be above 0, got {self.calls_per_minute}.")
        for name in ("max_calls", "max_cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"`{name.replace('_', '-')}` is {value}: nothing could be asked. Give more than 0.")
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise ConfigError(
                "`max-cost` needs the model's price: set `price_in` and `price_out`, a million tokens each."
            )


@dataclass
class Budget:
    """What may be asked and spent. Several models may share one."""

    max_calls: int | None = None
    max_cost: float | None = None  # US dollars
    calls: int = 0
    cost: float = 0.0

    def admit(self, calls: int, worst: float) -> None:
        """Count so many calls, all or none.

        Args:
            calls: How many.
            worst: What they may cost together at most, US dollars.

        Raises:
            BudgetError: That many are not left, or they may cost more than is left.
        """
        if self.max_calls is not None and self.calls + calls > self.max_calls:
            raise BudgetError(f"The budget of {self.max_calls} calls is spent (`--max-calls`).")
        if self.max_cost is not None and self.cost + worst > self.max_cost:
            raise BudgetError(
                f"The next call may cost {worst:.4g} US dollars, and of the budget of {self.max_cost:g} "
                f"{max(0.0, self.max_cost - self.cost):.4g} are left (`--max-cost`)."
            )
        self.calls += calls


@dataclass
class Account:
    """What has been asked so far and what it cost; refuses what would go beyond the budget."""

    config: ChatConfig
    shared: InitVar[Budget | None] = None  # None: a budget of its own, as the config says
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    budget: Budget = field(init=False)
    denser: float = 1.0  # tokens of a question as the model counts them, over our estimate; the largest so far

    def __post_init__(self, shared: Budget | None) -> None:
        self.budget = shared or Budget(self.config.max_calls, self.config.max_cost)

    def admit(self, *questions: Sequence[Message], tokens: int | None = None) -> None:
        """Count one call a question, all or none, by their worst price: all they hold, and the longest answers.

        Args:
            questions: The conversations; one of unknown length where none is given.
            tokens: Most tokens of an answer; None is the config's.

        Raises:
            BudgetError: The budget of calls or of money does not allow it.
        """
        longest = self.config.max_tokens if tokens is None else tokens
        asked = [math.ceil(self.denser * tokens_of(question, self.config.side)) for question in questions] or [0]
        self.budget.admit(len(asked), sum(self.price(count, longest) or 0.0 for count in asked))
        self.calls += len(asked)

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """US dollars of so many tokens, or None where no price is known."""
        if self.config.price_in is None or self.config.price_out is None:
            return None
        return (tokens_in * self.config.price_in + tokens_out * self.config.price_out) / 1e6

    def book(self, reply: Reply, question: Sequence[Message] = ()) -> None:
        """Add what an answer cost."""
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        self.seconds += reply.seconds
        if question:
            self.denser = max(self.denser, reply.tokens_in / max(1, tokens_of(question, self.config.side)))
        if reply.cost is not None:
            self.cost = (self.cost or 0.0) + reply.cost
            self.budget.cost += reply.cost

    def carry(self, spent: Mapping[str, float]) -> None:
        """Count what an earlier process of the same run spent; what this one has counted already is not added."""
        calls, cost = int(spent.get("calls", 0)) - self.calls, spent.get("cost_usd", 0.0) - (self.cost or 0.0)
        if calls > 0:
            self.calls += calls
            self.budget.calls += calls
        if cost > 0:
            self.cost = (self.cost or 0.0) + cost
            self.budget.cost += cost

    def to_json(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        return {
            "calls": self.calls, "tokens_in": self.tokens_in, "tokens_out": self.tokens_out, "cost_usd": self.cost,
            "seconds": round(self.seconds, 3), "failures": list(self.failures),
        }  # fmt: skip


class BudgetError(CallError):
    """What was allowed is spent."""


class CutOffError(CallError):
    """All tokens of an answer were used up before it said anything."""


class Chat(Protocol):
    """A language model."""

    name: str
    sees: bool  # whether it takes pictures, as far as that is known before it is asked
    account: Account

    def complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None, *, tokens: int | None = None
    ) -> Reply:
        """One answer.

        Args:
            messages: The conversation so far; the last turn is the user's.
            schema: A JSON schema that the answer must follow. Providers that cannot promise it ignore it: whoever
                asks reads the answer tolerantly.
            tokens: Most tokens of this answer; None is the config's.

        Raises:
            CutOffError: The answer used up its tokens before it said anything.
            CallError: No answer could be had, with the reason in words; one failed call is not the end of a run.
            BudgetError: What was allowed is spent.
        """
        ...


def load_chat(name: str, config: ChatConfig | None = None, budget: Budget | None = None) -> Chat:
    """The language model of a name such as `openai:gpt-4o` or `transformers:FOLDER-OR-HUB-NAME`.

    Args:
        name: Of the model.
        config: Settings; also the size of the budget where none is given.
        budget: One that several models share.

    Raises:
        ConfigError: The name is of no known kind.
        MissingExtraError: A package is missing.
        ModelError: There is no such local model.
        CallError: There is no key for the service.
    """
    kind, colon, model = name.partition(":")
    if kind == "openai" and colon and model:
        from countervid.chat.openai import OpenAIChat

        return OpenAIChat(model, config or ChatConfig(), budget)
    if kind == "transformers" and colon and model:
        from countervid.chat.transformers import TransformersChat

        return TransformersChat(model, config or ChatConfig(), budget)
    raise ConfigError(f"`{name}` is no language model. Write openai:MODEL or transformers:MODEL.")


def tokens_of(question: Sequence[Message], side: int) -> int:
    """About how many tokens a conversation has, rather too many: one for two bytes of text, one for 14 x 14 pixels."""
    total = 0
    for message in question:
        total += 16 + math.ceil(len(message.text.encode("utf-8", "replace")) / 2)
        for picture in message.pictures:
            height, width = scaled_size(int(picture.shape[0]), int(picture.shape[1]), side)
            total += math.ceil(height / 14) * math.ceil(width / 14) + 16
    return total


def scaled_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a picture whose longer side is at most `side`; never enlarged."""
    scale = min(1.0, side / max(height, width))
    return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))
