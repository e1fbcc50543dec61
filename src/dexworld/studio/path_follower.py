"""What one desk says to every frame of a path, asked one after the other: the simulator, or a second model."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dexworld.studio.desk import Desk
from dexworld.studio.imagination import Path

KEPT_FRAMES = 96  # of a visitor, pictures included


class PathFollower:
    """See the module. Every method may be called from any thread, and returns at once.

    who: the desk's name in messages. path: the path to follow now. request: what to ask the desk for the end of a path;
    None where that isn't known yet, or nothing is to be asked. changed: called when an answer came. answers: by path,
    the last `KEPT_FRAMES`.
    """

    def __init__(
        self,
        desk: Desk,
        who: str,
        path: Callable[[], Path],
        request: Callable[[Path], tuple[str, tuple[Any, ...]] | None],
        changed: Callable[[], None],
    ) -> None:
        self._desk, self._who, self._path, self._request, self._changed = desk, who, path, request, changed
        self._lock = threading.RLock()
        self._asked: Future[Any] | None = None
        self._forgotten = 0
        self.answers: OrderedDict[Path, Any] = OrderedDict()
        self.problem = ""
        self.closed = False

    def forget(self) -> None:
        """Drop all answers, and those that are still to come."""
        with self._lock:
            self.answers.clear()
            self._forgotten, self.problem = self._forgotten + 1, ""

    def go_on(self) -> None:
        """Ask for the first frame that is missing, unless an answer is still to come."""
        with self._lock:
            path = self._path()
            missing = (path[:length] for length in range(len(path) + 1) if path[:length] not in self.answers)
            prefix = next(missing, None)
            if prefix is None or self._asked is not None or self.closed:
                return
            request, forgotten = self._request(prefix), self._forgotten
            if request is None:
                return
            self._asked = self._desk.ask(request)
        self._asked.add_done_callback(lambda future: self._arrived(future, prefix, forgotten))

    def _arrived(self, future: "Future[Any]", path: Path, forgotten: int) -> None:
        with self._lock:
            self._asked = None
            if future.cancelled() or self.closed:
                return
            error = future.exception()
            if forgotten == self._forgotten and error is None:
                self.answers[path], self.problem = future.result(), ""
                while len(self.answers) > KEPT_FRAMES:
                    self.answers.popitem(last=False)
            elif forgotten == self._forgotten:
                self.problem = f"{self._who}: {error}"
        self._changed()
        if forgotten != self._forgotten or error is None:
            self.go_on()
