"""Search over straight hand translations."""

import pytest
import torch

from dexworld.geometry import geodesic_angle
from dexworld.planning.cem import CEM
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.protocols import Gaussian
from dexworld.robots.boxes import Boxes
from dexworld.robots.franka_allegro import FrankaAllegro

REST = [0.10, -1.0, 0.17, -2.4, 0.66, 2.5, 0.98] + [0.0, 0.3, 0.3, 0.3] * 3 + [0.8, 0.3, 0.3, 0.3]
KINEMATICS = FrankaAllegro()
REFERENCE = torch.tensor(REST, dtype=torch.float64).expand(3, 23)
BOUNDS = KINEMATICS.limits
SMALL = CEM(samples=48, elites=6, iterations=8)


def wrist_moves(solver, displacements):
    bound = solver if solver.robot else solver.bind(KINEMATICS, torch.eye(4))
    joints = bound.joints(REFERENCE, BOUNDS, displacements)
    return joints, KINEMATICS.forward(joints), KINEMATICS.forward(REFERENCE)


def test_the_hand_moves_by_the_running_sum_of_the_displacements_and_does_not_turn():
    steps = torch.tensor([[[0.05, 0.0, 0.0], [0.0, 0.04, 0.0], [0.0, 0.0, -0.03]]], dtype=torch.float64)
    joints, there, here = wrist_moves(HandSpaceSolver(SMALL, iterations=10), steps)
    assert torch.allclose(there.wrist - here.wrist, steps.cumsum(1), atol=1e-4)
    assert geodesic_angle(there.hand_rotation[0], here.hand_rotation).max() < 1e-3
    assert torch.equal(joints[0, :, 7:], REFERENCE[:, 7:])


def test_the_axes_are_the_worlds_once_the_base_is_known():
    quarter = torch.eye(4, dtype=torch.float64)
    quarter[:3, :3] = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    steps = torch.zeros(1, 3, 3, dtype=torch.float64)
    steps[0, 0, 0] = 0.05  # along the world's x, which is the base's -y
    _, there, here = wrist_moves(HandSpaceSolver(SMALL, iterations=10).bind(KINEMATICS, quarter), steps)
    moved = (there.wrist - here.wrist)[0, -1]
    assert torch.allclose(moved, torch.tensor([0.0, -0.05, 0.0], dtype=torch.float64), atol=1e-4)


def test_a_fourth_number_closes_the_hand_by_a_share_of_its_way():
    steps = torch.zeros(1, 3, 4, dtype=torch.float64)
    steps[0, :, 3] = torch.tensor([-5.0, 5.5, 9.0])
    joints, there, here = wrist_moves(HandSpaceSolver(SMALL, iterations=10, closing=0.3), steps)
    fingers = torch.tensor([KINEMATICS.grip.opened, KINEMATICS.grip.closed], dtype=torch.float64)
    assert torch.allclose(joints[0, [0, 2], 7:], fingers)
    assert torch.allclose(there.wrist, here.wrist.expand_as(there.wrist), atol=1e-4)


def test_joints_never_leave_their_limits_even_where_the_hand_can_not_go():
    steps = torch.full((4, 3, 3), 0.6, dtype=torch.float64)
    joints, _, _ = wrist_moves(HandSpaceSolver(SMALL), steps)
    assert ((joints >= BOUNDS[:, 0]) & (joints <= BOUNDS[:, 1])).all()


def test_it_finds_a_displaced_hand_and_reports_joint_plans():
    target = KINEMATICS.forward(REFERENCE[0]).wrist + torch.tensor([0.06, 0.05, 0.02], dtype=torch.float64)

    def cost(samples):
        return (KINEMATICS.forward(samples[:, -1]).wrist - target).norm(dim=-1)

    initial = Gaussian(REFERENCE.clone(), torch.full_like(REFERENCE, 0.1))
    solver = HandSpaceSolver(SMALL).bind(KINEMATICS, torch.eye(4))
    plan, again = (solver.solve(cost, initial, BOUNDS, torch.Generator().manual_seed(0)) for _ in range(2))
    assert plan.actions.shape == (3, 23)
    assert plan.cost < 0.02
    assert float(cost(plan.actions[None])[0]) == pytest.approx(plan.cost, abs=1e-9)
    assert torch.equal(plan.actions, again.actions)


def test_nonsense_settings_are_refused():
    with pytest.raises(ValueError, match="positive"):
        HandSpaceSolver(SMALL, std=(0.1, 0.0, 0.1))
    with pytest.raises(ValueError, match="needs a robot"):
        HandSpaceSolver(SMALL).joints(REFERENCE, BOUNDS, torch.zeros(1, 3, 3))


def test_displacements_of_joint_plans_are_those_that_lead_to_them():
    steps = 0.03 * torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quarter = torch.eye(4, dtype=torch.float64)
    quarter[:3, :3] = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    solver = HandSpaceSolver(SMALL, iterations=10).bind(KINEMATICS, quarter)
    plans = solver.joints(REFERENCE, BOUNDS, steps)
    assert torch.allclose(solver.displacements(REFERENCE, plans), steps, atol=1e-4)


def test_a_proposal_that_is_best_is_what_is_found():
    initial = Gaussian(REFERENCE.clone(), torch.full_like(REFERENCE, 0.1))
    solver = HandSpaceSolver(CEM(8, 2, 1), iterations=10).bind(KINEMATICS, torch.eye(4))
    wanted = torch.tensor([[[0.15, 0.1, 0.0], [0.0, 0.1, 0.0], [-0.1, 0.0, 0.0]]], dtype=torch.float64)
    proposed = solver.joints(REFERENCE, BOUNDS, wanted)

    def cost(samples):
        return (KINEMATICS.forward(samples).wrist - KINEMATICS.forward(proposed).wrist).norm(dim=-1).sum(-1)

    plan = solver.solve(cost, initial, BOUNDS, torch.Generator().manual_seed(0), proposed)
    assert plan.cost < 1e-3
    with pytest.raises(ValueError, match="bind"):
        HandSpaceSolver(SMALL).displacements(REFERENCE, proposed)


def test_the_elbow_turns_away_from_boxes_and_the_hand_stays_where_it_is_asked():
    steps = torch.zeros(1, 3, 3, dtype=torch.float64)
    base = torch.eye(4, dtype=torch.float64)
    elbow = KINEMATICS.forward(REFERENCE[0]).links[2:4].mean(dim=0)  # a box stands in its way
    block = Boxes((elbow - 0.05)[None], (elbow + 0.05)[None], base)
    free, clear = (
        HandSpaceSolver(SMALL, iterations=20),
        HandSpaceSolver(SMALL, iterations=20).bind(KINEMATICS, base, block),
    )
    before = wrist_moves(free, steps)[1]
    _, after, here = wrist_moves(clear, steps)
    assert block.depth(before.links).max() > 0.05
    assert block.depth(after.links).max() < 0.01
    assert torch.allclose(after.wrist, here.wrist.expand_as(after.wrist), atol=2e-3)
    assert geodesic_angle(after.hand_rotation[0], here.hand_rotation).max() < 0.02
