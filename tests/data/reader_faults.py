"""Small sound datasets of every layout, and the same faults in each, as other people's tools leave them."""

import json
import struct
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import droid_fixtures
import egodex_fixtures
import fuzz_layouts
import h5py
import lerobot_fixtures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from video_fixtures import refilm

from dexworld.data.readers import ReaderOptions, open_source
from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.readers.lerobot import KeypointMapping, LeRobotOptions
from dexworld.data.readers.robocasa import RoboCasaOptions
from dexworld.data.video import write_video
from dexworld.hands import KEYPOINT_NAMES
from dexworld.track import NoFrames, Track
from dexworld.video.clips.clip import ClipShape, TripletClip
from dexworld.video.clips.hand_video import render_track
from dexworld.video.clips.triplet_files import list_line, write_triplet
from dexworld.video.clips.triplets import open_triplets
from dexworld.video.judge.select_actions import folder_candidates, folder_goal, scene_view
from dexworld.video.real.prepare_clips import VideosConfig, prepare_videos
from dexworld.video.real.source_video import ClipRules
from hand_fixtures import curled_hands, hand_track, pinhole_of

FRAMES, SIZE, RIGHT = 9, (48, 80), "right"
Fault = Callable[[Path], object]
Arrays = dict[str, np.ndarray]
OPTIONS = ReaderOptions(
    droid=DroidOptions(camera="ext2"),
    lerobot=LeRobotOptions(keypoints=(KeypointMapping("hand"),), intrinsics=(96, 96, 48, 32)),
    robocasa=RoboCasaOptions(split="train"),
)


@dataclass(frozen=True)
class Reader:
    """write: a sound dataset. read: the arrays of every item by its name, with complaints under "refused".

    faults: by name, each with what must come of it: "right", or "refused" or "warned" and the words of the cause.
    """

    write: Fault
    read: Callable[[Path], dict[str, Arrays]]
    faults: dict[str, tuple[Fault, str]]


def arrays_of(track: Track, *videos: np.ndarray) -> Arrays:
    given = [] if isinstance(track.frames, NoFrames) else [track.frames.read([*range(len(track))])]
    hands = {name: np.nan_to_num(track[name]) for name in ("keypoints_world", "keypoints_valid")}
    numbers = {name: np.asarray(getattr(track, name)) for name in ("world_from_camera", "intrinsics", "fps")}
    return {"pictures": np.stack([*given, *videos])} | hands | numbers


def read_source(folder: Path, kind: str) -> dict[str, Arrays]:
    source, found = open_source(folder, kind, OPTIONS), {}
    complaints = [f"{name}: {reason}" for name, reason in source.quarantined]
    for index, name in enumerate(source.ids):
        try:
            found[name] = arrays_of(source[index])
        except ValueError as error:
            complaints.append(str(error))
    return found | ({"refused": "; ".join(complaints)} if complaints else {})


def texture(seed: int) -> np.ndarray:
    """Smooth pictures (T, H, W, 3) uint8 of which no two frames, and no two ways up, are alike."""
    y, x, time = np.mgrid[: SIZE[0], : SIZE[1]][0], np.mgrid[: SIZE[0], : SIZE[1]][1], np.arange(FRAMES)[:, None, None]
    waves = [np.sin(x / 8 + seed + time / 2 + colour) * np.cos(y / 8 + seed) + y / SIZE[0] for colour in range(3)]
    return (80 + 50 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_egodex(folder: Path) -> None:
    for number, frames in (("0", FRAMES), ("1", FRAMES + 1)):
        clip = egodex_fixtures.make_clip(int(number), frames, (54, 96))
        hands = hand_track(curled_hands(frames), 54, 96, clip.poses["camera"].astype(np.float64)).keypoints_world
        for row, name in enumerate(KEYPOINT_NAMES):
            clip.poses[name][:, :3, 3] = hands[:, row]
        egodex_fixtures.write_clip(folder / "part1" / "fold", number, clip)


def write_lerobot(folder: Path) -> None:
    columns = {"hand": curled_hands(15).reshape(15, 126).astype(np.float32)}
    shape = {"size": (64, 96), "episodes_per_file": 2}
    lerobot_fixtures.write_dataset(folder, (5, 4, 6), ("observation.images.top",), columns=columns, **shape)


def write_triplets(folder: Path) -> None:
    track = hand_track(curled_hands(FRAMES), *SIZE)
    for seed, name in enumerate("ab"):
        film = texture(seed)
        write_triplet(folder, TripletClip(name, film, film // 2, render_track(track, *SIZE), "push", track=track))
    (folder / "dataset.txt").write_text("".join(f"{list_line(name)}\n" for name in "ab"))


def read_triplets(folder: Path) -> dict[str, Arrays]:
    clips = [*map(open_triplets(folder, folder / "dataset.txt").__getitem__, range(2))]
    return {clip.name: arrays_of(clip.track, clip.interaction, clip.static, clip.hands) for clip in clips}


def write_hand_files(folder: Path) -> None:
    write_video(folder / "film.mp4", texture(0), 8.0, crf=4)
    arrays = {"keypoints": curled_hands(FRAMES), "valid": np.ones((FRAMES, 2), dtype=bool)}
    np.savez(folder / "film.npz", intrinsics=pinhole_of(*SIZE), image_size=np.array(SIZE), **arrays)


def read_hand_files(folder: Path) -> dict[str, Arrays]:
    rules = ClipRules(ClipShape(FRAMES, *SIZE))
    (clip,), _ = prepare_videos(VideosConfig(folder, folder, folder.parent / "out", prompt="I push.", rules=rules))
    return {"film": arrays_of(clip.track, clip.interaction, clip.hands)}


def write_goal(folder: Path) -> None:
    (folder / "hands").mkdir()
    for path, film in (("static", texture(1)), ("hands/a", texture(1) // 9), ("hands/b", texture(1) // 9)):
        write_video(folder / f"{path}.mp4", film, 8.0)
    write_picture(folder / "goal.jpg", texture(3)[0])


def read_goal(folder: Path) -> dict[str, Arrays]:
    return {"goal": {"pictures": scene_view(folder_goal(folder), folder_candidates(folder)).goal}}


def write_picture(path: Path, picture: np.ndarray, orientation: int = 1) -> None:
    """A JPEG whose EXIF says which way up it is."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *picture.shape[:2], "yuvj444p", Fraction(1, 30)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuvj444p")
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    tags = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + content[2:])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def each(place: str, change: Fault) -> Fault:
    """A fault in every file of a dataset that a pattern finds."""
    return lambda folder: [change(path) for path in sorted(folder.glob(place))]


@contextmanager
def edited(path: Path):
    """What a file of labels holds, as a mapping to change."""
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "r+") as file:
            yield file
    elif path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
        yield arrays
        np.savez(path, **arrays)
    elif path.suffix == ".json":
        yield (content := json.loads(path.read_text()))
        path.write_text(json.dumps(content))
    else:
        table = pq.read_table(path)
        kinds, columns = {field.name: field.type for field in table.schema}, table.to_pydict()
        yield columns
        pq.write_table(pa.table({name: pa.array(rows, kinds.get(name)) for name, rows in columns.items()}), path)


def edit(place: str, key: str, change: Callable | None) -> Fault:
    """Change, add or (None) drop the value under `key` of the files that a pattern finds."""

    def fault(path: Path) -> None:
        with edited(path) as content:
            value = content.pop(key, None)
            if change is not None:
                content[key] = change(value[()] if isinstance(value, h5py.Dataset) else value)

    return each(place, fault)


def both(*faults: Fault) -> Fault:
    return lambda folder: [fault(folder) for fault in faults]


def marked(write: Fault, place: str) -> Fault:
    """A dataset whose films show which way up they are."""
    return both(write, each(place, partial(refilm, mark=20)))


def scaled(values: np.ndarray) -> np.ndarray:
    """Positions in millimetres: of points (..., 3), vectors (..., 6) and poses (..., 4, 4)."""
    values, spatial = np.array(values), np.s_[..., :3, 3] if np.shape(values)[-2:] == (4, 4) else np.s_[..., :3]
    values[spatial] *= 1000
    return values


def exchanged(matrix: np.ndarray) -> np.ndarray:
    """Intrinsics of pictures whose height and width are exchanged."""
    matrix = matrix.copy()
    matrix[..., :2, 2] = matrix[..., 1::-1, 2]
    return matrix


def features(change: Callable[[dict], object]) -> Fault:
    """Change the features that meta/info.json of a LeRobot dataset describes."""
    return edit("meta/info.json", "features", lambda described: change(described) or described)


def exchange_shapes(described: dict) -> None:
    for feature in described.values():
        feature["shape"] = [*feature["shape"][1::-1], 3] if feature["dtype"] == "video" else feature["shape"]


def unused_columns(path: Path) -> None:
    with edited(path) as columns:
        rows = len(columns["index"])
        columns["nulls"], columns["texts"] = [None, *[1] * (rows - 1)], ["text", *[None] * (rows - 1)]


def unused_features(described: dict) -> None:
    described.update({name: {"dtype": "string", "shape": [1]} for name in ("nulls", "texts", "language_events")})


# as other tools add them: a null in an integer column, texts, and a feature that has no column
UNUSED = both(each("data/*/*.parquet", unused_columns), features(unused_features))


def videos(
    place: str, rotated: str = RIGHT, uneven: str = RIGHT, turned: str = "", offsets=(0, 7, 4, 0)
) -> dict[str, tuple[Fault, str]]:
    """The faults that films of every layout share."""
    return {
        "rotated": (each(turned or place, partial(refilm, rotation=180)), rotated),
        "trimmed": (each(place, partial(refilm, lead=5)), RIGHT),
        "uneven": (each(place, partial(refilm, offsets=offsets)), uneven),
        "truncated video": (each(place, cut), "refused: mp4: (holds no video stream|can't be opened)"),
    }


HDF5, STATE = "part1/fold/0.hdf5", "observation/robot_state"
DROID, MATRIX = "*/*/*/*/trajectory.h5", f"observation/camera_intrinsics/{droid_fixtures.EXT2}_left"
DROID_VIDEOS = "*/*/*/*/recordings/MP4/*.mp4"
DEMO, TABLES, EPISODES = "data/demo_0/obs", "data/*/*.parquet", "meta/episodes/*/*.parquet"
SITES, IMAGES = f"{DEMO}/robot0_right_gripper_keypoint_pose", f"{DEMO}/robot0_robotview_2_image"
MOTION, GOAL, FILE = "hand_motions/a.npz", "goal.jpg", "data/file_index"
POSITION = "observation.state.cartesian_position"
SWAPPED, POSES = [*range(21, 42), *range(21)], ("camera", *egodex_fixtures.JOINTS)


def swap_names(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for left, right in zip(KEYPOINT_NAMES[:21], KEYPOINT_NAMES[21:], strict=True):
            for old, new in ((left, "aside"), (right, left), ("aside", right)):
                file.move(f"transforms/{old}", f"transforms/{new}")


TURNED, UNEVEN = "refused: a rotation flag turns its pictures", "refused: frame times are uneven"
EXCHANGED, SWAPPED_SIDES = "refused: height and width are exchanged", "refused: left and right are exchanged"
BEYOND, NO_METRES = "refused: cartesian_position holds values beyond", "refused: in millimetres"
READERS: dict[str, Reader] = {
    "EgoDex": Reader(
        write_egodex,
        partial(read_source, kind="egodex"),
        videos("part1/fold/0.mp4", TURNED)
        | {
            "scaled units": (
                both(*(edit(HDF5, f"transforms/{name}", scaled) for name in POSES)),
                "refused: aren't in metres",
            ),
            "swapped sides": (each(HDF5, swap_names), SWAPPED_SIDES),
            "transposed sizes": (edit(HDF5, "camera/intrinsic", exchanged), EXCHANGED),
            "missing columns": (edit(HDF5, "transforms/leftThumbTip", None), "refused: leftThumbTip is missing"),
            "extra columns": (edit(HDF5, "transforms/tail", lambda _: np.tile(np.eye(4), (FRAMES, 1, 1))), RIGHT),
            "wrong pointers": (
                each("part1/fold/1.mp4", lambda path: path.rename(path.with_name("0.mp4"))),
                "refused: 10 frames",
            ),
            "truncated labels": (each(HDF5, cut), "refused: 0.hdf5: can't be read"),
        },
    ),
    "DROID": Reader(
        marked(fuzz_layouts.write_droid, DROID_VIDEOS),
        partial(read_source, kind="droid"),
        videos(DROID_VIDEOS, TURNED)
        | {
            "scaled units": (edit(DROID, f"{STATE}/cartesian_position", scaled), BEYOND),
            "transposed sizes": (edit(DROID, MATRIX, exchanged), EXCHANGED),
            "missing columns": (edit(DROID, f"{STATE}/gripper_position", None), "refused: gripper_position is missing"),
            "extra columns": (edit(DROID, f"{STATE}/notes", lambda _: [b"one"]), RIGHT),
            "wrong pointers": (edit("*/*/*/One/*.json", "ext2_cam_serial", lambda _: "7"), "refused: 7.mp4: .*missing"),
            "truncated labels": (each(DROID, cut), "refused: trajectory.h5: can't be read"),
        },
    ),
    "DROID (LeRobot)": Reader(
        marked(fuzz_layouts.write_droid_lerobot, "videos/*/*/*.mp4"),
        partial(read_source, kind="droid-lerobot"),
        videos("videos/*/*/*.mp4", TURNED, UNEVEN)
        | {
            "scaled units": (edit(TABLES, POSITION, lambda rows: scaled(rows).tolist()), BEYOND),
            "transposed sizes": (features(exchange_shapes), RIGHT),
            "missing columns": (edit(TABLES, POSITION, None), "refused: no column .*cartesian_position"),
            "extra columns": (UNUSED, RIGHT),
            "wrong pointers": (edit(EPISODES, FILE, lambda numbers: [*numbers[:-1], 7]), RIGHT),
            "truncated labels": (each(TABLES, cut), "refused: file-000.parquet: "),
        },
    ),
    "LeRobot v3": Reader(
        write_lerobot,
        partial(read_source, kind="lerobot"),
        videos("videos/*/*/*-000.mp4", TURNED, UNEVEN)
        | {
            "scaled units": (edit(TABLES, "hand", lambda rows: (1000 * np.array(rows)).tolist()), NO_METRES),
            "swapped sides": (edit(TABLES, "hand", lambda rows: np.roll(rows, 63, axis=1).tolist()), SWAPPED_SIDES),
            "transposed sizes": (features(exchange_shapes), RIGHT),
            "missing columns": (edit(TABLES, "hand", None), "refused: no column hand"),
            "extra columns": (UNUSED, RIGHT),
            "wrong pointers": (edit(EPISODES, FILE, lambda numbers: [*numbers[:-1], 0]), RIGHT),
            "truncated labels": (each("data/*/*-000.parquet", cut), "refused: file-000.parquet: "),
        },
    ),
    "RoboCasa": Reader(
        fuzz_layouts.write_robocasa,
        partial(read_source, kind="robocasa"),
        {
            "scaled units": (edit("a.hdf5", SITES, scaled), "refused: keypoint_pose holds values beyond"),
            "transposed sizes": (edit("a.hdf5", IMAGES, lambda images: images.swapaxes(1, 2)), EXCHANGED),
            "missing columns": (edit("a.hdf5", f"{DEMO}/robot0_base_pos", None), "refused: base_pos is missing"),
            "extra columns": (edit("a.hdf5", f"{DEMO}/notes", lambda _: [b"one"]), RIGHT),
            "wrong pointers": (edit("a.hdf5", "mask/train", lambda _: [b"demo_0", b"demo_9"]), "refused: demo_9"),
            "truncated labels": (each("a.hdf5", cut), "refused: a.hdf5: can't be read"),
        },
    ),
    "triplets": Reader(
        write_triplets,
        read_triplets,
        videos("videos*/a.mp4", uneven=UNEVEN, turned="videos/a.mp4")
        | {
            "scaled units": (edit(MOTION, "keypoints_world", scaled), NO_METRES),
            "swapped sides": (edit(MOTION, "keypoints_world", lambda points: points[:, SWAPPED]), SWAPPED_SIDES),
            "transposed sizes": (edit(MOTION, "intrinsics", exchanged), EXCHANGED),
            "missing columns": (edit(MOTION, "keypoints_valid", None), "refused: holds no keypoints_valid"),
            "extra columns": (edit(MOTION, "betas", lambda _: np.zeros(10)), RIGHT),
            "wrong pointers": (each("videos/b.mp4", Path.unlink), "refused: missing: .*b.mp4"),
            "truncated labels": (each(MOTION, cut), "refused: a.npz: can't be read"),
        },
    ),
    "hand files": Reader(
        write_hand_files,
        read_hand_files,
        videos("film.mp4", offsets=(0, 4, -4, 2))  # smaller: frames are picked by their time
        | {
            "scaled units": (edit("film.npz", "keypoints", scaled), NO_METRES),
            "swapped sides": (edit("film.npz", "keypoints", lambda points: points[:, ::-1]), SWAPPED_SIDES),
            "transposed sizes": (edit("film.npz", "image_size", np.flip), "refused: give the height first"),
            "missing columns": (edit("film.npz", "valid", None), "refused: holds no valid flags"),
            "extra columns": (
                edit("film.npz", "pred_cam_t", lambda _: np.zeros(3)),
                "refused: unknown keys pred_cam_t",
            ),
            "wrong pointers": (edit("film.npz", "keypoints", lambda points: points[:-1]), "refused: keypoints must be"),
            "truncated labels": (each("film.npz", cut), "refused: film.npz: can't be read"),
        },
    ),
    "goal pictures": Reader(
        write_goal,
        read_goal,
        {
            "rotated": (each(GOAL, partial(write_picture, picture=texture(3)[0, ::-1, ::-1], orientation=3)), RIGHT),
            "transposed sizes": (
                each(GOAL, partial(write_picture, picture=texture(3)[0].swapaxes(0, 1))),
                "refused: must be of one size",
            ),
            "missing columns": (each(GOAL, Path.unlink), "refused: neither a goal picture .* nor goal.txt"),
            "truncated video": (each(GOAL, cut), "refused: goal.jpg: .*ends early"),
        },
    ),
}
