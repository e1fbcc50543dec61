"""What changes in the planner from one task to the next."""

import pytest
from helpers_planning import REST, ToyDynamics, image_of, moved, observation

from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.presets import FINGER_STD, LIKE, PlannerOptions, kinematics_only, preset, task_preset
from dexworld.robots.franka_allegro import FrankaAllegro


@pytest.mark.parametrize("task", sorted(FINGER_STD))
def test_the_papers_planner_differs_between_tasks_by_its_finger_spread_only(task):
    ours = task_preset("paper", task)
    assert ours.solver == preset("paper").solver
    assert ours.objective == preset("paper").objective
    assert ours.config.finger_std == (0.01 if task == "place" else 0.1)


def test_held_and_pushed_objects_are_moved_by_hands_that_do_not_turn():
    for task in FINGER_STD:
        assert isinstance(task_preset("cpu", task).solver, HandSpaceSolver) == (task in ("place", "push"))


def test_a_push_is_judged_by_the_scene_and_not_by_where_the_goals_hand_is():
    names = {term.name for _, term in task_preset("cpu", "push").objective.terms}
    assert "scene" in names
    assert "keypoints" not in names


def test_a_harder_task_is_planned_as_its_nearest_one_and_a_longer_one_never_looks_ahead_less():
    for task, nearest in LIKE.items():
        ours, theirs = task_preset("cpu", task), task_preset("cpu", nearest)
        assert (ours.solver, ours.config.finger_std) == (theirs.solver, theirs.config.finger_std)
        assert ours.config.replan == ("fixed" if task in ("pick_place", "push_around") else "shrink")
    names = {term.name for _, term in task_preset("cpu", "pick_place").objective.terms}
    assert "latents" in names
    assert "keypoints" not in names


def test_the_kinematic_control_asks_no_model():
    for task in (*FINGER_STD, *LIKE):
        assert not kinematics_only(task, None, FrankaAllegro()).objective.needs_model


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="grasp, place, push"):
        task_preset("cpu", "juggle")


def test_the_paper_preset_has_the_papers_budget_and_cost():
    plan = preset("paper")
    assert (plan.config.horizon, plan.solver.samples, plan.solver.elites, plan.solver.iterations) == (3, 512, 10, 10)
    assert (plan.config.arm_std, plan.config.finger_std) == (0.3, 0.1)
    assert [(weight, term.name) for weight, term in plan.objective.terms] == [(1.0, "latents"), (0.001, "keypoints")]
    assert plan.config.model.model_budget is None
    assert plan.config.kinematic_start is None


def test_the_cpu_preset_asks_the_model_for_about_fifteen_hundred_candidate_steps_an_episode():
    dynamics = ToyDynamics()
    policy = preset("cpu").policy(dynamics, FrankaAllegro())
    policy.reset(image_of(moved()))
    joints = REST
    for _ in range(3):
        joints = policy.act(observation(joints))
    steps = sum(motion.deltas.shape[0] * motion.deltas.shape[1] for motion in dynamics.rolled)
    assert steps < 1500  # 9 s at 6 ms per candidate-step
    with pytest.raises(ValueError, match="choose one of paper, cpu"):
        preset("gpu")


@pytest.mark.parametrize("task", [*FINGER_STD, *LIKE])
def test_the_realtime_planner_has_half_the_rounds_and_always_looks_its_whole_horizon_ahead(task):
    for points in (False, True):
        usual, quick = (task_preset(name, task, points) for name in ("cpu", "realtime"))
        rounds = [getattr(each.solver, "solver", each.solver).iterations for each in (usual, quick)]
        assert rounds == [4, 2]
        assert quick.config.replan == "fixed"
        assert (quick.config.kinematic_start is None) == (usual.config.kinematic_start is None)
        assert (quick.objective, quick.stages) == (usual.objective, usual.stages)


@pytest.mark.parametrize("name", ["cpu", "paper"])
@pytest.mark.parametrize("task", ["reach", "place", "push"])
def test_options_replace_what_they_name_and_leave_the_rest_of_the_preset(name, task):
    chosen = task_preset(name, task)
    unchanged = PlannerOptions().applied(chosen)
    assert (unchanged.config, unchanged.solver) == (chosen.config, chosen.solver)
    changed = PlannerOptions(horizon=5, samples=16, elites=4, model_budget=8, rewiden=0.1).applied(chosen)
    search = getattr(changed.solver, "solver", changed.solver)
    assert (search.samples, search.elites, changed.config.horizon, changed.config.rewiden) == (16, 4, 5, 0.1)
    assert changed.config.model.model_budget == 8
    assert changed.config.finger_std == chosen.config.finger_std


@pytest.mark.parametrize("wrong", [{"elites": 1000}, {"horizon": 0}, {"model_budget": 0}, {"arm_std": -1.0}])
def test_options_that_the_planner_refuses_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PlannerOptions(**wrong).applied(task_preset("cpu", "reach"))
