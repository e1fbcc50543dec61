"""The dummy hand of a parallel gripper against positions worked out by hand."""

import math

import numpy as np

from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.hands import RIGHT, WRIST

OPEN, CLOSED = np.array([0.03, 0.04, 0.05, 0.06]), np.array([0.03, 0.04, 0.035, 0.03])


def pose(rotation=None, at=(0.0, 0.0, 0.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) if rotation is None else rotation
    matrix[:3, 3] = at
    return matrix


def points(hand: GripperHand, poses: np.ndarray, opening: np.ndarray) -> np.ndarray:
    return hand.keypoints(poses, opening)[0][:, RIGHT]


DOWN = np.diag([1.0, -1.0, -1.0])  # the usual grasp from above: the approach axis points down
FORWARD = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # the approach axis is the base's x


def test_an_open_gripper_spreads_five_fingers_of_four_joints_over_its_own_plane():
    hand = points(GripperHand(), pose(DOWN, (0.4, 0.1, 0.3))[None], np.ones(1))[0]
    assert hand.shape == (21, 3)
    np.testing.assert_allclose(hand[WRIST], (0.4, 0.1, 0.3))
    for finger in range(5):
        angle = 2 * math.pi * finger / 5
        for joint in range(4):
            at = (0.4 + OPEN[joint] * math.cos(angle), 0.1 - OPEN[joint] * math.sin(angle), 0.3)
            np.testing.assert_allclose(hand[1 + 4 * finger + joint], at, atol=1e-12)


def test_the_circles_turn_with_the_gripper_and_stay_perpendicular_to_its_approach_axis():
    poses = np.stack([pose(DOWN), pose(FORWARD)])
    hands = points(GripperHand(), poses, np.array([1.0, 0.3]))
    for matrix, hand in zip(poses, hands, strict=True):
        np.testing.assert_allclose((hand - hand[WRIST]) @ matrix[:3, 2], 0.0, atol=1e-12)
    assert np.ptp(hands[1], axis=0)[2] > 0.05  # upright, since the gripper points forward


def test_radii_follow_the_opening_linearly_between_the_closed_and_the_open_ones():
    opening = np.linspace(0.0, 1.0, 11)
    hands = points(GripperHand(), np.tile(pose(DOWN), (11, 1, 1)), opening)
    radii = np.linalg.norm(hands[:, 1:] - hands[:, :1], axis=-1).reshape(11, 5, 4)
    np.testing.assert_allclose(
        radii, np.broadcast_to((CLOSED + opening[:, None] * (OPEN - CLOSED))[:, None], radii.shape)
    )
    assert np.abs(np.diff(radii, axis=0)).max() < 0.0031  # no jump: 3 cm of the tips over ten steps


def test_the_official_hand_lies_in_the_base_plane_and_jumps_at_half_opening():
    poses = np.stack([pose(FORWARD, (0.5, 0.0, 0.2))] * 3)
    hands = points(GripperHand(style="official"), poses, np.array([0.49, 0.5, 0.51]))
    np.testing.assert_allclose(hands[..., 2], 0.2)
    radii = np.linalg.norm(hands[:, 1:] - hands[:, :1], axis=-1).reshape(3, 5, 4)
    for row, expected in zip(radii, (CLOSED, CLOSED, OPEN), strict=True):
        np.testing.assert_allclose(row, np.tile(expected, (5, 1)))
    np.testing.assert_allclose(hands[2, 1], (0.53, 0.0, 0.2))  # the first finger starts along the base's x axis
