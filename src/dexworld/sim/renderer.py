"""What draws a MuJoCo scene: the seam between the simulators and the OpenGL and ray renderers."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np

from dexworld.errors import UsageError


class RendererUnavailable(UsageError):
    """A rendering backend was asked for by name and can't run here."""


try:
    import mujoco
except (AttributeError, RuntimeError, OSError) as _error:  # importing loads MUJOCO_GL's library
    raise RendererUnavailable(
        f"MUJOCO_GL={os.environ.get('MUJOCO_GL')!r} makes `import mujoco` fail ({_error}). Unset it, or set it to "
        "'egl', 'osmesa' (with its library installed) or 'disable' (the ray renderer, which needs no OpenGL)."
    ) from _error


@dataclass(frozen=True)
class View:
    """What of a scene is drawn.

    groups: the geom groups (0 to 5) that are visible; hidden geoms cast no shadow. shadows: of lights (RGB only).
    """

    groups: tuple[int, ...] = (0, 1, 2)
    shadows: bool = True

    def mask(self) -> np.ndarray:
        """(6,) uint8: 1 for every visible group."""
        return np.isin(np.arange(mujoco.mjNGROUP), self.groups).astype(np.uint8)


DEFAULT_VIEW = View()


class Renderer(ABC):
    """What every backend offers. `camera` is a camera's name or index in the model; images have row 0 at the top."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int, backend: str) -> None:
        self.model, self.height, self.width, self.backend = model, height, width, backend

    @abstractmethod
    def rgb(self, data: mujoco.MjData, camera: str | int, view: View = DEFAULT_VIEW) -> np.ndarray:
        """(H, W, 3) uint8 colour picture of the state in `data` (after `mj_forward`)."""

    @abstractmethod
    def segmentation(self, data: mujoco.MjData, camera: str | int, view: View = DEFAULT_VIEW) -> np.ndarray:
        """(H, W) int32 geom ids; -1 where nothing is hit."""

    @abstractmethod
    def close(self) -> None:
        """Free the graphics context. The renderer can't be used afterwards; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def eye_of(model: mujoco.MjModel, camera: str | int) -> mujoco.MjvCamera:
    """What draws through a camera of the model. Raises KeyError, naming the cameras, if there is none of that name."""
    eye = mujoco.MjvCamera()
    eye.type, eye.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, model.camera(camera).id
    return eye
