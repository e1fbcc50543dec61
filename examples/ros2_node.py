"""A ROS 2 node that carries out what `dexworld serve` plans: pictures and joints in, joint commands out.

    python3 examples/ros2_node.py --ros-args -p server:=ws://gpu:8000 -p text:="pick up the cup" -p chunks:=20

Start the server with --camera and --hand-eye, so that pictures may come as the camera takes them (docs/cameras.md).
Topics: /image (sensor_msgs/Image, rgb8) and /joint_states; /commands gets std_msgs/Float64MultiArray, 50 a second.
"""

import threading

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from dexworld_client import Client, ControlLoop, JointLimits


class DexworldNode(Node):
    """What a `ControlLoop` asks of a robot: the latest picture and joints, and commands."""

    def __init__(self) -> None:
        super().__init__("dexworld")
        for name, value in (("server", "ws://127.0.0.1:8000"), ("text", ""), ("chunks", 10)):
            self.declare_parameter(name, value)
        self._new, self._image, self._stamp = threading.Condition(), None, 0.0
        self._measured: dict[str, float] = {}
        self.names: tuple[str, ...] = ()
        self._commanded: np.ndarray | None = None
        self._publisher = self.create_publisher(Float64MultiArray, "commands", 1)
        self.create_subscription(Image, "image", self._see, 1)
        self.create_subscription(JointState, "joint_states", self._feel, 1)

    def option(self, name: str):
        """A parameter's value."""
        return self.get_parameter(name).value

    def observe(self):
        """What the policy takes, and when the picture was taken; waits for a new picture."""
        with self._new:
            self._image = None
            if not self._new.wait_for(lambda: self._image is not None and self.names and self._measured, 5.0):
                raise ConnectionError("no picture or no joint states in five seconds: check the topics' names")
            joints = self._joints()
            targets = joints if self._commanded is None else self._commanded
            seen = {"image": self._image, "joint_positions": joints, "joint_targets": targets}
            return seen | {"world_from_base": np.eye(4)}, self._stamp

    def command(self, positions: np.ndarray) -> np.ndarray:
        """Send a command; gives the measured positions."""
        self._commanded = positions
        self._publisher.publish(Float64MultiArray(data=positions.tolist()))
        return self._joints()

    def _joints(self) -> np.ndarray:
        return np.array([self._measured[name] for name in self.names])

    def _see(self, message) -> None:
        if message.encoding != "rgb8":
            raise ValueError(f"/image is {message.encoding}; convert it to rgb8 first (image_proc, image_transport)")
        rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
        with self._new:
            self._image = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
            self._stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
            self._new.notify_all()

    def _feel(self, message) -> None:
        self._measured.update(zip(message.name, message.position, strict=True))


def main() -> None:
    """Carry out chunks, with callbacks in a thread of their own."""
    rclpy.init()
    node = DexworldNode()
    threading.Thread(target=rclpy.spin, args=(node,), daemon=True).start()
    try:
        with Client(node.option("server")) as policy:
            limits = JointLimits(**policy.metadata["limits"])  # put your own here: tighter ones, and never wider
            node.names = limits.names
            policy.set_goal(text=node.option("text"))
            ControlLoop(node, policy, limits).run(node.option("chunks"))
    finally:
        node.destroy_node()
        rclpy.shutdown()


if __name__ == "__main__":
    main()
