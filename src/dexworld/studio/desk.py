"""Worker processes that answer requests one by one, so that the page never waits for heavy work."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from dexworld.data.parallel import Workers

logger = logging.getLogger(__name__)
ALONE = 2  # the pool's smallest count that has processes of its own; given one request at a time it starts one


class Desk:
    """One worker process behind a queue. job: picklable, called as job(request).

    A process that dies fails its request only; the next one starts a new process.
    """

    def __init__(self, job: Callable[[Any], Any], name: str) -> None:
        self._queue: SimpleQueue[tuple[Any, Future[Any]] | None] = SimpleQueue()
        self._pool, self._closed = Workers(job, ALONE), threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"desk {name}", daemon=True)
        self._thread.start()

    def ask(self, request: Any) -> "Future[Any]":
        """The answer to come. Requests are answered in order; one that is cancelled before its turn is left out."""
        future: Future[Any] = Future()
        if self._closed.is_set():
            future.cancel()
        else:
            self._queue.put((request, future))
        return future

    def close(self) -> None:
        """End the process; what it was asked and didn't answer is cancelled."""
        self._closed.set()
        self._queue.put(None)
        with self._pool:
            pass
        self._thread.join(5.0)

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            request, future = item
            if self._closed.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            try:
                (outcome,) = self._pool.outcomes([request])
            except (RuntimeError, OSError, ValueError) as error:  # no process can be started, or the desk was closed
                future.set_exception(error)
                continue
            if outcome.error is not None:
                if not isinstance(outcome.error, (ValueError, OSError)):
                    logger.error("a request failed: %r", outcome.error)
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome.result)


class Job:
    """A job whose state is made in its process at the first request: `make()` gives an object whose method is called.

    A request is (method, arguments).
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __call__(self, request: tuple[str, tuple[Any, ...]]) -> Any:
        if self._made is None:
            self._made = self._make()
        method, arguments = request
        return getattr(self._made, method)(*arguments)
