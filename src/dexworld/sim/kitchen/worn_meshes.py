"""Meshes on the kitchen's robot: what is drawn of it is replaced, what collides and weighs stays, hidden."""

from functools import lru_cache
from typing import Any

import mujoco

from dexworld.robots.franka_allegro import ARM_JOINTS, JOINTS, FrankaAllegro
from dexworld.robots.kinematics import BASE
from dexworld.robots.robot_meshes import RobotLook, drawn_shapes
from dexworld.robots.shapes import Shape
from dexworld.sim.kitchen.allegro_body import BASE_BODY, FLANGE_BODY, HAND_PREFIX, ROBOT_GROUP
from dexworld.sim.poses import quaternion

HIDDEN_GROUP = 3  # geoms of the robot that collide below its meshes
_WHITE, _DARK = [0.9, 0.9, 0.92, 1.0], [0.2, 0.2, 0.2, 1.0]  # where a file gives no colour


def wear(spec: mujoco.MjSpec, look: str) -> None:
    """Draw the meshes of a robot, as `robot_meshes.drawn_shapes` takes it; hide what is below."""
    bodies = {BASE: BASE_BODY}
    for number, joint in enumerate(JOINTS):
        bodies[number] = f"arm_link{number + 1}" if number < ARM_JOINTS else f"{HAND_PREFIX}{joint.name}"
    shapes = _drawn(look)
    for body in [spec.body(BASE_BODY), *spec.body(BASE_BODY).find_all("body")]:
        if body.name != FLANGE_BODY:
            for geom in body.geoms:
                geom.group = HIDDEN_GROUP
    for number, shape in enumerate(shapes):
        place, colour = shape.body_from_shape, shape.rgba or (_WHITE if shape.body < ARM_JOINTS else _DARK)
        style: dict[str, Any] = {"group": ROBOT_GROUP, "contype": 0, "conaffinity": 0, "mass": 0.0, "rgba": colour}
        style |= {"pos": place[:3, 3], "quat": quaternion(place[:3, :3])}
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.kind.upper()}")
        if shape.kind == "mesh":
            name, flat = f"worn{number}", (shape.vertices.ravel(), shape.faces.ravel())
            mesh = spec.add_mesh(name=name, uservert=flat[0], userface=flat[1])
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # open meshes have no volume
            style["meshname"] = name
        else:
            style["size"] = shape.size
        spec.body(bodies[shape.body]).add_geom(type=kind, **style)


def check_look(look: RobotLook) -> None:
    """Raises what `drawn_shapes` does for meshes that can't be worn."""
    if look.meshes:
        _drawn(look.meshes)


@lru_cache(maxsize=4)
def _drawn(look: str) -> list[Shape]:
    return drawn_shapes(FrankaAllegro(), look)
