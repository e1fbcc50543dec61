"""A small dataset: both hands, one hand, a jump, and an episode that damage keeps from being read."""

import numpy as np

from dexworld.data.recordings import EpisodeWriter
from dexworld.track import ArrayFrames, Track
from hand_fixtures import curled_hands, pinhole_of

SIZE = (48, 64)  # height, width
FRAMES = 12
TASKS = ("open the drawer", "push the cup", "push the plate", "wave")


def episode(number):
    """Episode 1 has a right hand only, episode 2 a hand that jumps; pictures tell the frame by their brightness."""
    points = curled_hands(FRAMES).reshape(FRAMES, 42, 3).astype(np.float32)
    valid = np.ones((FRAMES, 42), dtype=bool)
    if number == 1:
        valid[:, :21] = False
        valid[5, 30] = False
    if number == 2:
        points[6:, 21:, 0] += 2.0
    frames = np.broadcast_to(np.arange(FRAMES, dtype=np.uint8)[:, None, None, None] * 15 + 40, (FRAMES, *SIZE, 3))
    poses = np.tile(np.eye(4, dtype=np.float32), (FRAMES, 1, 1))
    poses[:, 0, 3] = 0.001 * np.arange(FRAMES)
    columns = {"keypoints_world": points, "keypoints_valid": valid}
    columns["action"] = np.linspace(0, number + 1, FRAMES)[:, None] * np.array([1.0, -1.0])
    return Track(poses, pinhole_of(*SIZE), columns, 10.0, ArrayFrames(frames.copy()), task=TASKS[number])


def write_small_dataset(folder):
    """Four episodes in our own layout."""
    writer = EpisodeWriter(folder, {"generator": "test"})
    for number in range(4):
        writer.write(f"e{number}", episode(number))
    return writer.finish()


def damage(folder, name):
    """Spoil an episode's video; a folder that is open already finds it when it reads that episode."""
    video = folder / "episodes" / f"{name}.mp4"
    video.write_bytes(video.read_bytes()[:-40] + bytes(40))
