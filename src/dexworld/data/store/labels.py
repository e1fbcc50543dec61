"""One episode's labels to flat columns, and back: shapes, kinds and names as the source gave them.

A stored column is (T, n) of one kind, n fixed over the store, so that LeRobot's tools read it. An episode's own shapes
and kinds stand in its `layout`. A column that an episode lacks is filled with NaN, 0, False or "", and absent again
when the episode is read.
"""

import json
import math
import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.resize import Fit, holds_pixels
from dexworld.data.source import CorruptEpisodeError
from dexworld.hands import BODY_KEYPOINTS, KEYPOINT_NAMES
from dexworld.track import Track

Layout = dict[str, tuple[str, tuple[int, ...]]]  # column -> (numpy kind, shape of one frame)

COLUMN = "track."  # before the name of a track's column
CAMERA, INTRINSICS, SEED = "camera.pose", "camera.intrinsics", "scene.seed"
VERSION_1 = {  # the store's name in format version 1 -> a track's column
    **{f"observation.{name.removesuffix('_world')}": name for name in (
        "keypoints_world", "keypoints_valid", "keypoint_confidence", "body_world", "body_valid", "hand_poses_world",
        "hand_metacarpals_world", "gripper_opening", "gripper_pose_world", "object_motion",
    )},
    "observation.camera_pose": "world_from_camera",
    "observation.state": "joint_positions",
    "action.joint_targets": "joint_targets",
    "action": "action",
}  # fmt: skip
ROWS: dict[str, tuple[int, ...]] = {  # shapes of rows that a flat column doesn't tell
    **dict.fromkeys(("world_from_camera", "gripper_pose_world"), (4, 4)),
    **dict.fromkeys(("keypoints_world", "body_world", "hand_metacarpals_world", "object_positions"), (-1, 3)),
    **dict.fromkeys(("object_pixels", "points"), (-1, 2)),
    "hand_poses_world": (2, 4, 4),
}
PACKETS = ("video.packet_offset", "video.packet_size", "video.packet_crc32")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FILL: dict[str, Any] = {"f": np.nan, "b": False, "U": ""}


def layout_of(columns: dict[str, np.ndarray]) -> Layout:
    """Kind ("str" for text of any length) and per-frame shape of an episode's columns."""
    return {
        name: ("str" if array.dtype.kind == "U" else array.dtype.name, array.shape[1:])
        for name, array in columns.items()
    }


def checksum_of(columns: dict[str, np.ndarray]) -> int:
    """CRC-32 over names, kinds, shapes and bytes of an episode's columns, in the order of the names."""
    value = zlib.crc32(layout_text(layout_of(columns)).encode())
    for _, array in sorted(columns.items()):
        is_text = array.dtype.kind == "U"
        content: Any = "\n".join(array.tolist()).encode() if is_text else np.ascontiguousarray(array)
        value = zlib.crc32(content, value)
    return value


def stored_name(name: str) -> str:
    """The store's name of a track's column. LeRobot's policies take what begins with `observation` or `action`."""
    return COLUMN + name


def track_name(stored: str) -> str:
    """The track's column of a store's, of any format version; "" where the store's is none."""
    for prefix in (COLUMN, "extras."):  # version 1 had the second one
        if stored.startswith(prefix):
            return stored.removeprefix(prefix)
    return "world_from_camera" if stored == CAMERA else VERSION_1.get(stored, "")


def track_arrays(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """The camera poses and the columns of a track, as its keywords, from columns of the store."""
    named = {track_name(name): value for name, value in columns.items()}
    return {"world_from_camera": named.pop("world_from_camera"), "columns": named}


def own_features(features: Mapping[str, Any]) -> list[str]:
    """Of a LeRobot dataset's features those that a store of ours wrote for its tracks; [] where none did."""
    if CAMERA in features and stored_name("keypoints_world") in features:
        return [name for name in features if name == CAMERA or name.startswith(COLUMN)]
    written = {"observation.camera_pose", "observation.keypoints", *PACKETS} <= set(features)
    return [name for name in features if written and track_name(name)]


def track_from_flat(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """As `track_arrays`, without an episode's layout: a column of no number is absent, unknown ones stay flat."""
    known = {name: values for name, values in flat.items() if values.dtype.kind != "f" or np.isfinite(values).any()}
    rows = {name: ROWS.get(track_name(name), values.shape[1:]) for name, values in known.items()}
    return track_arrays({name: values.reshape(len(values), *rows[name]) for name, values in known.items()})


def columns_of(episode: Track, fit: Fit) -> dict[str, np.ndarray]:
    """Everything that an episode tells about its frames: (T, ...) arrays by the store's names, in stored pixels.

    Floats of the columns in `VERSION_1` and float16 become float32; other columns keep their kind. Columns of
    pixels (`holds_pixels`) are scaled and cropped like the frames. Raises CorruptEpisodeError naming a column that
    is no plain array over the frames.
    """
    columns = {CAMERA: np.asarray(episode.world_from_camera, dtype=np.float32)}
    for name, value in episode.columns.items():
        array = np.asarray(value)
        plain = array.shape[:1] == (len(episode),) and array.dtype.kind in "fiubU" and _NAME.fullmatch(name)
        if not plain or name == "world_from_camera" or (array.dtype.kind == "U" and array.ndim != 1):
            raise CorruptEpisodeError(
                f"{episode.source}: column {name!r} has shape {array.shape} {array.dtype}; it must be a plain array "
                f"of numbers or truth values whose first axis is the {len(episode)} frames, or one text per frame"
            )
        if holds_pixels(name, array):
            array = fit.pixels(array.astype(np.float64)).astype(array.dtype)
        if (name in VERSION_1.values() and array.dtype.kind == "f") or array.dtype == np.float16:
            array = array.astype(np.float32)
        columns[stored_name(name)] = array
    return columns


def layout_text(layout: Layout) -> str:
    """The layout as JSON in the order of the names; equal layouts give equal text."""
    return json.dumps({name: [kind, list(shape)] for name, (kind, shape) in sorted(layout.items())})


@lru_cache(maxsize=256)
def layout_from_text(text: str) -> Layout:
    """The layout that `layout_text` gave; shared, not to be changed."""
    return {name: (kind, tuple(shape)) for name, (kind, shape) in json.loads(text).items()}


def merged(layouts: list[Layout]) -> Layout:
    """The flat layout (n,) or () that holds all of them: the widest column, the kind that holds every kind."""
    together: Layout = {}
    for layout in layouts:
        for name, (kind, shape) in layout.items():
            other_kind, other = together.get(name, (kind, shape))
            if kind != other_kind and "str" in (kind, other_kind):
                raise ValueError(f"column {name} holds {kind} in one episode, {other_kind} in another; rename one")
            kind = kind if kind == other_kind else np.result_type(kind, other_kind).name
            width = max(math.prod(shape), math.prod(other))
            flat = () if width == 1 else (width,)  # LeRobot reads one number a frame as no list
            together[name] = (kind, flat)
    return dict(sorted(together.items()))


def flat_columns(columns: dict[str, np.ndarray], layout: Layout, length: int) -> dict[str, np.ndarray]:
    """(T,) or (T, n) of the store's kinds from an episode's arrays, filled up, for every column of a flat layout."""
    return {name: _flat_column(columns.get(name), kind, shape, length) for name, (kind, shape) in layout.items()}


def _flat_column(array: np.ndarray | None, kind: str, shape: tuple[int, ...], length: int) -> np.ndarray:
    if kind == "str":
        return np.full(length, "", dtype="U1") if array is None else array
    dtype = np.dtype(kind)
    filled = np.full((length, *shape), _FILL.get(dtype.kind, 0), dtype=dtype)
    if array is not None and shape == ():
        filled[:] = array.reshape(length)
    elif array is not None:
        filled[:, : math.prod(array.shape[1:])] = array.reshape(length, -1)
    return filled


def restored(flat: Mapping[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """An episode's arrays (T, *shape) by its own layout, from the store's columns of its rows."""
    columns = {}
    for name, (kind, shape) in layout.items():
        values, length = flat[name], len(flat[name])
        if kind != "str":
            values = values.reshape(length, -1)[:, : math.prod(shape)].reshape(length, *shape)
        columns[name] = values.astype("U" if kind == "str" else kind)  # a copy that may be written to
    return columns


class LabelWriter:
    """Writes a parquet file made for reading single row groups: one per episode, plain pages with checksums.

    layout: flat, of every column in order; no value is missing. A context manager.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        fields = [pa.field(name, _arrow_type(*each), nullable=False) for name, each in layout.items()]
        self._writer = pq.ParquetWriter(
            path, pa.schema(fields), compression="NONE", use_dictionary=False, write_statistics=False,
            write_page_checksum=True, data_page_size=1 << 30,
        )  # fmt: skip

    def __enter__(self) -> "LabelWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, flat: dict[str, np.ndarray], length: int) -> None:
        """Append an episode's columns, (T,) or (T, n) each, as one row group."""
        schema = self._writer.schema
        arrays = [_arrow_column(flat[field.name], field.type) for field in schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=length)


def _arrow_type(kind: str, shape: tuple[int, ...]) -> pa.DataType:
    """Plain for one value a frame, a list of fixed length otherwise."""
    item = pa.string() if kind == "str" else pa.from_numpy_dtype(np.dtype(kind))
    return item if shape == () else pa.list_(pa.field("element", item, nullable=False), math.prod(shape))


def _arrow_column(flat: np.ndarray, data_type: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(data_type):
        values = pa.array(np.ascontiguousarray(flat).reshape(-1), type=data_type.value_type)
        return pa.FixedSizeListArray.from_arrays(values, type=data_type)
    return pa.array(flat.tolist() if pa.types.is_string(data_type) else flat, type=data_type)


def feature_names(column: str, shape: tuple[int, ...]) -> list[str] | None:
    """What the numbers of a column are called in meta/info.json; None where nothing better than a number is known."""
    pose = [f"{row}{axis}" for row in ("x", "y", "z", "w") for axis in ("x", "y", "z", "t")]
    named = {
        "keypoints_world": [f"{name}_{axis}" for name in KEYPOINT_NAMES for axis in "xyz"],
        "keypoints_valid": list(KEYPOINT_NAMES),
        "keypoint_confidence": list(KEYPOINT_NAMES),
        "body_world": [f"{name}_{axis}" for name in BODY_KEYPOINTS for axis in "xyz"],
        "body_valid": list(BODY_KEYPOINTS),
        "world_from_camera": [f"world_from_camera_{entry}" for entry in pose],
        "gripper_pose_world": [f"world_from_gripper_{entry}" for entry in pose],
        "hand_poses_world": [f"world_from_{side}_hand_{entry}" for side in ("left", "right") for entry in pose],
    }
    names = named.get(track_name(column), [])
    return names if names and len(names) == math.prod(shape) else None
