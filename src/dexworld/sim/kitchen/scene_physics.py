"""What the simulated robots of the kitchen share: a scene in motion, where its objects are, and its pictures."""

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import mujoco
import numpy as np

from dexworld.sim.kitchen.kitchen_scene import Layout
from dexworld.sim.poses import OPTICAL, focal_length, pinhole, pose
from dexworld.sim.render import make_renderer
from dexworld.sim.renderer import Renderer

MAX_OBJECTS = 5  # rows of recorded objects


class ScenePhysics:
    """A compiled scene and its state `data`; `scratch` is for kinematics that must not touch the state.

    size: height and width of pictures, pixels. backend: of the renderer, made when the first picture is asked for.
    origin: of the frame in which places are given, metres, world. touching: bodies whose contacts with objects count.
    """

    def __init__(
        self, layout: Layout, model: mujoco.MjModel, size: tuple[int, int], backend: str, origin=(0.0, 0.0, 0.0)
    ) -> None:
        self.layout, self.model, self.size, self._backend = layout, model, size, backend
        self.data, self.scratch = mujoco.MjData(model), mujoco.MjData(model)
        self.objects = np.array([model.body(f"object{index}").id for index in range(len(layout.objects))])
        self.origin, self.touching = np.array(origin), np.zeros(0, int)

    def object_positions(self) -> np.ndarray:
        """Centres (n, 3) of the objects."""
        return self.data.xpos[self.objects] - self.origin

    def touched(self) -> np.ndarray:
        """(n,) bool: which objects the robot's hand or gripper touches."""
        if not self.data.ncon:
            return np.zeros(len(self.objects), bool)
        bodies = self.model.geom_bodyid[self.data.contact.geom]  # (contacts, 2)
        return np.isin(self.objects, bodies[:, ::-1][np.isin(bodies, self.touching)])

    def object_row(self) -> dict[str, np.ndarray]:
        """Recorded columns: `object_positions` (MAX_OBJECTS, 3), NaN-padded, and `object_touched` (MAX_OBJECTS,)."""
        count = len(self.objects)
        positions, touched = np.full((MAX_OBJECTS, 3), np.nan), np.zeros(MAX_OBJECTS, bool)
        positions[:count], touched[:count] = self.object_positions(), self.touched()
        return {"object_positions": positions, "object_touched": touched}

    def camera_pose(self, camera: str) -> np.ndarray:
        """Pose (4, 4) of a camera's optical frame (x right, y down, z forward)."""
        number = self.model.camera(camera).id
        return pose(self.data.cam_xmat[number].reshape(3, 3) @ OPTICAL, self.data.cam_xpos[number] - self.origin)

    def camera_intrinsics(self, camera: str) -> np.ndarray:
        """Pinhole matrix (3, 3) of a camera's pictures, pixels."""
        height, width = self.size
        return pinhole(focal_length(height, self.model.cam_fovy[self.model.camera(camera).id]), height, width)

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


def stack_rows(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One array (T, ...) of each entry of T rows; with `object_motion` (T,), metres that objects moved since the frame
    before.
    """
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    positions = stacked["object_positions"]
    moved = np.linalg.norm(np.diff(positions, axis=0, prepend=positions[:1]), axis=-1)
    return stacked | {"object_motion": np.nansum(moved, axis=-1)}
