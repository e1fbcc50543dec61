"""The page of `dexworld robot check`: a robot from two sides with its keypoints, and every joint at its ends."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dexworld.hands import BONES, KEYPOINT_NAMES, KEYPOINTS_PER_HAND
from dexworld.report import html
from dexworld.report.overlay import FINGER_COLOURS
from dexworld.robots.described_robot import DescribedRobot, palm_axes
from dexworld.robots.description import SIDES
from dexworld.robots.robot import HandPose
from dexworld.robots.robot_findings import Finding, rest_pose

_AROUND = 0.04  # metres around what a picture shows
_ENDS = ("#3b82f6", "#9ca3af", "#ef4444")  # low, rest, high
_COLOURS = ["white", *(f"rgb{colour}".replace(" ", "") for colour in FINGER_COLOURS for _ in range(4))]  # of rows
_LEAD = (
    "Spheres are the outline that planning and safety work with. Keypoints: thumb orange, index yellow, middle green, "
    "ring blue, little finger violet. Point at one to read its name."
)
_MOVED = (
    "Every controlled joint alone, seen from where it moves most: at its lower limit blue, at rest grey, at its upper "
    "limit red."
)


def write_robot_page(folder: Path, robot: DescribedRobot, findings: Sequence[Finding]) -> Path:
    """Write `folder`/report.html, a page without any outside resource, and return its path."""
    description, model = robot.description, robot.model
    pose = robot.forward(rest_pose(robot))
    centres, radii = (value.numpy() for value in robot.outline(pose))
    kinds = {kind: [(each.text,) for each in findings if each.kind == kind] for kind in ("problem", "note")}
    tiles = [
        (str(len(robot.joints)), "controlled joints"),
        (str(len(robot.drives) - len(robot.joints)), "joints that follow them"),
        (str(int(pose.valid.sum())), "keypoints"),
        (str(len(radii)), "spheres"),
    ]
    lead = f"{model.path.name}, as {Path(description.source).name} describes it."
    return html.write_page(
        folder / "report.html",
        f"{description.name}: check",
        html.opening(description.name, lead, tiles),
        html.section("To change", html.table(("Problem",), kinds["problem"])) if kinds["problem"] else None,
        html.section("Left out or assumed", html.table(("Note",), kinds["note"])) if kinds["note"] else None,
        html.section("At rest", _grid(_views(robot, pose, centres, radii)), lead=_LEAD),
        html.section("Every joint", _grid(_joints(robot)), lead=_MOVED),
        html.section("Joints", html.table(("Joint", "Moves", "From", "To", "Followed by"), _rows(robot), 2)),
        footer="Made by dexworld robot check. This page loads nothing from elsewhere.",
    )


def _grid(pictures: Sequence[html.Markup]) -> html.Markup:
    return html.box("sheet", *pictures)


def _views(robot: DescribedRobot, pose: HandPose, centres: np.ndarray, radii: np.ndarray) -> list[html.Markup]:
    """Every hand from the front of its palm and from its index finger's side; and the whole robot if it has an arm."""
    keypoints, valid, found = pose.keypoints.numpy(), pose.valid.numpy(), []
    for side in robot.description.hands:
        axes, shown = _hand_axes(robot, pose, side), keypoints[SIDES[side]][valid[SIDES[side]]]
        near = ((centres > shown.min(0) - _AROUND) & (centres < shown.max(0) + _AROUND)).all(-1)
        views = (("into the palm", axes[:, 1], axes[:, 0]), ("from the side", -axes[:, 0], axes[:, 1]))
        for name, right, towards in views:
            plane = np.stack([right, axes[:, 2]])
            spheres = _spheres(centres[near], radii[near], plane, towards)
            drawn = [spheres, *_bones(keypoints, valid, plane), *_dots(keypoints, valid, plane)]
            found.append(html.figure(_picture(drawn, shown @ plane.T), f"{side} hand, {name}"))
    if robot.arm.stop:
        right, up, towards = _best_view(centres - centres.mean(axis=0), np.eye(3))
        plane, around = np.stack([right, up]), radii[:, None]
        drawn = [_spheres(centres, radii, plane, towards), *_bones(keypoints, valid, plane)]
        shown = np.concatenate([centres - around, centres + around]) @ plane.T
        found.append(html.figure(_picture(drawn, shown), "the whole robot"))
    return found


def _joints(robot: DescribedRobot) -> list[html.Markup]:
    """A picture a joint: the arm's show the whole chain along the base's axes, others the hand along the palm's."""
    found, rest = [], rest_pose(robot)
    palm = _hand_axes(robot, robot.forward(rest), "right" if "right" in robot.description.hands else "left")
    for index, name in enumerate(robot.joints):
        positions = rest.repeat(3, 1)
        positions[[0, 2], index] = robot.limits[index]
        pose = robot.forward(positions)
        keypoints, valid = pose.keypoints.numpy(), pose.valid.numpy()
        of_arm = index < robot.arm.stop
        chain = np.concatenate([pose.links.numpy(), pose.wrist.numpy()[:, None]], axis=1)
        shown = np.concatenate([keypoints[:, valid], *([chain] if of_arm else [])], axis=1)
        right, up, _ = _best_view((shown - shown[1]).reshape(-1, 3), np.eye(3) if of_arm else palm)
        plane, drawn = np.stack([right, up]), list[html.Markup]()
        for row in (1, 0, 2):
            drawn += _bones(keypoints[row], valid, plane, _ENDS[row])
            drawn += [_line(chain[row] @ plane.T, _ENDS[row])] if of_arm else []
        found.append(html.figure(_picture(drawn, shown.reshape(-1, 3) @ plane.T), name))
    return found


def _hand_axes(robot: DescribedRobot, pose: HandPose, side: str) -> np.ndarray:
    """A palm's axes in the base frame, (3, 3): of its keypoints where they tell them."""
    own = SIDES[side]
    axes = palm_axes(pose.keypoints[own].numpy(), pose.valid[own].numpy(), side, robot.description.hands[side])
    return pose.hand_rotation.numpy() if axes is None else axes


def _best_view(ways: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, up and the way to the eye along that of the axes (3, 3) which shows most of the ways (N, 3)."""
    x, y, z = axes.T
    views = ((y, z, x), (-x, z, y), (y, -x, z))
    return views[int(np.argmin(np.square(ways @ axes).sum(axis=0)))]


def _spheres(centres: np.ndarray, radii: np.ndarray, plane: np.ndarray, towards: np.ndarray) -> html.Markup:
    """Circles, the farthest first."""
    flat = centres @ plane.T
    circles = [
        html.tag("circle", cx=f"{flat[row, 0]:.4f}", cy=f"{-flat[row, 1]:.4f}", r=f"{radii[row]:.4f}")
        for row in np.argsort(centres @ towards)
    ]
    return html.tag("g", *circles, fill="#c9ced6", fill_opacity=0.75, stroke="#8b93a1", stroke_width=0.0005)


def _bones(keypoints: np.ndarray, valid: np.ndarray, plane: np.ndarray, colour: str = "") -> list[html.Markup]:
    flat, found = keypoints @ plane.T, []
    for start in range(0, len(keypoints), KEYPOINTS_PER_HAND):
        for a, b in BONES:
            if valid[start + a] and valid[start + b]:
                found.append(_line(flat[[start + a, start + b]], colour or _COLOURS[b]))
    return found


def _dots(keypoints: np.ndarray, valid: np.ndarray, plane: np.ndarray) -> list[html.Markup]:
    flat = keypoints @ plane.T
    return [
        html.tag(
            "circle",
            html.tag("title", KEYPOINT_NAMES[row]),
            cx=f"{flat[row, 0]:.4f}",
            cy=f"{-flat[row, 1]:.4f}",
            r="0.003",
            fill=_COLOURS[row % KEYPOINTS_PER_HAND],
            stroke="#14161a",
            stroke_width="0.0008",
        )
        for row in map(int, np.flatnonzero(valid))
    ]


def _line(points: np.ndarray, colour: str) -> html.Markup:
    path = " ".join(f"{x:.4f},{-y:.4f}" for x, y in points)
    return html.tag("polyline", points=path, stroke=colour)


def _picture(drawn: Sequence[html.Markup], shown: np.ndarray) -> html.Markup:
    """An SVG of metres that holds all the shown points (N, 2), up being up."""
    low, high = shown.min(axis=0) - _AROUND, shown.max(axis=0) + _AROUND
    side = float((high - low).max())
    left, top = (low[0] + high[0] - side) / 2, -(low[1] + high[1] + side) / 2
    box = f"{left:.4f} {top:.4f} {side:.4f} {side:.4f}"
    lines = {"stroke_width": f"{side / 110:.5f}", "stroke_linecap": "round", "stroke_linejoin": "round"}
    return html.tag("svg", *drawn, viewBox=box, role="img", fill="none", **lines)


def _rows(robot: DescribedRobot) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for index, (name, (low, high)) in enumerate(zip(robot.joints, robot.limits.tolist(), strict=True)):
        kind, unit = ("slides", "m") if robot.model.joint(name).kind == "slide" else ("turns", "rad")
        others = [other for other, drive in robot.drives.items() if drive.source == index and other != name]
        rows.append((name, kind, f"{low:.3f} {unit}", f"{high:.3f} {unit}", ", ".join(others)))
    return rows
