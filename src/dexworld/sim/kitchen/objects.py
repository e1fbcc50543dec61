"""Things that stand on the counter: boxes, cans, balls, bottles, mugs and bowls of random size and colour."""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

KINDS = ("box", "can", "ball", "bottle", "mug", "bowl")
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"object kind {self.kind!r} is unknown; choose from {', '.join(KINDS)}")


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
    common = {
        "rgba": spec.rgba,
        "friction": [1.0, 0.01, 0.001],
        "condim": 4,
        "solref": [0.01, 1],
        "density": DENSITY,
        "group": 0,
    }
    {"box": _box, "can": _can, "ball": _ball, "bottle": _bottle, "mug": _mug, "bowl": _bowl}[spec.kind](
        body, spec, common
    )


def _box(body, spec, common) -> None:
    body.add_geom(type=_GEOM.mjGEOM_BOX, size=[spec.radius, spec.radius * spec.aspect, spec.half_height], **common)


def _can(body, spec, common) -> None:
    body.add_geom(type=_GEOM.mjGEOM_CYLINDER, size=[spec.radius, spec.half_height, 0], **common)
    lid = {**common, "rgba": [0.8, 0.8, 0.82, 1], "contype": 0, "conaffinity": 0, "density": 0}
    body.add_geom(type=_GEOM.mjGEOM_CYLINDER, size=[spec.radius * 0.9, 0.001, 0], pos=[0, 0, spec.half_height], **lid)


def _ball(body, spec, common) -> None:
    # Rolling friction keeps a touched ball on the counter.
    ball = {**common, "friction": [1.0, 0.02, 0.004], "condim": 6}
    body.add_geom(type=_GEOM.mjGEOM_SPHERE, size=[spec.radius, 0, 0], **ball)


def _bottle(body, spec, common) -> None:
    neck = 0.28 * spec.half_height
    lower = spec.half_height - neck
    body.add_geom(type=_GEOM.mjGEOM_CYLINDER, size=[spec.radius, lower, 0], pos=[0, 0, -neck], **common)
    body.add_geom(
        type=_GEOM.mjGEOM_CYLINDER, size=[0.42 * spec.radius, neck, 0], pos=[0, 0, spec.half_height - neck], **common
    )


def _wall_ring(body, spec, common, count: int, thickness: float) -> None:
    """Upright boards around a circle, and a floor: a vessel that is hollow for contacts too."""
    for index in range(count):
        angle = 2 * math.pi * index / count
        radius = spec.radius - thickness
        body.add_geom(
            type=_GEOM.mjGEOM_BOX,
            size=[thickness, spec.radius * math.tan(math.pi / count), spec.half_height],
            pos=[radius * math.cos(angle), radius * math.sin(angle), 0],
            quat=[math.cos(angle / 2), 0, 0, math.sin(angle / 2)],
            **common,
        )
    body.add_geom(
        type=_GEOM.mjGEOM_CYLINDER,
        size=[spec.radius - thickness, 0.003, 0],
        pos=[0, 0, -spec.half_height + 0.003],
        **common,
    )


def _mug(body, spec, common) -> None:
    _wall_ring(body, spec, common, count=8, thickness=0.004)
    body.add_geom(
        type=_GEOM.mjGEOM_BOX, size=[0.011, 0.005, 0.55 * spec.half_height], pos=[spec.radius + 0.009, 0, 0], **common
    )


def _bowl(body, spec, common) -> None:
    _wall_ring(body, spec, common, count=10, thickness=0.005)
