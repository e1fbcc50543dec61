"""What a policy sees at the start of a step, from a simulator or a real robot."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Observation:
    """One observation, checked once at the boundary. Raises ValueError naming the field.

    image: (H, W, 3) uint8 RGB.
    joint_positions: (J,) in the robot's order and units, radians for hinges.
    world_from_camera: (4, 4) optical camera pose; intrinsics: (3, 3) for this image size.
    world_from_base: (4, 4) pose of the robot's base.
    joint_targets: (J,) last commanded; a grasp holds because the command lies inside the object.
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
        if self.joint_positions.ndim != 1:
            raise ValueError(f"observation joint_positions has shape {self.joint_positions.shape}, expected (J,)")
        joints = self.joint_positions.shape
        shapes = {"joint_positions": joints, "joint_targets": joints, "intrinsics": (3, 3)}
        shapes |= {"world_from_camera": (4, 4), "world_from_base": (4, 4)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise ValueError(f"observation {name} has shape {value.shape}, expected {shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"observation {name} holds NaN or Inf")

    def cropped(self, size: tuple[int, int]) -> "Observation":
        """What the middle (height, width) pixels of the image show. Raises ValueError as `crop_margins` does."""
        top, left = crop_margins(self.image.shape[:2], size)
        intrinsics = self.intrinsics - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]])
        return replace(self, image=cropped_image(self.image, size), intrinsics=intrinsics)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Observation":
        """From a Gymnasium observation dict; keys beyond the fields are ignored."""
        missing = [name for name in cls.__dataclass_fields__ if name not in values]
        if missing:
            raise ValueError(f"observation lacks {', '.join(missing)}")
        return cls(**{name: np.asarray(values[name]) for name in cls.__dataclass_fields__})


def crop_margins(source: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns cut off at the top and left of a (height, width) `source` to keep its middle `size`.

    One side must be the same, as it is after the scaling that training data gets. Raises ValueError otherwise.
    """
    top, left = (source[0] - size[0]) // 2, (source[1] - size[1]) // 2
    if min(source[0] - size[0], source[1] - size[1]) != 0:
        taken = f"image is {source[0]}x{source[1]}, the model takes {size[0]}x{size[1]}"
        raise ValueError(f"{taken}; scale it so that one side is the same and the other not smaller")
    return top, left


def cropped_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle (height, width) pixels of an image (H, W, 3). Raises ValueError as `crop_margins` does."""
    top, left = crop_margins(image.shape[:2], size)
    return image[top : top + size[0], left : left + size[1]]
