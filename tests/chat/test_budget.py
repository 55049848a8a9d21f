"""What a run may spend: looked at before a call, by its worst price, over all models and processes of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.server import Server, serve
from countervid.chat.base import (
    Account,
    Budget,
    BudgetError,
    ChatConfig,
    CutOffError,
    Message,
    Reply,
    load_chat,
    tokens_of,
)
from countervid.chat.openai import OpenAIChat

ASK = [Message("user", "Well?")]


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(lambda messages, pictures: "yes") as server:
        yield server


def chat_of(server: Server, **settings: Any) -> OpenAIChat:
    return OpenAIChat("tiny", ChatConfig(**{"url": server.url, "wait": 0.01, **settings}))


def test_a_call_is_admitted_by_its_worst_price(server: Server) -> None:
    picture = torch.zeros(280, 140, 3, dtype=torch.uint8)  # 20 x 10 patches of 14 px
    question = [Message("user", "?" * 400, [picture])]
    assert tokens_of(question, 512) == 16 + 200 + 200 + 16 and tokens_of(question, 140) == 16 + 200 + 50 + 16
    prices: dict[str, Any] = {"price_in": 1.0, "price_out": 10.0, "max_tokens": 100}
    worst = (432 * 1.0 + 100 * 10.0) / 1e6
    chat_of(server, max_cost=worst * 1.001, **prices).complete(question)
    with pytest.raises(
        BudgetError, match=r"may cost 0.001432 US dollars, and of the budget of 0.00143 0.00143 are left"
    ):
        chat_of(server, max_cost=0.00143, **prices).complete(question)
    with pytest.raises(BudgetError, match="may cost 0.002432"):  # a longer answer
        chat_of(server, max_cost=worst * 1.001, **prices).complete(question, tokens=200)
    assert len(server.requests) == 1  # nobody was asked


def test_what_a_model_counts_more_densely_is_estimated_so_from_then_on(server: Server) -> None:
    server.usage = (4320, 100)  # ten times the estimate
    chat = chat_of(server, max_cost=0.01, price_in=1.0, price_out=0.0)
    question = [Message("user", "?" * 832)]
    for _ in range(2):
        chat.complete(question)
    with pytest.raises(BudgetError, match="may cost 0.00432 US dollars, and of the budget of 0.01 0.00136 are left"):
        chat.complete(question)
    assert chat.account.cost is not None and chat.account.cost <= 0.01


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 300)), max_size=8), st.floats(0.0005, 0.01))
def test_no_run_costs_more_than_its_budget(calls: list[tuple[int, int]], limit: float) -> None:
    config = ChatConfig(max_tokens=300, max_cost=limit, price_in=1.0, price_out=4.0)
    budget = Budget(max_cost=limit)
    accounts = [Account(config, budget), Account(config, budget)]  # of critic and writer
    for number, (letters, written) in enumerate(calls):
        account, question = accounts[number % 2], [Message("user", "x" * letters)]
        try:
            account.admit(question)
        except BudgetError:
            continue
        counted = tokens_of(question, 512)
        cost = account.price(counted, written)
        account.book(Reply(text="", tokens_in=counted, tokens_out=written, cost=cost), question)
    assert budget.cost <= limit + 1e-12
    assert budget.cost == pytest.approx(sum(account.cost or 0.0 for account in accounts))


def test_critic_and_writer_spend_from_one_budget(server: Server) -> None:
    config = ChatConfig(url=server.url, max_calls=3)
    shared = Budget(config.max_calls, config.max_cost)
    one, other = load_chat("openai:tiny", config, shared), load_chat("openai:large", config, shared)
    for chat in (one, other, one):
        chat.complete(ASK)
    with pytest.raises(BudgetError, match="budget of 3 calls"):
        other.complete(ASK)
    assert (one.account.calls, other.account.calls) == (2, 1)
    apart = [load_chat(name, config) for name in ("openai:tiny", "openai:large")]
    for chat in apart * 3:
        chat.complete(ASK)


def test_what_an_earlier_process_spent_counts_once(server: Server) -> None:
    chat = chat_of(server, max_calls=5, price_in=1.0, price_out=1.0)
    for _ in range(2):
        chat.account.carry({"calls": 3, "cost_usd": 0.5})
    assert (chat.account.calls, chat.account.cost, chat.account.budget.cost) == (3, 0.5, 0.5)
    chat.complete(ASK)
    chat.account.carry({"calls": 3})
    chat.complete(ASK)
    with pytest.raises(BudgetError):
        chat.complete(ASK)


def test_an_answer_that_was_cut_off_is_told_from_one_that_ended(server: Server) -> None:
    server.cuts += [2]
    chat = chat_of(server)
    replies = [chat.complete(ASK) for _ in range(2)]
    assert [(reply.text, reply.cut) for reply in replies] == [("ye", True), ("yes", False)]
    server.faults += ["length"]
    with pytest.raises(CutOffError, match="used up its 7 tokens"):
        chat.complete(ASK, tokens=7)
    assert [asked.body["max_tokens"] for asked in server.requests] == [1000, 1000, 7]
