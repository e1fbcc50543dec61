"""The last thing before a robot: commands within the limits of joints, workspace, keep-out boxes and the robot itself.

`dexworld_client.joint_filter` has the part that needs no kinematics. Nothing replaces a robot's own emergency stop.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dexworld.robots.boxes import Box, Boxes
from dexworld.robots.robot import Robot

try:
    from dexworld_client.control_loop import MOVING
    from dexworld_client.joint_filter import JointFilter, JointLimits
except ModuleNotFoundError as error:
    raise ImportError("the safety filter needs dexworld-client; pip install ./client 'dexworld[serve]'") from error

logger = logging.getLogger(__name__)
FAULTS = ("keep_out", "workspace", "self_collision")
_APART = 3  # joints of the arms between two parts that may touch each other
_BISECTIONS = 4  # of the step that is left when the whole one doesn't do
_ALONG = 16  # places on the way to a waypoint
_ROUNDING = 1e-6  # metres, of float32


@dataclass(frozen=True)
class Margins:
    """What the filter leaves of a robot's limits. position: radians off either end. velocity, acceleration: shares of
    the robot's `motion`. distance: metres added to every sphere.
    """

    position: float = 0.01
    velocity: float = 0.5
    acceleration: float = 0.8
    distance: float = 0.01

    def __post_init__(self) -> None:
        if self.position < 0 or self.distance < 0 or not 0 < self.velocity <= 1 or not 0 < self.acceleration <= 1:
            raise ValueError(f"margins must not be negative, and shares lie between 0 and 1, not {self}")


def joint_limits(robot: Robot, margins: Margins = Margins()) -> JointLimits:
    """A robot's limits less the margins. Raises ValueError for a robot that doesn't say its `motion`."""
    if robot.motion is None:
        raise ValueError(
            f"{type(robot).__name__} doesn't say how fast it may move: give it a `motion`, or its description a table "
            "[motion] with velocity (docs/robots.md)"
        )
    low, high = robot.limits.cpu().numpy().T
    inside = np.minimum(margins.position, 0.25 * (high - low))
    velocity, acceleration = np.array(robot.motion.velocity), np.array(robot.motion.acceleration)
    shares = margins.velocity * velocity, margins.acceleration * acceleration
    return JointLimits(robot.joints, low + inside, high - inside, *shares, np.array(robot.motion.lag))


class Clearance:
    """How far a robot is in what it must not touch.

    keep_out: boxes (low, high), metres in the world, that the arm's links and the spheres of `Robot.outline` stay out
    of. Fingers may go in: they have to touch things, and their joints are weak. workspace: a box that the whole outline
    stays in, or None. world_from_base (4, 4). margin: metres.
    """

    def __init__(
        self,
        robot: Robot,
        world_from_base: np.ndarray,
        keep_out: Sequence[Box] = (),
        workspace: Box | None = None,
        margin: float = 0.0,
    ) -> None:
        self.robot, self.margin = robot, margin
        base = torch.as_tensor(np.asarray(world_from_base), dtype=torch.float32)
        self._keep_out, self._workspace = _boxes(keep_out, base), _boxes([workspace] if workspace else [], base)
        self._rigid, self._some, self._others, self._apart = _parts(robot)

    @torch.no_grad()
    def depths(self, positions: np.ndarray) -> np.ndarray:
        """(..., 3) metres by `FAULTS`, margin included, of joint positions (..., J). Negative where all is well."""
        joints = torch.as_tensor(positions, dtype=torch.float32)
        pose = self.robot.forward(joints)
        centres, radii = self.robot.outline(pose)
        found = joints.new_full((*joints.shape[:-1], len(FAULTS)), -torch.inf)
        if self._keep_out is not None:
            found[..., 0] = self._keep_out.depth(pose.links)
            if len(self._rigid):
                rigid = self._keep_out.sphere_depth(centres[..., self._rigid, :], radii[self._rigid])
                found[..., 0] = torch.maximum(found[..., 0], rigid)
        if self._workspace is not None:
            found[..., 1] = self._workspace.sphere_overhang(centres, radii)
        if len(self._some):
            distances = torch.cdist(centres[..., self._some, :], centres[..., self._others, :])
            reach = (radii[self._some][:, None] + radii[self._others]).masked_fill(~self._apart, -torch.inf)
            found[..., 2] = (reach - distances).amax((-1, -2))
        return (found + self.margin).double().numpy()

    def share(self, start: np.ndarray, end: np.ndarray) -> tuple[float, str | None]:
        """How much of the straight way between joint positions (J,) is free, 0 to 1, and what ends it.

        A start that is not free may be left, and not entered deeper.
        """
        shares = np.linspace(0.0, 1.0, _ALONG + 1)[:, None]
        depths = self.depths(start + shares * (end - start))
        faults = depths > np.maximum(depths[0], 0.0) + _ROUNDING
        blocked = np.flatnonzero(faults.any(-1))
        if not len(blocked):
            return 1.0, None
        return float(shares[blocked[0] - 1, 0]), FAULTS[int(faults[blocked[0]].argmax())]


class SafetyFilter(JointFilter):
    """A `JointFilter` that also keeps a robot clear of what it must not touch.

    From every state that it leaves, braking at the limit of acceleration touches nothing: of each wanted command it
    takes the largest of a few shares for which that holds, and brakes if there is none. Checked at every command and
    at every period of braking, not between them. A robot that begins in touch may leave, and not go deeper.
    """

    def __init__(self, limits: JointLimits, positions: np.ndarray, clearance: Clearance, seconds: float = 0.02) -> None:
        super().__init__(limits, positions, seconds)
        self.clearance = clearance
        # As deep as each may be: as it began, until it is free.
        self._allowed = np.maximum(clearance.depths(self.positions), 0.0).reshape(-1, len(FAULTS))

    def _cleared(self, velocities: np.ndarray, brake: np.ndarray) -> np.ndarray:
        if not velocities.any():  # whoever stays comes no nearer
            return velocities
        rows, braked = velocities.reshape(-1, velocities.shape[-1]), brake.reshape(-1, velocities.shape[-1])
        most = self._allowed + _ROUNDING
        depths = self._braking_depths(rows, np.arange(len(rows)))
        for number, reason in enumerate(FAULTS):
            self._count(reason, (depths > most)[:, number, None])
        blocked = np.flatnonzero((depths > most).any(-1))
        low, high = np.zeros((len(blocked), 1)), np.ones((len(blocked), 1))
        way = rows[blocked] - braked[blocked]
        for _ in range(_BISECTIONS if len(blocked) else 0):
            share = (low + high) / 2
            tried = self._braking_depths(braked[blocked] + share * way, blocked)
            free = (tried <= most[blocked]).all(-1, keepdims=True)
            low, high = np.where(free, share, low), np.where(free, high, share)
        chosen = rows.copy()
        chosen[blocked] = braked[blocked] + low * way
        self._allowed[depths <= 0.0] = 0.0
        return chosen.reshape(velocities.shape)

    def _braking_depths(self, velocities: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The greatest depths (N, 3) of robots with these numbers that take velocities (N, J) next, then brake."""
        positions = self.positions.reshape(-1, velocities.shape[-1])[numbers] + velocities * self.seconds
        periods = np.abs(velocities) / self._change
        ticks = np.arange(int(np.ceil(periods.max(initial=0.0))) + 1)[:, None, None]
        passed = np.minimum(ticks, np.floor(periods))
        way = np.sign(velocities) * self._change * self.seconds * (passed * periods - passed * (passed + 1) / 2)
        return self.clearance.depths(positions + way).max(0)


class WaypointFilter:
    """Checks the waypoints that a planner sends, each to be reached at rest after `step_seconds`.

    A `Follower` carries out what passes in smooth motions, which a `SafetyFilter` with the same limits leaves alone.
    """

    def __init__(self, limits: JointLimits, clearance: Clearance, step_seconds: float = 1.0) -> None:
        self.limits, self.clearance = limits, clearance
        # The share s * s * (3 - 2 * s) of a way is fastest in the middle and accelerates most at the ends.
        seconds = MOVING * step_seconds
        by_velocity, by_acceleration = limits.velocity * seconds / 1.5, limits.acceleration * seconds**2 / 6
        self._furthest = np.minimum(by_velocity, by_acceleration)

    def checked(self, start: np.ndarray, waypoints: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
        """Waypoints (T, J) from `start` (J,), each as far towards the wanted one as may be, and what was changed.

        Raises ValueError on NaN or Inf.
        """
        if not np.isfinite(waypoints).all() or not np.isfinite(start).all():
            raise ValueError("waypoints hold NaN or Inf; nothing is sent")
        limits, counts, now, found = self.limits, dict[str, int](), start, []
        for wanted in waypoints:
            inside = np.clip(wanted, limits.low, limits.high)
            share = 1.0 / max(1.0, float((np.abs(inside - now) / self._furthest).max()))
            step = now + share * (inside - now)
            free, fault = self.clearance.share(now, step)
            reasons = {"position": bool((inside != wanted).any()), "velocity": share < 1.0}
            if fault is not None:
                reasons[fault] = True
            for reason in (name for name, holds in reasons.items() if holds):
                counts[reason] = counts.get(reason, 0) + 1
            now = now + free * (step - now)
            found.append(now)
        return np.stack(found), counts


def _boxes(boxes: Sequence[Box], world_from_base: Tensor) -> Boxes | None:
    if not boxes:
        return None
    corners = torch.tensor([[list(low), list(high)] for low, high in boxes], dtype=torch.float32)
    return Boxes(corners[:, 0], corners[:, 1], world_from_base)


@torch.no_grad()
def _parts(robot: Robot) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers of the outline's spheres: those that no finger moves; and S and O that may touch each other where (S, O).

    A hand, which no sphere lies further out than, may touch what is `_APART` joints from it: its own arm, another one
    and another hand. So may two places that lie so many joints beyond where their arms part. Which joints move a sphere
    is found by moving each joint a little.
    """
    joints, low, high = len(robot.joints), *robot.limits.double().unbind(-1)
    base = low + 0.37 * (high - low)  # no joint at 0 or at an end, where axes may meet
    centres, _ = robot.outline(robot.forward(torch.cat([base[None], base + 1e-3 * torch.eye(joints).double()])))
    moves = (centres[1:] - centres[0]).norm(dim=-1) > 1e-7  # (J, M)
    arm = moves[robot.arm].T.double()
    own = (arm @ (1 - arm).T).round()  # (M, M) joints of the arms that move the one and not the other
    hand = ~((own == 0) & (own.T > 0)).any(1, keepdim=True)
    apart = (hand & (own + own.T >= _APART)) | ((own >= _APART) & (own.T >= _APART))
    apart &= ~(apart.T & torch.ones_like(apart).triu())  # each pair once
    groups = ~moves[robot.fingers].any(0), apart.any(1), apart.any(0)
    rigid, some, others = (torch.nonzero(group)[:, 0] for group in groups)
    return rigid, some, others, apart[some][:, others]
