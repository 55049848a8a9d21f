"""Real HTTP on loopback: a server that can be cut, changed, and asked for the rest of a file."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from countervid.errors import ModelError
from countervid.models.download import RELEASES, RemoteFile, fetch
from countervid.models.registry import SUMS

CONTENT = bytes(range(256)) * 5000


class Place:
    """What the server gives, how it misbehaves, and what it was asked."""

    def __init__(self) -> None:
        self.content, self.kind, self.status = CONTENT, "application/octet-stream", 0
        self.cut: int | None = None  # bytes after which the line breaks, once
        self.ranges: list[str] = []
        self.honours_ranges = True

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/weights"


@pytest.fixture
def served() -> Iterator[tuple[Place, RemoteFile]]:
    place = Place()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            place.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and place.honours_ranges else 0
            if place.status or start >= len(place.content) > 0:
                self.send_error(place.status or 416)
                return
            body = place.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", place.kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut, place.cut = place.cut, None
            self.wfile.write(body[:cut])

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield place, RemoteFile("weights.ckpt", place.url(server.server_address[1]))
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_broken_download_goes_on_where_it_stopped(served: tuple[Place, RemoteFile], tmp_path: Path) -> None:
    place, file = served
    place.cut = 700_000
    with pytest.raises(ModelError, match="Run the same command again: it goes on"):
        fetch(file, tmp_path)
    assert not (tmp_path / file.name).exists()
    seen: list[tuple[int, int]] = []
    path = fetch(file, tmp_path, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and place.ranges == ["", "bytes=700000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(file, tmp_path) == path and len(place.ranges) == 2  # there already: nobody is asked


def test_a_place_that_ignores_ranges_gives_the_whole_again(served: tuple[Place, RemoteFile], tmp_path: Path) -> None:
    place, file = served
    place.honours_ranges, place.cut = False, 1000
    with pytest.raises(ModelError):
        fetch(file, tmp_path)
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_the_first_download_is_pinned(served: tuple[Place, RemoteFile], tmp_path: Path) -> None:
    place, file = served
    path = fetch(file, tmp_path)
    assert (tmp_path / SUMS).read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  weights.ckpt\n"
    path.unlink()
    place.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelError, match="no longer gives the file it gave before"):
        fetch(file, tmp_path)
    assert not path.exists()
    path.write_bytes(b"something else")
    with pytest.raises(ModelError, match="is not the file that was downloaded"):
        fetch(file, tmp_path)


def test_a_published_checksum_is_checked_the_first_time(served: tuple[Place, RemoteFile], tmp_path: Path) -> None:
    _, file = served
    with pytest.raises(ModelError, match="no longer gives"):
        fetch(RemoteFile(file.name, file.url, "0" * 64), tmp_path)
    assert fetch(RemoteFile(file.name, file.url, hashlib.sha256(CONTENT).hexdigest()), tmp_path).exists()


@pytest.mark.parametrize(
    ("kind", "status", "words"), [("text/html", 0, "a web page instead"), ("", 404, "answers 404")]
)
def test_pages_and_refusals_are_said(
    served: tuple[Place, RemoteFile], tmp_path: Path, kind: str, status: int, words: str
) -> None:
    place, file = served
    place.kind, place.status = kind, status
    with pytest.raises(ModelError, match=words):
        fetch(file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be reached"):
        fetch(RemoteFile("weights.ckpt", "http://127.0.0.1:9/weights"), tmp_path)


def test_releases_say_their_terms() -> None:
    for release in RELEASES.values():
        assert release.licence and all(file.url.startswith("https://") for file in release.files)
