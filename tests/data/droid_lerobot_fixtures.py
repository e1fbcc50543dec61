"""A small DROID dataset in LeRobot's v3 layout, written with pyarrow and PyAV alone from the published feature list.

As published, camera poses are those of the first frame, repeated; episodes share one data file and one video per
camera. Red of frame t of episode e is 60 e + 4 t; green tells the camera.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from droid_fixtures import EXT1, EXT2, WRIST, Told, make_recording, xyz_euler
from lerobot_fixtures import write_meta
from video_fixtures import shades, write_mp4

SIZE, FPS = (36, 64), 15
CAMERAS = {"exterior_1_left": EXT1, "exterior_2_left": EXT2, "wrist_left": WRIST}
GREEN = {"exterior_1_left": 40, "exterior_2_left": 120, "wrist_left": 200}


def rows_of(told: Told, number: int, first: int, success: bool) -> dict[str, pa.Array]:
    length = len(told.gripper)
    single, vector = pa.float32(), pa.list_(pa.float32())
    closed = 1.0 - told.opening
    columns: dict[str, pa.Array] = {
        "observation.state.cartesian_position": pa.array([xyz_euler(pose) for pose in told.gripper], vector),
        "observation.state.gripper_position": pa.array(closed, single),
        "observation.state.joint_position": pa.array(told.joints.tolist(), vector),
        "action.joint_position": pa.array((told.action_joints).tolist(), vector),
        "action.gripper_position": pa.array(closed, single),
        "action": pa.array(np.concatenate([told.action_joints, closed[:, None]], axis=1).tolist(), vector),
        "language_instruction": pa.array([f"stack cup {number}"] * length),
        "language_instruction_2": pa.array([""] * length),
        "language_instruction_3": pa.array(["put the cup on the cup"] * length),
        "is_episode_successful": pa.array([success] * length),
        "building": pa.array(["Gates"] * length),
        "timestamp": pa.array(np.arange(length) / FPS, single),
        "frame_index": pa.array(np.arange(length)),
        "episode_index": pa.array([number] * length),
        "index": pa.array(np.arange(first, first + length)),
        "task_index": pa.array([number] * length),
    }
    for camera, serial in CAMERAS.items():
        columns[f"camera_extrinsics.{camera}"] = pa.array([xyz_euler(told.cameras[serial][0])] * length, vector)
    return columns


def write_dataset(folder: Path, lengths=(8, 12), successes=(True, False)) -> list[Told]:
    """All episodes in one data file, one row group each, and one video per camera; what was written, per episode."""
    told = [make_recording(folder, length) for length in lengths]
    (folder / "data/chunk-000").mkdir(parents=True)
    starts = np.cumsum([0, *lengths]).tolist()
    tables = [pa.table(rows_of(each, number, starts[number], successes[number])) for number, each in enumerate(told)]
    with pq.ParquetWriter(folder / "data/chunk-000/file-000.parquet", tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    reds = [60 * number + 4 * step for number, length in enumerate(lengths) for step in range(length)]
    cameras = [f"observation.images.{camera}" for camera in GREEN]
    for camera, green in zip(cameras, GREEN.values(), strict=True):
        path = folder / f"videos/{camera}/chunk-000/file-000.mp4"
        write_mp4(path, shades(reds, green, 100, SIZE), FPS, pixels="yuv444p", g="2", bf="0", crf="8")
    names = zip(tables[0].column_names, tables[0].columns, strict=True)
    features = {name: feature(column.type) for name, column in names}
    tasks = [f"stack cup {number}" for number in range(len(lengths))]
    write_meta(folder, lengths, cameras, features, tasks, FPS, SIZE)
    return told


def feature(kind: pa.DataType) -> dict:
    return {"dtype": str(kind.value_type if pa.types.is_list(kind) else kind), "shape": [1], "names": None}


def change_column(folder: Path, name: str, change) -> None:
    """Rewrite one column of the data file: `change` takes and gives a list of values; None drops the column."""
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    place, field = table.column_names.index(name), table.schema.field(name)
    if change is None:
        table = table.remove_column(place)
    else:
        values = change(table.column(name).to_pylist())
        table = table.set_column(place, field, pa.array(values, field.type))
    pq.write_table(table, path)
