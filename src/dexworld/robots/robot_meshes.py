"""The shapes that a robot's file draws, on the links of another robot that moves alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dexworld.robots.described_robot import DescribedRobot, named_robot, robot_of
from dexworld.robots.kinematics import BASE
from dexworld.robots.shapes import Shape
from dexworld.robots.tree_robot import ORIGIN, TreeRobot

_POSES = 8
_APART, _TURNED = 1e-3, 0.01  # metres and radians between two robots' axes that count as the same


@dataclass(frozen=True)
class RobotLook:
    """What the kitchen's robot looks like. Kinematics and collision shapes stay as they are."""

    meshes: str = ""
    """Robot whose meshes the kitchen's robot wears: `panda-allegro`, or the description of a Panda with a right Allegro
    hand. By default it is made of boxes and capsules."""
    meshes_share: float = 1.0
    """Share of the scenes in which it wears them; a scene's seed decides."""

    def worn(self, seed: int) -> str:
        """The meshes that it wears in the scene of a seed; empty for none."""
        return self.meshes if np.random.default_rng([seed, 9]).random() < self.meshes_share else ""


PLAIN = RobotLook()


def drawn_shapes(own: TreeRobot, look: str) -> list[Shape]:
    """Shapes to look at, each on a link of `own`: its `body` is the joint that moves it, or `BASE`.

    look: a description's file that names its model, or a name that dexworld ships. Raises ValueError where that robot
    has other joints, turns about other lines, or has nothing to look at on a link; otherwise as `Robot.named`.
    """
    other = robot_of(look, drawn=True) if look.endswith(".toml") else named_robot(look, drawn=True)
    if len(other.joints) != len(own.joints):
        raise ValueError(
            f"{look} has {len(other.joints)} joints; the robot that wears its meshes has {len(own.joints)}"
        )
    names = {name: number for number, name in enumerate(other.joints)}
    placed = _links_of(own, other)
    bodies = other.model.moving(other.drives, other.model.frame(other.description.base)[0])
    found = []
    for shape in other.model.shapes:
        link, link_from_body = other.tree.link(shape.body) if shape.body in bodies else (None, np.eye(4))
        number = BASE if link == BASE else None if link is None else names.get(other.tree.names[link])
        if number is not None:  # neither beside the robot nor on a joint that follows another
            place = placed[number] @ link_from_body @ shape.body_from_shape
            found.append(replace(shape, body=number, body_from_shape=place))
    bare = [name for name, number in names.items() if number not in {shape.body for shape in found}]
    if bare:
        why = f": {'; '.join(other.model.missing)}" if other.model.missing else ""
        raise ValueError(f"{look} has nothing to look at on joint {bare[0]!r} and {len(bare) - 1} others{why}")
    return found


def _links_of(own: TreeRobot, other: DescribedRobot) -> dict[int, np.ndarray]:
    """own_link_from_other_link (4, 4) of the base and every joint, from the lines about which joints turn.

    Raises ValueError for the joint whose lines lie furthest apart.
    """
    low, high = own.limits.unbind(-1)
    generator = torch.Generator().manual_seed(0)
    poses = low + (high - low) * torch.rand(_POSES, len(low), generator=generator, dtype=torch.float64)
    order = [other.tree.names.index(name) for name in other.joints]
    ours, ours_along = _frames(own, poses, range(len(order)))
    theirs, theirs_along = _frames(other, poses, order)
    u, _, v = np.linalg.svd(np.einsum("pji,pjk->ik", ours_along, theirs_along))
    turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    aside = np.eye(3) - ours_along[..., :, None] * ours_along[..., None, :]  # (P, J, 3, 3)
    gap = ours[..., :3, 3] - theirs[..., :3, 3] @ turn.T
    shift = np.linalg.solve(aside.sum(axis=(0, 1)), (aside @ gap[..., None])[..., 0].sum(axis=(0, 1)))
    apart = np.linalg.norm((aside @ (gap - shift)[..., None])[..., 0], axis=-1).max(axis=0)  # (J,)
    turned = np.linalg.norm(ours_along - theirs_along @ turn.T, axis=-1).max(axis=0)
    worst = int(np.argmax(apart / _APART + turned / _TURNED))
    if apart[worst] > _APART or turned[worst] > _TURNED:
        raise ValueError(
            f"{other.description.source or other.description.name}: joint {other.joints[worst]!r} turns about a line "
            f"{1e3 * apart[worst]:.1f} mm and {np.degrees(turned[worst]):.1f} degrees from {own.joints[worst]!r}'s"
            "; meshes must be of a robot that moves alike"
        )
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = turn, shift
    links = np.linalg.inv(ours[0]) @ moved @ theirs[0]
    return {BASE: moved, **dict(enumerate(links))}


def _frames(robot: TreeRobot, poses: torch.Tensor, links: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """base_from_link (P, J, 4, 4) of links, and the directions (P, J, 3) of their joints' axes in the base frame."""
    frames = robot.kinematics.frames(poses)
    places = np.tile(np.eye(4), (len(poses), len(links), 1, 1))
    places[..., :3, 3] = frames.points(robot.kinematics.places([(link, ORIGIN) for link in links])).numpy()
    for number, link in enumerate(links):
        places[:, number, :3, :3] = frames.rotation(*robot.kinematics.link(link)).numpy()
    axes = np.stack([robot.kinematics.axis(link) for link in links])
    return places, (places[..., :3, :3] @ axes[..., None])[..., 0]
