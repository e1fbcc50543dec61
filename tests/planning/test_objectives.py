"""Objectives in closed form."""

import math

import pytest
import torch

from dexworld.geometry import rotation_from_euler_xyz
from dexworld.planning.objectives import (
    FINAL,
    RELEASE_TIME,
    RIGHT_TRACKED,
    HandOrientation,
    JointLimits,
    KeepOut,
    KeypointPixels,
    LatentDistance,
    Smoothness,
    TimeWeights,
)
from dexworld.planning.protocols import Goal, Rollout
from dexworld.robots.boxes import ARM_RADIUS, Boxes
from dexworld.robots.franka_allegro import FrankaAllegro

IMAGE = (224, 392)
PATCHES = 112


def rollout(count=2, steps=3, **values):
    fields = {
        "robot": FrankaAllegro(),
        "joint_targets": torch.zeros(count, steps, 23),
        "joint_start": torch.zeros(23),
        "pixels": torch.zeros(count, steps, 12, 2),
        "keypoints_base": torch.zeros(count, steps, 42, 3),
        "hand_rotation": torch.eye(3).expand(count, steps, 3, 3),
    }
    return Rollout(**{**fields, **values})


def goal(**values):
    fields = {"image_size": IMAGE, "pixels": torch.full((12, 2), -1e4), "confidence": torch.ones(12)}
    return Goal(**{**fields, **values})


def test_time_weights_are_those_of_the_release_or_normalised_final_only_or_even():
    expected = torch.tensor([0.36, 0.6, 1.0]) / 1.96
    assert torch.allclose(RELEASE_TIME.mean(torch.eye(3)), expected)
    assert torch.allclose(RELEASE_TIME.mean(torch.eye(2)), expected[1:])  # not normalised again
    values = torch.tensor([[1.0, 2.0, 4.0]])
    assert float(TimeWeights(0.5).mean(values)) == pytest.approx((0.25 + 1.0 + 4.0) / 1.75)
    assert float(FINAL.mean(values)) == 4.0
    assert float(TimeWeights(1.0).mean(values)) == pytest.approx(7 / 3)
    with pytest.raises(ValueError, match="decay"):
        TimeWeights(1.5)


def test_latent_distance_is_the_time_weighted_mean_square():
    latents = torch.randn(2, 3, PATCHES, 5, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(PATCHES, 5)
    cost = LatentDistance(time=FINAL)(rollout(latents=latents), goal(latents=target))
    assert torch.allclose(cost, latents[:, -1].square().mean((-1, -2)))


def test_keypoint_cost_is_the_papers_mean_square_over_twelve_numbers_of_the_right_hand():
    pixels = torch.randn(2, 3, 12, 2, generator=torch.Generator().manual_seed(1)) * 20
    target = torch.randn(12, 2, generator=torch.Generator().manual_seed(2)) * 20
    term = KeypointPixels(source="model", by_confidence=False, time=FINAL)
    cost = term(rollout(predicted_pixels=pixels), goal(pixels=target, confidence=torch.zeros(12)))
    assert torch.allclose(cost, (pixels[:, -1, 6:] - target[6:]).square().mean((-1, -2)))
    assert RIGHT_TRACKED == [6, 7, 8, 9, 10, 11]


def test_goal_keypoints_of_low_confidence_do_not_count_and_the_others_weigh_by_theirs():
    pixels = torch.zeros(1, 1, 12, 2)
    target, confidence = torch.zeros(12, 2), torch.zeros(12)
    target[6], target[7], target[8] = 3.0, 6.0, 1000.0
    confidence[6], confidence[7], confidence[8] = 0.9, 0.6, 0.2
    term = KeypointPixels(min_confidence=0.3, time=FINAL)
    cost = term(rollout(1, 1, pixels=pixels), goal(pixels=target, confidence=confidence))
    assert float(cost) == pytest.approx((0.9 * 9 + 0.6 * 36) / 1.5)
    nothing = term(rollout(1, 1, pixels=pixels), goal(pixels=target, confidence=torch.zeros(12)))
    assert float(nothing) == 0.0


def test_robust_errors_are_square_when_small_and_linear_when_large():
    def cost(error):
        pixels = torch.full((1, 1, 12, 2), float(error))
        term = KeypointPixels(robust_px=10.0, time=FINAL)
        return float(term(rollout(1, 1, pixels=pixels), goal(pixels=torch.zeros(12, 2))))

    assert cost(0.1) == pytest.approx(0.01, rel=1e-2)
    assert cost(1000) == pytest.approx(2 * 10 * 1000, rel=0.02)


def test_orientation_is_the_angle_between_palms_in_radians():
    turned = rotation_from_euler_xyz(torch.tensor([0.0, 0.0, 1.2]))
    term = HandOrientation(time=FINAL)
    assert term(rollout(1, 1), goal(hand_rotation=turned)).tolist() == pytest.approx([1.2])
    with pytest.raises(ValueError, match="hand rotation"):
        term(rollout(1, 1), goal())


def test_limits_cost_nothing_inside_the_margin_and_one_per_joint_on_the_limit():
    limits = FrankaAllegro().limits.float()
    term = JointLimits(margin=0.1)
    inside = limits.mean(-1)[None, None]
    edge = inside.clone()
    edge[..., 0] = limits[0, 1]
    assert float(term(rollout(1, 1, joint_targets=inside), goal())) == 0.0
    assert float(term(rollout(1, 1, joint_targets=edge), goal())) == pytest.approx(1 / 23)


def test_an_arm_in_a_box_costs_how_deep_it_is_and_none_without_boxes():
    targets = FrankaAllegro().limits.float().mean(-1).expand(1, 2, 23)
    elbow = FrankaAllegro().forward(targets[0, 0]).links[2]
    around = Boxes((elbow - 1.0)[None], (elbow + 1.0)[None], torch.eye(4))
    away = Boxes(around.low + 9.0, around.high + 9.0, torch.eye(4))
    costs = [
        float(KeepOut()(rollout(1, 2, joint_targets=targets), goal(keep_out=each))) for each in (around, away, None)
    ]
    assert costs[0] == pytest.approx(1.0 + ARM_RADIUS, abs=0.1)
    assert costs[1:] == [0.0, 0.0]


def test_travel_starts_at_the_targets_in_force():
    targets = torch.zeros(1, 2, 23)
    targets[:, :, :7] = 0.5
    start = torch.zeros(23)
    start[7:] = 0.1
    cost = Smoothness(finger_share=0.2)(rollout(1, 2, joint_targets=targets, joint_start=start), goal())
    assert float(cost) == pytest.approx((0.25 + 0.2 * 0.01) / 2)


def test_sums_add_weigh_and_report_each_term():
    targets = torch.randn(3, 2, 23, generator=torch.Generator().manual_seed(0))
    pixels = torch.randn(3, 2, 12, 2, generator=torch.Generator().manual_seed(1))
    rolled, target = rollout(3, 2, joint_targets=targets, pixels=pixels), goal(pixels=torch.zeros(12, 2))
    both = 0.5 * (2.0 * Smoothness() + KeypointPixels())
    assert torch.allclose(both(rolled, target), Smoothness()(rolled, target) + 0.5 * KeypointPixels()(rolled, target))
    assert list(both.each(rolled, target)) == ["travel", "keypoints"]
    assert not both.needs_model


def test_only_terms_that_say_where_to_go_without_the_model_guide():
    assert KeypointPixels().guides(goal())
    assert not KeypointPixels().guides(goal(confidence=torch.full((12,), 0.1)))
    assert not KeypointPixels(source="model").guides(goal())
    assert not (Smoothness() + LatentDistance()).guides(goal())
    assert not HandOrientation().guides(goal())
    assert (Smoothness() + HandOrientation()).guides(goal(hand_rotation=torch.eye(3)))


def test_sums_separate_what_needs_the_model():
    both = LatentDistance() + KeypointPixels(source="model", name="seen") + KeypointPixels() + Smoothness()
    assert [term.name for _, term in both.part(needs_model=True).terms] == ["latents", "seen"]
    assert [term.name for _, term in both.part(needs_model=False).terms] == ["keypoints", "travel"]
    assert both.needs_keypoint_head
    assert not (LatentDistance() + Smoothness()).needs_keypoint_head


def test_objectives_that_make_no_sense_are_refused():
    for build, message in (
        (lambda: LatentDistance() + LatentDistance(), "different names"),
        (lambda: -1.0 * Smoothness(), "weight"),
        (lambda: math.nan * Smoothness(), "weight"),
        (lambda: KeypointPixels(source="oracle"), "source"),
        (lambda: KeypointPixels(robust_px=0.0), "robust_px"),
        (lambda: goal(pixels=torch.zeros(6, 2)), "goal keypoints"),
        (lambda: goal(pixels=torch.full((12, 2), math.nan)), "NaN"),
        (lambda: LatentDistance()(rollout(), goal()), "plan with a dynamics"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
