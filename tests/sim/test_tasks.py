"""Task episodes: the script solves them, doing nothing doesn't, and seeds without one are counted with the reason."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dexworld.hands import RIGHT, WRIST
from dexworld.sim.kitchen import kitchen_tasks as tasks
from dexworld.sim.kitchen.allegro_body import ROBOT_GROUP
from dexworld.sim.kitchen.kitchen_scene import random_layout
from dexworld.sim.kitchen.kitchen_simulation import Simulation
from dexworld.sim.kitchen.kitchen_tasks import (
    ALL_TASKS,
    HOLD_TICKS,
    MOVES,
    RADIUS,
    TASKS,
    Rejection,
    draw_episode,
    draw_episodes,
)
from dexworld.sim.kitchen.task_builders import STILL, carry_out, tips_world, towards

SEEDS = {
    "reach": (900_000, 900_003),
    "grasp": (900_002, 900_003),
    "place": (900_002, 900_003),
    "push": (900_004, 900_005),
    "pick_place": (900_004,),
    "push_around": (900_002,),
    "reach_clutter": (900_003,),
    "grasp_unseen": (900_002,),
}
EPISODES = [(task, seed) for task in ALL_TASKS for seed in SEEDS[task]]


@pytest.mark.parametrize(("task", "seed"), EPISODES)
def test_the_script_succeeds_where_doing_nothing_fails(task, seed, draw):
    episode = draw(task, seed)
    assert episode.expert_moves.shape == (MOVES[task], 23)
    assert episode.goal_image.shape == (224, 392, 3)
    with Simulation(episode.layout) as simulation:
        simulation.set_state(episode.start)
        start = tasks.distance(task, simulation, episode)
        carry_out(simulation, [simulation.joint_targets] * MOVES[task])
        assert not tasks.hold(simulation, episode)
        simulation.set_state(episode.start)
        carry_out(simulation, episode.expert_moves)
        assert tasks.hold(simulation, episode)
        assert tasks.distance(task, simulation, episode) < RADIUS[task]
        assert tasks.distance(task, simulation, episode) < start


def test_one_seed_gives_one_episode_to_the_bit(draw):
    first, again = draw("grasp"), draw_episode("grasp", draw("grasp").seed)
    assert np.array_equal(first.start.physics, again.start.physics)
    assert np.array_equal(first.goal.physics, again.goal.physics)
    assert np.array_equal(first.expert_moves, again.expert_moves)
    assert np.array_equal(first.goal_image, again.goal_image)


# Sums over the start state, the expert's moves, the goal's keypoints and the goal's object.
BEFORE = {
    "reach": [17.03725, 14.34178, 9.08872, 1.69082],
    "grasp": [12.54283, 32.30109, 8.27103, 1.64834],
    "place": [-6.96618, 43.46939, 7.25902, 1.43372],
    "push": [13.89784, 4.74559, 6.04543, 1.85176],
}


@pytest.mark.parametrize("task", TASKS)
def test_episodes_of_the_first_four_tasks_are_those_that_were_published(task, draw):
    episode = draw(task, SEEDS[task][1])
    parts = (episode.start.physics, episode.expert_moves, episode.goal_tips, episode.goal_object)
    assert [float(part.sum()) for part in parts] == pytest.approx(BEFORE[task], abs=1e-3)
    assert episode.layout == random_layout(episode.seed)


def straight_way(simulation, episode):
    """Move the hand straight from the start's to the goal's targets."""
    simulation.set_state(episode.goal)
    end = simulation.joint_targets
    simulation.set_state(episode.start)
    carry_out(simulation, towards(simulation.joint_targets, end))


def test_a_straight_reach_moves_the_clutter_and_does_not_count(draw):
    episode = draw("reach_clutter", SEEDS["reach_clutter"][0])
    with Simulation(episode.layout) as simulation:
        straight_way(simulation, episode)
        moved = np.linalg.norm(simulation.object_positions() - episode.start_objects, axis=1)
        assert moved.max() > STILL
        assert np.linalg.norm(tips_world(simulation) - episode.goal_tips, axis=1).mean() < RADIUS["reach_clutter"]
        assert not tasks.satisfied("reach_clutter", simulation, episode)


def test_an_obstacle_stands_on_the_straight_way_of_a_push_around_it(draw):
    episode = draw("push_around", SEEDS["push_around"][0])
    pushed, obstacle = episode.start_objects[:, :2]
    way = episode.goal_object[:2] - pushed
    share = (obstacle - pushed) @ way / (way @ way)
    beside = np.linalg.norm(obstacle - pushed - share * way)
    assert 0.2 < share < 0.8
    assert beside < sum(each.radius for each in episode.layout.objects)


def test_what_is_still_held_or_moving_is_not_placed(draw):
    episode = draw("pick_place", SEEDS["pick_place"][0])
    with Simulation(episode.layout) as simulation:
        simulation.set_state(episode.start)
        carry_out(simulation, episode.expert_moves[:-3])  # lowered at the spot, in the hand
        assert tasks.distance("pick_place", simulation, episode) < RADIUS["pick_place"]
        assert not tasks.satisfied("pick_place", simulation, episode)


def test_the_goal_picture_of_an_unseen_grasp_shows_no_robot(draw):
    episode = draw("grasp_unseen", SEEDS["grasp_unseen"][0])
    with Simulation(episode.layout) as simulation:
        simulation.set_state(episode.goal)
        with simulation.without_robot():
            assert np.array_equal(simulation.image(), episode.goal_image)
            ids = simulation.renderer.segmentation(simulation.data, "ego")
            assert not (simulation.model.geom_group[ids[ids >= 0]] == ROBOT_GROUP).any()
        assert not np.array_equal(simulation.image(), episode.goal_image)


def test_rejected_seeds_are_counted_by_reason_and_passed_over(monkeypatch):
    drawn = {5: Rejection("reach", 5, "too far"), 6: "first", 7: Rejection("reach", 7, "too far"), 8: "second"}
    monkeypatch.setattr(tasks, "draw_episode", lambda task, seed, *_: drawn[seed])
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
