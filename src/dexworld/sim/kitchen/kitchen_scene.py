"""A kitchen counter with one to five objects, an egocentric camera and a Franka arm with an Allegro hand, from a seed.

World frame: x away from the robot over the counter, y to the robot's left, z up, metres. The camera and the arm's mount
stand where the DexWM robot has them: camera 1.61 m above the floor, looking 30 degrees down; shoulder tilted to the
right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from dexworld.sim.kitchen.allegro_body import add_robot
from dexworld.sim.kitchen.objects import ObjectSpec, add_object, random_object
from dexworld.sim.textures import TEXTURE_SIZE, make_texture

COUNTER_TOP = 0.92
IMAGE_SIZE = (224, 392)
CAMERA_POSITION = (0.212, 0.0, 1.614)
CAMERA_PITCH_DEG = 30.0
CAMERA_FOVY_DEG = 2 * math.degrees(math.atan(274 / 357.52607778))  # 960 x 600 at 80 degrees, 26 rows cut at both edges
EGO_CAMERA = "ego"
ROBOT_GROUP = 2  # geoms of the robot; objects and room are group 0

# Where the hand can work: object centres are drawn from this rectangle (x low, x high, y low, y high).
WORK_AREA = (0.62, 0.88, -0.28, 0.08)
COUNTER_AREA = (0.60, 0.98, -0.40, 0.40)
HAND_GAP = 0.07  # metres between objects: a hand's width

TRAINING_SEEDS = range(0, 900_000)
VALIDATION_SEEDS = range(900_000, 1_000_000)
FIRST_EVALUATION_SEED = 1_000_000

_GEOM = mujoco.mjtGeom


@dataclass(frozen=True)
class Layout:
    """Every random choice of a scene except textures, so that a scene can be described and rebuilt."""

    seed: int
    objects: tuple[ObjectSpec, ...]
    positions: tuple[tuple[float, float], ...]  # (x, y) of every object
    yaws: tuple[float, ...]
    camera_position: tuple[float, float, float]
    camera_tilt_deg: tuple[float, float, float]  # extra pitch, yaw, roll
    counter_depth: float
    furniture: str  # plain, sink, stove or shelf


@dataclass(frozen=True)
class Scene:
    """A compiled scene. `object_names[0]` is the object that tasks are about."""

    layout: Layout
    model: mujoco.MjModel
    object_names: tuple[str, ...]


def random_layout(seed: int) -> Layout:
    """Draw a scene. Object 0, the one that tasks are about, stands in `WORK_AREA`."""
    rng = np.random.default_rng([seed, 1])
    count = int(rng.integers(1, 6))
    objects: list[ObjectSpec] = []
    positions: list[tuple[float, float]] = []
    for index in range(count):
        objects.append(random_object(rng))
        area = WORK_AREA if index == 0 else COUNTER_AREA
        positions.append(free_spot(rng, area, objects, positions, HAND_GAP))
    return Layout(
        seed=seed,
        objects=tuple(objects),
        positions=tuple(positions),
        yaws=tuple(float(yaw) for yaw in rng.uniform(-math.pi, math.pi, count)),
        camera_position=_triple(CAMERA_POSITION + rng.normal(0, 0.012, 3)),
        camera_tilt_deg=_triple(rng.normal(0, 1.2, 3)),
        counter_depth=float(rng.uniform(0.6, 0.74)),
        furniture=str(rng.choice(["plain", "sink", "stove", "shelf"])),
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def free_spot(
    rng: np.random.Generator,
    area: tuple[float, float, float, float],
    objects: Sequence[ObjectSpec],
    positions: Sequence[tuple[float, float]],
    gap: float,
) -> tuple[float, float]:
    """A spot (x, y) for the last of `objects`; the least crowded of 60 draws when none is free.

    area: lowest and highest x, lowest and highest y, metres. positions: of the objects before it. gap: metres that stay
    free between it and each of them.
    """
    best, best_gap = (0.0, 0.0), -np.inf
    for _ in range(60):
        spot = (float(rng.uniform(*area[:2])), float(rng.uniform(*area[2:])))
        gaps = [
            math.dist(spot, other) - spec.radius - objects[-1].radius
            for other, spec in zip(positions, objects, strict=False)
        ]
        smallest = min(gaps, default=np.inf)
        if smallest > gap:
            return spot
        if smallest > best_gap:
            best, best_gap = spot, smallest
    return best


def build_scene(layout: Layout, mount: Callable[[mujoco.MjSpec], None] = add_robot) -> Scene:
    """Compile the scene that `layout` describes. About 0.15 CPU-seconds.

    mount: adds the robot, and whatever comes with it, to the finished kitchen; by default the Franka arm with the
    Allegro hand.
    """
    rng = np.random.default_rng([layout.seed, 2])
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    _set_options(spec)
    _add_room(spec, layout, rng)
    _add_lights(spec, rng)
    _add_camera(spec, layout)
    names = []
    for index, (item, (x, y), yaw) in enumerate(zip(layout.objects, layout.positions, layout.yaws, strict=True)):
        name = f"object{index}"
        add_object(spec.worldbody, name, item, np.array([x, y, COUNTER_TOP + item.half_height + 0.001]), yaw)
        names.append(name)
    mount(spec)
    return Scene(layout, spec.compile(), tuple(names))


def _set_options(spec: mujoco.MjSpec) -> None:
    # Elliptic cones with impratio 10 hold balls in a power grasp; impratio 100 loses nearly every grasp.
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    # MuJoCo's default 4096 shadow map costs four times the frame on a software rasteriser.
    spec.visual.quality.shadowsize = 1024
    spec.visual.quality.offsamples = 0
    spec.visual.quality.numslices = 12
    spec.visual.quality.numstacks = 6
    spec.visual.headlight.ambient = [0.35] * 3
    spec.visual.headlight.diffuse = [0.3] * 3
    spec.visual.headlight.specular = [0.1] * 3
    spec.visual.map.znear = 0.02
    spec.visual.map.zfar = 20
    spec.stat.extent = 1.0


def _add_room(spec: mujoco.MjSpec, layout: Layout, rng: np.random.Generator) -> None:
    """Floor, counter, wall with a backsplash, furniture and clutter beyond the hand's reach."""
    world = spec.worldbody

    def material(name: str, kinds: tuple[str, ...], repeat: float) -> str:
        return add_material(spec, name, make_texture(str(rng.choice(kinds)), rng), repeat)

    top = material("top", ("wood", "marble", "plaster"), 1.5)
    wall = material("wall", ("tile", "plaster"), 1.0)
    splash = material("splash", ("tile", "marble", "plaster"), 2.0)
    floor = material("floor", ("wood", "tile"), 1.0)
    cabinet = material("cabinet", ("wood", "plaster"), 1.0)

    depth, front = layout.counter_depth, 0.45
    centre, back = front + depth / 2, front + depth
    world.add_geom(name="floor", type=_GEOM.mjGEOM_PLANE, size=[3, 3, 0.1], material=floor)
    world.add_geom(
        name="counter",
        type=_GEOM.mjGEOM_BOX,
        size=[depth / 2, 1.4, 0.02],
        pos=[centre, 0, COUNTER_TOP - 0.02],
        material=top,
        friction=[1.0, 0.01, 0.001],
    )
    cabinet_height = (COUNTER_TOP - 0.04) / 2
    add_decor(world, [depth / 2 - 0.02, 1.38, cabinet_height], [centre + 0.01, 0, cabinet_height], material=cabinet)
    add_decor(world, [0.02, 2.5, 1.4], [back + 0.02, 0, 1.4], material=wall)
    add_decor(world, [0.006, 2.5, rng.uniform(0.08, 0.3)], [back - 0.002, 0, COUNTER_TOP + 0.1], material=splash)
    add_furniture(world, layout.furniture, back, rng)
    add_clutter(world, back, rng)


def add_furniture(world, kind: str, back: float, rng: np.random.Generator) -> None:
    """A sink, a stove or a shelf to one side of the work area; `back` is the x of the wall."""
    side = float(rng.choice([-1.0, 1.0])) * rng.uniform(0.55, 0.75)
    grey = rng.uniform(0.15, 0.75)
    colour = [grey, grey, grey, 1]
    if kind == "sink":
        add_decor(world, [0.17, 0.2, 0.001], [back - 0.3, side, COUNTER_TOP + 0.0005], rgba=colour)
        add_decor(world, [0.14, 0.17, 0.001], [back - 0.3, side, COUNTER_TOP + 0.001], rgba=[0.2, 0.2, 0.22, 1])
        add_decor(world, [0.015, 0.015, 0.12], [back - 0.1, side, COUNTER_TOP + 0.12], rgba=[0.7, 0.7, 0.72, 1])
    elif kind == "stove":
        add_decor(world, [0.24, 0.22, 0.002], [back - 0.32, side, COUNTER_TOP + 0.001], rgba=[0.08, 0.08, 0.09, 1])
        for dx, dy in ((-0.1, -0.1), (-0.1, 0.1), (0.1, -0.1), (0.1, 0.1)):
            burner = {"type": _GEOM.mjGEOM_CYLINDER, "rgba": colour}
            add_decor(world, [0.07, 0.002, 0], [back - 0.32 + dx, side + dy, COUNTER_TOP + 0.003], **burner)
    elif kind == "shelf":
        colour = [*rng.uniform(0.3, 0.8, 3), 1]
        add_decor(world, [0.1, rng.uniform(0.6, 1.6), 0.012], [back - 0.1, side, COUNTER_TOP + 0.42], rgba=colour)


def add_clutter(world, back: float, rng: np.random.Generator) -> None:
    """Jars, boards and boxes along the wall: they look like objects but never move."""
    for _ in range(int(rng.integers(0, 5))):
        y = float(rng.choice([-1.0, 1.0])) * rng.uniform(0.35, 0.9)
        height, colour = rng.uniform(0.05, 0.16), [*rng.uniform(0.1, 0.9, 3), 1]
        if rng.random() < 0.5:
            shape = {"type": _GEOM.mjGEOM_CYLINDER, "rgba": colour}
            add_decor(world, [rng.uniform(0.03, 0.07), height, 0], [back - 0.08, y, COUNTER_TOP + height], **shape)
        else:
            size = [rng.uniform(0.02, 0.06), rng.uniform(0.04, 0.14), height]
            add_decor(world, size, [back - 0.08, y, COUNTER_TOP + height], rgba=colour)


def add_decor(world, size, position, **kwargs) -> None:
    """A fixed geom without contacts."""
    shape = {"type": _GEOM.mjGEOM_BOX, **kwargs}
    world.add_geom(size=list(map(float, size)), pos=list(map(float, position)), contype=0, conaffinity=0, **shape)


def add_material(spec: mujoco.MjSpec, name: str, image: np.ndarray, repeat: float, uniform: bool = True) -> str:
    """A textured material; `uniform` repeats the picture per metre, else `repeat` times over each geom's xy plane."""
    texture = spec.add_texture(
        name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=TEXTURE_SIZE, height=TEXTURE_SIZE, nchannel=3
    )
    texture.data = image.tobytes()
    material = spec.add_material(name=name, texrepeat=[repeat, repeat], texuniform=uniform)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    material.specular, material.shininess = 0.25, 0.4
    return name


def _add_lights(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    """One lamp with a shadow (every further one costs a frame's time again), its place and warmth random."""
    warmth = rng.uniform(-0.08, 0.08)
    strength = rng.uniform(0.45, 0.7)
    spec.worldbody.add_light(
        pos=[0.5 + rng.normal(0, 0.15), 0.3 + rng.normal(0, 0.3), 2.6],
        dir=[0.1, -0.1, -1],
        castshadow=True,
        diffuse=[strength + warmth, strength, strength - warmth],
        type=mujoco.mjtLightType.mjLIGHT_SPOT,
        cutoff=70,
    )


def _add_camera(spec: mujoco.MjSpec, layout: Layout) -> None:
    pitch, yaw, roll = np.radians(layout.camera_tilt_deg)
    pitch = pitch + math.radians(CAMERA_PITCH_DEG)
    # MuJoCo's camera looks along -z with y up; start from one that looks along world x, then turn it.
    level = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    world_from_camera = _about(2, yaw) @ level @ _about(0, -pitch) @ _about(2, roll)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, world_from_camera.ravel())
    spec.worldbody.add_camera(name=EGO_CAMERA, pos=list(layout.camera_position), quat=quaternion, fovy=CAMERA_FOVY_DEG)
    spec.worldbody.add_camera(name="side", pos=[0.6, -1.6, 1.5], xyaxes=[1, 0, 0, 0, 0.35, 1], fovy=50)


def _about(axis: int, angle: float) -> np.ndarray:
    """Rotation (3, 3) by `angle` about coordinate axis 0, 1 or 2."""
    cosine, sine = math.cos(angle), math.sin(angle)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    rotation = np.eye(3)
    rotation[first, first] = rotation[second, second] = cosine
    rotation[first, second], rotation[second, first] = -sine, sine
    return rotation
