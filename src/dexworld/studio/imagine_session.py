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
from dexworld.studio.imagined_path import ImaginedPath
from dexworld.studio.path_follower import KEPT_FRAMES, PathFollower
from dexworld.studio.start_frame import Start
from dexworld.track import Track

LONGEST_PATH = 60  # steps
MOST_BRANCHES = 8
MOST_EARLY = 8
SLOWEST_S = 60.0  # that the simulator may take for a whole path
CLOSES = 0.35  # share that a button closes or opens the fingers by
MOTIONS = ("left", "right", "forward", "back", "up", "down", "close", "open")


class Desks(NamedTuple):
    """The worker processes: with the model, with the simulator of true frames, for searches, for datasets, for films,
    and with a second model."""

    model: Desk
    scene: Desk
    search: Desk
    data: Desk
    film: Desk
    other: Desk | None = None


class ImagineSession:
    """See the module. Every method may be called from any thread, and returns at once.

    followers: the simulator, and the second model where there is one. Both follow the path.
    """

    def __init__(self, desks: Desks, changed: Callable[[], None]) -> None:
        self._desks, self._changed, self._lock = desks, changed, threading.RLock()
        self._frames: OrderedDict[Path, ImaginedFrame] = OrderedDict()
        self._asked: Future[Any] | None = None
        self._true = PathFollower(desks.scene, "the simulator", lambda: self.path, self._ask_truly, changed)
        self.followers = [self._true]
        if desks.other is not None:
            second = PathFollower(desks.other, "the second model", lambda: self.path, self._ask_other, changed)
            self.followers.append(second)
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
                self.start, self.begun = start, None
                for follower in self.followers:
                    follower.forget()
            self.problem = ""
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

    @property
    def other(self) -> ImaginedFrame | None:
        """What the second model imagines for the frame that is shown; None without one, or not yet."""
        return self._other(self.here)

    def _truth(self, path: Path) -> np.ndarray | None:
        frame = self._frames.get(path)
        if self.begun is None or frame is None:
            return None
        if not path:
            return self.begun.image
        return self._true.answers.get(path) if frame.true is None else frame.true

    def _other(self, path: Path) -> ImaginedFrame | None:
        return self.followers[1].answers.get(path) if len(self.followers) > 1 else None

    @property
    def busy(self) -> bool:
        """Whether something is being computed."""
        return self._asked is not None

    @property
    def trouble(self) -> str:
        """What went wrong last, in words; empty where nothing did."""
        return self.problem or next((each.problem for each in self.followers if each.problem), "")

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
            if heat and not self.heat:  # the second model's frames come anew, with theirs
                for follower in self.followers[1:]:
                    follower.forget()
            self.heat = heat
        self._go_on()

    def whole(self) -> ImaginedPath | None:
        """All frames of the path; None before they are there, or for a path of no step."""
        with self._lock:
            prefixes = [self.path[:length] for length in range(len(self.path) + 1)]
            frames = [self._frames[prefix] for prefix in prefixes if prefix in self._frames]
            true = [seen for prefix in prefixes if (seen := self._truth(prefix)) is not None]
            others = [other for prefix in prefixes if (other := self._other(prefix)) is not None]
        if self.begun is None or not 1 < len(prefixes) == len(frames):
            return None
        true, others = (true if len(true) == len(frames) else []), (others if len(others) == len(frames) else [])
        return ImaginedPath(self.start, self.begun, frames, true, others, self._joints(self.path))

    def true_track(self, joints: tuple[bytes, ...]) -> Track:
        """What the simulator saw along joint targets; waits for it. Raises ValueError where it takes too long."""
        try:
            track: Track = self._desks.scene.ask(("track", (self.start.seed, joints))).result(SLOWEST_S)
        except TimeoutError as error:
            raise ValueError(f"the simulator didn't answer within {SLOWEST_S:.0f} s; try again") from error
        return track

    def close(self) -> None:
        """Ask for nothing any more."""
        self.closed = True
        for follower in self.followers:
            follower.closed = True

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
            before, request = self.shown, self._wanted()
            stepped = self.shown != before  # onto a frame that is known
            if request is not None:
                self._asked = self._desks.model.ask(request)
                start, path = self.start, request[1][1] if request[0] == "frame" else ()
                self._asked.add_done_callback(lambda future: self._arrived(future, start, path))
        for follower in self.followers:
            follower.go_on()
        if stepped:
            self._changed()

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

    def _joints(self, path: Path) -> tuple[bytes, ...]:
        """Joint targets of each step, for the simulator; empty where there is none, or a frame is still to come."""
        frames = [self._frames.get(path[:length]) for length in range(1, len(path) + 1)]
        joints = [None if frame is None or frame.joints is None else frame.joints for frame in frames]
        if not self.start.simulated or any(each is None for each in joints):
            return ()
        return tuple(each.astype(np.float64).tobytes() for each in joints if each is not None)

    def _ask_truly(self, path: Path) -> tuple[str, tuple[Any, ...]] | None:
        joints = self._joints(path)
        if self.begun is None or not self.start.simulated or len(joints) < len(path):
            return None
        return "picture", (self.start.seed, joints)

    def _ask_other(self, path: Path) -> tuple[str, tuple[Any, ...]] | None:
        return None if self.begun is None else ("frame", (self.start, path, self.heat))
