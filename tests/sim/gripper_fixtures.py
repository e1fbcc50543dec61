"""Recordings of the gripper robot in validation scenes, made once a process."""

import functools

from dexworld.sim.gripper.gripper_recording import GripperConfig, GripperRecording, record_gripper
from dexworld.sim.gripper.gripper_robot import CAMERAS

SEED = 900_103  # a push
CARRYING_SEED = 900_105  # a mug is picked up, carried and put down
SHORT = GripperConfig(min_frames=8, max_frames=8, height=90, width=160, cameras=CAMERAS, masks=True)
TINY = GripperConfig(height=32, width=56)


@functools.cache
def short_recording() -> GripperRecording:
    """Eight frames from all three cameras, with masks."""
    return record_gripper(SEED, SHORT)


@functools.cache
def whole_recording(seed: int = CARRYING_SEED) -> GripperRecording:
    """A whole episode in tiny pictures."""
    return record_gripper(seed, TINY)
