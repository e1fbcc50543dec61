"""The prepared store as a Dataset: opened in one pass over meta/episodes, one parquet row group per episode.

Everything that is read is compared with the store's checksums: a damaged byte is an error that names the episode.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.files import check_checksum, read_json, size_and_checksum
from dexworld.data.lerobot.layout import UNREADABLE
from dexworld.data.lerobot.rows import column_arrays, open_parquet
from dexworld.data.parallel import WorkerDied, Workers, worker_count
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store import labels
from dexworld.data.store.assemble import FORMAT, FORMAT_VERSION, data_place, video_place
from dexworld.data.store.encode import RECIPES
from dexworld.data.store.packs import MARK, STAGING
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.data.video_frames import StoredFrames
from dexworld.track import Track

NUMBERS = ("pack", "row_group", "fps", "labels_crc32")
OTHERS = ("id", "source", "seed", "split", "intrinsics", "layout")
BLOCK = 64  # frames decoded at once
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedDataset:
    """The episodes of a finished store, in the order of their ids. Holds no open file, so it can be pickled.

    rows: of meta/episodes, one per episode. quarantined: (file or id, reason) of what was left out when preparing or is
    damaged since. mark: the content of meta/dexworld.json.
    """

    folder: Path
    rows: pa.Table = field(repr=False)
    quarantined: tuple[tuple[str, str], ...]
    mark: dict[str, Any] = field(repr=False)
    kind: str = "prepared"

    def __len__(self) -> int:
        return self.rows.num_rows

    def _values(self, name: str) -> tuple[Any, ...]:
        column = self.rows.column(name)  # texts by way of numpy: a hundred thousand in a tenth of a second
        return tuple(column.to_pylist() if column.null_count else column.to_numpy().tolist())

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The sources' ids, sorted."""
        return self._values("dexworld/id")

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each episode."""
        return self._values("length")

    @cached_property
    def episode_seeds(self) -> tuple[int | None, ...]:
        """Simulator seed of each episode, None for recordings of the real world."""
        return self._values("dexworld/seed")

    @property
    def splits(self) -> tuple[str, ...]:
        """The split that the dataset's makers put each episode into; "" where none is known."""
        return self._values("dexworld/split")

    @property
    def settings(self) -> dict[str, Any]:
        """What the store was made with: `PrepareSettings` as JSON values and the source's provenance."""
        return {"prepare": self.mark["settings"], "provenance": self.mark["provenance"]}

    @property
    def fingerprint(self) -> str:
        """Changes when an episode is added, removed or rewritten; 32 hexadecimal digits."""
        return self.mark["fingerprint"]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The distinct simulator seeds, sorted; empty for recordings of the real world."""
        return tuple(sorted({seed for seed in self.episode_seeds if seed is not None}))

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError when its rows are not those written."""
        row = self.rows.slice(range(len(self))[index], 1).to_pylist()[0]
        video, data = self.files(index)
        try:
            layout = labels.layout_from_text(row["dexworld/layout"])
            names = [*layout, *labels.PACKETS]
            table = open_parquet(data).read_row_group(row["dexworld/row_group"], columns=names, use_threads=False)
            flat = column_arrays(table)
            columns, packets = labels.restored(flat, layout), np.stack([flat[name] for name in labels.PACKETS], axis=1)
            if labels.checksum_of(columns) != row["dexworld/labels_crc32"] or len(packets) != row["length"]:
                raise ValueError("its rows are not those written")
            if packets.dtype.kind != "i":
                raise ValueError(f"the places of its packets are {packets.dtype}, not numbers")
            settings = PrepareSettings.from_json(self.mark["settings"])
            decoder, size = RECIPES[settings.codec].decoder, settings.stored_size
            head = bytes.fromhex(self.mark["extradata"][str(row["dexworld/pack"])])
            return Track(
                frames=StoredFrames(video, packets, size, decoder, head, settings.key_distance),
                fps=float(row["dexworld/fps"]),
                intrinsics=np.array(row["dexworld/intrinsics"]).reshape(3, 3),
                source=row["dexworld/source"],
                task=row["tasks"][0],
                seed=row["dexworld/seed"],
                **labels.track_arrays(columns),
            )
        except UNREADABLE as error:
            raise CorruptEpisodeError(f"{data}: episode {self.ids[index]}: {error}") from error

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the data file that hold episode `index` among others."""
        pack = self.rows.column("dexworld/pack")[index].as_py()
        return self.folder / video_place(pack), self.folder / data_place(pack)


def open_prepared(folder: Path | str, verify: bool = False) -> PreparedDataset:
    """Open a finished store; episodes whose files are missing or of another size are quarantined.

    verify: also read everything again and decode every frame (see `problems`); what is damaged is quarantined.
    Raises FileNotFoundError when the folder holds no finished store, ValueError when its meta files are damaged or of
    another format version.
    """
    folder = Path(folder)
    mark = _read_mark(folder)
    left_out = tuple((name, reason) for name, reason in mark["quarantined"])
    dataset = PreparedDataset(folder, _read_rows(folder, mark), left_out, mark)
    broken = {place: reason for place, entry in mark["files"].items() if (reason := _wrong_size(folder / place, entry))}
    damaged = {}
    for name, pack in zip(dataset.ids, dataset._values("dexworld/pack"), strict=True) if broken else ():
        if why := broken.get(video_place(pack)) or broken.get(data_place(pack)):
            damaged[name] = why
    dataset = _without(dataset, damaged)
    return _without(dataset, dict(problems(dataset))) if verify else dataset


def _without(dataset: PreparedDataset, damaged: dict[str, str]) -> PreparedDataset:
    """The dataset without the ids in `damaged` (id or file -> reason), which join its quarantine."""
    if not damaged:
        return dataset
    kept = dataset.rows.filter(pa.array([name not in damaged for name in dataset.ids])).combine_chunks()
    return replace(dataset, rows=kept, quarantined=dataset.quarantined + tuple(damaged.items()))


def problems(
    dataset: PreparedDataset, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[str, str]]:
    """(file or episode id, reason) of everything that is not as it was written; nothing when the store is whole.

    Reads all files, all labels and every frame. workers: processes, 0 is one per core; the order of what is found is
    the same. progress: called with (files and episodes done, of how many).
    """
    items: list[str | int] = [*dataset.mark["files"], *range(len(dataset))]
    with Workers(partial(_problem, dataset=dataset), worker_count(len(items), workers)) as pool:
        for done, outcome in enumerate(pool.outcomes(items), 1):
            if progress is not None:
                progress(done, len(items))
            if outcome.error is not None and not isinstance(outcome.error, WorkerDied):
                raise outcome.error
            if reason := outcome.error or outcome.result:
                name = outcome.item if isinstance(outcome.item, str) else dataset.ids[outcome.item]
                logger.warning("%s: %s", name, reason)
                yield name, str(reason)


def _problem(item: str | int, dataset: PreparedDataset) -> str:
    """What is wrong with a file of the store (its place) or with an episode (its index); empty when nothing is."""
    try:
        if isinstance(item, str):
            path = dataset.folder / item
            right = size_and_checksum(path) == dataset.mark["files"][item]
            return "" if right else f"{path} is not the file that was written: its checksum differs"
        frames = dataset[item].frames
        for start in range(0, len(frames), BLOCK):
            frames.read(list(range(start, min(start + BLOCK, len(frames)))))
    except (CorruptEpisodeError, VideoError) as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} can't be read ({error.strerror})"
    return ""


def _read_mark(folder: Path) -> dict[str, Any]:
    path = folder / MARK
    if not path.exists():
        unfinished = "its packs are not assembled yet; run the same `dexworld prepare` again"
        why = unfinished if (folder / STAGING).exists() else f"no {MARK}"
        raise FileNotFoundError(f"{folder} is no finished store: {why}")
    mark = read_json(path)
    name, number = mark.get("format"), mark.get("format_version")
    if name != FORMAT or number not in range(1, FORMAT_VERSION + 1):
        raise ValueError(f"{path} is of format {name!r} version {number!r}, not {FORMAT!r} version {FORMAT_VERSION}")
    needed = ("settings", "files", "extradata", "quarantined", "fingerprint", "crc32")
    if missing := [name for name in needed if name not in mark]:
        raise ValueError(f"{path} holds no {', '.join(missing)}; it is damaged, prepare the store again")
    check_checksum(mark, path)
    return mark


def _read_rows(folder: Path, mark: dict[str, Any]) -> pa.Table:
    """meta/episodes without the statistics."""
    places = sorted(place for place in mark["files"] if place.startswith("meta/episodes/"))
    wanted = ["length", "tasks", *(f"dexworld/{name}" for name in NUMBERS + OTHERS)]
    try:
        for place in places:
            if size_and_checksum(folder / place) != mark["files"][place]:
                raise ValueError(f"{folder / place} is not the file that was written")
        options = {"read_dictionary": ["dexworld/layout"], "use_threads": False, "page_checksum_verification": True}
        tables = [pq.read_table(folder / place, columns=wanted, **options) for place in places]
        return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    except UNREADABLE as error:
        raise ValueError(f"{folder / 'meta/episodes'} can't be read ({error}); prepare the store again") from error


def _wrong_size(path: Path, entry: dict[str, int]) -> str:
    """What is wrong with a file's presence and size; empty if nothing."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"{path} can't be read ({error.strerror})"
    return "" if size == entry["bytes"] else f"{path} holds {size} bytes, {entry['bytes']} were written"
