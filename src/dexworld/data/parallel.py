"""Work on many items in several processes of this machine, or on the machines of a Ray cluster.

    for result in parallel_map(job, items, workers=4): ...           # in the order of the items
    with Workers(job, workers=4) as workers:                         # keeps its processes over several calls
        for result in workers.map(items, ordered=False): ...         # as they are done
        for outcome in workers.outcomes(items): ...                  # errors as values, one per item

A job is sent to each process once, so what it caches (a model, an opened source) lasts. A process that dies costs the
item that it worked on and nothing else. All processes end when the main process does, even when it is killed.
"""

import errno
import logging
import math
import multiprocessing
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 8  # items per process that may be begun before an earlier one is done, so that memory stays bounded
FEW = 16  # cheap items that are not worth a process
TICK_S = 1.0
START_S = 120.0  # a process may take so long to import what its job needs


class WorkerDied(RuntimeError):
    """The process that worked on an item was killed (for its memory, by a crash in a library) or made no progress."""


class DiskFullError(OSError):
    """A job found its disk full; no further item is tried."""


class RayMissingError(ValueError):
    """Ray was asked for and is not installed."""


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count` equal shares, written "index/count" on the command line."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"shard {self.index}/{self.count} must be i/n with 0 <= i < n: the first of four is 0/4, the last 3/4"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "i/n" means. Raises ValueError on anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found:
            raise ValueError(f"shard {text!r} must be written i/n, e.g. 0/4 for the first of four")
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items of this share, in order."""
        return list(items[self.index :: self.count])


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
    """Processes for so many cheap items. workers: 0 means one per core, but none that would have only a few items."""
    return max(1, min(workers or min(available_cores(), -(-items // FEW)), items))


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of an item: the job's result, or the error of its last try."""

    item: Item
    result: Any = None
    error: Exception | None = None
    tries: int = 1


def parallel_map(
    job: Callable[[Item], Result], items: Sequence[Item], workers: int = 0, ordered: bool = True
) -> Iterator[Result]:
    """`job(item)` of each item, in order or as they are done; see `Workers.map`. workers: 0 is one per core."""
    with Workers(job, min(workers or available_cores(), max(1, len(items)))) as pool:
        yield from pool.map(items, ordered)


@dataclass(eq=False)
class _Worker:
    """handle: a process or a Ray actor. channel: its pipe, or the reference of the answer that it owes."""

    handle: Any
    channel: Any
    task: "_Task | None" = None  # None while busy: nobody waits for the answer any more
    busy: bool = False
    deadline: float = math.inf


@dataclass
class _Task:
    number: int
    item: Any
    failures: int = 0


class Workers(Generic[Item, Result]):
    """Processes, or Ray actors, that run one job on many items. A context manager; leaving it ends them at once.

    job: picklable, called as job(item), or as job(item, note) when `listen` is given: note(value, seconds=0) calls
    listen(value) in the main process. workers: 0 is one per core; 1 works in this process. tries: how often an item is
    begun whose worker dies, hangs or raises; in this process once. patience: seconds from one sign of life of a worker
    (a note, a result) to the next before it counts as hung and is ended; a note's `seconds` are added once.
    ray: address of a cluster whose actors take the place of the processes: "local" starts one on this machine, "auto"
    joins the one that runs here. Then workers 0 takes all its CPUs, every machine must see the paths that the job uses,
    and there is neither `listen` nor `patience`. Raises RayMissingError when Ray is not installed.
    """

    def __init__(
        self,
        job: Callable[..., Result],
        workers: int = 0,
        listen: Callable[[Any], None] | None = None,
        tries: int = 1,
        patience: float = math.inf,
        ray: str | None = None,
    ) -> None:
        self.job, self.listen, self.tries, self.patience = job, listen, tries, patience
        self._backend: Any = None
        if ray is not None:
            self._backend = _RayActors(job, listen is not None, ray, workers)
        elif workers != 1:
            self._backend = _Processes(job, listen is not None)
        self.count = self._backend.count if ray is not None else workers or available_cores()
        self._crew: list[_Worker] = []
        self._started = False  # whether any worker ever was

    def __enter__(self) -> "Workers[Item, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._crew):
            self._end(worker)
        if self._backend is not None:
            self._backend.close()

    def map(self, items: Iterable[Item], ordered: bool = True) -> Iterator[Result]:
        """`job(item)` of each item; the error of the first that fails is raised, a WorkerDied when its process died.

        ordered: in the order of the items, otherwise as they are done. Items are taken one by one, when a worker is
        free. Raises RuntimeError when no process can be started, DiskFullError when a job found its disk full.
        """
        for outcome in self.outcomes(items, ordered):
            if outcome.error is not None:
                raise outcome.error
            yield outcome.result

    def outcomes(self, items: Iterable[Item], ordered: bool = True) -> Iterator[Outcome[Item, Result]]:
        """Like `map`, but what fails is handed out with its error and the rest goes on."""
        if self._backend is None:
            yield from map(self._here, items)
            return
        numbered, again, done, following = enumerate(items), deque[_Task](), dict[int, Outcome](), 0
        taken = exhausted = 0
        try:
            while True:
                while self._has_room() and (again or not ordered or taken - following < AHEAD * self.count):
                    task = again.popleft() if again else next((_Task(*each) for each in numbered), None)
                    if task is None:
                        exhausted = 1
                        break
                    taken = max(taken, task.number + 1)
                    self._give(task)
                if exhausted and not again and not any(worker.task for worker in self._crew):
                    return
                for task, result, error in self._hear():
                    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                        raise _disk_full(error) from error
                    if error is not None and task.failures + 1 < self.tries:
                        task.failures += 1
                        logger.warning("%s: %s; it is tried once more", _short(task.item), error)
                        again.append(task)
                    else:
                        done[task.number] = Outcome(task.item, result, error, task.failures + 1)
                while done and (not ordered or following in done):
                    yield done.pop(following if ordered else next(iter(done)))
                    following += 1
        finally:
            for worker in self._crew:
                worker.task = None

    def _here(self, item: Item) -> Outcome[Item, Result]:
        """The item's outcome in this process. What `listen` raises is no failure of the job."""
        raised: list[Exception] = []

        def note(value: Any, seconds: float = 0.0) -> None:
            try:
                self.listen(value)  # type: ignore[misc]
            except Exception as error:
                raised.append(error)
                raise

        try:
            return Outcome(item, self.job(item) if self.listen is None else self.job(item, note))
        except Exception as error:
            if raised:
                raise
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise _disk_full(error) from error
            return Outcome(item, error=error)

    def _has_room(self) -> bool:
        return len(self._crew) < self.count or any(not worker.busy for worker in self._crew)

    def _give(self, task: _Task) -> None:
        worker, patience = next((each for each in self._crew if not each.busy), None), self.patience
        if worker is None:
            worker, patience = self._backend.start(), max(patience, START_S)
            self._crew.append(worker)
        worker.task, worker.busy, worker.deadline = task, True, time.monotonic() + patience
        self._backend.send(worker, task.item)

    def _hear(self) -> Iterator[tuple[_Task, Any, Exception | None]]:
        """Items that are done since, with their results or errors."""
        for worker, kind, value in self._backend.messages(self._crew):
            worker.deadline = time.monotonic() + self.patience
            if kind == "note":
                worker.deadline += value[1]
                if worker.task is not None and self.listen is not None:
                    self.listen(value[0])
            elif kind == "started":
                self._started = True
            else:
                yield from self._answered(worker, kind, value)
        for worker in [each for each in self._crew if each.busy and time.monotonic() > each.deadline]:
            yield from self._answered(worker, "died", "its worker made no progress and was ended")

    def _answered(self, worker: _Worker, kind: str, value: Any) -> Iterator[tuple[_Task, Any, Exception | None]]:
        """The worker's item with its result, unless nobody waits for it."""
        task, worker.task, worker.busy = worker.task, None, False
        if kind == "died":
            self._end(worker)
            if not self._started:
                raise RuntimeError(f"no worker process can be started ({value}); its own error stands above")
        if task is not None:
            error = WorkerDied(f"{value}, while at {_short(task.item)}") if kind == "died" else value
            yield (task, value, None) if kind == "done" else (task, None, error)

    def _end(self, worker: _Worker) -> None:
        self._crew.remove(worker)
        self._backend.end(worker)


class _Processes:
    """Workers on this machine. Each has a pipe of its own, whose end says that it is gone."""

    def __init__(self, job: Callable, notes: bool) -> None:
        self.job, self.notes = job, notes
        self.context = multiprocessing.get_context("spawn")  # neither graphics nor threads survive a fork

    def start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.notes), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the worker does
        worker = _Worker(process, ours)
        self.send(worker, self.job)
        return worker

    def send(self, worker: _Worker, item: Any) -> None:
        try:
            worker.channel.send(item)
        except OSError:  # it died while idle: the end of its pipe is found at the next look
            logger.debug("worker %s is gone", worker.handle.pid)

    def messages(self, crew: list[_Worker]) -> Iterator[tuple[_Worker, str, Any]]:
        """(worker, kind, value) of what has come in; waits for a second at most."""
        by_channel = {worker.channel: worker for worker in crew}
        for channel in wait(list(by_channel), TICK_S):
            worker = by_channel[channel]
            try:
                kind, value = worker.channel.recv()
            except (EOFError, OSError):
                worker.handle.join(1.0)
                kind, value = "died", f"its worker ended ({_end_of(worker.handle.exitcode)})"
            yield worker, kind, value

    def end(self, worker: _Worker) -> None:
        worker.channel.close()
        worker.handle.kill()
        worker.handle.join()

    def close(self) -> None:
        """Nothing is left to end."""


class _RayActors:
    """Workers on a Ray cluster, an actor of one CPU each. Notes don't come back from there."""

    def __init__(self, job: Callable, notes: bool, address: str, workers: int) -> None:
        try:
            import ray
            import ray.exceptions
        except ImportError as error:
            raise RayMissingError(
                'Ray is not installed; add it with `pip install "dexworld[ray]"`, or use processes, which need nothing'
            ) from error
        self.ray, self.job, self.notes, self.ours = ray, job, notes, not ray.is_initialized()
        if self.ours:
            local: dict[str, Any] = {"num_cpus": workers or None, "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, **(local if address == "local" else {}))
        self.count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def start(self) -> _Worker:
        return _Worker(self.ray.remote(num_cpus=1)(_Actor).remote(self.job, self.notes), None)

    def send(self, worker: _Worker, item: Any) -> None:
        worker.channel = worker.handle.work.remote(item)

    def messages(self, crew: list[_Worker]) -> Iterator[tuple[_Worker, str, Any]]:
        """(worker, kind, value) of the actors that are done or gone; waits for one."""
        owed = {worker.channel: worker for worker in crew if worker.busy}
        for reference in self.ray.wait(list(owed), num_returns=1)[0]:
            yield owed[reference], "started", None
            try:
                yield owed[reference], *self.ray.get(reference)
            except self.ray.exceptions.RayError as error:  # the actor or its machine is gone
                yield owed[reference], "died", _said(error).splitlines()[0]

    def end(self, worker: _Worker) -> None:
        self.ray.kill(worker.handle)

    def close(self) -> None:
        if self.ours:
            self.ray.shutdown()


class _Actor:
    def __init__(self, job: Callable, notes: bool) -> None:
        self.job = (lambda item: job(item, lambda value, seconds=0.0: None)) if notes else job

    def work(self, item: Any) -> tuple[str, Any]:
        return _answer(self.job, item)


def _serve(connection: Any, notes: bool) -> None:
    """A worker's life: the job and items come in, notes and results go out, until the pipe ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def note(value: Any, seconds: float = 0.0) -> None:
        connection.send(("note", (value, seconds)))

    try:
        job = connection.recv()
        connection.send(("started", None))
        if "torch" in sys.modules:  # one process per core: threads would only be in each other's way
            sys.modules["torch"].set_num_threads(1)
        while True:
            item = connection.recv()
            answer = _answer(lambda item: job(item, note), item) if notes else _answer(job, item)
            connection.send(answer)
    except (EOFError, OSError):
        return


def _answer(job: Callable, item: Any) -> tuple[str, Any]:
    """What to send back: the result, or whatever went wrong, in a form that can travel."""
    try:
        result = job(item)
        ForkingPickler.dumps(result)
        return "done", result
    except Exception as error:
        try:
            ForkingPickler.loads(ForkingPickler.dumps(error))
        except Exception:
            return "failed", RuntimeError(_said(error))
        return "failed", error


def _end_with_parent() -> None:
    """End this worker as soon as the main process is gone, so that it writes nothing behind its successor's back."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _end_of(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {-exitcode}{', as when memory runs out' if exitcode == -9 else ''}"
    return f"exit code {exitcode}"


def _disk_full(error: OSError) -> DiskFullError:
    return DiskFullError(errno.ENOSPC, f"the disk is full; make room and start again ({_said(error)})")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _short(item: Any) -> str:
    text = str(item)
    return text if len(text) <= 100 else f"{text[:96]} ..."
