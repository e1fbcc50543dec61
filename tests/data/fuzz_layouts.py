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
from dexworld.data.readers import ReaderOptions
from dexworld.data.readers.droid import open_droid
from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.readers.droid_lerobot import open_droid_lerobot
from dexworld.data.readers.egodex import open_egodex
from dexworld.data.readers.lerobot import KeypointMapping, LeRobotOptions, PoseMapping, open_lerobot
from dexworld.data.readers.robocasa import open_robocasa
from dexworld.data.sampling import PaperSampling
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store.prepared_dataset import open_prepared
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.track import Track

REFUSALS = (ValueError, FileNotFoundError)  # what opening may raise, by the documentation of every reader
FAR = 1e5  # metres
FOCAL = (1.0, 1e5)  # pixels
MAY_BE_NAN = {"hand_poses_world", "hand_metacarpals_world"}
SAMPLING = PaperSampling(frames=3, history=2, seconds=0.5, segments=1)


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
    lengths = (5, 4, 6)
    generator = np.random.default_rng(0)
    columns = {
        "hand": generator.normal(size=(sum(lengths), 126)).astype(np.float32),
        "camera": np.tile(np.eye(4, dtype=np.float32), (sum(lengths), 1, 1)),
        "joints": generator.normal(size=(sum(lengths), 23)).astype(np.float32),
    }
    shape = {"size": (64, 96), "episodes_per_file": 2, "codec": "av1"}
    lerobot_fixtures.write_dataset(folder, lengths, ("observation.images.top",), columns=columns, **shape)


HAND, CAMERA = KeypointMapping("hand"), PoseMapping("camera")
MAPPING = LeRobotOptions(keypoints=(HAND,), camera_pose=CAMERA, joint_positions="joints")


def write_store(folder: Path, codec: str) -> None:
    source = folder.parent / f"{folder.name}-source"
    prepare_fixtures.write_source(source, episodes=3, length=4)
    settings = PrepareSettings(height=32, codec=codec, pack_episodes=2)
    prepare(prepare_fixtures.config_of(source, folder, settings=settings))
    shutil.rmtree(source)


@dataclass(frozen=True)
class Layout:
    """A dataset to damage. own: our own store, where every damage must be found. verify: opens and reads everything."""

    write: Callable[[Path], None]
    open: Callable[[Path], Any]
    own: bool = False
    verify: Callable[[Path], Any] | None = None


EXT2 = DroidOptions(camera="ext2")
STORE, VERIFIED = open_prepared, partial(open_prepared, verify=True)
LAYOUTS = {
    "egodex": Layout(write_egodex, open_egodex),
    "droid": Layout(write_droid, partial(open_droid, options=EXT2)),
    "droid-lerobot": Layout(write_droid_lerobot, partial(open_droid_lerobot, options=EXT2)),
    "lerobot": Layout(write_lerobot, partial(open_lerobot, options=MAPPING)),
    "robocasa": Layout(write_robocasa, open_robocasa),
    "episodes": Layout(
        partial(prepare_fixtures.write_source, episodes=3, length=4),
        open_dataset,
        True,
        partial(open_dataset, verify=True),
    ),
    "prepared": Layout(partial(write_store, codec="h264"), STORE, True, VERIFIED),
    "prepared-jpeg": Layout(partial(write_store, codec="jpeg"), STORE, True, VERIFIED),
}


@dataclass
class Truth:
    """What the sound dataset gives. affected: ids that depend on each file; all of them where it is an index."""

    episodes: dict[str, Track]
    frames: dict[str, np.ndarray]
    affected: dict[Path, set[str]]
    facts: Any


def truth_of(layout: Layout, folder: Path) -> Truth:
    source = layout.open(folder)
    assert not source.quarantined, source.quarantined
    episodes = {name: source[index] for index, name in enumerate(source.ids)}
    frames = {name: episode.frames.read(list(range(len(episode)))) for name, episode in episodes.items()}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    affected: dict[Path, set[str]] = {path: set() for path in files}
    for index, name in enumerate(source.ids):
        for path in source.files(index):
            affected[path].add(name)
    return Truth(episodes, frames, {path: ids or set(episodes) for path, ids in affected.items()}, facts_of(source))


def facts_of(source: Any) -> Any:
    return [getattr(source, name, None) for name in ("settings", "counts", "fingerprint", "mark", "lengths")]


@dataclass
class Finding:
    """What came of one damaged dataset. complaints: every message, each of which must name where the damage is."""

    read: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    facts: Any = None


def look(source: Any, truth: Truth, folder: Path, affected: set[str], annotations: bool = False) -> Finding:
    """Read labels and frames of every episode, and hold them against the truth. annotations: read all else, too."""
    finding = Finding(facts=facts_of(source))
    named = ""
    for name, reason in source.quarantined:
        finding.complaints.append(f"{name}: {reason}")
        named += f"{name} {reason}\n"
    assert len(set(source.ids)) == len(source.ids), f"ids come twice: {source.ids}"
    for index, name in enumerate(source.ids):
        try:
            episode = source[index]
            check_episode(episode)
            wanted = sorted({0, len(episode) // 2, len(episode) - 1})
            frames = episode.frames.read(wanted)
            source.files(index)
            if annotations and hasattr(source, "annotations") and name in affected:
                source.annotations(index)
        except (CorruptEpisodeError, VideoError) as error:
            assert name in affected, f"the sound episode {name} can't be read: {error}"
            finding.complaints.append(f"{name}: {error}")
            continue
        assert frames.shape == (len(wanted), *episode.frames.size, 3)
        assert frames.dtype == np.uint8
        finding.read.add(name)
        same = name in truth.episodes and is_same(episode, truth.episodes[name])
        if not same or not np.array_equal(frames, truth.frames[name][wanted]):
            finding.changed.add(name)
    lost = [name for name in truth.episodes if name not in source.ids and not is_named(name, named, folder, truth)]
    assert not lost, f"{lost} are left out in silence; quarantined: {source.quarantined}"
    assert not set(truth.episodes) - affected - finding.read, "a sound episode is left out"
    assert not finding.changed - affected, f"{finding.changed - affected} are sound, but come out changed"
    return finding


def is_named(name: str, complaints: str, folder: Path, truth: Truth) -> bool:
    """Whether the complaints name an episode, or a file that it is read from."""
    files = [path.relative_to(folder) for path, ids in truth.affected.items() if name in ids]
    return name.removeprefix("episode_") in complaints or any(
        place in complaints for path in files for place in (str(path), str(path.with_suffix("")))
    )


def is_same(episode: Track, true: Track) -> bool:
    fields = ("fps", "task", "seed", "world_from_camera", "intrinsics")
    return (
        all(equal(getattr(episode, name), getattr(true, name)) for name in fields)
        and set(episode.columns) == set(true.columns)
        and all(equal(value, true.columns[name]) for name, value in episode.columns.items())
    )


def equal(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    left, right = np.asarray(left), np.asarray(right)
    return left.shape == right.shape and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def check_episode(episode: Track) -> None:
    """What every episode that is read must be, whatever was done to its files."""
    length = len(episode)
    assert 0 < length < 1000, f"{length} frames"
    assert 0 < episode.fps <= 1000, f"{episode.fps} fps"
    keypoints = episode.keypoints_world[episode.keypoints_valid]
    assert np.isfinite(keypoints).all() and (np.abs(keypoints) <= FAR).all(), "keypoints beyond sense"
    check_cameras(episode.world_from_camera)
    check_intrinsics(episode.intrinsics)
    for name in ("joint_positions", "joint_targets"):
        joints = episode.get(name)
        assert joints is None or (np.isfinite(joints).all() and (np.abs(joints) < FAR).all()), f"{name} beyond sense"
    for name, values in episode.columns.items():
        assert len(values) == length, f"extras {name} of {len(values)} rows"
        known = name in ("keypoint_confidence", "gripper_opening", "gripper_pose_world", "body_world", "object_motion")
        assert not known or np.isfinite(values).all(), f"extras {name} not finite"


def check_cameras(poses: np.ndarray) -> None:
    assert np.isfinite(poses).all() and (np.abs(poses) <= FAR).all(), "camera poses beyond sense"
    assert (np.abs(np.linalg.det(poses[..., :3, :3].astype(np.float64)) - 1) < 0.02).all(), "cameras no rotations"


def check_intrinsics(intrinsics: np.ndarray) -> None:
    focal = intrinsics[..., [0, 1], [0, 1]]
    assert np.isfinite(intrinsics).all(), "intrinsics not finite"
    assert ((focal >= FOCAL[0]) & (focal <= FOCAL[1])).all(), f"focal lengths {focal}"


@dataclass
class Known:
    """A source with the lengths that its episodes had, as a loader needs them."""

    source: Any
    truth: Truth

    def __post_init__(self) -> None:
        self.folder, self.kind, self.quarantined = self.source.folder, self.source.kind, self.source.quarantined
        self.keep = [index for index, name in enumerate(self.source.ids) if name in self.truth.episodes]
        self.ids = tuple(self.source.ids[index] for index in self.keep)
        self.lengths = tuple(len(self.truth.episodes[name]) for name in self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Track:
        return self.source[self.keep[index]]


def check_batch(source: Any, truth: Truth, finding: Finding, affected: set[str], seed: int) -> None:
    """A batch that touches every episode: nothing bad in it, and what could not be read is named."""
    known = Known(source, truth)
    try:
        loader = FrameLoader([known], SAMPLING, 2 * max(1, len(known)), seed)
        batch = loader.batch(0)
    except CorruptEpisodeError as error:
        unlucky = "clips in a row" in str(error) and 2 * len(affected) >= len(truth.episodes)
        if finding.read - affected and not finding.changed and not unlucky:
            raise AssertionError(f"sound episodes are there, but no batch: {error}") from error
        return
    check_tensors(batch)
    starts = loader.sampler.clips.starts
    for row, clip in enumerate(batch.clips.tolist()):
        name = known.ids[clip]
        if name in finding.read - finding.changed:
            assert np.array_equal(batch.frames[row].numpy(), truth.frames[name][batch.rows[row].numpy() - starts[clip]])
    for problem in batch.problems:
        # an episode of another rate or size than the first is named too, were it the first that is damaged
        assert finding.changed or any(name in problem.where for name in affected), f"{problem} blames a sound episode"


def check_tensors(batch: Any) -> None:
    """Nothing in a batch that training could choke on."""
    assert batch.track.keypoints_world.isfinite().all()
    assert (batch.track.keypoints_world.abs() <= FAR).all(), "keypoints beyond sense in a batch"
    check_cameras(batch.track.world_from_camera.numpy())
    check_intrinsics(batch.track.intrinsics.numpy())


def check_prepared(folder: Path, truth: Truth, affected: set[str], store: Path, layout: str) -> None:
    """Prepare the damaged source: every id is in the store or in its list of what was left out."""
    reader = ReaderOptions(droid=EXT2, lerobot=MAPPING)
    try:
        report = prepare(prepare_fixtures.config_of(folder, store, kind=layout, reader=reader))
    except REFUSALS:
        assert affected == set(truth.episodes), "one damaged episode ends a preparation"
        return
    assert report.assembled and report.ok, report.text()
    dataset = open_prepared(store)
    named = "\n".join(f"{name} {reason}" for name, reason in dataset.quarantined)
    for name in truth.episodes:
        assert name in dataset.ids or is_named(name, named, folder, truth), f"{name} is lost in preparing"
    if len(dataset):
        check_tensors(FrameLoader([dataset], SAMPLING, 2 * len(dataset), 0).batch(0))
