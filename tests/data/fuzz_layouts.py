"""Every layout as a tiny sound dataset, what is in it, and whether what is read after damage may be believed."""

# ruff: noqa: PT017, PT018 (checks of a case, whose outcome is their message)
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import droid_fixtures
import droid_lerobot_fixtures
import egodex_fixtures
import lerobot_fixtures
import numpy as np
import prepare_fixtures
import robocasa_fixtures

from dexworld.data.datasets import open_dataset
from dexworld.data.loader import FrameLoader
from dexworld.data.prepare.job import prepare
from dexworld.data.readers import ReaderOptions, open_source
from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.readers.lerobot import KeypointMapping, LeRobotOptions, PoseMapping
from dexworld.data.sampling import PaperSampling
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.track import Track

REFUSALS = (ValueError, FileNotFoundError)  # what opening may raise, by the documentation of every reader
FAR = 1e5  # metres, and pixels of a focal length
ALWAYS_FINITE = ("keypoint_confidence", "gripper_opening", "gripper_pose_world", "body_world", "object_motion")
SAMPLING = PaperSampling(frames=3, history=2, seconds=0.5, segments=1)
MAPPING = LeRobotOptions(
    keypoints=(KeypointMapping("hand"),), camera_pose=PoseMapping("camera"), joint_positions="joints"
)
OPTIONS = ReaderOptions(droid=DroidOptions(camera="ext2"), lerobot=MAPPING)


def write_egodex(folder: Path) -> None:
    for number, length in (("0", 6), ("1", 5)):
        clip = egodex_fixtures.make_clip(int(number), length, (54, 96))
        egodex_fixtures.write_clip(folder / "part1" / "fold", number, clip, confidences=number == "0")


def write_droid(folder: Path) -> None:
    for time, uuid, rows in (("One", "AUTOLab+1+2023", 6), ("Two", "AUTOLab+2+2023", 5)):
        told = droid_fixtures.write_episode(folder, rows=rows, time=time, uuid=uuid, intrinsics=True)
        for serial in (droid_fixtures.WRIST, droid_fixtures.EXT1):  # only the chosen camera's video is read
            (told.folder / "recordings" / "MP4" / f"{serial}.mp4").unlink()


def write_robocasa(folder: Path) -> None:
    robocasa_fixtures.write_file(folder / "a.hdf5", (4, 3))
    robocasa_fixtures.write_file(folder / "b.hdf5", (3,))


def write_droid_lerobot(folder: Path) -> None:
    droid_lerobot_fixtures.write_dataset(folder, (4, 5))
    for camera in ("exterior_1_left", "wrist_left"):
        shutil.rmtree(folder / f"videos/observation.images.{camera}")


def write_lerobot(folder: Path) -> None:
    generator = np.random.default_rng(0)
    columns = {
        "hand": generator.normal((0, 0, 0.5), 0.03, (15, 42, 3)).reshape(15, 126).astype(np.float32),
        "camera": np.tile(np.eye(4, dtype=np.float32), (15, 1, 1)),
        "joints": generator.normal(size=(15, 23)).astype(np.float32),
    }
    shape = {"size": (64, 96), "episodes_per_file": 2, "codec": "av1"}
    lerobot_fixtures.write_dataset(folder, (5, 4, 6), ("observation.images.top",), columns=columns, **shape)


def write_store(folder: Path, codec: str) -> None:
    source = folder.parent / f"{folder.name}-source"
    prepare_fixtures.write_source(source, episodes=3, length=4)
    settings = PrepareSettings(height=32, codec=codec, pack_episodes=2)
    prepare(prepare_fixtures.config_of(source, folder, settings=settings))
    shutil.rmtree(source)


# In each a file is damaged. Of our own stores every damage must be found.
OWN: dict[str, Callable[[Path], object]] = {
    "episodes": partial(prepare_fixtures.write_source, episodes=3, length=4),
    "prepared": partial(write_store, codec="h264"),
    "prepared-jpeg": partial(write_store, codec="jpeg"),
}
LAYOUTS = OWN | {
    "egodex": write_egodex,
    "droid": write_droid,
    "droid-lerobot": write_droid_lerobot,
    "lerobot": write_lerobot,
    "robocasa": write_robocasa,
}


def opened(name: str, folder: Path, verify: bool = False) -> Any:
    return open_dataset(folder, verify) if name in OWN else open_source(folder, name, OPTIONS)


class Truth:
    """What the sound dataset gives. affected: ids that depend on each file; all of them where it is an index."""

    def __init__(self, source: Any) -> None:
        assert not source.quarantined, source.quarantined
        self.folder = source.folder
        self.episodes: dict[str, Track] = {name: source[index] for index, name in enumerate(source.ids)}
        self.frames = {name: each.frames.read(list(range(len(each)))) for name, each in self.episodes.items()}
        self.facts = facts_of(source)
        self.affected: dict[Path, set[str]] = {}
        for index, name in enumerate(source.ids):
            for path in source.files(index):
                self.affected.setdefault(path, set()).add(name)
        files = sorted(path for path in source.folder.rglob("*") if path.is_file())
        self.affected = {path: self.affected.get(path, set(self.episodes)) for path in files}

    def is_named(self, name: str, complaints: str) -> bool:
        """Whether the complaints name an episode, or a file that it is read from."""
        files = [path.relative_to(self.folder) for path, ids in self.affected.items() if name in ids]
        places = [str(place) for path in files for place in (path, path.with_suffix(""))]
        return any(place in complaints for place in (name.removeprefix("episode_"), *places))

    def is_same(self, name: str, episode: Track) -> bool:
        true = self.episodes.get(name)
        fields = ("fps", "task", "seed", "world_from_camera", "intrinsics")
        return (
            true is not None
            and all(equal(getattr(episode, name), getattr(true, name)) for name in fields)
            and set(episode.columns) == set(true.columns)
            and all(equal(value, true.columns[name]) for name, value in episode.columns.items())
        )


def facts_of(source: Any) -> list:
    return [getattr(source, name, None) for name in ("settings", "counts", "fingerprint", "mark", "lengths")]


def equal(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    left, right = np.asarray(left), np.asarray(right)
    return left.shape == right.shape and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


@dataclass
class Finding:
    """What came of one damaged dataset. complaints: every message, each of which must name where the damage is."""

    read: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


def look(source: Any, truth: Truth, affected: set[str]) -> Finding:
    """Read labels and frames of every episode, and hold them against the truth."""
    finding = Finding(complaints=[f"{name}: {reason}" for name, reason in source.quarantined])
    named = "\n".join(finding.complaints)
    assert len(set(source.ids)) == len(source.ids), f"ids come twice: {source.ids}"
    for index, name in enumerate(source.ids):
        try:
            episode = source[index]
            check_episode(episode)
            wanted = sorted({0, len(episode) // 2, len(episode) - 1})
            frames = episode.frames.read(wanted)
            source.files(index)
        except (CorruptEpisodeError, VideoError) as error:
            assert name in affected, f"the sound episode {name} can't be read: {error}"
            finding.complaints.append(f"{name}: {error}")
            continue
        assert (frames.shape, frames.dtype) == ((len(wanted), *episode.frames.size, 3), np.uint8)
        finding.read.add(name)
        if not truth.is_same(name, episode) or not np.array_equal(frames, truth.frames[name][wanted]):
            finding.changed.add(name)
    lost = [name for name in truth.episodes if name not in source.ids and not truth.is_named(name, named)]
    assert not lost, f"{lost} are left out in silence; quarantined: {source.quarantined}"
    assert not set(truth.episodes) - affected - finding.read, "a sound episode is left out"
    assert not finding.changed - affected, f"{finding.changed - affected} are sound, but come out changed"
    return finding


def check_episode(episode: Track) -> None:
    """What every episode that is read must be, whatever was done to its files."""
    length = len(episode)
    assert 0 < length < 1000 and 0 < episode.fps <= 1000, f"{length} frames at {episode.fps} fps"
    check_numbers(episode.keypoints_world[episode.keypoints_valid], episode.world_from_camera, episode.intrinsics)
    for name in ("joint_positions", "joint_targets"):
        joints = episode.get(name)
        assert joints is None or (np.abs(joints) < FAR).all(), f"{name} beyond sense"
    for name, values in episode.columns.items():
        assert len(values) == length, f"column {name} of {len(values)} rows"
        assert name not in ALWAYS_FINITE or np.isfinite(values).all(), f"column {name} not finite"


def check_numbers(keypoints: np.ndarray, cameras: np.ndarray, intrinsics: np.ndarray) -> None:
    """Nothing that training could choke on; NaN fails every comparison."""
    assert (np.abs(keypoints) <= FAR).all(), "keypoints beyond sense"
    assert (np.abs(cameras) <= FAR).all(), "camera poses beyond sense"
    assert (np.abs(np.linalg.det(cameras[..., :3, :3].astype(np.float64)) - 1) < 0.02).all(), "cameras no rotations"
    focal = intrinsics[..., [0, 1], [0, 1]]
    assert np.isfinite(intrinsics).all() and ((focal >= 1) & (focal <= FAR)).all(), f"focal lengths {focal}"


def check_batch(dataset: Any, truth: Truth, finding: Finding, affected: set[str], seed: int) -> None:
    """A batch that touches every episode: nothing bad in it, and what could not be read is named."""
    try:
        loader = FrameLoader([dataset], SAMPLING, 2 * max(1, len(dataset)), seed)
        batch = loader.batch(0)
    except CorruptEpisodeError as error:
        unlucky = "clips in a row" in str(error) and 2 * len(affected) >= len(truth.episodes)
        assert unlucky or not finding.read - affected, f"sound episodes are there, but no batch: {error}"
        return
    check_window(batch)
    starts = loader.sampler.clips.starts
    for row, clip in enumerate(batch.clips.tolist()):
        if dataset.ids[clip] in finding.read:
            rows = batch.rows[row].numpy() - starts[clip]
            assert np.array_equal(batch.frames[row].numpy(), truth.frames[dataset.ids[clip]][rows])
    for problem in batch.problems:
        assert any(name in problem.where for name in affected), f"{problem} blames a sound episode"


def check_window(batch: Any) -> None:
    track = batch.track
    check_numbers(track.keypoints_world.numpy(), track.world_from_camera.numpy(), track.intrinsics.numpy())


def check_prepared(name: str, truth: Truth, affected: set[str], store: Path) -> None:
    """Prepare the damaged source: every id is in the store or in its list of what was left out."""
    try:
        report = prepare(prepare_fixtures.config_of(truth.folder, store, kind=name, reader=OPTIONS))
    except REFUSALS:
        assert affected == set(truth.episodes), "one damaged episode ends a preparation"
        return
    assert report.assembled and report.ok, report.text()
    dataset = open_dataset(store)
    named = "\n".join(f"{name} {reason}" for name, reason in dataset.quarantined)
    for name in truth.episodes:
        assert name in dataset.ids or truth.is_named(name, named), f"{name} is lost in preparing"
    if len(dataset):
        check_window(FrameLoader([dataset], SAMPLING, 2 * len(dataset), 0).batch(0))
