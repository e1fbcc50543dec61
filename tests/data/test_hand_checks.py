"""Hands that can't be what their file says are refused with the likely cause; odd ones are warned of once."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from droid_fixtures import looking

from dexworld.data.hand_checks import Hands, check_track
from hand_fixtures import curled_hands, hand_track, pinhole_of

SIZE = (96, 160)
POSES = np.tile(looking((3.4, -0.9, 1.6), (3.5, 0.2, 1.0)), (9, 1, 1))  # of a head that looks down at a table
GOOD = curled_hands()
FLIP = np.array([1.0, -1.0, -1.0])  # from OpenGL's axes to ours


def moved(points, x, y=0.0, z=0.0):
    return points + np.array([x, y, z])


def relative(points):
    return points - points.mean(axis=2, keepdims=True)


def pixels(points):
    shown = points @ pinhole_of(*SIZE).T
    return np.concatenate([shown[..., :2] / shown[..., 2:], np.zeros_like(shown[..., 2:])], axis=-1)


def noisy(points):
    return points + np.random.default_rng(0).normal(scale=0.002, size=points.shape)


def tilted(points, degrees):
    """The hands turned about the camera's x axis through their middle."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    middle = points.mean(axis=(0, 1, 2))
    return (points - middle) @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) + middle


def flat(points):
    """The same hands with straight fingers in one plane, which have no side."""
    plane = points.copy()
    plane[..., 2] = points[:, :, :1, 2]
    return plane


def checked(points, caplog, where, intrinsics=None, size=SIZE, **options):
    """What the check of hands says: the words of its refusal, else those of its warnings."""
    valid = np.ones(points.shape[:3], dtype=bool)
    with caplog.at_level(logging.WARNING):
        try:
            poses = np.tile(np.eye(4), (len(points), 1, 1))
            camera = pinhole_of(*SIZE) if intrinsics is None else intrinsics
            Hands(points, valid, camera, size, poses, where, **options).check()
        except ValueError as error:
            return f"refused: {error}"
    return caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda points: points,
        noisy,
        lambda points: 0.6 * points,  # a child's hands
        lambda points: tilted(points, 90),
        lambda points: tilted(points, 180),
        lambda points: tilted(points, -90),
        flat,
        lambda points: moved(points, 0.3),  # the right hand is outside of the picture
        lambda points: moved(points, 0, 0, 20),  # as HaMeR's camera sees them
    ],
)
def test_hands_as_they_are_pass_without_a_word(change, caplog, tmp_path):
    assert checked(change(GOOD), caplog, str(tmp_path), drawn=True) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda points: 1000 * points, "1000 times too long: .* in millimetres"),
        (lambda points: 100 * noisy(points), "left hand's bones are .* in centimetres"),
        (lambda points: points / 1000, "times too short: .* in kilometres"),
        (pixels, "in pixels"),
        (lambda points: 0 * points + points[:, :, :1], "all its points are the same"),
        (lambda points: points * FLIP, "100% of the points lie behind the camera: .*OpenGL"),
        (relative, "relative to the hand"),
        (lambda points: moved(points, 0, 0, -0.495), "of 18 hands reach through the camera plane"),
        (lambda points: points[:, ::-1], "left and right are exchanged"),
        (lambda points: tilted(points, 120)[:, ::-1], "left and right are exchanged"),
        (lambda points: moved(points * [1, 1, -1], 0, 0, 1.2), "left-handed"),
        (lambda points: np.stack([moved(points[:, 1], -0.3), points[:, 1]], 1), "left hand is a right one"),
        (lambda points: np.stack([points[:, 0], moved(points[:, 0], 0.3)], 1), "right hand is a left one"),
    ],
)  # fmt: skip
def test_hands_that_cannot_be_are_refused_with_the_cause(change, said, caplog, tmp_path):
    told = checked(change(GOOD), caplog, str(tmp_path), drawn=True)
    assert told.startswith("refused")
    assert re.search(said, told), told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda points: 3 * points, "3 times as large as an adult's"),
        (lambda points: moved(points, 0, 5), "no point lies in the picture"),
        (lambda points: moved(points * [1, 1, -1], 0, -9, -1), "100% of the points lie behind"),
        (lambda points: flat(points)[:, ::-1], "to the right of the right one in all 9 frames"),
    ],
)
def test_odd_hands_are_warned_of_once(change, said, caplog, tmp_path):
    for _ in range(3):
        checked(change(GOOD), caplog, str(tmp_path))
    assert caplog.text.count(said) == len(caplog.records) == 1


def test_meshes_of_one_side_across_the_camera_or_in_another_unit_are_refused(caplog, tmp_path):
    generator = np.random.default_rng(3)
    right = generator.normal(size=(60, 3)) * [0.04, 0.05, 0.02]
    pair, same = (
        np.tile(np.stack([moved(left, -0.1, 0, 0.5), moved(right, 0.1, 0, 0.5)]), (5, 1, 1, 1))
        for left in (right * [-1, 1, 1], right)
    )
    assert checked(pair, caplog, str(tmp_path), drawn=True) == ""
    assert "both hands are of one side" in checked(same, caplog, str(tmp_path), drawn=True)
    assert "in millimetres" in checked(1000 * pair, caplog, str(tmp_path), drawn=True)
    assert "reach through the camera plane" in checked(moved(pair, 0, 0, -0.49), caplog, str(tmp_path), drawn=True)
    pair[1] = moved(pair[1], 0, 0, -0.49)
    assert "2 of 10 hands reach through" in checked(pair, caplog, str(tmp_path), drawn=True)


@pytest.mark.parametrize(
    ("centre", "said"),
    [
        ((48, 80), "refused: .*height and width are exchanged"),
        ((960, 540), "refused: .*those of an image of about 1920 x 1080"),
        ((30, 48), "far from their middle"),
        ((84, 45), "^$"),
    ],
)
def test_the_principal_point_tells_of_another_image(centre, said, caplog, tmp_path):
    matrix = pinhole_of(*SIZE)
    matrix[:2, 2] = centre
    told = checked(GOOD, caplog, str(tmp_path), matrix)
    assert re.search(said, told), told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda track: replace(track, world_from_camera=np.linalg.inv(track.world_from_camera)), "camera-from-world"),
        (lambda track: replace(track, world_from_camera=track.world_from_camera * [*FLIP, 1]), "OpenGL"),
        (lambda track: track.with_columns(keypoints_world=GOOD.reshape(9, 42, 3)), "in the camera's frame already"),
    ],
)
def test_poses_and_frames_of_a_track_that_explain_why_nothing_is_seen_are_named(change, said, caplog):
    track = hand_track(GOOD, *SIZE, POSES)
    check_track(track, SIZE)
    with pytest.raises(ValueError, match=said):
        check_track(change(track), SIZE)
    dummy = change(track).with_columns(keypoint_confidence=np.zeros((9, 42)))
    check_track(dummy, SIZE)  # a gripper's hand is in no picture
    assert caplog.text == ""
