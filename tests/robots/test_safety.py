"""No command leaves the limits, whatever is asked for: positions, velocities, accelerations and what may be touched."""

import logging
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexworld.hands import RIGHT
from dexworld.robots.franka_allegro import OPEN_FINGERS, FrankaAllegro
from dexworld.robots.franka_gripper import FrankaGripper
from dexworld.robots.kinematics import BASE, Kinematics, TreeJoint
from dexworld.robots.robot import Motion
from dexworld.robots.safety import FAULTS, Clearance, Margins, SafetyFilter, WaypointFilter, joint_limits
from dexworld.robots.tree_robot import HandLayout, TreeRobot
from dexworld_client.joint_filter import JointFilter, JointLimits

ROBOT = FrankaAllegro()
READY = np.array([0.0, -0.6, 0.0, -2.3, 0.0, 1.9, 0.6, *OPEN_FINGERS])
TABLE = ((0.3, -1.0, -1.0), (1.5, 1.0, 0.0))  # in front of the base, its top at the height of the base
ROOM = ((-0.5, -0.6, -0.2), (0.75, 0.6, 1.2))
SEED = 916_000
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def limits(low=-1.0, high=1.0, velocity=1.0, acceleration=5.0, lag=10.0, joints=2):
    names = tuple(f"joint{number}" for number in range(joints))
    return JointLimits(names, *(np.full(joints, value) for value in (low, high, velocity, acceleration, lag)))


def follow(filtered, wanted):
    """The commands (T, J) that a filter makes of `wanted`, its start first."""
    return np.stack([filtered.positions, *(filtered.step(each) for each in wanted)])


def assert_within(commands, bounds, seconds):
    """Positions, velocities and accelerations of commands (T, ..., J) that begin at rest lie within the limits."""
    velocities = np.diff(commands, axis=0, prepend=commands[:1]) / seconds
    accelerations = np.diff(velocities, axis=0) / seconds
    assert np.isfinite(commands).all()
    assert (commands >= bounds.low).all()
    assert (commands <= bounds.high).all()
    assert (np.abs(velocities) <= bounds.velocity).all()
    assert (np.abs(accelerations) <= bounds.acceleration).all()


numbers = st.one_of(
    st.floats(-3, 3), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 1.0, -1.0, 1e300, 1e-300])
)
strange = st.one_of(st.none(), st.text(max_size=3), st.lists(numbers, max_size=4), st.just([[0.0, 0.0]]))
commands = st.one_of(st.lists(numbers, min_size=2, max_size=2), st.tuples(st.just("again"), numbers), strange)


@QUICK
@given(
    st.lists(commands, min_size=1, max_size=60),
    st.floats(0.01, 3.0),
    st.floats(0.01, 50.0),
    st.sampled_from([0.001, 0.01, 0.02, 0.1]),
    st.lists(st.floats(-1, 1), min_size=2, max_size=2),
    st.booleans(),
)
def test_no_sequence_of_commands_leaves_the_limits_and_every_stop_ends_at_rest(
    wanted, velocity, acceleration, seconds, start, measuring
):
    bounds = limits(velocity=velocity, acceleration=acceleration, lag=0.1)
    filtered = JointFilter(bounds, np.array(start), seconds)
    found = [filtered.positions]
    for each in wanted:
        value, repeats = ([each[1]] * 2, 25) if isinstance(each, tuple) else (each, 1)
        for _ in range(repeats):
            measured = found[max(0, len(found) - 4)] if measuring else None
            found.append(filtered.step(value, measured))
    periods = math.ceil(velocity / (acceleration * seconds)) + 1
    found += [filtered.stop("lost") for _ in range(periods)]
    assert_within(np.stack(found), bounds, seconds)
    assert filtered.at_rest


def test_a_joint_that_races_to_its_limit_stops_at_it_as_late_as_braking_allows():
    bounds, seconds = limits(joints=1), 0.01
    found = follow(JointFilter(bounds, np.zeros(1), seconds), np.full((400, 1), 9.0))
    assert_within(found, bounds, seconds)
    assert found[-1, 0] == pytest.approx(1.0, abs=1e-6)
    # 0.2 s to speed up and to brake cover 0.1 m each; the other 0.8 are passed at the full velocity of 1
    assert np.flatnonzero(found[:, 0] > 1.0 - 1e-4)[0] * seconds == pytest.approx(0.2 + 0.8 + 0.2, abs=0.03)


def test_a_smooth_motion_passes_unchanged_and_a_far_target_is_reached_without_overshoot():
    filtered = JointFilter(limits(), np.zeros(2))
    share = np.linspace(0, 1, 51)[1:, None]
    path = share**2 * (3 - 2 * share) * np.array([0.5, -0.5])
    np.testing.assert_allclose(follow(filtered, path)[1:], path, atol=1e-12)
    assert not filtered.counts
    found = follow(filtered, np.full((100, 2), 0.2))
    assert found[:, 1].max() <= 0.2 + 1e-9
    np.testing.assert_allclose(found[-1], 0.2, atol=1e-9)
    assert set(filtered.counts) == {"velocity", "acceleration"}


def test_nan_wrong_shapes_and_stops_brake_are_counted_and_said_once(caplog):
    filtered = JointFilter(limits(), np.zeros(2))
    follow(filtered, np.full((30, 2), 0.9))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        speeds = []
        for wanted in ([np.nan, 0.9], [np.inf, 0.9], [0.9], "fast", None):
            filtered.step(wanted)
            speeds.append(filtered.velocities[0])
        filtered.stop("stale")
    np.testing.assert_allclose(-np.diff(speeds) / filtered.seconds, 5.0, rtol=1e-6)
    expected = {"not_finite": 2, "shape": 3, "stale": 1}
    assert {name: filtered.counts[name] for name in expected} == expected
    assert [record.message.split()[1] for record in caplog.records] == ["not_finite", "shape", "stale"]


def test_a_command_never_leads_a_blocked_robot_by_more_than_the_lag():
    bounds, seconds, stuck = limits(lag=0.1, joints=1), 0.01, np.zeros(1)
    filtered = JointFilter(bounds, stuck, seconds)
    found = np.stack([filtered.step([0.9], stuck) for _ in range(100)])
    assert found.max() <= 0.1 + 1e-9
    assert found[-1, 0] == pytest.approx(0.1, abs=1e-6)
    assert filtered.counts["torque"] > 50
    pushed_back = np.stack([filtered.step([0.9], stuck - 0.3) for _ in range(100)])
    assert pushed_back[-1, 0] == pytest.approx(-0.2, abs=1e-6)
    assert_within(np.concatenate([stuck[None], found, pushed_back]), bounds, seconds)


def test_a_robot_that_begins_outside_is_led_back_without_a_jump():
    bounds, seconds = limits(joints=1), 0.01
    filtered = JointFilter(bounds, np.array([1.3]), seconds)
    found = follow(filtered, np.full((200, 1), 2.0))[:, 0]
    velocities = np.diff(found, prepend=found[0]) / seconds
    assert np.abs(velocities).max() <= 1.0
    assert np.abs(np.diff(velocities) / seconds).max() <= 5.0
    assert found.max() == 1.3
    assert found[-1] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"low": 2.0}, {"velocity": 0.0}, {"acceleration": -1.0}, {"lag": math.nan}, {"high": math.inf}]
)
def test_limits_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="limits"):
        limits(**wrong)


def test_a_robots_limits_are_its_own_less_the_margins():
    found, whole = joint_limits(ROBOT, Margins(0.05, 0.4, 0.5)), ROBOT.limits.numpy()
    np.testing.assert_allclose(found.low, whole[:, 0] + 0.05)
    np.testing.assert_allclose(found.high, whole[:, 1] - 0.05)
    np.testing.assert_allclose(found.velocity, 0.4 * np.array(ROBOT.motion.velocity))
    np.testing.assert_allclose(found.acceleration, 0.5 * np.array(ROBOT.motion.acceleration))
    assert JointLimits(**asdict(found)).names == ROBOT.joints
    assert len(joint_limits(FrankaGripper()).names) == 8
    with pytest.raises(ValueError, match="margins"):
        Margins(velocity=0.0)


def clearance(margin=0.01, keep_out=(TABLE,), workspace=ROOM):
    return Clearance(ROBOT, np.eye(4), keep_out, workspace, margin)


def test_depths_are_those_of_spheres_and_boxes():
    pose = ROBOT.forward(ROBOT.limits.new_tensor(READY))
    centres, radii = (each.numpy() for each in ROBOT.outline(pose))
    front = (float((centres[:, 0] + radii).max()) - 0.02, 9.0, 9.0)
    (depth,) = (clearance(0.0, (), ((-9.0, -9.0, -9.0), front)).depths(READY)[1],)
    assert depth == pytest.approx(0.02, abs=1e-5)
    assert clearance(0.03, (), ((-9.0, -9.0, -9.0), front)).depths(READY)[1] == pytest.approx(0.05, abs=1e-5)
    elbow = pose.links[3].numpy()
    box = (tuple(elbow - 0.01), tuple(elbow + 0.01))
    assert clearance(0.0, (box,), None).depths(READY)[0] == pytest.approx(0.01 + 0.075, abs=2e-3)
    assert clearance(0.0, (), None).depths(READY)[0] == -np.inf


def test_a_hand_that_would_touch_its_own_arm_is_seen():
    folded = READY.copy()
    folded[[3, 5]] = -3.0, -0.0175
    assert clearance(0.0).depths(READY)[2] < -0.03
    drawn = np.random.default_rng(SEED).uniform(*ROBOT.limits.numpy().T, (4000, 23))
    deepest = drawn[clearance(0.0).depths(drawn)[:, 2].argmax()]
    assert clearance(0.0).depths(deepest)[2] > 0.01
    filtered = SafetyFilter(joint_limits(ROBOT), READY, clearance(0.0, (), None))
    found = follow(filtered, np.repeat(deepest[None], 300, 0))
    assert clearance(0.0).depths(found)[:, 2].max() <= 1e-5
    assert filtered.counts["self_collision"] > 0


def adversary(rng, kind, commands, bounds):
    """Wanted positions like `commands` (B, J): anywhere, ends of the range in turn, small jitter, or the way that the
    robot is already on.
    """
    now, before = commands[-1], commands[-2] if len(commands) > 1 else commands[-1]
    ends = np.where(rng.random(now.shape) < 0.5, bounds.low, bounds.high)
    ways = [rng.uniform(2 * bounds.low, 2 * bounds.high, now.shape), ends, rng.normal(now, 0.02), 2 * now - before]
    wanted = ways[kind]
    wanted[rng.random(len(wanted)) < 0.01] = np.nan
    return wanted


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=3, max_size=6))
def test_no_sequence_touches_table_workspace_or_itself_and_neither_does_any_stop(seed, kinds):
    rng, bounds = np.random.default_rng(seed), joint_limits(ROBOT)
    begin = np.repeat(READY[None], 8, 0)
    filtered = SafetyFilter(bounds, begin, clearance())
    found = [begin]
    for kind in kinds:
        held = adversary(rng, kind, found, bounds)
        for tick in range(20):
            found.append(filtered.step(held if tick % 3 else adversary(rng, kind, found, bounds)))
    while not filtered.at_rest:
        found.append(filtered.stop("lost"))
    assert_within(np.stack(found), bounds, filtered.seconds)
    assert clearance().depths(np.stack(found)).max() <= 2e-6


class TwoArms(TreeRobot):
    """Two arms side by side in a plane, of four hinges each, a sphere at the end of every link."""

    joints, arm = tuple(f"{side}{number}" for side in ("left", "right") for number in range(4)), slice(0, 8)
    motion = Motion((2.0,) * 8, (15.0,) * 8, (9.0,) * 8)
    base, length, radius = 0.2, 0.25, 0.06

    def __init__(self):
        tree = []
        for number in range(8):
            place = np.eye(4)
            place[0, 3] = self.length if number % 4 else (-self.base, self.base)[number // 4]
            tree.append(TreeJoint(number - 1 if number % 4 else BASE, place, (0.0, 0.0, 1.0)))
        ends = [(number, (self.length, 0.0, 0.0)) for number in range(8)]
        layout = HandLayout({RIGHT.start: ends[7]}, RIGHT.start, (7, None), ends)
        limits = torch.tensor([(0.0, np.pi), *[(-2.4, 2.4)] * 3] * 2, dtype=torch.float64)
        super().__init__(limits, Kinematics(tree), layout, [(end, self.radius) for end in ends])

    def gaps(self, joints):
        """Metres between what may touch, of joints (..., 8), without the robot's kinematics."""
        turned = joints.reshape(*joints.shape[:-1], 2, 4).cumsum(-1)
        ends = self.length * np.stack([np.cos(turned), np.sin(turned)], -1).cumsum(-2)  # (..., 2, 4, 2)
        ends[..., 0] += np.array([-self.base, self.base])[:, None]
        left, right = ends[..., 0, :, :], ends[..., 1, :, :]
        pairs = [(left[..., 3, :], left[..., 0, :]), (right[..., 3, :], right[..., 0, :])]
        pairs += [(left[..., 3, :], right[..., each, :]) for each in range(4)]
        pairs += [(left[..., each, :], right[..., 3, :]) for each in range(3)] + [(left[..., 2, :], right[..., 2, :])]
        return np.stack([np.linalg.norm(one - other, axis=-1) for one, other in pairs], -1) - 2 * self.radius


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=2, max_size=4))
def test_no_sequence_brings_a_hand_to_another_arm_or_another_hand(seed, kinds):
    robot, rng = TwoArms(), np.random.default_rng(seed)
    bounds, begin = joint_limits(robot), np.tile([np.pi / 2, 0.0, 0.0, 0.0] * 2, (8, 1))
    filtered, free = SafetyFilter(bounds, begin, Clearance(robot, np.eye(4))), JointFilter(bounds, begin)
    found, without = [begin], [begin]
    for kind in kinds:
        held = adversary(rng, kind, found, bounds)
        for _ in range(25):
            found.append(filtered.step(held))
            without.append(free.step(held))
    while not filtered.at_rest:
        found.append(filtered.stop("lost"))
    assert_within(np.stack(found), bounds, filtered.seconds)
    assert robot.gaps(np.stack(found)).min() >= -2e-6
    touched = robot.gaps(np.stack(without)).min() < -1e-3
    assert touched <= (filtered.counts["self_collision"] > 0)


@pytest.mark.parametrize("side", [0, 1])
def test_either_hand_stops_at_the_other_arm(side):
    robot, wanted = TwoArms(), np.array([np.pi / 2, 0.0, 0.0, 0.0] * 2)
    begin, inwards = wanted.copy(), (-1, 1)[side]
    wanted[4 * side : 4 * side + 3] += inwards * np.array([0.4, 1.75, -2.0])
    assert robot.gaps(wanted).min() < -0.02
    filtered = SafetyFilter(joint_limits(robot), begin, Clearance(robot, np.eye(4)))
    found = follow(filtered, np.repeat(wanted[None], 150, 0))
    assert -2e-6 <= robot.gaps(found).min() < 0.02
    assert filtered.counts["self_collision"] > 0


def test_what_begins_in_touch_may_leave_and_not_go_deeper():
    low = READY.copy()
    low[1] = 0.7  # towards the table
    where = clearance(0.0, (TABLE,), None)
    begin = where.depths(low)[0]
    assert begin > 0.02
    filtered = SafetyFilter(joint_limits(ROBOT), low, where)
    deeper = low.copy()
    deeper[1] = 0.9
    assert where.depths(follow(filtered, np.repeat(deeper[None], 60, 0)))[:, 0].max() <= begin + 2e-6
    assert filtered.counts["keep_out"] > 0
    assert where.depths(follow(filtered, np.repeat(READY[None], 200, 0)))[-1, 0] < 0


def test_waypoints_are_shortened_to_what_a_filter_lets_pass():
    bounds = joint_limits(ROBOT)
    far, down = READY + 0.0, READY.copy()
    far[0], down[1] = 2.0, 1.2
    found, counts = WaypointFilter(bounds, clearance()).checked(READY, np.stack([far, READY, *[down] * 4, far * 9]))
    assert counts.keys() >= {"velocity", "keep_out", "position"}
    filtered, now = SafetyFilter(bounds, READY, clearance()), READY
    for target in found:
        share = np.linspace(0, 1, 41)[1:, None]  # 0.8 s
        follow(filtered, now + share**2 * (3 - 2 * share) * (target - now))
        now = target
    np.testing.assert_allclose(filtered.positions, now, atol=1e-6)
    assert not set(filtered.counts) - set(FAULTS)
    with pytest.raises(ValueError, match="NaN"):
        WaypointFilter(bounds, clearance()).checked(READY, np.full((1, 23), np.nan))
