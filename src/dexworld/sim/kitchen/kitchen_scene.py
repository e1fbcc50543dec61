"""A kitchen counter with one to five objects, an egocentric camera and a Franka arm with an Allegro hand, from a seed.

World frame: x away from the robot over the counter, y to the robot's left, z up, metres. The camera and the arm's mount
stand where the DexWM robot has them: camera 1.61 m above the floor, looking 30 degrees down; shoulder tilted to the
right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import mujoco
import numpy as np

from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.allegro_body import add_robot
from dexworld.sim.kitchen.objects import ObjectSpec, add_object, random_object
from dexworld.sim.kitchen.worn_meshes import wear
from dexworld.sim.poses import quaternion, turn_about_x, turn_about_z

COUNTER_TOP, COUNTER_FRONT = 0.92, 0.45
COUNTER_BOX = ((COUNTER_FRONT, -1.4, 0.0), (1.2, 1.4, COUNTER_TOP))  # whatever its depth
IMAGE_SIZE = (224, 392)
CAMERA_POSITION = (0.212, 0.0, 1.614)
CAMERA_PITCH_DEG = 30.0
CAMERA_FOVY_DEG = 2 * math.degrees(math.atan(274 / 357.52607778))  # 960 x 600 at 80 degrees, 26 rows cut at both edges
EGO_CAMERA = "ego"

# Where the hand can work: object centres are drawn from this rectangle (x low, x high, y low, y high).
WORK_AREA = (0.62, 0.88, -0.28, 0.08)
COUNTER_AREA = (0.60, 0.98, -0.40, 0.40)
HAND_GAP = 0.07  # metres between objects: a hand's width

TRAINING_SEEDS = range(0, 900_000)
VALIDATION_SEEDS = range(900_000, 1_000_000)
FIRST_EVALUATION_SEED = 1_000_000

TEXTURE_SIZE = 256
_GEOM = mujoco.mjtGeom

Area = tuple[float, float, float, float]  # lowest and highest x, lowest and highest y, metres
Spot = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Every random choice of a scene except textures, so that a scene can be described and rebuilt."""

    seed: int
    objects: tuple[ObjectSpec, ...]
    positions: tuple[tuple[float, float], ...]  # (x, y) of every object
    yaws: tuple[float, ...]
    camera_position: tuple[float, ...]
    camera_tilt_deg: tuple[float, ...]  # extra pitch, yaw, roll
    counter_depth: float
    furniture: str  # plain, sink, stove or shelf
    meshes: str = ""  # that the robot wears, as of `RobotLook`


def seed_split(seed: int) -> str:
    """`training`, `validation` or `evaluation`: what scenes of this seed may be used for."""
    if seed in TRAINING_SEEDS:
        return "training"
    return "validation" if seed in VALIDATION_SEEDS else "evaluation"


def random_layout(seed: int, look: RobotLook = PLAIN) -> Layout:
    """Draw a scene. Object 0, the one that tasks are about, stands in `WORK_AREA`."""
    rng = np.random.default_rng([seed, 1])
    count = int(rng.integers(1, 6))
    objects, positions = place_objects(rng, count, (WORK_AREA, COUNTER_AREA), HAND_GAP, random_object)
    return Layout(
        seed=seed,
        objects=objects,
        positions=positions,
        yaws=tuple(float(yaw) for yaw in rng.uniform(-math.pi, math.pi, count)),
        camera_position=tuple((CAMERA_POSITION + rng.normal(0, 0.012, 3)).tolist()),
        camera_tilt_deg=tuple(rng.normal(0, 1.2, 3).tolist()),
        counter_depth=float(rng.uniform(0.6, 0.74)),
        furniture=str(rng.choice(["plain", "sink", "stove", "shelf"])),
        meshes=look.worn(seed),
    )


def place_objects(
    rng: np.random.Generator,
    count: int,
    areas: tuple[Area, Area],
    gap: float,
    draw: Callable[[np.random.Generator], ObjectSpec],
) -> tuple[tuple[ObjectSpec, ...], tuple[Spot, ...]]:
    """Objects from `draw`, and spots (x, y) with `gap` metres between them; the least crowded of 60 when none is free.

    areas: of the first object, and of the others.
    """
    objects: list[ObjectSpec] = []
    positions: list[Spot] = []
    for index in range(count):
        item, area = draw(rng), areas[min(index, 1)]
        best, best_gap = (0.0, 0.0), -np.inf
        for _ in range(60):
            spot = random_spot(rng, area)
            smallest = free_gap(item, spot, objects, positions)
            if smallest > best_gap:
                best, best_gap = spot, smallest
            if smallest > gap:
                break
        objects.append(item)
        positions.append(best)
    return tuple(objects), tuple(positions)


def random_spot(rng: np.random.Generator, area: Area) -> Spot:
    """A point of an area."""
    return float(rng.uniform(*area[:2])), float(rng.uniform(*area[2:]))


def free_gap(item: ObjectSpec, spot: Spot, objects: Sequence[ObjectSpec], positions: Sequence[Spot]) -> float:
    """Metres between an item at `spot` and the nearest of the objects; inf without one."""
    others = zip(positions, objects, strict=True)
    return min((math.dist(spot, other) - spec.radius - item.radius for other, spec in others), default=np.inf)


def build_scene(layout: Layout, mount: Callable[[mujoco.MjSpec], None] = add_robot) -> mujoco.MjModel:
    """Compile the scene that `layout` describes, with bodies object0, object1, ... About 0.15 CPU-seconds.

    mount: adds the robot, and whatever comes with it, to the finished kitchen; by default the Franka arm with the
    Allegro hand.
    """
    rng = np.random.default_rng([layout.seed, 2])
    spec = new_spec(1024, 6, (0.35, 0.3, 0.1))
    # Elliptic cones with impratio 10 hold balls in a power grasp; impratio 100 loses nearly every grasp.
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    _add_room(spec, layout, rng)
    add_lamp(spec.worldbody, rng, 0.7, (0.5, 0.3, 2.6), 0.3, (0.1, -0.1, -1))
    _add_camera(spec, layout)
    for index, (item, (x, y), yaw) in enumerate(zip(layout.objects, layout.positions, layout.yaws, strict=True)):
        place = np.array([x, y, COUNTER_TOP + item.half_height + 0.001])
        add_object(spec.worldbody, f"object{index}", item, place, yaw)
    mount(spec)
    if layout.meshes:
        wear(spec, layout.meshes)
    return spec.compile()


def new_spec(shadow_size: int, stacks: int, headlight: tuple[float, float, float]) -> mujoco.MjSpec:
    """An empty scene. stacks: rings that a drawn sphere has. headlight: its ambient, diffuse and specular strength.

    MuJoCo's default 4096 shadow map costs four times the frame on a software rasteriser.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    quality, light = spec.visual.quality, spec.visual.headlight
    quality.shadowsize, quality.offsamples, quality.numslices, quality.numstacks = shadow_size, 0, 2 * stacks, stacks
    light.ambient, light.diffuse, light.specular = ([strength] * 3 for strength in headlight)
    spec.visual.map.znear, spec.visual.map.zfar, spec.stat.extent = 0.02, 20, 1.0
    return spec


def _add_room(spec: mujoco.MjSpec, layout: Layout, rng: np.random.Generator) -> None:
    """Floor, counter, wall with a backsplash, furniture and clutter beyond the hand's reach."""
    world, material = spec.worldbody, partial(add_material, spec, rng, uniform=True)
    top = material("top", ("wood", "marble", "plaster"), 1.5)
    wall = material("wall", ("tile", "plaster"), 1.0)
    splash = material("splash", ("tile", "marble", "plaster"), 2.0)
    floor = material("floor", ("wood", "tile"), 1.0)
    cabinet = material("cabinet", ("wood", "plaster"), 1.0)
    depth, front = layout.counter_depth, COUNTER_FRONT
    centre, back = front + depth / 2, front + depth
    world.add_geom(name="floor", type=_GEOM.mjGEOM_PLANE, size=[3, 3, 0.1], material=floor)
    shape = {"type": _GEOM.mjGEOM_BOX, "size": [depth / 2, 1.4, 0.02], "pos": [centre, 0, COUNTER_TOP - 0.02]}
    world.add_geom(name="counter", material=top, friction=[1.0, 0.01, 0.001], **shape)
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


def add_material(spec: mujoco.MjSpec, rng, name: str, kinds: tuple[str, ...], repeat: float, uniform: bool) -> str:
    """A material with a texture of one of `kinds`.

    uniform: `repeat` is per metre, else over each geom's xy plane.
    """
    flat, side = mujoco.mjtTexture.mjTEXTURE_2D, TEXTURE_SIZE
    texture = spec.add_texture(name=name, type=flat, width=side, height=side, nchannel=3)
    texture.data = _texture(str(rng.choice(kinds)), rng).tobytes()
    material = spec.add_material(name=name, texrepeat=[repeat, repeat], texuniform=uniform)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    material.specular, material.shininess = 0.25, 0.4
    return name


def _texture(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Wood, marble, tile or plaster from layered value noise, (256, 256, 3) uint8, in two random, related colours."""
    y, x = np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE] / TEXTURE_SIZE
    if kind == "wood":
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * (x * rng.integers(4, 12) + 1.5 * _noise(rng, 4, x, y)))
    elif kind == "marble":
        blend = np.abs(np.sin(2 * np.pi * (x + y + 2 * _noise(rng, 5, x, y)))) ** 0.4
    elif kind == "tile":
        count = rng.integers(3, 7)
        grout = ((x * count) % 1 > 0.05) & ((y * count) % 1 > 0.05)
        blend = grout * (0.85 + 0.15 * _noise(rng, 4, x, y))
    else:
        blend = _noise(rng, 5, x, y)
    # Muted colours: a kitchen, not a colour chart. Saturation is limited by mixing with grey of the same brightness.
    light = rng.uniform(0.3, 0.95, 3)
    light = 0.45 * light + 0.55 * light.mean()
    dark = np.clip(light * rng.uniform(0.55, 0.9), 0, 1)
    image = light * blend[..., None] + dark * (1 - blend[..., None])
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, octaves: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tileable value noise in [0, 1] at `x` and `y`."""
    total = np.zeros_like(x)
    for octave in range(octaves):
        cells = 2 ** (octave + 2)
        grid = rng.random((cells + 1, cells + 1))
        grid[-1], grid[:, -1] = grid[0], grid[:, 0]
        column, row = x * cells, y * cells
        left, top = column.astype(int), row.astype(int)
        fx, fy = column - left, row - top
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        upper = grid[top, left] * (1 - fx) + grid[top, left + 1] * fx
        lower = grid[top + 1, left] * (1 - fx) + grid[top + 1, left + 1] * fx
        total += (upper * (1 - fy) + lower * fy) / 2**octave
    return total / (2 - 2 ** (1 - octaves))


def add_lamp(world, rng: np.random.Generator, brightest: float, middle, spread: float, aim) -> None:
    """One lamp with a shadow (every further one costs a frame's time again), its place and warmth random."""
    warmth, strength = rng.uniform(-0.08, 0.08), rng.uniform(0.45, brightest)
    place = [middle[0] + rng.normal(0, 0.15), middle[1] + rng.normal(0, spread), middle[2]]
    colour = [strength + warmth, strength, strength - warmth]
    spot = mujoco.mjtLightType.mjLIGHT_SPOT
    world.add_light(pos=place, dir=aim, castshadow=True, diffuse=colour, type=spot, cutoff=70)


def _add_camera(spec: mujoco.MjSpec, layout: Layout) -> None:
    pitch, yaw, roll = np.radians(layout.camera_tilt_deg)
    pitch = pitch + math.radians(CAMERA_PITCH_DEG)
    # MuJoCo's camera looks along -z with y up; start from one that looks along world x, then turn it.
    level = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    turn = quaternion(turn_about_z(yaw) @ level @ turn_about_x(-pitch) @ turn_about_z(roll))
    spec.worldbody.add_camera(name=EGO_CAMERA, pos=list(layout.camera_position), quat=turn, fovy=CAMERA_FOVY_DEG)
