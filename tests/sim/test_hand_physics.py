"""Hands, their contact with objects and handles, and the scripts that use them; nothing is drawn here."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from dexworld.hands import KEYPOINT_NAMES, LEFT, RIGHT, TIPS, WRIST
from dexworld.sim.hands import hand_skills as skills
from dexworld.sim.hands import human_hands
from dexworld.sim.hands.hand_clips import HandClipConfig, draw_scripts, simulate
from dexworld.sim.hands.hand_motion import comes_true
from dexworld.sim.hands.hand_physics import HandWorld, Key, contact
from dexworld.sim.hands.hand_scene import Fixture, HandScene, random_hand_layout
from dexworld.sim.hands.hand_skills import Writer
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.objects import ObjectSpec
from dexworld.sim.poses import orient

CONFIG = HandClipConfig()
CAN = ObjectSpec("can", 0.035, 0.05, (1, 0, 0, 1))
BOX = ObjectSpec("box", 0.03, 0.04, (0, 0, 1, 1), aspect=1.2)
BALL = ObjectSpec("ball", 0.04, 0.04, (0, 1, 0, 1))
DRAWER = Fixture("drawer", -0.02, 0.76, 0.13, 0.08, 1.0, 0.12)
DOOR = replace(DRAWER, kind="door", half_height=0.11)
TICK = 1 / 160  # shares of a clip of 2 s, in steps of 1 / 80 s


def scene_with(*objects, fixture=None):
    """A scene of (item, x, y) things that stand parallel to the counter's edge."""
    items, xs, ys = zip(*objects, strict=True)
    names, yaws = tuple(f"thing {index}" for index in range(len(items))), (0.0,) * len(items)
    positions = tuple(zip(xs, ys, strict=True))
    layout = replace(random_hand_layout(900_000), objects=items, names=names, positions=positions, yaws=yaws)
    return HandScene(replace(layout, fixture=fixture), 96, 144)


def outcome(scene, make, *how, seed=0, **options):
    """A script and its motion."""
    script = make(Writer(scene, np.random.default_rng(seed)), *how, **options)
    return script, simulate(scene, (script,), CONFIG)


def closed_around_a_can(until):
    """The scene, its world and the script of a grasp at that share of the clip."""
    scene = scene_with((CAN, 0.6, -0.02))
    script = skills.grasp(Writer(scene, np.random.default_rng(3)), 0, 1.0)
    world = HandWorld(scene)
    for time in np.arange(0, until, TICK):
        world.step({"right": script.command(time)}, 1 / 80)
    return scene, world, script


@pytest.mark.parametrize(
    ("item", "point", "depth", "normal"),
    [
        (CAN, (0.04, 0.0, 0.0), 0.005, (-1, 0)),  # 35 + 10 mm apart at contact
        (BOX, (0.0, -0.04, 0.01), 0.006, (0, 1)),  # half depth 36 mm
        (BALL, (0.0, 0.045, 0.0), 0.005, (0, -1)),
        (CAN, (0.05, 0.0, 0.0), -0.005, (-1, 0)),
    ],
)
def test_a_sphere_in_a_footprint_overlaps_by_the_distance_that_frees_the_object(item, point, depth, normal):
    found, direction = contact(item, np.zeros(3), 0.0, np.array([point]), np.array([0.01]))
    np.testing.assert_allclose(found, [depth], atol=1e-12)
    np.testing.assert_allclose(direction, [normal], atol=1e-12)


def test_the_left_hand_is_the_right_hand_reflected():
    scene = scene_with((CAN, 0.6, 0.0))
    data = mujoco.MjData(scene.model)
    place, turn = np.array([0.4, -0.1, 1.0]), orient([1, 0.2, -0.3], [0, 1, 0])
    mirror, reflect = np.array([1.0, -1.0, 1.0]), np.diag([1.0, -1.0, 1.0])
    scene.hands.set_hand(data, "right", place, turn, human_hands.HOOK)
    scene.hands.set_hand(data, "left", place * mirror, reflect @ turn @ reflect, human_hands.HOOK)
    mujoco.mj_kinematics(scene.model, data)
    points, valid = scene.hands.keypoints(data, ("left", "right"))
    left, right = (scene.hands.spheres(data, side) for side in ("left", "right"))
    assert valid.all()
    np.testing.assert_allclose(points[LEFT], points[RIGHT] * mirror, atol=1e-6)
    np.testing.assert_allclose(left, right * mirror, atol=1e-6)


def test_keypoints_run_from_the_wrist_to_the_tips_and_a_fist_draws_the_tips_in():
    scene = scene_with((CAN, 0.6, 0.0))
    data = mujoco.MjData(scene.model)

    def right(shape):
        scene.hands.set_hand(data, "right", np.array([0.4, 0, 1.0]), np.eye(3), shape)
        mujoco.mj_kinematics(scene.model, data)
        return scene.hands.keypoints(data, ("right",))

    points, valid = right(human_hands.FLAT)
    assert KEYPOINT_NAMES[RIGHT.start] == "rightHand"
    assert valid.tolist() == [False] * 21 + [True] * 21
    assert not points[LEFT].any()
    np.testing.assert_allclose(points[RIGHT][WRIST], [0.4, 0, 1.0], atol=1e-6)
    for first in TIPS[1:]:  # every finger: four joints, each further from the wrist
        reach = np.linalg.norm(points[RIGHT][first - 3 : first + 1] - points[RIGHT][WRIST], axis=1)
        assert (np.diff(reach) > 0.015).all()
    assert points[RIGHT][8, 1] > points[RIGHT][20, 1]  # palm along x, fingers up: the index is on the thumb's side
    fist, _ = right(human_hands.FIST)
    middle_tip, straight_tip = fist[RIGHT][12], points[RIGHT][12]
    assert np.linalg.norm(middle_tip - fist[RIGHT][WRIST]) < 0.6 * np.linalg.norm(straight_tip - [0.4, 0, 1.0])
    assert middle_tip[0] > straight_tip[0]  # bent to the palm's side


def test_a_turned_box_is_touched_at_its_corner_turns_when_pushed_there_and_nothing_above_a_lid_touches():
    square, at_corner = replace(BOX, aspect=1.0), np.array([[0.0, 0.045, 0.0]])
    parallel, turned = (contact(square, np.zeros(3), yaw, at_corner, np.array([0.01]))[0] for yaw in (0.0, np.pi / 4))
    assert parallel[0] < 0
    np.testing.assert_allclose(turned, [0.03 * np.sqrt(2) - 0.045 + 0.01], atol=1e-12)
    world = HandWorld(scene_with((BOX, 0.6, 0.0)))
    world._slide(0, np.array([0.6 - 0.03, 0.02]), np.array([1.0, 0.0]), 0.01)
    assert world.state.yaws[0] < -0.01  # a push ahead on the left edge turns it clockwise
    assert 0.6 < world.state.positions[0, 0] < 0.61
    points = np.array([[0.0, 0.0, 0.061], [0.0, 0.0, 0.058]])  # just clear of the lid, and resting on it
    assert (contact(CAN, np.zeros(3), 0.0, points, np.array([0.01]))[0] == -np.inf).all()


@pytest.mark.parametrize(
    ("direction", "axis", "sign"), [("left", 1, 1), ("right", 1, -1), ("away", 0, 1), ("closer", 0, -1)]
)
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_push_moves_the_object_where_the_sentence_says(direction, axis, sign, mirror):
    scene = scene_with((replace(CAN, half_height=0.04), 0.6, 0.0))
    script, motion = outcome(scene, skills.push, 0, direction, mirror)
    travel = motion.states[-1].positions[0] - motion.states[0].positions[0]
    assert sign * travel[axis] > 0.05
    assert abs(travel[1 - axis]) < 0.8 * abs(travel[axis])
    assert travel[2] == 0
    assert comes_true(scene, (script,), motion)


def test_a_pushed_object_pushes_the_one_behind_it():
    scene = scene_with((CAN, 0.58, 0.0), (CAN, 0.66, 0.0))
    _, motion = outcome(scene, skills.push, 0, "away", 1.0)
    assert motion.moved[1] > 0.03
    first, second = motion.states[-1].positions
    assert np.linalg.norm(first - second) >= 0.07 - 1e-4


@pytest.mark.parametrize("item", [CAN, BOX, BALL, ObjectSpec("bowl", 0.048, 0.025, (1, 1, 0, 1))])
def test_a_hand_that_closes_around_an_object_lifts_it_rigidly(item):
    scene = scene_with((item, 0.6, -0.02))
    script, motion = outcome(scene, skills.grasp, 0, 1.0, seed=3)
    assert motion.states[-1].positions[0, 2] - motion.states[0].positions[0, 2] > 0.06
    assert comes_true(scene, (script,), motion)
    poses = [hands["right"] for hands in motion.hands[-4:]]
    places = [state.positions[0] for state in motion.states[-4:]]
    in_hand = [turn.T @ (place - wrist) for place, (wrist, turn, _) in zip(places, poses, strict=True)]
    np.testing.assert_allclose(in_hand, np.repeat(in_hand[:1], 4, axis=0), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_hand_that_closes_beside_an_object_does_not_move_it(seed):
    scene = scene_with((CAN, 0.6, 0.0))
    script, motion = outcome(scene, skills.grasp, 0, 1.0, miss=0.12, seed=seed)
    assert motion.moved[0] == 0
    assert comes_true(scene, (script,), motion)


def test_digits_stop_at_the_object_that_they_close_on():
    scene, world, _ = closed_around_a_can(until=0.47)
    assert "right" in world.held
    spheres = scene.hands.spheres(world.data, "right")
    assert contact(CAN, world.state.positions[0], 0.0, spheres, scene.hands.sphere_radius)[0].max() < 0.002


def test_an_object_that_is_let_go_in_the_air_falls_on_the_counter():
    _, world, script = closed_around_a_can(until=1)
    held = script.command(1.0)
    assert world.state.positions[0, 2] > COUNTER_TOP + 0.1
    letting_go = {"right": Key(1.0, held.position, held.rotation, human_hands.GRIP_OPEN)}
    heights = []
    for _ in range(41):
        world.step(letting_go, 1 / 80)
        heights.append(world.state.positions[0, 2])
    assert heights[0] > COUNTER_TOP + 0.05
    assert heights[-1] == pytest.approx(COUNTER_TOP + 0.05)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_drawer_follows_only_fingers_behind_its_bar(mirror):
    scene = scene_with((CAN, 0.55, 0.2), fixture=DRAWER)
    _, pulled = outcome(scene, skills.drawer, mirror)
    assert 0.08 < scene.opening_metres(pulled.states[-1]) < 0.17
    openings = np.array([state.opening for state in pulled.states])
    assert openings[0] == 0
    assert (np.diff(openings) >= 0).all()  # it stays where it was left
    assert openings[-1] == openings[-4]
    _, missed = outcome(scene, skills.drawer, mirror, miss=0.13)
    assert scene.opening_metres(missed.states[-1]) == 0


@pytest.mark.parametrize("hinge", [1.0, -1.0])
def test_a_door_follows_only_fingers_behind_its_bar(hinge):
    scene = scene_with((CAN, 0.52, 0.0), fixture=replace(DOOR, hinge=hinge))
    script, pulled = outcome(scene, skills.door)
    assert script.side == ("right" if hinge > 0 else "left")
    assert scene.opening_metres(pulled.states[-1]) > 0.08
    _, missed = outcome(scene, skills.door, miss=0.12)
    assert scene.opening_metres(missed.states[-1]) == 0


def test_an_opening_drawer_pushes_what_stands_in_its_way():
    scene = scene_with((CAN, 0.68, 0.06), fixture=DRAWER)
    _, motion = outcome(scene, skills.drawer, 1.0)
    front = DRAWER.front - motion.states[-1].opening
    assert motion.moved[0] > 0.02
    assert motion.states[-1].positions[0, 0] <= front - 0.035 + 1e-6


def test_the_bar_of_a_drawn_fixture_is_where_the_contact_rule_has_it():
    for fixture, opening in ((DRAWER, 0.1), (DOOR, 0.7), (replace(DOOR, hinge=-1.0), 0.7)):
        scene = scene_with((CAN, 0.52, 0.0), fixture=fixture)
        data = mujoco.MjData(scene.model)
        scene.pose(data, replace(scene.start, opening=opening))
        scene.refresh(data)
        bars = np.flatnonzero(scene.model.geom_bodyid == scene.model.body("fixture").id)
        middle, axis, _ = fixture.bar(opening)
        bar = min(bars, key=lambda geom: np.linalg.norm(data.geom_xpos[geom] - middle))
        np.testing.assert_allclose(data.geom_xpos[bar], middle, atol=1e-9)
        assert abs(data.geom_xmat[bar].reshape(3, 3)[:, 2] @ axis) == pytest.approx(1.0)


def test_sentences_come_true_and_both_hands_and_near_misses_occur():
    drawn = []
    for seed in range(900_100, 900_112):
        scene = HandScene(random_hand_layout(seed), 96, 144)
        scripts, motion = draw_scripts(scene, np.random.default_rng([seed, 14]), CONFIG)
        assert comes_true(scene, scripts, motion), f"seed {seed}: {[script.text for script in scripts]}"
        drawn.append([script for script in scripts if script.skill != "idle"])
    sides = {script.side for acting in drawn for script in acting}
    quiet = sum(all(script.effect == 0 for script in acting) for acting in drawn)
    assert sides == {"left", "right"}
    assert 1 <= quiet <= 6
    assert any(len(acting) == 2 for acting in drawn)
    assert len({script.skill for acting in drawn for script in acting}) >= 4
