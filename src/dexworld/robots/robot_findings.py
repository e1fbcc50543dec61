"""What looks wrong in a robot from a file, each finding with what to change."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dexworld.hands import BONES, HAND_KEYPOINTS, TIPS, WRIST
from dexworld.robots.described_robot import DescribedRobot, palm_axes
from dexworld.robots.description import FINGERS, SIDES

_MOST_RADIANS = 7.0  # some arms turn once around either way; nothing turns further
_LEAST_RANGE = 0.12  # radians; 2 pi read as degrees
_MOST_SLIDE = 5.0  # metres
_LARGEST_HAND, _SMALLEST_HAND, _LONGEST_BONE = 0.5, 0.03, 0.25  # metres, wrist to fingertip
_LARGEST_SPHERE = 0.5
_BENT = 0.4  # share of the way to a joint's far end: fingers are bent and not yet rolled up
_BACKWARD = 0.003  # metres that a fingertip moves out of the back of the hand
_ASKEW = np.cos(np.radians(50.0))


@dataclass(frozen=True)
class Finding:
    """`problem` is implausible and wants a change; `note` is left out or missing, and may be meant."""

    kind: Literal["problem", "note"]
    text: str


def robot_findings(robot: DescribedRobot) -> list[Finding]:
    """All findings, problems first. Sizes that can't be end the search: what follows from them would only repeat it."""
    problems = list(_units(robot)) or [*_layout(robot), *_bending(robot)]
    return [Finding("problem", text) for text in problems] + [Finding("note", text) for text in _missing(robot)]


def rest_pose(robot: DescribedRobot) -> Tensor:
    """Joint positions (J,) with every joint at 0, or where its limits are nearest to it."""
    return robot.clamp(torch.zeros(len(robot.joints), dtype=torch.float64))


def _units(robot: DescribedRobot) -> Iterator[str]:
    hinges = {name: robot.model.joint(name).kind == "hinge" for name in robot.joints}
    spans = dict(zip(robot.joints, robot.limits.tolist(), strict=True))
    turned = [name for name in robot.joints if hinges[name] and max(map(abs, spans[name])) > _MOST_RADIANS]
    if turned:
        low, high = spans[turned[0]]
        yield (
            f"{_some('joint', turned)} may turn from {low:g} to {high:g} rad: are these degrees? Limits of URDF and of "
            "[limits] are radians"
        )
    ranges = [high - low for name, (low, high) in spans.items() if hinges[name]]
    if ranges and max(ranges) < _LEAST_RANGE:
        yield (
            f"no hinge turns further than {np.degrees(max(ranges)):.1f} degrees: radians were read as degrees. Add "
            '<compiler angle="radian"/> to the MJCF'
        )
    slid = [name for name in robot.joints if not hinges[name] and max(map(abs, spans[name])) > _MOST_SLIDE]
    if slid:
        yield f"{_some('slide', slid)} may move {max(map(abs, spans[slid[0]])):g} m: are these millimetres? Give metres"
    points, valid = _rest_points(robot), robot.forward(rest_pose(robot)).valid
    for side in robot.description.hands:
        rows = [row for row in range(SIDES[side].start, SIDES[side].stop) if valid[row]]
        size = float(np.linalg.norm(points[rows] - points[rows[0]], axis=-1).max())
        if size > _LARGEST_HAND or size < _SMALLEST_HAND:
            unit = "are lengths millimetres? " if size > 20 else ""
            yield (
                f"the {side} hand is {size:.3g} m from the wrist to its farthest keypoint, and hands are 0.1 to 0.3 m: "
                f"{unit}give the model in metres, and check which places the keypoints name"
            )
    _, radii = robot.outline(robot.forward(rest_pose(robot)))
    if float(radii.max()) > _LARGEST_SPHERE:
        yield (
            f"a part of the outline has a radius of {float(radii.max()):.3g} m: is a mesh in millimetres? Give it "
            'scale="0.001 0.001 0.001" in the model, or state [[spheres]]'
        )


def _layout(robot: DescribedRobot) -> Iterator[str]:
    points = _rest_points(robot)
    for side, hand in robot.description.hands.items():
        own = points[SIDES[side]]
        for start, end in BONES:
            length = float(np.linalg.norm(own[end] - own[start]))
            if {start, end} <= hand.keypoints.keys() and length > _LONGEST_BONE:
                names = f"{HAND_KEYPOINTS[start]} and {HAND_KEYPOINTS[end]}"
                yield f"{names} of the {side} hand lie {length:.2f} m apart: check the places of this finger"
        for number, finger in enumerate(FINGERS):
            places = [row for row in range(1 + 4 * number, 5 + 4 * number) if row in hand.keypoints]
            far = [float(np.linalg.norm(own[row] - own[WRIST])) for row in places]
            if finger != "thumb" and finger not in hand.stands_in and far and far[-1] < far[0] - 1e-6:
                yield (
                    f"the {_finger(finger)} of the {side} hand ends nearer to the wrist than it begins: list its "
                    "places from the knuckle to the tip"
                )
        rows = {name: 1 + 4 * number for number, name in enumerate(FINGERS[1:], 1) if name not in hand.stands_in}
        there = [name for name, row in rows.items() if row in hand.keypoints]
        knuckles = own[[rows[name] for name in there]]
        if len(there) > 2 and (np.diff((knuckles - knuckles[0]) @ (knuckles[-1] - knuckles[0])) <= 0).any():
            yield f"the knuckles {', '.join(there)} of the {side} hand don't lie in this order: two were swapped"


def _bending(robot: DescribedRobot) -> Iterator[str]:
    """Fingers bend to the side of the palm. If all of a hand's do the opposite, it is the other hand."""
    backward: dict[str, list[str]] = {}
    for side, hand in robot.description.hands.items():
        points, valid = _rest_points(robot), robot.forward(rest_pose(robot)).valid.numpy()
        axes = palm_axes(points[SIDES[side]], valid[SIDES[side]], side, hand)
        if axes is None:
            continue
        fingers = [name for name in FINGERS[1:] if name not in hand.stands_in]
        bends = {name: _bends(robot, side, TIPS[FINGERS.index(name)], axes[:, 0]) for name in fingers}
        moved = {name: joints for name, joints in bends.items() if joints}
        wrong = {name: [joint for joint, way in joints.items() if way < 0] for name, joints in moved.items()}
        whole = {name: sum(joints.values()) for name, joints in moved.items()}
        if moved and all(way < 0 for way in whole.values()):
            backward[side] = [joint for joints in wrong.values() for joint in joints]
            continue
        for name, joints in wrong.items():
            if joints:
                yield (
                    f"{_some('joint', joints)} bends the {_finger(name)} of the {side} hand out of its back: reverse "
                    "the joint's axis, or swap and negate its limits"
                )
        if hand.palm is not None and side == ("right" if "right" in robot.description.hands else "left"):
            turned = robot.forward(rest_pose(robot)).hand_rotation.numpy()
            cosines = (turned * axes).sum(axis=0)[[0, 2]].clip(-1.0, 1.0)
            off = [
                f"{axis} by {np.degrees(np.arccos(cosine)):.0f} degrees"
                for axis, cosine in zip("xz", cosines, strict=True)
                if cosine < _ASKEW
            ]
            if off:
                yield (
                    f"the palm {hand.palm!r} differs from the keypoints in {' and '.join(off)}: name a body or site "
                    "whose x leaves the palm and whose z goes to the fingertips, or leave `palm` out"
                )
    if len(backward) == 2:
        yield "the fingers of both hands bend out of their backs: the tables [left] and [right] are swapped"
    elif backward:
        ((side, reversed_joints),) = backward.items()
        other, names = "left" if side == "right" else "right", _some("joint", reversed_joints)
        yield (
            f"all fingers of the {side} hand bend out of its back: it is a {other} hand, whose table is [{other}], or "
            f"index and little finger are swapped, or the axes are reversed ({names})"
        )


def _bends(robot: DescribedRobot, side: str, tip: int, out_of_palm: np.ndarray) -> dict[str, float]:
    """Metres that a tip moves out of the palm as each hinge that moves this finger alone bends.

    A hinge bends towards its farther limit; one that goes about as far both ways spreads the finger and is left out.
    """
    rest, rows = rest_pose(robot), [SIDES[side].start + each for each in TIPS]
    own, found = SIDES[side].start + tip, dict[str, float]()
    stands_in = {SIDES[side].start + TIPS[FINGERS.index(name)] for name in robot.description.hands[side].stands_in}
    for index in range(robot.arm.stop, len(robot.joints)):
        low, high = robot.limits[index].tolist()
        near, far = sorted((low, high), key=abs)
        if robot.model.joint(robot.joints[index]).kind != "hinge" or abs(far) < 1.5 * abs(near):
            continue
        bent = rest.clone()
        bent[index] = rest[index] + _BENT * (far - rest[index])
        way = (robot.forward(bent).keypoints - robot.forward(rest).keypoints).numpy()
        others = [row for row in rows if row != own and row not in stands_in and np.abs(way[row]).max() > 1e-6]
        along = float(way[own] @ out_of_palm)
        if not others and abs(along) > _BACKWARD:
            found[robot.joints[index]] = along
    return found


def _missing(robot: DescribedRobot) -> Iterator[str]:
    model, description = robot.model, robot.description
    if model.missing:
        rest = f", and {len(model.missing) - 1} more" if len(model.missing) > 1 else ""
        yield f"mesh {model.missing[0]}{rest}; only the outline wants it"
    for name in _idle(robot):
        follows = f" follows {model.coupled[name].of!r}, which isn't controlled, and" if name in model.coupled else ""
        yield (
            f"joint {name!r}{follows} is held at {model.joint(name).reference:g}: list it in `fingers` or `arm`, let "
            "it follow one in [coupled], or say where it stands in [held]"
        )
    for side, hand in description.hands.items():
        for finger in FINGERS:
            first = 1 + 4 * FINGERS.index(finger)
            gone = sum(row not in hand.keypoints for row in range(first, first + 4))
            if finger in hand.stands_in:
                yield f"the {_finger(hand.stands_in[finger])} of the {side} hand stands in for the {_finger(finger)}"
            elif gone:
                yield f"the {_finger(finger)} of the {side} hand lacks {gone} of 4 keypoints"
    still = _moving_nothing(robot)
    if still:
        yield f"{_some('joint', still)} moves no keypoint"
    for name, drive in robot.drives.items():
        limits = model.joint(name).limits
        if name in robot.joints or limits is None:
            continue
        low, high = robot.limits[drive.source].tolist()
        reached = np.polynomial.polynomial.polyval(np.linspace(low, high, 50), drive.polynomial)
        if reached.min() < limits[0] - 0.05 or reached.max() > limits[1] + 0.05:
            span = f"[{reached.min():.2f}, {reached.max():.2f}]"
            yield (
                f"joint {name!r} follows {robot.joints[drive.source]!r} through {span}, beyond its own limits "
                f"[{limits[0]:.2f}, {limits[1]:.2f}]: check its coupling, or narrow the limits in [limits]"
            )


def _idle(robot: DescribedRobot) -> list[str]:
    """Joints on the way to what the robot moves, and on it, that nothing drives and nobody said where to hold."""
    model, base = robot.model, robot.model.frame(robot.description.base)[0]
    known = robot.drives.keys() | robot.description.held.keys()
    bodies = sorted(model.moving(robot.drives, base) - {base})
    return [joint.name for body in bodies for joint in model.joints[body] if joint.name not in known]


def _moving_nothing(robot: DescribedRobot) -> list[str]:
    low, high = robot.limits.unbind(-1)
    bent = low + 0.37 * (high - low)  # a straight finger may turn about its own line
    moved = torch.where(torch.eye(len(bent), dtype=torch.bool), low + 0.67 * (high - low), bent)
    way = (robot.forward(moved).keypoints - robot.forward(bent).keypoints).abs().amax((-1, -2))
    return [name for name, far in zip(robot.joints, way.tolist(), strict=True) if far < 1e-9]


def _rest_points(robot: DescribedRobot) -> np.ndarray:
    return robot.forward(rest_pose(robot)).keypoints.numpy()


def _finger(name: str) -> str:
    return name if name == "thumb" else f"{name} finger"


def _some(noun: str, names: list[str]) -> str:
    """`joint a`, or `joints a, b and 3 more`."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"
