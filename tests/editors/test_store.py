"""The store: computed once, found by content, damage noticed, never half a file."""

import pytest
import torch

from countervid.editors.store import Store

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
