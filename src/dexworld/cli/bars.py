"""Progress of long commands: bars on a terminal, a plain line a minute in a log file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining

from dexworld.data.pace import Pace

Update = Callable[..., None]


def counted(label: str, total: int | None = None) -> Callable[[Any], Iterator]:
    """A wrapper of an iterator that draws a bar of `total` items (default: its length)."""

    def wrap(items: Any) -> Iterator:
        count = len(items) if total is None else total
        with task_bars() as update:
            for done, item in enumerate(items):
                update(label, done, count)
                yield item
            update(label, count, count)

    return wrap


@contextmanager
def task_bars() -> Iterator[Update]:
    """Bars by name, each moved by calling the value with (name, done, total) and perhaps a note behind the bar.

    Without a terminal a line is logged at the first call of a name and one a minute: done, total, rate, time left.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Pace().update
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
