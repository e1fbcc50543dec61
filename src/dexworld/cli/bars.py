"""Progress of long commands: bars on a terminal; for work of days also a log line a minute where there is none."""

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
def task_bars(console: Console | None = None) -> Iterator[Callable[..., None]]:
    """Bars by name, each moved by calling the value with (name, done, total) and perhaps a note behind the bar."""
    label, note_shown = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = label, BarColumn(), MofNCompleteColumn(), note_shown, Elapsed(), Remaining()
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def update(name: str, done: int, total: int, note: str = "") -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, note=note)
            progress.update(tasks[name], completed=done, note=note)

        yield update


@contextmanager
def bars_or_lines() -> Iterator[Callable[..., None]]:
    """Like `task_bars` on a terminal; elsewhere a log line at the first call of a name, and one a minute."""
    console = Console(stderr=True)
    if console.is_terminal:
        with task_bars(console) as update:
            yield update
        return
    current, started, logged = "", 0.0, 0.0

    def log(name: str, done: int, total: int, note: str = "") -> None:
        nonlocal current, started, logged
        now = time.monotonic()
        if name != current:
            current, started, logged = name, now, now
            logger.info("%s: %d to do", name, total)
        elif now - logged >= LOGGED_EVERY_S:
            logged = now
            remaining = (now - started) / done * (total - done) if done else 0.0
            logger.info("%s: %d of %d %s, about %.0f min to go", name, done, total, note, remaining / 60)

    yield log
