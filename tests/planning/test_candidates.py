"""Candidates: kinematics for all, the model for a few, and what a held object means."""

import pytest
import torch
from helpers_planning import REST, ToyDynamics, hand_pixels, image_of, motion_of, moved, no_goal, scene

from dexworld.planning.candidates import CandidateCost, ModelConfig
from dexworld.planning.objectives import KeypointPixels, LatentDistance, Smoothness
from dexworld.planning.protocols import Goal
from dexworld.robots.franka_allegro import FrankaAllegro

OBJECTIVE = LatentDistance() + 0.001 * KeypointPixels() + 0.01 * Smoothness()


def toy_goal(joints):
    dynamics = ToyDynamics()
    latents = dynamics.encode(torch.from_numpy(image_of(joints)))
    return Goal((224, 392), *dynamics.keypoints(latents), latents)


def candidates(count=20, steps=2, seed=0):
    noise = torch.randn(count, steps, 23, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(REST, dtype=torch.float32) + 0.1 * noise


def robot_motion(here, path):
    return motion_of(FrankaAllegro().track(path, here.world_from_base, here.world_from_camera, here.intrinsics))


def cost_with(objective=OBJECTIVE, joints=REST, targets=None, **config):
    dynamics, here = ToyDynamics(), scene(joints, targets)
    latents = dynamics.encode(torch.from_numpy(image_of(joints)))[None]
    context = dynamics.start(latents, robot_motion(here, here.joint_positions[None]))
    model = {"dynamics": dynamics, "context": context, "config": ModelConfig(**config)}
    return CandidateCost(FrankaAllegro(), objective, toy_goal(moved()), here, **model)


def test_kinematic_pixels_are_those_of_the_camera():
    cost = CandidateCost(FrankaAllegro(), Smoothness(), no_goal(), scene())
    goal = moved(seed=3)
    rollout = cost.kinematic_rollout(torch.tensor(goal, dtype=torch.float32)[None, None])
    motion = robot_motion(scene(), torch.tensor(goal, dtype=torch.float32)[None])
    visible = motion.visible[0]
    assert torch.allclose(rollout.pixels[0, 0][visible], motion.pixels[0, visible, :2], atol=1e-2)
    assert torch.allclose(rollout.pixels[0, 0], torch.tensor(hand_pixels(goal)))


def test_the_model_is_told_the_motion_from_the_measured_joints_through_the_candidates():
    cost = cost_with()
    samples = candidates(3)
    cost(samples)
    (motion,) = cost.dynamics.rolled
    path = torch.cat([cost.scene.joint_positions.expand(3, 1, 23), samples], dim=1)
    expected = robot_motion(cost.scene, path)
    assert torch.allclose(motion.deltas, expected.deltas, atol=1e-6)
    assert torch.allclose(motion.pixels, expected.pixels, atol=1e-3)


def test_a_budget_runs_the_model_on_the_best_by_kinematics_and_gives_the_rest_the_worst_model_cost():
    samples = candidates()
    everything, few = cost_with(), cost_with(model_budget=8)
    full, part = everything(samples), few(samples)
    cheap = few.cheap(few.kinematic_rollout(samples), few.goal)
    chosen = torch.cat([torch.tensor([0, 1]), 2 + cheap[2:].topk(6, largest=False).indices])
    assert torch.allclose(part[chosen], full[chosen], atol=1e-6)
    rest = torch.tensor([index not in set(chosen.tolist()) for index in range(20)])
    worst = (full - cheap)[chosen].max()
    assert torch.allclose(part[rest], (cheap + worst)[rest], atol=1e-5)
    assert (few.model_candidates, everything.model_candidates) == (8, 20)
    assert len(few.dynamics.rolled[0].deltas) == 8


def test_part_of_the_budget_goes_to_the_first_rows_whatever_kinematics_say():
    cost = cost_with(model_budget=8)
    chosen = cost._screened(torch.arange(20, 0, -1).float())
    assert sorted(chosen.tolist()) == [0, 1, 14, 15, 16, 17, 18, 19]


def test_without_a_hand_in_the_goal_the_budget_does_not_go_to_whatever_moves_least():
    cost = cost_with(model_budget=8)
    cost.goal = Goal((224, 392), torch.zeros(12, 2), torch.zeros(12), cost.goal.latents)
    chosen = cost._screened(candidates().sum((-1, -2)))
    assert sorted(chosen.tolist()) == list(range(8))


def test_batches_bound_the_models_memory_and_change_nothing():
    samples = candidates(10)
    whole, pieces = cost_with(), cost_with(max_batch=4)
    assert torch.allclose(whole(samples), pieces(samples), atol=1e-6)
    assert [len(motion.deltas) for motion in pieces.dynamics.rolled] == [4, 4, 2]


def test_terms_of_a_plan_add_up_to_its_cost():
    cost = cost_with(model_budget=4)
    plan = candidates(1)[0]
    assert sum(cost.explain(cost.imagine(plan)).values()) == pytest.approx(float(cost(plan[None])[0]), rel=1e-5)
    assert set(cost.explain(cost.imagine(plan))) == {"latents", "keypoints", "travel"}


def test_a_stopped_finger_is_expected_to_stay_until_the_command_opens_or_closes_further():
    targets = REST.copy()
    targets[[0, 8]] += 0.3  # the finger is stopped 0.3 rad before its target; the arm has no dead band
    commands = torch.tensor(targets, dtype=torch.float32).repeat(3, 1)
    commands[:, 8] += torch.tensor([-0.1, -0.5, 0.2])  # held, opened, closed
    expected = cost_with(targets=targets).expected_positions(commands)
    assert (expected[:, 8] - REST[8]).tolist() == pytest.approx([0.0, -0.2, 0.2], abs=1e-6)
    assert torch.allclose(expected[:, 0], commands[:, 0])
    assert torch.allclose(cost_with(targets=targets, contact_deadband=False).expected_positions(commands), commands)


def test_model_terms_without_a_model_are_refused():
    with pytest.raises(ValueError, match="latents need a world model"):
        CandidateCost(FrankaAllegro(), LatentDistance(), no_goal(), scene())
    with pytest.raises(ValueError, match=r"expected \(N, T, 23\)"):
        cost_with()(torch.zeros(4, 23))


def test_model_settings_that_make_no_sense_are_refused():
    for name in ("model_budget", "max_batch"):
        with pytest.raises(ValueError, match=name):
            ModelConfig(**{name: 0})
