"""Search over straight hand translations instead of joint angles.

A random change of all joints hardly ever pushes an object along a line: the hand turns and lifts. Here another solver
searches three numbers a step, the hand's displacement along the world's axes. The arm's joints follow by batched
inverse kinematics; palm orientation and fingers stay as in the initial plan.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dexworld.planning.protocols import CostFunction, Gaussian, Plan, Solver
from dexworld.planning.search import clamp
from dexworld.robots.boxes import Boxes
from dexworld.robots.hand_ik import hand_joints
from dexworld.robots.robot import Robot


@dataclass(frozen=True)
class HandSpaceSolver:
    """A `Solver` whose candidates are translations of the hand.

    solver: searches over (T, 3) displacements per step, metres. std: of every step along the world's x, y and z.
    farthest: bound of one step's displacement along each axis. closing: std of a fourth number a step, the share that
    the hand closes by, for robots with a `grip`; 0 leaves the fingers alone. iterations: of the inverse kinematics.
    robot, world_from_base, keep_out: whose hand, the (3, 3) rotation of its base, and the boxes that the elbow turns
    away from; given by `bind`.
    """

    solver: Solver
    std: tuple[float, float, float] = (0.07, 0.07, 0.02)
    farthest: float = 0.2
    closing: float = 0.0
    iterations: int = 5
    robot: Robot | None = None
    world_from_base: Tensor | None = None
    keep_out: Boxes | None = None

    def __post_init__(self) -> None:
        if min(self.std) <= 0 or not self.farthest > 0 or self.iterations < 1:
            raise ValueError(f"hand-space search needs positive std, farthest and iterations, not {self}")

    def bind(self, robot: Robot, world_from_base: Tensor, keep_out: Boxes | None = None) -> "HandSpaceSolver":
        """The same search for a robot, along the axes of a world in which its base stands at (4, 4)."""
        return replace(self, robot=robot, world_from_base=world_from_base[:3, :3], keep_out=keep_out)

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """Search around `initial.mean` (T, J), whose std is not used; of `proposals` the hand's translations count."""
        closes = self.closing > 0 and self.robot is not None and self.robot.grip is not None
        numbers = (*self.std, self.closing) if closes else self.std
        std = initial.mean.new_tensor(numbers).expand(len(initial.mean), -1)
        space = initial.mean.new_tensor([[-self.farthest, self.farthest]] * 3 + [[-1.0, 1.0]] * closes)

        def decode(displacements: Tensor) -> Tensor:
            return self.joints(initial.mean, bounds, displacements)

        start = Gaussian(torch.zeros_like(std), std.clone())
        moves = None if proposals is None else self.displacements(initial.mean, proposals)
        found = self.solver.solve(lambda samples: cost_function(decode(samples)), start, space, generator, moves)
        actions = decode(found.actions[None])[0]
        return replace(found, actions=actions, distribution=Gaussian(actions, initial.std), elites=decode(found.elites))

    def displacements(self, reference: Tensor, plans: Tensor) -> Tensor:
        """How far plans (N, T, J) displace the hand of the reference plan (T, J), as `joints` takes it: (N, T, 3)."""
        if self.robot is None or self.world_from_base is None:
            raise ValueError("a hand-space search needs a robot: call bind(robot, world_from_base) first")
        offset = self.robot.forward(plans).wrist - self.robot.forward(reference).wrist
        return (offset @ self.world_from_base.T.to(offset)).diff(dim=1, prepend=torch.zeros_like(offset[:, :1]))

    def joints(self, reference: Tensor, bounds: Tensor, displacements: Tensor) -> Tensor:
        """Joint targets (N, T, J) that displace the hand of the reference plan (T, J), whose hand doesn't turn.

        displacements: (N, T, 3) metres a step along the world's axes, and in a fourth column the share of its way that
        the hand closes by. All candidates at once, by `hand_joints`. Raises ValueError before `bind`.
        """
        if self.robot is None or self.world_from_base is None:
            raise ValueError("a hand-space search needs a robot: call bind(robot, world_from_base) first")
        axes = self.world_from_base.to(displacements)
        offset = displacements[..., :3].cumsum(dim=1) @ axes  # world axes to base axes
        pose = self.robot.forward(reference)
        wrist, rotation = pose.wrist + offset, pose.hand_rotation.expand(len(offset), -1, -1, -1)
        joints = reference.expand(len(offset), -1, -1)
        if displacements.shape[-1] > 3 and self.robot.grip is not None:
            opened, closed = (reference.new_tensor(each) for each in (self.robot.grip.opened, self.robot.grip.closed))
            fingers = joints[..., self.robot.fingers] + displacements[..., 3:].cumsum(dim=1) * (closed - opened)
            between = torch.stack([torch.minimum(opened, closed), torch.maximum(opened, closed)], dim=-1)
            fingers = clamp(fingers, between)
            joints = torch.cat([joints[..., self.robot.arm], fingers], dim=-1)
        return hand_joints(self.robot, joints, bounds, wrist, rotation, self.iterations, self.keep_out)
