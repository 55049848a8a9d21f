"""What is said before a run: counted evaluations and bytes against what a run takes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.clip import Clip
from countervid.editors import Target, load_editor
from countervid.editors.cache import Cache
from countervid.errors import ConfigError, OutputError
from countervid.runs import preflight
from tiny_models import astronaut_frames, save_tiny_models

MODEL = Path(__file__).parents[1] / "goldens" / "tiny-sd-ft" / "sd2"
FACTUAL = {"age": "young", "gender": "woman"}
TARGET = Target(factual=FACTUAL, do={"age": "old"}, counterfactual={**FACTUAL, "age": "old"}, prompt="She is old.")
QUICK: dict[str, dict[str, Any]] = {
    "dva": {"steps": 4, "window": 8, "batch": 6, "sampler": "ddim"},
    "tokenflow": {"steps": 4, "inversion_steps": 4, "batch": 3, "window": 4, "overlap": 1},
    "flatten": {"steps": 2, "inversion_steps": 4, "inject_steps": 1, "window": 4, "overlap": 1},
    "tune-a-video": {"steps": 2, "tuning_steps": 2},
}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.from_frames(astronaut_frames(6))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(("name", "more"), [(name, {}) for name in QUICK] + [("flatten", {"keep_mb": 0.0})])
def test_evaluations_and_bytes_are_about_what_a_run_takes(
    name: str, more: dict[str, Any], clip: Clip, weights: Path, tmp_path: Path
) -> None:
    editor = load_editor(name, weights if name == "dva" else MODEL, cache=tmp_path, **QUICK[name], **more)
    expected = preflight.estimate(editor, clip)
    assert expected is not None and expected.seconds > 0
    assert editor.costs()["unet_evaluations"] == 0  # type: ignore[attr-defined]
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    for _ in editor.edit(ready, TARGET).windows(8):
        pass
    taken = editor.costs()["unet_evaluations"]  # type: ignore[attr-defined]
    # A step of tuning is counted three times, for it goes back as well.
    taken += 2 * 2 * 6 if name == "tune-a-video" else 0
    assert 0.8 * taken <= expected.evaluations <= 1.25 * taken
    stored = Cache(tmp_path).used()
    assert 0.6 * stored <= expected.disk + 60_000 <= 1.5 * stored + 60_000  # 60 kB of headers, words and the track


def test_the_speed_of_earlier_runs_is_known(clip: Clip, tmp_path: Path) -> None:
    editor = load_editor("flatten", MODEL, cache=tmp_path, **QUICK["flatten"])
    assert preflight.estimate(editor, clip).basis == "one batch"  # type: ignore[union-attr]
    preflight.learn(editor, 30.0, 10)
    preflight.learn(editor, 10.0, 10)
    known = preflight.estimate(editor, clip)
    assert known is not None and known.basis == "earlier runs"
    assert known.seconds == pytest.approx(2.0 * known.evaluations)
    assert known.memory is not None and known.memory > 10_000_000
    (tmp_path / preflight.SPEEDS).write_bytes(b'{"damaged": ')
    assert preflight.estimate(editor, clip).basis == "one batch"  # type: ignore[union-attr]


def test_it_is_said_in_one_sentence() -> None:
    found = preflight.Estimate(
        evaluations=10, seconds=14.2 * 60, memory=1_100_000_000, disk=620_000_000, free=80_000_000_000,
        basis="one batch",
    )  # fmt: skip
    assert found.sentence() == "about 14 min, 1.1 GB of memory, 620 MB in the cache (free: 80 GB)"


def test_what_will_not_do_is_refused(clip: Clip, tmp_path: Path) -> None:
    editor = load_editor("flatten", MODEL, cache=Cache(tmp_path, limit=10_000), **QUICK["flatten"])
    expected = preflight.estimate(editor, clip)
    assert expected is not None
    with pytest.raises(OutputError, match="may hold 10 kB; this run needs .* more.*--cache-limit"):
        preflight.check(editor, clip, expected)
    from dataclasses import replace

    with pytest.raises(ConfigError, match="needs 1.0 TB in the cache, and the disk .* has 5.0 GB free"):
        preflight.check(editor, clip, replace(expected, disk=10**12, free=5 * 10**9))
    roomy = load_editor("flatten", MODEL, cache=tmp_path, **QUICK["flatten"])
    with pytest.raises(ConfigError, match=r"take 90 TB of memory.*batch=2"):
        preflight.check(roomy, clip, replace(expected, memory=90 * 10**12))


def test_the_command_refuses_before_it_begins_and_says_what_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, cache = tmp_path / "her.mp4", tmp_path / "cache"
    Clip.from_frames(astronaut_frames(4)).write(video)
    words = ["prepare", video, "--editor", "flatten", "--model", MODEL, "--cache", cache, "--prompt", "She is young."]
    words += [part for name, value in QUICK["flatten"].items() for part in ("--set", f"{name}={value}")]

    def call(*more: str) -> Any:
        return CliRunner().invoke(app, [str(word) for word in (*words, *more)])

    refused = call("--cache-limit", "9kB")
    assert refused.exit_code == 2
    assert len(refused.output.strip().splitlines()) == 1 and "--cache-limit" in refused.output
    assert Cache(cache).entries() == []
    monkeypatch.setattr(preflight, "WORTH_SAYING", 0.0)
    done = call()
    assert done.exit_code == 0, done.output
    assert "her.mp4: about" in done.output and "in the cache (free:" in done.output
    assert len(json.loads((cache / preflight.SPEEDS).read_text())) == 1
