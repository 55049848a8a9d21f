"""Asking until the answer can be read: what cannot is asked for once more, what was cut off gets more room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from countervid.chat.answers import ends_complete
from countervid.chat.base import BudgetError, Chat, CutOffError, Message
from countervid.errors import CallError, InterventionError

Read = TypeVar("Read")

ROOMIER = 4  # times the tokens of an answer that was cut off
LARGER = 2  # how often it may grow
READINGS = 2  # answers that are read, before it is given up


def ask(
    chat: Chat, question: Sequence[Message], schema: Mapping[str, Any] | None, read: Callable[[str], Read],
    *, lacking: str = "gave no answer that can be read",
    retort: str = "That cannot be read: {fault} Answer again with the JSON object alone.",
) -> tuple[Read, tuple[str, ...]]:  # fmt: skip
    """What a model's answer says, and the answers as they came.

    An answer that cannot be read is asked for once more, with what is wrong with it. One that was cut off before it was
    complete is not read: it is asked for again with `ROOMIER` times the tokens, at most `LARGER` times.

    Args:
        chat: Who is asked.
        question: The conversation.
        schema: As for `Chat.complete`.
        read: The answer's text in, what it says out; raises `InterventionError` where it says nothing of use.
        lacking: What the model failed to do, for whoever reads the error.
        retort: What is said to an answer that cannot be read; `{fault}` stands for why.

    Raises:
        CallError: No answer could be had, or none that can be read.
        BudgetError: What may be asked is used up.
    """
    conversation, said, fault = list(question), list[str](), ""
    room, larger, read_so_far = chat.account.config.max_tokens, 0, 0
    while True:
        try:
            reply = chat.complete(conversation, schema, tokens=room)
            text, cut = reply.text, reply.cut and not ends_complete(reply.text)
        except CutOffError:
            text, cut = "", True
        except BudgetError:
            raise
        except CallError as error:
            if larger:
                raise CallError(f"`{chat.name}` was cut off at {room // ROOMIER} tokens, and more: {error}") from None
            raise
        if text:
            said.append(text)
        if cut and larger >= LARGER:
            raise CallError(
                f"`{chat.name}` was cut off at {room} tokens. Raise `max_tokens`, or use a model that says it shorter."
            )
        if cut:
            room, larger = room * ROOMIER, larger + 1
            continue
        try:
            return read(text), tuple(said)
        except InterventionError as error:
            fault = str(error)
        read_so_far += 1
        if read_so_far >= READINGS:
            raise CallError(f"`{chat.name}` {lacking}, asked twice: {fault}")
        conversation += [Message("assistant", text), Message("user", retort.format(fault=fault))]
