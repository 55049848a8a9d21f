"""The store: computed once, found by content, damage noticed, never half a file, shared by runs, bounded."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from countervid.clip import Clip
from countervid.editors import Target, load_editor, locks
from countervid.editors.cache import Cache, human, parse_size
from countervid.editors.store import Store
from countervid.errors import ConfigError, FaceError, OutputError
from countervid.files.whole import temporary
from tiny_models import astronaut_frames

ORIGIN = {"clip": "abc", "settings": {"steps": 20}}


class Counter:
    """Computes a bundle and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"x": torch.arange(6.0).reshape(2, 3), "n": torch.tensor([self.calls])}


def test_computed_once(tmp_path):
    compute = Counter()
    first = Store(tmp_path, "dva", ORIGIN).fetch("codes-0", compute)
    again = Store(tmp_path, "dva", dict(ORIGIN)).fetch("codes-0", compute)
    assert compute.calls == 1
    assert torch.equal(first["x"], again["x"])


def test_other_settings_are_another_entry(tmp_path):
    compute = Counter()
    Store(tmp_path, "dva", ORIGIN).fetch("codes-0", compute)
    Store(tmp_path, "dva", {**ORIGIN, "settings": {"steps": 10}}).fetch("codes-0", compute)
    assert compute.calls == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_entry_is_computed_again(tmp_path, damage):
    compute, store = Counter(), Store(tmp_path, "dva", ORIGIN)
    store.fetch("codes-0", compute)
    path = store.folder / "codes-0.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-5]
    elif damage == "flipped":
        content[-3] ^= 1
    else:
        content = bytearray()
    path.write_bytes(bytes(content))
    assert store.fetch("codes-0", compute)["n"].item() == 2
    assert store.fetch("codes-0", compute)["n"].item() == 2  # mended on disk as well


def test_a_failure_leaves_nothing_behind(tmp_path):
    store = Store(tmp_path, "dva", ORIGIN)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch("codes-0", fail)
    assert [path.name for path in store.folder.iterdir()] == ["origin.json"]
    assert [path.name for path in (tmp_path / locks.FOLDER).glob("*.lock")] == ["cache.lock"]


def test_a_bundle_in_the_place_of_another_is_damaged(tmp_path):
    store = Store(tmp_path, "dva", ORIGIN)
    store.fetch("codes-0", lambda: {"x": torch.zeros(3)})
    store.fetch("codes-1", lambda: {"x": torch.ones(3)})
    (store.folder / "codes-0.safetensors").write_bytes((store.folder / "codes-1.safetensors").read_bytes())
    assert store.load("codes-0") is None
    assert torch.equal(store.fetch("codes-0", lambda: {"x": torch.zeros(3)})["x"], torch.zeros(3))


def test_a_damaged_origin_is_written_again(tmp_path):
    path = Store(tmp_path, "dva", ORIGIN).folder / "origin.json"
    path.write_bytes(b"{")
    Store(tmp_path, "dva", ORIGIN)
    assert json.loads(path.read_text()) == ORIGIN


@pytest.mark.parametrize("refused", [False, True])
def test_a_damaged_file_of_another_kind_is_made_again(tmp_path, refused):
    def read(path):
        content = path.read_text()
        if content != "whole":
            raise FaceError(content)
        return content

    store, made = Store(tmp_path, "dva", ORIGIN), []

    def fetch():
        return store.fetch_file("track.x", lambda path: made.append(path.write_text("whole")), read)

    assert (fetch(), fetch(), len(made)) == ("whole", "whole", 1)
    (store.folder / "track.x").write_text("wrong" if not refused else "other")
    if refused:  # its checksum fits, but the reader will not have it
        import hashlib

        (store.folder / "track.x.sha256").write_text(hashlib.sha256(b"other").hexdigest())
    assert (fetch(), len(made)) == ("whole", 2)
    (store.folder / "track.x.sha256").write_bytes(b"\xff" * 65)
    assert (fetch(), len(made)) == ("whole", 3)


# --- every file of an entry, damaged in every way ---------------------------------------------------------------------

FACTUAL = {"age": "young", "gender": "woman"}
FORMS = {
    "dva": {"steps": 3, "window": 4, "batch": 4, "floor": 0.0},
    "flatten": {"steps": 2, "inversion_steps": 4, "inject_steps": 1, "window": 4, "overlap": 1, "floor": 0.0},
}


@pytest.mark.parametrize("name", ["dva", pytest.param("flatten", marks=pytest.mark.slow)])
def test_any_damage_to_any_file_gives_the_same_edit(name, tmp_path, tiny_models):
    """A flipped byte, a cut file and a zeroed one, for every file that a run keeps: the edit has the same pixels."""
    clip = Clip.from_frames(astronaut_frames(6))
    model = tiny_models if name == "dva" else Path(__file__).parents[1] / "goldens" / "tiny-sd-ft" / "sd2"
    editor = load_editor(name, model, cache=tmp_path, **FORMS[name])
    target = Target(
        factual=FACTUAL, do={"age": "old"}, counterfactual={**FACTUAL, "age": "old"}, prompt="She is old."
    )  # fmt: skip

    def run():
        return editor.edit(editor.prepare(clip, FACTUAL, prompt="She is young."), target).frames

    expected = run()
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and locks.FOLDER not in path.parts]
    assert {"track.safetensors", "track.safetensors.sha256", "origin.json", "about.json"} <= {f.name for f in files}
    whole = {path: path.read_bytes() for path in files}
    generator = torch.Generator().manual_seed(3)
    for turn, how in enumerate(("flipped", "cut", "zeroed")):
        for number, path in enumerate(files):
            if (number + turn) % 2 and len(files) > 8:
                continue  # half of the files at a time: one damaged file never hides another's damage for good
            content = bytearray(whole[path])
            at = int(torch.randint(len(content), (), generator=generator))
            if how == "flipped":
                content[at] ^= 1 << int(torch.randint(8, (), generator=generator))
            path.write_bytes(bytes(content) if how == "flipped" else bytes(at if how == "cut" else len(content)))
        assert torch.equal(run(), expected), how
        assert {path: path.read_bytes() for path in files if path.suffix == ".json"} == {
            path: content for path, content in whole.items() if path.suffix == ".json"
        }


# --- two runs at once -------------------------------------------------------------------------------------------------

OTHER = """
import sys, time, torch
from pathlib import Path
from countervid.editors.store import Store
store = Store(Path(sys.argv[1]), "dva", {"clip": "abc"})
def slow():
    print("begun", flush=True)
    time.sleep(float(sys.argv[2]))
    return {"x": torch.ones(2)}
store.fetch("codes", slow)
print("kept", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_run(tmp_path):
    """Another process that computes a bundle of an entry; it lives until the test ends."""
    started = []

    def start(seconds):
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path), str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "begun\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def never():
    raise AssertionError("computed twice")


def test_the_second_run_waits_says_so_and_takes_what_the_first_made(tmp_path, other_run, monkeypatch, caplog):
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    other_run(0.5)
    found = Store(tmp_path, "dva", {"clip": "abc"}).fetch("codes", never)
    assert torch.equal(found["x"], torch.ones(2))
    assert [record.getMessage() for record in caplog.records] == [
        "countervid: another run is preparing this clip (codes); waiting for it"
    ]


def test_a_killed_run_leaves_nothing_that_hangs_or_stays(tmp_path, other_run):
    process = other_run(60)
    (folder,) = (tmp_path / "dva").iterdir()
    partial = temporary(folder / "codes.safetensors")
    partial.write_bytes(b"half")  # nobody's
    process.kill()
    process.wait()
    begun = time.monotonic()
    mine = Store(tmp_path, "dva", {"clip": "abc"})
    assert mine.fetch("codes", lambda: {"x": torch.zeros(2)})["x"].tolist() == [0, 0]
    assert time.monotonic() - begun < locks.PATIENCE
    assert not partial.exists()
    assert [path.name for path in (tmp_path / locks.FOLDER).glob("*.lock")] == ["cache.lock"]


def test_threads_share_one_entry(tmp_path):
    compute = Counter()

    def fetch():
        Store(tmp_path, "dva", ORIGIN).fetch("codes-0", lambda: (time.sleep(0.05), compute())[1])

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compute.calls == 1


# --- bounded ----------------------------------------------------------------------------------------------------------

KILO = 1000


def fill(cache, clip, size, edits=0, age=0.0):
    """An entry of so many bytes, last used so many seconds ago; nobody uses it any more."""
    store = Store(cache, "dva", {"clip": clip})
    store.fetch("codes", lambda: {"x": torch.zeros(size, dtype=torch.uint8)})
    if edits:
        store.fetch("edits/a/0", lambda: {"x": torch.zeros(edits, dtype=torch.uint8)})
    folder = store.folder
    then = time.time() - age
    os.utime(folder / "origin.json", (then, then))
    return folder


def test_edits_go_first_then_what_was_not_used_for_longest(tmp_path):
    cache = Cache(tmp_path, limit=10**9)
    old, new = fill(cache, "old", 100 * KILO, 50 * KILO, age=200), fill(cache, "new", 100 * KILO, 50 * KILO, age=100)
    mine = Store(cache, "dva", {"clip": "mine"})
    used = cache.used()

    def room_for(size, limit):
        return Cache(tmp_path, limit=limit).make_room(size, for_entry=f"dva/{mine.key}")

    assert room_for(40 * KILO, used + 40 * KILO) == 0
    assert room_for(40 * KILO, used) >= 50 * KILO
    assert not (old / "edits").exists() and (new / "edits").exists() and (old / "codes.safetensors").exists()
    assert room_for(140 * KILO, used) >= 90 * KILO
    assert not old.exists() or not (new / "edits").exists()
    assert (new / "codes.safetensors").exists()
    room_for(200 * KILO, 210 * KILO)
    assert not old.exists() and not new.exists() and mine.folder.exists()


def test_what_does_not_fit_is_refused_in_one_line_and_what_is_there_stays(tmp_path):
    cache = Cache(tmp_path, limit=100 * KILO)
    store = Store(cache, "dva", {"clip": "mine"})
    store.fetch("small", lambda: {"x": torch.zeros(50 * KILO, dtype=torch.uint8)})
    with pytest.raises(OutputError, match=r"may hold 100 kB; this run needs 60 kB more.*--cache-limit 1MB"):
        store.fetch("large", lambda: {"x": torch.zeros(60 * KILO, dtype=torch.uint8)})
    assert store.load("small") is not None and store.load("large") is None


def test_what_another_run_uses_is_never_removed(tmp_path, other_run):
    process = other_run(0)
    assert process.stdout.readline() == "kept\n"
    cache = Cache(tmp_path, limit=1)
    (entry,) = cache.entries()
    assert not cache.remove(entry) and entry.folder.exists()
    process.kill()
    process.wait()
    assert cache.remove(entry) and not entry.folder.exists() and cache.entries() == []


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("20 GB", 20 * 10**9), ("1.5g", 1_500_000_000), ("12", 12), ("0", 0)]
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "-1GB", "1PB", "1 2", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (620e6, "620 MB")])
def test_sizes_are_said(size, text):
    assert human(size) == text
