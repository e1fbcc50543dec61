"""A visitor's session: steps, branches, what is known of the truth, and a link that restores it."""

import os
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from studio_fixtures import desks_here

from dexworld.data.parallel import WorkerDied
from dexworld.studio.desk import Desk, Job
from dexworld.studio.hand_control import HandControl
from dexworld.studio.imagination import Begun, ImaginedFrame, Recorded
from dexworld.studio.imagine_session import LONGEST_PATH, ImagineSession
from dexworld.studio.imagined_path import PathWriter
from dexworld.studio.path_follower import KEPT_FRAMES
from dexworld.studio.planner import GoalChoice
from dexworld.studio.start_frame import Start, open_any
from dexworld.studio.state_link import Place, packed, unpacked
from dexworld.track import ArrayFrames, Track

PICTURE = np.zeros((4, 6, 3), np.uint8)


class Told:
    """Stands in for the model: pictures tell how long the path is."""

    def begin(self, start):
        if start.seed == 13:
            raise ValueError("scene 13 can't be set")
        return Begun(PICTURE, np.array([0.0, 0.0, 1.0]), np.ones(42, bool), "a scene", "me", 7, 2, PICTURE[0])

    def frame(self, start, path, heat=False):
        if path and getattr(path[-1], "offset", (0, 0, 0))[2] > 0.5:
            raise ValueError("too high")
        still = np.zeros((12, 2)), np.ones(12, bool), None, None, PICTURE[..., 0] / 1.0 if heat else None
        end = PICTURE[..., 0] / 1.0, PICTURE if path and isinstance(path[-1], Recorded) else None
        return ImaginedFrame(
            PICTURE + len(path), np.eye(3), True, np.zeros((42, 3)), np.eye(4), *still, *end, np.zeros(23), 0.01
        )

    def picture(self, seed, joints):
        return PICTURE + 100 + len(joints)

    def track(self, seed, joints):
        columns = {"keypoints_world": np.zeros((3, 42, 3)), "keypoints_valid": np.ones((3, 42), bool)}
        frames = ArrayFrames(np.stack([PICTURE + 100] * 3))
        return Track(np.stack([np.eye(4)] * 3), np.eye(3), columns, 1.0, frames, seed=seed)


class Other(Told):
    """Stands in for a second model."""

    def frame(self, start, path, heat=False):
        frame = super().frame(start, path, heat)
        return replace(frame, picture=frame.picture + 50)


class Broken:
    """Stands in for a second model that imagines nothing."""

    def frame(self, start, path, heat=False):
        raise ValueError("it knows no hands")


@pytest.fixture
def session():
    session = ImagineSession(desks_here(Told(), Told()), lambda: None)
    session.open(Start())
    return session


def test_a_motion_takes_a_step_and_shows_it_beside_the_truth(session):
    session.move("left", 0.05)
    assert (session.shown, len(session.path)) == (1, 1)
    np.testing.assert_allclose(session.control.offset, (0.05, 0.0, 0.0), atol=1e-9)  # this camera looks along z
    assert (session.frame.picture[0, 0, 0], session.true[0, 0, 0]) == (1, 101)


def test_motions_that_come_before_the_scene_are_kept_for_it():
    desks = desks_here(Told(), Told(), wait=True)
    session = ImagineSession(desks, lambda: None)
    session.open(Start())
    session.move("left")
    session.move("close")
    while desks.model.asked:
        desks.model.answer()
    assert len(session.path) == 2
    assert session.control.offset[0] > 0 < session.control.closing[0]


def test_beginning_again_is_at_once_where_the_scene_is_the_same(session):
    session.move("left")
    session.open(Start())
    assert (session.shown, session.path, session.busy) == (0, (), False)
    session.move("left")
    session.move("up")
    assert session.shown == 2


def test_only_the_latest_aim_is_gone_for():
    desks = desks_here(Told(), Told(), wait=True)
    session = ImagineSession(desks, lambda: None)
    session.open(Start())
    for _ in range(2):
        desks.model.answer()
    for number in range(1, 20):
        session.steer(HandControl((0.005 * number, 0.0, 0.0)))
        assert len(desks.model.asked) <= 1
    while desks.model.asked:
        desks.model.answer()
    np.testing.assert_allclose(session.control.offset, (0.095, 0.0, 0.0), atol=0.02)
    assert len(session.path) <= 3


def test_another_motion_from_the_past_is_a_branch_and_one_can_return(session):
    for _ in range(3):
        session.move("left")
    first = session.path
    session.seek(1)
    assert session.frame.picture[0, 0, 0] == 1
    session.move("right", 0.1)
    assert len(session.path) == 2
    assert session.branches == [(Start(), first)]
    session.branch(0)
    assert session.path == first
    assert session.shown == 3
    assert len(session.branches) == 1


def test_undo_takes_the_last_step_back_and_a_new_one_replaces_it(session):
    session.move("left")
    session.move("up")
    session.undo()
    session.move("down")
    assert len(session.path) == 2
    assert session.control.offset[2] < 0
    assert not session.branches


def test_what_goes_wrong_is_said_and_the_path_ends_before_it(session):
    session.move("left")
    session.follow([HandControl((0.0, 0.0, 0.6))])
    assert session.problem == "too high"
    assert len(session.path) == 1
    session.move("left")
    assert (session.problem, len(session.path)) == ("", 2)
    session.open(Start(seed=13))
    assert session.problem == "scene 13 can't be set"


def test_a_path_ends_at_its_longest_and_memory_is_bounded(session):
    for number in range(1, LONGEST_PATH + 5):
        session.follow([HandControl((0.01 * number, 0.0, 0.0))])
    assert len(session.path) == LONGEST_PATH
    assert "at most" in session.problem
    for number in range(KEPT_FRAMES):
        session.seek(0)
        session.follow([HandControl((0.0, 0.01 * number, 0.0))])
    assert len(session._frames) <= KEPT_FRAMES
    assert len(session.followers[0].answers) <= KEPT_FRAMES
    assert len(session.branches) <= 8


def test_a_recording_is_followed_to_its_end_and_shows_its_own_pictures():
    session = ImagineSession(desks_here(Told(), Told()), lambda: None)
    session.open(Start(folder="somewhere"))
    session.follow_recording(5)
    assert session.path == (Recorded(2), Recorded(4), Recorded(6))
    assert session.true is not None
    session.follow_recording()
    assert session.problem == "the recording ends here"
    session.move("up")
    assert session.true is None


def test_a_known_way_is_gone_at_once_and_shown():
    shown = []
    session = ImagineSession(desks_here(Told(), Told()), lambda: shown.append(session.shown))
    session.open(Start())
    session.move("left")
    session.open(Start())
    shown.clear()
    session.move("left")
    assert shown[-1] == 1


def test_a_second_model_follows_every_step_branch_and_rewind():
    session = ImagineSession(desks_here(Told(), Told(), other=Other()), lambda: None)
    session.open(Start())
    for motion in ("left", "up", "left"):
        session.move(motion)
    session.seek(1)
    session.move("right")
    assert (session.frame.picture[0, 0, 0], session.other.picture[0, 0, 0]) == (2, 52)
    session.with_heat(True)
    assert session.other.heat is not None
    session.seek(0)
    assert session.other.picture[0, 0, 0] == 50
    session.branch(0)
    assert (session.shown, session.other.picture[0, 0, 0]) == (3, 53)
    assert session.whole().film().shape == (4, 4, 18, 3)
    session.open(Start(seed=5))
    assert session.other.picture[0, 0, 0] == 50


def test_what_the_second_model_cant_do_is_said_while_the_first_goes_on():
    session = ImagineSession(desks_here(Told(), Told(), other=Broken()), lambda: None)
    session.open(Start())
    session.move("left")
    assert (session.shown, session.other) == (1, None)
    assert session.trouble == "the second model: it knows no hands"


def test_a_path_is_saved_as_episodes_that_every_reader_opens(session, tmp_path):
    assert session.whole() is None
    session.move("left")
    session.move("up")
    writer = PathWriter(tmp_path, ("somewhere/reference",))
    folders = writer.write(session.whole(), session.true_track)
    assert [folder.name for folder in folders] == ["imagined-reference", "true"]
    writer.write(session.whole(), session.true_track)
    imagined, true = (open_any(folder) for folder in folders)
    assert (imagined.ids, len(imagined[0]), imagined[0].fps) == (("0001", "0002"), 3, 1.0)
    assert true[0].seed == session.start.seed
    np.testing.assert_array_equal(imagined[0].columns["joint_targets"], np.zeros((3, 23)))
    with pytest.raises(ValueError, match="checkpoint"):
        PathWriter(tmp_path, ("elsewhere/reference",)).write(session.whole(), session.true_track)


def test_a_film_shows_each_step_beside_the_truth(session):
    session.move("left")
    session.move("left")
    film = session.whole().film()
    assert film.shape == (3, 4, 12, 3)
    assert (film[2, 0, 0, 0], film[2, 0, 6, 0]) == (2, 102)


def test_a_link_restores_start_and_path():
    path = (Recorded(5), HandControl((0.12345, -0.5, 0.25), (0.5, 0.5, 0.5, 0.5), (0.1, 0.2, 0.3, 0.4, -1.0)))
    start = Start(seed=7, folder="a folder/ü", episode=3, frame=9, hand="left")
    view, found, steps, *_ = unpacked(packed(Place("Imagine", start, path)))
    assert (view, found, steps[0]) == ("Imagine", start, path[0])
    np.testing.assert_allclose(steps[1].offset, path[1].offset, atol=1e-4)
    assert steps[1].closing == path[1].closing


@pytest.mark.parametrize("letters", ["x", "eNo", "%%%", "A" * 30_000, packed(Place("I", Start(), ()))[:-3]])
def test_a_damaged_link_says_so(letters):
    with pytest.raises(ValueError, match="this link can't be read"):
        unpacked(letters)


def test_a_link_restores_goal_and_moves():
    choice = GoalChoice("push", 900_007, ((1.5, 2.0), (3.0, 4.25)), moves=((0.123456,) * 23,))
    found = unpacked(packed(Place("Plan", Start(), (), choice))).plan
    assert (found.task, found.seed, found.points) == ("push", 900_007, choice.points)
    np.testing.assert_allclose(found.moves, choice.moves, atol=5e-5)


@pytest.mark.parametrize(
    "place",
    [
        Place("Imagine", Start(pixels=b"123", size=(1, 1)), ()),
        Place("Plan", Start(), (), GoalChoice(pixels=b"123", size=(1, 1))),
    ],
)
def test_a_picture_of_ones_own_is_not_put_into_a_link(place):
    with pytest.raises(ValueError, match="isn't part of a link"):
        packed(place)


def test_a_desk_answers_in_another_process_and_outlives_its_death():
    desk = Desk(Job(partial(import_module, "os")), "test")
    try:
        assert desk.ask(("getpid", ())).result(60) != os.getpid()
        assert isinstance(desk.ask(("listdir", ("no such folder",))).exception(60), FileNotFoundError)
        assert isinstance(desk.ask(("_exit", (3,))).exception(60), WorkerDied)
        assert desk.ask(("getpid", ())).result(60)
    finally:
        began = time.monotonic()
        desk.close()
    assert time.monotonic() - began < 5
    assert desk.ask(("getpid", ())).cancelled()


def test_a_closed_session_asks_for_nothing_more():
    desks = SimpleNamespace(model=None, scene=None, other=None)
    session = ImagineSession(desks, lambda: None)
    session.close()
    session.open(Start())
    session.move("left")
