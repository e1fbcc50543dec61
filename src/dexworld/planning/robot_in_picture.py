"""Where the robot is, now and in a goal picture, as its kinematics tell."""

import torch
from torch import Tensor

from dexworld.planning.candidates import CandidateCost
from dexworld.planning.gradient import GradientSolver
from dexworld.planning.objectives import RIGHT_TRACKED, KeypointPixels
from dexworld.planning.protocols import Gaussian

GOOD_FIT = 25.0  # square pixels between keypoints


def silhouette_now(cost: CandidateCost) -> Tensor:
    """Cells (h, w) of the picture that the robot covers now."""
    return cost.silhouette(cost.robot.forward(cost.scene.joint_positions[None]))[0]


def silhouette_in_goal(cost: CandidateCost, start: Gaussian) -> Tensor:
    """Cells (h, w) that the robot may cover in the goal picture: in all poses whose keypoints fit it well.

    Keypoints leave the elbow open, so that several poses fit. start: the pose (1, J) that the search begins at.
    """
    fit = CandidateCost(cost.robot, KeypointPixels(robust_px=30.0), cost.goal, cost.scene)
    pose = cost.scene.joint_targets[None]
    if fit.objective.guides(cost.goal):
        with torch.enable_grad():
            bounds, generator = cost.robot.limits.to(pose), torch.Generator().manual_seed(0)
            found = GradientSolver(restarts=8).solve(fit, start, bounds, generator)
        pose = found.elites[found.elite_costs < 2 * found.cost + GOOD_FIT][:, 0]
    return cost.silhouette(cost.robot.forward(pose)).any(dim=0)


def fingertips(cost: CandidateCost) -> Tensor:
    """Where the picture shows the middle of the fingertips, without thumb and little finger, pixels (2,)."""
    rollout = cost.kinematic_rollout(cost.scene.joint_positions[None, None])
    return rollout.pixels[0, 0, RIGHT_TRACKED[2:5]].mean(dim=0)
