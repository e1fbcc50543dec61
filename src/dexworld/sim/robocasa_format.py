"""Write Tracks of the Franka arm with the Allegro hand as robomimic and RoboCasa have them: many demos in one HDF5.

The layout is that of `dexworld.data.readers.robocasa`, with what the released DexWM loader reads. Beyond it there are
rewards, dones, `next_obs` (obs one step later, without pictures) and, where known, object_positions (T, 5, 3) in obs.
The layout has no place for a camera's pose and intrinsics: its readers know them.

Pictures are redrawn to the release's camera (80 degrees over all rows, 26 of 600 rows to be cut off at both edges).
Rows that the simulator never drew repeat the nearest one; readers cut them off. Every scene tilts the simulator's head
camera a little: `robot0_base_*` is the frame in which this camera stands where the release's does. The arm's mount is
in the attributes. `states` holds joints and object positions; `model_file` is empty: the seed rebuilds the scene.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from dexworld.data.rigid_poses import quaternion_of, rotations_of
from dexworld.hands import FINGERS, RIGHT
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.sim.kitchen.allegro_body import MOUNT_POSITION, MOUNT_QUATERNION
from dexworld.sim.poses import OPTICAL, focal_length, pinhole, pose
from dexworld.track import Track
from dexworld.writing import written_atomically

CAMERA = "robot0_robotview_2"
IMAGE_SIZE = (246, 392)  # 224 rows are left when 11 are cut off at both edges
FOVY_DEG = 80.0
# of the release's camera in its base frame; x y z w, MuJoCo's axes: y up, looking along -z
_CAMERA_ROTATION = rotations_of(np.array([[0.35355339, -0.35355339, -0.61237244, 0.61237244]]))[0]
BASE_FROM_CAMERA = pose(_CAMERA_ROTATION @ OPTICAL, (0.212, 0.0, 1.614))
WORLD_FROM_MOUNT = pose(rotations_of(np.roll(MOUNT_QUATERNION, -1)[None])[0], MOUNT_POSITION)
ENVIRONMENT = "DexWorldExploration"
_AHEAD = 0.01  # metres that a hand moves in one physics step, at most
_MISMATCH = 1e-5  # metres between an episode's keypoints and the joints that explain them
_ALLEGRO = ("IndexFinger", "MiddleFinger", "RingFinger", "Thumb")  # the hand's own order of joints


def write_robocasa(
    path: Path | str,
    episodes: Iterable[Track],
    size: tuple[int, int] = IMAGE_SIZE,
    masks: Mapping[str, Iterable[int]] | None = None,
) -> Path:
    """Write episodes as demo_0, demo_1, ... of one file, which appears whole or not at all. Returns its path.

    episodes: of `record_exploration` or like it, with joint_positions and keypoints of the arm on the usual mount.
    size: height and width of the stored pictures. masks: filter keys, each with the numbers of its demos.

    Raises ValueError on an episode without joints, with joints that don't fit its keypoints, or of another rate;
    nothing is written then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        data = file.create_group("data", track_order=True)
        total, rate, number = 0, None, -1
        for number, episode in enumerate(episodes):
            rate = episode.fps if rate is None else rate
            if episode.fps != rate:
                raise ValueError(f"{episode.source}: {episode.fps} frames a second, others in the file have {rate}")
            _write_demo(data.create_group(f"demo_{number}", track_order=True), episode, size)
            total += len(episode)
        if number < 0:
            raise ValueError(f"{path}: no episodes to write")
        data.attrs["total"] = total
        camera = {"camera_names": [CAMERA], "camera_heights": size[0], "camera_widths": size[1]}
        settings = {"control_freq": float(rate or 0.0), "robots": "FrankaAllegro"} | camera
        # type 1 is robomimic's number of robosuite environments
        data.attrs["env_args"] = json.dumps({"env_name": ENVIRONMENT, "type": 1, "env_kwargs": settings})
        for key, members in (masks or {}).items():
            names = [f"demo_{member}".encode() for member in members]
            file.create_dataset(f"mask/{key}", data=np.array(names), track_times=False)
    return path


def release_keypoints(episode: Track) -> tuple[np.ndarray, np.ndarray]:
    """Flange poses (T, 4, 4) and the Allegro's 16 joint origins (T, 16, 3), index, middle, ring, thumb, in the world.

    They belong to the moment of the pictures and keypoints. Recorded joints are one physics step, 2 ms, ahead of these,
    so they are first adjusted to the keypoints. Raises ValueError when the episode has no joints, or keypoints that
    they don't explain.
    """
    if "joint_positions" not in episode.columns:
        raise ValueError(f"{episode.source}: has no joint_positions; only episodes of the Allegro robot can be written")
    mount = WORLD_FROM_MOUNT
    known = np.asarray(episode.keypoints_world, np.float64)[:, RIGHT]
    wanted = torch.from_numpy((known - mount[:3, 3]) @ mount[:3, :3])
    joints = torch.from_numpy(np.asarray(episode["joint_positions"], np.float64))
    model = FrankaAllegro()
    ahead = float((_points(model, joints) - wanted).abs().max())
    joints = _explained_joints(model, joints, wanted)
    miss = float((_points(model, joints) - wanted).abs().max())
    if ahead > _AHEAD or miss > _MISMATCH:
        raise ValueError(
            f"{episode.source}: keypoints are {1000 * ahead:.1f} mm from where the joints put them; only episodes "
            "of the simulator's own arm and mount can be written"
        )
    hand = FrankaAllegro("release").forward(joints)
    points = hand.keypoints[:, RIGHT].numpy() @ mount[:3, :3].T + mount[:3, 3]
    flange = np.tile(np.eye(4), (len(points), 1, 1))
    flange[:, :3, :3], flange[:, :3, 3] = mount[:3, :3] @ hand.hand_rotation.numpy(), points[:, 0]
    fingers = points[:, 1:].reshape(len(points), len(FINGERS), 4, 3)
    order = [FINGERS.index(name) for name in _ALLEGRO]
    return flange, fingers[:, order].reshape(len(points), -1, 3)


def _points(model: FrankaAllegro, joints: Tensor) -> Tensor:
    """The right hand's keypoints (..., 21, 3) in the mount's frame."""
    return model.forward(joints).keypoints[..., RIGHT, :]


def _explained_joints(model: FrankaAllegro, joints: Tensor, wanted: Tensor) -> Tensor:
    """Joints (T, 23) near `joints` that put the keypoints to `wanted` (T, 21, 3): three steps of Gauss and Newton."""
    step = 1e-6 * torch.eye(joints.shape[-1], dtype=joints.dtype)
    for _ in range(3):
        rest = (wanted - _points(model, joints)).flatten(1)
        there, back = (_points(model, joints[:, None] + sign * step).flatten(2) for sign in (1, -1))
        slope = ((there - back) / 2e-6).transpose(1, 2)  # (T, 63, 23)
        joints = joints + (torch.linalg.pinv(slope, rtol=1e-5) @ rest[..., None])[..., 0]
    return joints


def release_intrinsics(size: tuple[int, int]) -> np.ndarray:
    """Pinhole matrix (3, 3) of the release's camera for uncropped pictures of `size` (height, width), pixels."""
    return pinhole(focal_length(size[0], FOVY_DEG), *size)


def redraw(frames: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], target: np.ndarray) -> np.ndarray:
    """Pictures (T, h, w, 3) of a camera with `intrinsics` as one with intrinsics `target` and `size` would show them.

    Bilinear; what lies outside repeats the picture's edge. Same camera pose, no skew.
    """
    axes = []
    for axis, length in ((1, frames.shape[1]), (0, frames.shape[2])):
        places = np.arange(size[1 - axis]) + 0.5  # centres of the pixels to draw: rows first, then columns
        places = (places - target[axis, 2]) / target[axis, axis] * intrinsics[axis, axis] + intrinsics[axis, 2] - 0.5
        low = np.clip(np.floor(places), 0, length - 1).astype(int)
        axes.append((low, np.minimum(low + 1, length - 1), np.clip(places - low, 0, 1).astype(np.float32)))
    (top, bottom, down), (left, right, across) = axes
    drawn = np.empty((len(frames), *size, 3), np.uint8)
    for index, picture in enumerate(frames):
        wide = picture[:, left] * (1 - across)[:, None] + picture[:, right] * across[:, None]
        drawn[index] = np.rint(wide[top] * (1 - down)[:, None, None] + wide[bottom] * down[:, None, None])
    return drawn


def _write_demo(group: h5py.Group, episode: Track, size: tuple[int, int]) -> None:
    flange, sites = release_keypoints(episode)
    count = len(episode)
    joints = np.asarray(episode["joint_positions"], np.float64)
    targets = np.asarray(episode.columns.get("joint_targets", joints), np.float64)
    # the base that puts the simulator's camera where the release's stands
    base = np.asarray(episode.world_from_camera, np.float64) @ np.linalg.inv(BASE_FROM_CAMERA)
    obs: dict[str, np.ndarray] = {
        "robot0_base_pos": base[:, :3, 3],
        "robot0_base_quat": np.stack([quaternion_of(rotation) for rotation in base[:, :3, :3]]),
        "robot0_right_hand_T_world_pose_mat": flange,
        "robot0_right_gripper_keypoint_pose": sites.reshape(count, -1),
        "robot0_joint_pos": joints[:, FrankaAllegro.arm],
        "robot0_right_gripper_qpos": joints[:, FrankaAllegro.arm.stop :],
    }
    states, objects = joints, episode.columns.get("object_positions")
    if objects is not None:
        obs["object_positions"] = objects
        states = np.concatenate([joints, np.nan_to_num(objects).reshape(count, -1)], axis=1)
    arrays = {
        "states": states,
        "actions": targets,
        "rewards": np.zeros(count),
        "dones": (np.arange(count) == count - 1).astype(np.int64),
    }
    arrays |= {f"obs/{name}": values for name, values in obs.items()}
    arrays |= {f"next_obs/{name}": np.concatenate([values[1:], values[-1:]]) for name, values in obs.items()}
    for name, values in arrays.items():
        group.create_dataset(name, data=values, track_times=False)
    intrinsics = release_intrinsics(size)
    pictures = redraw(episode.frames.read(list(range(count))), episode.intrinsics, size, intrinsics)
    packing = {"chunks": (1, *size, 3), "compression": "gzip", "compression_opts": 3, "track_times": False}
    group.create_dataset(f"obs/{CAMERA}_image", data=pictures, **packing)
    seed = {} if episode.seed is None else {"dexworld_seed": episode.seed}
    group.attrs["num_samples"], group.attrs["model_file"] = count, ""
    group.attrs["ep_meta"] = json.dumps({"lang": episode.task, "source": episode.source} | seed)
    group.attrs["dexworld_world_from_mount"] = WORLD_FROM_MOUNT
    group.attrs["dexworld_world_from_camera"] = episode.world_from_camera[0]
    group.attrs["dexworld_intrinsics"] = intrinsics
