"""Two procedural five-finger hands: capsules on hinge joints, a mocap wrist, the 42 keypoints of `dexworld.hands`.

Frame of a hand: origin at the wrist, z along the stretched fingers, x out of the palm, y (right hand) or -y (left hand)
to the thumb. Lengths are an adult's, in metres. Hands are kinematic: `set_hand` writes the wrist's pose and the joint
angles. The forearm points from a fixed elbow to the wrist. A hands-only picture leaves out `FOREARM_GROUP`.
"""

from dataclasses import dataclass
from functools import partial

import mujoco
import numpy as np

from dexworld.hands import LEFT, NUM_KEYPOINTS, RIGHT
from dexworld.sim.poses import quaternion, rotation_of, turn_about_x

HAND_GROUP = 2
FOREARM_GROUP = 3
SIDES = ("left", "right")
DIGITS = ("thumb", "index", "middle", "ring", "little")

# Base (x, y, z), lengths of the three phalanges, radius; the right hand's, index finger to little finger.
_FINGERS = {
    "index": ((0.0, 0.026, 0.090), (0.043, 0.026, 0.022), 0.0085),
    "middle": ((0.0, 0.004, 0.094), (0.047, 0.030, 0.023), 0.0087),
    "ring": ((0.0, -0.017, 0.089), (0.043, 0.028, 0.023), 0.0083),
    "little": ((0.0, -0.037, 0.080), (0.034, 0.021, 0.021), 0.0075),
}
_THUMB = ((0.010, 0.026, 0.024), (0.046, 0.034, 0.027), 0.0108)
_THUMB_DIRECTION = np.array([0.95, 0.25, 0.10])  # fully opposed
_THUMB_BENDS_TO = np.array([0.0, -0.25, 1.0])
_PALM = (((0.003, -0.004, 0.052), (0.014, 0.040, 0.045)), ((0, 0, 0.0), (0.018, 0.024, 0.024)))  # centres, half axes
_SAMPLES = (0.0, 0.33, 0.67, 1.0)  # shares of a capsule's length at which contact spheres lie
_GEOM, _HINGE = mujoco.mjtGeom, mujoco.mjtJoint.mjJNT_HINGE


def _shape(opposition: float, thumb: tuple, finger: tuple, spread: tuple = (0, 0, 0, 0)) -> np.ndarray:
    """Angles (16,) from the thumb's, one finger's, and what each finger's first joint has in addition."""
    fingers = [(finger[0] + more, finger[1], finger[2]) for more in spread]
    return np.array([opposition, *thumb, *np.ravel(fingers)], dtype=float)


# Joint angles (16,) in radians: thumb opposition (0 in front of the palm, 1.1 beside it), three flexions of each digit.
FLAT = _shape(1.15, (0.75, 0.15, 0.1), (0.05, 0.08, 0.05))
RELAXED = _shape(0.7, (0.5, 0.3, 0.2), (0.3, 0.4, 0.25), (0, 0.04, 0.08, 0.12))
FIST = _shape(0.45, (1.0, 0.8, 0.7), (1.25, 1.5, 0.9))
POINT = np.concatenate([FIST[:4], [0.1, 0.1, 0.05], FIST[7:]])
HOOK = _shape(1.0, (0.6, 0.3, 0.2), (0.5, 0.95, 0.4))
RAKE = _shape(0.9, (0.6, 0.3, 0.2), (1.0, 0.35, 0.2))
GRIP_OPEN = _shape(0.1, (-0.3, 0.1, 0.05), (0.05, 0.15, 0.1))
GRIP_CLOSED = _shape(0.0, (0.9, 0.9, 0.7), (1.2, 1.45, 0.9))
ABSENT = (np.array([0.0, 0.0, -5.0]), np.eye(3), RELAXED)  # the pose of a hand that no camera sees: below the floor


@dataclass(frozen=True)
class HandLooks:
    """Colours (r, g, b) in [0, 1] and the size of both hands relative to the built-in measures."""

    skin: tuple[float, ...]
    sleeve: tuple[float, ...]
    size: float = 1.0
    sleeve_start: float = 0.1  # metres behind the wrist


def random_looks(rng: np.random.Generator) -> HandLooks:
    """Skin from light to dark, a sleeve of any colour."""
    light, dark = np.array([0.95, 0.78, 0.68]), np.array([0.36, 0.23, 0.16])
    skin = np.clip(light + (dark - light) * rng.uniform(0, 1) + rng.normal(0, 0.02, 3), 0, 1)
    sleeve = rng.uniform(0.05, 0.9, 3)
    size, cuff = float(rng.uniform(0.94, 1.08)), float(rng.uniform(0.05, 0.2))
    return HandLooks(tuple(map(float, skin)), tuple(map(float, sleeve)), size, cuff)


def add_hand(world: mujoco.MjsBody, side: str, looks: HandLooks) -> None:
    """Add a hand with its forearm. Bodies are named `<side>_wrist` and `<side>_<digit>_<0..3>`."""
    mirror, size = (1.0 if side == "right" else -1.0), looks.size
    root = world.add_body(name=f"{side}_wrist", mocap=True, pos=ABSENT[0])
    skin, sleeve = [*looks.skin, 1.0], [*looks.sleeve, 1.0]
    capsule = partial(_add_capsule, size=size, rgba=skin, group=HAND_GROUP)
    for name, ((x, y, z), _, _) in _FINGERS.items():
        capsule(root, (0, mirror * y * 0.6, 0.012), (x, mirror * y, z - 0.004), 0.0115 if name != "little" else 0.0105)
    capsule(root, (0.002, mirror * 0.012, 0.008), (_THUMB[0][0], mirror * _THUMB[0][1], _THUMB[0][2]), 0.014)
    for (x, y, z), radii in _PALM:
        style = {"rgba": skin, "group": HAND_GROUP, "contype": 0, "conaffinity": 0}
        place, half = [x * size, mirror * y * size, z * size], [radius * size for radius in radii]
        root.add_geom(type=_GEOM.mjGEOM_ELLIPSOID, pos=place, size=half, **style)
    cuff = -looks.sleeve_start
    forearm = world.add_body(name=f"{side}_forearm", mocap=True, pos=ABSENT[0])
    capsule(forearm, (0, 0, 0), (0, 0, cuff), 0.0225, group=FOREARM_GROUP)
    capsule(forearm, (0, 0, cuff), (0, 0, -0.45), 0.036, rgba=sleeve, group=FOREARM_GROUP)
    _add_digit(root, f"{side}_thumb", _THUMB, _thumb_frame(mirror), mirror, size, capsule)
    for name, measures in _FINGERS.items():
        angle = -mirror * (0.5 * np.arctan2(measures[0][1], measures[0][2]))  # fingers fan out a little
        _add_digit(root, f"{side}_{name}", measures, turn_about_x(angle), mirror, size, capsule)


def _add_capsule(body: mujoco.MjsBody, start, end, radius: float, size: float, **style) -> None:
    ends = [*np.multiply(start, size), *np.multiply(end, size)]
    shape = {"type": _GEOM.mjGEOM_CAPSULE, "fromto": ends, "size": [radius * size, 0, 0]}
    body.add_geom(**shape, contype=0, conaffinity=0, **style)


def _thumb_frame(mirror: float) -> np.ndarray:
    """Axes of the opposed thumb as columns: z along it, x where its tip bends to."""
    along = _THUMB_DIRECTION / np.linalg.norm(_THUMB_DIRECTION)
    bends = _THUMB_BENDS_TO - along * (along @ _THUMB_BENDS_TO)
    bends /= np.linalg.norm(bends)
    reflect = np.array([1.0, mirror, 1.0])
    along, bends = along * reflect, bends * reflect
    return np.stack([bends, np.cross(along, bends), along], axis=1)


def _add_digit(root, name: str, measures, frame: np.ndarray, mirror: float, size: float, capsule) -> None:
    base, lengths, radius = measures
    position = [base[0] * size, mirror * base[1] * size, base[2] * size]
    body = root.add_body(name=f"{name}_0", pos=position, quat=quaternion(frame))
    if name.endswith("thumb"):  # opposition turns about the hand's long axis
        axis = frame.T @ np.array([0.0, 0.0, mirror])
        body.add_joint(name=f"{name}_opposition", type=_HINGE, axis=axis)
    for index, length in enumerate(lengths):
        body.add_joint(name=f"{name}_{index}", type=_HINGE, axis=[0, 1, 0])
        capsule(body, (0, 0, 0), (0, 0, length), radius * (1 - 0.08 * index))
        body = body.add_body(name=f"{name}_{index + 1}", pos=[0, 0, length * size])


class HandModel:
    """Where the hands are in a compiled model: writes poses, reads keypoints and contact spheres.

    Contact spheres (M per hand) are samples along the capsules; `sphere_digit` (M,) is the index in `DIGITS` of each,
    -1 for the palm; `sphere_segment` (M,) is 0 to 2 along a digit. What is read is true after `mj_kinematics`.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        joints = ("thumb_opposition", *(f"{digit}_{index}" for digit in DIGITS for index in range(3)))
        bodies = ("wrist", *(f"{digit}_{index}" for digit in DIGITS for index in range(4)))
        self._mocap, self._forearm, self._joints, self.bodies, self.geoms, self._spheres = {}, {}, {}, {}, {}, {}
        for side in SIDES:
            self._mocap[side] = int(model.body_mocapid[model.body(f"{side}_wrist").id])
            self._forearm[side] = int(model.body_mocapid[model.body(f"{side}_forearm").id])
            self._joints[side] = np.array([int(model.joint(f"{side}_{name}").qposadr[0]) for name in joints])
            self.bodies[side] = np.array([model.body(f"{side}_{name}").id for name in bodies])
            ours = (model.geom_group == HAND_GROUP) & np.isin(model.geom_bodyid, self.bodies[side])
            self.geoms[side] = np.flatnonzero(ours)
            self._spheres[side] = self._sample(side)
        self.sphere_radius, self.sphere_digit, self.sphere_segment = self._spheres["right"][2:]

    def _sample(self, side: str) -> tuple[np.ndarray, ...]:
        """Body (M,), place in that body (M, 3), radius (M,), digit (M,) and segment (M,) of every contact sphere."""
        model, rows = self.model, []
        order = list(self.bodies[side])
        for geom in self.geoms[side]:
            if model.geom_type[geom] != _GEOM.mjGEOM_CAPSULE:
                continue
            row = order.index(int(model.geom_bodyid[geom]))
            digit, segment = (-1, 0) if row == 0 else divmod(row - 1, 4)
            along = rotation_of(model.geom_quat[geom])[:, 2] * model.geom_size[geom][1]
            places = [model.geom_pos[geom] + along * (2 * share - 1) for share in _SAMPLES]
            rows += [(order[row], place, model.geom_size[geom][0], digit, segment) for place in places]
        return tuple(np.array(column) for column in zip(*rows, strict=True))

    def set_hand(self, data: mujoco.MjData, side: str, position, rotation, shape) -> None:
        """Put a hand's wrist at `position` (3,) m, `rotation` (3, 3) world_from_hand, joints at `shape` (16,) rad."""
        data.mocap_pos[self._mocap[side]] = data.mocap_pos[self._forearm[side]] = position
        data.mocap_quat[self._mocap[side]] = quaternion(rotation)
        data.qpos[self._joints[side]] = shape
        self.point_forearm(data, side, np.array([0.10, -0.24 if side == "right" else 0.24, 1.02]))

    def point_forearm(self, data: mujoco.MjData, side: str, elbow: np.ndarray) -> None:
        """Turn a forearm, after `set_hand`, so that it comes from `elbow` (3,) m instead of the fixed place."""
        arm = self._forearm[side]
        along = data.mocap_pos[arm] - elbow
        mujoco.mju_quatZ2Vec(data.mocap_quat[arm], along / np.linalg.norm(along))

    def metacarpals(self, data: mujoco.MjData) -> np.ndarray:
        """World places (8, 3) m where palm bones begin: index to little finger, left then right."""
        size = float(self.model.body_pos[self.bodies["right"][5], 2] / _FINGERS["index"][0][2])
        places = np.array([(0.0, 0.6 * base[1], 0.012) for base, _, _ in _FINGERS.values()]) * size
        rows = []
        for side in SIDES:
            wrist = self.bodies[side][0]
            mirrored = places * [1.0, 1.0 if side == "right" else -1.0, 1.0]
            rows.append(data.xpos[wrist] + mirrored @ data.xmat[wrist].reshape(3, 3).T)
        return np.concatenate(rows)

    def keypoints(self, data: mujoco.MjData, present: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """World keypoints (42, 3) float32 m, zeros for an absent hand, and valid (42,) bool."""
        points, valid = np.zeros((NUM_KEYPOINTS, 3), np.float32), np.zeros(NUM_KEYPOINTS, bool)
        for side, rows in zip(SIDES, (LEFT, RIGHT), strict=True):
            if side in present:
                points[rows], valid[rows] = data.xpos[self.bodies[side]], True
        return points, valid

    def spheres(self, data: mujoco.MjData, side: str) -> np.ndarray:
        """World centres (M, 3) of the contact spheres of a hand; radii are `sphere_radius`."""
        body, place = self._spheres[side][:2]
        return data.xpos[body] + np.einsum("mij,mj->mi", data.xmat[body].reshape(-1, 3, 3), place)

    def spheres_at(self, rotation: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Contact spheres (M, 3) of the right hand relative to its wrist, for an orientation and a shape."""
        data = mujoco.MjData(self.model)
        self.set_hand(data, "right", np.zeros(3), rotation, shape)
        mujoco.mj_kinematics(self.model, data)
        return self.spheres(data, "right")
