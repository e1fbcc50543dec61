"""Planning with a model whose images are narrower than the camera's."""

import numpy as np
import pytest
import torch
from helpers_planning import HEIGHT, REST, WIDTH, ToyDynamics, hand_pixels, image_of, moved, observation

from dexworld.planning.controls import KinematicsOnly
from dexworld.planning.gradient import Adam, GradientSolver
from dexworld.planning.mpc import MPCConfig
from dexworld.planning.objectives import KeypointPixels
from dexworld.robots.franka_allegro import FrankaAllegro

NARROW = (HEIGHT, WIDTH - 8)


def test_a_cropped_observation_shows_the_middle_and_projects_to_it():
    whole = observation()
    cropped = whole.cropped(NARROW)
    assert np.array_equal(cropped.image, whole.image[:, 4:-4])
    point = np.array([0.1, -0.2, 0.9])
    expected = whole.intrinsics @ point / point[2] - [4, 0, 0]
    assert np.allclose(cropped.intrinsics @ point / point[2], expected)
    assert np.array_equal(whole.cropped((HEIGHT, WIDTH)).intrinsics, whole.intrinsics)
    for size in ((200, 384), (HEIGHT, WIDTH + 8), (HEIGHT + 8, WIDTH - 8)):
        with pytest.raises(ValueError, match=f"image is {HEIGHT}x{WIDTH}, the model takes {size[0]}x{size[1]}"):
            whole.cropped(size)


def test_a_plan_does_not_depend_on_margins_that_the_model_does_not_see():
    goal = moved(seed=4)
    actions = []
    for size in (None, NARROW):
        config = MPCConfig(horizon=1, image_size=size)
        policy = KinematicsOnly(None, FrankaAllegro(), KeypointPixels(), GradientSolver(1, Adam(steps=20)), config)
        policy.reset(image_of(goal), goal_pixels=hand_pixels(goal))
        actions.append(policy.act(observation()))
    assert policy.goal.image_size == NARROW
    assert np.abs(actions[0] - REST).max() > 0.05
    assert np.allclose(actions[0], actions[1], atol=1e-3)


def test_the_model_gets_images_of_its_own_size():
    class NarrowDynamics(ToyDynamics):
        def encode(self, images):
            assert tuple(images.shape[-3:]) == (*NARROW, 3)
            return torch.zeros(112, 12)

    policy = KinematicsOnly(NarrowDynamics(), FrankaAllegro(), KeypointPixels(), config=MPCConfig(image_size=NARROW))
    policy.reset(image_of(moved()))
    assert policy.goal.pixels.shape == (12, 2)
