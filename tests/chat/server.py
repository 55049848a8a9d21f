"""A small server of the OpenAI interface on loopback: real HTTP, answers from a function, faults on demand.

def answer(messages, pictures):
    return f"I see {len(pictures)} pictures."

with serve(answer) as server:
    server.faults += ["429", "drop"]  # one a request, first to last; then all is well again
    chat = OpenAIChat("any-model", ChatConfig(url=server.url))
    ...
    assert len(server.requests) == 3
"""

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

# The messages as they were sent, and their pictures, (H, W, 3) uint8 RGB, in the order they were sent.
Answer = Callable[[list[dict[str, Any]], list[np.ndarray]], str]

HTML = "<!DOCTYPE html><html><body>Welcome</body></html>"
REFUSALS = {
    "401": (401, "Incorrect API key provided: {key}. You can find your API key in your settings."),
    "403": (403, "Project does not have access to model `{model}`."),
    "404": (404, "The model `{model}` does not exist."),
    "429": (429, "Rate limit reached for `{model}`."),
    "500": (500, "The server had an error while processing your request."),
}
# Other faults: "hang" (no answer while the client waits), "drop" (the line is closed without one), "html" (a page with
# status 200), "no-choices", "empty", "refusal" (in `message.refusal`), "length" (all tokens used, no text), "filter",
# "silent" (an answer without `usage`), "parts" (content as a list), or a pair `(status, message)`, where the
# message may be a whole body: a dict is sent as JSON as it is.
Fault = str | tuple[int, str | dict[str, Any]]


@dataclass
class Request:
    """What one request held."""

    body: dict[str, Any]
    key: str
    time: float  # time.monotonic() when it came
    pictures: list[np.ndarray]


@dataclass
class Server:
    """What it is asked, and how it misbehaves."""

    url: str = ""  # the base address, ending in /v1
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)  # taken from the front, one a request
    cuts: list[int] = field(default_factory=list)  # characters that are left of the next answers: the limit of tokens
    refuses: set[str] = field(default_factory=set)  # parameters never taken, such as "response_format"; or "pictures"
    usage: tuple[int, int] = (100, 10)  # tokens of each answer
    retry_after: str | None = "0.05"  # header of a 429
    broken: list[BaseException] = field(default_factory=list)  # raised by `answer`; raised again when `serve` ends


@contextmanager
def serve(answer: Answer) -> Iterator[Server]:
    """A server for as long as the `with` lasts."""
    state, closing = Server(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if self.path != "/v1/chat/completions":
                return self.send(404, {"detail": "Not Found"})
            request = Request(body, key, time.monotonic(), pictures_of(body["messages"]))
            state.requests.append(request)
            fault = state.faults.pop(0) if state.faults else ""
            if fault == "hang":
                closing.wait(30)
            if fault in ("hang", "drop"):
                return None  # the line is closed
            if fault == "html":
                return self.send(200, HTML)
            if isinstance(fault, tuple) or fault in REFUSALS:
                status, words = fault if isinstance(fault, tuple) else REFUSALS[fault]
                if isinstance(words, dict):
                    return self.send(status, words)
                return self.refuse(status, words.replace("{key}", key).replace("{model}", body["model"]))
            if "pictures" in state.refuses and request.pictures:
                return self.refuse(400, "Invalid content type. image_url is only supported by certain models.")
            for name in sorted(state.refuses & body.keys()):
                return self.refuse(400, f"Unsupported parameter: '{name}' is not supported with this model.", name)
            message: dict[str, Any] = {"role": "assistant", "content": None}
            reason = {"length": "length", "filter": "content_filter"}.get(fault, "stop")
            if fault == "refusal":
                message["refusal"] = "I can't help with that."
            elif fault not in ("empty", "length", "filter"):
                try:
                    message["content"] = answer(body["messages"], request.pictures)
                except BaseException as error:
                    state.broken.append(error)
                    return self.refuse(400, "the test's own answer function failed")
            if message["content"] is not None and state.cuts:
                message["content"], reason = message["content"][: state.cuts.pop(0)], "length"
            if fault == "parts":
                message["content"] = [{"type": "text", "text": message["content"]}]
            reply = {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [] if fault == "no-choices" else [{"index": 0, "finish_reason": reason, "message": message}],
            }
            tokens_in, tokens_out = state.usage
            if fault != "silent":
                total = tokens_in + tokens_out
                reply["usage"] = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": total}
            return self.send(200, reply)

        def refuse(self, status: int, words: str, param: str | None = None) -> None:
            self.send(status, {"error": {"message": words, "type": "error", "param": param, "code": None}})

        def send(self, status: int, content: dict[str, Any] | str) -> None:
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 429 and state.retry_after is not None:
                self.send_header("Retry-After", state.retry_after)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
        if state.broken:
            raise state.broken[0]


def pictures_of(messages: list[dict[str, Any]]) -> list[np.ndarray]:
    """The pictures of all messages, decoded from their data URLs."""
    found = []
    for message in messages:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image_url":
                match = re.fullmatch(r"data:image/png;base64,([A-Za-z0-9+/=]+)", part["image_url"]["url"])
                assert match, "a picture must be a PNG data URL"
                found.append(np.array(Image.open(io.BytesIO(base64.b64decode(match[1])))))
    return found
