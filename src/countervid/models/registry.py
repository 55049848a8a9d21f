"""Where model weights come from: the bundled ones by name, others by their folder. Nothing is fetched."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from countervid.errors import ModelError
from countervid.files.digests import sha256_of
from countervid.files.whole import write_whole

sha256 = sha256_of
SUMS = "SHA256SUMS"  # in the bundle's folder, in the format of `sha256sum`: what was released


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known about a model before any file of it is opened."""

    what: str
    licence: str = "Apache-2.0"
    source: str = "trained by `countervid train miniature`"
    aliases: tuple[str, ...] = ()


REGISTRY: Mapping[str, Entry] = {
    "yunet": Entry(
        what="face detector (photographs)",
        licence="MIT",
        source="OpenCV model zoo, face_detection_yunet, May 2026",
        aliases=("face_detection_yunet_2026may",),
    ),
    "vae": Entry(what="miniature: face crops to latents and back"),
    "identity": Entry(what="miniature: who it is, 128 numbers"),
    "landmarks": Entry(what="miniature: 68 face landmarks"),
    "parser": Entry(what="miniature: face, hair and other regions"),
    "dva": Entry(
        what="miniature: diffusion video autoencoder, its statistics and classifier", aliases=("autoencoder",)
    ),
    "clip": Entry(what="miniature: crops and sentences in one space"),
    "critic": Entry(what="miniature: attributes off what the CLIP sees, for steering"),
    "text-to-image": Entry(what="miniature: Stable Diffusion of the phantom world", aliases=("stable-diffusion",)),
    "examiner": Entry(what="miniature: judge of attributes, for the metrics alone"),
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One installed model, as `countervid models list` shows it."""

    name: str
    what: str
    licence: str
    source: str
    folder: Path
    size: int  # bytes of all its files
    checksum: str  # "ok", "changed", or "not recorded"


def bundled_folder() -> Path:
    """The folder that holds the bundled models, one folder each."""
    return Path(__file__).parent / "bundled"


def available(root: Path | None = None) -> tuple[str, ...]:
    """Names of the models that are there, sorted."""
    root = bundled_folder() if root is None else root
    if not root.is_dir():
        return ()
    return tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and any(_files(p))))


def bundled(name: str, root: Path | None = None) -> Path:
    """The folder of a bundled model, its files checked against the released SHA-256 sums.

    Args:
        name: A name or alias of `REGISTRY`, or of any folder in the bundle.
        root: Another bundle, such as a training run's output.

    Raises:
        ModelError: No such model, it is not installed, or its files are not the released ones.
    """
    root = bundled_folder() if root is None else root
    name = next((known for known, entry in REGISTRY.items() if name in entry.aliases), name)
    folder = root / name
    if name not in available(root):
        if name in REGISTRY:
            raise ModelError(
                f"The bundled model `{name}` ({REGISTRY[name].what}) is not in `{root}`. Install countervid again, or "
                f"make it: `countervid train miniature --stage {name}`."
            )
        near = difflib.get_close_matches(name, [*REGISTRY, *available(root)], n=1)
        hint = f"Did you mean `{near[0]}`?" if near else "`countervid models list` shows what there is."
        raise ModelError(f"There is no bundled model `{name}`. {hint}")
    _verify(folder)
    return folder


def resolve(name: str | Path) -> Path:
    """The folder of a model given by name or by path; a path must hold something, a name is looked up in the bundle.

    Raises:
        ModelError: Neither a folder nor a bundled model.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if len(path.parts) > 1 or path.exists():
        raise ModelError(f"`{name}` is not a model's folder. Give a folder, or one of: {', '.join(available())}.")
    return bundled(str(name))


def listings(root: Path | None = None) -> list[Listing]:
    """All installed models with their state, sorted by name. Reads every file."""
    root = bundled_folder() if root is None else root
    unknown = Entry(what="not described", licence="see its card", source="local")
    rows = []
    for name in available(root):
        entry, folder = REGISTRY.get(name, unknown), root / name
        changed, recorded = _compare(folder)
        rows.append(
            Listing(
                name=name,
                what=entry.what,
                licence=entry.licence,
                source=entry.source,
                folder=folder,
                size=sum(file.stat().st_size for file in _files(folder)),
                checksum="changed" if changed else "ok" if recorded else "not recorded",
            )
        )
    return rows


def seal(root: Path | None = None) -> Path:
    """Record the SHA-256 of every file of a bundle as the released ones. Returns the file of sums."""
    root = bundled_folder() if root is None else root
    files = [file for name in available(root) for file in _files(root / name)]
    lines = [f"{sha256(file)}  {file.relative_to(root).as_posix()}\n" for file in files]
    write_whole(root / SUMS, "".join(lines))
    return root / SUMS


def checksums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of a model's weights, for the record of a run."""
    return {file.name: sha256(file) for file in _files(folder) if file.suffix in (".safetensors", ".onnx")}


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def recorded(root: Path) -> dict[str, str]:
    """File name -> SHA-256, as `SHA256SUMS` in a folder has them."""
    path = root / SUMS
    if not path.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2}


def _compare(folder: Path) -> tuple[list[str], bool]:
    """Names of weights that are not the recorded ones, and whether any are recorded. Cards may be edited freely."""
    prefix = f"{folder.name}/"
    wanted = {n: s for n, s in recorded(folder.parent).items() if n.startswith(prefix) and not n.endswith(".md")}
    root = folder.parent
    return [name for name, sums in wanted.items() if not (root / name).is_file() or sha256(root / name) != sums], bool(
        wanted
    )


def _verify(folder: Path) -> None:
    changed, _ = _compare(folder)
    if changed:
        raise ModelError(
            f"`{folder.parent / changed[0]}` is not the file that was released (its SHA-256 differs). "
            "Install countervid again; after training it yourself, accept it with `countervid models seal`."
        )
