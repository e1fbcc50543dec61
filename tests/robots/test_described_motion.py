"""How fast described robots may move: what the description or the model's file says, and commands that keep to it."""

import numpy as np
import pytest
import torch

from dexworld.robots.described_robot import chosen_robot, read_robot
from dexworld.robots.safety import Clearance, SafetyFilter, joint_limits
from robot_fixtures import HAND_TOML, TWO_HANDS_TOML, hand_mjcf, two_hands_urdf

pytest.importorskip("mujoco")

MOTION = """
[motion]
velocity = { arm = 0.5, fingers = 2.0, turn = 1.0 }
acceleration = { arm = 4.0 }
lag = { along = 0.01 }
"""
TABLE = ((-1.0, -1.0, -1.0), (1.0, 1.0, 0.1))


def robot(folder, motion=MOTION):
    (folder / "hand.xml").write_text(hand_mjcf())
    (folder / "hand.toml").write_text(HAND_TOML.replace("[right]", f"{motion}\n[right]"))
    return read_robot(folder / "hand.xml", folder / "hand.toml")


def test_the_description_says_how_fast_joints_may_move(tmp_path):
    motion = robot(tmp_path).motion
    assert motion.velocity == (0.5, 1.0, 2.0, 2.0, 2.0, 2.0)
    assert motion.acceleration == (4.0, 4.0, 8.0, 8.0, 8.0, 8.0)  # full speed in a quarter of a second
    assert motion.lag == (0.01, 0.2, 1.5, 1.5, 1.5, 1.5)


def test_a_urdf_says_it_itself(tmp_path):
    (tmp_path / "two.urdf").write_text(two_hands_urdf())
    (tmp_path / "two.toml").write_text(f'model = "two.urdf"\n{TWO_HANDS_TOML}')
    motion = chosen_robot(str(tmp_path / "two.toml")).motion
    assert (motion.velocity, motion.acceleration) == ((1.0,) * 6, (4.0,) * 6)


@pytest.mark.parametrize(
    ("motion", "why"),
    [
        ("[motion]\nspeed = { arm = 1.0 }", "unknown key 'speed'"),
        ("[motion]\nvelocity = { amr = 1.0 }", "motion.velocity has an unknown key 'amr'; did you mean arm"),
        ("[motion]\nvelocity = { arm = 0.0 }", "motion.velocity needs numbers above 0"),
    ],
)
def test_motion_that_makes_no_sense_is_refused(tmp_path, motion, why):
    with pytest.raises(ValueError, match=why):
        robot(tmp_path, motion)


def test_nobody_knows_the_limits_of_a_robot_that_does_not_say(tmp_path):
    with pytest.raises(ValueError, match=r"a table \[motion\] with velocity"):
        joint_limits(robot(tmp_path, ""))


def test_a_described_robot_is_kept_within_its_motion_and_off_the_table(tmp_path):
    hand = robot(tmp_path)
    limits, middle = joint_limits(hand), hand.limits.mean(-1).numpy()
    clearance = Clearance(hand, np.eye(4), [TABLE])
    safe = SafetyFilter(limits, middle, clearance)
    assert (clearance.depths(middle) < 0).all()
    commands = np.stack([middle, *(safe.step(hand.limits[:, 1].numpy()) for _ in range(60))])
    velocities = np.diff(commands, axis=0, prepend=commands[:1]) / 0.02
    assert (np.abs(velocities) <= limits.velocity + 1e-9).all()
    assert (np.abs(np.diff(velocities, axis=0)) / 0.02 <= limits.acceleration + 1e-6).all()
    assert (clearance.depths(commands) < 1e-5).all()
    assert np.abs(commands[-1] - middle).max() > 0.1


def test_a_hand_without_an_arm_has_nothing_to_touch_but_its_surroundings(tmp_path):
    hand = robot(tmp_path)
    hand.arm = slice(0, 0)
    depths = Clearance(hand, np.eye(4), [TABLE]).depths(hand.limits.mean(-1).numpy())
    assert np.isneginf(depths[2])
    assert torch.isfinite(torch.from_numpy(depths[:1])).all()
