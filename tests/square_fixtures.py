"""Episodes of a bright square, the right hand, that moves over a dark table."""

import numpy as np

from dexworld.track import ArrayFrames, Track

HEIGHT, WIDTH = 96, 144  # of the picture, in pixels
SIDE = 12  # of the square, in pixels
FOCAL = 100.0  # in pixels; the hand is 1 m away


def square_frames(corner: np.ndarray) -> np.ndarray:
    """Pictures (T, H, W, 3) of a square with its upper left corner at `corner` (T, 2), in pixels (u, v)."""
    frames = np.full((len(corner), HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
    for frame, (u, v) in zip(frames, corner, strict=True):
        frame[v : v + SIDE, u : u + SIDE] = 200
    return frames


def square_episode(
    seed: int, corner: np.ndarray, frames: np.ndarray, extras: dict[str, np.ndarray] | None = None
) -> Track:
    """An episode of these pictures: all keypoints of the right hand lie in the middle of the square at `corner`."""
    length, centre = len(corner), np.array([WIDTH, HEIGHT]) / 2
    keypoints, valid = np.zeros((length, 42, 3)), np.zeros((length, 42), dtype=bool)
    keypoints[:, 21:, :2] = ((corner + SIDE / 2 - centre) / FOCAL)[:, None]
    keypoints[:, 21:, 2], valid[:, 21:] = 1.0, True
    return episode_of(f"square {seed}", frames, FOCAL, keypoints, valid, seed, **(extras or {}))


def episode_of(
    source: str, frames: np.ndarray, focal: float, keypoints: np.ndarray, valid: np.ndarray, seed: int, **columns
) -> Track:
    """An episode at 5 frames per second, seen by a camera at the world's origin with its axes."""
    centre = np.array([frames.shape[2], frames.shape[1]]) / 2
    return Track(
        frames=ArrayFrames(frames),
        fps=5.0,
        world_from_camera=np.tile(np.eye(4), (len(frames), 1, 1)),
        intrinsics=np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]]),
        source=source,
        seed=seed,
        columns={"keypoints_world": keypoints, "keypoints_valid": valid, **columns},
    )
