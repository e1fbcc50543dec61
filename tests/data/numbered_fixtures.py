"""Small datasets whose latents say which frame they are."""

import numpy as np
import torch

from dexworld.data.recordings import EpisodeWriter
from dexworld.track import ArrayFrames, Track


def make_numbered_episode(number: int, length: int, moving_from: int | None = None) -> Track:
    """Frame t of episode `number` has brightness 5 t; its keypoints, camera and intrinsics hold number and t."""
    time = np.arange(length)
    frames = np.broadcast_to((5 * time).astype(np.uint8)[:, None, None, None], (length, 32, 32, 3)).copy()
    keypoints = np.zeros((length, 42, 3))
    keypoints[..., 0], keypoints[..., 1] = number, time[:, None]
    keypoints[:, 0] = np.nan
    valid = np.ones((length, 42), dtype=bool)
    valid[:, 0] = False
    cameras = np.tile(np.eye(4), (length, 1, 1))
    cameras[:, 0, 3] = time
    extras = {} if moving_from is None else {"object_motion": np.where(time >= moving_from, 0.01, 0.0)}
    return Track(
        frames=ArrayFrames(frames),
        fps=5.0,
        world_from_camera=cameras,
        intrinsics=np.diag([number + 1.0, number + 1.0, 1.0]),
        source=f"test episode {number}",
        seed=number,
        columns={"keypoints_world": keypoints, "keypoints_valid": valid, **extras},
    )


def encode_brightness(images: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) to (B, 2, 3): two patches that hold the frame's brightness."""
    return images.float().mean(dim=(1, 2, 3))[:, None, None].expand(-1, 2, 3)


def write_numbered_dataset(folder, lengths, moving_from=None):
    writer = EpisodeWriter(folder, {"made by": "tests"})
    for number, length in enumerate(lengths):
        writer.write(f"{number:04d}", make_numbered_episode(number, length, moving_from))
    return writer.finish()
