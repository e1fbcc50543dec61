"""Scripted skills for the Franka arm with the Allegro hand: inverse kinematics, overhand power grasps and pushes.

The script sees the true state. It makes start and goal states of tasks and the raw material of exploratory data; its
attempts fail now and then, so callers check the outcome and draw again.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from dexworld.sim.kitchen.allegro_body import CLOSED_FINGERS, OPEN_FINGERS, REST_ARM
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.kitchen_simulation import ARM, Simulation
from dexworld.sim.poses import heading, orient

FINGERS_OPEN, FINGERS_CLOSED = np.array(OPEN_FINGERS), np.array(CLOSED_FINGERS)
_ARM_SEEDS = (np.array(REST_ARM), np.array([0, 0.5, 0.4, -2.05, 0.1, 3.4, 1.37]))
_POSTURE_CHANGE = 1.2  # radians; a joint that turns further between neighbouring poses has changed branch
_ROTATION_WEIGHT = 0.3  # metres per radian: how much a turned hand counts against a displaced one


@dataclass(frozen=True)
class ArmSolution:
    """Joint angles (7,) radians and what is left of the errors: metres and radians."""

    joints: np.ndarray
    position_error: float
    rotation_error: float

    @property
    def reachable(self) -> bool:
        """Within 5 mm and 3 degrees."""
        return self.position_error < 0.005 and self.rotation_error < 0.05


OVERHAND = orient(fingers=[0.35, 0.93, 0.0], palm=[0.55, -0.25, -0.8])
# Distance of the object's centre from the palm's origin, palm frame: in front of the palm, a little up the fingers.
_GRASP_DEPTH = {"box": 0.068, "can": 0.065, "ball": 0.08, "bottle": 0.065, "mug": 0.07, "bowl": 0.075}
PRE_GRASP_OFFSET = np.array([0.02, 0.0, -0.10])  # metres of hand motion from pre-grasp to grasp: 10 cm down, 2 cm ahead


def solve_arm(
    simulation: Simulation,
    position: np.ndarray,
    rotation: np.ndarray,
    offset: np.ndarray | None = None,
    near: np.ndarray | None = None,
) -> ArmSolution:
    """Arm joints that bring point `offset` (3,) of the palm frame to `position` (3,) with palm rotation (3, 3), world.

    Starts from `near` (7,) alone if given, so that the arm keeps its posture, else from two curated poses; returns the
    best. Check `reachable`.
    """
    seeds = _ARM_SEEDS if near is None else (np.asarray(near),)
    found: list[ArmSolution] = []
    for seed in seeds:
        point = np.zeros(3) if offset is None else offset
        found.append(_damped_least_squares(simulation, position, rotation, point, seed))
        if found[-1].reachable:
            break
    return min(found, key=lambda solution: solution.position_error + 0.1 * solution.rotation_error)


def _damped_least_squares(
    simulation: Simulation, position: np.ndarray, rotation: np.ndarray, offset: np.ndarray, seed: np.ndarray
) -> ArmSolution:
    model, data = simulation.model, simulation.scratch
    data.qpos[:] = simulation.data.qpos
    addresses, dofs = simulation.joint_qpos[ARM], simulation.joint_dofs[ARM]
    low, high = simulation.joint_limits[ARM].T + np.array([[0.02], [-0.02]])
    jacobian, joints = np.zeros((6, model.nv)), np.clip(seed, low, high)
    weight = np.array([1, 1, 1, *[_ROTATION_WEIGHT] * 3])
    for _ in range(80):
        data.qpos[addresses] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        current = data.xmat[simulation.palm].reshape(3, 3)
        point = data.xpos[simulation.palm] + current @ offset
        translation = position - point
        turn = 0.5 * np.cross(current.T, rotation.T).sum(axis=0)
        error = np.linalg.norm(translation), np.linalg.norm(turn)
        if error[0] < 1e-3 and error[1] < 5e-3:
            break
        mujoco.mj_jac(model, data, jacobian[:3], jacobian[3:], point, simulation.palm)
        weighted = jacobian[:, dofs] * weight[:, None]
        inverse = weighted.T @ np.linalg.inv(weighted @ weighted.T + 1e-3 * np.eye(6))
        step = inverse @ (np.concatenate([translation, turn]) * weight)
        step += (np.eye(len(joints)) - inverse @ weighted) @ (0.05 * (_ARM_SEEDS[0] - joints))
        largest = np.abs(step).max()
        joints = np.clip(joints + step * min(1.0, 0.2 / max(largest, 1e-9)), low, high)
    return ArmSolution(joints, float(error[0]), float(error[1]))


def _one_posture(first: ArmSolution, *others: ArmSolution) -> bool:
    """All reachable, and without the elbow flipping on the way from the first to the others."""
    close = all(np.abs(other.joints - first.joints).max() < _POSTURE_CHANGE for other in others)
    return close and all(solution.reachable for solution in (first, *others))


@dataclass(frozen=True)
class GraspPlan:
    """Joint targets (23,) of an overhand power grasp: above the object, around it, closed, lifted."""

    pre_grasp: np.ndarray
    around: np.ndarray
    closed: np.ndarray
    lifted: np.ndarray


def grasp_place(kind: str, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where an overhand grasp of an object of `kind` at `position` (3,) takes it: world (3,), and palm frame (3,)."""
    # A hand lower than this would press its thumb into the counter.
    target = np.array([*position[:2], max(position[2], COUNTER_TOP + 0.03)])
    return target, np.array([_GRASP_DEPTH[kind], 0.0, 0.02])


def plan_grasp(
    simulation: Simulation, kind: str, position: np.ndarray, lift: float = 0.12, slack: np.ndarray | None = None
) -> GraspPlan | None:
    """A grasp of an object of `kind` whose centre is at `position` (3,); None if the arm can't get there.

    `slack` (3,) metres displaces the hand in the palm frame, for variety.
    """
    target, offset = grasp_place(kind, position)
    offset = offset + (0 if slack is None else slack)
    around = solve_arm(simulation, target, OVERHAND, offset)
    pre_grasp = solve_arm(simulation, target - PRE_GRASP_OFFSET, OVERHAND, offset, near=around.joints)
    lifted = solve_arm(simulation, target + np.array([0, 0, lift]), OVERHAND, offset, near=around.joints)
    if not _one_posture(around, pre_grasp, lifted):
        return None
    return GraspPlan(
        pre_grasp=np.concatenate([pre_grasp.joints, FINGERS_OPEN]),
        around=np.concatenate([around.joints, FINGERS_OPEN]),
        closed=np.concatenate([around.joints, FINGERS_CLOSED]),
        lifted=np.concatenate([lifted.joints, FINGERS_CLOSED]),
    )


@dataclass(frozen=True)
class PushPlan:
    """Joint targets (23,): behind the object, and where the hand ends after pushing; plus a retreat upwards."""

    behind: np.ndarray
    end: np.ndarray
    retreat: np.ndarray


FINGERS_RAKE = np.array([0.0, 0.12, 0.12, 0.1] * 3 + [0.3, 0.3, 0.2, 0.2])
RAKE_HEIGHT = 0.047  # metres from the counter to the contact point on the fingers: the tips pass 1 cm above it
RAKE_FACE = np.array([0.015, 0.0, 0.112])  # the inside of the fingers, palm frame


def rake_rotation(direction: float) -> np.ndarray:
    """Palm rotation (3, 3) of a hand whose fingers point down to the counter and whose inside faces `direction`.

    Of the upright poses this is the one that the tilted shoulder reaches all over the counter; with the fingers level
    and the thumb up the wrist can't turn far enough, with the thumb down it jams.
    """
    ahead = heading(direction)
    return orient(0.2 * ahead + np.array([0.0, 0.0, -1.0]), ahead)


def plan_push(
    simulation: Simulation, position: np.ndarray, direction: float, distance: float, gap: float
) -> PushPlan | None:
    """Push an object at `position` (3,) by `distance` metres towards `direction`; None if the arm can't.

    direction: radians in the counter plane, 0 away from the robot, positive to its left. The fingers point down like a
    rake and start `gap` metres from the object's centre.
    """
    rotation = rake_rotation(direction)
    ahead = heading(direction)
    touch = np.array([*position[:2], COUNTER_TOP + RAKE_HEIGHT])
    start = touch - gap * ahead
    behind = solve_arm(simulation, start, rotation, RAKE_FACE)
    end = solve_arm(simulation, touch + (distance - 0.025) * ahead, rotation, RAKE_FACE, near=behind.joints)
    above = start + np.array([0.0, 0.0, 0.16])
    retreat = solve_arm(simulation, above, rotation, RAKE_FACE, near=behind.joints)
    if not _one_posture(behind, end, retreat):
        return None
    return PushPlan(*(np.concatenate([arm.joints, FINGERS_RAKE]) for arm in (behind, end, retreat)))
