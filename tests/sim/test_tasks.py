"""Task episodes: the script solves them, doing nothing doesn't, and seeds without one are counted with the reason."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dexworld.hands import RIGHT, WRIST
from dexworld.sim.kitchen import kitchen_tasks as tasks
from dexworld.sim.kitchen.kitchen_simulation import Simulation
from dexworld.sim.kitchen.kitchen_tasks import (
    HOLD_TICKS,
    HORIZON,
    RADIUS,
    TASKS,
    Rejection,
    draw_episode,
    draw_episodes,
)

SEEDS = {
    "reach": (900_000, 900_003),
    "grasp": (900_002, 900_003),
    "place": (900_002, 900_003),
    "push": (900_004, 900_005),
}
EPISODES = [(task, seed) for task in TASKS for seed in SEEDS[task]]


@pytest.mark.parametrize(("task", "seed"), EPISODES)
def test_the_script_succeeds_where_doing_nothing_fails(task, seed, draw):
    episode = draw(task, seed)
    assert episode.expert_moves.shape == (HORIZON, 23)
    assert episode.goal_image.shape == (224, 392, 3)
    with Simulation(episode.layout) as simulation:
        simulation.set_state(episode.start)
        start = tasks.distance(task, simulation, episode)
        for _ in range(HORIZON):
            tasks.step(simulation, simulation.joint_targets)
        assert not tasks.hold(simulation, episode)
        simulation.set_state(episode.start)
        for targets in episode.expert_moves:
            tasks.step(simulation, targets)
        assert tasks.hold(simulation, episode)
        assert tasks.distance(task, simulation, episode) < RADIUS[task]
        assert tasks.distance(task, simulation, episode) < start


def test_one_seed_gives_one_episode_to_the_bit(draw):
    first, again = draw("grasp"), draw_episode("grasp", draw("grasp").seed)
    assert np.array_equal(first.start.physics, again.start.physics)
    assert np.array_equal(first.goal.physics, again.goal.physics)
    assert np.array_equal(first.expert_moves, again.expert_moves)
    assert np.array_equal(first.goal_image, again.goal_image)


def test_rejected_seeds_are_counted_by_reason_and_passed_over(monkeypatch):
    drawn = {5: Rejection("reach", 5, "too far"), 6: "first", 7: Rejection("reach", 7, "too far"), 8: "second"}
    monkeypatch.setattr(tasks, "draw_episode", lambda task, seed, backend: drawn[seed])
    rejections = Counter()
    assert list(draw_episodes("reach", 5, 2, rejections)) == ["first", "second"]
    assert rejections == {"too far": 2}


@pytest.mark.parametrize("bad_tick", [0, 4, 9, None])
def test_one_bad_tick_spoils_success_whenever_it_comes(monkeypatch, bad_tick):
    verdicts = iter([tick != bad_tick for tick in range(HOLD_TICKS)])
    monkeypatch.setattr(tasks, "satisfied", lambda task, simulation, episode: next(verdicts))
    scene = SimpleNamespace(joint_targets=None)
    scene.move = lambda targets, seconds, on_tick: [on_tick(scene) for _ in range(HOLD_TICKS)]
    assert tasks.hold(scene, SimpleNamespace(task="reach")) == (bad_tick is None)


def fake_scene(
    tips: float = 0.0, wrist: float = 0.0, thing: tuple = (0, 0, 0), touches: bool = True
) -> SimpleNamespace:
    """Keypoints displaced by `tips` metres, a wrist `wrist` metres from the object at `thing`."""
    points = np.zeros((42, 3))
    points[:, 0] = tips
    place = np.array(thing, float)
    if wrist:
        points[RIGHT.start + WRIST] = place + np.array([0, wrist, 0])
    return SimpleNamespace(
        keypoints_world=lambda: (points, np.ones(42, bool)), object_position=lambda: place, hand_touches=lambda: touches
    )


GOAL = SimpleNamespace(goal_tips=np.zeros((5, 3)), goal_object=np.zeros(3))


@pytest.mark.parametrize(
    ("task", "scene", "expected"),
    [
        ("reach", fake_scene(tips=0.149), True),
        ("reach", fake_scene(tips=0.151), False),
        ("grasp", fake_scene(wrist=0.199), True),
        ("grasp", fake_scene(wrist=0.199, touches=False), False),
        ("grasp", fake_scene(wrist=0.201), False),
        ("place", fake_scene(thing=(0.06, 0, 0.079)), True),
        ("place", fake_scene(thing=(0.06, 0, 0.081)), False),
        ("push", fake_scene(thing=(0.03, 0.039, 0.5)), True),  # height doesn't count
        ("push", fake_scene(thing=(0.03, 0.041, 0)), False),
    ],
)
def test_the_criteria_are_those_of_the_paper(task, scene, expected):
    assert tasks.satisfied(task, scene, GOAL) == expected
