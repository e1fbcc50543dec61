"""Packs: consecutive episodes, staged as one video, one parquet file and one record that is written last.

    staging/pack-000007.mp4      packets of all readable episodes, one after the other
    staging/pack-000007.parquet  their labels, one row group per episode, and where each frame's packet lies
    staging/pack-000007.json     the record: what came in, what was left out and why, checksums

Bytes depend on the episodes and the settings alone. A pack that has no record yet is written again.
"""

import logging
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from dexworld.data.files import read_json, size_and_checksum
from dexworld.data.locks import claimed
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store import labels
from dexworld.data.store.encode import EncodedEpisode, add_video_stream, encode_episode
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.track import Track
from dexworld.writing import json_text, written_atomically

STAGING = "staging"
MARK = Path("meta") / "dexworld.json"  # written last: the store is complete
FPS_TOLERANCE = 5e-4  # relative: 29.97 is not 30
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeRecord:
    """What is known of a stored episode without opening its files.

    length in frames, intrinsics (9 numbers, row by row) for stored frames, layout as `layout_text`, labels_crc32 as
    `checksum_of`, source_size (height, width) before scaling, image_stats as `EncodedEpisode` has them, split of
    the source, "" where it knows none.
    """

    id: str
    length: int
    fps: float
    source: str
    task: str
    seed: int | None
    intrinsics: list[float]
    layout: str
    labels_crc32: int
    source_size: list[int]
    image_stats: dict[str, list[float]]
    split: str = ""


@dataclass(frozen=True)
class PackRecord:
    """A complete pack. settings: resolved. quarantined: (id, reason). extradata: the decoder's head, hexadecimal.

    video, labels: {"bytes", "crc32"} of the staged files; None when every episode of the pack was left out.
    """

    number: int
    settings: dict[str, Any]
    episodes: list[EpisodeRecord]
    quarantined: list[list[str]]
    extradata: str = ""
    video: Any = None
    labels: Any = None

    @property
    def frames(self) -> int:
        """Stored frames."""
        return sum(episode.length for episode in self.episodes)


def staged(folder: Path, number: int, suffix: str) -> Path:
    """The path of a staged file of pack `number`; suffix ".mp4", ".parquet" or ".json"."""
    return folder / STAGING / f"pack-{number:06d}{suffix}"


def write_pack(
    folder: Path | str,
    number: int,
    items: Iterable[tuple[str, Callable[[], Track]]],
    settings: PrepareSettings,
    split_of: Callable[[str], str] = lambda name: "",
) -> PackRecord | None:
    """Write pack `number` of the store in `folder`; None when it has a record or another process is writing it.

    items: (id, function that reads the episode), in the order of the ids. An episode whose reading raises
    CorruptEpisodeError or VideoError, at its labels or at any frame, is left out and named in the record. settings: if
    not resolved, the pack's first readable episode decides the width and the rate. split_of: the source's split of an
    id, "" where it knows none.

    The claimed record holds the id of the current episode meanwhile. Raises ValueError when the store is complete.
    """
    folder = Path(folder)
    (folder / STAGING).mkdir(parents=True, exist_ok=True)
    with claimed(staged(folder, number, ".json"), wait=False) as part:
        if part is None:
            return None
        if (folder / MARK).exists():
            raise ValueError(f"{folder} is a complete store; prepare into another folder, or delete this one")
        files: dict[str, Any] = {}
        video_path = staged(folder, number, ".mp4")
        with written_atomically(video_path) as temporary:
            with closing(_Pack(temporary, settings, split_of)) as pack:
                for episode_id, read in items:
                    part.write_text(episode_id, encoding="utf-8")
                    pack.take(episode_id, read)
            if pack.episodes:
                extradata, packets = _packets_of(temporary)
                files = {"extradata": extradata.hex(), "video": size_and_checksum(temporary)}
            else:
                temporary.touch()
        if pack.episodes:
            with written_atomically(staged(folder, number, ".parquet")) as temporary:
                _write_labels(temporary, pack.labels, packets)
                files["labels"] = size_and_checksum(temporary)
        else:
            video_path.unlink()
        record = PackRecord(number, pack.settings.to_json(), pack.episodes, pack.quarantined, **files)
        content = vars(record) | {"episodes": [vars(episode) for episode in record.episodes]}
        part.write_text(json_text(content), encoding="utf-8")
    return record


def read_records(folder: Path | str) -> list[PackRecord]:
    """The records of all complete packs that wait for assembly, in order. Raises ValueError naming a damaged one."""
    found = (path for path in (Path(folder) / STAGING).glob("pack-*.json") if not path.name.startswith("."))
    return [_read_record(path) for path in sorted(found)]


def _read_record(path: Path) -> PackRecord:
    content = read_json(path)
    try:
        return PackRecord(**content | {"episodes": [EpisodeRecord(**episode) for episode in content["episodes"]]})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is no record of a pack ({error}); delete it and prepare again") from error


@dataclass
class _Pack:
    """What has been taken in so far; its video is an mp4 that is opened with the first episode."""

    path: Path
    settings: PrepareSettings
    split_of: Callable[[str], str]
    episodes: list[EpisodeRecord] = field(default_factory=list)
    labels: list[dict[str, np.ndarray]] = field(default_factory=list)
    quarantined: list[list[str]] = field(default_factory=list)
    container: Any = None
    frames: int = 0

    def take(self, episode_id: str, read: Callable[[], Track]) -> None:
        """Read, encode and keep one episode, or quarantine it."""
        try:
            episode = read()
            settings = self.settings.resolved(episode)
            if settings.fps is None or abs(episode.fps - settings.fps) > FPS_TOLERANCE * settings.fps:
                raise CorruptEpisodeError(
                    f"{episode.source}: {episode.fps:g} frames per second in a store of {settings.fps:g}; prepare "
                    "recordings of another rate into a store of their own"
                )
            fit = settings.fit(episode.frames.size)
            columns = labels.columns_of(episode, fit)
            encoded = encode_episode(episode.frames, settings, episode.source)
        except (CorruptEpisodeError, VideoError) as error:
            logger.warning("episode %s is left out: %s", episode_id, error)
            self.quarantined.append([episode_id, str(error)])
            return
        self.settings = settings
        self._mux(encoded)
        self.labels.append(columns)
        record = EpisodeRecord(
            id=episode_id,
            length=len(episode),
            fps=float(episode.fps),
            source=episode.source,
            task=episode.task,
            seed=episode.seed,
            intrinsics=fit.intrinsics(episode.intrinsics.astype(np.float64)).reshape(-1).tolist(),
            layout=labels.layout_text(labels.layout_of(columns)),
            labels_crc32=labels.checksum_of(columns),
            source_size=list(fit.source),
            image_stats=encoded.image_stats,
            split=self.split_of(episode_id),
        )
        self.episodes.append(record)

    def _mux(self, encoded: EncodedEpisode) -> None:
        """Append the packets; frame n of the file is shown at n / fps seconds."""
        if self.container is None:
            self.container = av.open(str(self.path), "w", format="mp4", options={"fflags": "+bitexact"})
            add_video_stream(self.container, self.settings)
        for content, is_key in zip(encoded.packets, encoded.keys, strict=True):
            packet = av.Packet(content)
            packet.stream, packet.is_keyframe = self.container.streams.video[0], is_key
            packet.time_base, packet.duration = 1 / self.settings.rate, 1
            packet.pts = packet.dts = self.frames
            self.container.mux(packet)
            self.frames += 1

    def close(self) -> None:
        if self.container is not None:
            self.container.close()


def _packets_of(path: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    """The decoder's head and, per frame, offset, size and CRC-32 of its packet as they lie in the file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rows = [(each.pos, each.size, zlib.crc32(bytes(each))) for each in container.demux(stream) if each.size]
        extradata = stream.codec_context.extradata or b""
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return extradata, {name: table[:, place] for place, name in enumerate(labels.PACKETS)}


def _write_labels(path: Path, episodes: list[dict[str, np.ndarray]], packets: dict[str, np.ndarray]) -> None:
    """One row group per episode, columns of the pack's own common layout, packet columns behind."""
    layout, start = labels.merged([labels.layout_of(columns) for columns in episodes]), 0
    with labels.LabelWriter(path, {**layout, **dict.fromkeys(labels.PACKETS, ("int64", ()))}) as writer:
        for columns in episodes:
            end = start + len(next(iter(columns.values())))
            places = {name: values[start:end] for name, values in packets.items()}
            writer.write(labels.flat_columns(columns, layout, end - start) | places, end - start)
            start = end
