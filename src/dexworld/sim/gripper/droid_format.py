"""Write recordings of the gripper robot as DROID's raw release has them; see `dexworld.data.readers.droid`.

Keys and units as in the dataset's schema (droid-dataset.github.io): poses are x, y, z in metres and extrinsic x-y-z
Euler angles in radians, in the frame of the robot's base; gripper positions run from 0 (open) to 1 (closed).

`docs/simulator.md` says what differs from the real recordings. Cameras that were not drawn have poses but no video.
"""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import mujoco
import numpy as np
import torch

from dexworld.data.video import write_video
from dexworld.geometry import euler_xyz
from dexworld.sim.gripper.gripper_recording import GripperRecording
from dexworld.sim.gripper.gripper_simulation import CAMERAS, CONTROL_RATE, EXTERNAL_CAMERAS, WRIST_CAMERA
from dexworld.writing import write_json

LAB = "SIM"
OUTCOMES = ("success", "failure")
PARTIAL = ".partial"  # episodes that are being written
VERSION = 1.3
_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_STEREO_BASELINE = {"ext1": 0.12, "ext2": 0.12, "wrist": 0.063}  # metres: ZED 2 and ZED Mini


def write_droid(folder: Path | str, recording: GripperRecording) -> Path:
    """Write one recording below `folder`; returns the episode's own folder.

    The episode appears whole or not at all: it is written beside (`.partial`) and moved. An episode of the same seed is
    replaced.
    """
    folder, seed = Path(folder), recording.seed
    target = episode_folder(folder, seed, recording.success)
    working = folder / PARTIAL / f"{seed:08d}.{os.getpid()}"
    videos = working / "recordings" / "MP4"
    shutil.rmtree(working, ignore_errors=True)
    videos.mkdir(parents=True)
    try:
        for camera, frames in recording.frames.items():
            write_video(videos / f"{serials(seed)[camera]}.mp4", frames, CONTROL_RATE)
        with h5py.File(working / "trajectory.h5", "w", track_order=True) as file:
            _write_trajectory(file, recording)
        metadata = droid_metadata(recording)
        write_json(working / f"metadata_{metadata['uuid']}.json", metadata)
        for success in (True, False):
            shutil.rmtree(episode_folder(folder, seed, success), ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(working, target)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return target


def find_droid(folder: Path | str, seed: int) -> Path | None:
    """The folder of a seed's episode if it is there, whatever its outcome."""
    places = [episode_folder(Path(folder), seed, success) for success in (True, False)]
    return next((place for place in places if place.is_dir()), None)


def episode_folder(folder: Path, seed: int, success: bool) -> Path:
    """Where the episode of a seed lies: LAB/success|failure/DATE/TIME, one minute of the calendar for every seed."""
    moment = recorded_at(seed)
    return folder / LAB / OUTCOMES[not success] / f"{moment:%Y-%m-%d}" / _time_name(moment)


def recorded_at(seed: int) -> datetime:
    """The made-up moment of a seed's recording."""
    return _FIRST_DAY + timedelta(minutes=seed)


def serials(seed: int) -> dict[str, str]:
    """Made-up serial numbers of the cameras; the rigs of neighbouring scenes differ."""
    rig = seed % 90
    return {camera: str(20_000_000 + 1000 * rig + 100 * index + 7) for index, camera in enumerate(CAMERAS)}


def droid_metadata(recording: GripperRecording) -> dict[str, Any]:
    """The content of metadata_*.json; `left` is the outer camera with the larger y, as in the release.

    Where only one outer camera was drawn, `left_mp4_path` names it, so that the release's loader finds a video. Paths
    are relative to the lab's folder.
    """
    moment, numbers = recorded_at(recording.seed), serials(recording.seed)
    timestamp, user = f"{moment:%Y-%m-%d-%Hh-%Mm-%Ss}", f"{recording.seed % 16**8:08x}"
    place = episode_folder(Path(), recording.seed, recording.success).relative_to(LAB)
    videos = {camera: str(place / "recordings" / "MP4" / f"{numbers[camera]}.mp4") for camera in recording.frames}
    outer = sorted((c for c in EXTERNAL_CAMERAS if c in videos), key=lambda c: -recording.camera_poses[c][0, 1, 3])
    content: dict[str, Any] = {
        "uuid": f"{LAB}+{user}+{timestamp}",
        "lab": LAB,
        "user": "dexworld simulator",
        "user_id": user,
        "date": f"{moment:%Y-%m-%d}",
        "timestamp": timestamp,
        "hdf5_path": str(place / "trajectory.h5"),
        "building": "simulation",
        "scene_id": recording.seed,
        "success": recording.success,
        "robot_serial": "simulated-panda",
        "r2d2_version": str(VERSION),
        "current_task": recording.text,
        "trajectory_length": len(recording),
    }
    for camera in (WRIST_CAMERA, *EXTERNAL_CAMERAS):
        content[f"{camera}_cam_serial"] = numbers[camera]
        content[f"{camera}_cam_extrinsics"] = pose_vectors(recording.camera_poses[camera][:1])[0].tolist()
    for camera in (WRIST_CAMERA, *EXTERNAL_CAMERAS):
        content[f"{camera}_svo_path"], content[f"{camera}_mp4_path"] = None, videos.get(camera)
    content["left_mp4_path"] = videos[outer[0]] if outer else None
    content["right_mp4_path"] = videos[outer[1]] if len(outer) > 1 else None
    return content | {
        "dexworld_seed": recording.seed,
        "dexworld_skill": recording.skill,
        "dexworld_grasp_attempts": recording.grasp_attempts,
        "dexworld_objects_carried": recording.objects_carried,
        "dexworld_mujoco": mujoco.__version__,
    }


def pose_vectors(poses: np.ndarray) -> np.ndarray:
    """(T, 6) x, y, z and extrinsic x-y-z Euler angles of transforms (T, 4, 4)."""
    angles = euler_xyz(torch.from_numpy(np.ascontiguousarray(poses[:, :3, :3])))
    return np.concatenate([poses[:, :3, 3], angles.numpy()], axis=1)


def _write_trajectory(file: h5py.File, recording: GripperRecording) -> None:
    """All of trajectory.h5."""
    moment = recorded_at(recording.seed)
    file.attrs.update(
        building="simulation",
        scene_id=recording.seed,
        user="dexworld simulator",
        current_task=recording.text,
        success=recording.success,
        failure=not recording.success,
        robot_serial_number="simulated-panda",
        time=_time_name(moment),
        version_number=VERSION,
    )
    on = np.ones(len(recording), bool)
    groups = {
        "action": _actions(recording.command),
        "observation/robot_state": _states(recording.state),
        "observation/controller_info": {
            "controller_on": on,
            "movement_enabled": on,
            "success": np.arange(len(recording)) == len(recording) - 1,
            "failure": ~on,
        },
        "observation/timestamp": _timestamps(recording, moment),
        **_cameras(recording),
        "dexworld": {name: recording.objects[name] for name in ("object_positions", "object_motion", "object_touched")},
    }
    for group, arrays in groups.items():
        for name, values in arrays.items():
            file.create_dataset(f"{group}/{name}", data=values, track_times=False)


def _actions(command: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    pose, closed = pose_vectors(command["cartesian_pose"]), 1.0 - command["opening"]
    joints = command["joint_positions"]
    moved, turned = np.diff(pose[:, :3], axis=0), np.diff(pose[:, 3:], axis=0)
    turned = (turned + np.pi) % (2 * np.pi) - np.pi
    return {
        "cartesian_position": pose,
        "cartesian_velocity": _per_second(np.concatenate([moved, turned], axis=1)),
        "gripper_position": closed,
        "gripper_velocity": _per_second(np.diff(closed)),
        "joint_position": joints,
        "joint_velocity": _per_second(np.diff(joints, axis=0)),
        "target_cartesian_position": pose,
        "target_gripper_position": closed,
    }


def _states(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    torques = state["joint_torques"]
    before = np.concatenate([torques[:1], torques[:-1]])
    return {
        "cartesian_position": pose_vectors(state["cartesian_pose"]),
        "gripper_position": 1.0 - state["opening"],
        "joint_positions": state["joint_positions"],  # the raw release's name
        "joint_position": state["joint_positions"],  # the name in its other editions
        "joint_velocities": state["joint_velocities"],
        "joint_torques_computed": torques,
        "motor_torques_measured": torques,
        "prev_command_successful": np.ones(len(torques), bool),
        "prev_controller_latency_ms": np.zeros(len(torques)),
        "prev_joint_torques_computed": before,
        "prev_joint_torques_computed_safened": before,
    }


def _timestamps(recording: GripperRecording, moment: datetime) -> dict[str, np.ndarray]:
    """Milliseconds of the calendar, nanoseconds for the robot's own clock; nothing is ever late."""
    steps = np.round(np.arange(len(recording) + 1) * 1000 / CONTROL_RATE).astype(np.int64)
    now, end = int(moment.timestamp() * 1000) + steps[:-1], int(moment.timestamp() * 1000) + steps[1:]
    times = {
        "skip_action": np.zeros(len(recording), bool),
        "robot_state/read_start": now,
        "robot_state/read_end": now,
        "robot_state/robot_timestamp_seconds": now // 1000,
        "robot_state/robot_timestamp_nanos": now % 1000 * 1_000_000,
    }
    times |= {f"control/{name}": now for name in ("step_start", "policy_start", "control_start", "sleep_start")}
    times["control/step_end"] = end
    for serial in serials(recording.seed).values():
        for event in ("read_start", "estimated_capture", "frame_received", "read_end"):
            times[f"cameras/{serial}_{event}"] = now
    return times


def _cameras(recording: GripperRecording) -> dict[str, dict[str, np.ndarray]]:
    """Type, poses of both lenses and intrinsics of the left one, for all three cameras."""
    kinds, poses, matrices = {}, {}, {}
    for camera, serial in serials(recording.seed).items():
        left = recording.camera_poses[camera]
        right = left.copy()
        right[:, :3, 3] += _STEREO_BASELINE[camera] * left[:, :3, 0]
        kinds[serial] = np.full(len(recording), int(camera != WRIST_CAMERA))  # 0 is the wrist
        for lens, pose in (("left", left), ("right", right)):
            poses[f"{serial}_{lens}"] = pose_vectors(pose)
            if camera == WRIST_CAMERA:
                offset = np.linalg.inv(recording.state["cartesian_pose"]) @ pose
                poses[f"{serial}_{lens}_gripper_offset"] = pose_vectors(offset)
        matrices[f"{serial}_left"] = np.repeat(recording.intrinsics[camera][None], len(recording), axis=0)
    return {
        "observation/camera_type": kinds,
        "observation/camera_extrinsics": poses,
        "observation/camera_intrinsics": matrices,
    }


def _per_second(steps: np.ndarray) -> np.ndarray:
    """Differences (T - 1, ...) as velocities (T, ...); the first step comes from rest."""
    return np.concatenate([np.zeros_like(steps[:1]), steps]) * CONTROL_RATE


def _time_name(moment: datetime) -> str:
    """The release's folder name of a moment, such as Mon_Jan__1_00:05:00_2024."""
    return moment.replace(tzinfo=None).ctime().replace(" ", "_")
