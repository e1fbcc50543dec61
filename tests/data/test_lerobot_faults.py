"""What is wrong in published LeRobot datasets: read rightly, or refused with the cause, and never silently wrong."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from lerobot_fixtures import change_info, change_tables, number_of, set_column, write_dataset

from dexworld.data.readers.lerobot import KeypointMapping, LeRobotOptions, open_lerobot
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError
from dexworld.hands import KEYPOINT_NAMES

LENGTHS = (6, 5, 7, 4)
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
TOP = "observation.images.top"
AUX = "observation.images.aux"
PLACE = f"videos/{TOP}/"


def check_read(folder, columns, left_out=(), options=LeRobotOptions(), camera=0):
    """Every episode but those `left_out` shows its own frames, number `camera`, and has its own rows."""
    source = open_lerobot(folder, options)
    assert source.quarantined == ()
    for index, length in enumerate(LENGTHS):
        if index in left_out:
            with pytest.raises((CorruptEpisodeError, VideoError)):
                source[index].frames.read([length - 1])
            continue
        track = source[index]
        shown = [number_of(frame) for frame in track.frames.read([0, length - 1])]
        assert shown == [1000 * camera + STARTS[index], 1000 * camera + STARTS[index + 1] - 1]
        np.testing.assert_array_equal(track["action"], columns["action"][STARTS[index] : STARTS[index + 1]])


DEPTH = [
    {"info": {"is_depth_map": True}},
    {"info": {"video.is_depth_map": True}},
    {"video_info": {"video.is_depth_map": True}},
    {"shape": [64, 96, 1]},
    {"info": {"video.pix_fmt": "gray12le"}},
]


@pytest.mark.parametrize("about", DEPTH, ids=str)
def test_a_depth_map_is_never_the_camera_unasked_and_a_line_says_which_one_is(tmp_path, caplog, about):
    columns = write_dataset(tmp_path, LENGTHS, (AUX, TOP))
    change_info(tmp_path, lambda info: info["features"][AUX].update(about))
    with caplog.at_level("INFO"):
        check_read(tmp_path, columns, camera=1)
    assert len([line for line in caplog.messages if f"frames are those of {TOP}, of {AUX} (" in line]) == 1
    change_info(tmp_path, lambda info: info["features"][TOP].update(about))
    with pytest.raises(ValueError, match=r"has no colour camera; it has observation.images.aux .*top"):
        open_lerobot(tmp_path)
    if "is_depth_map" in json.dumps(about):
        with pytest.raises(ValueError, match=r"has no camera .*flagged is_depth_map"):
            open_lerobot(tmp_path, LeRobotOptions(image_key=AUX))
    else:
        check_read(tmp_path, columns, options=LeRobotOptions(image_key=AUX))


def test_a_camera_without_places_or_with_depth_in_its_name_waits_for_another(tmp_path):
    columns = write_dataset(tmp_path, LENGTHS, ("observation.images.head_depth", TOP))
    check_read(tmp_path, columns, camera=1)
    change_info(tmp_path, lambda info: info.update(features={AUX: info["features"][TOP]} | info["features"]))
    check_read(tmp_path, columns, camera=1)


def structs(length):
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return pa.array([[{"role": "user", "content": "reach"}]] * length, kind)


STRANGE = {
    "null": lambda n: pa.array([None, *range(n - 1)], pa.int64()),
    "null-row": lambda n: pa.array([None] + [[0.0, 1.0]] * (n - 1), pa.list_(pa.float32())),
    "ragged": lambda n: pa.array([[0.0] * (1 + row % 2) for row in range(n)]),
    "null-in-list": lambda n: pa.array([[1, None]] * n, pa.list_(pa.int64())),
    "structs": structs,
    "times": lambda n: pa.array(range(n), pa.timestamp("ms")),
    "map": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    "nothing": lambda n: pa.array([[]] * n, pa.list_(pa.float32())),
    "all-null": lambda n: pa.nulls(n),
    "missing": None,
}


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_an_unused_column_never_breaks_an_episode_and_one_warning_names_it(tmp_path, caplog, make):
    columns = write_dataset(tmp_path, LENGTHS, (TOP,))
    change_info(tmp_path, lambda info: info["features"].update(strange={"dtype": "?", "shape": [1], "names": None}))
    if make is not None:
        change_tables(tmp_path, "data", lambda table: set_column(table, "strange", make(len(table))))
    check_read(tmp_path, columns)
    assert len([line for line in caplog.messages if "columns left out: strange (" in line]) == 1
    with pytest.raises(CorruptEpisodeError, match="strange"):
        open_lerobot(tmp_path, LeRobotOptions(joint_positions="strange"))[0]


def pointers(**columns):
    """A change of columns of meta/episodes: name -> {row: value}; start and end are times in the video."""
    names = {"start": f"{PLACE}from_timestamp", "end": f"{PLACE}to_timestamp", "video": f"{PLACE}file_index"}
    names |= {"file": "data/file_index", "chunk": "data/chunk_index", "first": "dataset_from_index", "length": "length"}

    def change(table):
        for name, values in columns.items():
            old = table.column(names[name]).to_pylist()
            table = set_column(table, names[name], [values.get(row, value) for row, value in enumerate(old)])
        return table

    return change


def without(column, value):
    return lambda table: table.filter(pa.compute.not_equal(table[column], value))


@pytest.mark.parametrize(
    ("place", "change", "complaint", "left_out"),
    [
        ("meta/episodes", pointers(file={1: 1}), "the rows of episode 1", ()),
        ("meta/episodes", pointers(file={3: 0}), "the rows of episode 3", ()),
        ("meta/episodes", pointers(chunk={0: 7}), "the rows of episode 0", ()),
        ("meta/episodes", pointers(first={1: 0, 3: 5}), "", ()),
        ("data", without("episode_index", 2), "no row of episode 2", (2,)),
        ("data", without("index", 12), "6 rows, .* says 7", (2,)),
        ("meta/episodes", pointers(length={2: 9}), "7 rows, .* says 9", (2,)),
        ("meta/episodes", pointers(length={2: 0}), "no frames", (2,)),
        ("meta/episodes", pointers(start={2: 0}, end={2: 0.23}), "to episode 0, too", (2,)),
        ("meta/episodes", pointers(start={2: 4}, end={2: 4.2}), "don't fit", (2,)),
        ("meta/episodes", pointers(video={2: 1}), "don't fit", (2,)),
    ],
)
def test_a_wrong_pointer_costs_no_other_episode_and_none_whose_rows_can_be_found(
    tmp_path, caplog, place, change, complaint, left_out
):
    columns = write_dataset(tmp_path, LENGTHS, (TOP,))
    change_tables(tmp_path, place, change)
    check_read(tmp_path, columns, left_out)
    said = [caplog.text]
    for index in left_out:
        with pytest.raises((CorruptEpisodeError, VideoError)) as refused:
            open_lerobot(tmp_path)[index].frames.read([0])
        said.append(str(refused.value))
    assert re.search(complaint, "".join(said))


@pytest.mark.parametrize("in_rows", [False, True], ids=["video", "rows"])
@pytest.mark.parametrize(
    ("about", "warned"),
    [
        ({"shape": [3, 64, 96], "names": ["height", "width", "channel"]}, False),
        ({"shape": [64, 96, 3], "names": ["channels", "height", "width"]}, False),
        ({"shape": [96, 64, 3], "names": ["width", "height", "channels"]}, False),
        ({"shape": [64, 96, 3], "names": {"axes": ["height", "width", "channels"]}}, False),
        ({"shape": [480, 640, 3]}, True),
        ({"shape": None}, True),
    ],
)
def test_the_size_of_pictures_is_their_own_and_stale_ones_are_named(tmp_path, caplog, about, warned, in_rows):
    key = "observation.image" if in_rows else TOP
    cameras = {"cameras": (), "image_key": key} if in_rows else {"cameras": (TOP,)}
    columns = write_dataset(tmp_path, LENGTHS, columns={"object_pixels": np.ones((22, 2), np.float32)}, **cameras)
    change_info(tmp_path, lambda info: info["features"][key].update(about))
    check_read(tmp_path, columns, options=LeRobotOptions(extras=("action",)))
    source = open_lerobot(tmp_path, LeRobotOptions(extras=("action",)))
    np.testing.assert_allclose(source[0].intrinsics, [[96, 0, 48], [0, 96, 32], [0, 0, 1]])
    assert (f"{key} shows 64 x 96 pixels, info.json says" in caplog.text) == warned
    if warned:  # labels in pixels of another size
        for options in (LeRobotOptions(), LeRobotOptions(intrinsics=(640.0, 640.0, 320.0, 240.0), extras=())):
            with pytest.raises(CorruptEpisodeError, match="64 x 96"):
                open_lerobot(tmp_path, options)[0]


SHUFFLED = [KEYPOINT_NAMES[row] for row in np.random.default_rng(1).permutation(42)]
FLAT = [f"{name}_{axis}" for name in SHUFFLED for axis in "xyz"]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (FLAT, SHUFFLED),
        ([name.replace("_", ".") for name in FLAT], SHUFFLED),
        ({"axes": FLAT}, SHUFFLED),
        ([FLAT], SHUFFLED),
        ([FLAT[start : start + 3] for start in range(0, 126, 3)], SHUFFLED),
        ({"keypoints": SHUFFLED, "axes": ["x", "y", "z"]}, SHUFFLED),
        ([f"{name}_{axis}" for axis in "xyz" for name in SHUFFLED], None),
        ([f"point_{number}" for number in range(126)], KEYPOINT_NAMES),
        (None, KEYPOINT_NAMES),
    ],
)
def test_names_of_keypoints_decide_their_order_where_they_are_ours(tmp_path, caplog, names, order):
    points = np.random.default_rng(0).normal((0, 0, 0.5), 0.03, size=(22, 42, 3)).astype(np.float32)
    values = (points.swapaxes(1, 2) if order is None else points).reshape(22, 126)
    write_dataset(tmp_path, LENGTHS, (TOP,), columns={"hands": values})
    change_info(tmp_path, lambda info: info["features"]["hands"].update(names=names))
    track = open_lerobot(tmp_path, LeRobotOptions(keypoints=(KeypointMapping("hands"),)))[0]
    for place, name in enumerate(order or SHUFFLED):
        row = KEYPOINT_NAMES.index(name)
        assert track.keypoints_valid[:, row].all()
        np.testing.assert_array_equal(track.keypoints_world[:, row], points[:6, place])
    assert ("no name of hands is ours" in caplog.text) == (bool(names) and order is KEYPOINT_NAMES)


@pytest.mark.parametrize("texts", [None, pa.array([[]] * 4, pa.list_(pa.string())), pa.array([None] * 4)], ids=str)
@pytest.mark.parametrize("name", ["__index_level_0__", "task"])
def test_tasks_that_stand_only_in_their_own_table_are_read(tmp_path, texts, name):
    write_dataset(tmp_path, LENGTHS, (TOP,))
    change_tables(tmp_path, "meta/episodes", lambda table: table.drop_columns(["tasks"]))
    if texts is not None:
        change_tables(tmp_path, "meta/episodes", lambda table: set_column(table, "tasks", texts))
    tasks = pa.table({"task_index": [1, 0], name: ["place the cup", "pick the cup"]})
    pa.parquet.write_table(tasks, tmp_path / "meta" / "tasks.parquet")
    assert [open_lerobot(tmp_path)[index].task for index in range(2)] == ["pick the cup", "place the cup"]
