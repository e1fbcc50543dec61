"""A described robot at its table in motion: joint targets in, states, keypoints and pictures out."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import torch

from dexworld.hands import LEFT, RIGHT, TIPS, WRIST
from dexworld.sim.kitchen.kitchen_simulation import ScenePhysics, SimState
from dexworld.sim.table.station import Station
from dexworld.sim.table.table_scene import CAMERA, IMAGE_SIZE, build_table, link_name, table_layout

FRAMES_PER_SECOND = 5.0
_STEPS_PER_SECOND, _STEPS_PER_FRAME, _CONTROL_STEPS = 500, 100, 5
_MOVING = 0.8  # share of a move's time

Tick = Callable[["TableSimulation"], None]


class TableSimulation(ScenePhysics):
    """The table's scene of a seed with its robot, which is controlled by joint targets in the robot's order."""

    def __init__(self, station: Station, seed: int, backend: str = "auto") -> None:
        layout: Any = table_layout(seed)
        super().__init__(layout, build_table(station, layout), IMAGE_SIZE, backend)
        self.station, self.robot, model = station, station.robot, self.model
        links = [self.robot.tree.names.index(name) for name in self.robot.joints]
        self._addresses = np.array([model.joint(link_name(link)).qposadr[0] for link in links])
        self._motors = np.array([model.actuator(link_name(link)).id for link in links])
        self._followers = [
            (model.joint(link_name(link)).qposadr[0], drive.source, drive.polynomial)
            for link, drive in enumerate(self.robot.tree.drives)
        ]
        self.touching = np.array([model.body(link_name(link)).id for link in range(len(self.robot.tree.joints))])
        self.tip_rows = self._own_tips()
        self.reset(station.rest)

    def reset(self, joint_positions: np.ndarray) -> None:
        """The thing to its place, the robot to joint positions (J,), at rest."""
        mujoco.mj_resetData(self.model, self.data)
        self.put_robot(joint_positions)

    def put_robot(self, joint_positions: np.ndarray) -> None:
        """Put the robot somewhere (J,) and hold it there, at rest."""
        for address, source, polynomial in self._followers:
            self.data.qpos[address] = np.polynomial.polynomial.polyval(joint_positions[source], polynomial)
        self.data.ctrl[self._motors] = joint_positions
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)

    @property
    def joint_positions(self) -> np.ndarray:
        """Measured (J,), metres for slides and radians for hinges."""
        return self.data.qpos[self._addresses].copy()

    @property
    def joint_targets(self) -> np.ndarray:
        """Commanded (J,)."""
        return self.data.ctrl[self._motors].copy()

    def keypoints_world(self) -> tuple[np.ndarray, np.ndarray]:
        """The 42 keypoints (42, 3) in metres and which of them exist (42,)."""
        pose = self.robot.forward(torch.from_numpy(self.joint_positions))  # its base is the world
        return pose.keypoints.numpy(), pose.valid.numpy()

    def tips_world(self) -> np.ndarray:
        """Wrist and fingertips (n, 3) of the hand that works, metres."""
        return self.keypoints_world()[0][self.tip_rows]

    def move(self, targets: np.ndarray, seconds: float, on_frame: Tick | None = None) -> None:
        """Interpolate smoothly from the present targets to `targets` (J,), the last fifth of the time at rest;
        `on_frame` is called at 5 Hz.
        """
        start, steps = self.joint_targets, round(seconds * _STEPS_PER_SECOND)
        for step in range(_CONTROL_STEPS, steps + 1, _CONTROL_STEPS):
            share = min(1.0, step / (_MOVING * steps))
            self.data.ctrl[self._motors] = start + (targets - start) * share * share * (3 - 2 * share)
            mujoco.mj_step(self.model, self.data, _CONTROL_STEPS)
            if on_frame is not None and step % _STEPS_PER_FRAME == 0:
                mujoco.mj_forward(self.model, self.data)
                on_frame(self)
        mujoco.mj_forward(self.model, self.data)

    def get_state(self) -> SimState:
        """The state to come back to with `set_state`."""
        return SimState(self.layout.seed, self.physics())

    def set_state(self, state: SimState) -> None:
        """Go back to a state of this scene. Raises ValueError for one of another scene."""
        if state.seed != self.layout.seed:
            raise ValueError(f"the state is of scene {state.seed}, this is scene {self.layout.seed}")
        self.restore(state.physics)

    def image(self) -> np.ndarray:
        """The picture (224, 392, 3) uint8 from beside the table."""
        return self.renderer.rgb(self.data, CAMERA)

    def observation(self) -> dict[str, np.ndarray]:
        """The fields of `Observation`, and the true keypoints."""
        keypoints, valid = self.keypoints_world()
        return {
            "image": self.image(),
            "joint_positions": self.joint_positions,
            "joint_targets": self.joint_targets,
            "keypoints_world": keypoints,
            "keypoints_valid": valid,
            "world_from_camera": self.camera_pose(CAMERA),
            "world_from_base": np.eye(4),
            "intrinsics": self.camera_intrinsics(CAMERA),
        }

    def _own_tips(self) -> list[int]:
        _, valid = self.keypoints_world()
        hand = RIGHT if valid[RIGHT].any() else LEFT
        return [hand.start + row for row in (WRIST, *TIPS) if valid[hand.start + row]]
