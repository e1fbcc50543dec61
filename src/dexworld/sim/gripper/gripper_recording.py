"""Recordings of the gripper robot: one scene, one skill, up to three cameras, as true Tracks.

The stand-in for DROID (Khazatsky et al. 2024): 15 Hz, 16:9 pictures, two fixed cameras and one on the wrist, the arm's
base as the world, success or failure as it happened. Every recording follows from its seed.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.sim.gripper.gripper_control import Command, Teleoperator, Waypoint, downward
from dexworld.sim.gripper.gripper_robot import CAMERAS, CONTROL_RATE, gripper_layout
from dexworld.sim.gripper.gripper_simulation import GripperSimulation
from dexworld.sim.gripper.gripper_skills import SKILLS, Operator, Plan
from dexworld.sim.kitchen.scene_physics import stack_rows
from dexworld.track import ArrayFrames, Track


@dataclass(frozen=True)
class GripperConfig:
    """What recordings look like.

    min_frames, max_frames: at 15 Hz; a skill that ends early is followed by free motion, one that does not end in time
    has failed. height, width: pixels. cameras: which of ext1, ext2 and wrist are drawn; their poses are kept in any
    case. weights: shares of `SKILLS`, in that order. tremor: unrest of the operator's hand, m / s. masks: also record
    where the gripper is seen. hand: how the dummy hand is laid out.
    """

    min_frames: int = 75
    max_frames: int = 180
    height: int = 180
    width: int = 320
    cameras: tuple[str, ...] = ("ext1",)
    weights: tuple[float, ...] = (0.12, 0.24, 0.42, 0.04, 0.18)
    tremor: float = 0.012
    masks: bool = False
    hand: GripperHand = field(default_factory=GripperHand)

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

    episodes: the true Track of each drawn camera. masks: (T, H, W) bool for each, where gripper, flange or the arm's
    last link are seen; empty unless asked for. camera_poses: base_from_camera (T, 4, 4) and intrinsics: (3, 3) of all
    three cameras. state: `cartesian_pose` (T, 4, 4), `joint_positions`, `joint_velocities` and `joint_torques` (T, 7),
    `opening` (T,) as measured; `pad_points` (T, 2, 3). command: `cartesian_pose`, `joint_positions`, `opening` asked
    for at each step. skill, text, success, grasp_attempts, objects_carried: what was tried and what came of it.
    """

    seed: int
    skill: str
    text: str
    success: bool
    grasp_attempts: int
    objects_carried: int
    episodes: dict[str, Track]
    masks: dict[str, np.ndarray]
    camera_poses: dict[str, np.ndarray]
    intrinsics: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    command: dict[str, np.ndarray]

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
        tape = _Tape(simulation, hand, config)
        success = tape.play(operator.begin(skill), config.max_frames)
        text = operator.text
        if success is None:
            success = skill == "explore"  # it ends with the tape
        tape.play(operator.explore(), config.min_frames)
        return tape.recording(seed, skill, text, success, operator)


def _start(simulation: GripperSimulation, hand: Teleoperator, rng: np.random.Generator) -> None:
    """Begin somewhere over the counter, at rest, before the tape runs."""
    place = np.array([rng.uniform(0.36, 0.58), rng.uniform(-0.25, 0.25), rng.uniform(0.16, 0.36)])
    goal = Waypoint(place, downward(float(rng.normal(0, 0.4)), *rng.normal(0, 0.12, 2)), float(rng.choice([0.0, 1.0])))
    for _ in range(45):
        command = hand.command(goal)
        simulation.step(command.arm, command.opening)


class _Tape:
    """What is seen and measured before each command, and the command."""

    def __init__(self, simulation: GripperSimulation, hand: Teleoperator, config: GripperConfig) -> None:
        self._simulation, self._hand, self._config = simulation, hand, config
        self._rows: list[dict[str, Any]] = []

    def play(self, plan: Plan, frames: int) -> bool | None:
        """Follow a plan until it ends or the tape has `frames` frames; its outcome, None if it did not end."""
        while True:
            try:
                goal = next(plan)
            except StopIteration as end:
                return bool(end.value)
            left, hold = round(goal.seconds * CONTROL_RATE), round(goal.hold * CONTROL_RATE)
            while left > 0 and hold >= 0:
                if len(self._rows) >= frames:
                    return None
                command = self._hand.command(goal)
                self._rows.append(self._row(command))
                self._simulation.step(command.arm, command.opening)
                left -= 1
                hold -= int(self._hand.reached(goal))

    def _row(self, command: Command) -> dict[str, Any]:
        simulation, cameras = self._simulation, self._config.cameras
        row: dict[str, Any] = {
            "command/cartesian_pose": command.pose,
            "command/joint_positions": command.arm,
            "command/opening": np.float64(np.clip(command.opening, 0.0, 1.0)),
        }
        row |= simulation.object_row()
        row |= {f"state/{name}": values for name, values in simulation.measured().items()}
        row |= {f"pose/{camera}": simulation.camera_pose(camera) for camera in CAMERAS}
        row |= {f"image/{camera}": simulation.renderer.rgb(simulation.data, camera) for camera in cameras}
        if self._config.masks:
            row |= {f"mask/{camera}": simulation.gripper_mask(camera) for camera in cameras}
        return row

    def recording(self, seed: int, skill: str, text: str, success: bool, operator: Operator) -> GripperRecording:
        """Everything on the tape."""
        stacked = stack_rows(self._rows)
        state, command, poses = (_part(stacked, prefix) for prefix in ("state", "command", "pose"))
        intrinsics = {camera: self._simulation.camera_intrinsics(camera) for camera in CAMERAS}
        keypoints, valid = self._config.hand.keypoints(state["cartesian_pose"], state["opening"])
        columns = {
            "keypoints_world": keypoints,
            "keypoints_valid": valid,
            "gripper_pose_world": state["cartesian_pose"],
            "gripper_opening": state["opening"].astype(np.float32),
            "robot_joints": state["joint_positions"],
            "action": np.concatenate([command["joint_positions"], 1.0 - command["opening"][:, None]], axis=1),
        }
        columns |= {name: stacked[name] for name in ("object_positions", "object_touched", "object_motion")}
        episodes = {}
        for camera in self._config.cameras:
            episodes[camera] = Track(
                frames=ArrayFrames(stacked[f"image/{camera}"]),
                fps=CONTROL_RATE,
                world_from_camera=poses[camera],
                intrinsics=intrinsics[camera],
                source=f"simulated gripper, {skill}, seed {seed}, camera {camera}",
                task=text,
                seed=seed,
                columns=columns,
            )
        outcome = (seed, skill, text, success, operator.attempts, operator.carried)
        return GripperRecording(*outcome, episodes, _part(stacked, "mask"), poses, intrinsics, state, command)


def _part(stacked: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays below `prefix`, without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in stacked.items() if name.startswith(f"{prefix}/")}
