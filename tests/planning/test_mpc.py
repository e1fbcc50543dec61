"""The control loop in a toy world whose model is exact."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers_planning import HEIGHT, REST, WIDTH, ToyDynamics, hand_pixels, image_of, moved, observation

from dexworld.actions import OFFICIAL
from dexworld.hands import RIGHT
from dexworld.planning.cem import CEM
from dexworld.planning.controls import DoNothing, KinematicsOnly, RandomTargets
from dexworld.planning.gradient import Adam, GradientSolver, KinematicStart
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.objectives import HandOrientation, KeypointPixels, LatentDistance, Smoothness
from dexworld.planning.presets import preset
from dexworld.robots.franka_allegro import FrankaAllegro

KINEMATICS = FrankaAllegro()
NARROW = (HEIGHT, WIDTH - 8)  # images of a model, narrower than the camera's
SMALL = CEM(samples=64, elites=8, iterations=5)
OBJECTIVE = LatentDistance() + 0.001 * KeypointPixels() + 0.01 * Smoothness()


def policy_of(objective=OBJECTIVE, solver=SMALL, dynamics=None, **config):
    return MPCPolicy(dynamics or ToyDynamics(), KINEMATICS, objective, solver, MPCConfig(**config))


def keypoint_distance(joints, goal):
    """Mean distance (m) of the right hand's keypoints."""
    poses = KINEMATICS.forward(torch.tensor(np.stack([joints, goal]))).keypoints[:, RIGHT]
    return float((poses[0] - poses[1]).norm(dim=-1).mean())


def run(policy, goal, moves=3, start=REST):
    joints = start
    policy.reset(image_of(goal))
    for _ in range(moves):
        joints = policy.act(observation(joints))
    return joints


@pytest.mark.parametrize("name", ["cpu", "small paper"])
def test_three_moves_bring_the_hand_to_the_goal_image(name):
    plan = preset("cpu" if name == "cpu" else "paper")
    if name == "small paper":
        plan = dataclasses.replace(plan, solver=CEM(samples=96, elites=8, iterations=8))
    goal = moved(seed=1)
    reached = run(plan.policy(ToyDynamics(), KINEMATICS), goal)
    assert keypoint_distance(REST, goal) > 0.15
    assert keypoint_distance(reached, goal) < 0.08
    assert np.abs(hand_pixels(reached)[6:] - hand_pixels(goal)[6:]).max() < 10


@pytest.mark.parametrize(("replan", "horizons"), [("shrink", [3, 2, 1, 1]), ("fixed", [3, 3, 3, 3])])
def test_the_remaining_horizon_shrinks_and_a_fixed_one_does_not(replan, horizons):
    policy = policy_of(horizon=3, replan=replan)
    run(policy, moved(), moves=4)
    assert [entry.horizon for entry in policy.statistics] == horizons


def test_the_model_is_fed_the_observed_frames_and_the_motion_that_was_really_executed():
    dynamics = ToyDynamics()
    policy = policy_of(dynamics=dynamics, max_history=2)
    policy.reset(image_of(moved()))
    visited = [REST, moved(seed=5), moved(seed=6)]  # not where the policy sent it
    for joints in visited:
        policy.act(observation(joints))
    assert [len(latents) for latents, _ in dynamics.started] == [1, 2, 2]
    latents, motion = dynamics.started[-1]
    poses = KINEMATICS.forward(torch.tensor(np.stack(visited[1:]), dtype=torch.float32)).keypoints
    lengths = (poses[1] - poses[0]).norm(dim=-1)
    assert torch.allclose(motion.deltas[0, :42].norm(dim=-1), lengths, atol=1e-5)
    assert torch.equal(latents[-1], dynamics.encode(torch.from_numpy(image_of(visited[-1]))))


def test_a_plan_that_should_not_move_keeps_the_targets_in_force_not_the_measured_joints():
    targets = REST.copy()
    targets[7:] += 0.1
    policy = policy_of(objective=Smoothness())
    policy.reset(image_of(REST))
    assert np.allclose(policy.act(observation(REST, targets)), targets, atol=1e-6)


def test_targets_stay_within_the_limits_and_inputs_outside_are_counted():
    outside = REST.copy()
    outside[0], outside[8] = 4.0, -2.0
    policy = policy_of(arm_std=2.0, finger_std=2.0)
    policy.reset(image_of(moved()))
    targets = policy.act(observation(outside, REST))
    low, high = KINEMATICS.limits.numpy().T
    assert targets.shape == (23,)
    assert ((targets >= low - 1e-6) & (targets <= high + 1e-6)).all()
    assert policy.statistics[0].clamped == 2


def test_one_seed_gives_one_episode_and_another_seed_another():
    policy = policy_of()
    first, again = run(policy, moved()), run(policy, moved())
    assert np.array_equal(first, again)
    policy.reset(image_of(moved()), seed=7)
    assert not np.array_equal(policy.act(observation()), run(policy, moved(), moves=1))


def test_a_kinematic_start_finds_better_plans_with_the_same_model_budget():
    goal, costs = moved(seed=2), {}
    for name, start in (("plain", None), ("kinematic", KinematicStart())):
        policy = policy_of(solver=CEM(samples=32, elites=4, iterations=3), kinematic_start=start)
        run(policy, goal, moves=1)
        costs[name] = policy.statistics[0].cost
        assert policy.statistics[0].model_candidates == 96
        assert bool(policy.statistics[0].kinematic_history) == (name == "kinematic")
    assert costs["kinematic"] < 0.5 * costs["plain"]


def test_a_goal_image_without_a_hand_gets_no_kinematic_start():
    policy = policy_of(kinematic_start=KinematicStart())
    policy.reset(image_of(moved(), hand=False))
    policy.act(observation())
    assert policy.statistics[0].kinematic_history == ()
    assert policy.statistics[0].terms["keypoints"] == 0.0


def test_gradients_flow_through_kinematics_and_model():
    policy = policy_of(solver=GradientSolver(restarts=2, adam=Adam(steps=25)))
    reached = run(policy, moved(seed=1), moves=1)
    history = policy.statistics[0].history
    assert history[-1].best < 0.3 * history[0].best
    assert reached.shape == (23,)


def test_statistics_say_what_was_spent_and_what_the_cost_is_made_of():
    policy = policy_of(kinematic_start=KinematicStart(CEM(samples=30, elites=4, iterations=2)))
    run(policy, moved(), moves=1)
    (entry,) = policy.statistics
    assert entry.candidates == 5 * 64 + 2 * 30
    assert entry.model_candidates == 5 * 64
    assert entry.seconds > 0
    assert sum(entry.terms.values()) == pytest.approx(entry.cost, rel=1e-4)
    assert policy.imagined.latents.shape == (1, 3, 112, 12)


def test_later_plans_start_from_the_rest_of_the_plan_with_a_std_that_is_wide_again():
    policy = policy_of(rewiden=0.5)
    run(policy, moved(), moves=1)
    first = policy.plan
    scene, _ = policy._scene(observation(first.actions[0].numpy()))
    later = policy._initial(scene, 2)
    assert torch.equal(later.mean, first.actions[1:])
    assert (later.std[:, :7] >= 0.15 - 1e-6).all()
    assert (later.std[:, 7:] >= 0.05 - 1e-6).all()


def test_an_orientation_goal_turns_the_palm():
    goal = moved(seed=1)
    wanted = KINEMATICS.forward(torch.tensor(goal)).hand_rotation.numpy()
    policy = MPCPolicy(None, KINEMATICS, HandOrientation(), CEM(samples=128, elites=10, iterations=10))
    policy.reset(image_of(goal), goal_pixels=np.full((12, 2), np.nan), hand_rotation=wanted)
    policy.act(observation())
    assert policy.statistics[0].cost < 0.15


def test_kinematics_only_reaches_the_hand_without_running_the_model():
    goal, dynamics = moved(seed=1), ToyDynamics()
    reached = run(KinematicsOnly(dynamics, KINEMATICS, OBJECTIVE), goal)
    assert np.abs(hand_pixels(reached)[6:] - hand_pixels(goal)[6:]).max() < 5
    assert not dynamics.rolled
    assert not dynamics.started


def test_kinematics_only_needs_no_dynamics_if_the_goals_keypoints_are_given():
    goal = moved(seed=1)
    policy = KinematicsOnly(None, KINEMATICS, OBJECTIVE)
    with pytest.raises(ValueError, match="give goal_pixels"):
        policy.reset(image_of(goal))
    policy.reset(image_of(goal), goal_pixels=hand_pixels(goal))
    assert keypoint_distance(policy.act(observation()), goal) < keypoint_distance(REST, goal)
    with pytest.raises(ValueError, match="no term of this objective"):
        KinematicsOnly(None, KINEMATICS, LatentDistance())


def test_doing_nothing_keeps_the_targets_and_random_targets_stay_within_limits():
    still = DoNothing()
    still.reset(image_of(REST))
    targets = moved(seed=4)
    assert np.array_equal(still.act(observation(REST, targets)), targets)

    policy, again = RandomTargets(KINEMATICS, seed=0), RandomTargets(KINEMATICS, seed=0)
    low, high = KINEMATICS.limits.numpy().T
    policy.reset(image_of(REST))
    drawn = np.stack([policy.act(observation(high)) for _ in range(20)])
    assert ((drawn >= low - 1e-6) & (drawn <= high + 1e-6)).all()
    assert (drawn < high - 1e-3).any(0).all()
    for other, same in ((again, True), (policy, False)):
        other.reset(image_of(REST))
        assert np.array_equal(other.act(observation(high)), drawn[0]) == same


def test_bad_input_is_refused_with_what_to_do():
    policy, picture = policy_of(), image_of(REST)
    with pytest.raises(ValueError, match="call reset"):
        policy.act(observation())
    with pytest.raises(ValueError, match="nothing was planned"):
        _ = policy.imagined
    for image, pixels, message in (
        (picture.astype(np.float32), None, r"\(H, W, 3\) uint8"),
        (np.zeros((100, 100, 3), dtype=np.uint8), None, "224x392"),
        (picture, np.zeros((6, 2)), "goal keypoints"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.reset(image, goal_pixels=pixels)
    policy.reset(picture)
    with pytest.raises(ValueError, match="112x196, the goal image 224x392"):
        policy.act(dataclasses.replace(observation(), image=np.zeros((112, 196, 3), dtype=np.uint8)))
    with pytest.raises(ValueError, match="needs a world model"):
        MPCPolicy(None, KINEMATICS, LatentDistance(), SMALL)


def test_a_window_convention_refuses_a_camera_that_moves():
    policy = policy_of(dynamics=ToyDynamics(OFFICIAL))
    run(policy, moved(), moves=1)
    camera = observation().world_from_camera.copy()
    camera[0, 3] += 0.1
    with pytest.raises(ValueError, match="camera that moves"):
        policy.act(dataclasses.replace(observation(), world_from_camera=camera))


def test_settings_that_plan_nothing_are_refused():
    for name, value in (("horizon", 0), ("replan", "never"), ("arm_std", 0.0)):
        with pytest.raises(ValueError, match=name):
            MPCConfig(**{name: value})


def test_a_cropped_observation_shows_the_middle_and_projects_to_it():
    whole = observation()
    cropped = whole.cropped(NARROW)
    assert np.array_equal(cropped.image, whole.image[:, 4:-4])
    point = np.array([0.1, -0.2, 0.9])
    expected = whole.intrinsics @ point / point[2] - [4, 0, 0]
    assert np.allclose(cropped.intrinsics @ point / point[2], expected)
    assert np.array_equal(whole.cropped((HEIGHT, WIDTH)).intrinsics, whole.intrinsics)
    for size in ((200, 384), (HEIGHT, WIDTH + 8), (HEIGHT + 8, WIDTH - 8)):
        with pytest.raises(ValueError, match=f"image is {HEIGHT}x{WIDTH}, the model takes {size[0]}x{size[1]}"):
            whole.cropped(size)


def test_a_plan_does_not_depend_on_margins_that_the_model_does_not_see():
    goal = moved(seed=4)
    actions = []
    for size in (None, NARROW):
        config = MPCConfig(horizon=1, image_size=size)
        policy = KinematicsOnly(None, KINEMATICS, KeypointPixels(), GradientSolver(1, Adam(steps=20)), config)
        policy.reset(image_of(goal), goal_pixels=hand_pixels(goal))
        actions.append(policy.act(observation()))
    assert policy.goal.image_size == NARROW
    assert np.abs(actions[0] - REST).max() > 0.05
    assert np.allclose(actions[0], actions[1], atol=1e-3)


def test_the_model_gets_images_of_its_own_size():
    class NarrowDynamics(ToyDynamics):
        def encode(self, images):
            assert tuple(images.shape[-3:]) == (*NARROW, 3)
            return torch.zeros(112, 12)

    policy = KinematicsOnly(NarrowDynamics(), KINEMATICS, KeypointPixels(), config=MPCConfig(image_size=NARROW))
    policy.reset(image_of(moved()))
    assert policy.goal.pixels.shape == (12, 2)


@pytest.mark.parametrize("start", [None, KinematicStart(CEM(samples=30, elites=4, iterations=2))])
def test_a_plan_from_where_the_arm_will_be_is_the_plan_that_is_made_there(start):
    goal, plans, contexts = moved(seed=1), [], []
    for ahead in (False, True):
        dynamics = ToyDynamics()
        policy = policy_of(dynamics=dynamics, kinematic_start=start, replan="fixed")
        policy.reset(image_of(goal))
        first = policy.act(observation(REST))
        if ahead:
            policy.act(observation(REST), first[None])
        else:
            policy.act(observation(first))
        plans.append(policy.plan.actions)
        contexts.append(dynamics.started[-1])
        assert len(policy._history) == (1 if ahead else 2)  # what was only expected is not kept
    assert torch.allclose(*plans, atol=0.02)
    (latents, motion), (expected, foreseen) = contexts
    assert torch.allclose(latents, expected, atol=0.02)
    assert torch.allclose(motion.deltas, foreseen.deltas, atol=1e-4)


def test_the_goal_and_every_frame_are_encoded_once(monkeypatch):
    dynamics, encoded = ToyDynamics(), []
    monkeypatch.setattr(dynamics, "encode", lambda image: (encoded.append(1), ToyDynamics.encode(dynamics, image))[1])
    run(policy_of(dynamics=dynamics, solver=CEM(8, 2, 1)), moved(), moves=3)
    assert len(encoded) == 1 + 3


def test_after_several_steps_a_plan_begins_with_what_is_left_of_the_last_one():
    policy = policy_of(rewiden=0.5, replan="fixed")
    run(policy, moved(), moves=1)
    first = policy.plan
    scene, _ = policy._scene(observation(REST))
    later = policy._initial(scene, 3, 2)
    assert torch.equal(later.mean, first.actions[[2, 2, 2]])
    policy.act(observation(REST), first.actions[:2].numpy())
    assert policy.statistics[-1].horizon == 3
