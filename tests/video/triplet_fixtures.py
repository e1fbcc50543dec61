"""A small made-up world for the triplet tests: a textured wall, a camera that pans over it, a hand."""

import numpy as np

from dexworld.track import Track
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.hand_video import render_track
from dexworld.video.clips.triplet_files import write_triplet

HEIGHT, WIDTH, FRAMES = 48, 64, 9


def hand_points() -> np.ndarray:
    """A flat right hand (21, 3) in metres around its wrist, fingers up in the image."""
    points = [[0.0, 0.0, 0.0]]
    for finger in range(5):
        angle = np.radians([-50, -10, 0, 10, 20][finger])
        direction = np.array([np.sin(angle), -np.cos(angle), 0.0])
        points += [direction * length for length in np.array([0.09, 0.13, 0.155, 0.175]) * (0.7 if finger == 0 else 1)]
    return np.array(points)


def make_track(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> Track:
    """A right hand that moves from left to right half a metre before the camera; the left hand is never seen."""
    points = np.zeros((frames, 42, 3))
    points[:, 21:] = hand_points() + np.array([0.0, 0.06, 0.5])
    points[:, 21:, 0] += np.linspace(-0.1, 0.1, frames)[:, None]
    valid = np.zeros((frames, 42), dtype=bool)
    valid[:, 21:] = True
    intrinsics = np.array([[width * 0.7, 0, width / 2], [0, width * 0.7, height / 2], [0, 0, 1]])
    poses = np.broadcast_to(np.eye(4), (frames, 4, 4))
    columns = {"keypoints_world": points.astype(np.float32), "keypoints_valid": valid}
    return Track(poses.astype(np.float32), intrinsics.astype(np.float32), columns)


def wall(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth random texture (height, width, 3) float, 40 to 215."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(40, 215, (height // 4 + 2, width // 4 + 2, 1)) * [1.0, 0.9, 0.8]
    rows, columns = np.arange(height) / 4, np.arange(width) / 4
    i, j = rows.astype(int), columns.astype(int)
    v, u = (rows - i)[:, None, None], (columns - j)[None, :, None]
    top = coarse[i][:, j] * (1 - u) + coarse[i][:, j + 1] * u
    bottom = coarse[i + 1][:, j] * (1 - u) + coarse[i + 1][:, j + 1] * u
    return top * (1 - v) + bottom * v


def make_clip(
    name: str = "clip", seed: int = 0, frames: int = FRAMES, pan: int = 2, height=HEIGHT, width=WIDTH, **changes
) -> TripletClip:
    """A triplet whose camera pans by `pan` pixels a frame."""
    track = make_track(frames, height, width)
    hands = render_track(track, height, width)
    background = wall(seed, height, width + frames * pan)
    static = np.stack([background[:, t * pan : t * pan + width] for t in range(frames)]).astype(np.uint8)
    interaction = np.where(hands.max(axis=3, keepdims=True) > 0, np.array([200, 150, 120], np.uint8), static)
    fields = {"prompt": "A hand moves.", "track": track, "seed": seed} | changes
    return TripletClip(name, interaction.astype(np.uint8), static, hands, **fields)


def write_clips(root, *names: str, **changes) -> None:
    """Write made-up triplets of these names below `root`."""
    for name in names:
        write_triplet(root, make_clip(name, **changes))
