"""Goals on points: which points a goal picture asks for, how plans are judged by them, and a push that follows."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_planning import HEIGHT, WIDTH, ToyDynamics, image_of, no_goal, observation
from helpers_points import CELL, MAP, ToyPoints, maps_of
from torch.nn import functional

from dexworld.forecast import Forecast
from dexworld.planning.cem import CEM
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.objectives import FINAL, KeypointPixels
from dexworld.planning.point_goal import AHEAD, PointGoal, moved_points
from dexworld.planning.presets import point_objective
from dexworld.planning.protocols import GoalPoints, Rollout
from dexworld.robots.franka_allegro import FrankaAllegro

NOBODY = torch.zeros(HEIGHT // 4, WIDTH // 4, dtype=torch.bool)
TIPS = torch.tensor([100.0, 60.0])


def changed(start, goal):
    """Where the cells of two maps differ, as cells of 4 pixels."""
    differs = (start != goal).any(-1).unflatten(0, MAP).float()
    return functional.interpolate(differs[None, None], NOBODY.shape)[0, 0]


def asked(start, goal, robot=NOBODY, hides=NOBODY):
    return moved_points(ToyPoints(), start, goal, changed(start, goal), hides, robot, TIPS)


def test_a_goal_picture_asks_for_the_points_that_moved_in_it():
    points = asked(maps_of(object=[(20, 10)]), maps_of(object=[(30, 14)]))
    assert len(points.pixels) >= 8
    moved = torch.tensor([10.0, 4.0]).expand_as(points.pixels) * CELL
    half = CELL / 4  # places lie half cells apart
    torch.testing.assert_close(points.wanted - points.pixels, moved, atol=half, rtol=0)


def test_points_on_the_robot_are_no_goal():
    robot = NOBODY.clone()
    robot[14 * CELL // 4 : 16 * CELL // 4 + 1, 30 * CELL // 4 : 32 * CELL // 4 + 1] = True
    points = asked(maps_of(object=[(20, 10)]), maps_of(object=[(30, 14)]), robot)
    assert not ((points.wanted / CELL).long() == torch.tensor([30, 14])).all(-1).any()


def test_what_the_hand_hides_at_the_start_is_before_its_fingers_on_the_way_to_its_goal():
    start, goal = maps_of(object=[]), maps_of(object=[(30, 14)])
    points = asked(start, goal)
    centre = torch.tensor([31.0, 15.0]) * CELL
    assert ((points.wanted - centre).abs() < 1.5 * CELL).all()
    way = (points.pixels - points.wanted).mean(dim=0)
    torch.testing.assert_close(way, (1 - AHEAD) * (TIPS - centre), atol=CELL, rtol=0)


def test_counter_that_the_arm_uncovers_is_not_what_the_hand_hides():
    start, goal = maps_of(object=[]), maps_of(object=[(30, 14)])
    start.unflatten(0, MAP)[6:12, 8:18, 0] += 1000.0  # the arm, near the fingers
    assert (((asked(start, goal).wanted / CELL).long() - torch.tensor([30, 14])).abs() <= 1).all()


def test_a_goal_picture_in_which_nothing_moved_says_so(caplog):
    same = maps_of(object=[(20, 10)])
    with caplog.at_level(logging.WARNING):
        assert len(asked(same, same).pixels) == 0
    assert "nothing is to be moved" in caplog.text


def rollout(pixels, spread):
    """Candidates whose points end so: pixels (N, E, Q, 2), spread (N, E, Q)."""
    empty = torch.zeros(len(pixels), 1, 23)
    forecast = Forecast(pixels[:, None], spread[:, None])
    return Rollout(FrankaAllegro(), empty, empty[0, 0], empty, empty, empty, points=forecast)


def goal(wanted, weights):
    wanted = torch.tensor(wanted)
    return replace(no_goal(), points=GoalPoints(wanted, wanted, torch.tensor(weights)))


def test_plans_are_judged_by_how_far_points_will_be_from_where_they_should_be():
    places = torch.tensor([[[[10.0, 10.0]]], [[[10.0, 40.0]]]])
    cost = PointGoal(risk="centre", time=FINAL)(rollout(places, torch.ones(2, 1, 1)), goal([[10.0, 20.0]], [1.0]))
    torch.testing.assert_close(cost, torch.tensor([10.0, 20.0]) / HEIGHT, atol=1e-4, rtol=0)


def test_what_is_unsure_and_what_opinions_differ_in_costs():
    wanted = goal([[10.0, 10.0]], [1.0])
    sure, unsure = torch.full((1, 2, 1), 0.1), torch.full((1, 2, 1), 8.0)
    there = torch.tensor([[[[10.0, 10.0]], [[10.0, 10.0]]]])
    apart = torch.tensor([[[[10.0, 10.0]], [[10.0, 30.0]]]])
    costs = {risk: PointGoal(risk=risk, time=FINAL) for risk in ("centre", "expected", "worst")}
    assert costs["centre"](rollout(there, unsure), wanted) < 1e-4
    assert costs["expected"](rollout(there, unsure), wanted) > costs["expected"](rollout(there, sure), wanted)
    assert costs["worst"](rollout(apart, sure), wanted) > costs["expected"](rollout(apart, sure), wanted) > 0.03


def test_points_that_weigh_nothing_do_not_count():
    places = torch.tensor([[[[10.0, 10.0], [90.0, 90.0]]]])
    wanted = goal([[10.0, 20.0], [0.0, 0.0]], [1.0, 0.0])
    cost = PointGoal(risk="centre", time=FINAL)(rollout(places, torch.ones(1, 1, 2)), wanted)
    torch.testing.assert_close(cost, torch.tensor([10.0]) / HEIGHT, atol=1e-4, rtol=0)


@pytest.mark.parametrize("call", [lambda: PointGoal(risk="brave"), lambda: GoalPoints(*map(torch.zeros, (2, 3, 4)))])
def test_what_makes_no_goal_is_refused(call):
    with pytest.raises((ValueError, TypeError)):
        call()


class PointDynamics(ToyDynamics):
    """The toy world with points; its latents are the maps of a scene with an object."""

    def __init__(self):
        super().__init__()
        self.points, self.shown = ToyPoints(), [maps_of(object=[(20, 10)])]

    def encode(self, images):
        return self.shown[min(len(self.shown) - 1, 0)]

    def keypoints(self, latents):
        return torch.zeros(12, 2), torch.zeros(12)


def planner(dynamics, **options):
    solver = HandSpaceSolver(CEM(64, elites=6, iterations=4), (0.1, 0.1, 0.02))
    return MPCPolicy(dynamics, FrankaAllegro(), point_objective(), solver, MPCConfig(horizon=2), **options)


def test_a_clicked_point_is_moved_towards_where_it_should_be():
    dynamics = PointDynamics()
    dynamics.points.near = 1e6  # the hand takes along whatever there is
    policy = planner(dynamics)
    start, end = np.array([[143.0, 73.0]]), np.array([[163.0, 83.0]])
    policy.reset(goal_points=(start, end))
    policy.act(observation())
    found = policy.imagined.points.pixels[0, -1, 0, 0]
    assert (found - torch.tensor(end[0])).norm() < 0.3 * np.linalg.norm(end - start)
    assert not dynamics.rolled  # no latents are predicted for points alone
    assert policy.statistics[0].terms["points"] < 0.05


def test_clicks_are_pixels_of_the_observed_picture_and_the_model_sees_its_middle():
    policy = planner(PointDynamics())
    policy.config = replace(policy.config, image_size=(224, 384))
    policy.reset(goal_points=([[143.0, 73.0]], [[163.0, 83.0]]))
    policy.watch(observation())
    assert policy.goal.points.pixels.tolist() == [[139.0, 73.0]]
    assert policy.goal.points.wanted.tolist() == [[159.0, 83.0]]


ONE = [[143.0, 73.0]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((ONE, ONE * 2), "as many"),
        ((np.zeros((0, 2)), np.zeros((0, 2))), "as many"),
        ((ONE, [[np.nan, 0.0]]), "NaN"),
        ((ONE, [[392.0, 10.0]]), "143,73 to 392,10 lie outside the 392 x 224 pixels"),
        ((ONE, [[10.0, -1.0]]), "outside"),
        (None, "a goal picture is needed: or goal_points"),
    ],
)
def test_what_are_no_clicks_is_refused(points, message):
    policy = planner(PointDynamics())

    def asked():
        policy.reset(goal_points=points)
        policy.act(observation())

    with pytest.raises(ValueError, match=message):
        asked()


def test_a_goal_is_a_picture_or_points_unless_the_objective_reads_both():
    picture = image_of(observation().joint_positions)
    with pytest.raises(ValueError, match="not both"):
        planner(PointDynamics()).reset(picture, goal_points=(ONE, ONE))
    policy = planner(PointDynamics())
    policy.objective = 1.0 * PointGoal() + 0.1 * KeypointPixels()
    with pytest.raises(ValueError, match="the objective compares keypoints with one"):
        policy.reset(goal_points=(ONE, ONE))
    policy.reset(picture, goal_points=(ONE, ONE))
    assert policy.goal.points.pixels.tolist() == ONE


def test_a_model_without_points_is_refused_at_once():
    with pytest.raises(ValueError, match="dexworld train points"):
        planner(ToyDynamics())


@pytest.mark.parametrize(("away", "still"), [(5.0, True), (7.0, False), (20.0, False)])
def test_the_hand_stands_still_while_the_points_are_where_they_should_be(away, still):
    dynamics = PointDynamics()
    dynamics.points.near = 1e6
    policy = planner(dynamics)
    start = np.array([[143.0, 73.0]])
    policy.reset(goal_points=(start, start + np.array([away, 0.0])))
    targets = policy.act(observation())
    assert policy.reached == still
    assert np.allclose(targets, observation().joint_targets, atol=1e-6) == still
    assert (policy.statistics[0].candidates == 1) == still
    assert policy.imagined.points is not None


def test_a_policy_without_points_is_never_there():
    policy = MPCPolicy(None, FrankaAllegro(), KeypointPixels(), CEM(8, 2, 1), MPCConfig(reached_px=1e9))
    pixels = np.zeros((12, 2))
    policy.reset(image_of(observation().joint_positions), goal_pixels=pixels)
    policy.act(observation())
    assert not policy.reached
    assert policy.statistics[0].candidates > 1


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="reached_px"):
        MPCConfig(reached_px=-1.0)
