"""What a visitor tells a hand: where its wrist is, how it is turned, how far each finger is closed.

`FreeHand` moves keypoints; `RobotHand` moves a robot by inverse kinematics, so that a simulator can do the same.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch

from dexworld.evaluation.atomic import curled
from dexworld.geometry import transform_points
from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.planning.hand_space import hand_joints
from dexworld.robots.kinematics import quaternion_matrix
from dexworld.robots.robot import Robot

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
STRAIGHT: Quaternion = (1.0, 0.0, 0.0, 0.0)
LONGEST_STEP = 0.12  # metres of one step of the world model; the shipped one saw hands move by about this much
SMALLEST_STEP = 0.02
LEAST_CLOSING, LEAST_TURN = 0.08, 0.15  # a share, and radians
CURL = 0.9  # radians that each joint of a free hand bends by when its finger closes
OPENING = 0.3  # of it when the finger opens: hands at rest are more open than closed
_ITERATIONS = 8  # of the inverse kinematics


@dataclass(frozen=True)
class HandControl:
    """A pose of the hand, told from where it was at the start.

    offset: of the wrist, metres in the world. turn: (w, x, y, z), about the wrist in the world's axes. closing: of
    thumb, index, middle, ring and little finger, -1 (open) over 0 (as at the start) to 1 (closed).
    """

    offset: Vector = (0.0, 0.0, 0.0)
    turn: Quaternion = STRAIGHT
    closing: tuple[float, ...] = (0.0,) * 5

    def __post_init__(self) -> None:
        numbers = (*self.offset, *self.turn, *self.closing)
        if (len(self.offset), len(self.turn), len(self.closing)) != (3, 4, 5) or not np.isfinite(numbers).all():
            raise ValueError(f"a hand is told three numbers of place, four of turn and five of closing, not {self}")

    def moved(self, shift: np.ndarray) -> "HandControl":
        """The wrist a shift (3,) in metres further."""
        x, y, z = (float(each) for each in np.add(self.offset, shift))
        return replace(self, offset=(x, y, z))

    def closed(self, by: float) -> "HandControl":
        """Every finger closed further by a share; less than 0 opens."""
        return replace(self, closing=tuple(float(np.clip(each + by, -1.0, 1.0)) for each in self.closing))

    def with_finger(self, finger: int, closing: float) -> "HandControl":
        """One finger, 0 (thumb) to 4, closed by a share."""
        told = list(self.closing)
        told[finger] = float(np.clip(closing, -1.0, 1.0))
        return replace(self, closing=tuple(told))

    def steps_to(self, goal: "HandControl") -> int:
        """World-model steps from here to the goal; 0 where it is too near for one."""
        way = float(np.linalg.norm(np.subtract(goal.offset, self.offset)))
        closes = float(np.abs(np.subtract(goal.closing, self.closing)).max())
        cosine = min(1.0, abs(float(np.dot(goal.turn, self.turn))))
        if way < SMALLEST_STEP and closes < LEAST_CLOSING and 2 * np.arccos(cosine) < LEAST_TURN:
            return 0
        return max(1, int(np.ceil(way / LONGEST_STEP - 1e-6)), int(np.ceil(closes - 1e-6)))

    def towards(self, goal: "HandControl") -> "HandControl":
        """The next pose on the way to the goal, one step of the world model further."""
        share = 1.0 / max(1, self.steps_to(goal))
        start, end = np.array(self.turn), np.array(goal.turn)
        turn = start + share * ((end if start @ end >= 0 else -end) - start)
        w, i, j, k = (float(each) for each in turn / max(1e-9, float(np.linalg.norm(turn))))
        x, y, z = (float(each) for each in np.add(self.offset, share * np.subtract(goal.offset, self.offset)))
        closing = np.add(self.closing, share * np.subtract(goal.closing, self.closing))
        return HandControl((x, y, z), (w, i, j, k), tuple(float(each) for each in closing))


class BodyPose(NamedTuple):
    """Keypoints (42, 3) in metres, world, and for a robot its joints (J,)."""

    keypoints: np.ndarray
    joints: np.ndarray | None = None


class HandBody(Protocol):
    """What can be told a `HandControl`."""

    def pose(self, control: HandControl, before: BodyPose) -> BodyPose:
        """The pose told; `before` is where it comes from."""


@dataclass(frozen=True)
class FreeHand:
    """A hand that floats: keypoints (42, 3) at the start, in metres, of which one side moves."""

    keypoints: np.ndarray
    side: Literal["left", "right"] = "right"

    def pose(self, control: HandControl, before: BodyPose) -> BodyPose:
        """See `HandBody.pose`."""
        rows = LEFT if self.side == "left" else RIGHT
        closing = np.array(control.closing)
        hand = curled(self.keypoints[rows], CURL * np.where(closing < 0, OPENING * closing, closing), self.side)
        wrist, keypoints = hand[WRIST], self.keypoints.copy()
        keypoints[rows] = wrist + (hand - wrist) @ quaternion_matrix(control.turn).T + np.array(control.offset)
        return BodyPose(keypoints)


class RobotHand:
    """A robot's hand, from joints (J,) on; its arm follows as far as it reaches. world_from_base: (4, 4)."""

    def __init__(self, robot: Robot, joints: np.ndarray, world_from_base: np.ndarray) -> None:
        self.robot, self.start = robot, torch.as_tensor(joints, dtype=torch.float64)
        self.world_from_base = torch.as_tensor(world_from_base, dtype=torch.float64)
        pose = robot.forward(self.start)
        self._wrist, self._rotation = pose.wrist, pose.hand_rotation

    def keypoints(self, joints: torch.Tensor) -> np.ndarray:
        """Keypoints (42, 3) in the world, zero where the robot has none."""
        pose = self.robot.forward(joints)
        return np.where(pose.valid[:, None], transform_points(self.world_from_base, pose.keypoints), 0.0)

    def pose(self, control: HandControl, before: BodyPose) -> BodyPose:
        """See `HandBody.pose`."""
        base = self.world_from_base[:3, :3]
        wrist = self._wrist + torch.tensor(control.offset, dtype=torch.float64) @ base
        turn = torch.as_tensor(np.asarray(quaternion_matrix(control.turn)), dtype=torch.float64)
        rotation = base.T @ turn @ base @ self._rotation
        joints = torch.as_tensor(before.joints if before.joints is not None else self.start, dtype=torch.float64)
        joints = torch.cat([joints[self.robot.arm], self._fingers(control)])
        found = hand_joints(self.robot, joints, self.robot.limits, wrist, rotation, _ITERATIONS)
        return BodyPose(self.keypoints(found), found.numpy())

    def _fingers(self, control: HandControl) -> torch.Tensor:
        """Finger joints (F,). The four fingers of a hand follow index, middle, ring and thumb."""
        start, grip = self.start[self.robot.fingers], self.robot.grip
        if grip is None:
            return start
        opened, closed = (torch.tensor(each, dtype=torch.float64) for each in (grip.opened, grip.closed))
        per_finger = torch.tensor([control.closing[finger] for finger in (1, 2, 3, 0)], dtype=torch.float64)
        share = per_finger.repeat_interleave(len(start) // 4)
        told = torch.where(share < 0, start - share * (opened - start), start + share * (closed - start))
        return self.robot.clamp(torch.cat([self.start[self.robot.arm], told]))[self.robot.fingers]
