"""The OpenAI interface over real HTTP on loopback, with a server that can misbehave."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chat.server import Server, serve
from countervid.chat.base import BudgetError, ChatConfig, Message, load_chat
from countervid.chat.openai import OpenAIChat
from countervid.errors import CallError, ConfigError, MissingExtraError

KEY = "sk-a-secret-of-the-test"
SCHEMA = {"type": "object", "properties": {"seen": {"type": "boolean"}}, "required": ["seen"]}
ASK = [Message("user", "Well?")]
LOOK = [Message("user", "What is this?", [torch.zeros(8, 8, 3, dtype=torch.uint8)])]


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(lambda messages, pictures: "yes") as server:
        yield server


def chat_of(server: Server, **settings: Any) -> OpenAIChat:
    return OpenAIChat("tiny", ChatConfig(**{"url": server.url, "wait": 0.01, **settings}))


def failure(chat: OpenAIChat, messages: list[Message] = ASK, schema: dict[str, Any] | None = None) -> str:
    """What a call fails with: one line, kept by the account, without the key."""
    with pytest.raises(CallError) as caught:
        chat.complete(messages, schema)
    text = str(caught.value)
    assert chat.account.failures[-1] == text and "\n" not in text and KEY not in text
    assert caught.value.__context__ is None  # what the client raised holds the key
    return text


def test_words_and_pictures_arrive_as_they_were_sent() -> None:
    red = torch.tensor([200, 30, 10], dtype=torch.uint8).expand(60, 100, 3)
    noise = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def answer(messages: list[dict[str, Any]], pictures: list[np.ndarray]) -> str:
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
        assert messages[0]["content"] == "Be short."  # words alone stay a string
        assert [part["type"] for part in messages[1]["content"]] == ["text", "image_url", "image_url"]
        assert messages[1]["content"][0]["text"] == "Two."
        assert messages[1]["content"][1]["image_url"]["detail"] == "auto"
        assert [part["type"] for part in messages[3]["content"]] == ["image_url"]  # no empty words
        return ", ".join(
            f"{picture.shape[1]}x{picture.shape[0]} {picture.mean((0, 1)).tolist()}" for picture in pictures
        )

    with serve(answer) as server:
        chat = chat_of(server, side=50)
        reply = chat.complete(
            [
                Message("system", "Be short."),
                Message("user", "Two.", [red, noise]),
                Message("assistant", "Yes."),
                Message("user", "", [noise]),
            ]
        )
    mean = noise.double().mean((0, 1)).tolist()  # smaller than `side`: not touched
    assert reply.text == f"50x30 [200.0, 30.0, 10.0], 30x20 {mean}, 30x20 {mean}"
    assert np.array_equal(server.requests[0].pictures[1], noise.numpy())
    assert reply.seconds > 0 and chat.name == "openai:tiny" and chat.sees


def test_pictures_are_scaled_down_without_aliasing(server: Server) -> None:
    stripes = torch.zeros(64, 64, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255
    chat_of(server, side=16).complete([Message("user", "?", [stripes])])
    inside = server.requests[0].pictures[0][:, 2:-2].astype(int)  # the kernel is cut at the border
    assert inside.shape == (16, 12, 3) and abs(inside - 127.5).max() < 2  # grey, up to rounding; nearest gives 0 or 255


def test_a_picture_of_another_shape_is_said(server: Server) -> None:
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8, got \(3, 8, 8\)"):
        chat_of(server).complete([Message("user", "?", [torch.zeros(3, 8, 8, dtype=torch.uint8)])])
    assert server.requests == []


def test_what_is_asked_for_is_sent(server: Server) -> None:
    chat_of(server, max_tokens=7, temperature=0.5, top_p=0.9).complete(ASK, SCHEMA)
    body = server.requests[0].body
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("tiny", 7, 0.5, 0.9)
    form = {"name": "answer", "strict": True, "schema": SCHEMA}
    assert body["response_format"] == {"type": "json_schema", "json_schema": form}
    chat_of(server).complete(ASK)
    assert not {"response_format", "top_p"} & server.requests[1].body.keys()


def test_the_account_knows_what_it_cost(server: Server) -> None:
    chat = chat_of(server, price_in=2.0, price_out=10.0, max_calls=2)
    assert chat.complete(ASK).cost == pytest.approx(300e-6)
    server.faults += ["500"]
    chat.complete(ASK)
    account = chat.account
    assert (account.calls, account.tokens_in, account.tokens_out) == (2, 200, 20)  # a second try is no second call
    assert account.cost == pytest.approx(600e-6) and account.failures == []
    with pytest.raises(BudgetError, match="budget of 2 calls"):
        chat.complete(ASK)
    assert len(server.requests) == 3


def test_a_server_that_tells_no_tokens(server: Server) -> None:
    server.faults += ["silent", "silent"]
    reply = chat_of(server).complete(ASK)
    assert (reply.tokens_in, reply.tokens_out, reply.cost) == (0, 0, None)
    with pytest.raises(BudgetError, match="`--max-cost` cannot be kept"):
        chat_of(server, max_cost=1.0, price_in=1.0, price_out=1.0).complete(ASK)


@pytest.mark.parametrize("fault", ["429", "500", "drop", (408, "slow"), (409, "busy"), (503, "loading"), (529, "full")])
def test_what_may_pass_is_tried_again(server: Server, fault: Any) -> None:
    server.faults += [fault, fault]
    chat = chat_of(server)
    assert chat.complete(ASK).text == "yes" and len(server.requests) == 3
    server.faults += [fault] * 4
    assert "Asked 4 times" in failure(chat)
    assert len(server.requests) == 7 and chat.account.calls == 2


def test_waits_double_and_retry_after_is_honoured(server: Server) -> None:
    server.faults += ["500", "500", "429", "429"]
    server.retry_after = "0.3"
    chat_of(server, wait=0.05, tries=5).complete(ASK)
    times = [request.time for request in server.requests]
    waits = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert all(wait >= least for wait, least in zip(waits, [0.05, 0.1, 0.3, 0.3], strict=True))


@pytest.mark.parametrize("retry_after", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_retry_after_overrules_our_own_wait(server: Server, retry_after: str) -> None:
    server.faults += ["429"]
    server.retry_after = retry_after
    chat_of(server, wait=30.0, timeout=5.0).complete(ASK)
    assert server.requests[1].time - server.requests[0].time < 10  # not the 30 s of `wait`


@pytest.mark.parametrize("retry_after", ["soon", None])
def test_an_unreadable_retry_after_leaves_our_own_wait(server: Server, retry_after: str | None) -> None:
    server.faults += ["429"]
    server.retry_after = retry_after
    chat_of(server, wait=0.1).complete(ASK)
    assert server.requests[1].time - server.requests[0].time >= 0.1


def test_a_retry_after_of_an_hour_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.faults += ["429"]
    server.retry_after = "3600"
    assert chat_of(server).complete(ASK).text == "yes" and 60.0 in waits and max(waits) == 60.0


def test_no_answer_in_time(server: Server) -> None:
    server.faults += ["hang", "hang"]
    text = failure(chat_of(server, timeout=0.3, tries=2))
    assert "gave no answer within 0.3 s" in text and "Asked 2 times" in text and len(server.requests) == 2


def test_nobody_there() -> None:
    with serve(lambda *_: "") as server:
        pass
    assert "cannot be reached" in failure(chat_of(server, tries=2))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", "does not accept the key. Check OPENAI_API_KEY"),
        ("403", "does not let this key use `tiny`: Project does not have access"),
        ("404", "There is no model `tiny` at http://127.0.0.1:"),
        ((404, "File Not Found"), "does not speak the OpenAI interface"),
        ((400, "context of 4096 tokens exceeded by {key}"), "(400): context of 4096 tokens exceeded by ***."),
        ((400, "long\n" * 999), "long [...]."),
        ((429, "insufficient_quota: check your plan"), "wants to be paid first"),
        ("html", "does not speak the OpenAI interface. As `url`, give the base address, usually ending in /v1"),
        ("no-choices", "gave an empty answer"),
        ("empty", "gave an empty answer"),
        ("refusal", "`tiny` refuses to answer: I can't help with that."),
        ("length", "Raise `max_tokens`"),
        ("filter", "a content filter"),
    ],
)
def test_what_will_not_pass_is_said_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, fault: Any, words: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.faults += [fault]
    chat = chat_of(server)
    text = failure(chat)
    assert words in text and len(text) < 400 and len(server.requests) == 1
    answered = fault in ("no-choices", "empty", "refusal", "length", "filter")
    assert chat.account.tokens_out == (10 if answered else 0)  # an answer without words is paid for all the same


def test_a_key_is_wanted_where_none_is_set(server: Server) -> None:
    server.faults += ["401"]
    assert "wants a key. Set the environment variable OPENAI_API_KEY" in failure(chat_of(server))


def test_an_address_that_is_another(server: Server) -> None:
    text = failure(chat_of(server, url=server.url + "/other"))
    assert "/v1/other does not speak the OpenAI interface" in text and server.requests == []


@pytest.mark.parametrize(
    "fault",
    [
        (400, "Invalid content type. image_url is only supported by certain models."),
        (400, "llama is not a multimodal model"),
        (400, "At most 0 image(s) may be provided in one request."),
        (404, "No endpoints found that support image input"),
        (422, "messages[0]: unknown variant `image_url`, expected `text`"),
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
    ],
)
def test_a_model_that_takes_no_pictures(server: Server, fault: tuple[int, str]) -> None:
    server.faults += [fault]
    chat = chat_of(server)
    text = failure(chat, LOOK, SCHEMA)
    assert "`tiny` at" in text and "takes no pictures; name a model that sees" in text and fault[1] in text
    assert len(server.requests) == 1 and not chat.sees and chat.refused == set()
    assert chat.complete(ASK).text == "yes"


def test_a_picture_that_is_refused_does_not_make_a_model_blind(server: Server) -> None:
    server.faults += [(400, "The image is too large.")]
    chat = chat_of(server)
    assert "(400): The image is too large." in failure(chat, LOOK) and chat.sees


@pytest.mark.parametrize(
    "words",
    [
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
        "json_schema is not available here",
        "unsupported parameters",
    ],
)
def test_a_server_without_structured_outputs_is_asked_without(server: Server, words: str) -> None:
    server.faults += [(400, words)]
    chat = chat_of(server, tries=1)  # leaving a parameter out is no failed try
    assert chat.complete(ASK, SCHEMA).text == chat.complete(ASK, SCHEMA).text == "yes"
    asked = ["response_format" in request.body for request in server.requests]
    assert asked == [True, False, False]  # remembered
    assert chat.account.calls == 2 and chat.account.failures == [] and chat.refused == {"response_format"}


def test_every_parameter_that_is_refused_by_name_is_left_out(server: Server) -> None:
    server.refuses |= {"temperature", "top_p", "max_tokens", "response_format"}
    chat = chat_of(server, tries=1, top_p=0.5, max_tokens=7)
    assert chat.complete(LOOK, SCHEMA).text == "yes" and len(server.requests) == 5
    assert server.requests[-1].body.keys() == {"model", "messages", "max_completion_tokens"}
    assert server.requests[-1].body["max_completion_tokens"] == 7
    chat.complete(LOOK, SCHEMA)
    assert len(server.requests) == 6
    server.refuses |= {"max_completion_tokens"}  # nothing is left to leave out
    assert "refuses what `tiny` was asked" in failure(chat)


def test_a_parameter_of_a_wrong_value_is_not_left_out(server: Server) -> None:
    server.faults += [(400, "max_tokens is too large: 1000. The context is 512 tokens.")]
    chat = chat_of(server)
    assert "max_tokens is too large" in failure(chat) and chat.refused == set()


@pytest.mark.parametrize(
    "body",
    [
        {"error": "no such field"},
        {"message": "no such field", "object": "error"},
        {"detail": "no such field"},
        {"error": {"message": "no such", "param": "field"}},
    ],
)
def test_errors_of_other_forms_are_read(server: Server, body: dict[str, Any]) -> None:
    server.faults += [(400, body), (200, body)]
    assert "(400): no such field." in failure(chat_of(server))
    if "error" in body:
        assert "answers with an error: no such field." in failure(chat_of(server))


def test_a_parameter_in_a_list_of_faults_is_found_but_not_in_the_echo(server: Server) -> None:
    echo = {"response_format": 1, "max_tokens": 2}
    detail = [{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted", "input": echo}]
    server.faults += [(422, {"detail": detail})]
    chat = chat_of(server)
    assert chat.complete(ASK, SCHEMA).text == "yes" and chat.refused == {"temperature"}


@pytest.mark.parametrize("body", [{}, {"choices": None}, {"detail": "hello"}])
def test_json_of_another_kind_is_said(server: Server, body: dict[str, Any]) -> None:
    server.faults += [(200, body)]
    assert "does not speak the OpenAI interface" in failure(chat_of(server))


@pytest.mark.parametrize("choice", [None, {}, {"message": None}, {"message": {"content": 5}}])
def test_an_answer_without_form_is_empty(server: Server, choice: Any) -> None:
    server.faults += [(200, {"choices": [choice], "usage": {"prompt_tokens": "many"}})]
    assert "gave an empty answer" in failure(chat_of(server))


def test_content_in_parts_is_joined(server: Server) -> None:
    server.faults += ["parts"]
    assert chat_of(server).complete(ASK).text == "yes"


def test_calls_are_spaced(server: Server) -> None:
    chat = chat_of(server, calls_per_minute=300)  # one every 0.2 s
    for _ in range(3):
        chat.complete(ASK)
    assert server.requests[2].time - server.requests[0].time > 0.35  # 0.4, less what the first one took to arrive
    with pytest.raises(ConfigError, match="calls_per_minute"):
        ChatConfig(calls_per_minute=0)
    with pytest.raises(ConfigError, match="`wait`"):
        ChatConfig(wait=-1)


def test_the_key_comes_from_the_environment_then_the_keychain(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chat_of(server).complete(ASK)  # a local server needs none
    monkeypatch.delitem(sys.modules, "keyring")
    (tmp_path / "keyring.py").write_text("def get_password(service, name): return f'{service}-{name}-secret'\n")
    monkeypatch.syspath_prepend(tmp_path)
    chat_of(server).complete(ASK)
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    chat_of(server).complete(ASK)
    assert [request.key for request in server.requests] == ["none-needed", "countervid-openai-secret", KEY]


def test_a_keychain_that_cannot_be_opened_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "keyring")
    (tmp_path / "keyring.py").write_text("def get_password(service, name): raise RuntimeError('locked')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CallError, match="There is no key for `openai:tiny`. Set .* OPENAI_API_KEY"):
        load_chat("openai:tiny")


def test_a_key_that_cannot_be_sent_is_not_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nOTHER=1")
    with pytest.raises(CallError, match="a line break within the key") as caught:
        chat_of(server)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "http://[::1/v1", "http://a..b/v1", "ftp://here/v1", "http://a b/"]
)
def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match="`url` is no web address"):
        OpenAIChat("tiny", ChatConfig(url=url))


def test_a_password_in_the_address_is_not_shown(server: Server) -> None:
    server.faults += ["404"]
    text = failure(chat_of(server, url=server.url.replace("//", "//me:hidden@")))
    assert "hidden" not in text and server.url in text


def test_the_address_of_the_environment_is_taken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert load_chat("openai:tiny").complete(ASK).text == "yes"


def test_without_its_package_it_says_what_to_install(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r'pip install "countervid\[openai\]"'):
        chat_of(server)
