"""DROID's gripper, whichever edition it comes from: poses and openings out of raw numbers, checked."""

import numpy as np

from dexworld.data.readers.droid_camera import MAX_ANGLE, poses_from_euler
from dexworld.data.readers.robot_arrays import check_numbers
from dexworld.data.source import CorruptEpisodeError

MAX_REACH = 2.0  # metres from the base to the gripper; the arm reaches 0.86
SLACK = 0.1  # how far a gripper's position may lie outside 0 to 1


def gripper_poses(cartesian_position: np.ndarray, where: str) -> np.ndarray:
    """base_from_gripper (T, 4, 4) of (T, 6): x, y, z in metres and extrinsic x-y-z Euler angles in radians.

    Raises CorruptEpisodeError starting with `where` on NaN, and on positions that the arm can't reach.
    """
    check_numbers(cartesian_position, MAX_ANGLE, where)
    far = np.linalg.norm(cartesian_position[:, :3], axis=1) > MAX_REACH
    if far.any():
        raise CorruptEpisodeError(
            f"{where} is {cartesian_position[far][0, :3].tolist()} m from the base at row {int(np.argmax(far))}, "
            "further than the arm reaches"
        )
    return poses_from_euler(cartesian_position)


def gripper_opening(gripper_position: np.ndarray, where: str) -> np.ndarray:
    """Opening (T,) from 0 (closed) to 1 (open) of DROID's (T,) `gripper_position`, which is 0 open and 1 closed.

    Raises CorruptEpisodeError starting with `where` on NaN and on values far outside that.
    """
    check_numbers(gripper_position, 1.0 + SLACK, where)
    if gripper_position.min() < -SLACK:
        raise CorruptEpisodeError(f"{where} goes down to {gripper_position.min():g}; it runs from 0 to 1")
    return np.clip(1.0 - gripper_position, 0.0, 1.0)
