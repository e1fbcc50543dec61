"""What every simulated scene shares: a compiled model, its state, and pictures by named cameras."""

from functools import cached_property
from typing import Self

import mujoco
import numpy as np

from dexworld.sim.poses import OPTICAL, focal_length, pinhole, pose
from dexworld.sim.render import make_renderer
from dexworld.sim.renderer import Renderer

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # positions, velocities, controls, warm start: enough to go on bit by bit


class SceneView:
    """A model with a state, seen in pictures of `size` (height, width).

    origin: (3,) metres, where the poses that are given out have theirs, in the simulator's world.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, size: tuple[int, int], backend: str, origin=(0.0, 0.0, 0.0)
    ) -> None:
        self.model, self.data, self.size, self._backend = model, data, size, backend
        self.origin = np.array(origin)

    def camera_pose(self, camera: str) -> np.ndarray:
        """Pose (4, 4) of a camera's optical frame (x right, y down, z forward)."""
        number = self.model.camera(camera).id
        return pose(self.data.cam_xmat[number].reshape(3, 3) @ OPTICAL, self.data.cam_xpos[number] - self.origin)

    def camera_intrinsics(self, camera: str) -> np.ndarray:
        """Pinhole matrix (3, 3) of a camera's pictures, pixels."""
        height, width = self.size
        return pinhole(focal_length(height, self.model.cam_fovy[self.model.camera(camera).id]), height, width)

    @property
    def state_size(self) -> int:
        """How many numbers `physics` has."""
        return mujoco.mj_stateSize(self.model, _STATE)

    def physics(self) -> np.ndarray:
        """The numbers of the present state, for `restore`."""
        numbers = np.empty(self.state_size)
        mujoco.mj_getState(self.model, self.data, numbers, _STATE)
        return numbers

    def restore(self, physics: np.ndarray) -> None:
        """Go back to a state of this scene."""
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        mujoco.mj_forward(self.model, self.data)

    @cached_property
    def renderer(self) -> Renderer:
        """The renderer of this scene."""
        return make_renderer(self.model, *self.size, backend=self._backend)

    def close(self) -> None:
        """Free the renderer."""
        if "renderer" in self.__dict__:
            self.__dict__.pop("renderer").close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()
