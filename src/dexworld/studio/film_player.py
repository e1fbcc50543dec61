"""A clock for films: calls `advance` so many times a second while somebody plays."""

import threading
from collections.abc import Callable


class FilmPlayer:
    """See the module. advance: shows the next picture. playing: whether to go on; asked before each."""

    def __init__(self, advance: Callable[[], None], playing: Callable[[], bool]) -> None:
        self._advance, self._playing, self._lock = advance, playing, threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Play, a picture every so many seconds; nothing happens where it plays already."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(seconds,), daemon=True)
                self._thread.start()

    def _run(self, seconds: float) -> None:
        clock = threading.Event()
        while True:
            with self._lock:
                if not self._playing():
                    self._thread = None
                    return
            try:
                self._advance()
            except BaseException:
                with self._lock:
                    self._thread = None
                raise
            clock.wait(seconds)
