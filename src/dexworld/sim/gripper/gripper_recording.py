"""Recordings of the gripper robot: one scene, one skill, up to three cameras.

The stand-in for DROID (Khazatsky et al. 2024): 15 Hz, 16:9 pictures, two fixed cameras and one on the wrist, the arm's
base as the world, success or failure as it happened. Every recording follows from its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dexworld.sim.gripper.gripper_control import Teleoperator, Waypoint, downward
from dexworld.sim.gripper.gripper_simulation import CAMERAS, CONTROL_RATE, GripperSimulation, gripper_layout
from dexworld.sim.gripper.gripper_skills import SKILLS, Operator, Plan
from dexworld.sim.kitchen.kitchen_simulation import stack_rows, with_motion

Row = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class GripperConfig:
    """What recordings look like.

    min_frames, max_frames: at 15 Hz; a skill that ends early is followed by free motion, one that does not end in time
    has failed. height, width: pixels. cameras: which of ext1, ext2 and wrist are drawn; their poses are kept in any
    case. weights: shares of `SKILLS`, in that order. tremor: unrest of the operator's hand, m / s.
    """

    min_frames: int = 75
    max_frames: int = 180
    height: int = 180
    width: int = 320
    cameras: tuple[str, ...] = ("ext1",)
    weights: tuple[float, ...] = (0.12, 0.24, 0.42, 0.04, 0.18)
    tremor: float = 0.012

    def __post_init__(self) -> None:
        if not 2 <= self.min_frames <= self.max_frames:
            raise ValueError(f"2 <= min_frames <= max_frames must hold, got {self.min_frames} and {self.max_frames}")
        if not self.cameras or set(self.cameras) - set(CAMERAS) or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras {self.cameras} must be distinct ones of {', '.join(CAMERAS)}")
        if len(self.weights) != len(SKILLS) or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError(f"weights {self.weights} must be {len(SKILLS)} shares >= 0, of {', '.join(SKILLS)}")
        if self.height < 16 or self.width < 16 or self.height % 2 or self.width % 2 or self.tremor < 0:
            found = f"{self.height} x {self.width} and {self.tremor}"
            raise ValueError(f"height and width must be even and >= 16 px and tremor >= 0, got {found}")


@dataclass(frozen=True)
class GripperRecording:
    """T control steps. All poses in the arm's base frame, metres and radians.

    frames: (T, H, W, 3) uint8 of each drawn camera. camera_poses: base_from_camera (T, 4, 4) and intrinsics: (3, 3) of
    all three cameras. state: `cartesian_pose` (T, 4, 4), `joint_positions`, `joint_velocities` and `joint_torques`
    (T, 7), `opening` (T,) as measured. command: `cartesian_pose`, `joint_positions`, `opening` asked for at each step.
    objects: `object_positions`, `object_touched` and `object_motion`, see `with_motion`. skill, text, success,
    grasp_attempts, objects_carried: what was tried and what came of it.
    """

    seed: int
    skill: str
    text: str
    success: bool
    grasp_attempts: int
    objects_carried: int
    frames: dict[str, np.ndarray]
    camera_poses: dict[str, np.ndarray]
    intrinsics: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    command: dict[str, np.ndarray]
    objects: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.state["opening"])


def record_gripper(seed: int, config: GripperConfig | None = None, backend: str = "auto") -> GripperRecording:
    """The recording of `seed`: same seed and configuration, same bytes on the same machine."""
    config = config or GripperConfig()
    rng = np.random.default_rng([seed, 25])
    skill = str(rng.choice(SKILLS, p=np.array(config.weights) / sum(config.weights)))
    with GripperSimulation(gripper_layout(seed), config.height, config.width, backend) as simulation:
        operator, hand = Operator(simulation, rng), Teleoperator(simulation, rng, config.tremor)
        _start(simulation, hand, rng)
        rows: list[Row] = []
        success = _play(simulation, hand, operator.begin(skill), rows, config.max_frames, config.cameras)
        text = operator.text
        if success is None:
            success = skill == "explore"  # it never ends by itself
        _play(simulation, hand, operator.explore(), rows, config.min_frames, config.cameras)
        frames, poses, state, command, objects = (
            stack_rows([row[part] for row in rows]) for part in ("frames", "poses", "state", "command", "objects")
        )
        intrinsics = {camera: simulation.camera_intrinsics(camera) for camera in CAMERAS}
    outcome = (seed, skill, text, success, operator.attempts, operator.carried)
    return GripperRecording(*outcome, frames, poses, intrinsics, state, command, with_motion(objects))


def _start(simulation: GripperSimulation, hand: Teleoperator, rng: np.random.Generator) -> None:
    """Begin somewhere over the counter, at rest, before anything is recorded."""
    place = np.array([rng.uniform(0.36, 0.58), rng.uniform(-0.25, 0.25), rng.uniform(0.16, 0.36)])
    goal = Waypoint(place, downward(float(rng.normal(0, 0.4)), *rng.normal(0, 0.12, 2)), float(rng.choice([0.0, 1.0])))
    for _ in range(45):
        arm, opening, _ = hand.command(goal)
        simulation.step(arm, opening)


def _play(
    simulation: GripperSimulation, hand: Teleoperator, plan: Plan, rows: list[Row], frames: int, cameras: Sequence[str]
) -> bool | None:
    """Follow a plan until it ends or there are `frames` rows; its outcome, None if it did not end.

    Adds to `rows` what is seen and measured before each command, and the command.
    """
    while True:
        try:
            goal = next(plan)
        except StopIteration as end:
            return bool(end.value)
        left, hold = round(goal.seconds * CONTROL_RATE), round(goal.hold * CONTROL_RATE)
        while left > 0 and hold >= 0:
            if len(rows) >= frames:
                return None
            arm, opening, pose = hand.command(goal)
            shown = np.asarray(np.clip(opening, 0.0, 1.0))
            row: Row = {
                "command": {"cartesian_pose": pose, "joint_positions": arm, "opening": shown},
                "objects": simulation.object_row(),
                "state": simulation.measured(),
                "poses": {camera: simulation.camera_pose(camera) for camera in CAMERAS},
                "frames": {camera: simulation.renderer.rgb(simulation.data, camera) for camera in cameras},
            }
            rows.append(row)
            simulation.step(arm, opening)
            left -= 1
            hold -= int(hand.reached(goal))
