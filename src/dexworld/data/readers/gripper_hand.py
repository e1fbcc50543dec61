"""A dummy hand for robots with a parallel gripper, so that their motions read like hand motions.

The DexWM paper (appendix C.2, Figure 11) places dummy keypoints on circles around the end effector, whose radii follow
the gripper's opening. The paper gives no radii: those of its released loader are the defaults. That loader draws the
circles in the plane of the robot's base and jumps between two sets of radii at half opening (`official`). By default
they lie in the gripper's own plane and follow smoothly: a turn of the wrist and a slow grasp show in the action.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexworld.hands import FINGERS, GRIPPER_CLOSED_RADII, GRIPPER_OPEN_RADII, NUM_KEYPOINTS, RIGHT


@dataclass(frozen=True)
class GripperHand:
    """How the dummy hand is laid out around a gripper.

    style: `gripper` draws circles perpendicular to the approach axis (z of the end effector's frame) with radii linear
        in the opening; `official` draws them in the xy plane of the robot's base with the open radii above half opening
        and the closed radii at or below it.

    Raises ValueError on another style.
    """

    style: Literal["gripper", "official"] = "gripper"

    def __post_init__(self) -> None:
        if self.style not in ("gripper", "official"):
            raise ValueError(f"dummy hand style is {self.style!r}; choose 'gripper' or 'official' (the release)")

    def keypoints(self, poses: np.ndarray, opening: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The dummy hand as the right hand: keypoints (T, 42, 3) in metres, in the frame of the poses, and valid.

        poses: (T, 4, 4) base_from_gripper. opening: (T,) from 0 (closed) to 1 (open). The wrist is the end effector;
        five fingers follow at angles 2 pi i / 5, counted from the x axis of the circles' plane, four joints each from
        the palm to the tip: the order of `dexworld.hands`.
        """
        centre = poses[:, None, :3, 3]
        angle = 2.0 * np.pi * np.arange(len(FINGERS)) / len(FINGERS)
        spokes = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # (5, 2) in the plane of the circles
        share = ((opening > 0.5).astype(np.float64) if self.style == "official" else opening)[:, None]
        radii = share * np.asarray(GRIPPER_OPEN_RADII) + (1.0 - share) * np.asarray(GRIPPER_CLOSED_RADII)  # (T, 4)
        in_plane = radii[:, None, :, None] * spokes[None, :, None, :]  # (T, 5, 4, 2)
        if self.style == "official":
            offsets = np.concatenate([in_plane, np.zeros_like(in_plane[..., :1])], axis=-1)
        else:
            offsets = np.einsum("tkc,tfjc->tfjk", poses[:, :3, :2], in_plane)  # along x and y of the gripper
        joints = centre + offsets.reshape(len(poses), -1, 3)
        return right_hand(np.concatenate([centre, joints], axis=1))


def right_hand(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (T, 42, 3) and valid (T, 42) bool of the right hand's points (T, 21, 3); the left hand is absent."""
    keypoints, valid = np.zeros((len(points), NUM_KEYPOINTS, 3)), np.zeros((len(points), NUM_KEYPOINTS), dtype=bool)
    keypoints[:, RIGHT], valid[:, RIGHT] = points, True
    return keypoints, valid
