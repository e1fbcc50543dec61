"""One visitor's painting: a scene, a hand's path over it, candidates that were kept, and a goal.

It computes nothing itself: it asks the video model's desk, one request at a time, and tells `changed` when something
arrived. While a path is dragged only the latest is asked for.
"""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from dexworld.actions import MIN_DEPTH
from dexworld.studio.desk import Desk
from dexworld.studio.desk_session import DeskSession, Request
from dexworld.studio.film_painter import Film, GoalPicture, OpenedStill, PaintedFilm, PathRanking
from dexworld.studio.painted_path import PaintedPath, WayPoint
from dexworld.studio.still_scene import Still

KEPT = 48  # films of a visitor
MOST_CANDIDATES = 6
LEVEL = 0.2  # sine of the angle at which a click's ray is too flat to meet a level plane
FARTHEST, ASIDE = 3.0, 0.2  # metres from the camera, and shares of the picture beside it, that a click may lie at
DIRECTIONS = {"left": (1, 1), "right": (1, -1), "forward": (0, 1), "back": (0, -1), "up": (2, 1), "down": (2, -1)}


@dataclass(frozen=True)
class Painting:
    """What a link holds. path: that is painted; kept: candidates."""

    still: Still = field(default_factory=Still)
    path: PaintedPath = field(default_factory=PaintedPath)
    kept: tuple[PaintedPath, ...] = ()


class PaintSession(DeskSession):
    """See the module. Every method returns at once, from any thread.

    point: index of the way-point that is moved. frame: of the films, that is looked at. goal: None is the scene's own.
    """

    def __init__(self, desk: Desk, changed: Callable[[], None]) -> None:
        super().__init__(desk, changed)
        self.painting, self.problem = Painting(), ""
        self.goal: GoalPicture | None = None
        self.opened: OpenedStill | None = None
        self.point = self.frame = 0
        self.carried = {"shape": "relaxed", "palm": "down"}  # of the first way-point
        self._films: OrderedDict[PaintedPath, PaintedFilm] = OrderedDict()
        self._truths: OrderedDict[PaintedPath, Film | None] = OrderedDict()
        self._ranked: dict[Any, PathRanking | str] = {}

    def open(self, painting: Painting) -> None:
        """Another scene, with what is painted on it."""
        with self._lock:
            self.painting, self.problem = replace(painting, kept=painting.kept[:MOST_CANDIDATES]), ""
            self.opened, self.goal, self.point, self.playing = None, None, max(0, len(painting.path.points) - 1), False
            self._films.clear()
            self._truths.clear()
            self._ranked.clear()
        self._go_on()

    def shared(self) -> Painting:
        """What a link holds. Raises ValueError for a goal picture of one's own: it stays here."""
        if self.goal is not None:
            raise ValueError("a goal picture of your own isn't part of a link; go back to the scene's goal first")
        return self.painting

    @property
    def path(self) -> PaintedPath:
        """The path that is painted."""
        return self.painting.path

    @property
    def busy(self) -> bool:
        """Whether something is being computed."""
        return self._asked is not None

    @property
    def anchor(self) -> np.ndarray | None:
        """Where the way-point that is moved lies, or else where the hand starts; (3,) metres, world."""
        if self.path.points:
            return np.array(self.path.points[self.point].place)
        return None if self.opened is None else self.opened.homes[self.path.hand]

    @property
    def frames(self) -> int:
        """Of the films."""
        return 1 if self.opened is None else len(self.opened.static.frames)

    def film_of(self, path: PaintedPath) -> PaintedFilm | None:
        """What the model makes of a path, None until it is there."""
        return self._films.get(path)

    def truth_of(self, path: PaintedPath) -> Film | None:
        """What really happens, None until it is there or where nobody knows."""
        return self._truths.get(path)

    def unknown(self, path: PaintedPath) -> bool:
        """Whether nobody knows what really happens."""
        return path in self._truths and self._truths[path] is None

    @property
    def ranking(self) -> PathRanking | None:
        """The candidates by the goal, None until it is there."""
        found = self._ranked.get(self._rank_key())
        return found if isinstance(found, PathRanking) else None

    @property
    def unranked(self) -> str:
        """Why the candidates can't be ranked, or nothing."""
        found = self._ranked.get(self._rank_key())
        return found if isinstance(found, str) else ""

    def paint(self, place: np.ndarray) -> None:
        """One more way-point, behind the one that is chosen, in that one's shape."""
        with self._lock:
            points, at = list(self.path.points), self.point
            before = points[at] if points else WayPoint((0.0, 0.0, 0.0), **self.carried)
            points.insert(at + 1 if points else 0, replace(before, place=_vector(place)))
            self._repaint(points, min(at + 1, len(points) - 1))
        self._go_on()

    def paint_at(self, origin: np.ndarray, direction: np.ndarray) -> None:
        """One more way-point where a ray (3,), (3,) meets the height of the one that is chosen.

        Where that plane is seen edge-on, the way-point lies as far ahead as the chosen one.
        """
        place = None if self.anchor is None else self.met(origin, direction)
        if place is not None:
            self.paint(place)

    def met(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
        """Where a ray meets the plane of the way-point that is chosen, (3,); None where it doesn't."""
        opened, anchor = self.opened, self.anchor
        if opened is None or anchor is None:
            return None
        direction = direction / np.linalg.norm(direction)
        for normal, least in ((opened.axes[:, 2], LEVEL), (opened.cameras[self.frame][:3, 2], 1e-3)):
            if abs(along := float(direction @ normal)) > least:
                place = origin + float((anchor - origin) @ normal) / along * direction
                if (place - origin) @ direction > 0:
                    return place if self._near_picture(place) else None
        return None

    def _near_picture(self, place: np.ndarray) -> bool:
        """Whether a place (3,) lies in the picture, or at most `ASIDE` of its sides beside it."""
        assert self.opened is not None
        pose, size = self.opened.cameras[self.frame], np.array(self.opened.static.frames.shape[2:0:-1])
        x, y, depth = (place - pose[:3, 3]) @ pose[:3, :3]
        if not MIN_DEPTH < depth < FARTHEST:
            return False
        pixel = (self.opened.intrinsics @ np.array([x / depth, y / depth, 1.0]))[:2]
        return bool((pixel > -ASIDE * size).all() and (pixel < (1 + ASIDE) * size).all())

    def move(self, direction: str, metres: float) -> None:
        """Move the way-point that is chosen: one of `DIRECTIONS`. The first move makes one where the hand starts."""
        axis, sign = DIRECTIONS[direction]
        opened, anchor = self.opened, self.anchor
        if opened is not None and anchor is not None:
            self.put(anchor + sign * metres * opened.axes[:, axis])
            self._changed()

    def put(self, place: np.ndarray) -> None:
        """Put the way-point that is chosen somewhere. `changed` is told when the film of it is there, not before."""
        with self._lock:
            points = list(self.path.points) or [WayPoint((0.0, 0.0, 0.0), **self.carried)]
            points[self.point] = replace(points[self.point], place=_vector(place))
            self._repaint(points, self.point)
        self._ask()

    def carry(self, shape: str | None = None, palm: str | None = None) -> None:
        """From the chosen way-point on, carry the hand in another shape or with another palm; None leaves it."""
        with self._lock:
            self.carried |= {name: each for name, each in (("shape", shape), ("palm", palm)) if each}
            points = [
                replace(point, shape=shape or point.shape, palm=palm or point.palm) if number >= self.point else point
                for number, point in enumerate(self.path.points)
            ]
            self._repaint(points, self.point)
        self._go_on()

    def take_hand(self, hand: Literal["left", "right"]) -> None:
        """Let the other hand follow the path."""
        with self._lock:
            self.painting = replace(self.painting, path=replace(self.path, hand=hand))
        self._go_on()

    def choose(self, point: int) -> None:
        """Choose a way-point."""
        self.point = int(np.clip(point, 0, max(0, len(self.path.points) - 1)))
        self._changed()

    def erase(self) -> None:
        """Take the way-point that is chosen away; without any the hands of the recording are back."""
        with self._lock:
            points = [point for number, point in enumerate(self.path.points) if number != self.point]
            self._repaint(points, max(0, self.point - 1))
        self._go_on()

    def clear(self) -> None:
        """Back to the hands of the recording."""
        with self._lock:
            self._repaint([], 0)
        self._go_on()

    def keep(self) -> None:
        """Keep the path as a candidate. Raises ValueError where it is one, or there are enough."""
        with self._lock:
            if self.path in self.painting.kept:
                raise ValueError(f"this path is candidate {self.painting.kept.index(self.path) + 1} already")
            if len(self.painting.kept) >= MOST_CANDIDATES:
                raise ValueError(f"{MOST_CANDIDATES} candidates are kept at most; drop one first")
            self.painting = replace(self.painting, kept=(*self.painting.kept, self.path))
        self._go_on()

    def drop(self, number: int) -> None:
        """Forget a candidate."""
        with self._lock:
            kept = [path for place, path in enumerate(self.painting.kept) if place != number]
            self.painting = replace(self.painting, kept=tuple(kept))
        self._go_on()

    def take(self, number: int) -> None:
        """Paint on from a candidate."""
        with self._lock:
            if number < len(self.painting.kept):
                path = self.painting.kept[number]
                self.painting, self.point = replace(self.painting, path=path), max(0, len(path.points) - 1)
        self._go_on()

    def want(self, goal: GoalPicture | None) -> None:
        """Another goal picture; None takes the scene's own."""
        with self._lock:
            self.goal = goal
        self._go_on()

    def seek(self, frame: int) -> None:
        """Look at another frame of the films."""
        self.frame = int(np.clip(frame, 0, self.frames - 1))
        self._changed()

    def play(self) -> None:
        """Play the film in the scene, or stop it."""
        self.playing = not self.playing and self.opened is not None
        if self.playing and self.frame >= self.frames - 1:
            self.frame = 0
        self._changed()

    def advance(self) -> None:
        """The film's next frame."""
        self.playing = self.playing and self.frame + 1 < self.frames
        self.seek(self.frame + int(self.playing))

    def _repaint(self, points: list[WayPoint], chosen: int) -> None:
        self.painting = replace(self.painting, path=replace(self.path, points=tuple(points)))
        self.point, self.problem = max(0, chosen), ""
        self.frame = self.frames - 1  # the outcome

    def _rank_key(self) -> Any:
        return self.goal, self.painting.kept

    def _wanted(self) -> Request | None:
        still, kept = self.painting.still, self.painting.kept
        if self.opened is None:
            return None if self.problem else ("begin", (still,))
        if self.problem:
            return None
        paths = [self.path, *kept]
        if (path := next((path for path in paths if path not in self._films), None)) is not None:
            return "film", (still, path)
        if kept and self._rank_key() not in self._ranked:
            return "ranking", (still, self.goal, kept)
        return None if self.path in self._truths else ("truth", (still, self.path))

    def _heard(self, future: "Future[Any]", method: str, asked: tuple[Any, ...]) -> None:
        still, *rest = asked
        if still != self.painting.still:
            return
        if (error := future.exception()) is None:
            self._take(method, rest, future.result())
        elif method == "ranking":
            self._ranked[tuple(rest)] = str(error)
        else:
            self.problem = str(error) or type(error).__name__

    def _take(self, method: str, asked: list[Any], answer: Any) -> None:
        if method == "begin":
            self.opened, self.frame = answer, len(answer.static.frames) - 1
        elif method == "ranking":
            self._ranked = {tuple(asked): answer}
        else:
            kept: OrderedDict[PaintedPath, Any] = self._films if method == "film" else self._truths
            kept[asked[0]] = answer
            needed = {self.path, *self.painting.kept}
            while len(kept) > KEPT:
                del kept[next(path for path in kept if path not in needed)]


def _vector(place: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (round(float(each), 4) for each in place)
    return x, y, z
