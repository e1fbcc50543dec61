"""A robot, objects and candidates of a search in 3-D."""

from typing import Any

import numpy as np
import trimesh

from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.studio.hand_drawing import COUNTER_COLOUR, bones, draw_lines, wxyz
from dexworld.studio.planner import PlanScene, Shape
from dexworld.studio.search_watch import SearchNews

BEST, REST = np.array([40, 200, 120]), np.array([150, 160, 180])
GHOST_M, WAY_M = 0.004, 0.003


class RobotScene:
    """The nodes of one visitor's scene below `root`. scene: viser's `SceneApi` of that visitor."""

    def __init__(self, scene: Any, root: str) -> None:
        self.scene, self.root = scene, root
        self._parts: list[Any] = []
        self._made: tuple[Any, ...] = ()
        self._boxes: list[Any] = []
        self._ghosts: dict[str, Any] = {}

    def parts(self, scene: PlanScene, visible: bool) -> None:
        """Draw the robot's parts and the objects where they are, and the boxes that the arm stays out of."""
        made = tuple((shape.kind, shape.size, shape.colour) for shape in scene.shapes)
        if made != self._made:
            for node in [*self._parts, *self._boxes]:
                node.remove()
            self._made, self._parts = made, [self._part(number, each) for number, each in enumerate(scene.shapes)]
            self._boxes = [self._box(number, *map(np.array, box)) for number, box in enumerate(KitchenEnv.keep_out)]
        for node, shape in zip(self._parts, scene.shapes, strict=True):
            node.position, node.wxyz = shape.place, wxyz(shape.rotation)
        self.show(visible)

    def show(self, visible: bool) -> None:
        """Show the robot and the boxes, or hide them where the picture shows them."""
        for node in [*self._parts, *self._boxes]:
            node.visible = visible

    def candidates(self, news: SearchNews | None, valid: np.ndarray) -> None:
        """Draw the ways of a population, and its elites as ghost hands; None takes them away."""
        drawn = {} if news is None else self._drawn(news, valid)
        for name in [each for each in self._ghosts if each not in drawn]:
            self._ghosts.pop(name).remove()
        for name, (lines, colours, thickness) in drawn.items():
            draw_lines(self.scene, self._ghosts, self.root, name, lines, colours, thickness)

    def _drawn(self, news: SearchNews, valid: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
        """Lines, colours and thickness of each node."""
        lines = np.stack([news.ways[:, :-1], news.ways[:, 1:]], axis=2)  # (W, T, 2, 3)
        share = np.linspace(0.0, 1.0, len(lines))[:, None, None, None]
        colours = np.broadcast_to((1 - share) * BEST + share * REST, lines.shape)
        found = {"ways": (lines.reshape(-1, 2, 3), colours.reshape(-1, 2, 3), WAY_M)}
        for number, hand in enumerate(news.hands):
            bone, shades = bones(hand, valid)
            fade = number / max(1, len(news.hands))
            found[f"ghost{number}"] = bone, (1 - 0.7 * fade) * shades + 0.7 * fade * REST, GHOST_M
        return found

    def clear(self) -> None:
        """Take everything away."""
        for node in [*self._parts, *self._boxes, *self._ghosts.values()]:
            node.remove()
        self._parts, self._boxes, self._made = [], [], ()
        self._ghosts.clear()

    def _part(self, number: int, shape: Shape) -> Any:
        name, (x, y, z) = f"{self.root}/part{number}", shape.size
        if shape.kind == "box":
            return self.scene.add_box(name, shape.colour, (2 * x, 2 * y, 2 * z))
        if shape.kind == "cylinder":
            return self.scene.add_cylinder(name, x, 2 * y, shape.colour)
        if shape.kind == "ellipsoid":
            return self.scene.add_icosphere(name, 1.0, shape.colour, subdivisions=2, scale=(x, y, z))
        mesh = trimesh.creation.capsule(height=2 * y, radius=x, count=(12, 12))
        mesh.apply_translation(-mesh.bounds.mean(axis=0))
        return self.scene.add_mesh_simple(name, np.array(mesh.vertices), np.array(mesh.faces), color=shape.colour)

    def _box(self, number: int, low: np.ndarray, high: np.ndarray) -> Any:
        return self.scene.add_box(
            f"{self.root}/keep_out{number}", COUNTER_COLOUR, high - low, position=(low + high) / 2, opacity=0.3
        )
