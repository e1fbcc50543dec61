"""Search over straight hand translations instead of joint angles.

A random change of 23 joints hardly ever pushes an object along a line: the hand turns and lifts. This solver wraps
another one and gives it three numbers a step, how far the hand moves along the world's axes; the arm's joints follow by
batched inverse kinematics with the palm's orientation and the fingers of the initial plan. Nine numbers instead of
69 for three steps: what a budget of a few dozen model roll-outs can search.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dexworld.hands import ARM_JOINTS
from dexworld.planning.protocols import CostFunction, Gaussian, Plan, Solver
from dexworld.planning.search import clamp
from dexworld.robots.kinematics import FrankaAllegro

_DIFFERENCE = 1e-3  # radians, for the numerical Jacobian
_ROTATION_WEIGHT = 0.3  # metres per radian
_LARGEST_STEP = 0.4  # radians


@dataclass(frozen=True)
class HandSpaceSolver:
    """A `Solver` whose candidates are translations of the hand.

    solver: searches over (T, 3) displacements per step, metres. std: of every step along the world's x, y and z.
    farthest: bound of one step's displacement along each axis. iterations: of the inverse kinematics; what a candidate
    really does is judged by forward kinematics of the joints found, so unreachable ones are not favoured.
    world_from_base: (3, 3) rotation of the robot's base, given by `bind`; without it the axes are the base's.
    """

    solver: Solver
    std: tuple[float, float, float] = (0.07, 0.07, 0.02)
    farthest: float = 0.2
    iterations: int = 5
    world_from_base: Tensor | None = None

    def __post_init__(self) -> None:
        if min(self.std) <= 0 or not self.farthest > 0 or self.iterations < 1:
            raise ValueError(f"hand-space search needs positive std, farthest and iterations, not {self}")

    def bind(self, world_from_base: Tensor) -> "HandSpaceSolver":
        """The same search along the axes of a world in which the base stands at `world_from_base` (4, 4)."""
        return replace(self, world_from_base=world_from_base[:3, :3])

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """Search around `initial.mean` (T, 23); its std and `proposals` (joint plans) are not used."""
        kinematics = FrankaAllegro(dtype=initial.mean.dtype, device=initial.mean.device)
        std = initial.mean.new_tensor(self.std).expand(len(initial.mean), 3)
        space = initial.mean.new_tensor([[-self.farthest, self.farthest]] * 3)

        def decode(displacements: Tensor) -> Tensor:
            return self.joints(kinematics, initial.mean, bounds, displacements)

        start = Gaussian(torch.zeros_like(std), std.clone())
        found = self.solver.solve(lambda samples: cost_function(decode(samples)), start, space, generator)
        actions = decode(found.actions[None])[0]
        return Plan(
            actions=actions,
            cost=found.cost,
            distribution=Gaussian(actions, initial.std),
            elites=decode(found.elites),
            elite_costs=found.elite_costs,
            history=found.history,
        )

    def joints(self, kinematics: FrankaAllegro, reference: Tensor, bounds: Tensor, displacements: Tensor) -> Tensor:
        """Joint targets (N, T, 23) that displace the hand of the reference plan (T, 23) by the running sum of (N, T,
        3).

        Metres along the world's axes. Damped Gauss-Newton on wrist position and palm rotation, all candidates at once.
        """
        offset = displacements.cumsum(dim=1)
        if self.world_from_base is not None:
            offset = offset @ self.world_from_base.to(offset)  # world axes to base axes
        pose = kinematics.forward(reference)
        wrist, rotation = pose.wrist + offset, pose.hand_rotation.expand(len(offset), -1, -1, -1)
        joints = reference.expand(len(offset), -1, -1).clone()
        damping = 1e-3 * torch.eye(6, dtype=joints.dtype, device=joints.device)
        for _ in range(self.iterations):
            residual, jacobian = _linearised(kinematics, joints, wrist, rotation)
            gain = jacobian.transpose(-1, -2) @ torch.linalg.inv(jacobian @ jacobian.transpose(-1, -2) + damping)
            step = (gain @ residual[..., None])[..., 0].clamp(-_LARGEST_STEP, _LARGEST_STEP)
            arm = clamp(joints[..., :ARM_JOINTS] + step, bounds[:ARM_JOINTS])
            joints = torch.cat([arm, joints[..., ARM_JOINTS:]], dim=-1)
        return joints


def _linearised(kinematics: FrankaAllegro, joints: Tensor, wrist: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """What is left to go (..., 6), metres and weighted radians, and how the arm's joints change it (..., 6, 7)."""
    nudged = joints[..., None, :].repeat_interleave(ARM_JOINTS + 1, dim=-2)
    nudge = torch.eye(ARM_JOINTS, dtype=joints.dtype, device=joints.device) * _DIFFERENCE
    nudged[..., 1:, :ARM_JOINTS] += nudge
    pose = kinematics.forward(nudged)
    left = wrist[..., None, :] - pose.wrist
    turn = 0.5 * torch.linalg.cross(pose.hand_rotation, rotation[..., None, :, :], dim=-2).sum(dim=-1)
    error = torch.cat([left, _ROTATION_WEIGHT * turn], dim=-1)  # (..., 8, 6)
    jacobian = (error[..., :1, :] - error[..., 1:, :]) / _DIFFERENCE
    return error[..., 0, :], jacobian.transpose(-1, -2)
