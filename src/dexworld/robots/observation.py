"""What a policy sees at the start of a step, from a simulator or a real robot."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dexworld.hands import ROBOT_JOINTS


@dataclass(frozen=True)
class Observation:
    """One observation, checked once at the boundary. Raises ValueError naming the field.

    image: (H, W, 3) uint8 RGB.
    joint_positions: (23,) radians, arm then fingers.
    world_from_camera: (4, 4) optical camera pose; intrinsics: (3, 3) for this image size.
    world_from_base: (4, 4) pose of the robot's base.
    joint_targets: (23,) radians last commanded; a grasp holds because the command lies inside the object, so a planner
        that starts from measured fingers alone lets go.
    """

    image: np.ndarray
    joint_positions: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    world_from_base: np.ndarray
    joint_targets: np.ndarray

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[-1] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"observation image must be (H, W, 3) uint8, not {self.image.shape} {self.image.dtype}")
        shapes = {
            "joint_positions": (ROBOT_JOINTS,),
            "joint_targets": (ROBOT_JOINTS,),
            "world_from_camera": (4, 4),
            "world_from_base": (4, 4),
            "intrinsics": (3, 3),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if tuple(value.shape) != shape:
                raise ValueError(f"observation {name} has shape {tuple(value.shape)}, expected {shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"observation {name} holds NaN or Inf")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Observation":
        """From a Gymnasium observation dict; keys beyond the fields are ignored."""
        missing = [name for name in cls.__dataclass_fields__ if name not in values]
        if missing:
            raise ValueError(f"observation lacks {', '.join(missing)}")
        return cls(**{name: np.asarray(values[name]) for name in cls.__dataclass_fields__})
