"""Any server of the OpenAI interface: the vendor's own, and those of vLLM, Ollama or llama.cpp.

They agree on less than their interface says: some refuse `response_format`, `temperature` or `max_tokens`. What one
refuses by name is left out from then on. The key is read from the environment or the keychain and written nowhere.
"""

from __future__ import annotations

import base64
import email.utils
import importlib
import io
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import torch
from PIL import Image
from torch import Tensor

from countervid.chat.base import Account, Budget, BudgetError, ChatConfig, CutOffError, Message, Reply, scaled_size
from countervid.errors import CallError, ConfigError, MissingExtraError

_VENDOR = "https://api.openai.com/v1"
_LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
_PARAMETERS = ("temperature", "top_p", "max_tokens")  # that some servers do not know

_UNKNOWN = re.compile(r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed", re.I)
_STRUCTURED = re.compile(r"response_format|json_schema|structured output|guided|grammar", re.I)
_PICTURE = re.compile(r"image|vision|multi-?modal|mmproj", re.I)
_BLIND = re.compile(
    r"(not|n't) (support|accept|allow|take|a multi|enabled)|unsupported|only supported|no endpoints|at most 0 |"
    r"unknown variant|missing data|invalid content type|text.only",
    re.I,
)


@dataclass(frozen=True)
class _Failure:
    """Why one try came to nothing, and what may help."""

    text: str
    again: bool = False  # the same may succeed later
    after: float | None = None  # seconds that the server asks to wait
    unwanted: str = ""  # the parameter to leave out from now on
    cut: bool = False  # all tokens were used up


class OpenAIChat:
    """A language model behind a server of the OpenAI interface."""

    def __init__(self, model: str, config: ChatConfig, budget: Budget | None = None) -> None:
        try:
            self._package: Any = importlib.import_module("openai")
        except ImportError:
            text = f'`openai:{model}` needs an extra. Install it with `pip install "countervid[openai]"`.'
            raise MissingExtraError(text) from None
        url = (config.url or os.environ.get("OPENAI_BASE_URL", "")).strip() or _VENDOR
        self.name, self.sees, self.account = f"openai:{model}", True, Account(config, budget)
        self.refused: set[str] = set()  # parameters that this server does not take
        self._model, self._config, self._ready = model, config, 0.0
        self._key = _key()
        if self._key is None and url == _VENDOR:
            raise CallError(
                f"There is no key for `openai:{model}`. Set the environment variable OPENAI_API_KEY, store one with "
                "`keyring set countervid openai`, or give the `url` of a server that needs none."
            )
        self._place = _shown(url)
        key = self._key or "none-needed"  # what a server without keys is sent
        self._client = self._package.OpenAI(api_key=key, base_url=url, timeout=config.timeout, max_retries=0)

    def complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None, *, tokens: int | None = None
    ) -> Reply:
        """One answer; see `Chat.complete`. A call counts once, however many tries it takes."""
        turns = [_turn(message, self._config.side) for message in messages]
        pictured = any(message.pictures for message in messages)
        longest = self._config.max_tokens if tokens is None else tokens
        self.account.admit(messages, tokens=longest)
        tries, wait = 0, self._config.wait
        while True:
            outcome = self._try(turns, schema, pictured, messages, longest)
            if isinstance(outcome, Reply):
                return outcome
            if outcome.unwanted:
                self.refused.add(outcome.unwanted)
                continue
            tries += 1
            if not outcome.again or tries >= self._config.tries:
                text = outcome.text + (f" Asked {tries} times." if tries > 1 else "")
                self.account.failures.append(text)
                raise (CutOffError if outcome.cut else CallError)(text)
            time.sleep(min(wait if outcome.after is None else outcome.after, _LONGEST_WAIT))
            wait *= 2

    def _try(
        self, turns: list[dict[str, Any]], schema: Mapping[str, Any] | None, pictured: bool,
        messages: Sequence[Message], tokens: int,
    ) -> Reply | _Failure:  # fmt: skip
        """One request. Failures are returned, not raised: what the client raises holds the key."""
        asked = self._parameters(schema, tokens)
        if self._config.calls_per_minute is not None:
            time.sleep(max(0.0, self._ready - time.monotonic()))
            self._ready = time.monotonic() + 60 / self._config.calls_per_minute
        started = time.monotonic()
        try:
            raw = self._client.chat.completions.with_raw_response.create(model=self._model, messages=turns, **asked)
            return self._read(raw.text, time.monotonic() - started, messages, tokens)
        except self._package.APITimeoutError:
            text = f"{self._place} gave no answer within {self._config.timeout:g} s. Give it more: `timeout`."
            return _Failure(text, again=True)
        except self._package.APIConnectionError as error:
            reason = self._tidy(str(error.__cause__ or error))
            text = f"{self._place} cannot be reached ({reason}). Check the address, and that a server runs there."
            return _Failure(text, again=True)
        except self._package.APIStatusError as error:
            return self._judge(error.response, asked, pictured)
        except self._package.OpenAIError as error:
            return _Failure(f"{self._place} cannot be asked: {self._tidy(str(error))}.")

    def _parameters(self, schema: Mapping[str, Any] | None, tokens: int) -> dict[str, Any]:
        limit = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
        wanted: dict[str, Any] = {limit: tokens, "temperature": self._config.temperature}
        if self._config.top_p is not None:
            wanted["top_p"] = self._config.top_p
        if schema is not None:
            form = {"name": "answer", "strict": True, "schema": dict(schema)}
            wanted["response_format"] = {"type": "json_schema", "json_schema": form}
        return {name: value for name, value in wanted.items() if name not in self.refused}

    def _read(self, raw: str, seconds: float, messages: Sequence[Message], tokens: int) -> Reply | _Failure:
        """What an answer of status 200 says. It is paid for, so it is booked, even where it says nothing."""
        body = _json(raw)
        if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
            if error := _dict(body).get("error"):
                return _Failure(f"{self._place} answers with an error: {self._tidy(_words(json.dumps(error)))}.")
            return self._stranger()
        usage = _dict(body.get("usage"))
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        tokens_in, tokens_out = (count if isinstance(count, int) else 0 for count in counts)
        choice = _dict(body["choices"][0] if body["choices"] else None)
        message = _dict(choice.get("message"))
        content, refusal = message.get("content"), message.get("refusal")
        if isinstance(content, list):  # of parts
            content = "".join(str(_dict(part).get("text") or "") for part in content)
        text, cost = content if isinstance(content, str) else "", self.account.price(tokens_in, tokens_out)
        cut = choice.get("finish_reason") == "length"
        reply = Reply(text=text, tokens_in=tokens_in, tokens_out=tokens_out, cost=cost, seconds=seconds, cut=cut)
        self.account.book(reply, messages)
        if self._config.max_cost is not None and not tokens_in + tokens_out:
            raise BudgetError(
                f"{self._place} does not say how many tokens it used, so `--max-cost` cannot be kept. "
                "Use `--max-calls` instead."
            )
        if text.strip():
            return reply
        if refusal:
            return _Failure(f"`{self._model}` refuses to answer: {self._tidy(str(refusal))}.")
        if cut:
            return _Failure(
                f"`{self._model}` used up its {tokens} tokens before it said anything. "
                "Raise `max_tokens`: models that think first need thousands.",
                cut=True,
            )
        if choice.get("finish_reason") == "content_filter":
            return _Failure(f"`{self._model}` gave no answer: a content filter of {self._place} withheld it.")
        return _Failure(f"`{self._model}` gave an empty answer. Try another model, or other words.")

    def _judge(self, response: Any, asked: Mapping[str, Any], pictured: bool) -> _Failure:
        """What to make of an answer whose status is an error."""
        status: int = response.status_code
        words = _words(response.text)
        said = self._tidy(words) or "it gives no reason"
        if status in (400, 422):
            if "response_format" in asked and _STRUCTURED.search(words):
                return _Failure(said, unwanted="response_format")
            for name in _PARAMETERS:
                if name in asked and re.search(rf"\b{name}\b", words) and _UNKNOWN.search(words):
                    return _Failure(said, unwanted=name)
        if pictured and status not in (401, 403, 429) and _PICTURE.search(words) and _BLIND.search(words):
            self.sees = False
            text = f"`{self._model}` at {self._place} takes no pictures; name a model that sees. It says: {said}."
            return _Failure(text)
        if status in (400, 422) and "response_format" in asked and _UNKNOWN.search(words):
            return _Failure(said, unwanted="response_format")
        if status == 401 and self._key is None:
            return _Failure(f"{self._place} wants a key. Set the environment variable OPENAI_API_KEY.")
        if status == 401:
            return _Failure(f"{self._place} does not accept the key. Check OPENAI_API_KEY: is it whole, and for there?")
        if status == 403:
            return _Failure(f"{self._place} does not let this key use `{self._model}`: {said}. Check the key's rights.")
        if status == 404 and re.search(r"\bmodels?\b", words, re.I):
            return _Failure(f"There is no model `{self._model}` at {self._place}: {said}. Check its name.")
        if status in (404, 405):
            return self._stranger()
        if status == 429 and "insufficient_quota" in response.text:
            return _Failure(f"{self._place} wants to be paid first: {said}. Add credit there, or use another key.")
        if status in (408, 409, 429) or status >= 500:
            less = ", or ask less often (`calls_per_minute`)" if status == 429 else ""
            text = f"{self._place} answers {status}: {said}. Try again later{less}."
            return _Failure(text, again=True, after=_seconds(response.headers.get("Retry-After")))
        return _Failure(f"{self._place} refuses what `{self._model}` was asked ({status}): {said}.")

    def _stranger(self) -> _Failure:
        text = f"{self._place} does not speak the OpenAI interface. As `url`, "
        return _Failure(text + "give the base address, usually ending in /v1.")

    def _tidy(self, text: str) -> str:
        """One short line without the key, fit for the middle of a sentence."""
        if self._key is not None:
            text = text.replace(self._key, "***")
        text = " ".join(text.split()).rstrip(". ")
        return text if len(text) <= 200 else f"{text[:200].rstrip()} [...]"


def _key() -> str | None:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        try:
            key = (importlib.import_module("keyring").get_password("countervid", "openai") or "").strip()
        except Exception:  # not installed, or no keychain on this machine: each has errors of its own
            return None
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise CallError("OPENAI_API_KEY or the keychain holds a space or a line break within the key. Copy it again.")
    return key or None


def _shown(url: str) -> str:
    """An address as it may be written: without a password or a query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or " " in url or not url.isprintable():
        raise ConfigError(
            "`url` is no web address. Give the base address of the server, such as http://localhost:8000/v1."
        )
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _turn(message: Message, side: int) -> dict[str, Any]:
    if not message.pictures:
        return {"role": message.role, "content": message.text}  # some servers take no parts
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.text}] if message.text else []
    for picture in message.pictures:
        parts.append({"type": "image_url", "image_url": {"url": _data_url(picture, side), "detail": "auto"}})
    return {"role": message.role, "content": parts}


def _data_url(picture: Tensor, side: int) -> str:
    """A PNG of the picture, scaled down to `side`."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != torch.uint8:
        raise ValueError(f"A picture must be (H, W, 3) uint8, got {tuple(picture.shape)} {picture.dtype}.")
    image = Image.fromarray(picture.cpu().numpy())
    height, width = scaled_size(image.height, image.width, side)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)  # antialiased when it scales down
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _seconds(retry_after: str | None) -> float | None:
    """What a `Retry-After` asks for, in either of its forms: seconds or a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
        except ValueError:
            return None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(text: str) -> str:
    """What an error says, in the forms that servers give it. An echo of what they were asked is left out."""
    body = _json(text)
    if body is None:
        return "" if "<html" in text.lower() or "<!doctype" in text.lower() else text
    error = _dict(body).get("error", body)
    if isinstance(error, str):
        return error
    detail = _dict(error).get("detail")
    if isinstance(detail, list):
        return "; ".join(f"{_dict(one).get('loc')}: {_dict(one).get('msg')}" for one in detail)
    return " ".join(str(part) for part in (_dict(error).get("message") or detail, _dict(error).get("param")) if part)
