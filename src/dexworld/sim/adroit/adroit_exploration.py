"""Exploration in Adroit's scenes: the hand wanders, goes to what it works on, and closes on it or pushes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexworld.sim.adroit.adroit_robots import adroit_robot
from dexworld.sim.adroit.adroit_simulation import FRAMES_PER_SECOND, AdroitSimulation
from dexworld.sim.kitchen.kitchen_simulation import stack_rows, with_motion
from dexworld.track import ArrayFrames, Track

AdroitScene = Literal["relocate", "door", "hammer", "pen"]
_COLUMNS = ("keypoints_world", "keypoints_valid", "joint_positions", "joint_targets", "object_positions",
            "object_motion")  # fmt: skip
_MOVE_SECONDS = (0.4, 1.0)
_NEAR = (0.06, 0.05, 0.06)  # metres, spread of the palm about what the hand works on
_FINGER_SHARE = (0.0, 0.8)  # of a finger joint's way from open to closed


@dataclass(frozen=True)
class AdroitConfig:
    """Recordings at 5 Hz of exploration in one of Adroit's scenes."""

    scene: AdroitScene = "relocate"
    """Which one."""
    frames: int = 32
    """Frames of an episode, five a second."""
    near: float = 0.6
    """Share of the moves that bring the palm near what it works on."""

    def __post_init__(self) -> None:
        if self.frames < 2 or not 0.0 <= self.near <= 1.0:
            raise ValueError(f"Adroit takes frames >= 2 and near between 0 and 1, got {self.frames} and {self.near}")


def record_adroit(seed: int, config: AdroitConfig, backend: str = "auto") -> Track:
    """One episode in the package's scene of `seed`.

    Columns: the joints, keypoints, `object_positions` (T, 1, 3) metres of what the hand works on, `object_motion` (T,).
    """
    rng, rows = np.random.default_rng([seed, 31]), list[dict[str, np.ndarray]]()
    with AdroitSimulation(config.scene, adroit_robot(config.scene), backend) as simulation:

        def record(simulation: AdroitSimulation) -> None:
            if len(rows) < config.frames:
                points, valid = simulation.keypoints_world()
                seen = {"keypoints_world": points.astype(np.float32), "keypoints_valid": valid}
                rows.append(simulation.observation() | seen | {"object_positions": simulation.thing[None]})

        simulation.reset(seed)
        moves = _moves(simulation, rng, config)
        while len(rows) < config.frames:
            simulation.move(next(moves), float(rng.uniform(*_MOVE_SECONDS)), record)
    stacked = with_motion(stack_rows(rows))
    return Track(
        frames=ArrayFrames(stacked["image"]),
        fps=FRAMES_PER_SECOND,
        world_from_camera=stacked["world_from_camera"],
        intrinsics=stacked["intrinsics"][0],
        source=f"adroit {config.scene} exploration, seed {seed}",
        task=config.scene,
        seed=seed,
        columns={name: stacked[name] for name in _COLUMNS},
    )


def _moves(simulation: AdroitSimulation, rng: np.random.Generator, config: AdroitConfig) -> Iterator[np.ndarray]:
    """Joint targets (J,) without end: the arm to a place near the thing or anywhere, the fingers by one synergy."""
    robot, limits = simulation.robot, simulation.robot.limits.numpy()
    arm = np.isin(robot.joints, simulation.scene.arm)
    while True:
        if rng.random() < config.near:
            targets, _ = simulation.arm_to(simulation.thing + rng.normal(0.0, _NEAR))
        else:
            anywhere = rng.uniform(*limits.T)
            targets = np.where(arm, 0.5 * (anywhere + simulation.joint_targets), simulation.joint_targets)
        closed, noise = rng.uniform(*_FINGER_SHARE), rng.normal(0.0, 0.1, len(arm))
        bent = np.maximum(limits[:, 0], 0.0) + (closed + noise) * (limits[:, 1] - np.maximum(limits[:, 0], 0.0))
        yield np.clip(np.where(arm, targets, bent), *limits.T)
