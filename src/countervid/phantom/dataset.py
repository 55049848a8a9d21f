"""Aligned face crops of many people, rendered once, kept on disk, read by index.

Every crop is rendered directly through its square (nothing is resampled): the square of the true
landmarks, shaken a little, as the noise of a landmark detector would. Frames of a take lie seconds
apart. With `pairs`, each person also has the true counterfactual of every frame under one
intervention, seen through the same square: what an editor's crop should become.

A data set is a folder of shards, one `.safetensors` file for every few people, each written whole:
rendering that was stopped goes on where it stopped. `PhantomFrames` maps the shards into memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from countervid.errors import ConfigError, OutputError
from countervid.face.align import PORTRAIT, Framing, quads
from countervid.files.whole import replacing, write_whole
from countervid.phantom.anatomy import body_of, poses_of
from countervid.phantom.landmarks import locate
from countervid.phantom.parameters import Look, Motion, Scene
from countervid.phantom.render import render
from countervid.phantom.scm import DOMAINS, stream
from countervid.phantom.world import Person, sample_person

SPLITS = {"train": 0, "validation": 1_000_000, "test": 2_000_000, "examiner": 3_000_000}
"""First person of each split. The examiner learns from people that no other model has seen."""

ATTRIBUTES = tuple(DOMAINS)
FACE = ("age", "gender", "beard", "bald")  # the published attributes: most edits are of these
FRAME = 256  # side of the frame that squares are measured in, pixels; any value gives the same crop
SECONDS_APART = 6.0  # between the frames of a take: head, gaze and mouth have moved on


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What is in a data set. The same configuration gives the same bytes, whatever the workers."""

    takes: int = 2
    frames: int = 3  # of each take
    size: int = 128  # of a crop, pixels
    framing: Framing = PORTRAIT  # how much of the head a crop holds
    interventional: float = 0.5  # share of people whose attributes are uniform and independent
    pairs: bool = False  # also the true counterfactual of every frame, one intervention a person
    shift: float = 0.012  # standard deviation of the square's place, in sides of the square
    scale: float = 0.02  # of the logarithm of its size
    turn: float = 0.015  # of its angle, radians

    def __post_init__(self) -> None:
        if self.takes < 1 or self.frames < 1:
            raise ConfigError(f"`takes` and `frames` must be at least 1, got {self.takes} and {self.frames}.")
        if not 0 <= self.interventional <= 1:
            raise ConfigError(f"`interventional` is a share, 0..1, got {self.interventional}.")
        if not 32 <= self.size <= 512:
            raise ConfigError(f"`size` must be 32 to 512 pixels, got {self.size}.")


def people_of(split: str, count: int) -> range:
    """The first `count` people of a split."""
    if split not in SPLITS:
        raise ConfigError(f"`{split}` is not a split. Use one of: {', '.join(SPLITS)}.")
    if not 1 <= count <= 1_000_000:
        raise ConfigError(f"A split has 1 to 1,000,000 people, got {count}.")
    return range(SPLITS[split], SPLITS[split] + count)


def person_of(seed: int, interventional: float) -> Person:
    """Person `seed` of a data set in which a share `interventional` of people has independent attributes."""
    return sample_person(seed, interventional=stream(seed, "interventional share").random() < interventional)


def encode(attributes: Mapping[str, str]) -> NDArray[np.uint8]:
    """Each attribute's value as its index in `DOMAINS`, `(len(ATTRIBUTES),)`."""
    return np.array([DOMAINS[name].index(attributes[name]) for name in ATTRIBUTES], np.uint8)


def decode(codes: Sequence[int] | NDArray[np.uint8] | Tensor) -> dict[str, str]:
    """The inverse of `encode`."""
    return {name: DOMAINS[name][int(code)] for name, code in zip(ATTRIBUTES, codes, strict=True)}


def random_intervention(person: Person) -> tuple[str, str]:
    """One attribute and a value it does not have; the same for the same person. Two in three are of `FACE`."""
    rng = stream(person.seed, "intervention")
    among = FACE if rng.random() < 2 / 3 else ATTRIBUTES
    name = among[int(rng.integers(len(among)))]
    others = [value for value in DOMAINS[name] if value != person.attributes[name]]
    return name, others[int(rng.integers(len(others)))]


def render_person(seed: int, config: DatasetConfig) -> dict[str, NDArray[np.generic]]:
    """All rows of one person: columns as in `PhantomFrames`, `n` rows each.

    The factual rows come first, take by take; then, with pairs, their counterfactuals in the same order.
    """
    person = person_of(seed, config.interventional)
    worlds = [person.attributes]
    intervention = -1
    if config.pairs:
        name, value = random_intervention(person)
        intervention = ATTRIBUTES.index(name)
        worlds.append(person.counterfactual({name: value}).attributes)

    rows: dict[str, list[NDArray[np.generic]]] = {}
    factual_rows = config.takes * config.frames
    squares: dict[int, NDArray[np.float64]] = {}
    for world, attributes in enumerate(worlds):
        look = person.look(attributes)
        for take in range(config.takes):
            jitter = stream(seed, "sparse times", take).random(config.frames)
            seconds = (np.arange(config.frames) + 0.7 * jitter) * SECONDS_APART
            motion = person.motion_at(take, seconds, attributes)
            scene = person.scene(take)
            if world == 0:
                squares[take] = _shaken(true_squares(look, scene, motion, config.framing), config, seed, take)
            made = render(look, scene, motion, FRAME, view=squares[take], view_size=config.size, layers=True)
            assert made.masks is not None
            n = config.frames
            first = take * n
            for column, values in {
                "crops": made.frames,
                "masks": made.masks,
                "landmarks": made.landmarks - np.float32(0.5),  # the face pipeline counts from pixel centres
                "squares": squares[take].astype(np.float32),
                "attributes": np.tile(encode(attributes), (n, 1)),
                "person": np.full(n, seed, np.int64),
                "take": np.full(n, take, np.int16),
                "seconds": seconds.astype(np.float32),
                "years": np.full(n, look.years, np.float32),
                "bones": np.tile(look.bones, (n, 1)),
                "occluded": motion.occluder[:, 3].astype(np.uint8),
                # Where a counterfactual's factual row is, counted backwards from it; 0 for a factual row.
                "back": np.full(n, world * factual_rows, np.int32),
                "intervention": np.full(n, intervention if world else -1, np.int8),
            }.items():
                assert len(values) == n, (column, first)
                rows.setdefault(column, []).append(values)
    return {column: np.concatenate(parts) for column, parts in rows.items()}


def true_squares(look: Look, scene: Scene, motion: Motion, framing: Framing) -> NDArray[np.float64]:
    """Squares of the true landmarks `(F, 4, 2)` in a frame of `FRAME` pixels, each frame by itself."""
    body = body_of(look)
    return quads(locate(body, poses_of(body, scene, motion), FRAME), smooth=False, framing=framing)


def _shaken(square: NDArray[np.float64], config: DatasetConfig, seed: int, take: int) -> NDArray[np.float64]:
    noise = stream(seed, "square", take).standard_normal((len(square), 4)).clip(-2.5, 2.5)
    centre = square.mean(1, keepdims=True)
    side = np.linalg.norm(square[:, 3] - square[:, 0], axis=-1)[:, None, None]
    angle, factor = config.turn * noise[:, 0], np.exp(config.scale * noise[:, 1])
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    turned = np.einsum("fij,fnj->fni", turn, square - centre) * factor[:, None, None]
    return np.asarray(centre + turned + config.shift * side * noise[:, None, 2:])


def render_dataset(
    out: Path,
    people: range,
    config: DatasetConfig | None = None,
    shard_people: int = 32,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render `people` into folder `out`, shard by shard; shards that are there already are kept.

    Args:
        out: Folder of the data set; made if needed.
        people: Seeds, a range of step 1; `people_of("train", 4000)`.
        config: What to render for each.
        shard_people: People in a shard.
        workers: Processes. With 1, all is rendered in this process.
        progress: Called with (people done, people in all).

    Raises:
        ConfigError: `out` holds a data set of another configuration.
    """
    config = DatasetConfig() if config is None else config
    out.mkdir(parents=True, exist_ok=True)
    about = {"config": asdict(config), "first": people.start, "shard_people": shard_people, "attributes": DOMAINS}
    _agree(out, about)
    shards = [range(a, min(a + shard_people, people.stop)) for a in range(people.start, people.stop, shard_people)]
    waiting = [
        shard for shard in shards if not any(path for path, held in _held(out, shard) if held.stop >= shard.stop)
    ]
    done = len(people) - sum(map(len, waiting))
    report = progress or (lambda done, total: None)
    report(done, len(people))
    for shard in _run(out, waiting, config, workers):
        done += len(shard)
        report(done, len(people))
    return out


def _run(out: Path, waiting: list[range], config: DatasetConfig, workers: int) -> Iterator[range]:
    if workers <= 1:
        for shard in waiting:
            _write_shard(out, shard, config)
            yield shard
        return
    # Spawned, not forked: a forked child inherits locks of the renderer's threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        jobs = {pool.submit(_write_shard, out, shard, config): shard for shard in waiting}
        for job in as_completed(jobs):
            job.result()
            yield jobs[job]


def _one_thread() -> None:
    import numba

    numba.set_num_threads(1)
    torch.set_num_threads(1)


def _write_shard(out: Path, shard: range, config: DatasetConfig) -> None:
    parts = [render_person(seed, config) for seed in shard]
    columns = {name: np.ascontiguousarray(np.concatenate([part[name] for part in parts])) for name in parts[0]}
    path = _shard_path(out, shard)
    with replacing(path) as partial:
        save_file(columns, str(partial), metadata={"sha256": _checksum(columns)})
    for shorter, held in _held(out, shard):  # the last shard of an earlier, smaller request
        if held.stop < shard.stop:
            shorter.unlink()


def _held(out: Path, shard: range) -> list[tuple[Path, range]]:
    """The finished shards that begin where `shard` does and are as they were left, and their people."""
    found = out.glob(f"people-{shard.start:07d}-*.safetensors")
    return [(path, _people_in(path)) for path in found if _intact(path)]


def _intact(path: Path) -> bool:
    """Whether a shard's columns have the checksum that it was written with; without one, whether it can be read."""
    try:
        columns = _map_safetensors(path)
        with path.open("rb") as file:
            known = json.loads(file.read(int.from_bytes(file.read(8), "little"))).get("__metadata__", {}).get("sha256")
        return known is None or known == _checksum(columns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError):
        return False


def _checksum(columns: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(columns):
        digest.update(f"{name} {columns[name].dtype} {columns[name].shape}".encode())
        digest.update(np.ascontiguousarray(columns[name]).data)
    return digest.hexdigest()


def _shard_path(out: Path, shard: range) -> Path:
    return out / f"people-{shard.start:07d}-{shard.stop:07d}.safetensors"


def _agree(out: Path, about: dict[str, object]) -> None:
    path = out / "dataset.json"
    text = json.dumps(about, indent=1)
    if path.exists():
        if json.loads(path.read_text()) != json.loads(text):
            raise ConfigError(
                f"`{out}` holds a data set with other settings ({path.name} differs). Choose another folder."
            )
        return
    if any(out.glob("*.safetensors")):
        raise OutputError(f"`{out}` has shards but no dataset.json. Choose an empty folder.")
    write_whole(path, text)


class PhantomFrames:
    """A rendered data set, by row. Pictures stay on disk, mapped; all else is in memory.

    Columns, `N` rows: `crops` uint8 `(N, S, S, 3)`, `masks` uint8 `(N, S, S)` (classes of
    `phantom.render`), `landmarks` float32 `(N, 68, 2)` in pixels of the crop (whole numbers at pixel
    centres), `squares` float32 `(N, 4, 2)` in pixels of a frame of `FRAME`, `attributes` uint8
    `(N, 10)` (`decode` names them), `person` int64, `take` int16, `seconds`, `years` float32, `bones`
    float32 `(N, 23)`, `occluded` uint8, `intervention` int8 (index into `ATTRIBUTES`; -1: a factual
    row), `source` int64 (row of the factual; itself if factual).
    """

    MAPPED = ("crops", "masks")

    def __init__(self, folder: Path | str, people: range | None = None) -> None:
        """Open `folder`; only whole shards inside `people`, if given."""
        self.folder = Path(folder)
        shards = sorted(self.folder.glob("people-*.safetensors"))
        if people is not None:
            shards = [s for s in shards if _people_in(s).start >= people.start and _people_in(s).stop <= people.stop]
        if not shards:
            raise ConfigError(
                f"`{self.folder}` has no shards of a phantom data set. Render one: countervid phantom dataset."
            )
        tables = [_map_safetensors(shard) for shard in shards]
        self._mapped = {name: [table[name] for table in tables] for name in self.MAPPED}
        self._starts = np.cumsum([0] + [len(table["person"]) for table in tables])
        self._memory = {
            name: torch.from_numpy(np.concatenate([np.asarray(table[name]) for table in tables]))
            for name in tables[0]
            if name not in self.MAPPED
        }
        self._memory["source"] = torch.arange(len(self)) - self._memory.pop("back").long()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def size(self) -> int:
        """Side of a crop, pixels."""
        return int(self._mapped["crops"][0].shape[1])

    def column(self, name: str) -> Tensor:
        """A whole column that is held in memory (anything but crops and masks)."""
        return self._memory[name]

    def attribute(self, name: str) -> Tensor:
        """One attribute of every row, as an index into `DOMAINS[name]`, int64 `(N,)`."""
        return self._memory["attributes"][:, ATTRIBUTES.index(name)].long()

    @property
    def factual(self) -> Tensor:
        """Rows that are no counterfactual, int64."""
        return torch.nonzero(self._memory["intervention"] < 0).flatten()

    @property
    def pairs(self) -> Tensor:
        """`(P, 2)` rows: a factual frame and its true counterfactual."""
        after = torch.nonzero(self._memory["intervention"] >= 0).flatten()
        return torch.stack([self._memory["source"][after], after], -1)

    def crops(self, rows: Sequence[int] | Tensor | NDArray[np.int64]) -> Tensor:
        """uint8 `(n, S, S, 3)`; the caller scales (`.float() / 127.5 - 1` for networks)."""
        return self._pictures("crops", rows)

    def masks(self, rows: Sequence[int] | Tensor | NDArray[np.int64]) -> Tensor:
        """uint8 `(n, S, S)`, classes 0..8."""
        return self._pictures("masks", rows)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """One row, every column."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        items = {name: values[row] for name, values in self._memory.items()}
        return {"crops": self.crops([row])[0], "masks": self.masks([row])[0], **items}

    def _pictures(self, name: str, rows: Sequence[int] | Tensor | NDArray[np.int64]) -> Tensor:
        index = np.asarray(rows, np.int64)
        shards = np.searchsorted(self._starts, index, side="right") - 1
        parts = self._mapped[name]
        result = np.empty((len(index), *parts[0].shape[1:]), np.uint8)
        for place, (shard, row) in enumerate(zip(shards, index, strict=True)):
            result[place] = parts[shard][row - self._starts[shard]]
        return torch.from_numpy(result)


def _people_in(shard: Path) -> range:
    _, start, stop = shard.stem.split("-")
    return range(int(start), int(stop))


def _map_safetensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Every tensor of a file, mapped (the format: 8 bytes of header length, a JSON header, the data)."""
    kinds = {"U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F32": "<f4"}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if not 0 < length < path.stat().st_size:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        except ValueError:
            raise ConfigError(f"`{path}` is damaged. Render it again: countervid phantom dataset.") from None
    return {
        name: np.memmap(path, kinds[entry["dtype"]], "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }
