"""Work on many items in several processes of this machine, or on the machines of a Ray cluster.

    for result in parallel_map(job, items, workers=4): ...      # in the order of the items
    with Workers(job, workers=4) as workers:                    # keeps its processes over several calls
        for result in workers.map(items, ordered=False): ...    # as they are done
        for outcome in workers.outcomes(items): ...             # errors as values, one per item

A job is sent to each process once, so what it caches (a model, an opened source) lasts. A process that dies costs only
the item that it worked on. All processes end when the main process does, even when it is killed.
"""

import errno
import logging
import math
import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 8  # items per process that may start before an earlier one is done, so that memory stays bounded
FEW = 16  # cheap items that are not worth a process
TICK_S = 1.0
START_S = 120.0  # a process may take so long to import what its job needs


class WorkerDied(RuntimeError):
    """The process that worked on an item was killed (for its memory, by a crash in a library) or made no progress."""


class DiskFullError(OSError):
    """A job found its disk full; no further item is tried."""


class RayMissingError(ValueError):
    """Ray was asked for and is not installed."""


def available_cores() -> int:
    """Cores that this process may use, by its affinity and its control group: often fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))))


def _quota(group: Path, root: Path) -> int:
    """Cores' worth of time that a control group (version 2) and those above it may use, rounded up.

    group: the file that names it. root: where groups are mounted. A container sees its own group at the root.
    """
    cores = sys.maxsize
    with suppress(OSError, StopIteration):
        name = next(line[3:] for line in group.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
        own = root / name.strip("/")
        for folder in (each for each in (own, *own.parents) if each.is_relative_to(root)):
            with suppress(OSError, ValueError, ZeroDivisionError):  # the root of the machine has no such file
                quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
                cores = cores if quota == "max" else min(cores, -(-int(quota) // int(period)))
    return cores


def worker_count(items: int, workers: int = 0) -> int:
    """Processes for so many cheap items. workers: 0 means one per core, but none that would have only a few items."""
    return max(1, min(workers or min(available_cores(), -(-items // FEW)), items))


@dataclass
class Outcome:
    """What became of an item: the job's result, or the error of the last of its `tries`."""

    item: Any
    number: int
    result: Any = None
    error: Exception | None = None
    tries: int = 0

    def answered(self, kind: str, value: Any) -> "Outcome":
        """This outcome with what a worker sent. Raises DiskFullError when it found its disk full."""
        self.result, self.error = (value, None) if kind == "done" else (None, value)
        if isinstance(self.error, OSError) and self.error.errno == errno.ENOSPC:
            raise DiskFullError(errno.ENOSPC, f"the disk is full; make room and start again ({self.error})")
        return self


def parallel_map(
    job: Callable[[Item], Result], items: Sequence[Item], workers: int = 0, ordered: bool = True
) -> Iterator[Result]:
    """`job(item)` of each item, in order or as they are done; see `Workers.map`. workers: 0 is one per core."""
    with Workers(job, min(workers or available_cores(), max(1, len(items)))) as pool:
        yield from pool.map(items, ordered)


class Workers:
    """Processes, or Ray actors, that run one job on many items. A context manager; leaving it ends them at once.

    job: picklable, called as job(item), or as job(item, note) when `listen` is given: note(value, seconds=0) calls
    listen(value) in the main process. workers: 0 is one per core; 1 works in this process. tries: how often an item
    starts whose worker dies, hangs or raises; in this process once. patience: seconds from one note or result of a
    worker to the next before it counts as hung and is ended; a note's `seconds` are added once. ray: address of a
    cluster whose actors replace the processes: "local" starts one on this machine, "auto" joins the one that runs here.
    Then workers 0 takes all its CPUs, every machine must see the paths that the job uses, and nothing is noted. Raises
    RayMissingError when Ray is not installed.
    """

    def __init__(
        self,
        job: Callable[..., Any],
        workers: int = 0,
        listen: Callable[[Any], None] | None = None,
        tries: int = 1,
        patience: float = math.inf,
        ray: str | None = None,
    ) -> None:
        self.job, self.listen, self.tries, self.patience = job, listen, tries, patience
        self.count, notes = workers or available_cores(), listen is not None
        self._backend: Any = None if workers == 1 else _Processes(job, notes)  # None: in this process
        if ray is not None:
            self._backend = _RayActors(job, notes, ray, workers)
            self.count, self.patience = self._backend.count, math.inf
        self._crew: list[_Worker] = []
        self._started = False  # whether any worker ever was

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._crew.copy():
            self._end(worker)
        if isinstance(self._backend, _RayActors):
            self._backend.close()

    def map(self, items: Iterable, ordered: bool = True) -> Iterator[Any]:
        """`job(item)` of each item; the error of the first that fails is raised, a WorkerDied when its process died.

        ordered: in the order of the items, otherwise as they are done. An item is taken when a worker is free. Raises
        RuntimeError when no process can be started, DiskFullError when a job found its disk full.
        """
        for outcome in self.outcomes(items, ordered):
            if outcome.error is not None:
                raise outcome.error
            yield outcome.result

    def outcomes(self, items: Iterable, ordered: bool = True) -> Iterator[Outcome]:
        """Like `map`, but what fails is handed out with its error and the rest goes on."""
        waiting = (Outcome(item, number) for number, item in enumerate(items))
        again: deque[Outcome] = deque()
        if self._backend is None:
            yield from map(self._here, waiting)
            return
        done: dict[int, Outcome] = {}
        taken = following = 0
        try:
            while True:
                while self._busy() < self.count and (again or not ordered or taken - following < AHEAD * self.count):
                    task = again.popleft() if again else next(waiting, None)
                    if task is None:
                        break
                    taken = max(taken, task.number + 1)
                    self._give(task)
                if not self._busy():
                    return
                for task in self._finished():
                    if task.error is not None and task.tries < self.tries:
                        logger.warning("%s: %s; it is tried once more", _short(task.item), task.error)
                        again.append(task)
                    else:
                        done[task.number] = task
                while done and (not ordered or following in done):
                    yield done.pop(following if ordered else next(iter(done)))
                    following += 1
        finally:
            for worker in [each for each in self._crew if each.task]:  # nobody waits for its answer any more
                self._end(worker)

    def _here(self, task: Outcome) -> Outcome:
        """The outcome in this process. What `listen` raises ends the work; it is no failure of the job."""
        raised: list[Exception] = []

        def note(value: Any, seconds: float = 0.0) -> None:
            try:
                self.listen(value)  # type: ignore[misc]
            except Exception as error:
                raised.append(error)
                raise

        kind, value = _answer(self.job, task.item, note if self.listen else None)
        if raised:
            raise raised[0]
        return task.answered(kind, value)

    def _busy(self) -> int:
        return sum(worker.task is not None for worker in self._crew)

    def _give(self, task: Outcome) -> None:
        task.tries += 1
        worker, patience = next((each for each in self._crew if each.task is None), None), self.patience
        if worker is None:
            worker, patience = self._backend.start(), max(patience, START_S)
            self._crew.append(worker)
        worker.task, worker.deadline = task, time.monotonic() + patience
        self._backend.send(worker, task.item)

    def _finished(self) -> Iterator[Outcome]:
        """Items that are done since, with their results or errors."""
        hung = "its worker made no progress and was ended"
        late = ((w, "died", hung) for w in self._crew.copy() if w.task and time.monotonic() > w.deadline)
        for worker, kind, value in chain(self._backend.messages(self._crew), late):
            worker.deadline = time.monotonic() + self.patience
            if kind == "started":
                self._started = True
            elif kind == "note":
                worker.deadline += value[1]
                if self.listen is not None:
                    self.listen(value[0])
            else:
                task, worker.task = worker.task, None
                if kind == "died":
                    self._end(worker)
                    if not self._started:
                        raise RuntimeError(f"no worker process can be started ({value}); its own error stands above")
                    value = WorkerDied(f"{value}, while at {_short(task.item) if task else 'nothing'}")
                if task is not None:
                    yield task.answered(kind, value)

    def _end(self, worker: "_Worker") -> None:
        self._crew.remove(worker)
        self._backend.end(worker)


@dataclass(eq=False)
class _Worker:
    """handle: a process or a Ray actor. channel: its pipe, or the reference of the answer it owes."""

    handle: Any
    channel: Any = None
    task: Outcome | None = None
    deadline: float = math.inf


Message = tuple[_Worker, str, Any]  # kind: started, note, done, failed or died


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

    def messages(self, crew: list[_Worker]) -> Iterator[Message]:
        """What has come in; waits for a second at most."""
        by_channel = {worker.channel: worker for worker in crew}
        for channel in wait(list(by_channel), TICK_S):
            worker = by_channel[channel]  # type: ignore[index]
            try:
                yield worker, *worker.channel.recv()
            except (EOFError, OSError):
                worker.handle.join(1.0)
                code = worker.handle.exitcode or 0
                memory = ", as when memory runs out" if code == -9 else ""
                end = f"signal {-code}{memory}" if code < 0 else f"exit code {code}"
                yield worker, "died", f"its worker ended ({end})"

    def end(self, worker: _Worker) -> None:
        worker.channel.close()
        worker.handle.kill()
        worker.handle.join()


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
            kind, value = _answer(job, connection.recv(), note if notes else None)
            try:
                connection.send((kind, ForkingPickler.loads(ForkingPickler.dumps(value)) if kind != "done" else value))
            except Exception as error:  # what can't travel
                connection.send(("failed", RuntimeError(f"{value!r} can't leave its process ({error})")))
    except (EOFError, OSError):
        return  # the main process is gone


def _end_with_parent() -> None:
    """End this worker as soon as the main process is gone, so that it writes nothing behind its successor's back."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class _RayActors:
    """Workers on a Ray cluster, an actor of one CPU each. Notes don't come back from there."""

    def __init__(self, job: Callable, notes: bool, address: str, workers: int) -> None:
        try:
            import ray
            import ray.exceptions
        except ImportError as error:
            raise RayMissingError('Ray is not installed; add it with `pip install "dexworld[ray]"`') from error
        self.ray, self.job, self.notes, self.ours = ray, job, notes, not ray.is_initialized()
        if self.ours:
            local: dict[str, Any] = {"num_cpus": workers or None, "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, **(local if address == "local" else {}))
        self.count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def start(self) -> _Worker:
        return _Worker(self.ray.remote(num_cpus=1)(_Actor).remote(self.job, self.notes))

    def send(self, worker: _Worker, item: Any) -> None:
        worker.channel = worker.handle.work.remote(item)

    def messages(self, crew: list[_Worker]) -> Iterator[Message]:
        """An actor that is done or gone; waits for it."""
        owed = {worker.channel: worker for worker in crew if worker.task}
        for reference in self.ray.wait(list(owed), num_returns=1)[0]:
            yield owed[reference], "started", None
            try:
                yield owed[reference], *self.ray.get(reference)
            except self.ray.exceptions.RayError as error:  # the actor or its machine is gone
                yield owed[reference], "died", str(error).splitlines()[0]

    def end(self, worker: _Worker) -> None:
        self.ray.kill(worker.handle)

    def close(self) -> None:
        if self.ours:
            self.ray.shutdown()


class _Actor:
    def __init__(self, job: Callable, notes: bool) -> None:
        self.job, self.note = job, (lambda value, seconds=0.0: None) if notes else None

    def work(self, item: Any) -> tuple[str, Any]:
        return _answer(self.job, item, self.note)


def _answer(job: Callable, item: Any, note: Callable[..., None] | None) -> tuple[str, Any]:
    """What to send back: the result, or whatever went wrong."""
    try:
        return "done", job(item) if note is None else job(item, note)
    except Exception as error:
        return "failed", error


def _short(item: Any) -> str:
    text = str(item)
    return text if len(text) <= 100 else f"{text[:96]} ..."
