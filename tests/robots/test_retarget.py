"""A robot's hand does what a person's did: fingertips, limits, smoothness, and what can't be retargeted."""

import numpy as np
import pytest
import torch

from dexworld.geometry import transform_points
from dexworld.hands import LEFT, RIGHT, TIPS
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.retarget import RetargetConfig, hand_of, retarget
from dexworld.robots.retarget_problem import RetargetProblem, block_step
from dexworld.robots.robot import HandPose, Robot
from hand_fixtures import curled_hands

FRAMES = 12
ROBOT = FrankaAllegro()
OWN_TIPS = [RIGHT.start + tip for tip in TIPS[:4]]
POINTS = curled_hands(FRAMES).reshape(FRAMES, 42, 3)
SEEN = np.ones((FRAMES, 42), bool)


def own_path(frames: int = FRAMES) -> torch.Tensor:
    """Joints that swing through a part of the robot's range."""
    low, high = ROBOT.limits.unbind(1)
    share = torch.rand(2, len(ROBOT.joints), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start, end = low + (0.25 + 0.5 * share) * (high - low)
    return start + 0.3 * torch.linspace(0, 1, frames, dtype=torch.float64)[:, None] * (end - start)


def problem(**weights) -> RetargetProblem:
    points, seen = torch.as_tensor(POINTS)[:, RIGHT], torch.as_tensor(SEEN)[:, RIGHT]
    return RetargetProblem(ROBOT, hand_of(ROBOT), points, seen, RetargetConfig(**weights), free=True)


def test_a_hand_alone_meets_a_persons_fingertips_within_its_limits():
    done = retarget(ROBOT, POINTS, SEEN)
    assert done.fingers == ("Thumb", "IndexFinger", "MiddleFinger", "RingFinger")
    assert done.tip_error.shape == (FRAMES, 4)
    assert done.tip_error.median() < 0.01
    reached = transform_points(done.world_from_base, ROBOT.forward(done.joint_positions).keypoints)
    found = (reached[:, OWN_TIPS] - torch.as_tensor(POINTS)[:, OWN_TIPS]).norm(dim=-1)
    torch.testing.assert_close(found, done.tip_error)
    assert (done.joint_positions == ROBOT.clamp(done.joint_positions)).all()
    assert (done.joint_positions[:, ROBOT.arm] == done.joint_positions[0, ROBOT.arm]).all()


def test_an_arm_repeats_its_own_motion():
    path, base = own_path(), np.eye(4)
    base[:3, 3] = [1.0, 2.0, 0.5]
    pose = ROBOT.forward(path)
    points = transform_points(torch.as_tensor(base), pose.keypoints)
    done = retarget(ROBOT, points, pose.valid.expand(FRAMES, 42), base)
    assert done.tip_error.max() < 1e-4
    assert (done.joint_positions - path).abs().median() < 0.01


def test_the_derivatives_are_those_of_the_residuals():
    task = problem()
    state = task.beside_hand()
    jacobian, before = task.jacobian(state), task.residuals(state)
    for variable in range(jacobian.shape[2]):
        step = torch.zeros(FRAMES, jacobian.shape[2], dtype=torch.float64)
        step[:, variable] = 1e-6
        numeric = (task.residuals(task.moved(state, step)) - before) / 1e-6
        torch.testing.assert_close(jacobian[..., variable], numeric, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("coupled", [0.0, 0.3])
def test_a_step_solves_the_whole_system(coupled):
    generator, frames, variables = torch.Generator().manual_seed(0), 5, 3
    roots = torch.randn(frames, variables, variables, generator=generator, dtype=torch.float64)
    hessian = roots @ roots.transpose(1, 2) + 2 * torch.eye(variables, dtype=torch.float64)
    gradient = torch.randn(frames, variables, generator=generator, dtype=torch.float64)
    held = torch.zeros(frames, variables, dtype=torch.bool)
    held[2, 1] = held[3, 0] = True
    coupling = torch.full((frames, variables), -coupled, dtype=torch.float64)
    step = block_step(hessian, coupling, gradient, held, damping=0.1)
    dense = torch.block_diag(*(block + 0.1 * torch.diag(block.diagonal() + 1e-9) for block in hessian))
    beside = torch.diag(coupling[1:].flatten(), variables)
    free = (~held).flatten()
    whole = (dense + beside + beside.T)[free][:, free]
    expected = torch.zeros(frames * variables, dtype=torch.float64)
    expected[free] = torch.linalg.solve(whole, -gradient.flatten()[free])
    torch.testing.assert_close(step.flatten(), expected)


def test_frames_without_the_hand_follow_their_neighbours():
    seen = SEEN.copy()
    seen[4:7, RIGHT] = False
    points = np.where(seen[..., None], POINTS, np.nan)
    done, whole = retarget(ROBOT, points, seen), retarget(ROBOT, POINTS, SEEN)
    assert done.tip_error[4:7].isnan().all()
    assert not done.tip_error[[3, 7]].isnan().any()
    middles = (done.world_from_base[5, :3, 3] - whole.world_from_base[5, :3, 3]).norm()
    assert middles < 0.005


def test_smoothness_calms_noisy_keypoints():
    noisy = POINTS + np.random.default_rng(0).normal(0, 0.004, POINTS.shape)
    rough, calm = (
        retarget(ROBOT, noisy, SEEN, config=RetargetConfig(smoothness=weight)).joint_positions.diff(dim=0).abs().mean()
        for weight in (0.0, 0.05)
    )
    assert calm < 0.4 * rough


def test_a_recording_without_the_robots_hand_is_refused():
    seen = SEEN.copy()
    seen[:, RIGHT] = False
    with pytest.raises(
        ValueError, match="no frame shows 3 fingertips of the right hand; take a robot with a left hand"
    ):
        retarget(ROBOT, POINTS, seen)
    with pytest.raises(ValueError, match=r"keypoints must be \(F, 42, 3\)"):
        retarget(ROBOT, POINTS[:, :21], SEEN[:, :21])


class TwoArms(Robot):
    """The reference robot twice, half a metre apart; the hand of the first counts as a left one."""

    joints = tuple(f"{side}_{name}" for side in ("left", "right") for name in ROBOT.joints)
    arm, limits = slice(0, 7), torch.cat([ROBOT.limits, ROBOT.limits])

    def forward(self, joint_positions: torch.Tensor) -> HandPose:
        """As `Robot.forward`."""
        left, right = (ROBOT.forward(each) for each in joint_positions.tensor_split(2, dim=-1))
        apart = right.keypoints[..., RIGHT, :] - torch.tensor([0.0, 0.5, 0.0]).to(joint_positions)
        points = torch.cat([left.keypoints[..., RIGHT, :], apart], dim=-2)
        return HandPose(points, torch.ones(42, dtype=torch.bool), right.hand_rotation, right.wrist, right.links)


def test_two_arms_do_what_both_hands_did_from_where_they_stand():
    robot, path = TwoArms(), torch.cat([own_path(3), own_path(3).flip(0)], dim=-1)
    points, seen = robot.forward(path).keypoints, np.ones((3, 42), bool)
    done = retarget(robot, points + torch.tensor([0.3, 0.2, 0.1]), seen)
    assert done.fingers[0] == "leftThumb"
    assert done.fingers[-1] == "rightRingFinger"
    assert (done.world_from_base == done.world_from_base[0]).all()
    assert done.tip_error.median() < 0.02
    seen[:, LEFT] = False
    with pytest.raises(ValueError, match="no frame shows 3 fingertips of the left hand"):
        retarget(robot, points, seen)


def test_weights_that_make_no_sense_are_refused():
    for weights in ({"direction": -1.0}, {"rest": 0.0}, {"steps": 0}):
        with pytest.raises(ValueError, match="must be 0 or more"):
            RetargetConfig(**weights)
