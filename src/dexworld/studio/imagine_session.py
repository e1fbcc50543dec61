"""One visitor's imagination: a path of steps from a start, what came of each, and the branches that were left.

It computes nothing itself: it asks the desks, one request at a time, and tells `changed` when something arrived.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from dexworld.evaluation.atomic import viewing_axes
from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.studio.desk import Desk
from dexworld.studio.hand_control import HandControl
from dexworld.studio.imagination import Begun, ImaginedFrame, Path, Recorded, Step
from dexworld.studio.start_frame import Start

LONGEST_PATH = 60  # steps
KEPT_FRAMES = 96  # of a visitor, pictures included
MOST_BRANCHES = 8
MOST_EARLY = 8
CLOSES = 0.35  # share that a button closes or opens the fingers by
MOTIONS = ("left", "right", "forward", "back", "up", "down", "close", "open")


class Desks(NamedTuple):
    """The worker processes: with the model, the simulator of true frames, for searches, for datasets, and films."""

    model: Desk
    scene: Desk
    search: Desk
    data: Desk
    film: Desk


class ImagineSession:
    """See the module. Every method may be called from any thread, and returns at once."""

    def __init__(self, desks: Desks, changed: Callable[[], None]) -> None:
        self._desks, self._changed, self._lock = desks, changed, threading.RLock()
        self._frames: OrderedDict[Path, ImaginedFrame] = OrderedDict()
        self._true: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._asked: Future[Any] | None = None
        self._asked_true: Future[Any] | None = None
        self.start, self.problem = Start(), ""
        self.begun: Begun | None = None
        self.path: Path = ()
        self.shown = 0
        self.branches: list[tuple[Start, Path]] = []
        self._goal: HandControl | None = None
        self._coming: list[Step] = []
        self._ahead: Path = ()  # the path whose end is shown as soon as it is there
        self._early: list[tuple[str, float]] = []  # motions that were asked for before the scene was there
        self.heat = False
        self.closed = False

    def open(self, start: Start, path: Path = ()) -> None:
        """Begin anew from a start, along a path."""
        with self._lock:
            if self.start != start or self.begun is None:
                self._frames.clear()
                self._true.clear()
                self.begun = None
            self.start, self.problem = start, ""
            self.path, self.shown, self._goal, self._coming = path[:LONGEST_PATH], 0, None, []
        self._go_on()
        self._changed()

    @property
    def here(self) -> Path:
        """The path up to the frame that is shown."""
        return self.path[: self.shown]

    @property
    def frame(self) -> ImaginedFrame | None:
        """The frame that is shown, None until it is there."""
        return self._frames.get(self.here)

    @property
    def true(self) -> np.ndarray | None:
        """What really happened up to the frame that is shown; None where nobody knows, or not yet."""
        return self._truth(self.here)

    def _truth(self, path: Path) -> np.ndarray | None:
        frame = self._frames.get(path)
        if self.begun is None or frame is None:
            return None
        if not path:
            return self.begun.image
        return self._true.get(path) if frame.true is None else frame.true

    @property
    def busy(self) -> bool:
        """Whether something is being computed."""
        return self._asked is not None

    @property
    def control(self) -> HandControl:
        """What the hand was told last, from where the recording left it."""
        last = self.here[-1] if self.here else None
        return last if isinstance(last, HandControl) else HandControl()

    @property
    def anchor(self) -> np.ndarray | None:
        """Where the wrist of a hand told nothing is, (3,) metres, world."""
        anchored = max((number for number, step in enumerate(self.here, 1) if isinstance(step, Recorded)), default=0)
        frame = self._frames.get(self.path[:anchored])
        rows = LEFT if self.start.hand == "left" else RIGHT
        return None if frame is None else frame.keypoints[rows][WRIST]

    @property
    def aim(self) -> HandControl:
        """Where the hand is to go: the goal that is still on its way, or what was told last."""
        return self._goal or self.control

    def shown_frames(self) -> list[ImaginedFrame]:
        """The frames up to the one that is shown, without those that are still to come."""
        prefixes = [self.path[:length] for length in range(self.shown + 1)]
        return [self._frames[prefix] for prefix in prefixes if prefix in self._frames]

    def steer(self, goal: HandControl) -> None:
        """Go towards a pose of the hand, as many steps as it takes; a later goal replaces this one."""
        with self._lock:
            self._goal = goal
        self._go_on()

    def follow(self, steps: list[Step]) -> None:
        """Take these steps one after the other."""
        with self._lock:
            self._coming += steps
        self._go_on()

    def move(self, motion: str, metres: float = 0.05) -> None:
        """One of `MOTIONS`, as one looking through the camera would name it."""
        with self._lock:
            if self.begun is None or self.frame is None:
                self._early = [*self._early, (motion, metres)][-MOST_EARLY:]
                return
            aim = self.aim
            if motion in ("close", "open"):
                goal = aim.closed(CLOSES if motion == "close" else -CLOSES)
            else:
                axes = viewing_axes(self.frame.world_from_camera[:3, :3], self.begun.up)
                goal = aim.moved(metres * axes[motion])
        self.steer(goal)

    def follow_recording(self, steps: int = 5) -> None:
        """Let the hand do what the recording does next."""
        with self._lock:
            if self.begun is None:
                return
            done = max((step.frames for step in self.here if isinstance(step, Recorded)), default=0)
            wanted = [done + self.begun.stride * number for number in range(1, steps + 1)]
            coming: list[Step] = [Recorded(frames) for frames in wanted if frames <= self.begun.frames_left]
            if not coming:
                self.problem = "the recording ends here"
        self.follow(coming)
        self._changed()

    def seek(self, shown: int) -> None:
        """Show the frame after so many steps."""
        with self._lock:
            self.shown, self._goal, self._coming = int(np.clip(shown, 0, len(self.path))), None, []
            self._ahead = ()
        self._go_on()
        self._changed()

    def undo(self) -> None:
        """Take the last step back."""
        with self._lock:
            self.shown, self._goal, self._coming = max(0, self.shown - 1), None, []
            self.path = self.here
        self._changed()

    def branch(self, number: int) -> None:
        """Go on along a branch that was left, and leave this one."""
        with self._lock:
            if not 0 <= number < len(self.branches):
                return
            start, path = self.branches.pop(number)
            self._leave()
        self.open(start, path)
        self.seek(len(path))

    def with_heat(self, heat: bool) -> None:
        """Whether frames are to come with the keypoint head's heatmap."""
        with self._lock:
            self.heat = heat
        self._go_on()

    def film(self) -> np.ndarray | None:
        """The frames (T, H, W, 3) of the whole path, with the true ones at their right where all are known."""
        with self._lock:
            prefixes = [self.path[:length] for length in range(len(self.path) + 1)]
            frames = [self._frames[prefix] for prefix in prefixes if prefix in self._frames]
            known = [self._truth(prefix) for prefix in prefixes]
        true = [each for each in known if each is not None]
        if len(frames) < len(prefixes):
            return None
        pictures = [frame.picture for frame in frames]
        if len(true) == len(pictures):
            pictures = [np.concatenate(pair, axis=1) for pair in zip(pictures, true, strict=True)]
        return np.stack(pictures)

    def close(self) -> None:
        """Ask for nothing any more."""
        self.closed = True

    def _leave(self) -> None:
        """Keep the path among the branches, if it is one."""
        if self.path:
            self.branches = [(self.start, self.path), *(each for each in self.branches if each[1] != self.path)]
            self.branches = self.branches[:MOST_BRANCHES]

    def _go_on(self) -> None:
        """Ask for what is missing, unless an answer is still to come."""
        with self._lock:
            if self._asked is not None or self.closed:
                return
            request = self._wanted()
            if request is not None:
                self._asked = self._desks.model.ask(request)
                start, path = self.start, request[1][1] if request[0] == "frame" else ()
                self._asked.add_done_callback(lambda future: self._arrived(future, start, path))
        self._go_on_truly()

    def _wanted(self) -> tuple[str, tuple[Any, ...]] | None:
        """The next request to the model's desk, None where nothing is to be done."""
        if self.problem and self.begun is None:
            return None
        if self.begun is None:
            return "begin", (self.start,)
        missing = (self.path[:length] for length in range(len(self.path) + 1))
        if (prefix := next((each for each in missing if each not in self._frames), None)) is not None:
            return "frame", (self.start, prefix, self.heat)
        if self.heat and self.frame is not None and self.frame.heat is None:
            return "frame", (self.start, self.here, True)
        step = self._step()
        if step is None:
            return None
        if len(self.here) >= LONGEST_PATH:
            self.problem = f"a path has at most {LONGEST_PATH} steps; go back, or start anew"
            self._goal, self._coming = None, []
            return None
        if self.shown < len(self.path):
            self._leave()
        self.path = (*self.here, step)
        if self.path in self._frames:  # the same way was gone before
            self.shown = len(self.path)
            return self._wanted()
        self._ahead = self.path
        return "frame", (self.start, self.path, self.heat)

    def _step(self) -> Step | None:
        """The step to take next."""
        if self._coming:
            return self._coming.pop(0)
        if self._goal is None:
            return None
        control = self.control
        if not control.steps_to(self._goal):
            self._goal = None
            return None
        return control.towards(self._goal)

    def _arrived(self, future: "Future[Any]", start: Start, path: Path) -> None:
        with self._lock:
            self._asked = None
            if future.cancelled() or self.closed:
                return
            error = future.exception()
            if start != self.start:
                pass  # the visitor is elsewhere by now
            elif error is not None:
                self.problem = str(error)
                self.path, self._goal, self._coming = self.path[: max(0, len(path) - 1)], None, []
                self.shown = min(self.shown, len(self.path))
            elif isinstance(answer := future.result(), Begun):
                self.begun = answer
            else:
                if path and path == self._ahead == self.path:
                    self.shown = len(path)
                self.problem = ""
                self._frames[path] = answer
                while len(self._frames) > KEPT_FRAMES:
                    self._frames.popitem(last=False)
        if self.frame is not None:
            early, self._early = self._early, []
            for motion in early:
                self.move(*motion)
        try:
            self._changed()
        finally:  # what can't be drawn stops nobody
            self._go_on()

    def _go_on_truly(self) -> None:
        """Ask the simulator what really happens, one step after the other."""
        with self._lock:
            if self._asked_true is not None or not self.start.simulated or self.begun is None or self.closed:
                return
            joints: list[bytes] = []
            for length in range(1, len(self.path) + 1):
                frame = self._frames.get(self.path[:length])
                if frame is None or frame.joints is None:
                    return
                joints.append(frame.joints.astype(np.float64).tobytes())
                if self.path[:length] not in self._true:
                    break
            else:
                return
            start, path = self.start, self.path[: len(joints)]
            self._asked_true = self._desks.scene.ask(("picture", (start.seed, tuple(joints))))
            self._asked_true.add_done_callback(lambda future: self._arrived_truly(future, start, path))

    def _arrived_truly(self, future: "Future[Any]", start: Start, path: Path) -> None:
        with self._lock:
            self._asked_true = None
            if future.cancelled() or self.closed:
                return
            if (error := future.exception()) is not None:
                self.problem = f"the simulator: {error}"
                return
            if start == self.start:
                self._true[path] = future.result()
                while len(self._true) > KEPT_FRAMES:
                    self._true.popitem(last=False)
        self._changed()
        self._go_on_truly()
