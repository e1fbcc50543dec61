"""Small files in the layout of DexWM's RoboCasa data, written from its description; with what should be read.

The hand is built link by link and projected with MuJoCo's camera convention and the quaternion of the scene file:
nothing of the reader is used to write what it is tested on. Red of frame i is 10 i; the row is in the green.
"""

import json
import math
from dataclasses import dataclass

import h5py
import numpy as np
from droid_fixtures import placed, turned

HEIGHT, WIDTH = 60, 96  # a tenth of the release's 600 x 960
CAMERA_AT = np.array([0.212, 0.0, 1.614])
CAMERA_QUATERNION = (0.61237244, 0.35355339, -0.35355339, -0.61237244)  # w, x, y, z, as in the scene file
FINGER_LINKS = (0.0164, 0.054, 0.0384)


@dataclass
class Told:
    """What was written, in the world; sites are (T, 16, 3): index, middle, ring, thumb."""

    base: np.ndarray
    wrist: np.ndarray
    sites: np.ndarray
    joints: np.ndarray
    actions: np.ndarray


def rotation(w, x, y, z) -> np.ndarray:
    """Rotation of a unit quaternion: its columns are the turned axes."""
    pure = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * pure + 2 * pure @ pure


def allegro(curl: float) -> np.ndarray:
    """Sixteen joint origins in the flange frame for fingers that are bent by `curl` radians at every joint."""
    palm = placed(turned((0, 0, 1), math.pi / 4), (0.0, 0.0, 0.1))
    points = []
    for y, z in ((0.0435, -0.001542), (0.0, 0.0007), (-0.0435, -0.001542)):
        link = palm @ placed(np.eye(3), (0.0, y, z))
        points.append(link[:3, 3])
        for length in FINGER_LINKS:
            link = link @ placed(turned((0, 1, 0), curl), (0, 0, 0)) @ placed(np.eye(3), (0, 0, length))
            points.append(link[:3, 3])
    link = palm @ placed(turned((1, 0, 0), -0.9), (-0.0182, 0.019333, -0.045987))
    points.append(link[:3, 3])
    for step in ((-0.027, 0.005, 0.0399), (0.0, 0.0, 0.0177), (0.0, 0.0, 0.0514)):
        link = link @ placed(np.eye(3), step) @ placed(turned((0, 1, 0), curl / 2), (0, 0, 0))
        points.append(link[:3, 3])
    return np.array(points)


def seen_at(told: Told, points: np.ndarray, row: int) -> np.ndarray:
    """Pixels (N, 2) of world points in the uncropped image of frame `row`, by MuJoCo's convention."""
    camera = told.base[row] @ placed(rotation(*CAMERA_QUATERNION), CAMERA_AT)
    x, y, z = (np.linalg.inv(camera) @ np.concatenate([points, np.ones((len(points), 1))], axis=1).T)[:3]
    focal = HEIGHT / 2 / math.tan(math.radians(40.0))
    return np.stack([WIDTH / 2 + focal * x / -z, HEIGHT / 2 - focal * y / -z], axis=1)


def pictures(length: int, height=HEIGHT) -> np.ndarray:
    frames = np.zeros((length, height, WIDTH, 3), dtype=np.uint8)
    frames[..., 0] = (10 * np.arange(length))[:, None, None]
    frames[..., 1] = np.arange(height)[None, :, None]
    return frames


def write_demo(data: h5py.Group, name: str, length: int) -> Told:
    """One episode, poses as rows of 16 and of 66 numbers, as released."""
    phase = np.linspace(0.0, 1.0, length)
    yaw = 0.7
    base = np.stack([placed(turned((0, 0, 1), yaw), (2.0, -1.5, 0.05)) for _ in phase])
    turns = [turned((0, 1, 0), 2.4) @ turned((0, 0, 1), p) for p in phase]
    in_base = [placed(turn, (0.75 + 0.1 * p, -0.15 + 0.2 * p, 1.0)) for turn, p in zip(turns, phase, strict=True)]
    wrist = base @ np.stack(in_base)
    sites = np.stack([pose[:3, 3] + allegro(0.6 * p) @ pose[:3, :3].T for pose, p in zip(wrist, phase, strict=True)])
    generator = np.random.default_rng(length)
    joints, actions = generator.uniform(-1, 1, (length, 23)), generator.uniform(-1, 1, (length, 29))
    demo = data.create_group(name)
    demo.attrs["num_samples"] = length
    demo.attrs["model_file"] = "<mujoco/>"
    demo.attrs["ep_meta"] = json.dumps({"lang": "pick the apple from the counter", "layout_id": 3})
    demo["states"], demo["actions"] = generator.uniform(size=(length, 5)), actions
    demo["waypoint_generation_stage_string"] = [b"s1-w1"] * length
    obs = demo.create_group("obs")
    packed = {"chunks": (1, HEIGHT, WIDTH, 3), "compression": "gzip"}
    obs.create_dataset("robot0_robotview_2_image", data=pictures(length), **packed)
    obs["robot0_agentview_left_image"] = pictures(length)
    obs["robot0_base_pos"] = base[:, :3, 3]
    obs["robot0_base_quat"] = np.tile((0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)), (length, 1))
    helpers = generator.uniform(size=(length, 6, 3))  # sites of the hand that are no joints come first
    keypoints = np.concatenate([helpers, sites], axis=1)
    obs["robot0_right_gripper_keypoint_pose"] = keypoints.reshape(length, -1)
    obs["robot0_right_hand_T_world_pose_mat"] = wrist.reshape(length, 16)
    left_arm = generator.uniform(size=(length, 7))
    obs["robot0_joint_pos"] = np.concatenate([joints[:, :7], left_arm], axis=1)
    obs["robot0_right_gripper_qpos"] = joints[:, 7:]
    return Told(base, wrist, sites, joints, actions)


def write_file(path, lengths=(6, 4)) -> dict[str, Told]:
    """A file of episodes demo_0, demo_1, ...; demo_0 is the training split, the others the validation split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps({"env_name": "PnPCounterTop", "env_kwargs": {"control_freq": 20}})
        names = [f"demo_{number}" for number in range(len(lengths))]
        told = {name: write_demo(data, name, length) for name, length in zip(names, lengths, strict=True)}
        file["mask/train"] = np.array([b"demo_0"])
        file["mask/valid"] = np.array([name.encode() for name in list(told)[1:]])
    return told
