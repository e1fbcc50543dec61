"""A kitchen counter seen by a person: two to four objects, perhaps a drawer or a cabinet, two hands, a head camera.

World frame as in the robot's scene: x away from the person over the counter, y to the left, z up, metres. MuJoCo
integrates nothing here: `hand_physics` computes a `SceneState`, and `HandScene.pose` writes it into MuJoCo for drawing.
Walls are boxes whose local xy plane faces the room, so that their texture doesn't become stripes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import mujoco
import numpy as np

from dexworld.sim.hands.human_hands import SIDES, HandLooks, HandModel, add_hand, random_looks
from dexworld.sim.kitchen.kitchen_scene import (
    COUNTER_TOP,
    add_clutter,
    add_decor,
    add_furniture,
    add_lamp,
    add_material,
    free_gap,
    new_spec,
    random_spot,
)
from dexworld.sim.kitchen.objects import ObjectSpec, add_object, random_object
from dexworld.sim.poses import OPTICAL, quaternion

HEAD_CAMERA = "head"
HEAD_POSITION = (0.22, 0.0, 1.38)
HEAD_TARGET = (0.665, 0.0, 0.95)
COUNTER_FRONT = 0.3  # x of the counter's edge
OBJECT_AREA = (0.51, 0.69, -0.20, 0.20)
MAX_OBJECTS = 4  # rows of recorded objects
FIXTURES = ("none", "drawer", "door")
COLOURS = {
    "red": (0.82, 0.10, 0.10),
    "blue": (0.10, 0.25, 0.80),
    "green": (0.08, 0.55, 0.18),
    "yellow": (0.93, 0.80, 0.10),
    "purple": (0.48, 0.15, 0.60),
    "orange": (0.95, 0.45, 0.05),
    "white": (0.93, 0.93, 0.92),
    "black": (0.08, 0.08, 0.09),
}
_FACING_ROOM = [math.sqrt(0.5), 0.0, -math.sqrt(0.5), 0.0]  # local z to world -x: the texture plane looks at the person


@dataclass(frozen=True)
class Fixture:
    """A drawer or a hinged door in a small cabinet on the counter. Lengths in metres.

    kind: drawer or door. centre: y of the cabinet's middle. front: x of its closed front. hinge: +1 if the door's hinge
    is at its left (+y) edge, -1 at its right. standoff: of the handle's bar from the front.
    """

    kind: str
    centre: float
    front: float
    half_width: float
    half_height: float
    hinge: float
    handle_length: float
    depth: ClassVar = 0.24
    standoff: ClassVar = 0.045
    bar_radius: ClassVar = 0.006

    @property
    def base_height(self) -> float:
        """World z of the front's middle."""
        return COUNTER_TOP + self.half_height + 0.006

    @property
    def travel(self) -> float:
        """The furthest opening, metres (drawer) or radians (door)."""
        return 0.19 if self.kind == "drawer" else 1.5

    @property
    def bar_offset(self) -> float:
        """Distance of a door's vertical bar from its hinge."""
        return 2 * self.half_width - 0.035

    @property
    def lever(self) -> float:
        """Metres that the handle travels in one unit of the opening."""
        return 1.0 if self.kind == "drawer" else self.bar_offset

    def bar(self, opening: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bar's middle (3,), its unit axis (3,) and the front's outward unit normal (3,) at an opening."""
        if self.kind == "drawer":
            middle = np.array([self.front - opening - self.standoff, self.centre, self.base_height])
            return middle, np.array([0.0, 1.0, 0.0]), np.array([-1.0, 0.0, 0.0])
        hinge = np.array([self.front, self.centre + self.hinge * self.half_width, self.base_height])
        along = np.array([-math.sin(opening), -self.hinge * math.cos(opening), 0.0])  # the free edge comes out
        normal = np.array([-math.cos(opening), self.hinge * math.sin(opening), 0.0])
        return hinge + along * self.bar_offset + normal * self.standoff, np.array([0.0, 0.0, 1.0]), normal

    def panel(self, opening: float) -> tuple[np.ndarray, np.ndarray]:
        """Both ends (2,) of the front seen from above at an opening."""
        if self.kind == "drawer":
            x = self.front - opening
            return np.array([x, self.centre - self.half_width]), np.array([x, self.centre + self.half_width])
        hinge = np.array([self.front, self.centre + self.hinge * self.half_width])
        along = np.array([-math.sin(opening), -self.hinge * math.cos(opening)])
        return hinge, hinge + along * 2 * self.half_width


@dataclass(frozen=True)
class HandSceneLayout:
    """Every choice of a scene except textures and lights."""

    seed: int
    objects: tuple[ObjectSpec, ...]
    names: tuple[str, ...]  # "red can"
    positions: tuple[tuple[float, float], ...]
    yaws: tuple[float, ...]
    fixture: Fixture | None
    furniture: str
    counter_depth: float
    looks: HandLooks
    fov_deg: float  # horizontal


@dataclass(frozen=True)
class SceneState:
    """What moves in a scene besides hands and camera.

    positions: (n, 3) metres, the objects' centres. yaws: (n,) radians. opening: drawer (m) or door (rad), else 0.
    """

    positions: np.ndarray
    yaws: np.ndarray
    opening: float = 0.0

    def copy(self) -> "SceneState":
        """An independent copy."""
        return SceneState(self.positions.copy(), self.yaws.copy(), self.opening)


def random_hand_layout(seed: int, fixtures: tuple[str, ...] = FIXTURES, draw: int = 0) -> HandSceneLayout:
    """Draw a scene whose fixture is one of `fixtures`. `draw` counts further scenes of the same seed."""
    rng = np.random.default_rng([seed, 11, draw] if draw else [seed, 11])
    kind = str(rng.choice(FIXTURES, p=(0.5, 0.25, 0.25)))
    if kind not in fixtures:
        kind = str(rng.choice(fixtures))
    fixture = _random_fixture(rng, kind) if kind != "none" else None
    objects: list[ObjectSpec] = []
    positions: list[tuple[float, float]] = []
    names: list[str] = []
    count = int(rng.integers(2, MAX_OBJECTS + 1))
    for colour in rng.permutation(list(COLOURS))[:count]:
        item = _random_object(rng, str(colour))
        spot = _free_spot(rng, item, objects, positions, fixture)
        if spot is not None:  # a crowded scene has fewer objects
            objects.append(item)
            positions.append(spot)
            names.append(f"{colour} {item.kind}")
    yaws = tuple(float(yaw) for yaw in rng.uniform(-0.6, 0.6, len(objects)))
    furniture = str(rng.choice(["plain", "sink", "stove", "shelf"]))
    counter_depth, looks, fov_deg = float(rng.uniform(0.62, 0.74)), random_looks(rng), float(rng.uniform(60, 68))
    things = (tuple(objects), tuple(names), tuple(positions), yaws)
    return HandSceneLayout(seed, *things, fixture, furniture, counter_depth, looks, fov_deg)


def _random_object(rng: np.random.Generator, colour: str) -> ObjectSpec:
    item = random_object(rng)
    shade = np.clip(np.array(COLOURS[colour]) * rng.uniform(0.85, 1.1) + rng.normal(0, 0.02, 3), 0, 1)
    grow = float(rng.uniform(1.1, 1.3)) if item.kind != "bowl" else 1.0
    radius, half_height = min(item.radius * grow, 0.05), min(item.half_height * grow, 0.085)
    red, green, blue = map(float, shade)
    return ObjectSpec(item.kind, radius, half_height, (red, green, blue, 1.0), float(np.clip(item.aspect, 0.8, 1.25)))


def _random_fixture(rng: np.random.Generator, kind: str) -> Fixture:
    half_width = float(rng.uniform(0.11, 0.14))
    half_height = float(rng.uniform(0.07, 0.09) if kind == "drawer" else rng.uniform(0.1, 0.13))
    centre, front = float(rng.uniform(-0.16, 0.16)), float(rng.uniform(0.73, 0.78))
    hinge, handle_length = float(rng.choice([-1.0, 1.0])), float(rng.uniform(0.10, 0.14))
    return Fixture(kind, centre, front, half_width, half_height, hinge, handle_length)


def _free_spot(rng, item, objects, positions, fixture) -> tuple[float, float] | None:
    """A spot a hand's width away from the other objects and out of the fixture's way."""
    for _ in range(80):
        spot = random_spot(rng, OBJECT_AREA)
        if fixture is not None:
            beside = abs(spot[1] - fixture.centre) > fixture.half_width + item.radius + 0.03
            if not beside and spot[0] > fixture.front - 0.16 - item.radius:
                continue
        if free_gap(item, spot, objects, positions) > 0.065:
            return spot
    return None


class HandScene:
    """A compiled scene: `model`, the hands in it, and the first state."""

    def __init__(
        self, layout: HandSceneLayout, height: int, width: int, add_more: Callable[[mujoco.MjSpec], None] | None = None
    ) -> None:
        """height, width: the largest pictures (px) that will be drawn. add_more: adds to the scene after all else."""
        self.layout = layout
        self.model = model = _build(layout, height, width, add_more)
        self.hands = HandModel(model)
        self._free = [int(model.joint(f"object{i}_free").qposadr[0]) for i in range(len(layout.objects))]
        self._fixture = int(model.joint("fixture").qposadr[0]) if layout.fixture else None
        self.camera = int(model.camera(HEAD_CAMERA).id)

    @property
    def start(self) -> SceneState:
        """The state in which every clip of this scene begins."""
        places = zip(self.layout.positions, self.layout.objects, strict=True)
        positions = np.array([(*spot, COUNTER_TOP + item.half_height) for spot, item in places])
        return SceneState(positions.reshape(-1, 3), np.array(self.layout.yaws), 0.0)

    def opening_metres(self, state: SceneState) -> float:
        """How far the fixture's handle travelled, metres."""
        return state.opening * self.layout.fixture.lever if self.layout.fixture else 0.0

    def pose(self, data: mujoco.MjData, state: SceneState) -> None:
        """Write a state into `data`; the caller runs `refresh` afterwards."""
        for address, position, yaw in zip(self._free, state.positions, state.yaws, strict=True):
            data.qpos[address : address + 3] = position
            data.qpos[address + 3 : address + 7] = [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]
        if self._fixture is not None:
            data.qpos[self._fixture] = state.opening

    def look(self, data: mujoco.MjData, world_from_camera: np.ndarray) -> None:
        """Move the head camera to an optical-frame pose (4, 4), and refresh `data`."""
        self.model.cam_pos[self.camera] = world_from_camera[:3, 3]
        self.model.cam_quat[self.camera] = quaternion(world_from_camera[:3, :3] @ OPTICAL)
        self.refresh(data)

    def refresh(self, data: mujoco.MjData) -> None:
        """Recompute the places of bodies, camera and lights after changes."""
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_camlight(self.model, data)


def _build(layout: HandSceneLayout, height: int, width: int, add_more) -> mujoco.MjModel:
    rng = np.random.default_rng([layout.seed, 12])
    headlight = (float(rng.uniform(0.33, 0.46)), float(rng.uniform(0.22, 0.35)), 0.08)
    spec = new_spec(1024 if height <= 300 else 2048, 7, headlight)  # a large picture shows a shadow map's steps
    spec.visual.global_.offheight, spec.visual.global_.offwidth = max(height, 480), max(width, 640)
    _add_room(spec, layout, rng)
    add_lamp(spec.worldbody, rng, 0.65, (0.45, 0.0, 2.4), 0.4, (0.1, 0, -1))
    fovy = 2 * math.degrees(math.atan(math.tan(math.radians(layout.fov_deg) / 2) * height / width))
    spec.worldbody.add_camera(name=HEAD_CAMERA, pos=list(HEAD_POSITION), fovy=fovy)
    for index, (item, spot, yaw) in enumerate(zip(layout.objects, layout.positions, layout.yaws, strict=True)):
        add_object(spec.worldbody, f"object{index}", item, np.array([*spot, COUNTER_TOP + item.half_height]), yaw)
    if layout.fixture is not None:
        _add_fixture(spec.worldbody, layout.fixture, rng)
    for side in SIDES:
        add_hand(spec.worldbody, side, layout.looks)
    if add_more is not None:
        add_more(spec)
    return spec.compile()


def _add_room(spec: mujoco.MjSpec, layout: HandSceneLayout, rng: np.random.Generator) -> None:
    world, material = spec.worldbody, partial(add_material, spec, rng, uniform=False)
    back = COUNTER_FRONT + layout.counter_depth + 0.15
    middle, half = (COUNTER_FRONT + back) / 2, (back - COUNTER_FRONT) / 2
    top = material("top", ("wood", "marble", "plaster"), float(rng.uniform(1.5, 3)))
    wall = material("wall", ("tile", "plaster"), 3.0)
    splash = material("splash", ("tile", "marble", "plaster"), 4.0)
    floor = material("floor", ("wood", "tile"), 6.0)
    add_decor(world, [3, 3, 0.01], [0, 0, -0.01], material=floor)
    add_decor(world, [half, 1.4, 0.02], [middle, 0, COUNTER_TOP - 0.02], material=top)
    add_decor(world, [half - 0.03, 1.38, COUNTER_TOP / 2 - 0.02], [middle + 0.02, 0, COUNTER_TOP / 2 - 0.02])
    add_decor(world, [1.4, 2.5, 0.02], [back + 0.02, 0, 1.4], quat=_FACING_ROOM, material=wall)
    rise = float(rng.uniform(0.1, 0.3))
    add_decor(world, [rise, 2.5, 0.006], [back - 0.002, 0, COUNTER_TOP + rise], quat=_FACING_ROOM, material=splash)
    add_furniture(world, layout.furniture, back, rng)
    add_clutter(world, back, rng)


def _add_fixture(world: mujoco.MjsBody, fixture: Fixture, rng: np.random.Generator) -> None:
    """A cabinet of boards; its drawer or door is a body with one joint whose value is the opening."""
    body_colour = rng.uniform(0.35, 0.9) * np.array([1.0, rng.uniform(0.8, 1.0), rng.uniform(0.6, 1.0)])
    shell = [*map(float, body_colour), 1.0]
    panel = [*map(float, np.clip(body_colour * rng.choice([0.65, 1.25]), 0, 1)), 1.0]
    inside, metal = [0.16, 0.13, 0.11, 1.0], [0.12, 0.12, 0.13, 1.0] if rng.random() < 0.5 else [0.8, 0.8, 0.82, 1.0]
    w, h, depth, thickness = fixture.half_width, fixture.half_height, fixture.depth, 0.006
    x, y, z = fixture.front + depth / 2, fixture.centre, fixture.base_height
    for sign in (-1, 1):
        add_decor(world, [depth / 2, thickness, h], [x, y + sign * (w + thickness), z], rgba=shell)
        add_decor(world, [depth / 2, w + 2 * thickness, thickness], [x, y, z + sign * h], rgba=shell)
    add_decor(world, [thickness, w, h], [x + depth / 2, y, z], rgba=inside)
    edge = fixture.hinge * w if fixture.kind == "door" else 0.0  # of the joint from the middle
    body = world.add_body(name="fixture", pos=[fixture.front, y + edge, z])
    if fixture.kind == "door":
        body.add_joint(name="fixture", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, -fixture.hinge])
    else:
        body.add_joint(name="fixture", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[-1, 0, 0])
        add_decor(body, [depth / 2 - 0.01, w - 0.01, 0.003], [depth / 2, 0, -h + 0.015], rgba=inside)
        for sign in (-1, 1):
            add_decor(body, [depth / 2 - 0.01, 0.004, h * 0.75], [depth / 2, sign * (w - 0.01), -h * 0.2], rgba=shell)
    add_decor(body, [0.008, w - 0.002, h - 0.004], [0.008, -edge, 0], rgba=panel)
    _add_bar(body, fixture, metal)


def _add_bar(body: mujoco.MjsBody, fixture: Fixture, colour: list[float]) -> None:
    """The handle: a bar on two posts in front of the panel."""
    half, out, radius = fixture.handle_length / 2, -fixture.standoff, fixture.bar_radius
    middle, axis = np.array([out, 0, 0]), np.array([0, 1.0, 0])
    if fixture.kind == "door":
        middle, axis = np.array([out, -fixture.hinge * fixture.bar_offset, 0]), np.array([0, 0, 1.0])
    style = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "rgba": colour, "contype": 0, "conaffinity": 0}
    ends = [middle + axis * half, middle - axis * half]
    body.add_geom(fromto=[*ends[0], *ends[1]], size=[radius, 0, 0], **style)
    for end in ends:
        body.add_geom(fromto=[*end, *(end - np.array([out, 0, 0]))], size=[radius * 0.8, 0, 0], **style)
