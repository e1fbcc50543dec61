"""The part of a robot's model that moves: a tree of driven joints below the base, with everything else fixed to it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.polynomial import Polynomial

from dexworld.robots.kinematics import BASE, Drive, Numbers, TreeJoint, axis_rotation
from dexworld.robots.model_file import Coupling, ModelJoint, RobotModel


class ModelTree:
    """Bodies of a model as links of a tree, taken up as they are asked for.

    base: name of the body whose frame positions are in. drives: what moves which joint. held: positions of the others,
    where they aren't those of the file. `joints`, `drives` and `names` are of the links so far, parents first.
    """

    def __init__(self, model: RobotModel, base: str, drives: Mapping[str, Drive], held: Mapping[str, float]) -> None:
        self._model, self._driven, self._held, self._base = model, drives, held, base
        body, place = model.frame(base)
        self._links: dict[int, tuple[int, np.ndarray]] = {body: (BASE, np.linalg.inv(place))}
        self.joints: list[TreeJoint] = []
        self.drives: list[Drive] = []
        self.names: list[str] = []

    def link(self, body: int) -> tuple[int, np.ndarray]:
        """(joint that moves a body, or BASE; joint_from_body). Raises ValueError for what a tree doesn't have."""
        if body in self._links:
            return self._links[body]
        if body == 0:
            raise ValueError(f"a part of the hand or arm isn't below the base {self._base!r}; choose a base above all")
        link, place = self.link(self._model.parents[body])
        place = place @ self._model.places[body]
        for joint in self._model.joints[body]:
            link, place = self._moved(link, place, joint, self._model.bodies[body])
        self._links[body] = (link, place)
        return link, place

    def point(self, name: str, offset: Numbers = (0.0, 0.0, 0.0)) -> tuple[int, np.ndarray]:
        """A point at an offset along the axes of a body or site."""
        body, place = self._model.frame(name)
        link, joint_from_body = self.link(body)
        return link, (joint_from_body @ place @ [*offset, 1.0])[:3]

    def _moved(self, link: int, place: np.ndarray, joint: ModelJoint, body: str) -> tuple[int, np.ndarray]:
        if joint.kind in ("free", "ball"):
            raise ValueError(
                f"{self._model.path}: body {body!r} hangs on a {joint.kind} joint; kinematics knows hinges and slides. "
                f"Weld it, replace it by single joints, or choose it as `base`"
            )
        slides, anchored = joint.kind == "slide", place @ _shifted(joint.anchor)
        if joint.name not in self._driven:
            return link, anchored @ _motion(joint, self._held.get(joint.name, joint.reference)) @ _shifted(
                -joint.anchor
            )
        start = anchored @ _motion(joint, 0.0)
        self.joints.append(TreeJoint(link, start, joint.axis.tolist(), slides))
        self.drives.append(self._driven[joint.name])
        self.names.append(joint.name)
        return len(self.joints) - 1, _shifted(-joint.anchor)


def joint_drives(model: RobotModel, controlled: Sequence[str], extra: Mapping[str, Coupling]) -> dict[str, Drive]:
    """What moves each joint that is controlled or follows a controlled one; `extra` couplings replace the model's.

    Raises ValueError for unknown names, for controlled joints that follow others, and for circles.
    """
    for name in (*controlled, *extra, *(coupling.of for coupling in extra.values())):
        model.joint(name)
    couplings = model.coupled | dict(extra)
    numbers = {name: index for index, name in enumerate(controlled)}

    def drive(name: str, followers: tuple[str, ...]) -> Drive | None:
        if name in followers:
            circle = " -> ".join([*followers[followers.index(name) :], name])
            raise ValueError(f"joints follow each other in a circle: {circle}; let the last one be controlled")
        if name not in couplings:
            return Drive(numbers[name]) if name in numbers else None
        source = drive(couplings[name].of, (*followers, name))
        if source is None:
            return None
        own, other = model.joint(name), model.joint(couplings[name].of)
        whole = own.reference + Polynomial(couplings[name].polynomial)(Polynomial(source.polynomial) - other.reference)
        return Drive(source.source, tuple(map(float, whole.coef)))

    found = {name: drive(name, ()) for name in (*controlled, *couplings)}
    for name in controlled:
        if name in couplings:
            raise ValueError(f"joint {name!r} follows {couplings[name].of!r}; leave it out of `arm` and `fingers`")
    return {name: each for name, each in found.items() if each is not None}


def _shifted(offset: np.ndarray) -> np.ndarray:
    shifted = np.eye(4)
    shifted[:3, 3] = offset
    return shifted


def _motion(joint: ModelJoint, position: float) -> np.ndarray:
    """(4, 4) of a joint moved from its reference to a position."""
    moved, by = np.eye(4), position - joint.reference
    if joint.kind == "slide":
        moved[:3, 3] = by * joint.axis
    else:
        moved[:3, :3] = axis_rotation(joint.axis, by)
    return moved
