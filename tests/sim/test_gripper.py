"""The gripper robot: recordings follow from seeds, say where everything is, and carry objects."""

import mujoco
import numpy as np
import pytest
from sim_recordings import CARRYING_SEED, SEED, SHORT, project, short_recording, whole_recording

from dexworld.sim.gripper import gripper_simulation as robot
from dexworld.sim.gripper.gripper_control import Teleoperator, Waypoint, downward, grasp_point
from dexworld.sim.gripper.gripper_recording import GripperConfig, record_gripper
from dexworld.sim.gripper.gripper_simulation import GripperSimulation
from dexworld.sim.gripper.gripper_skills import LIFTED, SKILLS, Operator
from dexworld.sim.kitchen.allegro_body import FLANGE_BODY
from dexworld.sim.poses import rotation_about, rotation_vector

# Centres of pads lie 6 to 12 mm inside the pads; the flange lies up to 12 cm inside the last link and the palm.
INSIDE = {"flange": 0.12, "pads": 0.02}


@pytest.fixture(scope="module")
def _kitchen():
    with GripperSimulation(robot.gripper_layout(SEED), height=180, width=320) as simulation:
        yield simulation


@pytest.fixture
def kitchen(_kitchen):
    """The scene of `SEED` as it was built."""
    _kitchen.reset()
    return _kitchen


def drive(hand, simulation, goal: Waypoint, steps: int) -> list[np.ndarray]:
    """Follow one waypoint; the commanded grasp points on the way."""
    path = []
    for _ in range(steps):
        arm, opening, pose = hand.command(goal)
        simulation.step(arm, opening)
        path.append(grasp_point(pose))
    return path


def occluded(kitchen, points, eye, inside: float) -> list[bool]:
    """Whether something is hit on the way from `eye` to each point (N, 3), more than `inside` metres before it."""
    origin, geom = eye + robot.BASE_POSITION, np.zeros(1, np.int32)
    hit = []
    for way in points - eye:
        length = np.linalg.norm(way)
        reached = mujoco.mj_ray(kitchen.model, kitchen.data, origin, way / length, None, 1, -1, geom)
        hit.append(0 <= reached < length - inside)
    return hit


def test_one_seed_gives_one_recording_to_the_bit_and_another_seed_another():
    first, again, other = short_recording(), record_gripper(SEED, SHORT), whole_recording()
    for camera in robot.CAMERAS:
        assert np.array_equal(first.frames[camera], again.frames[camera])
    for name, values in first.state.items():
        assert np.array_equal(values, again.state[name])
        assert not np.array_equal(values, other.state[name][:8]) or np.ptp(values) == 0


def test_a_recording_says_where_gripper_objects_and_cameras_are():
    recording = short_recording()
    assert len(recording) == 8
    assert recording.frames["ext1"].shape == (8, 90, 160, 3)
    assert recording.skill in SKILLS
    assert recording.text != ""
    assert recording.state["cartesian_pose"].shape == recording.camera_poses["wrist"].shape == (8, 4, 4)
    assert recording.command["joint_positions"].shape == (8, 7)
    assert recording.objects["object_motion"].shape == (8,)


def test_fixed_cameras_stand_still_where_the_scene_says_and_the_wrist_camera_goes_with_the_gripper():
    recording = short_recording()
    for name, (base_from_camera, _) in robot.external_cameras(SEED).items():
        assert np.allclose(recording.camera_poses[name], base_from_camera, atol=1e-9)
    offsets = np.linalg.inv(recording.state["cartesian_pose"]) @ recording.camera_poses["wrist"]
    assert np.ptp(recording.camera_poses["wrist"][:, :3, 3], axis=0).max() > 1e-3
    assert np.allclose(offsets, offsets[0], atol=1e-9)


def test_flange_and_pads_land_on_the_rendered_gripper_where_nothing_hides_them(kitchen):
    rng, model = np.random.default_rng(5), kitchen.model
    # The last link's shell covers the flange: a point on the flange is seen on it.
    bodies = (robot.GRIPPER_BODY, FLANGE_BODY, "arm_link7", *robot.FINGER_NAMES)
    gripper = np.flatnonzero(np.isin(model.geom_bodyid, [model.body(name).id for name in bodies]))
    hand, plan = Teleoperator(kitchen, rng), Operator(kitchen, rng).explore()
    seen = {"flange": 0, "pads": 0}
    missed = dict(seen)
    for _ in range(14):
        drive(hand, kitchen, next(plan), 10)
        groups = {"flange": kitchen.measured()["cartesian_pose"][None, :3, 3], "pads": kitchen.pad_points()}
        for camera in robot.CAMERAS:
            mask = np.isin(kitchen.renderer.segmentation(kitchen.data, camera), gripper)
            for name, points in groups.items():
                pixels, away = project(points, kitchen.camera_pose(camera), kitchen.camera_intrinsics(camera))
                hidden = occluded(kitchen, points, kitchen.camera_pose(camera)[:3, 3], INSIDE[name])
                for (u, v), z, behind in zip(pixels, away, hidden, strict=True):
                    if z > 0.02 and 0 <= u < 320 and 0 <= v < 180 and not behind:
                        seen[name] += 1
                        missed[name] += not mask[int(v), int(u)]
    assert seen["flange"] >= 15
    assert seen["pads"] >= 30
    assert sum(missed.values()) <= 0.02 * sum(seen.values())


def test_a_carried_object_leaves_the_counter_and_comes_down_where_it_was_to_be_put():
    recording = whole_recording()
    positions, touched = recording.objects["object_positions"], recording.objects["object_touched"]
    carried = (positions[..., 2] > positions[0, :, 2] + LIFTED) & touched
    assert (recording.success, recording.skill, recording.objects_carried) == (True, "pick_place", 1)
    index = int(carried.sum(axis=0).argmax())
    aloft = np.flatnonzero(carried[:, index])
    assert len(aloft) > 15
    assert np.linalg.norm(positions[aloft[-1], index, :2] - positions[aloft[0], index, :2]) > 0.08
    assert abs(positions[-1, index, 2] - positions[0, index, 2]) < 0.01
    assert recording.objects["object_motion"].max() < 0.1  # nothing was thrown
    assert 0.05 < recording.state["opening"][aloft].mean() < 0.95


def test_most_grasps_carry_their_object_and_recordings_end_between_their_least_and_most_frames():
    recordings = [whole_recording(seed) for seed in (CARRYING_SEED, 900_111)]
    attempts = sum(recording.grasp_attempts for recording in recordings)
    assert sum(recording.objects_carried for recording in recordings) >= 0.5 * attempts > 0
    assert GripperConfig().min_frames <= len(whole_recording()) <= GripperConfig().max_frames


def test_the_jacobian_is_the_slope_of_forward_kinematics(kitchen):
    joints, step = np.array(robot.HOME_ARM) + 0.1, 1e-6
    pose, jacobian = kitchen.jacobian(joints)
    for joint in range(7):
        moved = kitchen.forward(joints + step * np.eye(7)[joint])
        assert np.allclose((moved[:3, 3] - pose[:3, 3]) / step, jacobian[:3, joint], atol=1e-4)
        assert np.allclose(rotation_vector(moved[:3, :3] @ pose[:3, :3].T) / step, jacobian[3:, joint], atol=1e-4)


def test_the_operator_reaches_a_waypoint_without_exceeding_its_speed(kitchen):
    hand = Teleoperator(kitchen, np.random.default_rng(0), tremor=0.0)
    goal = Waypoint(np.array([0.5, 0.1, 0.2]), downward(0.4), 0.3, speed=0.2)
    path = np.array(drive(hand, kitchen, goal, 45))
    assert hand.reached(goal)
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() * robot.CONTROL_RATE < 0.2 + 1e-6
    drive(hand, kitchen, goal, 10)
    assert np.linalg.norm(kitchen.pad_points().mean(axis=0) - goal.position) < 0.012
    assert kitchen.opening == pytest.approx(0.3, abs=0.02)
    drive(hand, kitchen, Waypoint(np.array([0.5, 0, 0.3]), downward(0), 0.0), 20)
    assert kitchen.opening < 0.01  # fingers that close on nothing meet
    assert not kitchen.touched().any()


@pytest.mark.parametrize("vector", [[0.3, -0.2, 0.9], [0.0, 0.0, 0.0], [2.9, 0.5, -0.3], [1e-8, 0, 0]])
def test_a_rotation_vector_survives_the_way_there_and_back(vector):
    rotation = rotation_about(np.array(vector))
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.allclose(rotation_vector(rotation), vector)
