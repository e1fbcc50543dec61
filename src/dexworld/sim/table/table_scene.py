"""The scene of a described robot at its table, with one thing on it, from a seed.

Bodies are the links of the robot's own tree, so that MuJoCo's joints are those of its kinematics. Masses are those of
its shapes at the density of water, and weight is balanced: a model file for kinematics says neither reliably.
"""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from dexworld.robots.described_robot import DescribedRobot
from dexworld.robots.kinematics import BASE
from dexworld.robots.shapes import Shape
from dexworld.sim.kitchen.kitchen_scene import add_lamp, new_spec
from dexworld.sim.kitchen.objects import ObjectSpec, add_object, random_object
from dexworld.sim.poses import OPTICAL, looking_at, quaternion
from dexworld.sim.table.station import TABLE_HALF, Station

IMAGE_SIZE = (224, 392)
CAMERA = "view"
_EYE = (-0.12, 0.62, 0.55)  # metres ahead, beside and above the table's middle
_LAMP = np.array([0.1, 0.2, 1.6])  # metres from the table's middle
_FIELD_OF_VIEW = 38.0  # degrees, of the picture's height
_THICK = 0.03  # metres
_ROBOT, _THING = {"contype": 1, "conaffinity": 0}, {"contype": 2, "conaffinity": 3}  # robots don't touch themselves
_HULL = 48  # vertices of a mesh's hull
_DENSITY = 1000.0
_GEOM = mujoco.mjtGeom
_KINDS = {kind: getattr(_GEOM, f"mjGEOM_{kind.upper()}") for kind in
          ("sphere", "capsule", "cylinder", "box", "ellipsoid", "mesh")}  # fmt: skip


@dataclass(frozen=True)
class TableLayout:
    """What differs between scenes. place: metres ahead and to the left of the table's middle. tint: of the table."""

    seed: int
    objects: tuple[ObjectSpec, ...]
    place: tuple[float, float]
    yaw: float
    tint: tuple[float, float, float]


def table_layout(seed: int) -> TableLayout:
    """The scene of a seed."""
    rng = np.random.default_rng([seed, 2])
    thing = random_object(rng, ("box", "can"))
    place, tint = rng.uniform(-0.08, 0.08, 2), rng.uniform(0.35, 0.6) * rng.uniform(0.85, 1.0, 3)
    return TableLayout(seed, (thing,), (place[0], place[1]), rng.uniform(-math.pi, math.pi), tuple(tint))


def build_table(station: Station, layout: TableLayout) -> mujoco.MjModel:
    """Compile the scene: the robot, body object0 on the table, and camera `CAMERA`."""
    spec = new_spec(1024, 6, (0.5, 0.5, 0.1))
    spec.option.timestep, spec.option.integrator = 0.002, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.compiler.boundmass, spec.compiler.boundinertia = 1e-3, 1e-6  # of links without a shape
    spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10
    world, centre, ahead = spec.worldbody, station.centre, station.ahead
    left = np.cross([0.0, 0.0, 1.0], ahead)
    up = np.array([0.0, 0.0, 1.0])
    turn = quaternion(np.stack([ahead, left, up], axis=1))
    slab = {"type": _GEOM.mjGEOM_BOX, "size": [TABLE_HALF, TABLE_HALF, _THICK], "quat": turn, **_THING}
    world.add_geom(pos=centre - [0.0, 0.0, _THICK], rgba=[*layout.tint, 1.0], name="table", **slab)
    floor = centre - [0.0, 0.0, 0.7]
    world.add_geom(type=_GEOM.mjGEOM_PLANE, size=[4, 4, 0.1], pos=floor, rgba=[0.5, 0.5, 0.48, 1], contype=0,
                   conaffinity=0)  # fmt: skip
    add_lamp(world, np.random.default_rng([layout.seed, 3]), 0.7, centre + _LAMP, 0.3, (0, 0, -1))
    thing = layout.objects[0]
    spot = centre + layout.place[0] * ahead + layout.place[1] * left + [0.0, 0.0, thing.half_height + 0.001]
    add_object(world, "object0", thing, spot, layout.yaw)
    for geom in spec.body("object0").geoms:
        if geom.contype:
            geom.contype, geom.conaffinity = _THING.values()
    side = 1.0 if left @ centre >= -1e-3 else -1.0  # the robot's body is on the other side
    eye = centre + _EYE[0] * ahead + side * _EYE[1] * left + [0.0, 0.0, _EYE[2]]
    seen = looking_at(eye, centre + 0.05 * up)
    world.add_camera(name=CAMERA, pos=eye, quat=quaternion(seen[:3, :3] @ OPTICAL), fovy=_FIELD_OF_VIEW)
    _add_robot(spec, station.robot)
    return spec.compile()


def link_name(link: int) -> str:
    """The name of a link's body and joint in the scene."""
    return f"link{link}"


def _add_robot(spec: mujoco.MjSpec, robot: DescribedRobot) -> None:
    tree, limits, bodies = robot.tree, robot.limits.numpy(), {BASE: spec.worldbody}
    for link, (joint, drive) in enumerate(zip(tree.joints, tree.drives, strict=True)):
        place, name = joint.parent_from_joint, link_name(link)
        body = bodies[joint.parent].add_body(name=name, pos=place[:3, 3], quat=quaternion(place[:3, :3]), gravcomp=1.0)
        own, arm = drive.polynomial == (0.0, 1.0), drive.source < robot.arm.stop
        kind = mujoco.mjtJoint.mjJNT_SLIDE if joint.slides else mujoco.mjtJoint.mjJNT_HINGE
        # stiff enough to follow within a tenth of a second, whatever hangs on it; fingers push with some newtons
        armature, stiffness = (1.0 if joint.slides else 0.1, 1500.0) if arm else (0.002, 5.0)
        body.add_joint(name=name, type=kind, axis=joint.axis, armature=armature, limited=own,
                       range=limits[drive.source] if own else [0.0, 0.0])  # fmt: skip
        bodies[link] = body
        if own:
            motor = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            motor.set_to_position(kp=stiffness, dampratio=1.0)
            motor.ctrllimited, motor.ctrlrange = True, limits[drive.source]
        else:
            source = next(each for each, other in enumerate(tree.drives)
                          if other.source == drive.source and other.polynomial == (0.0, 1.0))  # fmt: skip
            row = spec.add_equality(name=name, type=mujoco.mjtEq.mjEQ_JOINT, name1=name, name2=link_name(source))
            row.objtype, row.data[:5] = mujoco.mjtObj.mjOBJ_JOINT, [*drive.polynomial, *[0.0] * 5][:5]
    for number, (link, shape, place) in enumerate(_shapes(robot)):
        _add_shape(spec, bodies[link], number, shape, place)


def _shapes(robot: DescribedRobot) -> list[tuple[int, Shape, np.ndarray]]:
    """(link, shape, link_from_shape) of the model's shapes; of links that have none, the spheres of the outline."""
    model, tree, found = robot.model, robot.tree, []
    moving = model.moving(robot.drives, model.frame(robot.description.base)[0])
    for shape in model.shapes:
        if shape.body in moving:
            link, place = tree.link(shape.body)
            found.append((link, shape, place @ shape.body_from_shape))
    shaped = {link for link, *_ in found}
    for (link, centre), radius in robot.spheres:
        if link not in shaped:
            place = np.eye(4)
            place[:3, 3] = centre
            sphere = Shape(0, "sphere", np.array([radius, 0.0, 0.0]), place, np.zeros((0, 3)), True)
            found.append((link, sphere, place))
    return found


def _add_shape(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, number: int, shape: Shape, link_from_shape: np.ndarray
) -> None:
    style = {"rgba": [0.32, 0.34, 0.38, 1.0], "group": 2, "density": _DENSITY, "friction": [1.0, 0.01, 0.001], **_ROBOT}
    place = {"pos": link_from_shape[:3, 3], "quat": quaternion(link_from_shape[:3, :3])}
    if shape.kind != "mesh":
        body.add_geom(type=_KINDS[shape.kind], size=shape.size, **place, **style)
        return
    name = f"mesh{number}"
    mesh = spec.add_mesh(name=name, uservert=shape.vertices.ravel(), maxhullvert=_HULL)
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    body.add_geom(type=_GEOM.mjGEOM_MESH, meshname=name, **place, **style)
