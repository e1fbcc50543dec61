"""Progress of long commands: bars on a terminal, a plain line a minute in a log file."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining

logger = logging.getLogger("dexworld")
LOGGED_EVERY_S = 60.0
Update = Callable[..., None]


def counted(label: str, total: int) -> Callable[[Iterable], Iterator]:
    """A wrapper of an iterator that draws a bar of `total` items; items that were done before count as done."""

    def wrap(items: Iterable) -> Iterator:
        with task_bars() as update:
            for done, item in enumerate(items, 1):
                update(label, done, total)
                yield item
            update(label, total, total)

    return wrap


@contextmanager
def task_bars() -> Iterator[Update]:
    """Bars by name, each moved by calling the value with (name, done, total) and perhaps a note behind the bar.

    Without a terminal a line is logged at the first call of a name and one a minute: done, total, rate, time left.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    label, note_shown = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = label, BarColumn(), MofNCompleteColumn(), note_shown, Elapsed(), Remaining()
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def update(name: str, done: int, total: int, note: str = "") -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, note=note)
            progress.update(tasks[name], completed=done, note=note)

        yield update


def _lines() -> Update:
    """An update that logs a line a minute."""
    started: dict[str, tuple[float, int]] = {}  # when a name first came, and what was done then
    logged = 0.0

    def update(name: str, done: int, total: int, note: str = "") -> None:
        nonlocal logged
        now = time.monotonic()
        if name not in started:
            started[name], logged = (now, done), now
            if done < total:
                logger.info("%s: %d to do", name, total - done)
        elif now - logged >= LOGGED_EVERY_S:
            logged, (begin, before) = now, started[name]
            rate = (done - before) / (now - begin)
            left = f"{(total - done) / rate / 60:.1f} min left" if rate else "time left unknown"
            logger.info("%s: %d of %d, %.3g a minute, %s %s", name, done, total, 60 * rate, left, note)

    return update
