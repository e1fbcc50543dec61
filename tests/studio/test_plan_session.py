"""A search that is watched, and a session that plans and moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from studio_fixtures import HereDesk

from dexworld.planning.cem import CEM
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc import MPCConfig, MPCPolicy
from dexworld.planning.objectives import KeypointPixels
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.observation import Observation
from dexworld.sim.kitchen.allegro_body import REST_POSE
from dexworld.studio import search_watch
from dexworld.studio.frame_overlays import crossed
from dexworld.studio.plan_session import PlanSession
from dexworld.studio.plan_view import clicked_pixel, course, first_object, stands
from dexworld.studio.planner import GoalChoice, PlanScene
from dexworld.studio.search_watch import SearchNews, WatchedSearch

IMAGE = np.zeros((224, 392, 3), np.uint8)
CAMERA = np.array([[0.0, 0.0, 1.0, -1.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.6], [0.0, 0.0, 0.0, 1.0]])
PINHOLE = np.array([[200.0, 0.0, 196.0], [0.0, 200.0, 112.0], [0.0, 0.0, 1.0]])
SEEN = Observation(IMAGE, REST_POSE, CAMERA, PINHOLE, np.eye(4), REST_POSE)


def policy(solver):
    """Searches for moves of the hand by kinematics alone."""
    made = MPCPolicy(None, FrankaAllegro(), 1.0 * KeypointPixels(), solver, MPCConfig())
    made.reset(IMAGE, goal_pixels=np.full((12, 2), 100.0))
    return made


@pytest.mark.parametrize("solver", [CEM(30, 5, 3), HandSpaceSolver(CEM(30, 5, 3))])
def test_a_watched_search_finds_what_it_finds_unwatched_and_tells_every_population(solver):
    alone = policy(solver)
    expected = alone.act(SEEN)
    watched = WatchedSearch(policy(solver), SEEN)
    news = [watched.next() for _ in range(4)]
    assert [each.populations for each in news] == [1, 2, 3, 3]
    assert [each.done for each in news] == [False, False, False, True]
    assert all(each.expected == 3 for each in news)
    np.testing.assert_array_equal(watched.actions, expected)
    assert news[0].ways.shape == (24, 4, 3)
    wrist = FrankaAllegro().forward(torch.as_tensor(REST_POSE)).wrist.numpy()
    np.testing.assert_allclose(news[0].ways[:, 0], np.tile(wrist, (24, 1)), atol=1e-5)
    assert news[-2].costs[0] <= news[0].costs[0]
    assert watched.policy.solver is solver


def test_a_search_that_is_stopped_ends_and_leaves_its_policy_as_it_was():
    watched = WatchedSearch(policy(CEM(20, 4, 50)), SEEN)
    watched.next()
    watched.stop()
    assert not watched._thread.is_alive()
    assert isinstance(watched.policy.solver, CEM)
    assert watched.actions is None


def test_a_search_that_nobody_asks_on_is_given_up_and_says_so(monkeypatch):
    monkeypatch.setattr(search_watch, "WAIT_S", 0.01)
    watched = WatchedSearch(policy(CEM(20, 4, 50)), SEEN)
    watched.next()
    watched._thread.join()
    with pytest.raises(ValueError, match="plan again"):
        watched.next()


class Played:
    """Stands in for the planner: a plan takes two populations, a task two moves."""

    def __init__(self):
        self.moves = self.populations = 0

    def set(self, visitor, choice):
        if choice.sentence:
            raise ValueError("it doesn't understand sentences")
        self.moves = self.populations = 0
        return scene(0)

    def search(self, visitor):
        self.populations += 1
        done = self.populations % 3 == 0
        return SearchNews(np.array([1.0 / self.populations]), np.zeros((4, 3, 3)), np.zeros((1, 42, 3)), 1, 2, done)

    def move(self, visitor):
        self.moves += 1
        return scene(self.moves)

    def stop(self, visitor):
        self.populations = 0

    leave = stop


def scene(steps):
    hand = np.zeros((42, 3)), np.ones(42, bool), (), REST_POSE, FrankaAllegro().limits.numpy()
    over = steps == 2
    success = over or None
    moves, objects = tuple((0.1 * number,) * 23 for number in range(steps)), np.array([[0.5, 0.0, 0.92]])
    rest = objects, 900_000, moves, 0.1, 0.05, over
    return PlanScene(IMAGE, IMAGE, None, PINHOLE, CAMERA, *hand, *rest, success=success)


@pytest.fixture
def session():
    session = PlanSession(HereDesk(Played()), 1, lambda: None)
    session.open(GoalChoice())
    return session


def test_a_plan_is_found_and_carried_out_step_by_step(session):
    session.plan()
    assert session.planned
    assert (len(session.history), session.scene.steps) == (2, 0)
    session.step()
    assert (session.planned, session.scene.steps) == (False, 1)
    session.step()
    assert session.scene.over
    session.plan()
    assert not session.planned


def test_going_plans_and_moves_until_the_moves_are_used_up(session):
    session.go()
    assert (session.scene.steps, session.scene.success) == (2, True)
    assert not session.going
    assert not session.busy


def test_what_is_asked_for_before_the_scene_stands_is_done_then():
    desk = HereDesk(Played(), wait=True)
    session = PlanSession(desk, 1, lambda: None)
    session.open(GoalChoice())
    session.step()
    while desk.asked:
        desk.answer()
    assert session.scene.steps == 1
    session.open(GoalChoice())
    session.go()
    while desk.asked:
        desk.answer()
    assert session.scene.over


def test_a_search_ends_where_it_is_stopped():
    desk = HereDesk(Played(), wait=True)
    session = PlanSession(desk, 1, lambda: None)
    session.open(GoalChoice())
    desk.answer()
    session.go()
    desk.answer()
    session.stop()
    while desk.asked:
        desk.answer()
    assert (session.scene.steps, session.searching, session.planned) == (0, False, False)
    session.plan()
    assert session.busy


def test_a_goal_that_the_model_cant_read_is_said(session):
    session.open(GoalChoice(sentence="push it"))
    assert session.problem == "it doesn't understand sentences"
    session.point((10.0, 10.0), (20.0, 20.0))
    assert (session.problem, session.choice.points) == ("", ((10.0, 10.0), (20.0, 20.0)))


def test_a_click_is_a_pixel_of_the_picture_from_wherever_one_looks():
    place = CAMERA[:3, 3]
    np.testing.assert_allclose(clicked_pixel(scene(0), place, np.array([1.0, 0.0, -0.2])), (196, 152), atol=1e-6)
    elsewhere = np.array([0.5, 0.5, 1.4])
    counter = np.array([0.5, 0.0, 0.92])
    u, v = clicked_pixel(scene(0), elsewhere, counter - elsewhere)
    np.testing.assert_allclose((u, v), (196, 112 - 200 * 0.32 / 1.5), atol=1e-6)
    assert clicked_pixel(scene(0), place, np.array([-1.0, 0.0, 0.0])) is None
    assert clicked_pixel(scene(0), place, np.array([1.0, 5.0, 0.0])) is None


def test_what_restores_a_scene_has_its_moves_until_another_goal_is_set(session):
    session.step()
    assert session.kept == replace(session.choice, moves=((0.0,) * 23,))
    session.point((10.0, 10.0), (20.0, 20.0))
    assert session.kept.moves == ()


def test_a_scene_is_set_with_a_goal_picture_of_ones_own_after_the_moves_of_a_link(planner):
    red, moves = np.full((30, 40, 3), (200, 30, 30), np.uint8), (tuple(REST_POSE), tuple(REST_POSE))
    first = planner.set(1, GoalChoice())
    found = planner.set(1, GoalChoice(pixels=red.tobytes(), size=(30, 40), moves=moves))
    assert (found.seed, found.steps, found.distance, found.success) == (first.seed, 2, None, None)
    assert (found.goal == (200, 30, 30)).all()
    assert found.goal.shape == first.goal.shape
    np.testing.assert_allclose(found.joints, REST_POSE, atol=0.05)
    planner.leave(1)
    with pytest.raises(ValueError, match="not 60"):
        GoalChoice(moves=moves * 30)


def test_a_cursor_begins_at_an_object_that_is_seen():
    assert first_object(scene(0)) == pytest.approx((196, 112 - 200 * 0.32 / 1.5))
    unseen = replace(scene(0), objects=np.array([[-3.0, 0.0, 0.9]]))
    assert first_object(unseen) == (196, 112)
    drawn = crossed(IMAGE, (0.0, 223.0))
    assert (drawn[223, 10, 0], drawn[100, 100, 0]) == (255, 0)


def test_how_a_scene_stands_is_said():
    assert "10 cm to go, 5 needed" in stands(scene(0), False)
    assert stands(scene(2), False).startswith("**Solved** after 2 moves")
    assert stands(replace(scene(0), distance=None), False) == "Scene 900000, 0 moves. Press *plan* or *go*."
    assert course([(1.0, 0.1)]) == ""
    assert "cost 0.500" in course([(1.0, 0.1), (0.5, 0.05)])
