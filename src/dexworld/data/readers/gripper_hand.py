"""A dummy hand for robots with a parallel gripper, so that their motions read like hand motions.

The DexWM paper (appendix C.2, Figure 11) places dummy keypoints on circles around the end effector, whose radii follow
the gripper's opening. The paper gives no radii: those of its released loader are the defaults. That loader draws the
circles in the plane of the robot's base and jumps between two sets of radii at half opening (`official`). By default
they lie in the gripper's own plane and follow smoothly: a turn of the wrist and a slow grasp show in the action.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexworld import hands
from dexworld.hands import JOINTS, KEYPOINTS_PER_HAND, NUM_KEYPOINTS, RIGHT, WRIST

DUMMY_FINGERS = 5


@dataclass(frozen=True)
class GripperHand:
    """How the dummy hand is laid out around a gripper.

    style: `gripper` draws circles perpendicular to the approach axis (z of the end effector's frame) with radii linear
        in the opening; `official` draws them in the xy plane of the robot's base with the open radii above half opening
        and the closed radii at or below it.
    open_radii, closed_radii: metres from the end effector to the four joints of every finger, from the palm to the tip.
    forward: metres along the approach axis from the end effector's origin to the centre of the circles (`gripper` only;
        0 is the paper; DROID's end effector is the flange, the pads of its gripper are about 0.15 further).

    Raises ValueError on another style, on radii that are not four positive numbers and on a non-finite `forward`.
    """

    style: Literal["gripper", "official"] = "gripper"
    open_radii: tuple[float, ...] = hands.GRIPPER_OPEN_RADII
    closed_radii: tuple[float, ...] = hands.GRIPPER_CLOSED_RADII
    forward: float = 0.0

    def __post_init__(self) -> None:
        if self.style not in ("gripper", "official"):
            raise ValueError(f"dummy hand style is {self.style!r}; choose 'gripper' or 'official' (the release)")
        for name in ("open_radii", "closed_radii"):
            radii = getattr(self, name)
            if len(radii) != len(JOINTS) or not all(np.isfinite(radius) and radius > 0 for radius in radii):
                raise ValueError(f"{name} is {radii}; it must be {len(JOINTS)} positive lengths in metres")
        if not np.isfinite(self.forward) or (self.style == "official" and self.forward):
            raise ValueError(f"forward is {self.forward}; it must be finite, and 0 in the official style")

    def points(self, poses: np.ndarray, opening: np.ndarray) -> np.ndarray:
        """Dummy hands (T, 21, 3) in metres, in the frame that the poses are given in.

        poses: (T, 4, 4) base_from_gripper. opening: (T,) from 0 (closed) to 1 (open). Row 0, the wrist, is the end
        effector; then five fingers at angles 2 pi i / 5, counted from the x axis of the circles' plane, four joints
        each from the palm to the tip: the order of `dexworld.hands`.

        Raises ValueError on other shapes, on NaN or Inf and on an opening outside [0, 1].
        """
        poses, opening = np.asarray(poses, dtype=np.float64), np.asarray(opening, dtype=np.float64)
        if poses.ndim != 3 or poses.shape[1:] != (4, 4) or opening.shape != poses.shape[:1]:
            raise ValueError(f"poses {poses.shape} and opening {opening.shape} must be (T, 4, 4) and (T,)")
        if not np.isfinite(poses).all() or not np.isfinite(opening).all():
            raise ValueError("gripper poses or openings hold NaN or Inf")
        if opening.size and not (opening.min() >= 0.0 and opening.max() <= 1.0):
            raise ValueError(f"gripper opening runs from {opening.min()} to {opening.max()}; it must lie in [0, 1]")
        centre = poses[:, :3, 3]
        angle = 2.0 * np.pi * np.arange(DUMMY_FINGERS) / DUMMY_FINGERS
        spokes = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # (5, 2) in the plane of the circles
        share = ((opening > 0.5).astype(np.float64) if self.style == "official" else opening)[:, None]
        radii = share * np.asarray(self.open_radii) + (1.0 - share) * np.asarray(self.closed_radii)  # (T, 4)
        in_plane = radii[:, None, :, None] * spokes[None, :, None, :]  # (T, 5, 4, 2)
        if self.style == "official":
            offsets = np.concatenate([in_plane, np.zeros_like(in_plane[..., :1])], axis=-1)
        else:
            axes = poses[:, :3, :2]  # x and y of the gripper, as columns
            offsets = np.einsum("tkc,tfjc->tfjk", axes, in_plane)
            offsets += self.forward * poses[:, None, None, :3, 2]
        hand = np.empty((len(poses), KEYPOINTS_PER_HAND, 3))
        hand[:, WRIST] = centre
        hand[:, WRIST + 1 :] = (centre[:, None, None] + offsets).reshape(len(poses), -1, 3)
        return hand

    def keypoints(self, poses: np.ndarray, opening: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The dummy hand as the right hand: keypoints (T, 42, 3) in metres and valid (T, 42) bool; no left hand.

        Arguments and errors as for `points`.
        """
        return right_hand(self.points(poses, opening))


def right_hand(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (T, 42, 3) and valid (T, 42) bool of the right hand's points (T, 21, 3); the left hand is absent."""
    keypoints, valid = np.zeros((len(points), NUM_KEYPOINTS, 3)), np.zeros((len(points), NUM_KEYPOINTS), dtype=bool)
    keypoints[:, RIGHT], valid[:, RIGHT] = points, True
    return keypoints, valid
