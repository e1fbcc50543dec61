"""The physics of one scene: joint targets in, states, keypoints, contacts and pictures out.

`ScenePhysics` is what the simulated robots share. `Simulation` is the arm with the Allegro hand.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import numpy as np

from dexworld.hands import NUM_KEYPOINTS, RIGHT
from dexworld.robots.franka_allegro import JOINTS, FrankaAllegro
from dexworld.sim.kitchen.allegro_body import BASE_BODY, HAND_PREFIX, JOINT_NAMES, PALM_BODY, REST_POSE, keypoint_bodies
from dexworld.sim.kitchen.kitchen_scene import EGO_CAMERA, IMAGE_SIZE, Layout, build_scene
from dexworld.sim.poses import pose
from dexworld.sim.scene_view import SceneView

CONTROL_STEPS = 5  # physics steps between two updates of the interpolated targets (100 Hz)
TICK_STEPS = 50  # physics steps between two ticks (10 Hz): success is judged at every tick, a frame is every second one
TICKS_PER_FRAME = 2
FRAMES_PER_SECOND = 5.0
MAX_OBJECTS = 5  # rows of recorded objects

ARM, FINGERS = FrankaAllegro.arm, slice(FrankaAllegro.arm.stop, len(JOINTS))

Tick = Callable[["Simulation"], None]


@dataclass(frozen=True)
class SimState:
    """Everything that physics needs to go on from here, the commanded joint targets included, for one scene."""

    seed: int
    physics: np.ndarray

    def __post_init__(self) -> None:
        if not np.isfinite(self.physics).all():
            raise ValueError(f"the state of scene {self.seed} holds NaN or Inf")


class ScenePhysics(SceneView):
    """A compiled scene and its state `data`; `scratch` is for kinematics that must not touch the state.

    size: height and width of pictures, pixels. backend: of the renderer, made when the first picture is asked for.
    origin: of the frame in which places are given, metres, world. touching: bodies whose contacts with objects count.
    """

    def __init__(
        self, layout: Layout, model: mujoco.MjModel, size: tuple[int, int], backend: str, origin=(0.0, 0.0, 0.0)
    ) -> None:
        super().__init__(model, mujoco.MjData(model), size, backend, origin)
        self.layout, self.scratch = layout, mujoco.MjData(model)
        self.objects = np.array([model.body(f"object{index}").id for index in range(len(layout.objects))])
        self.touching = np.zeros(0, int)

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


def stack_rows(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One array (T, ...) of each entry of T rows."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def with_motion(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns with `object_positions`, and `object_motion` (T,): metres that objects moved since the frame before."""
    positions = columns["object_positions"]
    moved = np.linalg.norm(np.diff(positions, axis=0, prepend=positions[:1]), axis=-1)
    return columns | {"object_motion": np.nansum(moved, axis=-1)}


class Simulation(ScenePhysics):
    """A scene in motion. Physics runs at 500 Hz; the low-level controller interpolates joint targets at 100 Hz."""

    def __init__(self, layout: Layout, backend: str = "auto", tips: str = "true"):
        super().__init__(layout, build_scene(layout), IMAGE_SIZE, backend)
        joints = [self.model.joint(name).id for name in JOINT_NAMES]
        self.joint_qpos = self.model.jnt_qposadr[joints]
        self.joint_dofs = self.model.jnt_dofadr[joints]
        self.joint_limits = self.model.jnt_range[joints].copy()
        self.palm = self.model.body(PALM_BODY).id
        self._keypoint_ids = np.array([self.model.body(name).id for name in keypoint_bodies(tips)])
        names = [self.model.body(body).name for body in range(self.model.nbody)]
        self.touching = np.flatnonzero([name.startswith(HAND_PREFIX) for name in names])
        self.reset()

    def reset(self, joint_positions: np.ndarray = REST_POSE) -> None:
        """Objects to their places of the layout, the robot to `joint_positions` (23,) radians at rest."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.joint_qpos] = joint_positions
        self.data.ctrl[: len(JOINTS)] = joint_positions
        mujoco.mj_forward(self.model, self.data)
        self._steps = 0

    @property
    def joint_positions(self) -> np.ndarray:
        """Measured joint angles (23,) radians."""
        return self.data.qpos[self.joint_qpos].copy()

    @property
    def joint_targets(self) -> np.ndarray:
        """Commanded joint angles (23,) radians."""
        return self.data.ctrl[: len(JOINTS)].copy()

    def move(self, targets: np.ndarray, seconds: float, on_tick: Tick | None = None, settle: float = 0.0) -> None:
        """Interpolate smoothly from the present targets to `targets` (23,) over `seconds`, then hold for `settle`
        seconds.

        `on_tick` is called at 10 Hz of simulated time.
        """
        start, change = self.joint_targets, np.asarray(targets) - self.joint_targets
        updates = max(1, round(seconds / (CONTROL_STEPS * self.model.opt.timestep)))
        for update in range(1, updates + 1):
            share = update / updates
            self.data.ctrl[: len(JOINTS)] = start + change * (share * share * (3 - 2 * share))
            self._advance(on_tick)
        for _ in range(round(settle / (CONTROL_STEPS * self.model.opt.timestep))):
            self._advance(on_tick)

    def _advance(self, on_tick: Tick | None) -> None:
        mujoco.mj_step(self.model, self.data, nstep=CONTROL_STEPS)
        self._steps += CONTROL_STEPS
        if on_tick is not None and self._steps % TICK_STEPS == 0:
            on_tick(self)

    def get_state(self) -> SimState:
        """The state to come back to with `set_state`."""
        return SimState(self.layout.seed, self.physics())

    def set_state(self, state: SimState) -> None:
        """Go back to a state of this scene. Raises ValueError for the state of another scene."""
        expected = self.state_size
        if state.seed != self.layout.seed or len(state.physics) != expected:
            raise ValueError(
                f"the state has {len(state.physics)} numbers of scene {state.seed}; "
                f"this is scene {self.layout.seed} with {expected}: build the simulation from the state's own seed"
            )
        self.restore(state.physics)
        self._steps = 0

    def keypoints_world(self) -> tuple[np.ndarray, np.ndarray]:
        """The 42 keypoints (42, 3) in metres and which of them exist (42,): this robot has a right hand only."""
        points, valid = np.zeros((NUM_KEYPOINTS, 3)), np.zeros(NUM_KEYPOINTS, bool)
        points[RIGHT], valid[RIGHT] = self.data.xpos[self._keypoint_ids], True
        return points, valid

    def object_position(self, index: int = 0) -> np.ndarray:
        """Centre of an object, (3,) metres, world."""
        return self.data.xpos[self.objects[index]].copy()

    def object_speed(self, index: int = 0) -> float:
        """Speed of an object's centre, metres a second."""
        dof = self.model.body(self.objects[index]).dofadr[0]
        return float(np.linalg.norm(self.data.qvel[dof : dof + 3]))

    def place_object(self, position: np.ndarray, quaternion: np.ndarray, index: int = 0) -> None:
        """Put an object's centre at `position` (3,), turned by `quaternion` (w, x, y, z), and stop it."""
        joint = self.model.body(self.objects[index]).jntadr[0]
        qpos, dof = self.model.jnt_qposadr[joint], self.model.jnt_dofadr[joint]
        self.data.qpos[qpos : qpos + 3] = position
        self.data.qpos[qpos + 3 : qpos + 7] = quaternion
        self.data.qvel[dof : dof + 6] = 0
        mujoco.mj_forward(self.model, self.data)

    @contextmanager
    def without_robot(self) -> Iterator[None]:
        """Pictures show the scene as it is, but without the robot, which is below the floor meanwhile."""
        base = self.model.body(BASE_BODY).id
        place = self.model.body_pos[base].copy()
        try:
            self.model.body_pos[base] -= [0.0, 0.0, 10.0]
            mujoco.mj_forward(self.model, self.data)
            yield
        finally:
            self.model.body_pos[base] = place
            mujoco.mj_forward(self.model, self.data)

    def palm_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and rotation (3, 3) of the palm in the world."""
        return self.data.xpos[self.palm].copy(), self.data.xmat[self.palm].reshape(3, 3).copy()

    def hand_touches(self, index: int = 0) -> bool:
        """Whether palm or fingers are in contact with an object."""
        return bool(self.touched()[index])

    @property
    def world_from_camera(self) -> np.ndarray:
        """Pose (4, 4) of the egocentric camera's optical frame (x right, y down, z forward)."""
        return self.camera_pose(EGO_CAMERA)

    @property
    def world_from_base(self) -> np.ndarray:
        """Pose (4, 4) of the arm's mounting frame."""
        base = self.model.body(BASE_BODY).id
        return pose(self.data.xmat[base].reshape(3, 3), self.data.xpos[base])

    @property
    def intrinsics(self) -> np.ndarray:
        """Pinhole matrix (3, 3) of the 224 x 392 picture."""
        return self.camera_intrinsics(EGO_CAMERA)

    def image(self) -> np.ndarray:
        """The egocentric picture (224, 392, 3) uint8."""
        return self.renderer.rgb(self.data, EGO_CAMERA)

    def observation(self) -> dict[str, np.ndarray]:
        """The fields of `Observation`, and the true keypoints for recording."""
        keypoints, valid = self.keypoints_world()
        return {
            "image": self.image(),
            "joint_positions": self.joint_positions,
            "joint_targets": self.joint_targets,
            "keypoints_world": keypoints,
            "keypoints_valid": valid,
            "world_from_camera": self.world_from_camera,
            "world_from_base": self.world_from_base,
            "intrinsics": self.intrinsics,
        }
