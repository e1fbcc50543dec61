"""What a camera's files say, and what looks wrong in them, each finding with what to change."""

from collections.abc import Iterator

import numpy as np

from dexworld.data.camera.camera import Camera, PinholeView
from dexworld.data.camera.camera_files import HandEye
from dexworld.data.hand_checks import OFF_CENTRE, exchanged_sides
from dexworld.robots.robot_findings import Finding

_FIELD_DEG = (5.0, 179.0)  # of view, horizontal; a fisheye's ends may lie beyond, where no pinhole camera looks
_SQUARE = 0.1  # pixels are this nearly square
_SHORTEST = 0.05  # of the picture's width: a shorter focal length is in another unit
_FAR, _FAR_ON_HAND = 5.0, 0.6  # metres from the camera to the base or to the flange
# Where arms work, metres: in the base's frame, and before the flange.
_WORKPLACE = np.stack(np.meshgrid([0.3, 0.5, 0.7], [-0.3, 0.0, 0.3], [0.0, 0.25, 0.5]), axis=-1).reshape(-1, 3)
_BEFORE_FLANGE = np.stack(np.meshgrid([-0.05, 0.05], [-0.05, 0.05], [0.15, 0.3]), axis=-1).reshape(-1, 3)
_SEEN = 0.5  # share of these that the inverse pose must show to be believed


def camera_facts(camera: Camera) -> list[str]:
    """Lines that describe a camera with a size: fields of view, focal lengths, what the lens does at the corners."""
    assert camera.size is not None
    height, width = camera.size
    sides = zip(("horizontal", "vertical"), _fields_deg(camera), strict=True)
    views = ", ".join(f"{value:.1f} degrees {name}".replace("nan", "180 or more") for name, value in sides)
    fx, fy, (cx, cy) = camera.intrinsics[0, 0], camera.intrinsics[1, 1], camera.intrinsics[:2, 2]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    straight = (camera.places(corners) @ camera.intrinsics[:2, :2].T) + camera.intrinsics[:2, 2]
    moved = np.linalg.norm(straight - corners, axis=-1)
    return [
        f"picture: {width} x {height} pixels (width x height)",
        f"field of view: {views}",
        f"focal lengths: {fx:.1f} and {fy:.1f} pixels; principal point: {cx:.1f}, {cy:.1f}",
        f"lens: {camera.model}; it moves the corners by {', '.join(f'{each:.1f}' for each in moved)} pixels".replace(
            "nan", "any number of"
        ),
    ]


def camera_findings(camera: Camera) -> list[Finding]:
    """Findings of a camera with a size."""
    return [Finding("problem", text) for text in _problems(camera)]


def hand_eye_facts(mounted: HandEye) -> list[str]:
    """Lines that describe where a camera is mounted."""
    place, forward = mounted.parent_from_camera[:3, 3], mounted.parent_from_camera[:3, 2]
    parent = "the flange" if mounted.on_hand else "the base"
    frames = ", ".join(name for name in (mounted.base, mounted.effector, mounted.camera) if name)
    where = f"({', '.join(f'{each:.3f}' for each in place)}) m from {parent}"
    looks = f"it looks along ({', '.join(f'{each:.2f}' for each in forward)})"
    return [f"camera: {where}; {looks}" + (f"; frames {frames}" if frames else "")]


def hand_eye_findings(mounted: HandEye, camera: Camera) -> list[Finding]:
    """Findings of where a camera with a size is mounted."""
    distance, parent = float(np.linalg.norm(mounted.parent_from_camera[:3, 3])), "flange" if mounted.on_hand else "base"
    if distance > (_FAR_ON_HAND if mounted.on_hand else _FAR):
        unit = "are these millimetres? " if distance > 50 else ""
        return [Finding("problem", f"the camera is {distance:.4g} m from the {parent}: {unit}give metres")]
    points = _BEFORE_FLANGE if mounted.on_hand else _WORKPLACE
    pose, found = mounted.parent_from_camera, []
    seen, otherwise = _share(camera, np.linalg.inv(pose), points), _share(camera, pose, points)
    region = "what is before the flange" if mounted.on_hand else "where an arm works, 0.3 to 0.7 m before its base,"
    if not seen and otherwise >= _SEEN:
        why = f"the camera sees nothing of {region} and the inverse pose sees {otherwise:.0%} of it"
        found.append(Finding("problem", f"{why}: the pose is that of the {parent} in the camera; give its inverse"))
    elif not seen:
        why = f"the camera sees nothing of {region} so check the pose"
        axes = ", and that its frame is the optical one: x right, y down, z forward"
        found.append(Finding("note", why + axes))
    if mounted.camera and "optical" not in mounted.camera and mounted.camera.endswith("_link"):
        found.append(
            Finding(
                "note",
                f"the camera's frame is called {mounted.camera}; frames named _link have x forward in ROS, and the "
                "pose has to be that of the optical frame (z forward)",
            )
        )
    return found


def _problems(camera: Camera) -> Iterator[str]:
    assert camera.size is not None
    (height, width), (cx, cy) = camera.size, camera.intrinsics[:2, 2]
    fx, fy = camera.intrinsics[0, 0], camera.intrinsics[1, 1]
    if cause := exchanged_sides(camera.intrinsics, camera.size):
        yield f"{cause}; calibrate again with pictures as they come"
        return
    if fx < _SHORTEST * width:
        yield (
            f"the focal length is {fx:.4g} pixels for pictures of {width} pixels: is it in millimetres or a share of "
            "the width? Give pixels"
        )
        return
    if max(abs(cx / width - 0.5), abs(cy / height - 0.5)) > OFF_CENTRE:
        yield (
            f"the principal point ({cx:.0f}, {cy:.0f}) is far from the middle of {width} x {height} (width x height): "
            f"the intrinsics are those of pictures of about {2 * cx:.0f} x {2 * cy:.0f}"
        )
        return
    if abs(fx / fy - 1) > _SQUARE:
        yield (
            f"pixels are {fx / fy:.2f} times as high as wide: the picture was stretched, or fx and fy belong to "
            "different sizes"
        )
    field = _fields_deg(camera)[0]
    if not (_FIELD_DEG[0] < field < _FIELD_DEG[1] or np.isnan(field)):
        yield f"the horizontal field of view is {field:.1f} degrees: check the focal length"
    try:
        _ = PinholeView(camera, camera.size).undistorted_intrinsics
    except ValueError as error:
        yield str(error)


def _fields_deg(camera: Camera) -> tuple[float, float]:
    """Horizontal and vertical field of view through the principal point, degrees; NaN where the lens model fails."""
    assert camera.size is not None
    (height, width), (cx, cy) = camera.size, camera.intrinsics[:2, 2]
    ends = camera.places(np.array([[[0.0, cy], [width, cy]], [[cx, 0.0], [cx, height]]]))
    angles = np.degrees(np.arctan(ends[:, 1]) - np.arctan(ends[:, 0]))
    return float(angles[0, 0]), float(angles[1, 1])


def _share(camera: Camera, camera_from_parent: np.ndarray, points: np.ndarray) -> float:
    """Share of points (N, 3) of the parent's frame that the camera shows."""
    assert camera.size is not None
    seen = points @ camera_from_parent[:3, :3].T + camera_from_parent[:3, 3]
    ahead = seen[:, 2] > 0.01
    pixels = camera.shown(seen[ahead, :2] / seen[ahead, 2:])
    inside = ((pixels >= 0) & (pixels <= np.array(camera.size[::-1]))).all(axis=-1)
    return float(inside.sum() / len(points))
