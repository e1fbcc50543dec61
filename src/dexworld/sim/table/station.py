"""Where a described robot works: a table under its palm, and poses of the hand over it.

A hand without an arm hangs on a carrier of three slides. Under an arm the table is put where it brings its palm,
turned down, to the most places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from dexworld.robots.carrier import SLIDES, on_carrier
from dexworld.robots.described_robot import DescribedRobot, chosen_robot
from dexworld.robots.hand_ik import hand_joints
from dexworld.sim.poses import orient, turn_about_z

TABLE_HALF = 0.3  # metres
_OVER = 0.12  # metres between the table and the lowest place of the hand at rest
_PITCH = math.radians(35.0)  # of the fingers, downward
_TRIED, _NEAR, _STARTS = 2048, 0.15, 8
_HAND = 0.3  # metres from the wrist: what further out is no hand
_IN_REACH = 0.03  # metres that a wrist may stay off
_STEPS = 40  # of the inverse kinematics


class OutOfReach(ValueError):
    """A place that the hand can't be brought to."""


@dataclass(frozen=True)
class Station:
    """A robot at its table; places in the base's frame, which is the world's. Metres.

    rest: joint positions (J,), palm down over the middle. centre: (3,) of the table's top. ahead: unit vector (3,),
    where the fingers point on the table. low: height of the wrist over the table at which the hand nearly touches it.
    opened, closed: joint positions of the fingers (F,).
    """

    robot: DescribedRobot
    rest: np.ndarray
    centre: np.ndarray
    ahead: np.ndarray
    low: float
    opened: np.ndarray
    closed: np.ndarray

    def hand_at(self, place: Sequence[float], turn: float = 0.0, bent: float = 0.0) -> np.ndarray:
        """Joint positions (J,) with the wrist at `place`: metres ahead, to the left and above the table's middle.

        turn: of the hand about the vertical, radians, where the arm can. bent: share of the fingers' way from open to
        closed. Raises OutOfReach.
        """
        left = np.cross([0.0, 0.0, 1.0], self.ahead)
        wrist = self.centre + place[0] * self.ahead + place[1] * left + [0.0, 0.0, place[2]]
        joints, off = _solved(self.robot, self.rest[None], wrist, turn_about_z(turn) @ _palm_down(self.ahead))
        if off[0] > _IN_REACH:
            raise OutOfReach(f"the wrist stays {off[0]:.2f} m away from where it should be")
        joints[0, self.robot.fingers] = self.opened + bent * (self.closed - self.opened)
        return joints[0]


@cache
def station(robot: str) -> Station:
    """The station of a robot as `described_robot.chosen_robot` names it: a description's file or a shipped name."""
    return station_of(chosen_robot(robot))


def station_of(robot: DescribedRobot) -> Station:
    """The station of a robot. Raises ValueError for an arm that can't turn its palm down."""
    if robot.arm.stop < len(SLIDES):
        robot = on_carrier(robot, _palm_down(np.array([1.0, 0.0, 0.0])))
    opened, closed = _finger_ends(robot)
    rest, ahead = _rest(robot, opened)
    pose = robot.forward(torch.from_numpy(rest))
    wrist, (centres, radii) = pose.wrist.numpy(), robot.outline(pose)
    near = (centres - pose.wrist).norm(dim=-1) < _HAND
    lowest = float((centres[near, 2] - radii[near]).min())
    centre = np.array([wrist[0], wrist[1], lowest - _OVER])
    return Station(robot, rest, centre, ahead, float(wrist[2] - lowest), opened, closed)


def _palm_down(ahead: np.ndarray) -> np.ndarray:
    """Axes (3, 3) of a palm that faces the table, its fingers pointing `ahead` (3,) and down."""
    return orient(math.cos(_PITCH) * ahead - [0.0, 0.0, math.sin(_PITCH)], [0.0, 0.0, -1.0])


def _finger_ends(robot: DescribedRobot) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions (F,) of the open and of the closed hand: those of its grip, or as far as its limits go from 0 to
    the further one, if one is much further.
    """
    if robot.grip is not None:
        return np.array(robot.grip.opened), np.array(robot.grip.closed)
    low, high = robot.limits[robot.fingers].numpy().T
    opened = np.clip(0.0, low, high)
    spreads = np.abs(low + high) < 0.2 * (high - low)
    return opened, np.where(spreads, opened, np.where(np.abs(low) > np.abs(high), low, high))


def _rest(robot: DescribedRobot, opened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions (J,) with the palm down where the arm can bring it about most, and where the fingers point."""
    low, high = robot.limits.unbind(-1)
    tried = low + (high - low) * torch.rand(_TRIED, len(low), generator=torch.Generator().manual_seed(0)).double()
    tried[:, robot.fingers] = torch.from_numpy(opened)
    pose = robot.forward(tried)
    down = torch.nonzero(pose.hand_rotation[:, 2, 0] < -0.6)[:, 0]
    if not len(down):
        raise ValueError(f"{robot.description.source}: the arm turns its palm down nowhere; check `palm` and the base")
    wrists = pose.wrist[down]
    crowd = (torch.cdist(wrists, wrists) < _NEAR).sum(-1)
    middle = wrists[crowd.argmax()]
    starts = down[(wrists - middle).norm(dim=-1).argsort()[:_STARTS]]
    ahead = pose.hand_rotation[starts, :, 2].mean(0).numpy() * [1.0, 1.0, 0.0]
    ahead /= np.linalg.norm(ahead)
    joints, off = _solved(robot, tried[starts].numpy(), middle.numpy(), _palm_down(ahead))
    return joints[off.argmin()], ahead


def _solved(
    robot: DescribedRobot, joints: np.ndarray, wrist: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions (N, J), from others, that bring wrist and palm to a pose, and how far off wrists stay (N,)."""
    wanted = torch.from_numpy(wrist).expand(len(joints), 3)
    turned = torch.from_numpy(np.ascontiguousarray(rotation)).expand(len(joints), 3, 3)
    found = hand_joints(robot, torch.from_numpy(joints), robot.limits, wanted, turned, _STEPS)
    return found.numpy(), (robot.forward(found).wrist - wanted).norm(dim=-1).numpy()
