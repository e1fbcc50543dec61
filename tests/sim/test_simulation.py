"""Physics: it repeats to the bit, it agrees with the batched kinematics, and pictures show what the labels say."""

import mujoco
import numpy as np
import pytest
import torch

from dexworld.geometry import invert, project, transform_points
from dexworld.hands import RIGHT, TRACKED
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.sim.kitchen.allegro_body import REST_POSE, ROBOT_GROUP
from dexworld.sim.kitchen.kitchen_scene import random_layout
from dexworld.sim.kitchen.kitchen_simulation import ARM, SimState, Simulation

RIGHT_TRACKED = [row for row in TRACKED if row >= RIGHT.start]


def set_joints(simulation: Simulation, joints: np.ndarray) -> None:
    simulation.data.qpos[simulation.joint_qpos] = joints
    mujoco.mj_forward(simulation.model, simulation.data)


def moved(simulation: Simulation, joint: int, angle: float) -> np.ndarray:
    targets = simulation.joint_targets
    targets[joint] += angle
    return targets


@pytest.mark.parametrize("tips", ["true", "release"])
def test_batched_kinematics_equal_the_simulated_keypoints_within_a_micrometre(tips):
    kinematics = FrankaAllegro(tips)
    low, high = kinematics.limits.T.numpy()
    with Simulation(random_layout(1), tips=tips) as simulation:
        poses = np.random.default_rng(0).uniform(low, high, (10, 23))
        world_from_base = torch.from_numpy(simulation.world_from_base)
        hand = kinematics.forward(torch.from_numpy(poses))
        predicted = transform_points(world_from_base, hand.keypoints).numpy()
        turns = (world_from_base[:3, :3] @ hand.hand_rotation).numpy()
        for pose, expected, turn in zip(poses, predicted, turns, strict=True):
            set_joints(simulation, pose)
            points, valid = simulation.keypoints_world()
            assert np.abs(points - expected)[valid].max() < 1e-6
            assert np.abs(simulation.palm_pose()[1] - turn).max() < 1e-6
    assert torch.equal(hand.wrist, hand.keypoints[:, RIGHT.start])
    assert valid.tolist() == hand.valid.tolist() == [False] * 21 + [True] * 21


def test_projected_keypoints_lie_on_the_robot_in_the_segmentation(simulation):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(3):
        set_joints(simulation, REST_POSE + np.concatenate([rng.normal(0, 0.12, 7), rng.uniform(0, 0.3, 16)]))
        ids = simulation.renderer.segmentation(simulation.data, "ego")
        robot = (ids >= 0) & (simulation.model.geom_group[ids] == ROBOT_GROUP)
        points = torch.from_numpy(simulation.keypoints_world()[0][RIGHT_TRACKED])
        in_camera = transform_points(invert(torch.from_numpy(simulation.world_from_camera)), points)
        pixels, depth = (value.numpy() for value in project(in_camera, torch.from_numpy(simulation.intrinsics)))
        assert (depth > 0.1).all()
        shown = ((pixels > 2) & (pixels < np.array([390, 222]))).all(axis=1)
        columns, rows = pixels[shown].astype(int).T
        assert robot[rows, columns].all()
        found += shown.sum()
    assert found >= 12


def test_the_arm_holds_its_pose_to_a_milliradian(simulation):
    simulation.move(simulation.joint_targets, 0.5)
    assert np.abs(simulation.joint_positions - REST_POSE)[ARM].max() < 1e-3


def test_a_commanded_move_arrives(simulation):
    targets = moved(simulation, 1, 0.2)
    simulation.move(targets, 0.8, settle=0.2)
    assert np.abs(simulation.joint_positions - targets)[ARM].max() < 5e-3
    assert np.array_equal(simulation.joint_targets, targets)


def test_a_state_resumes_to_the_bit_also_in_a_scene_built_anew(simulation):
    simulation.move(moved(simulation, 0, 0.1), 0.2)
    state, targets = simulation.get_state(), moved(simulation, 1, 0.2)

    def later(scene: Simulation) -> np.ndarray:
        scene.move(targets, 0.3)
        return scene.get_state().physics

    first = later(simulation)
    simulation.set_state(state)
    assert np.array_equal(later(simulation), first)
    with Simulation(random_layout(state.seed)) as anew:
        anew.set_state(state)
        assert np.array_equal(later(anew), first)


def test_a_state_includes_the_commanded_targets_so_a_held_object_stays_held(draw):
    episode = draw("place")
    with Simulation(episode.layout) as simulation:
        simulation.set_state(episode.start)
        height = simulation.object_position()[2]
        assert simulation.hand_touches()
        commanded, measured = simulation.joint_targets, simulation.joint_positions
        assert np.abs(commanded - measured)[ARM.stop :].max() > 0.05  # fingers squeeze: the command lies in the object
        simulation.move(commanded, 1.0)
        assert simulation.hand_touches()
        assert simulation.object_position()[2] == pytest.approx(height, abs=0.01)


def test_the_state_of_another_scene_is_refused(simulation):
    state = simulation.get_state()
    with pytest.raises(
        ValueError, match=r"of scene 7; this is scene .* build the simulation from the state's own seed"
    ):
        simulation.set_state(SimState(7, state.physics))
    with pytest.raises(ValueError, match="the state has 3 numbers"):
        simulation.set_state(SimState(state.seed, state.physics[:3]))
    with pytest.raises(ValueError, match="NaN or Inf"):
        SimState(state.seed, state.physics * np.nan)


def test_ticks_come_at_ten_hertz(simulation):
    ticks = []
    simulation.move(simulation.joint_targets, 0.5, lambda scene: ticks.append(scene.data.time), settle=0.1)
    assert np.allclose(ticks, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
