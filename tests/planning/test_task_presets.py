"""What changes in the planner from one task to the next."""

import pytest

from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.presets import FINGER_STD, kinematics_only, preset, task_preset
from dexworld.robots.franka_allegro import FrankaAllegro


@pytest.mark.parametrize("task", sorted(FINGER_STD))
def test_the_papers_planner_differs_between_tasks_by_its_finger_spread_only(task):
    ours = task_preset("paper", task)
    assert ours.solver == preset("paper").solver
    assert ours.objective == preset("paper").objective
    assert ours.config.finger_std == (0.01 if task == "place" else 0.1)


def test_held_and_pushed_objects_are_moved_by_hands_that_do_not_turn():
    for task in ("place", "push"):
        assert isinstance(task_preset("cpu", task).solver, HandSpaceSolver)
    for task in ("reach", "grasp"):
        assert not isinstance(task_preset("cpu", task).solver, HandSpaceSolver)


def test_a_push_is_judged_by_the_scene_and_not_by_where_the_goals_hand_is():
    names = {term.name for _, term in task_preset("cpu", "push").objective.terms}
    assert "scene" in names
    assert "keypoints" not in names


def test_the_kinematic_control_asks_no_model():
    for task in FINGER_STD:
        assert not kinematics_only(task, None, FrankaAllegro()).objective.needs_model


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="grasp, place, push"):
        task_preset("cpu", "juggle")
