"""The examples that drive robots of ROS 2 and of LeRobot, with stand-ins for the two and a real server."""

import importlib
import sys
import threading
import time
from dataclasses import asdict
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld_client import JointLimits
from serving_fixtures import RobotLink  # noqa: F401  puts examples on the path

NAMES = ("shoulder", "elbow")
LIMITS = JointLimits(NAMES, [-2.0, -2.0], [2.0, 2.0], [3.0, 3.0], [30.0, 30.0], [0.5, 0.5])
PICTURE = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)


class Nod:
    """A policy that moves both joints by 0.1, and keeps what it is sent."""

    def __init__(self):
        self.seen = []

    def metadata(self):
        return {"limits": asdict(LIMITS)}

    def session(self):
        return self

    def answer(self, message):
        self.seen.append(message)
        return {"actions": message["joint_targets"][None] + 0.1, "joints": NAMES, "step_seconds": 0.2}

    def close(self):
        pass


@pytest.fixture
def served():
    policy = Nod()
    with SocketServer(ServerConfig(port=0), policy, "nod") as server:
        yield policy, f"ws://127.0.0.1:{server.port}"


def test_a_lerobot_robot_is_driven(served):
    policy, url = served

    class Arm:
        def __init__(self):
            self.joints, self.calls = {"elbow.pos": 0.5, "shoulder.pos": 0.2}, []

        def connect(self):
            self.calls.append("connect")

        def disconnect(self):
            self.calls.append("disconnect")

        def get_observation(self):
            return self.joints | {"front": PICTURE}

        def send_action(self, action):
            self.joints |= action
            return action

    arm = Arm()
    importlib.import_module("lerobot_robot").drive(arm, "front", NAMES, LIMITS, "nod", url, chunks=2)
    assert arm.joints == pytest.approx({"elbow.pos": 0.7, "shoulder.pos": 0.4}, abs=1e-3)
    assert arm.calls == ["connect", "disconnect"]
    np.testing.assert_array_equal(policy.seen[0]["image"], PICTURE)
    assert policy.seen[0]["goal"] == {"text": "nod"}


class Ros:
    """Publishes pictures and joints, and lets commands be carried out at once."""

    def __init__(self):
        self.heard, self.joints, self.over = {}, {"elbow": 0.5, "shoulder": 0.2}, threading.Event()

    def publish(self, message):
        self.joints = dict(zip(NAMES, message.data, strict=True))

    def spin(self, node):
        while not self.over.wait(0.01):
            joints = SimpleNamespace(name=list(self.joints), position=list(self.joints.values()))
            self.heard["joint_states"](joints)
            stamp = SimpleNamespace(sec=int(time.time()), nanosec=0)
            rows = np.pad(PICTURE.reshape(2, 12), ((0, 0), (0, 4)))
            facts = {"height": 2, "width": 4, "step": 16, "encoding": "rgb8", "data": rows.tobytes()}
            self.heard["image"](SimpleNamespace(header=SimpleNamespace(stamp=stamp), **facts))


def test_a_ros_2_node_carries_out_what_is_served(served, monkeypatch):
    policy, url = served
    ros = Ros()

    class Node:
        def __init__(self, name):
            self.given = {}

        def declare_parameter(self, name, value):
            self.given[name] = {"server": url, "text": "nod", "chunks": 2}[name]

        def get_parameter(self, name):
            return SimpleNamespace(value=self.given[name])

        def create_publisher(self, kind, topic, depth):
            return ros

        def create_subscription(self, kind, topic, callback, depth):
            ros.heard[topic] = callback

        def destroy_node(self):
            ros.over.set()

    modules = {name: ModuleType(name) for name in ("rclpy", "rclpy.node", "sensor_msgs.msg", "std_msgs.msg")}
    modules |= {name: ModuleType(name) for name in ("sensor_msgs", "std_msgs")}
    rclpy = modules["rclpy"]
    rclpy.init, rclpy.shutdown, rclpy.spin = (lambda: None), (lambda: None), ros.spin
    modules["rclpy.node"].Node = Node
    modules["sensor_msgs.msg"].Image = modules["sensor_msgs.msg"].JointState = SimpleNamespace
    modules["std_msgs.msg"].Float64MultiArray = SimpleNamespace
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    importlib.import_module("ros2_node").main()
    assert ros.joints == pytest.approx({"elbow": 0.7, "shoulder": 0.4}, abs=1e-3)
    np.testing.assert_array_equal(policy.seen[1]["image"], PICTURE)
    monkeypatch.delitem(sys.modules, "ros2_node")
