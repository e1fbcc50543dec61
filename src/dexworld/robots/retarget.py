"""A robot's joints from the keypoints of a human hand, by least squares over all frames of a recording at once.

Fingertips shall be where the person's are, and bones point where the person's do, under joint limits and without
jerks. As in dex-retargeting (Qin et al., AnyTeleop, 2023), whose optimisers take positions or vectors frame by frame.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dexworld.hands import BONES, FINGERS, KEYPOINTS_PER_HAND, LEFT, RIGHT, TIPS, WRIST
from dexworld.robots.retarget_problem import HandState, OwnHand, RetargetConfig, RetargetProblem
from dexworld.robots.robot import HandPose, Robot

__all__ = ["RetargetConfig", "Retargeted", "retarget"]

SIDES = {"left": LEFT, "right": RIGHT}
COINCIDE = 1e-6  # metres: a robot's finger that lies on another stands in for one that it doesn't have
FEWEST = 3  # fingertips that place a hand
PLACED_BY = 24  # frames that a place for two arms is found by
KNUCKLES = (5, 9, 13, 17)  # of index to little finger


@dataclass(frozen=True)
class Retargeted:
    """A robot that does what a hand did.

    joint_positions: (F, J). world_from_base: (F, 4, 4). tip_error: (F, n) metres between the robot's fingertips and the
    person's, NaN where those weren't seen. fingers: the n fingers that the robot has.
    """

    joint_positions: Tensor
    world_from_base: Tensor
    tip_error: Tensor
    fingers: tuple[str, ...]


def retarget(
    robot: Robot,
    keypoints: np.ndarray | Tensor,
    valid: np.ndarray | Tensor,
    world_from_base: np.ndarray | Tensor | None = None,
    config: RetargetConfig | None = None,
    generator: torch.Generator | None = None,
) -> Retargeted:
    """Joint positions with which a robot's hand does what a person's did.

    keypoints: (F, 42, 3) metres in one frame, the world's. valid: (F, 42) bool. world_from_base: (4, 4), where the
    robot stands; its arm then moves the hand. Without it the hand is alone: its base goes along with the person's, and
    joints of an arm stay at rest. A robot with two hands does what both hands did; without a base a place is found
    where it stands through the recording. Frames without the hand follow their neighbours. generator: of the poses that
    are tried for an arm; by default one of seed 0.

    Raises ValueError when the robot's hands aren't in the recording.
    """
    config = config or RetargetConfig()
    human, seen = (torch.as_tensor(np.asarray(each)) for each in (keypoints, valid))
    if human.shape[1:] != (2 * KEYPOINTS_PER_HAND, 3) or seen.shape != human.shape[:2]:
        raise ValueError(
            f"keypoints must be (F, 42, 3) with valid (F, 42), not {tuple(human.shape)} {tuple(seen.shape)}"
        )
    hand = hand_of(robot)
    human, seen = human[:, hand.rows].double(), seen[:, hand.rows].bool()
    human = torch.where(seen[..., None], human, 0.0)
    for start in range(0, len(human[0]), KEYPOINTS_PER_HAND):
        if not (seen[:, [start + tip for tip in TIPS]].sum(dim=1) >= FEWEST).any():
            side = hand.side if hand.side != "both" else "left" if start == 0 else "right"
            other = "left" if side == "right" else "right"
            shown = f"no frame shows {FEWEST} fingertips of the {side} hand"
            raise ValueError(f"{shown}; take a robot with a {other} hand if that one is seen")
    generator = generator or torch.Generator().manual_seed(0)
    if world_from_base is not None:
        base = torch.as_tensor(np.asarray(world_from_base)).double()
        problem = RetargetProblem(robot, hand, human, seen, config, free=False)
        state = problem.solve(problem.best_start(base, generator))
    elif hand.side == "both":
        some = torch.linspace(0, len(human) - 1, min(len(human), PLACED_BY)).long()
        sparse = RetargetProblem(robot, hand, human[some], seen[some], config, free=True)
        found = sparse.solve(sparse.best_start(None, generator))
        nearest = (torch.arange(len(human))[:, None] - some).abs().argmin(dim=1)
        standing = found.base[len(some) // 2].expand(len(human), 4, 4)
        problem = RetargetProblem(robot, hand, human, seen, config, free=False)
        state = problem.solve(HandState(found.joints[nearest], standing))
    else:
        problem = RetargetProblem(robot, hand, human, seen, config, free=True)
        state = problem.solve(problem.beside_hand())
    error = (problem.points(state)[:, hand.tips] - human[:, hand.tips]).norm(dim=-1)
    error = torch.where(seen[:, hand.tips], error, torch.nan)
    return Retargeted(state.joints, state.base, error, hand.fingers)


def hand_of(robot: Robot) -> OwnHand:
    """The hand of a robot, or both. Raises ValueError for none."""
    pose = robot.forward(robot.limits.mean(dim=1))
    hands = [_own_hand(pose, side) for side, rows in SIDES.items() if pose.valid[rows].any()]
    if not hands:
        raise ValueError("the robot has no hand")
    if len(hands) == 1:
        return hands[0]
    left, right = hands
    bones = [*left.bones, *((RIGHT.start + start, RIGHT.start + end) for start, end in right.bones)]
    tips = [*left.tips, *(RIGHT.start + tip for tip in right.tips)]
    names = (f"{hand.side}{finger}" for hand in hands for finger in hand.fingers)
    return OwnHand("both", slice(LEFT.start, RIGHT.stop), bones, tips, tuple(names))


def _own_hand(pose: HandPose, side: str) -> OwnHand:
    points, valid = pose.keypoints[SIDES[side]], pose.valid[SIDES[side]]
    fingers = [finger for finger in range(len(FINGERS)) if valid[TIPS[finger]] and not _stands_in(points, finger)]
    own = {WRIST, *(row for finger in fingers for row in range(4 * finger + 1, 4 * finger + 5))}
    bones = [(start, end) for start, end in BONES if {start, end} <= own and valid[start] and valid[end]]
    across = [row for row in KNUCKLES if row in own and valid[row]]
    bones += [(across[0], across[-1])] if len(across) > 1 else []
    bones = [(start, end) for start, end in bones if (points[end] - points[start]).norm() > COINCIDE]
    tips = [TIPS[finger] for finger in fingers]
    return OwnHand(side, SIDES[side], bones, tips, tuple(FINGERS[finger] for finger in fingers))


def _stands_in(points: Tensor, finger: int) -> bool:
    """Whether a finger's tip lies on an earlier finger's."""
    return any((points[TIPS[finger]] - points[TIPS[other]]).norm() < COINCIDE for other in range(finger))
