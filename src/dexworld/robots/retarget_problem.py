"""Retargeting as a least-squares problem over all frames of a recording, and its solver.

Levenberg-Marquardt: each frame's derivatives come from the robot's batched kinematics, and neighbouring frames are
coupled, so that every step is a block-tridiagonal system.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dexworld.geometry import rigid, transform_points
from dexworld.robots.robot import Robot

SETTLED = 1e-4  # relative change of the cost below which the solver stops
_STANDS = 3.0  # of the change of a base's place (metres) or turn (radians) that shall not move
STARTS, TRIED_FOR = 64, 10  # poses that are tried for an arm in one frame, and the solver's steps for each


@dataclass(frozen=True)
class RetargetConfig:
    """What the solution is weighed by. Residuals are metres times these."""

    direction: float = 0.02
    """Of the difference between two bones' directions (unit vectors), against fingertips' metres."""
    smoothness: float = 0.01
    """Of the change of a joint (radians or metres) from one frame to the next."""
    rest: float = 0.0005
    """Of a joint's distance from the middle of its range; decides what nothing else does."""
    steps: int = 25
    """At most so many steps of the solver."""

    def __post_init__(self) -> None:
        if min(self.direction, self.smoothness) < 0 or not self.rest > 0 or self.steps < 1:
            raise ValueError("direction and smoothness must be 0 or more, rest and steps more than 0")


class OwnHand(NamedTuple):
    """side ("left", "right" or "both"), its rows of the 42, and among those the bones and fingertips that the robot has
    of its own. fingers: their names.
    """

    side: str
    rows: slice
    bones: list[tuple[int, int]]
    tips: list[int]
    fingers: tuple[str, ...]


class HandState(NamedTuple):
    """joints (F, J) and base (F, 4, 4), world_from_base."""

    joints: Tensor
    base: Tensor


class RetargetProblem:
    """The least squares of one recording. A frame's variables: the joints that move, then its base's turn and shift."""

    def __init__(
        self, robot: Robot, hand: OwnHand, human: Tensor, seen: Tensor, config: RetargetConfig, free: bool
    ) -> None:
        self.robot, self.hand, self.human, self.seen, self.config, self.free = robot, hand, human, seen, config, free
        self.tips, both = hand.tips, hand.side == "both"
        self.starts, self.ends = (list(rows) for rows in zip(*hand.bones, strict=True))
        self.moving = slice(0 if both or not free else robot.fingers.start, len(robot.joints))
        self.low, self.high = robot.limits.double()[self.moving].unbind(1)
        # a hand alone goes along with the person's; two arms stand where they are
        stiff = [config.smoothness] * len(self.low) + [_STANDS if both else config.smoothness] * (6 * free)
        self.stiff = torch.tensor(stiff, dtype=torch.float64)
        self.middle = (self.low + self.high) / 2
        self.person = _directions(human, self.starts, self.ends)
        shown = seen[:, self.starts] & seen[:, self.ends]
        weights = [seen[:, self.tips].double(), config.direction * shown.double()]
        self.weights = torch.cat(weights, dim=1)[..., None].expand(-1, -1, 3).flatten(1)  # (F, residuals)

    def points(self, state: HandState) -> Tensor:
        """The keypoints (F, rows, 3) of the robot's hand or hands in the world."""
        return transform_points(state.base, self.robot.forward(state.joints).keypoints[:, self.hand.rows])

    def beside_hand(self) -> HandState:
        """The robot at rest, its base put so that its keypoints lie on the person's as well as they can."""
        joints = self.robot.limits.double().mean(dim=1).expand(len(self.human), -1).clone()
        points = self.robot.forward(joints[0]).keypoints[self.hand.rows]
        own = sorted({*self.starts, *self.ends})
        base = _laid_on(points[own], self.human[:, own], self.seen[:, own])
        return HandState(joints, base)

    def best_start(self, base: Tensor | None, generator: torch.Generator) -> HandState:
        """All frames at the joints that reach the hand best where most of it is seen, of many random starts.

        base: (4, 4), where the robot stands; None finds a place for it too.
        """
        shown = self.seen[:, self.tips].sum(dim=1)
        config, first = self.config, int((shown == shown.max()).nonzero()[0])
        spread = torch.rand(STARTS, len(self.low), generator=generator, dtype=torch.float64)
        joints = self.low + spread * (self.high - self.low)
        joints[0] = self.middle
        human, seen = (each[first].expand(STARTS, *each.shape[1:]) for each in (self.human, self.seen))
        loose = replace(config, smoothness=0.0, steps=min(config.steps, TRIED_FOR))
        tries = RetargetProblem(self.robot, self.hand, human, seen, loose, free=base is None)
        tries.stiff[:] = 0.0
        if base is None:
            own = sorted({*self.starts, *self.ends})
            points = self.robot.forward(joints).keypoints[:, self.hand.rows][:, own]
            bases = _laid_on(points, human[:, own], seen[:, own])
        else:
            bases = base.expand(STARTS, 4, 4)
        found = tries.solve(HandState(joints, bases))
        best = tries.residuals(found).square().sum(dim=1).argmin()
        count = len(self.human)
        return HandState(found.joints[best].expand(count, -1).clone(), found.base[best].expand(count, 4, 4).clone())

    def residuals(self, state: HandState) -> Tensor:
        """Weighted residuals (F, R) of each frame by itself."""
        points = self.points(state)
        ahead = _directions(points, self.starts, self.ends)
        told = torch.cat([points[:, self.tips] - self.human[:, self.tips], ahead - self.person], dim=1).flatten(1)
        rest = self.config.rest * (state.joints[:, self.moving] - self.middle)
        return torch.cat([self.weights * told, rest], dim=1)

    def changes(self, state: HandState) -> Tensor:
        """Weighted changes (F - 1, V) of the variables from frame to frame; a turn is an axis times its angle."""
        moved = state.joints[1:, self.moving] - state.joints[:-1, self.moving]
        if self.free:
            turned = state.base[1:, :3, :3] @ state.base[:-1, :3, :3].transpose(1, 2)
            moved = torch.cat([moved, _axis_angle(turned), state.base[1:, :3, 3] - state.base[:-1, :3, 3]], dim=1)
        return self.stiff * moved

    def cost(self, state: HandState) -> float:
        """Half the sum of squares."""
        return 0.5 * float(self.residuals(state).square().sum() + self.changes(state).square().sum())

    def jacobian(self, state: HandState) -> Tensor:
        """(F, R, V) of `residuals`."""
        turn = state.base[:, :3, :3]
        points, moved = self.robot.jacobian(state.joints)
        points = points[:, self.hand.rows] @ turn.transpose(1, 2)
        moved = moved[:, :, self.hand.rows, self.moving]  # (F, 3, rows, V)
        moved = (turn @ moved.flatten(2)).view(moved.shape)
        bones = (points[:, self.ends] - points[:, self.starts]).transpose(1, 2)[..., None]
        length = bones.norm(dim=1, keepdim=True)
        ahead, turned = bones / length, moved[:, :, self.ends] - moved[:, :, self.starts]
        turned = (turned - ahead * (ahead * turned).sum(dim=1, keepdim=True)) / length
        told = (
            torch.cat([moved[:, :, self.tips], turned], dim=2).transpose(1, 2).flatten(1, 2) * self.weights[..., None]
        )
        count = told.shape[2]
        rest = self.config.rest * torch.eye(count, dtype=torch.float64).expand(len(told), -1, -1)
        along_joints = torch.cat([told, rest], dim=1)
        return torch.cat([along_joints, self._jacobian_of_base(state)], dim=2) if self.free else along_joints

    def _jacobian_of_base(self, state: HandState) -> Tensor:
        """(F, R, 6): turning about the base's origin, shifting."""
        points = self.points(state)
        arms = points[:, self.tips] - state.base[:, None, :3, 3]
        ahead = _directions(points, self.starts, self.ends)
        turned = -_cross_matrix(torch.cat([arms, ahead], dim=1))  # (F, n, 3, 3): d(w x v)/dw
        shifted = torch.zeros_like(turned)
        shifted[:, : len(self.tips)] = torch.eye(3, dtype=torch.float64)
        told = torch.cat([turned, shifted], dim=-1).flatten(1, 2) * self.weights[..., None]
        return torch.cat([told, told.new_zeros(len(told), len(self.low), 6)], dim=1)

    def moved(self, state: HandState, step: Tensor) -> HandState:
        """The state after a step (F, V), within the limits."""
        count, joints = len(self.low), state.joints.clone()
        within = torch.minimum(torch.maximum(joints[:, self.moving] + step[:, :count], self.low), self.high)
        joints[:, self.moving] = within
        if not self.free:
            return HandState(joints, state.base)
        turn = torch.linalg.matrix_exp(_cross_matrix(step[:, count : count + 3]))
        return HandState(joints, rigid(turn @ state.base[:, :3, :3], state.base[:, :3, 3] + step[:, count + 3 :]))

    def solve(self, state: HandState) -> HandState:
        """Levenberg-Marquardt; joints at a limit that the cost pushes them against stay there for a step."""
        cost, damping = self.cost(state), 1e-4
        for _ in range(self.config.steps):
            jacobian, residuals = self.jacobian(state), self.residuals(state)
            gradient = (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
            hessian = jacobian.transpose(1, 2) @ jacobian
            changes, weight = self.changes(state) * self.stiff, self.stiff**2
            gradient[1:] += changes
            gradient[:-1] -= changes
            held = self._held(state, gradient)
            coupling = -weight.expand(len(hessian), -1)
            neighbours = torch.full((len(hessian), 1), 2.0, dtype=torch.float64)
            neighbours[[0, -1]] = 1.0 if len(hessian) > 1 else 0.0
            hessian += torch.diag_embed(neighbours * weight)
            while damping < 1e6:
                step = block_step(hessian, coupling, gradient, held, damping)
                ahead = self.moved(state, step)
                new = self.cost(ahead)
                if new < cost:
                    break
                damping *= 10
            else:
                return state
            settled = cost - new < SETTLED * cost
            state, cost, damping = ahead, new, max(damping / 10, 1e-9)
            if settled:
                return state
        return state

    def _held(self, state: HandState, gradient: Tensor) -> Tensor:
        """Variables (F, V) that stay: joints at a limit, pushed beyond it."""
        held = torch.zeros_like(gradient, dtype=torch.bool)
        joints, pushed = state.joints[:, self.moving], gradient[:, : len(self.low)]
        held[:, : len(self.low)] = ((joints <= self.low) & (pushed > 0)) | ((joints >= self.high) & (pushed < 0))
        return held


def block_step(hessian: Tensor, coupling: Tensor, gradient: Tensor, held: Tensor, damping: float) -> Tensor:
    """Step (F, V) of the damped block-tridiagonal system; held variables don't move.

    hessian: (F, V, V) blocks on the diagonal. coupling: (F, V), the diagonals of the blocks beside it.
    """
    free = (~held).double()
    scale = hessian.diagonal(dim1=1, dim2=2)
    blocks = hessian * free[:, :, None] * free[:, None, :] + torch.diag_embed(held.double() + damping * (scale + 1e-9))
    beside = coupling[1:] * free[1:] * free[:-1]
    right = -gradient * free
    if not beside.any():
        return torch.linalg.solve(blocks, right)
    reduced: list[Tensor] = []
    values: list[Tensor] = []
    for frame in range(len(blocks)):  # forward elimination
        block, value = blocks[frame], right[frame]
        if frame:
            both = torch.cat([torch.diag(beside[frame - 1]), values[-1][:, None]], dim=1)
            solved = torch.linalg.solve(reduced[-1], both)
            block = block - beside[frame - 1][:, None] * solved[:, :-1]
            value = value - beside[frame - 1] * solved[:, -1]
        reduced.append(block)
        values.append(value)
    steps = [torch.linalg.solve(reduced[-1], values[-1])]
    for frame in range(len(blocks) - 2, -1, -1):
        steps.append(torch.linalg.solve(reduced[frame], values[frame] - beside[frame] * steps[-1]))
    return torch.stack(steps[::-1])


def _directions(points: Tensor, starts: list[int], ends: list[int]) -> Tensor:
    bones = points[..., ends, :] - points[..., starts, :]
    return bones / bones.norm(dim=-1, keepdim=True).clamp_min(1e-9)


def _cross_matrix(vectors: Tensor) -> Tensor:
    """(..., 3, 3) with which a product is the cross product of vectors (..., 3)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _axis_angle(rotation: Tensor) -> Tensor:
    """Axis times angle (..., 3) of rotations (..., 3, 3) by less than half a turn."""
    skew = rotation - rotation.transpose(-1, -2)
    axis = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1) / 2  # sine times axis
    sine, cosine = axis.norm(dim=-1), (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    angle = torch.atan2(sine, cosine)
    return axis * torch.where(sine > 1e-9, angle / sine.clamp_min(1e-9), 1.0)[..., None]


def _laid_on(points: Tensor, human: Tensor, seen: Tensor) -> Tensor:
    """world_from_base (F, 4, 4) that lays points (n, 3) or (F, n, 3) on keypoints (F, n, 3) by least squares (Kabsch).

    Frames in which fewer than three are seen take the nearest other frame's.
    """
    weights = seen.double()[..., None]
    count = weights.sum(dim=1, keepdim=True).clamp_min(1.0)
    centre = (weights * human).sum(dim=1, keepdim=True) / count
    own = (weights * points).sum(dim=1, keepdim=True) / count
    u, _, v = torch.linalg.svd((weights * (human - centre)).transpose(1, 2) @ (points - own))
    flip = torch.ones(len(human), 3, dtype=torch.float64)
    flip[:, 2] = torch.linalg.det(u @ v).sign()
    rotation = u @ (flip[..., None] * v)
    shift = centre[:, 0] - (rotation @ own.transpose(1, 2))[..., 0]
    good = (seen.sum(dim=1) > 2).nonzero()[:, 0]
    nearest = good[(torch.arange(len(human))[:, None] - good).abs().argmin(dim=1)]
    return rigid(rotation, shift)[nearest]
