import numpy as np
import pytest
import torch

from dexworld.track import Track
from dexworld.video.clips.clip import TripletClip
from dexworld.video.model.dwm import DWM
from dexworld.video.model.video_config import preset
from hand_fixtures import curled_hands


def moving_square(seed, frames=5, height=32, width=48):
    """A clip in which a bright hand slides over a textured scene and leaves a mark; with keypoints that follow it."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(rng.integers(60, 140, (height // 4, width // 4, 3), dtype=np.uint8), 4, axis=0).repeat(4, axis=1)
    static = np.repeat(scene[None], frames, axis=0)
    interaction, hands = static.copy(), np.zeros_like(static)
    row, column, step = rng.integers(2, 14), rng.integers(2, 10), rng.integers(2, 6)
    for frame in range(frames):
        place = (frame, slice(row, row + 10), slice(column + step * frame, column + step * frame + 10))
        interaction[place] = (230, 180, 150)
        hands[place] = (120, 200, 120)
    valid = np.zeros((frames, 42), dtype=bool)
    valid[:, :21] = True
    points = np.zeros((frames, 42, 3), dtype=np.float32)
    points[:, :21] = curled_hands(1)[0, 0]
    points[:, :21, 0] += 0.02 * step * np.arange(frames)[:, None]
    intrinsics = np.array([[40, 0, width / 2], [0, 40, height / 2], [0, 0, 1]], dtype=np.float32)
    poses = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    track = Track(poses, intrinsics, {"keypoints_world": points, "keypoints_valid": valid})
    return TripletClip(f"clip{seed:03d}", interaction, static, hands, f"A hand slides, {seed}.", 8.0, track, seed)


@pytest.fixture(scope="session")
def square_clips():
    return [moving_square(seed) for seed in range(12)]


@pytest.fixture(scope="session")
def make_dwm(square_clips):
    """A debug-sized model whose output layer isn't zero, with a fitted codec."""

    def make(output_scale=0.05, seed=0, **changes):
        from dataclasses import replace

        torch.manual_seed(seed)
        model = DWM(replace(preset("debug"), **changes))
        model.codec.fit([torch.from_numpy(np.stack([clip.interaction for clip in square_clips]))])
        if output_scale:
            torch.nn.init.normal_(model.backbone.transformer.proj_out.weight, std=output_scale)
        return model.eval()

    return make
