"""Write episodes in EgoDex's own layout (`dexworld.data.readers.egodex`), so that its reader reads simulated ones.

The video is H.264 with long groups of pictures and B-frames, as phones and headsets write it; poses are float32.

World: as ARKit's, y against gravity, on the floor below the person; x to the person's right, z backwards. `camera` is
the optical frame (x right, y down, z forward). Joint frames: `leftHand` and `rightHand` are the recorded wrist poses (z
along the stretched fingers, x out of the palm, y to the right hand's thumb, away from the left hand's). Every other
joint's z points along its bone to the next joint of the chain, a last one's as the one before; x is the palm's side of
it (thumb: the side that it bends to; body: ahead). Real recordings have ARKit's own axes: compare positions, not axes.

What the real files don't have: attributes `dexworld_seed` (the scene, absent for other episodes) and
`dexworld_synthetic` (what is made up). Sources: EgoDex's page and repository (layout, names, attributes).
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import h5py
import numpy as np

from dexworld.data.files import written_atomically
from dexworld.data.readers.egodex import JOINT_NAMES
from dexworld.hands import FINGERS, JOINTS, KEYPOINT_NAMES, LEFT, RIGHT
from dexworld.sim.hands.human_hands import SIDES
from dexworld.sim.kitchen.kitchen_scene import TRAINING_SEEDS
from dexworld.track import Track

SEED_ATTRIBUTE = "dexworld_seed"
SYNTHETIC = (
    "All of it is simulated. Upper body joints follow from camera and wrists; only hands, camera and scene move."
)
_COLUMNS = ("hand_poses_world", "hand_metacarpals_world", "body_world")
WORLD_FROM_SIMULATOR = np.array([[0.0, -1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
# Macroblock trees make the bytes differ from one encoding to the next, which a resumed collection would show.
_ENCODING = {"preset": "veryfast", "crf": "20", "g": "250", "bf": "2", "b-adapt": "1", "mbtree": "0"}
_SPINE = ("hip", *(f"spine{number}" for number in range(1, 8)), *(f"neck{number}" for number in range(1, 5)))


@dataclass(frozen=True)
class EgoDexLabels:
    """The words of an EgoDex file: name of its folder, what is done in one sentence, with what, and where."""

    task: str
    description: str
    verbs: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    environment: str = "simulated kitchen counter"

    def __post_init__(self) -> None:
        if not self.task or not all(letter.isalnum() or letter == "_" for letter in self.task):
            raise ValueError(f"task {self.task!r} names a folder: letters, digits and underscores")


def split_of(seed: int) -> str:
    """The split that a scene belongs to: `part1` for training scenes, `test` for the held-out ones."""
    return "part1" if seed in TRAINING_SEEDS else "test"


def in_arkit_world(episode: Track) -> Track:
    """The same episode with every pose and point in a y-up world. All its columns in the world frame turn along."""
    turn, columns = WORLD_FROM_SIMULATOR, dict(episode.columns)
    for name in ("keypoints_world", *_COLUMNS):
        if name in columns:
            turned = turn @ columns[name] if name == "hand_poses_world" else columns[name] @ turn[:3, :3].T
            columns[name] = turned.astype(columns[name].dtype)
    return replace(episode, world_from_camera=turn @ episode.world_from_camera, columns=columns)


def write_egodex(folder: Path, number: int, episode: Track, labels: EgoDexLabels, split: str) -> Path:
    """Write one episode of a y-up world as `folder/split/task/number.{mp4,hdf5}`; returns the path of the hdf5.

    The hdf5 appears last and whole: without it the episode doesn't count. Needs the columns `hand_poses_world`,
    `hand_metacarpals_world` and `body_world`; `keypoint_confidence` is 1 where it is missing. Raises ValueError naming
    what is missing, and for keypoints that are not valid, which the layout can't express.
    """
    missing = set(_COLUMNS) - set(episode.columns)
    if missing:
        raise ValueError(f"{episode.source}: EgoDex's layout needs the columns {', '.join(sorted(missing))}")
    if not episode.keypoints_valid.all():
        frame = int(np.argmin(episode.keypoints_valid.all(axis=1)))
        raise ValueError(f"{episode.source}: frame {frame} has keypoints without a value; EgoDex tracks every joint")
    path = folder / split / labels.task / f"{number}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path.with_suffix(".mp4")) as temporary:
        write_long_gop_video(temporary, episode)
    poses = joint_poses(episode).astype(np.float32)
    sure, given = np.ones((len(episode), len(JOINT_NAMES)), np.float32), episode.columns.get("keypoint_confidence")
    if given is not None:
        sure[:, : len(KEYPOINT_NAMES)] = given
        sure[:, 42:46], sure[:, 46:50] = given[:, LEFT][:, :1], given[:, RIGHT][:, :1]  # as sure as the wrist beside it
    texts = {
        "task": labels.task,
        "llm_description": labels.description,
        "llm_description2": "",
        "which_llm_description": "1",
        "llm_verbs": list(labels.verbs),
        "llm_objects": list(labels.objects),
        "environment": labels.environment,
        "object": ", ".join(labels.objects),
        "session_name": "dexworld" if episode.seed is None else f"dexworld-seed-{episode.seed}",
        "dexworld_synthetic": SYNTHETIC,
    }
    with written_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("camera/intrinsic", data=episode.intrinsics.astype(np.float32))
        file.create_dataset("transforms/camera", data=episode.world_from_camera.astype(np.float32))
        for index, name in enumerate(JOINT_NAMES):
            file.create_dataset(f"transforms/{name}", data=poses[:, index])
            file.create_dataset(f"confidences/{name}", data=sure[:, index])
        file.attrs.update(texts if episode.seed is None else texts | {SEED_ATTRIBUTE: episode.seed})
    return path


def write_long_gop_video(path: Path, episode: Track) -> None:
    """H.264 with up to 250 frames from one key frame to the next and B-frames, mp4 whatever the path's suffix is."""
    height, width = episode.frames.size
    rate = Fraction(episode.fps).limit_denominator(1001)
    with av.open(str(path), mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=dict(_ENCODING))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # collection runs one process per core
        for index in range(len(episode)):
            (picture,) = episode.frames.read([index])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


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
