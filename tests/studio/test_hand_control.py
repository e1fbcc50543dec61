"""What a hand is told becomes poses: of keypoints, or of a robot that reaches for them."""

import numpy as np
import pytest
import torch

from dexworld.geometry import rigid
from dexworld.hands import LEFT, RIGHT, TIPS, WRIST
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.sim.kitchen.allegro_body import REST_POSE
from dexworld.studio.hand_control import LONGEST_STEP, BodyPose, FreeHand, HandControl, RobotHand


def test_a_far_goal_takes_steps_of_bounded_length_and_is_reached():
    goal = HandControl((0.3, 0.0, -0.1), (0.0, 0.0, 0.0, 1.0), (1.0,) * 5)
    told, way = HandControl(), []
    while told.steps_to(goal):
        before, told = told, told.towards(goal)
        way.append(np.linalg.norm(np.subtract(told.offset, before.offset)))
    assert len(way) == 3
    assert max(way) <= LONGEST_STEP
    np.testing.assert_allclose(told.offset, goal.offset, atol=1e-9)
    np.testing.assert_allclose(told.closing, goal.closing, atol=1e-9)


def test_a_goal_that_is_nearly_reached_takes_no_step():
    assert HandControl().steps_to(HandControl((0.01, 0.0, 0.0))) == 0
    assert HandControl().steps_to(HandControl().with_finger(1, 0.2)) == 1
    half = np.sqrt(0.5)
    assert HandControl().steps_to(HandControl(turn=(half, 0.0, 0.0, half))) == 1


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="three numbers of place"):
        HandControl((0.0, float("nan"), 0.0))


def test_a_free_hand_moves_turns_and_closes_while_the_other_stands_still(hand):
    half = np.sqrt(0.5)
    told = HandControl((0.1, 0.2, 0.3), (half, 0.0, 0.0, half), (0.0, 1.0, 0.0, 0.0, 0.0))  # a quarter turn about z
    pose = FreeHand(hand, "right").pose(told, BodyPose(hand))
    np.testing.assert_array_equal(pose.keypoints[LEFT], hand[LEFT])
    before, after = hand[RIGHT], pose.keypoints[RIGHT]
    np.testing.assert_allclose(after[WRIST], before[WRIST] + (0.1, 0.2, 0.3))
    ahead = before[TIPS[2]] - before[WRIST]  # an open finger
    np.testing.assert_allclose(after[TIPS[2]] - after[WRIST], (-ahead[1], ahead[0], ahead[2]), atol=1e-9)
    reach = [np.linalg.norm(each[TIPS[1]] - each[WRIST]) for each in (before, after)]
    assert reach[1] < 0.8 * reach[0]


def test_a_robots_hand_goes_where_it_is_told_and_keeps_its_limits():
    robot, base = FrankaAllegro(), rigid(torch.eye(3, dtype=torch.float64), torch.tensor([0.2, 0.0, 0.6]).double())
    body = RobotHand(robot, REST_POSE, base.numpy())
    start = BodyPose(body.keypoints(torch.as_tensor(REST_POSE)), REST_POSE)
    told = HandControl((0.03, 0.05, -0.04), closing=(0.0, 1.0, -1.0, 0.0, 0.0))
    pose = body.pose(told, start)
    moved = pose.keypoints[RIGHT][WRIST] - start.keypoints[RIGHT][WRIST]
    np.testing.assert_allclose(moved, told.offset, atol=0.005)
    low, high = robot.limits.numpy().T
    assert ((pose.joints >= low - 1e-9) & (pose.joints <= high + 1e-9)).all()
    np.testing.assert_allclose(pose.joints[7:11], np.clip(robot.grip.closed[:4], low[7:11], high[7:11]))
    np.testing.assert_allclose(pose.joints[11:15], np.clip(robot.grip.opened[4:8], low[11:15], high[11:15]))
