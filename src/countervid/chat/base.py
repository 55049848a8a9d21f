"""What a language model is to the rest of the house: messages in, one answer out, and what it cost.

Critics show it pictures, writers ask it for words. Who it is does not matter to either: `load_chat("openai:gpt-4o")`
speaks to any server of that interface, `load_chat("transformers:llava-hf/llava-v1.6-mistral-7b-hf")` runs one here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    max_calls: int | None = None  # of a run
    max_cost: float | None = None  # US dollars of a run; needs a price
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
class Account:
    """What has been asked so far and what it cost; refuses what would go beyond the budget."""

    config: ChatConfig
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def admit(self) -> None:
        """Count one call.

        Raises:
            BudgetError: The budget of calls or of money is spent.
        """
        limit = self.config.max_calls
        if limit is not None and self.calls >= limit:
            raise BudgetError(f"The budget of {limit} calls is spent (`--max-calls`).")
        if self.config.max_cost is not None and (self.cost or 0.0) >= self.config.max_cost:
            raise BudgetError(f"The budget of {self.config.max_cost} US dollars is spent (`--max-cost`).")
        self.calls += 1

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """US dollars of so many tokens, or None where no price is known."""
        if self.config.price_in is None or self.config.price_out is None:
            return None
        return (tokens_in * self.config.price_in + tokens_out * self.config.price_out) / 1e6

    def book(self, reply: Reply) -> None:
        """Add what an answer cost."""
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        self.seconds += reply.seconds
        if reply.cost is not None:
            self.cost = (self.cost or 0.0) + reply.cost

    def to_json(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        return {
            "calls": self.calls, "tokens_in": self.tokens_in, "tokens_out": self.tokens_out, "cost_usd": self.cost,
            "seconds": round(self.seconds, 3), "failures": list(self.failures),
        }  # fmt: skip


class BudgetError(CallError):
    """What was allowed is spent."""


class Chat(Protocol):
    """A language model."""

    name: str
    sees: bool  # whether it takes pictures, as far as that is known before it is asked
    account: Account

    def complete(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> Reply:
        """One answer.

        Args:
            messages: The conversation so far; the last turn is the user's.
            schema: A JSON schema that the answer must follow. Providers that cannot promise it ignore it: whoever
                asks reads the answer tolerantly.

        Raises:
            CallError: No answer could be had, with the reason in words; one failed call is not the end of a run.
            BudgetError: What was allowed is spent.
        """
        ...


def load_chat(name: str, config: ChatConfig | None = None) -> Chat:
    """The language model of a name such as `openai:gpt-4o` or `transformers:FOLDER-OR-HUB-NAME`.

    Raises:
        ConfigError: The name is of no known kind.
        MissingExtraError: A package is missing.
        ModelError: There is no such local model.
        CallError: There is no key for the service.
    """
    kind, colon, model = name.partition(":")
    if kind == "openai" and colon and model:
        from countervid.chat.openai import OpenAIChat

        return OpenAIChat(model, config or ChatConfig())
    if kind == "transformers" and colon and model:
        from countervid.chat.transformers import TransformersChat

        return TransformersChat(model, config or ChatConfig())
    raise ConfigError(f"`{name}` is no language model. Write openai:MODEL or transformers:MODEL.")


def scaled_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a picture whose longer side is at most `side`; never enlarged."""
    scale = min(1.0, side / max(height, width))
    return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))
