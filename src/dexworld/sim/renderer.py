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

    groups: the geom groups (0 to 5) that are visible; hidden geoms cast no shadow either.
    shadows: whether lights cast shadows (RGB only).
    """

    groups: tuple[int, ...] = (0, 1, 2)
    shadows: bool = True

    def __post_init__(self) -> None:
        if any(group not in range(mujoco.mjNGROUP) for group in self.groups):
            raise ValueError(f"geom groups are 0 to {mujoco.mjNGROUP - 1}, got {self.groups}")

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
    def depth(self, data: mujoco.MjData, camera: str | int, view: View = DEFAULT_VIEW) -> np.ndarray:
        """(H, W) float32 metres along the camera's optical axis; `inf` where nothing is hit."""

    @abstractmethod
    def segmentation(self, data: mujoco.MjData, camera: str | int, view: View = DEFAULT_VIEW) -> np.ndarray:
        """(H, W) int32 geom ids; -1 where nothing is hit."""

    @abstractmethod
    def close(self) -> None:
        """Free the graphics context. The renderer can't be used afterwards; closing twice is harmless."""

    @property
    def clip_planes(self) -> tuple[float, float]:
        """Distances (metres) of the near and the far plane."""
        return self.model.vis.map.znear * self.model.stat.extent, self.model.vis.map.zfar * self.model.stat.extent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def camera_index(model: mujoco.MjModel, camera: str | int) -> int:
    """Index of a camera given by name or index. Raises ValueError, naming the model's cameras, if there is none."""
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(camera, str) and camera in names:
        return names.index(camera)
    if isinstance(camera, (int, np.integer)) and 0 <= camera < model.ncam:
        return int(camera)
    raise ValueError(f"no camera {camera!r} in the model; it has {names or 'none'}")


def eye_of(model: mujoco.MjModel, camera: str | int) -> mujoco.MjvCamera:
    """What draws through a camera of the model."""
    eye = mujoco.MjvCamera()
    eye.type, eye.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, camera_index(model, camera)
    return eye
