"""A whole run: its folder, its record, going on after a stop, refusing to mix runs."""

import json
import shutil

import pytest
import torch

from countervid.clip import Clip
from countervid.editors import load_editor
from countervid.errors import ClipError, ConfigError, InterventionError, OutputError
from countervid.runs import provenance
from countervid.runs.run import MINIATURE_NOTE

FILES = {
    "factual.mp4", "counterfactual.mp4", "comparison.mp4", "target.json", "verdicts.jsonl", "metrics.json", "run.json",
    "report.html",
}  # fmt: skip


def test_the_folder_is_complete(finished):
    assert {path.name for path in finished.folder.iterdir()} == FILES
    record = json.loads((finished.folder / "run.json").read_text())
    assert record["finished"]
    assert record["settings"]["do"] == {"age": "old"} and record["settings"]["seed"] == 0
    assert all(len(checksum) == 64 for checksum in record["settings"]["weights"].values())
    assert record["versions"]["torch"] == torch.__version__
    assert record["facts"]["frames_without_face"] == 0


def test_the_target_says_what_follows_and_why(finished):
    target = json.loads((finished.folder / "target.json").read_text())
    assert target["counterfactual"]["age"] == "old" and target["counterfactual"]["hair_colour"] == "grey"
    reasons = {change["variable"]: change["reason"] for change in target["changes"]}
    assert reasons["age"] == "set by the intervention" and reasons["hair_colour"] == "follows from age = old"
    assert "old" in target["prompt"]


def test_the_counterfactual_keeps_frames_times_and_size(finished):
    source, made = Clip.read(finished.folder / "factual.mp4"), Clip.read(finished.folder / "counterfactual.mp4")
    assert (len(made), made.height, made.width) == (len(source), source.height, source.width)
    assert (made.times == source.times).all()
    assert not torch.equal(made.frames, source.frames)


def test_the_factual_is_the_file_itself(finished, footage):
    assert (finished.folder / "factual.mp4").read_bytes() == (footage / "talk.mp4").read_bytes()


def test_the_result_is_marked_as_synthetic(finished):
    statement = provenance.verify(Clip.read(finished.folder / "counterfactual.mp4")).statement
    assert statement is not None and statement["synthetic"] is True and statement["do"] == {"age": "old"}


def test_marking_can_be_switched_off(run, tmp_path):
    run(marking=False, out=tmp_path / "run")
    marks = provenance.verify(Clip.read(tmp_path / "run" / "counterfactual.mp4"))
    assert marks.statement is None and not marks.watermarked
    assert "not marked" in (tmp_path / "run" / "report.html").read_text()


def test_metrics_against_the_truth(finished):
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics["frames"] == 12
    assert set(metrics["truth"]) == {"face", "frame"} and metrics["truth"]["face"]["skill"] <= 1
    assert 0 <= metrics["examiner"]["changed_seen"] <= 1
    assert metrics["identity"]["tl_id"] == pytest.approx(1, abs=0.2)


def test_what_is_said_of_the_rest_is_counted(finished, run):
    touched = json.loads((finished.folder / "metrics.json").read_text())["touched"]
    assert touched["touched"] > 0 and touched["outside"] == 0 and touched["around"] > 0
    said = "every pixel outside it is the source&#39;s bit for bit, before the video is compressed"
    assert said in (finished.folder / "report.html").read_text()


def test_strength_zero_writes_the_source(run, footage, tmp_path):
    result = run(strength=0.0, out=tmp_path / "run")
    assert (tmp_path / "run" / "counterfactual.mp4").read_bytes() == (footage / "talk.mp4").read_bytes()
    assert torch.equal(result.clip.frames, result.factual.frames)
    assert result.metrics["changed_share"] == 0.0


def test_an_intervention_that_holds_already_changes_nothing(run):
    result = run(do={"age": "young"})
    assert result.outcome.changes == ()
    assert torch.equal(result.clip.frames, result.factual.frames)


@pytest.mark.parametrize("where", ["looked_at", "render_report"])  # while the clips are read, and after it
def test_a_stopped_run_goes_on(run, finished, footage, tmp_path, monkeypatch, where):
    settings = {"truth": Clip.read(footage / "truth.mp4"), "out": tmp_path / "run"}
    with monkeypatch.context() as patch:
        patch.setattr(f"countervid.runs.outputs.{where}", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(**settings)
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    begun = {"run.json", "target.json", "verdicts.jsonl", "factual.mp4"}
    whole = {"counterfactual.mp4", "comparison.mp4", "metrics.json"}
    assert set(stamps) == (begun if where == "looked_at" else begun | whole)
    run(**settings)
    for name in stamps.keys() - {"run.json"}:
        assert (tmp_path / "run" / name).stat().st_mtime_ns == stamps[name], name  # not made twice
    for name in (*whole, "target.json"):
        assert (tmp_path / "run" / name).read_bytes() == (finished.folder / name).read_bytes(), name
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["counterfactual.mp4", "comparison.mp4", "metrics.json", "report.html"])
def test_what_is_missing_is_made_again_and_nothing_else(run, finished, footage, tmp_path, name):
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir() if path.name != "run.json"}
    result = run(truth=Clip.read(footage / "truth.mp4"), out=tmp_path / "run")
    assert {other: (tmp_path / "run" / other).stat().st_mtime_ns for other in stamps} == stamps
    if name != "report.html":  # it says how long things took
        assert (tmp_path / "run" / name).read_bytes() == (finished.folder / name).read_bytes()
    assert result.metrics == json.loads((finished.folder / "metrics.json").read_text())


def test_a_source_of_another_kind_is_written_in_the_same_pass(run, footage, tmp_path):
    Clip.read(footage / "talk.mp4").write(tmp_path / "talk.mkv", crf=4)
    clip = Clip.read(tmp_path / "talk.mkv")
    result = run(clip=clip, out=tmp_path / "run")
    factual, before = Clip.read(tmp_path / "run" / "factual.mp4"), clip.frames
    assert (factual.frames.int() - before.int()).abs().float().mean() < 2
    assert torch.equal(factual.frames, Clip.read(clip.write(tmp_path / "again.mp4", crf=8)).frames)
    assert len(Clip.read(tmp_path / "run" / "counterfactual.mp4")) == len(result.clip)


def _interrupt(*_args):
    raise KeyboardInterrupt


def test_a_file_that_was_cut_is_made_again(run, finished, tmp_path):
    run(out=tmp_path / "run")
    path = tmp_path / "run" / "counterfactual.mp4"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    run(out=tmp_path / "run")
    assert path.read_bytes() == whole


def test_another_run_in_the_same_folder_is_refused(run, finished, footage):
    with pytest.raises(OutputError, match=r"strength was 1.0, is 0.5.*Choose another"):
        run(strength=0.5, truth=Clip.read(footage / "truth.mp4"), out=finished.folder)


def test_a_folder_with_other_things_is_refused(run, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(OutputError, match="not empty and holds no run"):
        run(out=tmp_path)
    with pytest.raises(OutputError, match="a file is in the way"):
        run(out=tmp_path / "letters.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_the_miniature_says_what_it_has_never_seen(editor, run, tmp_path, monkeypatch):
    monkeypatch.setattr(editor, "miniature", True)
    run(out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["notes"] == [MINIATURE_NOTE]
    assert "has only ever seen rendered people" in MINIATURE_NOTE.replace("have only", "has only")
    assert "countervid models import" in (tmp_path / "run" / "report.html").read_text()


def test_a_rendered_clip_needs_no_such_note(editor, run, footage, tmp_path, monkeypatch):
    monkeypatch.setattr(editor, "miniature", True)
    Clip.read(footage / "talk.mp4").write(
        tmp_path / "p.mp4", metadata={"comment": "synthetic: countervid phantom world"}
    )
    assert run(clip=Clip.read(tmp_path / "p.mp4")).record["notes"] == []


def test_what_the_factual_leaves_out_is_read_off_the_clip(run):
    result = run(factual="He is young.", do={"age": "old"})
    assert result.outcome.factual["age"] == "young" and result.outcome.factual["gender"] == "man"
    assert set(result.seen) == set(result.outcome.factual) - {"age", "gender"}
    assert result.seen["beard"].confidence > 0


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"do": {"agee": "old"}}, InterventionError, "no variable `agee`. Did you mean `age`"),
        ({"do": {"age": "ancient"}}, InterventionError, "cannot be `ancient`"),
        ({"strength": -1.0}, ConfigError, "must lie in 0..4"),
        ({"strengths": {"hat": 9.0}}, ConfigError, "strength of `hat` is 9.0"),
        ({"critic": "nobody"}, ConfigError, "is no critic"),
        ({"factual": "He is young and she is old."}, InterventionError, "both"),
    ],
)
def test_wrong_input_is_said_before_anything_is_written(run, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        run(out=tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_truth_of_another_length_is_refused(run, footage):
    with pytest.raises(ClipError, match="The truth has 5 frames"):
        run(truth=Clip.from_frames(Clip.read(footage / "truth.mp4").frames[:5]))


def test_a_zeroed_video_of_equal_length_is_made_again(run, tmp_path):
    run(out=tmp_path / "run")
    path = tmp_path / "run" / "counterfactual.mp4"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    run(out=tmp_path / "run")
    assert path.read_bytes() == whole


def test_evaluations_are_those_of_all_processes_together(run, tiny_models, tmp_path, monkeypatch):
    def fresh(name):
        return load_editor("dva", tiny_models, cache=tmp_path / name, steps=3, window=8, batch=4)

    whole = run(editor=fresh("one"), out=tmp_path / "whole").record["costs"]
    with monkeypatch.context() as patch:
        patch.setattr("countervid.runs.outputs.render_report", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(editor=fresh("two"), out=tmp_path / "run")
    resumed = run(editor=fresh("two"), out=tmp_path / "run").record["costs"]
    assert resumed["unet_evaluations"] >= whole["unet_evaluations"] > 0 and resumed["model_loads"] == 2
