"""The prepared store as a Dataset: opened in one pass over meta/episodes, one parquet row group per episode.

Whatever is read is compared with the checksums that the store was written with, so a damaged byte becomes an error that
names the episode, never a wrong number.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.files import read_json
from dexworld.data.lerobot import writing
from dexworld.data.lerobot.layout import UNREADABLE
from dexworld.data.lerobot.table import open_parquet
from dexworld.data.prepared.assemble import FORMAT, FORMAT_VERSION, mark_checksum
from dexworld.data.prepared.encode import RECIPES
from dexworld.data.prepared.frames import StoredFrames
from dexworld.data.prepared.labels import (
    PACKETS,
    Labels,
    Layout,
    layout_from_text,
    numpy_column,
    restored,
    track_arrays,
)
from dexworld.data.prepared.pack import MARK, STAGING, crc32_of
from dexworld.data.prepared.settings import PrepareSettings
from dexworld.data.source import CorruptEpisodeError
from dexworld.track import Track

_NUMBERS = {"length": "length", **{name: f"dexworld/{name}" for name in ("pack", "row_group", "fps", "labels_crc32")}}

SPLIT = "dexworld/split"


@dataclass(frozen=True)
class EpisodeRows:
    """What meta/episodes tells of each of N episodes.

    length, pack, row_group, fps, labels_crc32: (N,). intrinsics: (N, 9). layout: (N,) places in `layouts`. splits: of
    the source, "" where it knew none.
    """

    ids: tuple[str, ...]
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int | None, ...]
    splits: tuple[str, ...]
    numbers: dict[str, np.ndarray]
    intrinsics: np.ndarray
    layout: np.ndarray
    layouts: tuple[Layout, ...]

    def kept(self, keep: np.ndarray) -> "EpisodeRows":
        """Only the rows where (N,) bool `keep` holds."""
        chosen = np.flatnonzero(keep)
        return EpisodeRows(
            ids=tuple(self.ids[place] for place in chosen),
            sources=tuple(self.sources[place] for place in chosen),
            tasks=tuple(self.tasks[place] for place in chosen),
            seeds=tuple(self.seeds[place] for place in chosen),
            splits=tuple(self.splits[place] for place in chosen),
            numbers={name: values[chosen] for name, values in self.numbers.items()},
            intrinsics=self.intrinsics[chosen],
            layout=self.layout[chosen],
            layouts=self.layouts,
        )


@dataclass(frozen=True)
class PreparedDataset:
    """The episodes of a finished store, in the order of their ids. Holds no open file, so it can be pickled.

    quarantined: (file or id, reason), what was left out when preparing and what is found damaged since. mark: the
    content of meta/dexworld.json.
    """

    folder: Path
    rows: EpisodeRows = field(repr=False)
    quarantined: tuple[tuple[str, str], ...]
    mark: dict[str, Any] = field(repr=False)
    kind: str = "prepared"

    def __len__(self) -> int:
        return len(self.rows.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The sources' ids, sorted."""
        return self.rows.ids

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each episode."""
        return tuple(self.rows.numbers["length"].tolist())

    @property
    def episode_seeds(self) -> tuple[int | None, ...]:
        """Simulator seed of each episode, None for recordings of the real world."""
        return self.rows.seeds

    @property
    def splits(self) -> tuple[str, ...]:
        """The split that the dataset's makers put each episode into; "" where none is known, as in stores of old."""
        return self.rows.splits

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

    @cached_property
    def prepare_settings(self) -> PrepareSettings:
        """The settings, typed."""
        return PrepareSettings.from_json(self.mark["settings"])

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError when its rows are not those written."""
        rows, (video, data) = self.rows, self.files(index)
        layout = rows.layouts[rows.layout[index]]
        try:
            columns, packets = read_rows(data, int(rows.numbers["row_group"][index]), layout)
            if Labels(columns).checksum != rows.numbers["labels_crc32"][index] or len(packets) != self.lengths[index]:
                raise ValueError("its rows are not those written")
            if packets.dtype.kind != "i":
                raise ValueError(f"the places of its packets are {packets.dtype}, not numbers")
            return Track(
                frames=self._frames(index, video, packets),
                fps=float(rows.numbers["fps"][index]),
                intrinsics=rows.intrinsics[index].reshape(3, 3).copy(),
                source=rows.sources[index],
                task=rows.tasks[index],
                seed=rows.seeds[index],
                **track_arrays(columns),
            )
        except UNREADABLE as error:
            raise CorruptEpisodeError(f"{data}: episode {self.ids[index]}: {error}") from error

    def _frames(self, index: int, video: Path, packets: np.ndarray) -> StoredFrames:
        settings, pack = self.prepare_settings, str(self.rows.numbers["pack"][index])
        return StoredFrames(
            path=video,
            packets=packets,
            size=settings.stored_size,
            decoder=RECIPES[settings.codec].decoder,
            extradata=bytes.fromhex(self.mark["extradata"][pack]),
            group=1 if settings.codec == "jpeg" else settings.group,
        )

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the data file that hold episode `index` among others."""
        return tuple(self.folder / place for place in files_of_pack(self.mark, int(self.rows.numbers["pack"][index])))


def open_prepared(folder: Path | str, verify: bool = False) -> PreparedDataset:
    """Open a finished store; episodes whose files are missing or of another size are quarantined.

    verify: also read everything again and decode every frame (`verify.problems`); what is damaged is quarantined.
    Raises FileNotFoundError when the folder holds no finished store, ValueError when its meta files are damaged or of
    another format version.
    """
    folder = Path(folder)
    mark = _read_mark(folder)
    rows = _read_rows_of_episodes(folder, mark)
    dataset = PreparedDataset(folder, rows, tuple((name, reason) for name, reason in mark["quarantined"]), mark)
    broken = {place: reason for place, entry in mark["files"].items() if (reason := _wrong(folder / place, entry))}
    bad_packs: dict[int, str] = {}
    for pack in np.unique(rows.numbers["pack"]).tolist():
        found = [broken[place] for place in files_of_pack(mark, pack) if place in broken]
        if found:
            bad_packs[pack] = found[0]
    damaged = {
        name: bad_packs[pack]
        for name, pack in zip(rows.ids, rows.numbers["pack"].tolist(), strict=True)
        if pack in bad_packs
    }
    dataset = _without(dataset, damaged)
    if verify:
        from dexworld.data.prepared.verify import problems

        found_now = problems(dataset)
        dataset = _without(dataset, dict(found_now))
    return dataset


def read_rows(data: Path, row_group: int, layout: Layout) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """An episode's label columns and its (T, 3) packet table. Raises what pyarrow raises for damaged files."""
    table = open_parquet(data).read_row_group(row_group, columns=[*layout, *PACKETS], use_threads=False)
    columns = {name: restored(numpy_column(table.column(name)), *layout[name]) for name in layout}
    return columns, np.stack([numpy_column(table.column(name)) for name in PACKETS], axis=1)


def files_of_pack(mark: dict[str, Any], pack: int) -> tuple[str, str]:
    """Places of a pack's video and data file below the store's folder."""
    chunk, file = writing.place_of(pack)
    video = writing.VIDEO_PATH.format(video_key=mark["video_key"], chunk_index=chunk, file_index=file)
    return video, writing.DATA_PATH.format(chunk_index=chunk, file_index=file)


def _read_mark(folder: Path) -> dict[str, Any]:
    path = folder / MARK
    if not path.exists():
        unfinished = (folder / STAGING).exists()
        raise FileNotFoundError(
            f"{folder} is no finished store: "
            + ("its packs are not assembled yet; run the same `dexworld prepare` again" if unfinished else f"no {MARK}")
        )
    mark = read_json(path)
    if mark.get("format") != FORMAT or mark.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} is of format {mark.get('format')!r} version {mark.get('format_version')!r}; this version of "
            f"dexworld reads {FORMAT!r} version {FORMAT_VERSION}"
        )
    missing = [name for name in ("settings", "files", "extradata", "quarantined", "fingerprint") if name not in mark]
    if missing:
        raise ValueError(f"{path} holds no {', '.join(missing)}; it is damaged, prepare the store again")
    if mark.get("crc32") != mark_checksum(mark):
        raise ValueError(f"{path} is not as it was written: its checksum differs; prepare the store again")
    return mark


def _read_rows_of_episodes(folder: Path, mark: dict[str, Any]) -> EpisodeRows:
    places = sorted(place for place in mark["files"] if place.startswith("meta/episodes/"))
    wanted = [
        *_NUMBERS.values(),
        "tasks",
        *(f"dexworld/{name}" for name in ("id", "source", "seed", "intrinsics", "layout")),
    ]
    try:
        for place in places:
            entry = mark["files"][place]
            if reason := _wrong(folder / place, entry):
                raise ValueError(reason)
            if crc32_of(folder / place) != entry["crc32"]:
                raise ValueError(f"{folder / place} is not the file that was written")
        if all(SPLIT in pq.read_schema(folder / place).names for place in places):
            wanted.append(SPLIT)  # stores of old don't have it
        table = pa.concat_tables(
            pq.read_table(
                folder / place,
                columns=wanted,
                read_dictionary=["dexworld/layout"],
                use_threads=False,
                page_checksum_verification=True,
            )
            for place in places
        ).unify_dictionaries()
        layouts = table.column("dexworld/layout").combine_chunks()
        return EpisodeRows(
            ids=_texts(table.column("dexworld/id").combine_chunks()),
            sources=_texts(table.column("dexworld/source").combine_chunks()),
            tasks=_texts(table.column("tasks").combine_chunks().flatten()),
            seeds=_seeds(table.column("dexworld/seed").combine_chunks()),
            splits=_texts(table.column(SPLIT).combine_chunks()) if SPLIT in table.column_names else ("",) * len(table),
            numbers={name: table.column(column).to_numpy() for name, column in _NUMBERS.items()},
            intrinsics=table.column("dexworld/intrinsics").combine_chunks().flatten().to_numpy().reshape(-1, 9),
            layout=layouts.indices.to_numpy(),
            layouts=tuple(layout_from_text(text) for text in layouts.dictionary.to_pylist()),
        )
    except UNREADABLE as error:
        raise ValueError(f"{folder / 'meta/episodes'} can't be read ({error}); prepare the store again") from error


def _texts(column: pa.Array) -> tuple[str, ...]:
    """Texts, a hundred thousand in a tenth of a second."""
    return tuple(column.to_numpy(zero_copy_only=False).tolist())


def _seeds(column: pa.Array) -> tuple[int | None, ...]:
    if column.null_count == len(column):
        return (None,) * len(column)
    return tuple(column.to_pylist())


def _wrong(path: Path, entry: dict[str, int]) -> str:
    """What is wrong with a file's presence and size; empty if nothing."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"{path} can't be read ({error.strerror})"
    return "" if size == entry["bytes"] else f"{path} holds {size} bytes, {entry['bytes']} were written"


def _without(dataset: PreparedDataset, damaged: dict[str, str]) -> PreparedDataset:
    """The dataset without the ids in `damaged` (id or file -> reason), which join its quarantine."""
    if not damaged:
        return dataset
    keep = np.array([name not in damaged for name in dataset.ids], dtype=bool)
    rows = dataset.rows.kept(keep)
    return PreparedDataset(dataset.folder, rows, dataset.quarantined + tuple(damaged.items()), dataset.mark)
