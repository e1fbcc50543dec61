"""Work on many items in processes, with the results in order; an item that kills its process costs only itself."""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 8  # items sent to a process at once
AHEAD = 4  # chunks per process that may wait for their turn, so that memory stays bounded
_job: dict[str, Callable[[Any], Any]] = {}  # of a worker process


class WorkerDied(RuntimeError):
    """The process that worked on an item was killed: by the system for its memory, or by a crash in a library."""


def available_cores() -> int:
    """Cores that this process may use, by its affinity and its control group: often fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))))


def _quota(group: Path, root: Path) -> int:
    """Cores' worth of time that a control group (version 2) and those above it may use, rounded up.

    group: the file that names it. root: where groups are mounted. A container sees its own group at the root.
    """
    cores = sys.maxsize
    try:
        name = next(line[3:] for line in group.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return cores
    own = root / name.strip("/")
    for folder in (own, *own.parents):
        if folder.is_relative_to(root):
            try:
                quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
                cores = cores if quota == "max" else min(cores, -(-int(quota) // int(period)))
            except (OSError, ValueError, ZeroDivisionError):
                continue  # the root of the machine has no such file
    return cores


def worker_count(items: int, workers: int = 0) -> int:
    """Processes for so many items. workers: 0 means one per core, but none that would have only a few items."""
    wanted = workers or min(available_cores(), -(-items // (2 * CHUNK)))
    return max(1, min(wanted, items))


class OrderedPool(Generic[Item, Result]):
    """Runs one function in several processes.

    job: picklable; it is sent to each process once. workers: 1 works in this process. preload: modules that the
    processes need, imported once for all of them.
    """

    def __init__(self, job: Callable[[Item], Result], workers: int, preload: Sequence[str] = ()) -> None:
        self.job, self.workers, self.preload = job, workers, preload

    def map(self, items: Sequence[Item]) -> Iterator[Result | WorkerDied]:
        """`job(item)` of each item, in order. An item whose process died gives a WorkerDied; an exception is raised.

        Raises RuntimeError when processes can't be started at all.
        """
        if self.workers == 1:
            yield from map(self.job, items)
            return
        waiting: deque[tuple[Sequence[Item], Future]] = deque()
        chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        following = 0
        pool = self._pool(self.workers)
        try:
            while following < len(chunks) or waiting:
                try:
                    while following < len(chunks) and len(waiting) < AHEAD * self.workers:
                        waiting.append((chunks[following], pool.submit(_run, chunks[following])))
                        following += 1
                    yield from waiting[0][1].result()
                    waiting.popleft()
                except BrokenProcessPool:
                    pool.shutdown(cancel_futures=True)
                    for chunk, future in waiting:
                        done = future.done() and not future.cancelled() and future.exception() is None
                        yield from future.result() if done else self._one_by_one(chunk)
                    waiting.clear()
                    pool = self._pool(self.workers)
        finally:
            pool.shutdown(cancel_futures=True)

    def _one_by_one(self, items: Sequence[Item]) -> Iterator[Result | WorkerDied]:
        pool = self._started()
        try:
            for item in items:
                try:
                    yield pool.submit(_run, [item]).result()[0]
                except BrokenProcessPool:
                    yield WorkerDied("the process that worked on it died")
                    pool.shutdown()
                    pool = self._started()
        finally:
            pool.shutdown(cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        """A pool of one process that is known to run, so that no item is blamed for processes that can't start."""
        pool = self._pool(1)
        try:
            pool.submit(_run, []).result()
        except BrokenProcessPool as error:
            pool.shutdown()
            raise RuntimeError("no worker process can be started; its own error stands above") from error
        return pool

    def _pool(self, workers: int) -> ProcessPoolExecutor:
        # Threads of this process don't survive a fork; forks of a server that has none start at once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self.preload))
        return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(self.job,))


def _begin(job: Callable[[Any], Any]) -> None:
    _job["job"] = job
    if "torch" in sys.modules:  # one process per core: threads would only be in each other's way
        sys.modules["torch"].set_num_threads(1)


def _run(items: Sequence[Any]) -> list[Any]:
    return [_job["job"](item) for item in items]
