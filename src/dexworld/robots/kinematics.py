"""Batched, differentiable forward kinematics of any tree of hinges and slides.

Links of the same depth are computed together. Inside, the batch is the last axis: a pose is (3, 4, B), and every
operation is elementwise over B. For hundreds of poses that takes half the time of products of small matrices, and
equal joint positions give equal poses wherever they stand in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

BASE = -1  # the link that doesn't move
Numbers = Sequence[float] | np.ndarray
Point = tuple[int, Numbers]  # a joint or BASE, and metres in the frame that it moves


@dataclass(frozen=True)
class TreeJoint:
    """A hinge or slide between a link and its parent.

    parent: index of the joint that moves the parent; `BASE` is the base. Parents stand before their children.
    parent_from_joint: (4, 4) at joint position 0; a hinge's axis passes through its origin. axis: in that frame.
    """

    parent: int
    parent_from_joint: np.ndarray
    axis: Numbers
    slides: bool = False


@dataclass(frozen=True)
class Drive:
    """What moves a joint: a polynomial (lowest power first) of the position of controlled joint `source`."""

    source: int
    polynomial: tuple[float, ...] = (0.0, 1.0)


class Constants:
    """A robot's numbers, and copies of them in other dtypes and on other devices, each made once."""

    def __init__(self, *numbers: Tensor) -> None:
        self.numbers, self._copies = numbers, dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]]()

    def like(self, other: Tensor) -> tuple[Tensor, ...]:
        """The numbers on the device of `other`, those with a floating point in its dtype."""
        key = (other.dtype, other.device)
        if key not in self._copies:
            floating = [number.to(other) if number.is_floating_point() else None for number in self.numbers]
            found = zip(floating, self.numbers, strict=True)
            self._copies[key] = tuple(number.to(other.device) if same is None else same for same, number in found)
        return self._copies[key]


@dataclass(frozen=True)
class Places:
    """K points that are fixed to links, prepared by `Kinematics.places` for `Frames.points`.

    groups: (depth, (rows of its links, offsets (n, 3, 1, 1) in their frames)) of points that aren't a link's origin.
    order: rows (K,) among the origins of all links by depth, then the points of `groups`.
    """

    groups: tuple[tuple[int, Constants], ...]
    order: Constants


@dataclass(frozen=True)
class Frames:
    """Poses of all links for one batch of joint positions.

    levels: base_from_link by depth, (n, 3, 4, B); depth 0 is the base. batch: the leading dimensions, B together.
    """

    levels: tuple[Tensor, ...]
    batch: tuple[int, ...]

    def points(self, places: Places) -> Tensor:
        """The K points (..., K, 3) in the base frame."""
        found = [level[:, :, 3] for level in self.levels]
        for depth, constants in places.groups:
            rows, offsets = constants.like(self.levels[0])
            x, y, z, point = self.levels[depth].index_select(0, rows).unbind(2)
            for axis, offset in zip((x, y, z), offsets.unbind(1), strict=True):
                point = torch.addcmul(point, axis, offset)
            found.append(point)
        (order,) = places.order.like(self.levels[0])
        return torch.cat(found).permute(2, 0, 1).index_select(1, order).reshape(*self.batch, len(order), 3)

    def rotation(self, depth: int, row: int) -> Tensor:
        """base_from_link (..., 3, 3) of a link that `Kinematics.link` found."""
        return self.levels[depth][row, :, :3].permute(2, 0, 1).reshape(*self.batch, 3, 3)


class Kinematics:
    """Poses of a tree's links for positions (..., J) of controlled joints.

    joints: of the tree, parents first. drives: what moves each; by default the controlled joint of the same number.
    """

    def __init__(self, joints: Sequence[TreeJoint], drives: Sequence[Drive] | None = None) -> None:
        drives = [Drive(index) for index in range(len(joints))] if drives is None else drives
        depth, self._link, order, parents = {BASE: 0}, {BASE: (0, 0)}, list[int](), list[list[int]]()
        for index, joint in enumerate(joints):
            depth[index] = depth[joint.parent] + 1
        for level, members in groupby(sorted(range(len(joints)), key=depth.__getitem__), key=depth.__getitem__):
            links = sorted(members, key=lambda link: self._link[joints[link].parent][1])
            self._link |= {link: (level, row) for row, link in enumerate(links)}
            parents.append([self._link[joints[link].parent][1] for link in links])
            order += links
        self._sizes = [len(rows) for rows in parents]
        wider = [above > 1 for above in (1, *self._sizes[:-1])]  # one parent is the same for all
        self._parents = [
            Constants(torch.tensor(rows)) if wide else None for rows, wide in zip(parents, wider, strict=True)
        ]
        polynomials = [np.trim_zeros(drives[link].polynomial, "b") for link in order]
        width = max([2, *map(len, polynomials)])
        powers = torch.tensor([[*each, *[0.0] * (width - len(each))] for each in polynomials], dtype=torch.float64)
        self._follows = any(tuple(each) != (0.0, 1.0) for each in polynomials)
        sources = torch.tensor([drives[link].source for link in order], dtype=torch.long)
        slides = torch.tensor([joints[link].slides for link in order], dtype=torch.bool)
        terms = torch.tensor(np.array([_terms(joints[link]) for link in order]))
        axes = np.array([np.divide(joints[link].axis, np.linalg.norm(joints[link].axis)) for link in order])
        self._axes = Constants(torch.tensor(axes).double()[:, None, :, None])
        self._above = [(joint.parent, order.index(link), drives[link].source) for link, joint in enumerate(joints)]
        self._moves = Constants(sources, powers[..., None], slides[:, None, None, None], *terms[..., None].unbind(1))
        self._base = Constants(torch.eye(4, dtype=torch.float64)[None, :3, :, None], torch.eye(4).double()[3, :, None])

    def link(self, joint: int) -> tuple[int, int]:
        """(depth, row) of the link that a joint moves, or of `BASE`, in `Frames`."""
        return self._link[joint]

    def axis(self, joint: int) -> np.ndarray:
        """Direction (3,) of a joint's axis, in the frame that it moves."""
        axes, row = self._axes.numbers[0], self._above[joint][1]
        return axes[row, 0, :, 0].numpy()

    def places(self, points: Sequence[Point]) -> Places:
        """K points, each fixed to the link of a joint (or `BASE`) at an offset (3) in that joint's frame."""
        start = np.cumsum([0, 1, *self._sizes])
        groups: dict[int, list[tuple[int, Numbers, int]]] = {}
        order = torch.zeros(len(points), dtype=torch.long)
        for number, (joint, offset) in enumerate(points):
            level, row = self._link[joint]
            if any(offset):
                groups.setdefault(level, []).append((row, offset, number))
            else:
                order[number] = int(start[level]) + row
        prepared, count = [], int(start[-1])
        for level, group in groups.items():
            rows, offsets, numbers = zip(*group, strict=True)
            metres = torch.tensor(np.array(offsets, float))[:, :, None, None]
            prepared.append((level, Constants(torch.tensor(rows), metres)))
            order[list(numbers)] = torch.arange(count, count + len(group))
            count += len(group)
        return Places(tuple(prepared), Constants(order))

    def chains(self, points: Sequence[Point]) -> Constants:
        """The joints that move each of K points, for `jacobian`: rows of points, of joints, and of controls."""
        found = []
        for number, (link, _) in enumerate(points):
            while link != BASE:
                link, row, source = self._above[link]
                found.append((number, row, source))
        return Constants(torch.tensor(found, dtype=torch.long).reshape(-1, 3).T)

    def jacobian(self, joint_positions: Tensor, points: Tensor, frames: Frames, chains: Constants) -> Tensor:
        """(..., 3, K, J): how K points (..., K, 3) of `frames` change with the controlled joint positions (..., J)."""
        flat = joint_positions.reshape(-1, joint_positions.shape[-1]).T
        sources, powers, slides, *_ = self._moves.like(flat)
        (axes,), ((numbers, rows, controls),) = self._axes.like(flat), chains.like(flat)
        poses = torch.cat(frames.levels[1:])
        along = (poses[:, :, :3] * axes).sum(dim=2).index_select(0, rows)  # (pairs, 3, B)
        placed = points.reshape(-1, *points.shape[-2:]).permute(1, 2, 0)  # (K, 3, B)
        arms = placed.index_select(0, numbers) - poses[:, :, 3].index_select(0, rows)
        moved = torch.where(slides[rows, 0], along, torch.linalg.cross(along, arms, dim=1))
        if self._follows:
            rising = powers[:, 1:] * torch.arange(1, powers.shape[1]).to(powers)[:, None]
            moved = moved * _polynomial(rising, flat.index_select(0, sources)).index_select(0, rows)[:, None]
        moved = moved.permute(2, 1, 0)
        cells = moved.new_zeros(*moved.shape[:2], len(placed) * len(flat))
        cells.index_add_(2, numbers * len(flat) + controls, moved)
        return cells.reshape(*joint_positions.shape[:-1], 3, len(placed), len(flat))

    def frames(self, joint_positions: Tensor) -> Frames:
        """Poses of all links for controlled joint positions (..., J), in their dtype and on their device."""
        flat = joint_positions.reshape(-1, joint_positions.shape[-1]).T
        sources, powers, slides, fixed, cosine, sine = self._moves.like(flat)
        position = flat.index_select(0, sources)  # (links, B)
        if self._follows:
            position = _polynomial(powers, position)
        position = position[:, None, None]
        sin = torch.where(slides, position, position.sin())
        local = torch.addcmul(torch.addcmul(fixed, cosine, position.cos()), sine, sin)  # parent_from_joint, all links
        rows = [row.split(self._sizes) for row in local.unsqueeze(1).unbind(2)]
        base, last = self._base.like(flat)
        levels = [base.expand(-1, -1, -1, flat.shape[-1])]
        for parents, *axes in zip(self._parents, *rows, strict=True):
            parent = levels[-1]
            if parents is not None:
                parent = parent.index_select(0, *parents.like(flat))
            *columns, origin = parent.unsqueeze(3).unbind(2)
            pose = origin * last
            for column, axis in zip(columns, axes, strict=True):
                pose = torch.addcmul(pose, column, axis)
            levels.append(pose)
        return Frames(tuple(levels), tuple(joint_positions.shape[:-1]))


def _polynomial(powers: Tensor, value: Tensor) -> Tensor:
    """Horner's scheme: coefficients (n, width, 1), values (n, B)."""
    result = powers[:, -1].expand_as(value)
    for power in range(powers.shape[1] - 2, -1, -1):
        result = torch.addcmul(powers[:, power], result, value)
    return result


def _terms(joint: TreeJoint) -> np.ndarray:
    """Fixed, cosine and sine parts (3, 3, 4) of parent_from_joint, by Rodrigues' formula; a slide's last is linear."""
    place, axis = joint.parent_from_joint, np.asarray(joint.axis, float) / np.linalg.norm(joint.axis)
    terms = np.zeros((3, 3, 4))
    terms[0, :, 3] = place[:3, 3]
    if joint.slides:
        terms[0, :, :3], terms[2, :, 3] = place[:3, :3], place[:3, :3] @ axis
        return terms
    along = np.outer(axis, axis)
    terms[0, :, :3] = place[:3, :3] @ along
    terms[1, :, :3] = place[:3, :3] @ (np.eye(3) - along)
    terms[2, :, :3] = place[:3, :3] @ np.cross(np.eye(3), axis)
    return terms


def quaternion_matrix(quaternion: Numbers) -> np.ndarray:
    """Rotation (3, 3) of a quaternion (w, x, y, z), normalised first."""
    w, x, y, z = np.asarray(quaternion, float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def axis_rotation(axis: Numbers, angle: float) -> np.ndarray:
    """Rotation (3, 3) about an axis of length 1, by radians."""
    along = np.outer(axis, axis)
    return along + np.cos(angle) * (np.eye(3) - along) + np.sin(angle) * np.cross(np.eye(3), axis)
