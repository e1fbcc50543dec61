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

FRAMES, SIZE = 9, (48, 80)
Fault = Callable[[Path], object]
Arrays = dict[str, np.ndarray]
OPTIONS = ReaderOptions(
    droid=DroidOptions(camera="ext2"),
    lerobot=LeRobotOptions(keypoints=(KeypointMapping("hand"),), intrinsics=(96, 96, 48, 32)),
    robocasa=RoboCasaOptions(split="train"),
)


@dataclass(frozen=True)
class Reader:
    """write: a sound dataset. read: the arrays of every item by its name, with complaints under "refused"."""

    write: Fault
    read: Callable[[Path], dict[str, Arrays]]
    faults: dict[str, Fault]


def arrays_of(track: Track | None, *videos: np.ndarray) -> Arrays:
    if track is None:
        return {"pictures": np.stack(videos)}
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
    return {"goal": arrays_of(None, scene_view(folder_goal(folder), folder_candidates(folder)).goal)}


def write_picture(path: Path, picture: np.ndarray, orientation: int = 1) -> None:
    """A PNG with an alpha channel, or a JPEG whose EXIF says which way up it is."""
    codec, pixels = ("mjpeg", "yuvj444p") if path.suffix == ".jpg" else ("png", "rgba")
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *picture.shape[:2], pixels, Fraction(1, 30)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=pixels)
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    if path.suffix == ".jpg":
        tags = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
        content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + content[2:]
    path.write_bytes(content)


def refilm(path: Path, rotation: int = 0, offsets: tuple[int, ...] = (0,), lead: int = 0, mark: int = 0) -> None:
    """The same film, stored turned under a rotation flag, at uneven times (tenths), or after a hidden lead-in.

    mark: rows at the top that are made bright, to tell which way up it is.
    """
    with av.open(str(path)) as source:
        rate = source.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    for picture in frames:
        picture[:mark] = 250
    frames = [np.rot90(picture, rotation // 90) for picture in frames]
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=rate, options={"crf": "6", "g": "50", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv444p"
        stream.codec_context.time_base, stream.codec_context.thread_count = 1 / (10 * rate), 1
        stream.set_display_rotation(rotation)
        for number, picture in enumerate([255 - frames[0]] * lead + frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = 10 * number + offsets[number % len(offsets)], 1 / (10 * rate)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    if lead:  # what `ffmpeg -ss ... -c copy` leaves
        whole = path.rename(path.with_suffix(".whole"))
        with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as film:
            stream, packets = film.add_stream_from_template(source.streams.video[0]), [*source.demux(video=0)][:-1]
            shift = packets[lead].pts
            for packet in packets:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                film.mux(packet)
        whole.unlink()


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


def on_poses(change: Callable[[dict[str, np.ndarray]], Arrays]) -> Fault:
    """Change the poses of EgoDex by name."""

    def fault(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            poses = {name: pose[()] for name, pose in file["transforms"].items()}
            for name, pose in change(poses).items():
                file[f"transforms/{name}"][...] = pose

    return each("part1/fold/0.hdf5", fault)


def marked(write: Fault, place: str) -> Fault:
    """A dataset whose films show which way up they are."""
    return both(write, each(place, partial(refilm, mark=20)))


def scaled(values: np.ndarray) -> np.ndarray:
    """Millimetres: (..., 3) all, of poses (..., 4, 4) and (..., 6) the position."""
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


# as other tools add them: a null in an integer column, texts, and a feature that has no column
UNUSED = both(
    each("data/*/*.parquet", unused_columns),
    features(
        lambda described: described.update(
            nulls={"dtype": "int64", "shape": [1], "names": None},
            texts={"dtype": "string", "shape": [1], "names": None},
            language_events={"dtype": "language", "shape": [1], "names": None},
        )
    ),
)


def videos(place: str, turned: str = "") -> dict[str, Fault]:
    """The faults that films of every layout share."""
    return {
        "rotated": each(turned or place, partial(refilm, rotation=180)),
        "trimmed": each(place, partial(refilm, lead=5)),
        "uneven": each(place, partial(refilm, offsets=(0, 7, 4, 0))),
        "truncated video": each(place, cut),
    }


HDF5, STATE = "part1/fold/0.hdf5", "observation/robot_state"
DROID, MATRIX = "*/*/*/*/trajectory.h5", f"observation/camera_intrinsics/{droid_fixtures.EXT2}_left"
DROID_VIDEOS = "*/*/*/*/recordings/MP4/*.mp4"
DEMO, TABLES, EPISODES = "data/demo_0/obs", "data/*/*.parquet", "meta/episodes/*/*.parquet"
SITES, IMAGES = f"{DEMO}/robot0_right_gripper_keypoint_pose", f"{DEMO}/robot0_robotview_2_image"
POSITION = "observation.state.cartesian_position"
SWAPPED = [*range(21, 42), *range(21)]


def swap_names(poses: Arrays) -> Arrays:
    return {name: poses[KEYPOINT_NAMES[other]] for name, other in zip(KEYPOINT_NAMES, SWAPPED, strict=True)}


READERS: dict[str, Reader] = {
    "EgoDex": Reader(
        write_egodex,
        partial(read_source, kind="egodex"),
        videos("part1/fold/0.mp4")
        | {
            "scaled units": on_poses(lambda poses: {name: scaled(pose) for name, pose in poses.items()}),
            "swapped sides": on_poses(swap_names),
            "transposed sizes": edit(HDF5, "camera/intrinsic", exchanged),
            "missing columns": edit(HDF5, "transforms/rightIndexFingerTip", None),
            "extra columns": both(
                edit(HDF5, "transforms/tail", lambda _: np.tile(np.eye(4), (FRAMES, 1, 1))),
                edit(HDF5, "notes", lambda _: [b"one", b"two"]),
            ),
            "wrong pointers": each("part1/fold/0.mp4", lambda path: path.with_name("1.mp4").rename(path)),
            "truncated labels": each(HDF5, cut),
        },
    ),
    "DROID": Reader(
        marked(fuzz_layouts.write_droid, DROID_VIDEOS),
        partial(read_source, kind="droid"),
        videos(DROID_VIDEOS)
        | {
            "scaled units": edit(DROID, f"{STATE}/cartesian_position", scaled),
            "transposed sizes": edit(DROID, MATRIX, exchanged),
            "missing columns": edit(DROID, f"{STATE}/gripper_position", None),
            "extra columns": edit(DROID, f"{STATE}/notes", lambda _: [b"one"]),
            "wrong pointers": edit("*/*/*/One/*.json", "ext2_cam_serial", lambda _: "12345678"),
            "truncated labels": each(DROID, cut),
        },
    ),
    "DROID (LeRobot)": Reader(
        marked(fuzz_layouts.write_droid_lerobot, "videos/*/*/*.mp4"),
        partial(read_source, kind="droid-lerobot"),
        videos("videos/*/*/*.mp4")
        | {
            "scaled units": edit(TABLES, POSITION, lambda rows: scaled(rows).tolist()),
            "transposed sizes": features(exchange_shapes),
            "missing columns": edit(TABLES, POSITION, None),
            "extra columns": UNUSED,
            "wrong pointers": edit(EPISODES, "data/file_index", lambda numbers: [*numbers[:-1], 7]),
            "truncated labels": each(TABLES, cut),
        },
    ),
    "LeRobot v3": Reader(
        write_lerobot,
        partial(read_source, kind="lerobot"),
        videos("videos/*/*/*-000.mp4")
        | {
            "scaled units": edit(TABLES, "hand", lambda rows: (1000 * np.array(rows)).tolist()),
            "swapped sides": edit(TABLES, "hand", lambda rows: np.roll(rows, 63, axis=1).tolist()),
            "transposed sizes": features(exchange_shapes),
            "missing columns": edit(TABLES, "hand", None),
            "extra columns": UNUSED,
            "wrong pointers": edit(EPISODES, "data/file_index", lambda numbers: [*numbers[:-1], 0]),
            "truncated labels": each("data/*/*-000.parquet", cut),
        },
    ),
    "RoboCasa": Reader(
        fuzz_layouts.write_robocasa,
        partial(read_source, kind="robocasa"),
        {
            "scaled units": edit("a.hdf5", SITES, scaled),
            "transposed sizes": edit("a.hdf5", IMAGES, lambda images: images.swapaxes(1, 2)),
            "missing columns": edit("a.hdf5", f"{DEMO}/robot0_base_pos", None),
            "extra columns": edit("a.hdf5", f"{DEMO}/notes", lambda _: [b"one"]),
            "wrong pointers": edit("a.hdf5", "mask/train", lambda _: [b"demo_0", b"demo_9"]),
            "truncated labels": each("a.hdf5", cut),
        },
    ),
    "triplets": Reader(
        write_triplets,
        read_triplets,
        videos("videos*/a.mp4", "videos/a.mp4")
        | {
            "scaled units": edit("hand_motions/a.npz", "keypoints_world", scaled),
            "swapped sides": edit("hand_motions/a.npz", "keypoints_world", lambda points: points[:, SWAPPED]),
            "transposed sizes": edit("hand_motions/a.npz", "intrinsics", exchanged),
            "missing columns": edit("hand_motions/a.npz", "keypoints_valid", None),
            "extra columns": edit("hand_motions/a.npz", "betas", lambda _: np.zeros(10)),
            "wrong pointers": each("dataset.txt", lambda path: path.write_text("videos/a.mp4\nvideos/c.mp4\n")),
            "truncated labels": each("hand_motions/a.npz", cut),
        },
    ),
    "hand files": Reader(
        write_hand_files,
        read_hand_files,
        videos("film.mp4")
        | {
            "uneven": each("film.mp4", partial(refilm, offsets=(0, 4, -4, 2))),  # frames are picked by their time
            "scaled units": edit("film.npz", "keypoints", scaled),
            "swapped sides": edit("film.npz", "keypoints", lambda points: points[:, ::-1]),
            "transposed sizes": edit("film.npz", "image_size", lambda size: size[::-1]),
            "missing columns": edit("film.npz", "valid", None),
            "extra columns": edit("film.npz", "pred_cam_t", lambda _: np.zeros((FRAMES, 3))),
            "wrong pointers": edit("film.npz", "keypoints", lambda points: points[:-1]),
            "truncated labels": each("film.npz", cut),
        },
    ),
    "goal pictures": Reader(
        write_goal,
        read_goal,
        {
            "rotated": each("goal.jpg", lambda path: write_picture(path, texture(3)[0, ::-1, ::-1], orientation=3)),
            "transposed sizes": each("goal.jpg", lambda path: write_picture(path, texture(3)[0].swapaxes(0, 1))),
            "missing columns": each("goal.jpg", Path.unlink),
            "extra columns": each(
                "goal.jpg", lambda path: (path.unlink(), write_picture(path.with_suffix(".png"), texture(3)[0]))
            ),
            "truncated video": each("goal.jpg", cut),
        },
    ),
}
