"""Things that stand on the counter: boxes, cans, balls, bottles, mugs and bowls of random size and colour."""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from dexworld.track import OBJECT_KINDS as KINDS

DENSITY = 300.0  # kg / m^3: full packaging and light kitchenware
_GEOM = mujoco.mjtGeom


@dataclass(frozen=True)
class ObjectSpec:
    """One object. Lengths in metres.

    radius: half of the footprint's width. half_height: from the body's origin (its centre) down to the counter.
    """

    kind: str
    radius: float
    half_height: float
    rgba: tuple[float, float, float, float]
    aspect: float = 1.0  # boxes only: depth over width


def random_object(rng: np.random.Generator, kinds: tuple[str, ...] = KINDS) -> ObjectSpec:
    """An object of random kind, size and colour."""
    kind = str(rng.choice(kinds))
    radius, half_height, aspect = {
        "box": lambda: (rng.uniform(0.022, 0.036), rng.uniform(0.03, 0.055), rng.uniform(0.7, 1.4)),
        "can": lambda: (rng.uniform(0.026, 0.036), rng.uniform(0.035, 0.06), 1.0),
        "ball": lambda: (rng.uniform(0.03, 0.042), 0.0, 1.0),
        "bottle": lambda: (rng.uniform(0.026, 0.033), rng.uniform(0.06, 0.075), 1.0),
        "mug": lambda: (rng.uniform(0.033, 0.04), rng.uniform(0.038, 0.05), 1.0),
        "bowl": lambda: (rng.uniform(0.045, 0.06), rng.uniform(0.022, 0.03), 1.0),
    }[kind]()
    if kind == "ball":
        half_height = radius
    # Colours with contrast to muted counters: one strong channel at least.
    colour = rng.uniform(0.1, 0.95, 3)
    colour[rng.integers(3)] = rng.uniform(0.6, 1.0)
    colour[rng.integers(3)] *= 0.4
    red, green, blue = map(float, colour)
    return ObjectSpec(kind, float(radius), float(half_height), (red, green, blue, 1.0), float(aspect))


def add_object(world: mujoco.MjsBody, name: str, spec: ObjectSpec, position: np.ndarray, yaw: float) -> None:
    """Add a free body `name` with its centre at `position` (3,), turned by `yaw` about the vertical."""
    body = world.add_body(name=name, pos=position, quat=[math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])
    body.add_freejoint(name=f"{name}_free")
    style = {"rgba": spec.rgba, "friction": [1.0, 0.01, 0.001], "condim": 4, "solref": [0.01, 1], "density": DENSITY}
    for shape, size, place, more in _parts(spec):
        body.add_geom(**{"type": shape, "size": size, "pos": place, "group": 0} | style | more)


def _parts(spec: ObjectSpec) -> list[tuple]:
    """Shape, size, place and further properties of each geom of an object."""
    radius, half = spec.radius, spec.half_height
    box, cylinder, centre = _GEOM.mjGEOM_BOX, _GEOM.mjGEOM_CYLINDER, [0, 0, 0]
    if spec.kind == "box":
        return [(box, [radius, radius * spec.aspect, half], centre, {})]
    if spec.kind == "can":
        lid = {"rgba": [0.8, 0.8, 0.82, 1], "contype": 0, "conaffinity": 0, "density": 0}
        return [(cylinder, [radius, half, 0], centre, {}), (cylinder, [radius * 0.9, 0.001, 0], [0, 0, half], lid)]
    if spec.kind == "ball":  # rolling friction keeps a touched ball on the counter
        return [(_GEOM.mjGEOM_SPHERE, [radius, 0, 0], centre, {"friction": [1.0, 0.02, 0.004], "condim": 6})]
    if spec.kind == "bottle":
        neck = 0.28 * half
        lower = (cylinder, [radius, half - neck, 0], [0, 0, -neck])
        return [(*lower, {}), (cylinder, [0.42 * radius, neck, 0], [0, 0, half - neck], {})]
    # Upright boards around a circle, and a floor: a vessel that is hollow for contacts too.
    count, thickness = (8, 0.004) if spec.kind == "mug" else (10, 0.005)
    inner, parts = radius - thickness, []
    for angle in (2 * math.pi * index / count for index in range(count)):
        turn = {"quat": [math.cos(angle / 2), 0, 0, math.sin(angle / 2)]}
        place = [inner * math.cos(angle), inner * math.sin(angle), 0]
        parts.append((box, [thickness, radius * math.tan(math.pi / count), half], place, turn))
    parts.append((cylinder, [inner, 0.003, 0], [0, 0, -half + 0.003], {}))
    if spec.kind == "mug":
        parts.append((box, [0.011, 0.005, 0.55 * half], [radius + 0.009, 0, 0], {}))
    return parts
