"""The object term on pictures of a toy table: a coloured block, a robot that hides part of it."""

import pytest
import torch
from helpers_planning import INTRINSICS, REST, ToyDynamics, image_of, moved, no_goal, observation, scene

from dexworld.geometry import invert, project, transform_points
from dexworld.planning.candidates import CandidateCost
from dexworld.planning.cem import CEM
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.protocols import Goal, Rollout
from dexworld.planning.scene_colours import SceneColours, colour_cells, silhouette
from dexworld.robots.franka_allegro import FrankaAllegro

H, W = 56, 98


def picture(column, brightness=0.5):
    """A grey table with a red block of 4 x 4 cells, its left edge at a column."""
    image = torch.full((H, W, 3), brightness)
    image[20:24, column : column + 4] = torch.tensor([0.8, 0.1, 0.1])
    return colour_cells((image * 255).to(torch.uint8).repeat_interleave(4, 0).repeat_interleave(4, 1))


def hidden(*columns):
    mask = torch.zeros(H, W, dtype=torch.bool)
    for column in columns:
        mask[20:24, column : column + 4] = True
    return mask


def cost(predicted, silhouettes, start_hidden=None, **options):
    count = len(predicted)
    none = torch.zeros(count, 1, 0)
    rollout = Rollout(
        FrankaAllegro(), torch.zeros(count, 1, 23), torch.zeros(23), none, none, none,
        picture=torch.stack(predicted), silhouette=torch.stack(silhouettes),
    )  # fmt: skip
    goal = Goal(
        (224, 392), torch.zeros(12, 2), torch.zeros(12), picture=picture(60), start_picture=picture(30),
        start_silhouette=hidden() if start_hidden is None else start_hidden,
    )  # fmt: skip
    return SceneColours(**options)(rollout, goal).tolist()


def test_the_start_costs_one_the_goal_nothing_and_a_block_elsewhere_half():
    assert cost([picture(30), picture(60), picture(80)], [hidden()] * 3) == pytest.approx([1.0, 0.0, 0.5])


def test_brightness_does_not_count_and_neither_does_what_should_not_change():
    darker, elsewhere = picture(60, brightness=0.45), picture(60)
    elsewhere[40:50] = torch.tensor([0.1, 0.6, 0.1])
    assert cost([darker, elsewhere], [hidden()] * 2) == pytest.approx([0.0, 0.0], abs=1e-3)


def test_hiding_the_block_or_its_place_with_the_hand_is_no_way_to_move_it():
    assert cost([picture(30)], [hidden(30)]) == pytest.approx([0.75])  # half of half
    assert cost([picture(30)], [hidden(30, 60)]) == pytest.approx([0.5])
    assert cost([picture(30)], [hidden(30, 60)], hidden_cost=1.0) == pytest.approx([1.0])


def test_what_the_robot_hid_at_the_start_does_not_count():
    assert cost([picture(80)], [hidden()], start_hidden=hidden(30)) == pytest.approx([1.0])


def test_the_silhouette_covers_the_hand_and_the_wrist_and_little_else():
    here = scene()
    kinematics = FrankaAllegro()
    pose = kinematics.forward(here.joint_positions[None])
    camera_from_base = invert(here.world_from_camera) @ here.world_from_base
    centres, radii = kinematics.outline(pose)
    pixels, depth = project(transform_points(camera_from_base, centres), here.intrinsics)
    cells = silhouette(pixels, depth, radii, here.intrinsics[0, 0], (224, 392))
    assert cells.shape == (1, H, W)
    assert 0.01 < float(cells.float().mean()) < 0.4
    keypoints, _ = project(transform_points(camera_from_base, pose.keypoints[:, 21:]), here.intrinsics)
    inside = keypoints[(keypoints > 0).all(-1) & (keypoints < keypoints.new_tensor([392, 224])).all(-1)]
    assert len(inside) > 10
    assert all(cells[0, int(v) // 4, int(u) // 4] for u, v in inside)


def test_spheres_cover_their_disc_and_not_those_behind_the_camera():
    pixels, depth = torch.tensor([[[100.0, 100.0], [300.0, 100.0]]]), torch.tensor([[1.0, -1.0]])
    cells = silhouette(pixels, depth, torch.tensor([0.1, 0.1]), torch.tensor(float(INTRINSICS[0, 0])), (224, 392))
    assert cells[0, 25, 25]
    assert not cells[0, :, 60:].any()
    reach = 14.6 + 3 + 6  # the disc, its margin, one cell around it
    assert float(cells.sum()) * 16 < 3.2 * reach**2


class PictureDynamics(ToyDynamics):
    """The toy model, drawing a block that doesn't move."""

    def decode(self, latents):
        block = torch.zeros(224, 392, 3, dtype=torch.uint8)
        return block.expand(*latents.shape[:-2], 224, 392, 3)


def test_the_policy_gives_the_term_its_pictures_and_refuses_a_model_that_has_none():
    policy = MPCPolicy(PictureDynamics(), FrankaAllegro(), SceneColours(), CEM(samples=6, elites=2, iterations=2))
    policy.reset(image_of(moved()))
    policy.act(observation())
    assert set(policy.statistics[0].terms) == {"scene"}
    assert policy.goal.start_silhouette.shape == (H, W)
    assert policy.imagined.picture.shape == (1, H, W, 3)
    with pytest.raises(ValueError, match="no decode"):
        MPCPolicy(ToyDynamics(), FrankaAllegro(), SceneColours(), CEM())


def test_settings_and_rollouts_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="hidden_cost"):
        SceneColours(hidden_cost=2.0)
    bare = CandidateCost(FrankaAllegro(), SceneColours(), no_goal(), scene(), dynamics=PictureDynamics())
    rollout = bare.kinematic_rollout(torch.tensor(REST, dtype=torch.float32)[None, None])
    with pytest.raises(ValueError, match="compares pictures"):
        SceneColours()(rollout, bare.goal)
