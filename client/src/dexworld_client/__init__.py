"""The robot's side of `dexworld serve`: ask for action chunks, follow them, and stay within limits."""

from dexworld_client.client import Chunk, Client, ServerError
from dexworld_client.control_loop import ControlLoop, Follower
from dexworld_client.joint_filter import JointFilter, JointLimits
from dexworld_client.packing import MessageError, packed, unpacked
from dexworld_client.recorder import Recorder

__all__ = [
    "Chunk", "Client", "ControlLoop", "Follower", "JointFilter", "JointLimits", "MessageError", "Recorder",
    "ServerError", "packed", "unpacked",
]  # fmt: skip
