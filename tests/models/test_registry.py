"""The registry: what is there is found and checked; what is missing or changed is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from countervid import models
from countervid.errors import ModelError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of two small models."""
    for name, content in (("vae", b"weights"), ("own", b"others")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
        (tmp_path / name / "README.md").write_text("card")
    return tmp_path


def test_the_detector_is_bundled_and_opens() -> None:
    import cv2

    folder = models.bundled("yunet")
    assert models.bundled("face_detection_yunet_2026may") == folder
    assert "MIT License" in (folder / "LICENSE").read_text()
    (file,) = folder.glob("*.onnx")
    assert models.sha256(file) == "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
    assert cv2.FaceDetectorYN.create(str(file), "", (64, 64)) is not None


def test_every_bundled_model_has_a_card_and_its_recorded_sums() -> None:
    for row in models.listings():
        assert (row.folder / "README.md").is_file(), f"{row.name} has no card"
        assert row.checksum != "changed", f"{row.name}: run `countervid models seal` after training"
        assert all(file.stat().st_size <= 16e6 for file in row.folder.rglob("*"))
    assert sum(row.size for row in models.listings()) <= 40e6


def test_a_changed_file_is_noticed_once_sealed(bundle: Path) -> None:
    assert models.bundled("vae", bundle) == bundle / "vae"
    assert {row.checksum for row in models.listings(bundle)} == {"not recorded"}
    models.seal(bundle)
    assert {row.checksum for row in models.listings(bundle)} == {"ok"}
    (bundle / "vae" / "README.md").write_text("a better card")  # cards may be edited
    assert models.bundled("vae", bundle) == bundle / "vae"
    (bundle / "vae" / "model.safetensors").write_bytes(b"weightz")
    with pytest.raises(ModelError, match=r"vae.model\.safetensors.*SHA-256"):
        models.bundled("vae", bundle)
    assert models.bundled("own", bundle) == bundle / "own"
    (bundle / "own" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="own"):
        models.bundled("own", bundle)
    models.seal(bundle)
    assert models.bundled("vae", bundle) == bundle / "vae"


def test_sums_are_in_the_format_of_sha256sum(bundle: Path) -> None:
    lines = models.seal(bundle).read_text().splitlines()
    assert f"{hashlib.sha256(b'weights').hexdigest()}  vae/model.safetensors" in lines


@pytest.mark.parametrize(
    ("name", "hint"), [("examiner", "countervid train miniature"), ("vea", "`vae`"), ("qqq", "countervid models list")]
)
def test_a_missing_model_says_what_to_do(bundle: Path, name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        models.bundled(name, bundle)


def test_resolve_takes_a_folder_or_a_name(bundle: Path) -> None:
    assert models.resolve(bundle / "vae") == bundle / "vae"
    assert models.resolve("yunet") == models.bundled("yunet")
    for wrong in (bundle / "nothing", bundle / "vae" / "model.safetensors"):
        with pytest.raises(ModelError, match="not a model's folder"):
            models.resolve(wrong)


def test_checksums_for_the_record_of_a_run(bundle: Path) -> None:
    assert models.checksums(bundle / "vae") == {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
