"""Robot files: MJCF and URDF, compiled by MuJoCo (extra `sim`) and kept as plain numbers.

Kinematics needs no mesh, so a missing or unreadable one is left out and listed.
"""

import os
import re
import sys
from collections.abc import Container, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from dexworld.robots.kinematics import quaternion_matrix
from dexworld.robots.shapes import Kind, Shape

JointKind = Literal["free", "ball", "slide", "hinge"]
_MESHES = {".stl", ".obj", ".msh"}
_NO_COLOUR = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's of geoms without one


@dataclass(frozen=True)
class ModelJoint:
    """A joint of a body. anchor, axis: (3) in the body's frame. reference: its position in the file's pose.

    limits: low and high, None where the file gives none. velocity: the most that the file allows (URDF), else None.
    Radians, metres, seconds.
    """

    name: str
    kind: JointKind
    anchor: np.ndarray
    axis: np.ndarray
    reference: float
    limits: tuple[float, float] | None
    velocity: float | None = None


@dataclass(frozen=True)
class Coupling:
    """A joint that follows another one: its offset from its reference is a polynomial of the other's (lowest first)."""

    of: str
    polynomial: tuple[float, ...]


@dataclass(frozen=True)
class RobotModel:
    """What a robot file says, body by body; body 0 is the world, parents stand before their children.

    places: parent_from_body (4, 4). sites: name to (body, body_from_site). missing: meshes that were left out, and why.
    """

    path: Path
    bodies: tuple[str, ...]
    parents: tuple[int, ...]
    places: tuple[np.ndarray, ...]
    joints: tuple[tuple[ModelJoint, ...], ...]
    sites: dict[str, tuple[int, np.ndarray]]
    shapes: tuple[Shape, ...]
    coupled: dict[str, Coupling]
    missing: tuple[str, ...]

    def frame(self, name: str) -> tuple[int, np.ndarray]:
        """(body, body_from_frame) of a site, or a body where no site has the name; `body:NAME` is always the body.

        Raises ValueError that lists close names.
        """
        if name in self.sites:
            return self.sites[name]
        body = name.removeprefix("body:")
        if body == "world":
            return 0, np.eye(4)
        if body in self.bodies:
            return self.bodies.index(body), np.eye(4)
        raise ValueError(f"{self.path} has no body or site {name!r}{close_names(body, [*self.bodies, *self.sites])}")

    def moving(self, joints: Container[str], base: int) -> set[int]:
        """Bodies that these joints move, and those that carry them from the base on, which is one of them."""
        moved = set[int]()
        for body, parent in enumerate(self.parents):
            if parent in moved or any(joint.name in joints for joint in self.joints[body]):
                moved.add(body)
        carrying = set[int]()
        for body in moved:
            while body not in (0, base):
                body = self.parents[body]
                carrying.add(body)
        return (moved | carrying) - {0}

    def joint(self, name: str) -> ModelJoint:
        """A joint by name. Raises ValueError that lists close names."""
        named = {joint.name: joint for joints in self.joints for joint in joints}
        if name not in named:
            raise ValueError(f"{self.path} has no joint {name!r}{close_names(name, list(named))}")
        return named[name]


def close_names(name: str, names: Sequence[str]) -> str:
    """The end of a message about an unknown name: those that it may have meant, or all of few."""
    names = [each for each in names if each]
    lowered = {each.lower(): each for each in names}
    close = [lowered[each] for each in get_close_matches(name.lower(), lowered, n=4, cutoff=0.5)]
    if not close and len(names) > 12:
        return f"; it has {len(names)}, such as {', '.join(names[:6])}"
    return f"; did you mean {', '.join(close)}?" if close else f"; it has {', '.join(names) or 'none'}"


def read_model(path: str | Path, drawn: bool = False) -> RobotModel:
    """A robot file as numbers. drawn: of bodies with shapes to look at, take those, not the ones that collide.

    Raises FileNotFoundError, ImportError without MuJoCo, and ValueError with MuJoCo's own words for a broken file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give the robot's MJCF (.xml) or URDF file")
    try:
        import mujoco
    except ImportError as error:
        raise ImportError("robot files are read by MuJoCo: pip install 'dexworld[sim]'") from error
    try:
        spec = _drawn_urdf(mujoco, path) if drawn else mujoco.MjSpec.from_file(str(path))
        missing = _bared(mujoco, spec, drawn)
        model, missing = _compiled(spec, missing)
    except (ValueError, mujoco.FatalError) as error:
        raise ValueError(f"{path} is no MJCF or URDF that MuJoCo reads: {' '.join(str(error).split())}") from error
    return _numbers(mujoco, model, path, missing)


def _drawn_urdf(mujoco: Any, path: Path) -> Any:
    """A robot file with the shapes of a URDF that are only drawn, which MuJoCo leaves out unless the file says no."""
    text = path.read_text("utf-8")
    start = re.search(r"<robot\b[^>]*>", text)
    if start is None:
        return mujoco.MjSpec.from_file(str(path))
    keep = '<mujoco><compiler discardvisual="false"/></mujoco>'
    spec = mujoco.MjSpec.from_string(text[: start.end()] + keep + text[start.end() :])
    spec.modelfiledir = str(path.parent)
    return spec


def _bared(mujoco: Any, spec: Any, drawn: bool) -> list[str]:
    """Leave only what moves and its shapes, so that nothing else stops compiling; lists the meshes that are lost."""
    colours = {material.name: material.rgba.copy() for material in spec.materials}
    for kept in (spec.keys, spec.sensors, spec.actuators, spec.excludes, spec.pairs, spec.skins, spec.flexes):
        for element in list(kept):
            spec.delete(element)
    for equality in [each for each in spec.equalities if each.type != mujoco.mjtEq.mjEQ_JOINT]:
        spec.delete(equality)
    for tendon in list(spec.tendons):
        spec.delete(tendon)
    files = {mesh.name: _mesh_file(spec, mesh) for mesh in spec.meshes}
    missing = []
    for body in spec.bodies:
        groups = set()
        for geom in list(body.geoms):
            file = files.get(geom.meshname) if geom.meshname else None
            if isinstance(file, str):
                missing.append(file)
            if isinstance(file, str) or geom.type in (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD):
                spec.delete(geom)
                continue
            geom.rgba = colours.get(geom.material, geom.rgba)
            geom.material, geom.group = "", int(bool(geom.contype or geom.conaffinity))
            geom.contype = geom.conaffinity = 0  # no convex hulls
            groups.add(geom.group)
        for geom in list(body.geoms) if len(groups) > 1 else ():
            if geom.group == int(drawn):  # 0 is only drawn, 1 collides
                spec.delete(geom)
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)
        else:
            mesh.file = str(files[mesh.name]) if mesh.file else ""
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # open meshes have no volume
    for site in spec.sites:
        site.material = ""
    for material in [*spec.materials, *spec.textures]:
        spec.delete(material)
    compiler = spec.compiler
    compiler.balanceinertia, compiler.boundmass, compiler.boundinertia = True, 1e-3, 1e-6
    compiler.fusestatic = compiler.discardvisual = False
    return sorted(set(missing))


def _compiled(spec: Any, missing: list[str]) -> tuple[Any, list[str]]:
    """The compiled model; without its meshes if one of them is what stops it."""
    try:
        return spec.compile(), missing
    except ValueError as error:
        if not spec.meshes:
            raise
        for geom in [each for each in spec.geoms if each.meshname]:
            spec.delete(geom)
        for mesh in list(spec.meshes):
            spec.delete(mesh)
        model = spec.compile()  # raises anew if something else is wrong
        return model, [*missing, f"files are not read: {' '.join(str(error).split())}"]


def _mesh_file(spec: Any, mesh: Any) -> Path | str | None:
    """Where a mesh's file is; as text why it can't be read; None where the model holds the mesh itself."""
    if not mesh.file:
        return None
    folder, file = Path(spec.modelfiledir or ".").resolve(), Path(mesh.file.split("://")[-1])
    places = [folder / spec.meshdir / file, folder / file, folder / file.name]
    if "://" in mesh.file:  # a package somewhere above: its name may be that of a folder or not
        places += [root / file for root in folder.parents] + [root / Path(*file.parts[1:]) for root in folder.parents]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        return f"{mesh.file} is missing"
    if found.suffix.lower() not in _MESHES:
        return f"{mesh.file} is not read: MuJoCo takes .stl, .obj and .msh"
    return found


def _numbers(mujoco: Any, model: Any, path: Path, missing: Sequence[str]) -> RobotModel:
    kinds: tuple[JointKind, ...] = ("free", "ball", "slide", "hinge")
    joints: list[list[ModelJoint]] = [[] for _ in range(model.nbody)]
    velocities = _velocities(path)
    for index in range(model.njnt):
        low, high = map(float, model.jnt_range[index])
        joint = ModelJoint(
            model.joint(index).name,
            kinds[model.jnt_type[index]],
            model.jnt_pos[index].copy(),
            model.jnt_axis[index].copy(),
            float(model.qpos0[model.jnt_qposadr[index]]),
            (low, high) if model.jnt_limited[index] else None,
            velocities.get(model.joint(index).name),
        )
        joints[model.jnt_bodyid[index]].append(joint)
    coupled = {}
    for index in range(model.neq):
        first, second = int(model.eq_obj1id[index]), int(model.eq_obj2id[index])
        if second >= 0 and model.eq_active0[index]:
            polynomial = tuple(map(float, model.eq_data[index][:5]))
            coupled[model.joint(first).name] = Coupling(model.joint(second).name, polynomial)
    sites = {
        model.site(index).name: (int(model.site_bodyid[index]), _place(model.site_pos[index], model.site_quat[index]))
        for index in range(model.nsite)
    }
    names = {getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"): kind for kind in Kind.__args__}  # type: ignore[attr-defined]
    shapes = []
    for index in range(model.ngeom):
        mesh, vertices, faces = int(model.geom_dataid[index]), np.zeros((0, 3)), np.zeros((0, 3), np.int32)
        kind = names[mujoco.mjtGeom(model.geom_type[index])]
        if kind == "mesh":
            start = model.mesh_vertadr[mesh]
            vertices = model.mesh_vert[start : start + model.mesh_vertnum[mesh]].astype(float)
            start = model.mesh_faceadr[mesh]
            faces = model.mesh_face[start : start + model.mesh_facenum[mesh]].copy()
        place = _place(model.geom_pos[index], model.geom_quat[index])
        body, size, collides = (
            int(model.geom_bodyid[index]),
            model.geom_size[index].copy(),
            bool(model.geom_group[index]),
        )
        rgba = tuple(map(float, model.geom_rgba[index]))
        shapes.append(Shape(body, kind, size, place, vertices, collides, faces, None if rgba == _NO_COLOUR else rgba))
    return RobotModel(
        path,
        tuple(model.body(index).name for index in range(model.nbody)),
        tuple(map(int, model.body_parentid)),
        tuple(_place(*both) for both in zip(model.body_pos, model.body_quat, strict=True)),
        tuple(map(tuple, joints)),
        {name: place for name, place in sites.items() if name},
        tuple(shapes),
        coupled,
        tuple(missing),
    )


def _velocities(path: Path) -> dict[str, float]:
    """The velocity limits of a URDF's joints, which MuJoCo doesn't keep; 0 stands for none."""
    root = ElementTree.parse(path).getroot()
    limits = [(joint.get("name", ""), joint.find("limit")) for joint in root.findall("joint")]
    found = {name: float(limit.get("velocity", "0")) for name, limit in limits if limit is not None}
    return {name: velocity for name, velocity in found.items() if velocity > 0}


def _place(position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    placed = np.eye(4)
    placed[:3, :3], placed[:3, 3] = quaternion_matrix(quaternion), position
    return placed


def find_installed(relative: str) -> Path | None:
    """A file below a folder of DEXWORLD_MODELS (separated as in PATH), or of an installed package; None without one."""
    folders = [*os.environ.get("DEXWORLD_MODELS", "").split(os.pathsep), *sys.path]
    return next((Path(folder) / relative for folder in folders if folder and (Path(folder) / relative).is_file()), None)
