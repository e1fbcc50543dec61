"""Exploration: one seed one recording, and what counts as an object that was held."""

import numpy as np
import pytest

from dexworld.hands import RIGHT
from dexworld.sim.kitchen.explore import (
    HELD_FRAMES,
    HELD_HEIGHT,
    STRATEGIES,
    ExploreConfig,
    holds_object,
    record_exploration,
)
from dexworld.sim.kitchen.kitchen_simulation import MAX_OBJECTS, TICK_STEPS, TICKS_PER_FRAME
from dexworld.track import ArrayFrames, Track

FRAMES = 10


def synthetic(heights: list[float], touched: list[bool]) -> Track:
    """An episode in which object 1 is at these heights above where it stood, with the hand on it or not."""
    positions = np.full((FRAMES, MAX_OBJECTS, 3), np.nan)
    positions[:, :2] = 0.95
    positions[:, 1, 2] += heights
    contact = np.zeros((FRAMES, MAX_OBJECTS), bool)
    contact[:, 1] = touched
    return Track(
        frames=ArrayFrames(np.zeros((FRAMES, 8, 8, 3), np.uint8)),
        fps=5.0,
        world_from_camera=np.tile(np.eye(4), (FRAMES, 1, 1)),
        intrinsics=np.eye(3),
        source="made by hand",
        columns={
            "keypoints_world": np.zeros((FRAMES, 42, 3)),
            "keypoints_valid": np.zeros((FRAMES, 42), bool),
            "object_positions": positions,
            "object_touched": contact,
        },
    )


def raised(frames: int) -> list[float]:
    """Off the counter for this many frames, from frame 3 on."""
    return [2 * HELD_HEIGHT if 3 <= frame < 3 + frames else 0.0 for frame in range(FRAMES)]


@pytest.mark.parametrize(
    ("episode", "held"),
    [
        (synthetic(raised(HELD_FRAMES), [True] * FRAMES), True),
        (synthetic(raised(0), [True] * FRAMES), False),  # pushed about on the counter
        (synthetic(raised(HELD_FRAMES - 1), [True] * FRAMES), False),  # knocked up for a moment
        (synthetic(raised(FRAMES), [False] * FRAMES), False),  # stands on something else
        (synthetic([0.9 * height / 2 for height in raised(FRAMES)], [True] * FRAMES), False),  # tilted
        (synthetic(raised(FRAMES), [frame % 3 != 0 for frame in range(FRAMES)]), False),  # two frames on, one off
    ],
)
def test_only_an_object_off_the_counter_with_the_hand_on_it_for_three_frames_is_held(episode, held):
    assert holds_object(episode) == held


@pytest.fixture(scope="module")
def episode():
    return record_exploration(900_000, config=ExploreConfig(frames=6))


def test_one_seed_and_attempt_give_one_recording_to_the_bit_and_another_attempt_another(episode):
    again = record_exploration(900_000, config=ExploreConfig(frames=6))
    other = record_exploration(900_000, attempt=1, config=ExploreConfig(frames=6))
    assert np.array_equal(episode.frames.array, again.frames.array)
    assert np.array_equal(episode["joint_targets"], again["joint_targets"])
    assert not np.array_equal(episode["joint_targets"], other["joint_targets"])
    assert (other.columns["attempt"] == 1).all()


def test_a_recording_says_where_hand_objects_and_camera_are(episode):
    assert len(episode) == 6
    assert episode.fps == 1 / (TICKS_PER_FRAME * TICK_STEPS * 0.002)
    assert episode.frames.size == (224, 392)
    assert episode.seed == 900_000
    assert episode.task in STRATEGIES
    assert episode.keypoints_valid[:, RIGHT].all()
    assert episode.columns["object_positions"].shape == (6, MAX_OBJECTS, 3)
    assert episode.columns["object_motion"][0] == 0


@pytest.mark.parametrize("wrong", [{"frames": 1}, {"weights": (0, 0, 0, 0)}, {"weights": (1, 1, 1, -1)}])
def test_settings_that_explore_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="exploration needs"):
        ExploreConfig(**wrong)
