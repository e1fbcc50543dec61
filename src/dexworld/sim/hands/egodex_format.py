"""Write human videos in EgoDex's own layout (`dexworld.data.readers.egodex`), so that its reader reads them.

The video is H.264 with long groups of pictures and B-frames, as phones and headsets write it; poses are float32.

World: as ARKit's, y against gravity, on the floor below the person; x to the person's right, z backwards. `camera` is
the optical frame (x right, y down, z forward). Joint frames: `leftHand` and `rightHand` are the recorded wrist poses (z
along the stretched fingers, x out of the palm, y to the right hand's thumb, away from the left hand's). Every other
joint's z points along its bone to the next joint of the chain, a last one's as the one before; x is the palm's side of
it (thumb: the side that it bends to; body: ahead). Real recordings have ARKit's own axes: compare positions, not axes.

What the real files don't have: attributes `dexworld_seed` (the scene) and `dexworld_synthetic` (what is
made up). Sources: EgoDex's page and repository (layout, names, attributes).
"""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dexworld.data.readers.egodex import JOINT_NAMES
from dexworld.data.video import encode_h264
from dexworld.hands import FINGERS, JOINTS, KEYPOINT_NAMES, LEFT, RIGHT
from dexworld.sim.hands.human_hands import SIDES
from dexworld.sim.hands.human_video import HumanVideo
from dexworld.sim.kitchen.kitchen_scene import TRAINING_SEEDS
from dexworld.track import Track
from dexworld.writing import written_atomically

SEED_ATTRIBUTE = "dexworld_seed"
SYNTHETIC = (
    "All of it is simulated. Upper body joints follow from camera and wrists; only hands, camera and scene move."
)
WORLD_FROM_SIMULATOR = np.array([[0.0, -1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
# Macroblock trees make the bytes differ from one encoding to the next, which a resumed collection would show.
_ENCODING = {"preset": "veryfast", "crf": "20", "g": "250", "bf": "2", "b-adapt": "1", "mbtree": "0"}
_VERBS = {"reach": "reach", "push": "push", "grasp": "grasp", "drawer": "open", "door": "open"}
_TASKS = {
    "drawer": "open_drawer",
    "door": "open_cabinet_door",
    "grasp": "pick_and_place_objects",
    "push": "push_objects",
    "reach": "reach_for_objects",
}  # from the rarest skill on
_SPINE = ("hip", *(f"spine{number}" for number in range(1, 8)), *(f"neck{number}" for number in range(1, 5)))


def split_of(seed: int) -> str:
    """The split that a scene belongs to: `part1` for training scenes, `test` for the held-out ones."""
    return "part1" if seed in TRAINING_SEEDS else "test"


def task_of(video: HumanVideo) -> str:
    """The task that names a recording's folder: the rarest thing that is done in it."""
    skills = {script.skill for act in video.acts for script in act.acting}
    return next((name for skill, name in _TASKS.items() if skill in skills), "rest_hands")


def in_arkit_world(episode: Track) -> Track:
    """The same episode with every pose and point in a y-up world."""
    turn, columns = WORLD_FROM_SIMULATOR, dict(episode.columns)
    for name in ("keypoints_world", "hand_poses_world", "hand_metacarpals_world", "body_world", "object_positions"):
        turned = turn @ columns[name] if name == "hand_poses_world" else columns[name] @ turn[:3, :3].T
        columns[name] = turned.astype(columns[name].dtype)
    return replace(episode, world_from_camera=turn @ episode.world_from_camera, columns=columns)


def write_egodex(folder: Path, video: HumanVideo) -> Path:
    """Write a recording as `folder/SPLIT/TASK/SEED.{mp4,hdf5}`; returns the path of the hdf5.

    The video is H.264 with up to 250 frames from one key frame to the next and B-frames. The hdf5 appears last and
    whole: without it the episode doesn't count.
    """
    episode = in_arkit_world(video.episode)
    assert episode.seed is not None
    path = folder / split_of(episode.seed) / task_of(video) / f"{episode.seed}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path.with_suffix(".mp4")) as temporary:
        frames = episode.frames.read(list(range(len(episode))))
        encode_h264(str(temporary), frames, Fraction(episode.fps).limit_denominator(1001), _ENCODING)
    poses, sure = joint_poses(episode).astype(np.float32), np.ones((len(episode), len(JOINT_NAMES)), np.float32)
    sure[:, : len(KEYPOINT_NAMES)] = given = episode.columns["keypoint_confidence"]
    sure[:, 42:46], sure[:, 46:50] = given[:, LEFT][:, :1], given[:, RIGHT][:, :1]  # as sure as the wrist beside it
    with written_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("camera/intrinsic", data=episode.intrinsics.astype(np.float32))
        file.create_dataset("transforms/camera", data=episode.world_from_camera.astype(np.float32))
        for index, name in enumerate(JOINT_NAMES):
            file.create_dataset(f"transforms/{name}", data=poses[:, index])
            file.create_dataset(f"confidences/{name}", data=sure[:, index])
        for name in ("object_positions", "object_motion"):
            file.create_dataset(f"dexworld/{name}", data=episode.columns[name])
        file.attrs.update(_attributes(video))
    return path


def _attributes(video: HumanVideo) -> dict[str, Any]:
    """The words of an EgoDex file: what is done, with what, and where."""
    done = [script for act in video.acts for script in act.acting]
    things = [video.names[script.target] if script.target >= 0 else script.skill for script in done]
    objects = list(dict.fromkeys(things))
    return {
        "task": task_of(video),
        "llm_description": video.episode.task,
        "llm_description2": "",
        "which_llm_description": "1",
        "llm_verbs": list(dict.fromkeys(_VERBS[script.skill] for script in done)),
        "llm_objects": objects,
        "environment": "simulated kitchen counter",
        "object": ", ".join(objects),
        "session_name": f"dexworld-seed-{video.episode.seed}",
        "dexworld_synthetic": SYNTHETIC,
        SEED_ATTRIBUTE: video.episode.seed,
    }


def joint_poses(episode: Track) -> np.ndarray:
    """World poses (T, 68, 4, 4) float64 of the joints in the order of `JOINT_NAMES`; see the module for their axes."""
    parts = [episode.keypoints_world, episode.columns["hand_metacarpals_world"], episode.columns["body_world"]]
    places = np.concatenate(parts, axis=1).astype(float)
    poses = np.tile(np.eye(4), (*places.shape[:2], 1, 1))
    poses[..., :3, 3] = places
    wrists = episode.columns["hand_poses_world"].astype(float)
    ahead = np.array(episode.world_from_camera[:, :3, 2], float)  # where the camera looks (T, 3), made level
    ahead[:, 1] = 0.0
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    for side, name in enumerate(SIDES):
        wrist, turn = JOINT_NAMES.index(f"{name}Hand"), wrists[:, side, :3, :3]
        for finger in FINGERS:
            metacarpal = [] if finger == "Thumb" else [f"{name}{finger}Metacarpal"]
            chain = [*metacarpal, *(f"{name}{finger}{joint}" for joint in JOINTS)]
            _turn_chain(poses, chain, turn[..., 2] if finger == "Thumb" else turn[..., 0])
        _turn_chain(poses, [f"{name}Shoulder", f"{name}Arm", f"{name}Forearm", f"{name}Hand"], ahead)
        poses[:, wrist, :3, :3] = turn
    _turn_chain(poses, list(_SPINE), ahead)
    return poses


def _turn_chain(poses: np.ndarray, names: list[str], side: np.ndarray) -> None:
    """Turn the joints of a chain: z to the next joint, x as near to `side` (T, 3) as that leaves."""
    rows = [JOINT_NAMES.index(name) for name in names]
    for row, following in pairwise(rows):
        along = poses[:, following, :3, 3] - poses[:, row, :3, 3]
        along = along / np.linalg.norm(along, axis=1, keepdims=True)
        across = side - along * (side * along).sum(axis=1, keepdims=True)
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        poses[:, row, :3, :3] = np.stack([across, np.cross(along, across), along], axis=-1)
    poses[:, rows[-1], :3, :3] = poses[:, rows[-2], :3, :3]
