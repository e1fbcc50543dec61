"""What the views of a page share: controls and drawings that are there from `build` until `leave`."""

import threading
from typing import Any, Protocol

from dexworld.studio.visitor_page import Page


class Drawing(Protocol):
    """What a view draws into the 3-D scene."""

    def clear(self) -> None:
        """Take it out of the scene."""


class View:
    """A view of a visitor's page. drawings: what leaves the 3-D scene with it.

    Results arrive in other threads: `_lock` is held while the view changes, and `_built` says whether it is shown.
    """

    def __init__(self, page: Page, *drawings: Drawing) -> None:
        self.page, self._drawings = page, drawings
        self._lock, self._built = threading.RLock(), False
        self._keys: list[Any] = []

    def leave(self) -> None:
        """Take what is the view's own out of the scene; the controls go with their folder."""
        with self._lock:
            self._built = False
            for key in self._keys:
                key.remove()
            for drawing in self._drawings:
                drawing.clear()
