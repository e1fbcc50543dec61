"""Scenes and task episodes of validation seeds, made once a process."""

import functools

import pytest

from dexworld.sim.kitchen.kitchen_scene import random_layout
from dexworld.sim.kitchen.kitchen_simulation import Simulation
from dexworld.sim.kitchen.kitchen_tasks import TaskEpisode, draw_episode

SEED = 900_003  # a box that can be grasped, and other objects

_draw = functools.cache(draw_episode)


@pytest.fixture(scope="module")
def _scene():
    with Simulation(random_layout(SEED)) as simulation:
        yield simulation


@pytest.fixture
def simulation(_scene):
    """The scene of `SEED` as it was built."""
    _scene.reset()
    return _scene


@pytest.fixture(scope="session")
def draw():
    """`draw(task, seed)` is the task's episode in that scene."""

    def drawn(task: str, seed: int = SEED) -> TaskEpisode:
        episode = _draw(task, seed)
        assert isinstance(episode, TaskEpisode), episode
        return episode

    return drawn
