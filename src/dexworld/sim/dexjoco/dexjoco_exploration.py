"""Exploration in DexJoCo's scenes: the hand wanders, goes to what it works on, and closes on it or pushes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dexworld.geometry import transform_points
from dexworld.sim.dexjoco.dexjoco_process import DexJoCoSimulation
from dexworld.sim.dexjoco.dexjoco_tasks import SCENES, STEPS_PER_SECOND
from dexworld.sim.kitchen.kitchen_simulation import stack_rows, with_motion
from dexworld.track import ArrayFrames, Track

DexJoCoScene = Literal["click_mouse", "pick_bucket", "water_plant", "hammer_nail", "pinch_tongs", "fold_glasses"]
_FRAMES_PER_SECOND = 5
_STEPS_PER_FRAME = STEPS_PER_SECOND // _FRAMES_PER_SECOND
_COLUMNS = ("keypoints_world", "keypoints_valid", "joint_positions", "joint_targets", "object_positions",
            "object_motion")  # fmt: skip
_MOVE_FRAMES = (3, 7)
_NEAR = (0.05, 0.05, 0.03)  # metres, spread of the grasp centre about what the hand works on
_OVER_IT = np.array([0.0, 0.0, 0.03])  # metres
_TABLE = ((-0.45, -0.35, 0.98), (0.0, 0.3, 1.4))  # metres, corners of where the grasp centre wanders
_TURN = 0.2  # radians
_FINGER_SHARE = (0.0, 0.8)  # of a finger joint's way from open to closed
_THUMB = 0.7  # radians across the palm, its first joint


@dataclass(frozen=True)
class DexJoCoConfig:
    """Recordings at 5 Hz of exploration in one of DexJoCo's scenes."""

    scene: DexJoCoScene = "click_mouse"
    """Which one."""
    frames: int = 40
    """Frames of an episode, five a second."""
    near: float = 0.6
    """Share of the moves that bring the hand near what it works on."""

    def __post_init__(self) -> None:
        if self.frames < 2 or not 0.0 <= self.near <= 1.0:
            raise ValueError(f"DexJoCo takes frames >= 2 and near between 0 and 1, got {self.frames} and {self.near}")


def record_dexjoco(seed: int, config: DexJoCoConfig, backend: str = "auto") -> Track:
    """One episode in the package's scene of `seed`.

    Columns: the joints, keypoints, `object_positions` (T, n, 3) metres of the scene's things, `object_motion` (T,).
    """
    rng, rows = np.random.default_rng([seed, 37]), list[dict[str, np.ndarray]]()
    scene = SCENES[config.scene]
    things = list(dict.fromkeys((scene.thing, *scene.things)))
    with DexJoCoSimulation(config.scene, backend) as simulation:
        simulation.call("reset", seed=seed)
        moves = _moves(simulation, rng, config)
        while len(rows) < config.frames:
            targets, frames = next(moves)
            steps = {"steps": frames * _STEPS_PER_FRAME, "every": _STEPS_PER_FRAME}
            rows += simulation.call("move", targets=targets, things=things, **steps)["seen"]
        columns = stack_rows([simulation.complete(row) for row in rows[: config.frames]])
        robot = simulation.robot
    pose = robot.forward(torch.from_numpy(columns["joint_positions"]))
    base = torch.from_numpy(columns["world_from_base"][0])
    columns |= {
        "keypoints_world": transform_points(base, pose.keypoints).numpy().astype(np.float32),
        "keypoints_valid": pose.valid.expand(config.frames, -1).numpy(),
        "object_positions": columns["places"],
    }
    columns = with_motion(columns)
    return Track(
        frames=ArrayFrames(columns["image"]),
        fps=float(_FRAMES_PER_SECOND),
        world_from_camera=columns["world_from_camera"],
        intrinsics=columns["intrinsics"][0],
        source=f"DexJoCo {config.scene} exploration, seed {seed}",
        task=config.scene,
        seed=seed,
        columns={name: columns[name] for name in _COLUMNS},
    )


def _moves(
    simulation: DexJoCoSimulation, rng: np.random.Generator, config: DexJoCoConfig
) -> Iterator[tuple[np.ndarray, int]]:
    """Joint targets (23,) and frames without end: the hand to a place, the fingers by one synergy."""
    robot, limits = simulation.robot, simulation.robot.limits.numpy()
    opened, closed = np.maximum(limits[robot.fingers, 0], 0.0), limits[robot.fingers, 1]
    thumb = robot.joints.index("thj0") - robot.arm.stop
    opened[thumb], closed[thumb] = min(_THUMB, closed[thumb]), closed[thumb]
    while True:
        if rng.random() < config.near:
            place = simulation.places(SCENES[config.scene].thing)[0] + _OVER_IT + rng.normal(0.0, _NEAR)
        else:
            place = rng.uniform(*_TABLE)
        targets = simulation.call("reach", place=place, turn=rng.normal(0.0, _TURN, 3))["targets"]
        share, noise = rng.uniform(*_FINGER_SHARE), rng.normal(0.0, 0.1, len(opened))
        targets[robot.fingers] = opened + (share + noise) * (closed - opened)
        yield np.clip(targets, *limits.T), int(rng.integers(_MOVE_FRAMES[0], _MOVE_FRAMES[1] + 1))
