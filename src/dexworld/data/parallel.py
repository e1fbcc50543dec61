"""Work on many items in several processes of this machine, or on the machines of a Ray cluster.

    for result in parallel_map(job, items, workers=4): ...      # in the order of the items
    with Workers(job, workers=4) as workers:                    # keeps its processes over several calls
        for result in workers.map(items, ordered=False): ...    # as they are done
        for outcome in workers.outcomes(items): ...             # errors as values, one per item

A job is sent to each process once, so what it caches (a model, an opened source) lasts. A process that dies costs only
the item that it worked on. All processes end when the main process does, even when it is killed; what a process has
half written when it is ended is removed.
"""

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 8  # items per process that may start before an earlier one is done, so that memory stays bounded
FEW = 16  # cheap items that are not worth a process
GRACE_S = 2.0  # for a process that is asked to end, to leave what it has open


class WorkerDied(RuntimeError):
    """The process that worked on an item was killed: for its memory, or by a crash in a library."""


class _Ended(BaseException):
    """This worker was asked to end: whatever is open is cleaned up on the way out."""


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
    """What became of an item: the job's result, or the error."""

    item: Any
    number: int
    result: Any = None
    error: Exception | None = None

    def answered(self, kind: str, value: Any) -> "Outcome":
        """This outcome with what a worker sent. Raises DiskFullError when it found its disk full."""
        self.result, self.error = (value, None) if kind == "done" else (None, value)
        if isinstance(self.error, OSError) and self.error.errno == errno.ENOSPC:
            full = f"the disk is full; make room and start again ({self.error})"
            raise DiskFullError(errno.ENOSPC, full, self.error.filename)
        return self


def parallel_map(
    job: Callable[[Item], Result], items: Sequence[Item], workers: int = 0, ordered: bool = True
) -> Iterator[Result]:
    """`job(item)` of each item, in order or as they are done; see `Workers.map`. workers: 0 is one per core."""
    with Workers(job, min(workers or available_cores(), max(1, len(items)))) as pool:
        yield from pool.map(items, ordered)


class Workers:
    """Processes, or Ray actors, that run one job on many items. A context manager; leaving it ends them at once.

    job: picklable, called as job(item). workers: 0 is one per core; 1 works in this process. ray: address of a cluster
    whose actors replace the processes: "local" starts one on this machine, "auto" joins the one that runs here. Then
    workers 0 takes all its CPUs, and every machine must see the paths that the job uses. Raises RayMissingError when
    Ray is not installed.
    """

    def __init__(self, job: Callable[[Any], Any], workers: int = 0, ray: str | None = None) -> None:
        self.job, self.count = job, workers or available_cores()
        self._cluster = None if ray is None else RayCluster(ray, workers)
        if self._cluster is not None:
            self.count = self._cluster.count
        self._here = workers == 1 and ray is None
        self._crew: list[_Process | _RayActor] = []
        self._started = False  # whether any worker ever was

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._crew.copy())
        if self._cluster is not None:
            self._cluster.close()

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
        if self._here:
            yield from (task.answered(*_answer(self.job, task.item)) for task in waiting)
            return
        done: dict[int, Outcome] = {}
        taken = following = 0
        try:
            while True:
                while self._busy() < self.count and (not ordered or taken - following < AHEAD * self.count):
                    task = next(waiting, None)
                    if task is None:
                        break
                    taken += 1
                    self._give(task)
                if not self._busy():
                    return
                done |= {task.number: task for task in self._finished()}
                while done and (not ordered or following in done):
                    yield done.pop(following if ordered else next(iter(done)))
                    following += 1
        finally:
            self._end([each for each in self._crew if each.task])  # nobody waits for their answers any more

    def _busy(self) -> int:
        return sum(worker.task is not None for worker in self._crew)

    def _give(self, task: Outcome) -> None:
        worker = next((each for each in self._crew if each.task is None), None)
        if worker is None:
            worker = _Process(self.job) if self._cluster is None else self._cluster.actor(self.job)
            self._crew.append(worker)
        worker.task = task
        worker.send(task.item)

    def _finished(self) -> Iterator[Outcome]:
        """Items that are done since, with their results or errors; waits for one of them."""
        ready = self._cluster.ready if self._cluster is not None else _ready_processes
        for worker in ready([each for each in self._crew if each.task]):
            kind, value = worker.receive()
            if kind == "started":
                self._started = True
                continue
            task, worker.task = worker.task, None
            if kind == "died":
                self._end([worker])
                if not self._started and self._cluster is None:
                    raise RuntimeError(f"no worker process can be started ({value}); its own error stands above")
                value = WorkerDied(f"{value}, while at {_short(task.item)}")
            yield task.answered(kind, value)

    def _end(self, leaving: "list[_Process | _RayActor]") -> None:
        for worker in leaving:
            worker.ask_to_end()
        for worker in leaving:
            self._crew.remove(worker)
            worker.end()


class _Process:
    """A worker on this machine with a pipe of its own, whose end says that it is gone."""

    def __init__(self, job: Callable) -> None:
        context = multiprocessing.get_context("spawn")  # neither graphics nor threads survive a fork
        self.task: Any = None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with signals_held(signal.SIGINT, signal.SIGTERM):
            self.process.start()
        theirs.close()  # so that the pipe ends when the worker does
        self.send(job)

    def send(self, item: Any) -> None:
        with suppress(OSError):  # it died while idle: the end of its pipe is found at the next look
            self.pipe.send(item)

    def receive(self) -> tuple[str, Any]:
        """What it sent: (started, done, failed or died; the value)."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            code = self.process.exitcode or 0
            memory = ", as when memory runs out" if code == -9 else ""
            end = f"signal {-code}{memory}" if code < 0 else f"exit code {code}"
            return "died", f"its worker ended ({end})"

    def ask_to_end(self) -> None:
        with suppress(ProcessLookupError):  # it is gone
            os.kill(self.process.pid or 0, signal.SIGUSR1)

    def end(self) -> None:
        self.process.join(GRACE_S)
        self.process.kill()
        self.process.join()
        self.pipe.close()


@contextmanager
def signals_held(*numbers: int) -> Iterator[None]:
    """Around the start of processes that leave these signals to this one, whose end is theirs.

    A signal to the whole group then prints no traceback from each of them. This process gets its own when that is over.
    """
    resource_tracker.ensure_running()  # it would let the signals through, had it to be started in between
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ready_processes(crew: list[Any]) -> list[Any]:
    """Those that have sent something or are gone; waits for one."""
    ready = wait([worker.pipe for worker in crew])
    return [worker for worker in crew if worker.pipe in ready]


def _serve(connection: Any) -> None:
    """A worker's life: the job and items come in, results go out, until the pipe ends or it is asked to end."""
    leaving: list[int] = []

    def leave(number: int, frame: Any) -> None:
        leaving.append(number)
        raise _Ended

    signal.signal(signal.SIGUSR1, lambda *_: os._exit(1))  # imports have nothing open, and make `_Ended` another error
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        job = connection.recv()
        signal.signal(signal.SIGUSR1, leave)
        connection.send(("started", None))
        if "torch" in sys.modules:  # one process per core: threads would only be in each other's way
            sys.modules["torch"].set_num_threads(1)
        while True:
            kind, value = _answer(job, connection.recv())
            if leaving:  # an import in the job made `_Ended` an error of its own
                os._exit(1)
            try:
                connection.send((kind, ForkingPickler.loads(ForkingPickler.dumps(value)) if kind != "done" else value))
            except Exception as error:  # what can't travel
                connection.send(("failed", RuntimeError(f"{value!r} can't leave its process ({error})")))
    except (EOFError, OSError):
        return  # the main process is gone
    except _Ended:
        os._exit(1)


def _end_with_parent() -> None:
    """End this worker as soon as the main process is gone, so that it writes nothing behind its successor's back."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(GRACE_S)
        os._exit(1)


class RayCluster:
    """A Ray cluster, on which an actor works on one CPU.

    address: `local`, `auto` or ray://host:port. Raises RayMissingError without Ray.
    """

    def __init__(self, address: str, workers: int) -> None:
        stopped = signal.getsignal(signal.SIGTERM)
        try:
            import ray
            import ray.exceptions
        except ImportError as error:
            raise RayMissingError('Ray is not installed; add it with `pip install "dexworld[ray]"`') from error
        self.ray, self.ours = ray, not ray.is_initialized()
        if self.ours:
            local: dict[str, Any] = {"num_cpus": workers or None, "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, **(local if address == "local" else {}))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stopped)  # Ray sets its own, which exits with another code
        self.count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def actor(self, job: Callable) -> "_RayActor":
        """A new worker that does the job's items."""
        return _RayActor(self.ray, self.ray.remote(num_cpus=1)(_Actor).remote(job))

    def ready(self, crew: list[Any]) -> list[Any]:
        """One that is done or gone; waits for it."""
        done = self.ray.wait([worker.owed for worker in crew], num_returns=1)[0]
        return [worker for worker in crew if worker.owed in done]

    def close(self) -> None:
        """Leave the cluster, and end it if it was started here."""
        if self.ours:
            self.ray.shutdown()


class _RayActor:
    """A worker on a cluster. owed: the reference of its answer."""

    def __init__(self, ray: Any, handle: Any) -> None:
        self.ray, self.handle, self.owed = ray, handle, None
        self.task: Any = None

    def send(self, item: Any) -> None:
        self.owed = self.handle.work.remote(item)

    def receive(self) -> tuple[str, Any]:
        try:
            return self.ray.get(self.owed)
        except self.ray.exceptions.RayError as error:  # the actor or its machine is gone
            return "died", str(error).splitlines()[0]

    def ask_to_end(self) -> None:
        pass  # a cluster ends an actor at once

    def end(self) -> None:
        self.ray.kill(self.handle)


class _Actor:
    def __init__(self, job: Callable) -> None:
        self.job = job

    def work(self, item: Any) -> tuple[str, Any]:
        return _answer(self.job, item)


def _answer(job: Callable, item: Any) -> tuple[str, Any]:
    """What to send back: the result, or whatever went wrong."""
    try:
        return "done", job(item)
    except Exception as error:
        return "failed", error


def _short(item: Any) -> str:
    text = str(item)
    return text if len(text) <= 100 else f"{text[:96]} ..."
