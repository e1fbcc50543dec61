"""Robots of several files: a hand on an arm, two arms beside each other."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dexworld.robots.description import Description
from dexworld.robots.kinematics import quaternion_matrix
from dexworld.robots.model_file import Coupling, RobotModel, read_model


def assembled(
    model: RobotModel, description: Description, find: Callable[[str], Path], drawn: bool = False
) -> RobotModel:
    """A model less what a description leaves out, with its parts. find: where a part's file is. drawn: as of
    `read_model`.
    """
    model = _without(model, description.without)
    for part in description.parts:
        other = _welded(_without(read_model(find(part.model), drawn), part.without))
        body, place = model.frame(part.on)
        moved = np.eye(4)
        moved[:3, :3], moved[:3, 3] = quaternion_matrix(part.rotation), part.offset
        model = joined(model, _prefixed(other, part.prefix), body, place @ moved)
    return model


def _without(model: RobotModel, names: Sequence[str]) -> RobotModel:
    """A model less bodies and all below them. Raises ValueError for unknown names."""
    gone = {model.frame(f"body:{name}")[0] for name in names}
    kept: list[int] = []
    for body, parent in enumerate(model.parents):
        if body in gone or (body and parent in gone):
            gone.add(body)
        else:
            kept.append(body)
    number = {body: index for index, body in enumerate(kept)}
    joints = {joint.name for body in kept for joint in model.joints[body]}
    return replace(
        model,
        bodies=tuple(model.bodies[body] for body in kept),
        parents=tuple(number[model.parents[body]] for body in kept),
        places=tuple(model.places[body] for body in kept),
        joints=tuple(model.joints[body] for body in kept),
        sites={name: (number[body], place) for name, (body, place) in model.sites.items() if body in number},
        shapes=tuple(replace(each, body=number[each.body]) for each in model.shapes if each.body in number),
        coupled={name: each for name, each in model.coupled.items() if {name, each.of} <= joints},
    )


def _welded(model: RobotModel) -> RobotModel:
    """A model without the free joints by which its bodies hang in the world."""
    rows = zip(model.joints, model.parents, strict=True)
    return replace(
        model, joints=tuple(tuple(j for j in joints if j.kind != "free" or parent) for joints, parent in rows)
    )


def _prefixed(model: RobotModel, prefix: str) -> RobotModel:
    return replace(
        model,
        bodies=tuple(prefix + name for name in model.bodies),
        joints=tuple(tuple(replace(joint, name=prefix + joint.name) for joint in joints) for joints in model.joints),
        sites={prefix + name: place for name, place in model.sites.items()},
        coupled={prefix + name: Coupling(prefix + each.of, each.polynomial) for name, each in model.coupled.items()},
    )


def joined(model: RobotModel, part: RobotModel, on: int, place: np.ndarray) -> RobotModel:
    """A model with another one's bodies on one of its own, whose frame the other's world has at (4, 4).

    Raises ValueError where a name stands in both.
    """
    twice = {name for name in part.bodies[1:] if name and name in model.bodies}
    if twice:
        raise ValueError(f"body {min(twice)!r} of {part.path} is in the robot already: give its part a `prefix`")
    first = len(model.bodies) - 1  # its body 1 comes after the last one

    def number(body: int) -> int:
        return body + first if body else on

    placed = [place @ each if parent == 0 else each for parent, each in zip(part.parents, part.places, strict=True)]
    sites = {name: (number(body), each if body else place @ each) for name, (body, each) in part.sites.items()}
    return replace(
        model,
        bodies=(*model.bodies, *part.bodies[1:]),
        parents=(*model.parents, *map(number, part.parents[1:])),
        places=(*model.places, *placed[1:]),
        joints=(*model.joints, *part.joints[1:]),
        sites=model.sites | sites,
        shapes=(*model.shapes, *(replace(each, body=number(each.body)) for each in part.shapes if each.body)),
        coupled=model.coupled | part.coupled,
        missing=(*model.missing, *part.missing),
    )
