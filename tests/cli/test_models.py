"""Published weights from the command line: what can be fetched, what can be imported."""

import pytest
from typer.testing import CliRunner

from countervid.cli.models import app
from countervid.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "lpips", "--checkpoint", "alex.pth"], "nothing to import of `lpips`"),
        (["pull", "alex"], "There are: dva, lpips, i3d"),
    ],
)
def test_what_cannot_be_had_is_said(words, message):
    said = CliRunner().invoke(app, words).exception
    assert isinstance(said, ConfigError) and message in str(said)


def test_files_that_metrics_read_are_fetched_and_left_as_they_are(tmp_path, monkeypatch):
    """There already, with the right checksum: nobody is asked, and nothing is converted."""
    from countervid.models import download, sha256

    content = tmp_path / "downloads" / "i3d" / "i3d_torchscript.pt"
    content.parent.mkdir(parents=True)
    content.write_bytes(b"as published")
    file = download.RemoteFile(content.name, "https://nobody.invalid/i3d", sha256(content))
    release = download.Release(what="I3D", authors="them", home="there", licence="theirs", files=(file,))
    monkeypatch.setattr(download, "RELEASES", {"i3d": release})
    done = CliRunner().invoke(
        app, ["pull", "i3d", "--files", str(tmp_path / "downloads"), "--out", str(tmp_path / "o")]
    )
    assert done.exit_code == 0 and content.read_bytes() == b"as published"
    assert f"--weights i3d={content.parent}" in done.output.replace("\n", "")
    assert not (tmp_path / "o").exists()
