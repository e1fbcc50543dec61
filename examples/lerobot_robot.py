"""A robot of LeRobot's (`lerobot.robots.Robot`) as one that a `ControlLoop` drives, with what `dexworld serve` plans.

from lerobot_robot import LeRobotArm, drive
drive(MyRobot(config), camera="front", joints=MyRobot.joint_names, limits=JointLimits(...), text="pick up the cup")
"""

import time

import numpy as np

from dexworld_client import Client, ControlLoop, JointLimits


class LeRobotArm:
    """Looks by `get_observation` and moves by `send_action`; joints are called `NAME.pos`, radians."""

    def __init__(self, robot, camera: str, joints: tuple[str, ...]) -> None:
        self.robot, self.camera, self.keys = robot, camera, [f"{name}.pos" for name in joints]
        self.targets: np.ndarray | None = None

    def observe(self):
        """What the policy takes, and when it was seen."""
        stamp, seen = time.time(), self.robot.get_observation()
        joints = np.array([seen[key] for key in self.keys], float)
        targets = joints if self.targets is None else self.targets
        known = {"image": np.asarray(seen[self.camera]), "joint_positions": joints, "joint_targets": targets}
        return known | {"world_from_base": np.eye(4)}, stamp

    def command(self, positions: np.ndarray) -> None:
        """Go there now. Measured joints come with the next look, since each costs LeRobot a picture."""
        self.targets = positions
        self.robot.send_action(dict(zip(self.keys, positions.tolist(), strict=True)))


def drive(robot, camera, joints, limits: JointLimits, text: str, server="ws://127.0.0.1:8000", chunks=10) -> None:
    """Carry out chunks. The server has to be started with --camera and --hand-eye (docs/cameras.md)."""
    robot.connect()
    try:
        with Client(server) as policy:
            policy.set_goal(text=text)
            ControlLoop(LeRobotArm(robot, camera, joints), policy, limits).run(chunks)
    finally:
        robot.disconnect()
