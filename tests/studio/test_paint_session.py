"""A visitor's painted path: where clicks lead, films of the shipped video model, truth and the goal's favourite."""

import numpy as np
import pytest
from studio_fixtures import HereDesk

from dexworld.sim.hands.hand_puppet import HandPuppet
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.studio.film_painter import Film, GoalPicture, OpenedStill, PaintedFilm, PathRanking
from dexworld.studio.paint_session import MOST_CANDIDATES, Painting, PaintSession
from dexworld.studio.paint_view import favoured, films_row, said
from dexworld.studio.painted_path import LONGEST, PALMS, SHAPES, PaintedPath, WayPoint, camera_axes, script_of
from dexworld.studio.start_frame import Start
from dexworld.studio.state_link import Place, packed, unpacked
from dexworld.studio.still_scene import Still, open_still, painted_clip
from dexworld.video.clips.triplet_files import write_triplet

DRAWER = Still(seed=900_000)  # whose clip pulls a drawer open
AWAY = PaintedPath((WayPoint((0.35, 0.2, 1.05)),), "left")
AXES = np.eye(3)


class Told:
    """Stands in for the video model: a camera looks level along x; a film's brightness counts the way-points."""

    def begin(self, still):
        if still.seed == 13:
            raise ValueError("scene 13 can't be set")
        film = self.video(0)
        world_from_camera = np.eye(4)
        world_from_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        pinhole = np.array([[48.0, 0, 24], [0, 48.0, 16], [0, 0, 1]])
        homes = {"left": np.array([0.5, 0.1, -0.1]), "right": np.array([0.5, -0.1, -0.1])}
        cameras = np.tile(world_from_camera, (5, 1, 1))
        return OpenedStill("told", film, 8.0, cameras, pinhole, AXES, homes, None, "It waves.")

    def video(self, value):
        return Film(np.full((5, 32, 48, 3), value, np.uint8), b"mp4")

    def film(self, still, path):
        if len(path.points) == 3:
            raise ValueError("three are too many")
        return PaintedFilm(self.video(len(path.points)), np.zeros((5, 42, 3)), np.ones((5, 42), bool))

    def truth(self, still, path):
        return None if path.points else self.video(9)

    def ranking(self, still, goal, paths):
        if goal is None:
            raise ValueError("this scene has no goal picture; give one of your own")
        scores = np.array([-0.1 * len(path.points) for path in paths])
        return PathRanking(scores, np.argsort(-scores))


@pytest.fixture
def session():
    session = PaintSession(HereDesk(Told()), lambda: None)
    session.open(Painting())
    return session


def test_a_scene_opens_with_the_hands_of_its_recording_and_a_click_replaces_them(session):
    assert session.truth_of(session.path).frames[0, 0, 0, 0] == 9
    assert "It waves." in said(session)
    session.paint_at(np.zeros(3), np.array([1.0, -0.1, -0.4]))
    (point,) = session.path.points
    np.testing.assert_allclose(point.place, (0.25, -0.025, -0.1), atol=1e-4)  # at the height of the hand's start
    assert session.unknown(session.path)
    assert "Nobody knows" in said(session)


def test_a_flat_ray_meets_the_depth_of_the_way_point_before_and_clicks_beside_the_picture_are_nothing(session):
    session.paint_at(np.zeros(3), np.array([1.0, 0.2, -0.05]))
    np.testing.assert_allclose(session.path.points[0].place, (0.5, 0.1, -0.025), atol=1e-4)
    session.paint_at(np.zeros(3), np.array([1.0, 1.2, -0.05]))
    session.paint_at(np.zeros(3), np.array([-1.0, 0.0, 0.5]))
    assert len(session.path.points) == 1


def test_way_points_are_moved_carried_chosen_and_taken_away(session):
    session.carry(shape="fist")
    session.move("left", 0.02)
    session.paint(np.array([0.6, 0.0, 0.0]))
    assert [point.shape for point in session.path.points] == ["fist", "fist"]
    np.testing.assert_allclose(session.path.points[0].place, (0.5, -0.08, -0.1))
    session.choose(0)
    session.move("up", 0.05)
    session.paint(np.array([0.55, 0.0, 0.0]))  # between the two
    assert [round(point.place[2], 2) for point in session.path.points] == [-0.05, 0.0, 0.0]
    assert session.problem == "three are too many"
    session.carry(palm="inward")
    assert [point.palm for point in session.path.points] == ["down", "inward", "inward"]
    session.erase()
    assert (len(session.path.points), session.point, session.problem) == (2, 0, "")
    session.take_hand("left")
    assert session.film_of(session.path).film.frames[0, 0, 0, 0] == 2
    session.clear()
    assert not session.path.points


def test_while_a_path_is_dragged_only_the_latest_is_imagined():
    desk = HereDesk(Told(), wait=True)
    session = PaintSession(desk, lambda: None)
    session.open(Painting())
    desk.answer()
    for number in range(20):
        session.put(np.array([0.5, 0.01 * number, 0.0]))
        assert len(desk.asked) == 1
    made = []
    while desk.asked:
        (method, arguments), _ = desk.asked[0]
        made += [arguments[1]] if method == "film" else []
        desk.answer()
    assert len(made) == 2  # what was being imagined, and the last
    assert made[-1] == session.path


def test_candidates_are_kept_ranked_by_a_goal_taken_up_again_and_dropped(session):
    session.keep()
    assert favoured(session) == "this scene has no goal picture; give one of your own"
    session.paint(np.array([0.5, 0.0, 0.0]))
    session.keep()
    assert favoured(session) == "this scene has no goal picture; give one of your own"
    session.want(GoalPicture(bytes(3), (1, 1)))
    assert favoured(session).startswith("The goal favours candidate 1.")
    with pytest.raises(ValueError, match="is candidate 2 already"):
        session.keep()
    session.drop(0)
    assert "Keep two paths" in favoured(session)
    session.clear()
    session.take(0)
    assert len(session.path.points) == 1
    for number in range(MOST_CANDIDATES - 1):
        session.put(np.array([0.5, 0.01 * number + 0.1, 0.0]))
        session.keep()
    session.put(np.array([0.5, 0.4, 0.0]))
    with pytest.raises(ValueError, match="drop one first"):
        session.keep()
    with pytest.raises(ValueError, match="isn't part of a link"):
        session.shared()


def test_a_film_plays_to_its_end_and_a_scene_that_fails_says_so(session):
    session.play()
    shown = [session.frame]
    while session.playing:
        session.advance()
        shown.append(session.frame)
    assert shown == [0, 1, 2, 3, 4, 4]
    session.open(Painting(Still(seed=13)))
    assert said(session) == "**scene 13 can&#x27;t be set**"
    row = films_row([("a <b>", Told().video(1)), ("later", None)])
    assert row.count("<video") == 1
    assert "a &lt;b&gt;" in row


def test_a_link_restores_scene_path_and_candidates():
    path = PaintedPath((WayPoint((0.1, -0.2, 1.0), "fist", "inward"), WayPoint((0.5, 0.0, 1.0))), "left")
    place = Place("DWM", Start(), (), painting=Painting(Still(7, "a folder", 3), path, (PaintedPath(), path)))
    assert unpacked(packed(place)) == place
    with pytest.raises(ValueError, match="at most"):
        unpacked(packed(place._replace(painting=Painting(path=_long()))))


def _long():
    path = PaintedPath()
    object.__setattr__(path, "points", (WayPoint((0.0, 0.0, 0.0)),) * (LONGEST + 1))
    return path


@pytest.mark.parametrize("changes", [{"place": (0.0, np.nan, 0.0)}, {"shape": "claw"}, {"palm": "up"}])
def test_a_way_point_that_is_none_is_refused(changes):
    with pytest.raises(ValueError, match=r"three numbers in metres|a hand is"):
        WayPoint(**{"place": (0.0, 0.0, 0.0)} | changes)


@pytest.mark.parametrize("hand", ["left", "right"])
def test_a_painted_hand_follows_its_way_points_and_stays_above_the_floor(hand):
    puppet = HandPuppet()
    axes = camera_axes(np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]), np.array([0, 0, 1.0]))
    np.testing.assert_allclose(axes, np.eye(3), atol=1e-9)
    side = slice(0, 21) if hand == "left" else slice(21, 42)
    for shape in SHAPES:
        path = PaintedPath((WayPoint((0.4, 0.0, 1.2), shape), WayPoint((0.6, 0.1, 0.0), shape, "inward")), hand)
        points, valid = puppet.keypoints([script_of(path, axes, puppet, floor=1.0)], 3)
        assert valid[side].all()
        assert valid.sum() == 21
        np.testing.assert_allclose(points[0, side][0], (0.4, 0.0, 1.2), atol=1e-5)
        np.testing.assert_allclose(points[2, side][0][:2], (0.6, 0.1), atol=1e-5)
        assert 1.0 < points[2, side][:, 2].min() < 1.05
    flat = PaintedPath((WayPoint((0.4, 0.0, 1.2), "flat", "inward"),), hand)
    points, _ = puppet.keypoints([script_of(flat, axes, puppet)], 1)
    thumb, little = points[0, side][4], points[0, side][20]
    assert thumb[2] > little[2]  # the thumb is above when palms face each other
    assert (points[0, side][12] - points[0, side][0])[0] > 0.1  # fingers point ahead
    assert set(PALMS) == {"down", "slanted", "inward"}


def test_the_goal_of_a_simulated_scene_favours_the_hand_that_brings_it_about(painter):
    opened = painter.begin(DRAWER)
    assert opened.goal.shape == opened.static.frames.shape[1:]
    ranking = painter.ranking(DRAWER, None, (AWAY, PaintedPath()))
    assert ranking.order.tolist() == [1, 0]
    assert ranking.scores[1] > ranking.scores[0] + 0.3
    own = GoalPicture.of(opened.static.frames[-1])
    assert painter.ranking(DRAWER, own, (AWAY, PaintedPath())).scores.tolist() == [-1.0, -1.0]  # nothing is wanted


def test_in_a_simulated_scene_a_painted_path_is_carried_out_and_imagined_without_a_look_at_the_outcome(painter):
    scene = painter._scene(DRAWER)
    known = painted_clip(scene, AWAY)
    assert known.interaction is known.static
    assert (known.hands.max(axis=(1, 2, 3)) > 100).all()  # a hand is seen in every frame
    truth = painter.truth(DRAWER, AWAY).frames
    assert (truth[-1] != known.static[-1]).any()
    np.testing.assert_array_equal(painter.truth(DRAWER, PaintedPath()).frames, scene.recorded.interaction)
    made = painter.film(DRAWER, AWAY)
    assert made.valid[:, :21].all()
    assert not made.valid[:, 21:].any()
    assert made.keypoints[..., 2][made.valid].min() > COUNTER_TOP
    assert painter.film(DRAWER, AWAY) is made


def test_a_triplet_folder_is_painted_on_and_its_goal_is_its_last_picture_without_hands(painter, tmp_path):
    recorded = painter._scene(DRAWER).recorded
    write_triplet(tmp_path, recorded)
    still = Still(folder=str(tmp_path))
    opened = painter.begin(still)
    home = recorded.track.keypoints_world[0, 21]
    np.testing.assert_allclose(opened.homes["right"], home, atol=1e-3)
    assert painter.truth(still, AWAY) is None
    assert painter.truth(still, PaintedPath()) is not None
    beside = PaintedPath((WayPoint(tuple((home + np.array([0.0, 0.3, 0.0])).tolist())),))
    assert painter.ranking(still, None, (beside, PaintedPath())).order[0] == 1
    with pytest.raises(ValueError, match="no clip 1"):
        painter.begin(Still(folder=str(tmp_path), clip=1))
    (tmp_path / "hand_motions" / f"{recorded.name}.npz").unlink()
    with pytest.raises(ValueError, match="so its camera isn't known"):
        open_still(still, painter.generator.model.config.clip)
