"""What a visitor sees in 3-D: the picture on a screen, the hand's bones, its way, objects, the counter."""

from typing import Any

import numpy as np

from dexworld.hands import BONES, KEYPOINTS_PER_HAND
from dexworld.report.overlay import FINGER_COLOURS, WRIST_COLOUR
from dexworld.sim.kitchen.kitchen_scene import COUNTER_BOX
from dexworld.sim.poses import quaternion

SCREEN_M = 2.6  # metres in front of the camera that pictures hang at
BOARD_M, BOARD_PLACE = 0.9, (0.0, -0.25, 1.5)  # metres: its width, and its middle as the camera sees it
BONE_M, WAY_M, MARK_M = 0.007, 0.004, 0.01  # thickness
MARGIN = 1.03  # around the picture
WAY_COLOUR = (70, 178, 255)
CHOSEN_COLOUR = (255, 196, 0)
COUNTER_COLOUR = (120, 124, 140)
_PAIRS = np.array([(side + a, side + b) for side in (0, KEYPOINTS_PER_HAND) for a, b in BONES])
_COLOURS = np.array([FINGER_COLOURS[(b % KEYPOINTS_PER_HAND - 1) // 4] for _, b in _PAIRS], np.uint8)


class Camera:
    """Where pictures are seen from: intrinsics (3, 3), size (height, width), world_from_camera (4, 4)."""

    def __init__(self, intrinsics: np.ndarray, size: tuple[int, int], world_from_camera: np.ndarray) -> None:
        self.intrinsics, self.size, self.pose = intrinsics, size, world_from_camera

    @property
    def tangents(self) -> tuple[float, float]:
        """Of half the picture's width and height, seen from the camera."""
        height, width = self.size
        focal, centre = self.intrinsics[[0, 1], [0, 1]], self.intrinsics[[0, 1], 2]
        across, down = np.maximum(centre, np.array([width, height]) - centre) / focal
        return float(across), float(down)

    def screen(self) -> tuple[np.ndarray, float, float]:
        """Centre (3,) of the picture at `SCREEN_M`, in the world, and its width and height in metres."""
        height, width = self.size
        focal, centre = self.intrinsics[[0, 1], [0, 1]], self.intrinsics[[0, 1], 2]
        middle = np.append((np.array([width, height]) / 2 - centre) / focal, 1.0) * SCREEN_M
        place = self.pose[:3, :3] @ middle + self.pose[:3, 3]
        return place, width / focal[0] * SCREEN_M, height / focal[1] * SCREEN_M

    def fov(self, aspect: float) -> float:
        """Vertical angle, radians, at which a window of this aspect (width by height) shows the whole picture."""
        across, down = self.tangents
        return 2.0 * float(np.arctan(MARGIN * max(down, across / max(aspect, 0.1))))


def wxyz(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """(w, x, y, z) of a rotation (3, 3)."""
    w, x, y, z = (float(each) for each in quaternion(rotation))
    return w, x, y, z


def bones(keypoints: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines (n, 2, 3) and colours (n, 2, 3) of the hands' bones, of keypoints (42, 3) with those that are valid."""
    shown = valid[_PAIRS].all(axis=1)
    colours = np.repeat(_COLOURS[shown][:, None], 2, axis=1)
    return keypoints[_PAIRS[shown]].astype(np.float32), colours


class HandScene:
    """The nodes of one visitor's scene below `root`. scene: viser's `SceneApi` of that visitor."""

    def __init__(self, scene: Any, root: str) -> None:
        self.scene, self.root = scene, root
        self._nodes: dict[str, Any] = {}
        self._hung: tuple[np.ndarray, Camera] | None = None
        self._marked: tuple[np.ndarray, bool] | None = None

    def screen(self, picture: np.ndarray, camera: Camera, through: bool) -> None:
        """Hang a picture (H, W, 3) where the camera sees it, or on a board above for who looks from elsewhere."""
        self._hung = picture, camera
        self.seen_through(through)

    def seen_through(self, through: bool) -> None:
        """Show what belongs to looking through the camera, or else what belongs to looking from outside."""
        if self._hung is not None:
            self._hang(*self._hung, "screen" if through else "board")
        for name, node in self._nodes.items():
            if name == "screen":
                node.visible = through
            elif name.startswith(("board", "counter", "object", "camera")):
                node.visible = not through

    def _hang(self, picture: np.ndarray, camera: Camera, name: str) -> None:
        place, width, height = camera.screen()
        rotation = camera.pose[:3, :3]
        if name == "board":
            place = camera.pose[:3, 3] + rotation @ np.array(BOARD_PLACE)
            width, height = BOARD_M, BOARD_M * height / width
        node = self._nodes.get(name)
        if node is None or (node.render_width, node.render_height) != (width, height):
            self._nodes[name] = node = self.scene.add_image(
                f"{self.root}/{name}", picture, width, height, jpeg_quality=88, cast_shadow=False, receive_shadow=False
            )
        elif node.image is not picture:
            node.image = picture
        node.position, node.wxyz = place, wxyz(rotation)

    def hands(self, keypoints: np.ndarray, valid: np.ndarray) -> None:
        """Draw hands of keypoints (42, 3)."""
        lines, colours = bones(keypoints, valid)
        self._lines("hand", lines, colours, BONE_M)
        self._points("joints", keypoints[valid], np.array(WRIST_COLOUR), BONE_M)

    def way(self, places: np.ndarray, name: str = "way", colour: tuple[int, int, int] = WAY_COLOUR) -> None:
        """Draw the way (T, 3) that something went, such as the wrist; gaps are at NaN."""
        lines = np.stack([places[:-1], places[1:]], axis=1) if len(places) > 1 else np.zeros((0, 2, 3))
        lines = lines[np.isfinite(lines).all(axis=(1, 2))]
        self._lines(name, lines, np.array(colour), WAY_M)

    def camera(self, camera: Camera) -> None:
        """Draw where the pictures were taken from."""
        height, width = camera.size
        self._nodes["camera"] = self.scene.add_camera_frustum(
            f"{self.root}/camera",
            camera.fov(width / height),
            width / height,
            scale=0.06,
            thickness=WAY_M,
            color=WAY_COLOUR,
            position=camera.pose[:3, 3],
            wxyz=wxyz(camera.pose[:3, :3]),
            cast_shadow=False,
        )

    def objects(self, places: np.ndarray, counter: bool) -> None:
        """Mark objects (n, 3), and the kitchen's counter where there is one."""
        if self._marked is not None and self._marked[1] == counter and np.array_equal(self._marked[0], places):
            return
        self._marked = places, counter
        for name in [each for each in self._nodes if each.startswith(("object", "counter"))]:
            self._nodes.pop(name).remove()
        if counter:
            low, high = np.array(COUNTER_BOX)
            self._nodes["counter"] = self.scene.add_box(
                f"{self.root}/counter", COUNTER_COLOUR, high - low, position=(low + high) / 2, opacity=0.25
            )
        for number, place in enumerate(places):
            self._nodes[f"object{number}"] = self.scene.add_icosphere(
                f"{self.root}/object{number}", 0.03, WAY_COLOUR, position=place, opacity=0.35
            )

    def marks(self, places: np.ndarray, chosen: int) -> None:
        """Mark places (n, 3), and one of them as chosen."""
        colours = np.where(np.arange(len(places))[:, None] == chosen, CHOSEN_COLOUR, WAY_COLOUR)
        self._points("marks", places, colours, MARK_M)

    def gizmo(self, place: np.ndarray, size: float = 0.2, turns: bool = True) -> tuple[Any, bool]:
        """The arrows that move the wrist, at a place (3,), and whether they were made just now. turns: rings, too."""
        made = "gizmo" not in self._nodes
        if made:
            self._nodes["gizmo"] = self.scene.add_transform_controls(
                f"{self.root}/gizmo",
                size,
                line_width=4.0,
                depth_test=False,
                position=place,
                disable_rotations=not turns,
            )
        return self._nodes["gizmo"], made

    def clear(self) -> None:
        """Take everything away."""
        for node in self._nodes.values():
            node.remove()
        self._nodes.clear()
        self._hung = self._marked = None

    def _points(self, name: str, places: np.ndarray, colours: np.ndarray, size: float) -> None:
        if not len(places):  # the browser refuses a cloud without points
            if name in self._nodes:
                self._nodes.pop(name).remove()
            return
        points, shades = places.astype(np.float32), colours.astype(np.uint8)
        if name in self._nodes and shades.ndim == 1:
            self._nodes[name].points = points
        else:
            self._nodes[name] = self.scene.add_point_cloud(
                f"{self.root}/{name}", points, shades, point_size=size, point_shape="circle"
            )

    def _lines(self, name: str, lines: np.ndarray, colours: np.ndarray, thickness: float) -> None:
        draw_lines(self.scene, self._nodes, self.root, name, lines, colours, thickness)


def draw_lines(
    scene: Any, nodes: dict[str, Any], root: str, name: str, lines: np.ndarray, colours: np.ndarray, thickness: float
) -> None:
    """Draw lines (n, 2, 3) in colours (n, 2, 3), or (3,) for all, as a node of `nodes`; none where there are no lines.

    A node that is there is changed: the browser takes longer to make one.
    """
    if not len(lines):
        if name in nodes:
            nodes.pop(name).remove()
        return
    points, shades = lines.astype(np.float32), colours.astype(np.uint8)
    if name in nodes:
        nodes[name].points, nodes[name].colors = points, shades
    else:
        nodes[name] = scene.add_line_segments(f"{root}/{name}", points, shades, thickness=thickness)
