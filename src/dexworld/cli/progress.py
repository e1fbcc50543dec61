"""Progress bars for long commands."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )


def counted(label: str, total: int) -> Callable[[Iterable], Iterator]:
    """A wrapper of an iterator that draws a bar of `total` items; items that were done before count as done."""

    def wrap(items: Iterable) -> Iterator:
        with _bar() as progress:
            task = progress.add_task(label, total=total)
            for item in items:
                progress.advance(task)
                yield item
            progress.update(task, completed=total)

    return wrap


@contextmanager
def task_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars by name, each moved by calling the value with (name, done, total)."""
    with _bar() as progress:
        tasks: dict[str, TaskID] = {}

        def update(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done)

        yield update
