"""Sub-goals: stages that a search finds in a world where closed hands take along what they are near."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from helpers_planning import REST, image_of, observation, scene
from test_point_goal import CELL, PointDynamics, ToyPoints, maps_of

from dexworld.forecast import Forecast
from dexworld.geometry import invert, project
from dexworld.planning.cem import CEM
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.presets import SUBGOALS, PlannerPreset, point_objective, task_preset
from dexworld.planning.subgoals import _BELOW, LEFT_PX, TAKE_AND_PUT, SubgoalPolicy
from dexworld.robots.franka_allegro import FrankaAllegro

ROBOT = FrankaAllegro()
START = np.concatenate([REST[:7], ROBOT.grip.opened])
SHIFT = np.array([28.0, 7.0])  # pixels from where the thing is to where it should be


@dataclass
class Graspable(ToyPoints):
    """Points go with the wrist while the hand is closed around them, and stand still otherwise."""

    def follow(self, looks, pixels, motion):
        hand, place, found = motion.pixels[..., :2], pixels, []
        for step in range(motion.steps):
            now, later = hand[:, step], hand[:, step + 1]
            closed = torch.stack([(each[:, 7] - each[:, 9]).norm(dim=-1) < 12.0 for each in (now, later)]).all(0)
            near = ((now[:, 6] + now[:, 7:11].mean(dim=1)) / 2 - place.mean(dim=1)).norm(dim=-1) < self.near
            place = place + ((closed & near)[:, None] * (later[:, 6] - now[:, 6]))[:, None]
            found.append(place)
        places = torch.stack(found, dim=1)[:, :, None]
        return Forecast(places, torch.full(places.shape[:-1], 0.5))


class World(PointDynamics):
    """Shows the thing where it is, at cells of the map."""

    def __init__(self):
        super().__init__()
        self.points = Graspable(near=30.0)
        place = scene(START)
        pose = ROBOT.forward(place.joint_positions)
        below = pose.wrist + pose.hand_rotation @ torch.tensor(ROBOT.grip.centre) - torch.tensor([0.0, 0.0, _BELOW])
        camera = (invert(place.world_from_camera) @ torch.cat([below, torch.ones(1)]))[:3]
        self.first = self.thing = project(camera[None], place.intrinsics)[0][0].numpy()

    def encode(self, images):
        return maps_of(object=[tuple(int(each) for each in self.thing // CELL)])


def policy_in(world, **options):
    policy = SubgoalPolicy(world, ROBOT, point_objective(), CEM(48, 6, 3), MPCConfig(), **options)
    policy.reset(goal_points=(world.first[None], (world.first + SHIFT)[None]))
    return policy


def played(policy, world, moves, holds=True):
    """Joint targets (T, J) and stages of an episode in which everything goes as the forecast says, or nothing moves."""
    joints, targets, stages = START, [], []
    for _ in range(moves):
        joints = policy.act(observation(joints))
        targets.append(joints)
        stages.append(policy.stage)
        world.thing = policy.imagined.points.pixels[0, 0, 0, 0].numpy() if holds else world.first
    return np.array(targets), stages


def test_a_thing_is_taken_carried_and_let_go_where_it_should_be():
    world = World()
    policy = policy_in(world)
    targets, stages = played(policy, world, len(TAKE_AND_PUT))
    assert stages == list(range(len(TAKE_AND_PUT)))
    assert np.linalg.norm(world.thing - world.first - SHIFT) < LEFT_PX
    for stage, joints in zip(TAKE_AND_PUT, targets, strict=True):
        np.testing.assert_allclose(
            joints[ROBOT.fingers], ROBOT.grip.closed if stage.closed else ROBOT.grip.opened, atol=1e-6
        )
        ROBOT.check_targets(joints)


def test_what_is_seen_where_it_was_was_not_taken_and_is_tried_again():
    world = World()
    _, stages = played(policy_in(world), world, 7, holds=False)
    assert stages[:4] == [0, 1, 2, 3]
    assert stages.index(0, 1) <= 5


def test_the_next_goal_begins_when_one_is_reached():
    world = World()
    policy, later = policy_in(world), np.full_like(image_of(START), 9)
    policy.reset(goal_points=(world.first[None], world.first[None] + 1.0), then=[later, later])
    world.encode = lambda images: (
        maps_of(object=[tuple(int(each) for each in (world.first + 40.0) // CELL)])
        if (images.float().mean() > 8)
        else maps_of(object=[tuple(int(each) for each in world.first // CELL)])
    )
    policy.act(observation(START))
    assert policy.goal.points.wanted.mean(dim=0).numpy() == pytest.approx(world.first + 40.0, abs=CELL)
    assert policy.stage == 0


def test_robots_without_a_grip_and_objectives_without_points_are_refused():
    class Handless(FrankaAllegro):
        grip = None

    with pytest.raises(ValueError, match="grip"):
        SubgoalPolicy(World(), Handless(), point_objective(), CEM(), MPCConfig())


def test_pick_and_place_has_sub_goals_where_the_model_has_points():
    preset = task_preset("cpu", "pick_place", points=True)
    assert preset.stages == SUBGOALS["pick_place"]
    assert isinstance(preset.policy(World(), ROBOT), SubgoalPolicy)
    without = task_preset("cpu", "pick_place", points=True, subgoals=False)
    assert not without.stages
    assert without.objective == preset.objective
    assert not task_preset("cpu", "pick_place").stages
    assert type(replace(preset, stages=()).policy(World(), ROBOT)) is not SubgoalPolicy
    assert isinstance(preset, PlannerPreset)
