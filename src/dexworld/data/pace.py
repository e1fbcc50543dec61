"""How far long work is, as a plain line a minute for a log file."""

import logging
import time

logger = logging.getLogger(__name__)
LOGGED_EVERY_S = 60.0


class Pace:
    """Logs a line when a name first comes, and then one a minute: done, total, rate, time left."""

    def __init__(self) -> None:
        self._started: dict[str, tuple[float, int]] = {}  # when a name first came, and what was done then
        self.logged = 0.0  # when the last line was

    def update(self, name: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` items of `name` are done."""
        now = time.monotonic()
        if name not in self._started:
            self._started[name], self.logged = (now, done), now
            if done < total:
                logger.info("%s: %d to do", name, total - done)
        elif now - self.logged >= LOGGED_EVERY_S:
            self.logged = now
            logger.info("%s: %d of %d, %s %s", name, done, total, self.rest(name, done, total), note)

    def rest(self, name: str, done: int, total: int) -> str:
        """The rate and the time left, in words."""
        begin, before = self._started.get(name, (0.0, done))
        rate = (done - before) / max(time.monotonic() - begin, 1e-9)
        left = f"{(total - done) / rate / 60:.1f} min left" if rate else "time left unknown"
        return f"{60 * rate:.3g} a minute, {left}"
