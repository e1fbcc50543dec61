"""The script's inverse kinematics: what it calls reachable is where it was asked for."""

import mujoco
import numpy as np
import pytest

from dexworld.sim.kitchen.expert import OVERHAND, plan_grasp, plan_push, solve_arm
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.kitchen_simulation import ARM, Simulation

ABOVE_COUNTER = np.array([0.72, -0.12, COUNTER_TOP + 0.2])


def palm_at(simulation: Simulation, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    simulation.data.qpos[simulation.joint_qpos[ARM]] = joints
    mujoco.mj_forward(simulation.model, simulation.data)
    return simulation.palm_pose()


@pytest.mark.parametrize("offset", [[0.0, 0.0, 0.0], [0.07, 0.0, 0.02]])
def test_a_solution_brings_a_point_of_the_palm_to_the_pose_within_the_limits(simulation, offset):
    found = solve_arm(simulation, ABOVE_COUNTER, OVERHAND, np.array(offset))
    assert found.reachable
    low, high = simulation.joint_limits[ARM].T
    assert ((found.joints > low) & (found.joints < high)).all()
    position, rotation = palm_at(simulation, found.joints)
    assert np.linalg.norm(position + rotation @ offset - ABOVE_COUNTER) < 0.005
    assert np.arccos((np.trace(rotation.T @ OVERHAND) - 1) / 2) < 0.05


def test_solving_leaves_the_simulation_alone(simulation):
    before = simulation.get_state().physics
    solve_arm(simulation, ABOVE_COUNTER, OVERHAND)
    plan_grasp(simulation, "can", simulation.object_position())
    assert np.array_equal(simulation.get_state().physics, before)


def test_plans_beyond_the_arms_reach_are_none(simulation):
    far = np.array([1.6, 0.9, COUNTER_TOP + 0.05])
    assert not solve_arm(simulation, far, OVERHAND).reachable
    assert plan_grasp(simulation, "can", far) is None
    assert plan_push(simulation, far, 0.0, 0.1, gap=0.1) is None


def test_a_grasp_comes_from_above_and_closes_the_fingers_without_moving_the_arm(simulation):
    plan = plan_grasp(simulation, "box", simulation.object_position())
    assert np.array_equal(plan.around[ARM], plan.closed[ARM])
    heights = [palm_at(simulation, pose[ARM])[0][2] for pose in (plan.pre_grasp, plan.around, plan.lifted)]
    assert heights[0] > heights[1] + 0.08
    assert heights[2] > heights[1] + 0.1
