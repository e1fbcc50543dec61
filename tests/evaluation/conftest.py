"""A small DexWM, and two episodes of noise with a hand that drifts through the view of a still camera."""

import numpy as np
import pytest
import torch

from dexworld.hands import NUM_KEYPOINTS, RIGHT
from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.track import ArrayFrames, Track


def drifting_episode(number: int) -> Track:
    generator = np.random.default_rng(number)
    world, valid = np.zeros((7, NUM_KEYPOINTS, 3)), np.zeros((7, NUM_KEYPOINTS), bool)
    world[:, RIGHT], valid[:, RIGHT] = generator.normal([0.0, 0.0, 1.0], 0.05, (21, 3)), True
    world[:, :, 0] += 0.02 * np.arange(7)[:, None] * (1 - 2 * number)
    body = {"body_world": world[:, RIGHT][:, :18] - 0.2, "body_valid": valid[:, RIGHT][:, :18]}
    return Track(
        frames=ArrayFrames(generator.integers(0, 255, (7, 224, 392, 3), dtype=np.uint8)),
        fps=5.0,
        world_from_camera=np.tile(np.eye(4), (7, 1, 1)),
        intrinsics=np.array([[250.0, 0, 196], [0, 250.0, 112], [0, 0, 1]]),
        source=f"drifting {number}",
        task=("push it", "take the cup")[number],
        columns={"keypoints_world": world, "keypoints_valid": valid} | body,
    )


@pytest.fixture(scope="package")
def episodes() -> list[Track]:
    return [drifting_episode(number) for number in range(2)]


@pytest.fixture(scope="module")
def model(episodes) -> DexWM:
    torch.manual_seed(0)
    model = DexWM(PRESETS["debug"])
    model.encoder.fit([torch.from_numpy(episode.frames.array) for episode in episodes])
    return model.eval()
