"""An episode checks its fields once, and says which one is wrong, where, and of which recording."""

import numpy as np
import pytest

from dexworld.track import COLUMNS, ArrayFrames, Frames, Track

LENGTH = 4


def fields(**changes) -> dict:
    """Keywords of a sound track; changes of columns go into its columns."""
    columns = {"keypoints_world": np.zeros((LENGTH, 42, 3)), "keypoints_valid": np.ones((LENGTH, 42), bool)}
    columns |= {name: changes.pop(name) for name in list(changes) if name in COLUMNS}
    values = {
        "frames": ArrayFrames(np.zeros((LENGTH, 8, 12, 3), np.uint8)),
        "fps": 5.0,
        "world_from_camera": np.tile(np.eye(4), (LENGTH, 1, 1)),
        "intrinsics": np.eye(3),
        "source": "shelf/episode 7",
    }
    return values | {"columns": columns} | changes


def with_nan(name: str, *index: int) -> dict:
    values = fields(joint_positions=np.zeros((LENGTH, 23)))
    value = (values | values["columns"])[name].copy()
    value[index] = np.nan
    return {name: value}


def test_a_sound_episode_knows_its_length_and_its_frames():
    episode = Track(**fields())
    assert len(episode) == LENGTH
    assert isinstance(episode.frames, Frames)
    assert episode.frames.size == (8, 12)
    assert episode.frames.read([2, 0]).shape == (2, 8, 12, 3)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("keypoints_world", (LENGTH, 21, 3)),
        ("keypoints_valid", (LENGTH + 1, 42)),
        ("world_from_camera", (LENGTH, 3, 4)),
        ("intrinsics", (4, 4)),
        ("joint_positions", (LENGTH, 7, 1)),
        ("joint_targets", (LENGTH - 1, 23)),
    ],
)
def test_a_field_of_the_wrong_shape_is_named_with_both_shapes(name, shape):
    with pytest.raises(ValueError, match=rf"shelf/episode 7: {name} has shape .*, expected"):
        Track(**fields(**{name: np.zeros(shape)}))


@pytest.mark.parametrize("name", ["keypoints_world", "world_from_camera", "joint_positions"])
def test_nan_is_refused_with_the_field_and_its_first_frame(name):
    with pytest.raises(ValueError, match=rf"episode 7: {name} holds NaN or Inf \(first at frame 2\)"):
        Track(**fields(**with_nan(name, 2)))


def test_nan_in_the_intrinsics_is_refused():
    with pytest.raises(ValueError, match="intrinsics holds NaN or Inf"):
        Track(**fields(**with_nan("intrinsics", 0)))


def test_a_keypoint_that_is_not_valid_may_hold_anything_and_is_no_bad_frame():
    values, valid = with_nan("keypoints_world", 1), np.ones((LENGTH, 42), bool)
    valid[1] = False
    assert np.isnan(Track(**fields(keypoints_valid=valid, **values)).keypoints_world[1]).any()
    values["keypoints_world"][3, 5] = np.inf
    with pytest.raises(ValueError, match="first at frame 3"):
        Track(**fields(keypoints_valid=valid, **values))


def test_validity_must_be_boolean_time_must_pass_and_there_must_be_frames():
    with pytest.raises(ValueError, match="keypoints_valid must be bool, not float64"):
        Track(**fields(keypoints_valid=np.ones((LENGTH, 42))))
    with pytest.raises(ValueError, match="fps is 0; it must be positive"):
        Track(**fields(fps=0))
    with pytest.raises(ValueError, match="no frames"):
        Track(np.zeros((0, 4, 4)), np.eye(3), frames=ArrayFrames(np.zeros((0, 8, 12, 3), np.uint8)))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 8, 12), np.uint8), np.zeros((4, 8, 12, 3)), np.zeros((4, 8, 12, 4), np.uint8)]
)
def test_frames_must_be_rgb_bytes(array):
    with pytest.raises(ValueError, match=r"\(T, H, W, 3\) uint8"):
        ArrayFrames(array)
