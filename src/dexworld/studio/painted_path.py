"""A hand's path as a visitor paints it: way-points of the wrist, and the shape in which the hand is carried along."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexworld.evaluation.atomic import viewing_axes
from dexworld.sim.hands import human_hands as hands
from dexworld.sim.hands.hand_physics import Key
from dexworld.sim.hands.hand_puppet import HandPuppet
from dexworld.sim.hands.hand_skills import CLEARANCE, HandScript
from dexworld.sim.poses import orient
from dexworld.studio.hand_control import Vector
from dexworld.track import FAR

SHAPES = {
    **{"relaxed": hands.RELAXED, "flat": hands.FLAT, "fist": hands.FIST, "pointing": hands.POINT},
    **{"hook": hands.HOOK, "rake": hands.RAKE, "open grip": hands.GRIP_OPEN, "closed grip": hands.GRIP_CLOSED},
}
GRASPS = "closed grip"  # the shape whose fingers stop at what they touch
# Where a right hand's fingers point and its palm faces: forward, left, up, as one looking through the camera says.
PALMS = {
    "down": ((0.95, 0.1, -0.35), (-0.35, 0.2, -0.9)),
    "slanted": ((0.97, 0.0, -0.22), (0.0, 0.75, -0.65)),
    "inward": ((0.95, 0.1, -0.3), (0.0, 1.0, 0.0)),
}
LONGEST = 12  # way-points


@dataclass(frozen=True)
class WayPoint:
    """place: of the wrist, metres in the world. shape, palm: of `SHAPES` and `PALMS`."""

    place: Vector
    shape: str = "relaxed"
    palm: str = "down"

    def __post_init__(self) -> None:
        if len(self.place) != 3 or not np.isfinite(self.place).all() or np.abs(self.place).max() > FAR:
            raise ValueError(f"a way-point has three numbers in metres, not {self.place}")
        if self.shape not in SHAPES or self.palm not in PALMS:
            raise ValueError(
                f"a hand is {', '.join(SHAPES)}, its palm {', '.join(PALMS)}; not {self.shape}, {self.palm}"
            )


@dataclass(frozen=True)
class PaintedPath:
    """Way-points, each leg as long in time as the others; none: what the hands of the recording do."""

    points: tuple[WayPoint, ...] = ()
    hand: Literal["left", "right"] = "right"

    def __post_init__(self) -> None:
        if len(self.points) > LONGEST:
            raise ValueError(f"a path has at most {LONGEST} way-points; take one away first")


def camera_axes(world_from_camera: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Forward, left and up as columns (3, 3), in the world, as one looking through a camera (4, 4) would name them."""
    axes = viewing_axes(world_from_camera[:3, :3], up)
    return np.stack([axes["forward"], axes["left"], axes["up"]], axis=1)


def script_of(path: PaintedPath, axes: np.ndarray, puppet: HandPuppet, floor: float | None = None) -> HandScript:
    """The path as a script. axes: as of `camera_axes`. floor: height in metres that the hand stays above, in z."""
    reflect = np.diag([1.0, 1.0 if path.hand == "right" else -1.0, 1.0])
    keys = []
    for time, point in zip(np.linspace(0.0, 1.0, len(path.points)), path.points, strict=True):
        own, shape, place = orient(*PALMS[point.palm]), SHAPES[point.shape], np.array(point.place)
        if floor is not None:
            place[2] = max(place[2], floor + CLEARANCE - puppet.lowest(axes @ own, shape))
        keys.append(Key(float(time), place, axes @ reflect @ own @ reflect, shape, close=point.shape == GRASPS))
    return HandScript(path.hand, "painted", tuple(keys), f"my {path.hand} hand moves as it was painted")
