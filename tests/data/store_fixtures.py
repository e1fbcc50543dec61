"""Stores of numbered frames and random labels, written pack by pack."""

from pathlib import Path

import numpy as np
from lerobot_fixtures import numbered_frame

from dexworld.data.store.assemble import assemble
from dexworld.data.store.packs import read_records, write_pack
from dexworld.data.store.prepared_dataset import open_prepared
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.track import ArrayFrames, Track

SIZE = (64, 96)
SETTINGS = PrepareSettings(height=64, pack_episodes=3, fps=10.0, width=96)


def make_episode(number: int, length: int = 25, size=SIZE, **changes) -> Track:
    """Frame t of episode `number` shows the number 100 `number` + t; all labels are random."""
    generator = np.random.default_rng(number)
    keypoints = generator.normal((0, 0, 0.5), 0.03, size=(length, 42, 3))  # of a hand's size, before the camera
    valid, poses = generator.random((length, 42)) > 0.2, np.tile(np.eye(4), (length, 1, 1))
    keypoints[~valid] = np.nan
    poses[:, :3, 3] = generator.normal(scale=0.01, size=(length, 3))
    fields = {
        "frames": ArrayFrames(np.stack([numbered_frame(100 * number + time, size) for time in range(length)])),
        "fps": 10.0,
        "world_from_camera": poses,
        "intrinsics": np.array([[60.0, 0, size[1] / 2], [0, 61, size[0] / 2], [0, 0, 1]]),
        "source": f"test episode {number}",
        "task": f"task {number % 2}",
        "seed": number,
    }
    columns = {
        "keypoint_confidence": generator.random((length, 42)),
        "object_motion": generator.random(length).astype(np.float32),
    }
    known = {"keypoints_world": keypoints, "keypoints_valid": valid}
    return Track(**(fields | changes | {"columns": known | changes.get("columns", columns)}))


def prepare(folder: Path, packs, settings=SETTINGS, **arguments):
    for number, items in enumerate(packs):
        write_pack(folder, number, items, settings)
    assemble(folder, read_records(folder), {"source": "tests"}, **arguments)
    return open_prepared(folder)
