"""What sessions share that ask a desk one request at a time, and choose the next one when an answer came."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dexworld.studio.desk import Desk

Request = tuple[str, tuple[Any, ...]]  # method, arguments


class DeskSession:
    """See the module. changed: called when something arrived or was chosen. `_lock` is held where the state changes.

    A session says what it wants with `_wanted`, and takes an answer with `_heard`.
    """

    def __init__(self, desk: Desk, changed: Callable[[], None]) -> None:
        self._desk, self._changed, self._lock = desk, changed, threading.RLock()
        self._asked: Future[Any] | None = None
        self.playing = self.closed = False

    def close(self) -> None:
        """Ask for nothing any more."""
        self.closed, self.playing = True, False

    def _go_on(self) -> None:
        self._ask()
        self._changed()

    def _ask(self) -> None:
        with self._lock:
            request = None if self._asked is not None or self.closed else self._wanted()
            asked = None if request is None else self._desk.ask(request)
            self._asked = asked or self._asked
        if request is not None and asked is not None:
            asked.add_done_callback(lambda future: self._arrived(future, request))

    def _arrived(self, future: "Future[Any]", request: Request) -> None:
        with self._lock:
            self._asked = None
            if future.cancelled() or self.closed:
                return
            self._heard(future, *request)
        self._go_on()

    def _wanted(self) -> Request | None:
        """The next request, None where nothing is needed."""
        raise NotImplementedError

    def _heard(self, future: "Future[Any]", method: str, asked: tuple[Any, ...]) -> None:
        """Take an answer, or the error."""
        raise NotImplementedError
