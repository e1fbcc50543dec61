"""RoboCasa-Random and Lift as DexWM's authors store them: HDF5 files of robomimic, one group `data/demo_N` an episode.

    data                attributes: env_args (JSON)
    data/demo_N         attributes: model_file, ep_meta (JSON); states, actions
    data/demo_N/obs     robot0_robotview_2_image (T, 600, 960, 3) uint8; robot0_base_pos (T, 3); robot0_base_quat (T, 4)
                        x, y, z, w; robot0_right_gripper_keypoint_pose, whose last 16 x 3 numbers are the Allegro's
                        joint origins in the world (index, middle, ring, thumb, each from the palm);
                        robot0_right_hand_T_world_pose_mat (T, 4, 4), the flange; robot0_joint_pos (the right arm's
                        seven first); robot0_right_gripper_qpos (T, 16)
    mask/KEY            names of episodes (train, valid, ...)

Source: robomimic's dataset description; the released DexWM loader for the camera, the crop of 26 rows at the top and at
the bottom, and the order of keypoints. The ring finger stands in for the little finger, the left hand is absent (paper,
appendix C.2).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from dexworld.data.readers.arrays import check_rigid, pinhole, simulator_seed
from dexworld.data.readers.foreign_source import ForeignSource
from dexworld.data.readers.gripper_hand import right_hand
from dexworld.data.readers.hdf5 import attribute, group, is_plain, numbers, opened_hdf5, per_row
from dexworld.data.rigid_poses import poses_of, rotations_of
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import MAX_SIDE, VideoError
from dexworld.track import Track, frame_numbers

# base_from_camera of robot0_robotview_2, optical axes (x right, y down, z forward): it looks forward, 30 degrees down.
_SIN_60 = 3.0**0.5 / 2
_AXES = np.array([[0.0, 0.5, -_SIN_60], [-1.0, 0.0, 0.0], [0.0, _SIN_60, 0.5]])  # as MuJoCo has them: y up, z backwards
BASE_FROM_CAMERA = poses_of(_AXES @ np.diag([1.0, -1.0, -1.0]), np.array([0.212, 0.0, 1.614]))
CAMERA = "robot0_robotview_2"
FOV_DEG = 80.0  # vertical, of the stored image before the crop
STORED_ROWS, CROP_ROWS = 600, 26  # rows of the release's images, and those it cuts off at the top and at the bottom
USUAL_RATE = 20.0
ARM_JOINTS, FINGER_JOINTS = 7, 16  # of the dataset's right arm and hand
SITES = FINGER_JOINTS  # keypoints beside the wrist
# Metres from joint to joint along index, middle and ring finger and along the thumb: what the order must give.
_BONES = np.array([[0.0164, 0.054, 0.0384]] * 3 + [[0.0485, 0.0177, 0.0514]])
_PALM = 0.1007  # from the wrist to the first joint of the middle finger
_TOLERANCE = 0.01
MAX_DISTANCE = 100.0  # metres: kitchens are small
MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class RoboCasaOptions:
    """How RoboCasa episodes are read.

    split: a filter key below `mask/` (train, valid, ...); None reads every episode.
    check_hand: whether bones must have the Allegro's lengths and the wrist its distance to the palm (within 1 cm),
        which fails when keypoints come in another order.
    official_heatmap_error: project as the release's training data do: they subtract the crop from the principal point
        twice, so that keypoints lie 26 of 548 rows, 10.6 of 224, too high.
    """

    split: str | None = None
    check_hand: bool = True
    official_heatmap_error: bool = False


@dataclass(frozen=True)
class Hdf5Frames:
    """Frames of the dataset `key`, (T, H, W, 3) uint8 RGB, without `crop_rows` rows at the top and at the bottom.

    length, size: of what is left. Holds no open file, so it can be pickled; a read opens the file once.
    """

    path: Path
    key: str
    crop_rows: int
    length: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.length

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be read.
        """
        wanted = frame_numbers(indices, self.length, f"{self.path}: {self.key}")
        frames = np.empty((len(wanted), *self.size, 3), dtype=np.uint8)
        rows, frame = slice(self.crop_rows, self.crop_rows + self.size[0]), -1
        try:
            with opened_hdf5(self.path) as file:
                node = file[self.key]
                for frame in np.unique(wanted).tolist():  # in order: neighbours may share a compressed chunk
                    frames[wanted == frame] = node[frame, rows]
        except CorruptEpisodeError as error:
            raise VideoError(f"frame {frame} can't be read: {error}") from error
        return frames


@dataclass(frozen=True)
class RoboCasaSource(ForeignSource):
    """Episodes of all HDF5 files below a folder; see `data.source.Source`. An id is FILE:demo_N."""

    kind: ClassVar[str] = "robocasa"
    options: RoboCasaOptions

    def read(self, index: int) -> Track:
        """The right Allegro hand. Further columns: hand_poses_world, action."""
        (path, demo), options = self._place(index), self.options
        with opened_hdf5(path) as file:
            obs = f"{demo}/obs"
            frames = _frames(file, f"{obs}/{CAMERA}_image")
            rows = len(frames)
            world_from_base = _base_poses(file, obs, rows)
            wrist, sites = _hand(file, obs, rows)
            if options.check_hand:
                _check_hand(wrist, sites, f"{path}: {obs}")
            actions = numbers(file, f"{demo}/actions", (rows, None), 1e4) if f"{demo}/actions" in file else None
            joints = _joints(file, obs, rows)
            scene, environment = _json(file, demo, "ep_meta"), _json(file, "data", "env_args")
        keypoints, valid = right_hand(hand_keypoints(wrist[:, :3, 3], sites))
        hands = np.full((rows, 2, 4, 4), np.nan)
        hands[:, 1] = wrist
        return Track(
            frames=frames,
            fps=_rate(environment, path),
            world_from_camera=world_from_base @ BASE_FROM_CAMERA,
            intrinsics=intrinsics(frames.size, frames.crop_rows, options.official_heatmap_error),
            source=f"robocasa {self.ids[index]}",
            task=str(scene.get("lang") or environment.get("env_name") or ""),
            seed=simulator_seed(scene.get("dexworld_seed")),
            columns={
                "keypoints_world": keypoints,
                "keypoints_valid": valid,
                "joint_positions": joints,
                "hand_poses_world": hands,
                "action": actions,
            },
        )

    def files(self, index: int) -> tuple[Path, ...]:
        """The one HDF5 file of episode `index`."""
        return (self._place(index)[0],)

    def _place(self, index: int) -> tuple[Path, str]:
        """The file and the group of episode `index`."""
        name, demo = self.ids[index].rsplit(":", 1)
        return self.folder / name, f"data/{demo}"


def recognises(folder: Path) -> bool:
    """Whether the first HDF5 file at or below `folder` holds episodes of robomimic with an Allegro's keypoints."""
    try:
        for path in _hdf5_files(folder)[:1]:
            with opened_hdf5(path) as file:
                demo = next(iter(group(file, "data")), None)
                return demo is not None and "robot0_right_gripper_keypoint_pose" in file[f"data/{demo}/obs"]
    except CorruptEpisodeError:
        pass
    return False


def open_robocasa(folder: Path | str, options: RoboCasaOptions = RoboCasaOptions()) -> RoboCasaSource:
    """The episodes of every *.hdf5 below `folder`, or of one such file.

    Files that can't be opened are quarantined. Raises FileNotFoundError when there is no file at all, ValueError when a
    file has no filter key `options.split`, naming those it has.
    """
    folder = Path(folder)
    root = folder.parent if folder.is_file() else folder
    ids, quarantined, paths = [], [], _hdf5_files(folder)
    for path in paths:
        name = str(path.relative_to(root))
        try:
            with opened_hdf5(path) as file:
                demos = {demo for demo in group(file, "data") if demo.startswith("demo_")}
                keys = _filter_keys(file)
                chosen = _members(file, options.split) if options.split in keys else set()
        except CorruptEpisodeError as error:
            quarantined.append((name, str(error)))
            continue
        if options.split is not None:
            if options.split not in keys:
                raise ValueError(f"{path} has no filter key {options.split!r}; it has {', '.join(keys) or 'none'}")
            gone = f"named by mask/{options.split}, but not there"
            quarantined += [(f"{name}:{demo}", gone) for demo in chosen - demos]
            demos &= chosen
        ids += [f"{name}:{demo}" for demo in demos]
    if not paths:
        raise FileNotFoundError(f"{folder} holds no *.hdf5 files of RoboCasa")
    return RoboCasaSource(root, tuple(sorted(ids)), tuple(sorted(quarantined)), options)


def intrinsics(size: tuple[int, int], crop: int, official_error: bool = False) -> np.ndarray:
    """The (3, 3) pinhole matrix for frames of `size` (height, width) after `crop` rows were cut at top and bottom.

    600 x 960 uncropped: focal length 357.526, centre (480, 300); cropped: centre (480, 274).
    """
    rows = size[0] + 2 * crop
    focal = rows / 2 / np.tan(np.radians(FOV_DEG) / 2)
    centre = rows / 2 - crop * (2 if official_error else 1)
    return pinhole(focal, focal, size[1] / 2, centre)


def hand_keypoints(wrist: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """21 keypoints (T, 21, 3) in the order of `dexworld.hands`; the ring finger stands in for the little one.

    wrist: (T, 3). sites: (T, 16, 3), the Allegro's joints: index, middle, ring, thumb, each from the palm.
    """
    index, middle, ring, thumb = (sites[:, 4 * finger : 4 * finger + 4] for finger in range(4))
    return np.concatenate([wrist[:, None], thumb, index, middle, ring, ring], axis=1)


def _hdf5_files(folder: Path) -> list[Path]:
    """*.hdf5 at or below `folder`, in a stable order. What is no file is quarantined, as damage is."""
    return [folder] if folder.is_file() else sorted(folder.rglob("*.hdf5"))


def _filter_keys(file: h5py.File) -> list[str]:
    return sorted(group(file, "mask")) if "mask" in file else []


def _members(file: h5py.File, split: str) -> set[str]:
    """The episodes that a filter key names."""
    node = file[f"mask/{split}"]
    if not isinstance(node, h5py.Dataset) or not is_plain(node.id.get_type()):
        raise CorruptEpisodeError(f"{file.filename}: mask/{split} is no list of names")
    names = np.asarray(node[()]).reshape(-1).tolist()
    return {name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names}


def _frames(file: h5py.File, key: str) -> Hdf5Frames:
    node, where = file.get(key), f"{file.filename}: {key}"
    if not isinstance(node, h5py.Dataset):
        raise CorruptEpisodeError(f"{where} is missing")
    shape, kind = node.shape, node.dtype
    if len(shape) != 4 or shape[3] != 3 or kind != np.uint8 or not 0 < max(shape[1:3]) <= MAX_SIDE:
        raise CorruptEpisodeError(f"{where} has shape {shape} {kind}, expected (T, H, W, 3) uint8")
    length, height, width, _ = shape
    if height > width:
        raise CorruptEpisodeError(f"{where} has shape {shape}: taller than wide; its height and width are exchanged")
    crop = round(CROP_ROWS * height / STORED_ROWS)
    if length == 0 or height <= 2 * crop or width == 0:
        raise CorruptEpisodeError(f"{where} has shape {shape}; nothing is left of it without {crop} rows each side")
    if length > MAX_ROWS:
        raise CorruptEpisodeError(f"{where} claims {length} frames; the file is damaged")
    return Hdf5Frames(Path(file.filename), key, crop, length, (height - 2 * crop, width))


def _base_poses(file: h5py.File, obs: str, rows: int) -> np.ndarray:
    """world_from_base (rows, 4, 4)."""
    quaternion = numbers(file, f"{obs}/robot0_base_quat", (rows, 4), 2.0)  # x, y, z, w
    if np.abs(np.linalg.norm(quaternion, axis=1) - 1.0).max() > 1e-2:
        raise CorruptEpisodeError(f"{file.filename}: {obs}/robot0_base_quat is no rotation: lengths are not 1")
    return poses_of(rotations_of(quaternion), numbers(file, f"{obs}/robot0_base_pos", (rows, 3), MAX_DISTANCE))


def _hand(file: h5py.File, obs: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """world_from_wrist (rows, 4, 4) and the Allegro's joint origins in the world (rows, 16, 3)."""
    key = f"{obs}/robot0_right_hand_T_world_pose_mat"
    wrist = per_row(file, key, rows, MAX_DISTANCE)
    if wrist.shape[1] != 16:
        raise CorruptEpisodeError(f"{file.filename}: {key} holds {wrist.shape[1]} numbers a row, expected 4 x 4")
    wrist = wrist.reshape(rows, 4, 4)
    check_rigid(wrist, f"{file.filename}: {key}")
    key = f"{obs}/robot0_right_gripper_keypoint_pose"
    values = per_row(file, key, rows, MAX_DISTANCE)
    if values.shape[1] < 3 * SITES or values.shape[1] % 3:
        raise CorruptEpisodeError(f"{file.filename}: {key} holds {values.shape[1]} numbers a row, expected 3 x {SITES}")
    return wrist, values[:, -3 * SITES :].reshape(rows, SITES, 3)


def _check_hand(wrist: np.ndarray, sites: np.ndarray, where: str) -> None:
    """Refuse keypoints that are not an Allegro's in the order index, middle, ring, thumb, or not at this wrist."""
    fingers = sites.reshape(len(sites), 4, 4, 3)
    bones = np.abs(np.linalg.norm(np.diff(fingers, axis=2), axis=-1) - _BONES).reshape(len(sites), -1)
    palm = np.abs(np.linalg.norm(fingers[:, 1, 0] - wrist[:, :3, 3], axis=-1) - _PALM)
    for complaint, miss in (
        ("bones are not an Allegro's in the order index, middle, ring, thumb", bones.max(axis=1)),
        ("wrist is not where an Allegro's wrist is", palm),
    ):
        if miss.max() > _TOLERANCE:
            miss_mm, row = 1000 * miss.max(), int(np.argmax(miss))
            raise CorruptEpisodeError(f"{where}: the hand's {complaint}: {miss_mm:.0f} mm off at row {row}")


def _joints(file: h5py.File, obs: str, rows: int) -> np.ndarray | None:
    """(rows, 23): the right arm's seven joints, which come first, then the Allegro's in our order; None without."""
    keys = f"{obs}/robot0_joint_pos", f"{obs}/robot0_right_gripper_qpos"
    if not all(key in file for key in keys):
        return None
    arm = numbers(file, keys[0], (rows, None), 100.0)
    fingers = numbers(file, keys[1], (rows, FINGER_JOINTS), 100.0)
    if arm.shape[1] < ARM_JOINTS:
        raise CorruptEpisodeError(f"{file.filename}: {keys[0]} has {arm.shape[1]} joints, expected {ARM_JOINTS}")
    return np.concatenate([arm[:, :ARM_JOINTS], fingers], axis=1)


def _json(file: h5py.File, key: str, name: str) -> dict[str, Any]:
    """A JSON attribute; empty where there is none."""
    text = attribute(group(file, key), name)
    try:
        content = json.loads(text) if isinstance(text, str) and text else {}
    except json.JSONDecodeError as error:
        raise CorruptEpisodeError(f"{file.filename}: {key}: attribute {name} is no JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def _rate(environment: dict[str, Any], path: Path) -> float:
    """The control frequency in env_args, else RoboCasa's usual one."""
    settings = environment.get("env_kwargs")
    rate = settings.get("control_freq", USUAL_RATE) if isinstance(settings, dict) else USUAL_RATE
    if not isinstance(rate, (int, float)) or not 0 < rate < 1000:
        raise CorruptEpisodeError(f"{path}: env_args give a control frequency of {rate!r}")
    return float(rate)
