"""Small DROID episodes in the raw release's layout, written from its published schema alone; with what should be read.

Rotations are made by Rodrigues' formula and taken apart into Euler angles here: nothing of the reader is used to
write what the reader is tested on. Red of frame i is 4 i, so a picture says which frame it is.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from video_fixtures import shades, write_mp4

from dexworld.data.source import CorruptEpisodeError
from dexworld.geometry import invert, project, transform_points

LAB, UUID = "AUTOLab", "AUTOLab+5d05c5aa+2023-07-07-09h-42m-23s"
DAY, TIME = "2023-07-07", "Fri_Jul__7_09:42:23_2023"
WRIST, EXT1, EXT2 = "18026681", "22008760", "24400334"  # ext1 and ext2 are sorted by serial number
INTRINSICS = np.array([[52.0, 0.0, 65.0], [0.0, 52.5, 35.5], [0.0, 0.0, 1.0]])


@dataclass
class Told:
    """What was written: poses in the robot's base, one per row of the trajectory."""

    folder: Path
    gripper: np.ndarray
    opening: np.ndarray
    cameras: dict[str, np.ndarray]
    joints: np.ndarray
    action_joints: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.gripper)


def turned(axis, angle) -> np.ndarray:
    """Rotation (3, 3) by Rodrigues' formula."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def placed(rotation, at) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, at
    return matrix


HAND_EYE = placed(turned((0, 0, 1), -1.5), (-0.07, 0.02, 0.015))


def xyz_euler(matrix) -> list[float]:
    """Position and fixed-axis x, y, z angles of a pose: R = Rz(c) Ry(b) Rx(a)."""
    r = matrix[:3, :3]
    angles = math.atan2(r[2, 1], r[2, 2]), math.asin(-r[2, 0]), math.atan2(r[1, 0], r[0, 0])
    return [*matrix[:3, 3].tolist(), *angles]


def looking(eye, target) -> np.ndarray:
    """Pose of an optical frame (z forward, y down) at `eye` that looks at `target`."""
    forward = (np.asarray(target, float) - eye) / np.linalg.norm(np.asarray(target, float) - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    return placed(np.stack([right, np.cross(forward, right), forward], axis=1), eye)


def write_numbered(path: Path, count: int, size=(72, 128)) -> None:
    """Groups of 12 with B-frames, as recorders write them; red of frame i is 4 i."""
    write_mp4(path, shades(range(0, 4 * count, 4), size=size), 15, pixels="yuv444p", g="12")


def make_recording(folder: Path, rows: int) -> Told:
    """A gripper that turns, moves and opens under two outer cameras; the wrist's is carried along."""
    phase = np.linspace(0.0, 1.0, rows)
    turns = [turned((1, 0.2, 0), math.pi - 0.4 * p) @ turned((0, 0, 1), 1.5 * p) for p in phase]
    places = [(0.45 + 0.1 * p, 0.2 - 0.3 * p, 0.3) for p in phase]
    gripper = np.stack([placed(*pose) for pose in zip(turns, places, strict=True)])
    cameras = {
        EXT1: np.tile(looking((0.1, -0.6, 0.5), (0.5, 0.0, 0.2)), (rows, 1, 1)),
        EXT2: np.tile(looking((0.2, 0.7, 0.45), (0.5, 0.0, 0.2)), (rows, 1, 1)),
        WRIST: gripper @ HAND_EYE,
    }
    joints, action_joints = np.random.default_rng(rows).uniform(-2, 2, (2, rows, 7))
    return Told(folder, gripper, 0.5 + 0.5 * np.cos(2 * math.pi * phase), cameras, joints, action_joints)


def write_episode(
    root: Path, rows=20, frames: int | None = None, outcome="success", time=TIME, uuid=UUID, intrinsics=False
) -> Told:
    """One complete episode below `root`; `left` is ext2. The released files hold no intrinsics."""
    folder = root / LAB / outcome / DAY / time
    folder.mkdir(parents=True)
    told = make_recording(folder, rows)
    closed = 1.0 - told.opening
    with h5py.File(folder / "trajectory.h5", "w") as file:
        file.attrs.update(building="Sutardja", scene_id=7, user="A Person", current_task="Move object", success=True)
        state, seen = file.create_group("observation/robot_state"), file["observation"]
        state["cartesian_position"] = np.array([xyz_euler(pose) for pose in told.gripper])
        state["gripper_position"], state["joint_positions"] = closed, told.joints
        for serial, poses in told.cameras.items():
            vectors = np.array([xyz_euler(pose) for pose in poses])
            seen[f"camera_type/{serial}"] = np.full(rows, 0 if serial == WRIST else 1)
            seen[f"camera_extrinsics/{serial}_left"] = vectors
            seen[f"camera_extrinsics/{serial}_right"] = vectors + 0.01
            seen[f"timestamp/cameras/{serial}_frame_received"] = 1_688_745_743_000 + 67 * np.arange(rows)
            if intrinsics:
                seen[f"camera_intrinsics/{serial}_left"] = np.tile(INTRINSICS, (rows, 1, 1))
        seen[f"camera_extrinsics/{WRIST}_left_gripper_offset"] = np.tile(xyz_euler(HAND_EYE), (rows, 1))
        seen["timestamp/skip_action"] = np.zeros(rows, dtype=bool)
        file["action/joint_position"], file["action/gripper_position"] = told.action_joints, closed

    below = f"gs://another-cluster/r2d2-data-full/{LAB}/{outcome}/{DAY}/{time}/recordings/MP4"
    metadata = {"uuid": uuid, "lab": LAB, "success": outcome == "success", "trajectory_length": rows}
    metadata |= {"current_task": "Move object into or out of container"}
    metadata |= {"left_mp4_path": f"{below}/{EXT2}.mp4", "right_mp4_path": f"{below}/{EXT1}.mp4"}
    for role, serial in (("wrist", WRIST), ("ext1", EXT1), ("ext2", EXT2)):
        metadata[f"{role}_cam_serial"] = serial
        metadata[f"{role}_cam_extrinsics"] = xyz_euler(told.cameras[serial][0])
        metadata[f"{role}_mp4_path"] = f"{below}/{serial}.mp4"
        write_numbered(folder / "recordings" / "MP4" / f"{serial}.mp4", rows if frames is None else frames)
    (folder / f"metadata_{uuid}.json").write_text(json.dumps(metadata))
    return told


def write_later(folder: Path, told: Told, uuid: str = UUID) -> dict[str, np.ndarray]:
    """The files published later, for ext2 only in the superset and ext1 only in the smaller one; the poses in them."""
    folder.mkdir(parents=True)
    shift = placed(turned((0, 0, 1), 0.02), (0.01, -0.02, 0.03))
    moved = {serial: shift @ told.cameras[serial][0] for serial in (EXT1, EXT2)}
    sized = {"width": 1280, "height": 720}
    contents = {
        "cam2base_extrinsic_superset": {EXT2: xyz_euler(moved[EXT2]), f"{EXT2}_quality_metric": 0.9},
        "cam2base_extrinsics": {EXT1: xyz_euler(moved[EXT1]), "quality_metric": 0.8},
        "intrinsics": {
            EXT2: {"cameraMatrix": [523.0, 641.0, 524.0, 362.0], **sized},
            EXT1: {"cameraMatrix": [0.0, 0.0, 0.0, 0.0], "width": 0, "height": 0},
        },
        "droid_language_annotations": {
            "language_instruction1": "put the marker in the pot",
            "language_instruction2": "pot the marker",
        },
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps({uuid: content}))
    return moved


def change(path: Path, key: str, value) -> None:
    """Replace a dataset of an HDF5 file; None deletes it."""
    with h5py.File(path, "r+") as file:
        del file[key]
        if value is not None:
            file[key] = value


def pixels_of(episode) -> np.ndarray:
    """Where the keypoints of a Track are seen, (T, 42, 2) pixels; every one must be in front of the camera."""
    points = torch.as_tensor(episode.keypoints_world, dtype=torch.float64)
    camera = invert(torch.as_tensor(episode.world_from_camera, dtype=torch.float64))
    pixels, depth = project(transform_points(camera, points), torch.as_tensor(episode.intrinsics))
    assert (depth[torch.from_numpy(episode.keypoints_valid)] > 0).all()
    return pixels.numpy()


def check_refused(source, complaint: str) -> None:
    """Reading the first episode of a source must end in this complaint (a regular expression)."""
    with pytest.raises(CorruptEpisodeError, match=complaint):
        source[0]
