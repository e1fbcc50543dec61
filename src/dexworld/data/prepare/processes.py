"""Packs written by several processes at once; one that dies or hangs costs its pack a second try, nothing else.

A pool of the standard library gives up altogether when one of its processes is killed, which over days of work on a
shared machine is sure to happen. Here each worker has a pipe of its own, whose end says that it is gone.
"""

import errno
import logging
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from dexworld.data.prepare.plan import Pack
from dexworld.data.prepare.work import (
    EpisodeBegun,
    EpisodeDone,
    PackAgain,
    PackDone,
    PackFailed,
    PackWork,
    StrictError,
    Told,
)

logger = logging.getLogger(__name__)
TRIES = 2
TICK_S = 1.0


class DiskFullError(OSError):
    """The disk of the store is full: no further pack can be written."""


@dataclass(frozen=True)
class Patience:
    """How long one episode may take before its worker counts as hung: `seconds` and `per_frame` for each frame."""

    seconds: float = 600.0
    per_frame: float = 2.0


@dataclass
class _Worker:
    process: Any
    connection: Connection
    pack: Pack
    deadline: float
    reading: str = ""


@dataclass
class _Crew:
    """The workers that are alive, and the packs that wait for one."""

    work: PackWork
    packs: Iterator[Pack]
    patience: Patience
    tell: Told
    again: deque[Pack] = field(default_factory=deque)
    failures: dict[int, int] = field(default_factory=dict)
    workers: dict[Connection, _Worker] = field(default_factory=dict)

    def next_pack(self) -> Pack | None:
        return self.again.popleft() if self.again else next(self.packs, None)

    def hire(self, context: Any, pack: Pack) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self.work, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the worker does
        self.workers[ours] = _Worker(process, ours, pack, 0.0)
        self.give(self.workers[ours], pack)

    def give(self, worker: _Worker, pack: Pack) -> None:
        worker.pack, worker.reading = pack, ""
        worker.deadline = time.monotonic() + self.patience.seconds
        try:
            worker.connection.send(pack)
        except OSError:  # it died while idle: the end of its pipe is found at the next look
            logger.debug("worker %s is gone", worker.process.pid)

    def dismiss(self, worker: _Worker) -> None:
        del self.workers[worker.connection]
        worker.connection.close()
        worker.process.join(0.1)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    def lost(self, worker: _Worker, reason: str) -> None:
        """A worker failed at its pack, which is tried again, or told as failed when it was the last try."""
        where = f" while at episode {worker.reading}" if worker.reading else ""
        pack = worker.pack
        self.failures[pack.number] = self.failures.get(pack.number, 0) + 1
        if self.failures[pack.number] < TRIES:
            logger.warning("pack %d: %s%s; it is tried once more", pack.number, reason, where)
            self.tell(PackAgain(pack.number, reason))
            self.again.append(pack)
        else:
            self.tell(PackFailed(pack.number, pack.ids, f"{reason}{where}, {TRIES} times"))


def in_processes(
    work: PackWork, packs: Iterable[Pack], tell: Told, workers: int, patience: Patience | None = None
) -> None:
    """Write `packs` in `workers` processes, telling what happens as it does.

    packs: taken one by one, when a worker is free. A pack whose worker dies, hangs or raises is tried once more, then
    told as PackFailed. Raises DiskFullError when the store's disk is full.
    """
    context = multiprocessing.get_context("forkserver")  # forks from a process without threads or open videos
    context.set_forkserver_preload(["__main__", __name__])  # imported once, not by every worker
    crew = _Crew(work, iter(packs), patience or Patience(), tell)
    try:
        while True:
            while len(crew.workers) < workers and (pack := crew.next_pack()) is not None:
                crew.hire(context, pack)
            if not crew.workers:
                return
            for connection in wait(list(crew.workers), TICK_S):
                _hear(crew, crew.workers[connection])  # type: ignore[index]
            for worker in [each for each in crew.workers.values() if time.monotonic() > each.deadline]:
                crew.lost(worker, "its worker made no progress and was ended")
                crew.dismiss(worker)
    finally:
        for worker in list(crew.workers.values()):
            worker.process.kill()
            crew.dismiss(worker)


def _hear(crew: _Crew, worker: _Worker) -> None:
    """One message of a worker, or its end."""
    try:
        message = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(1.0)
        crew.lost(worker, f"its worker ended ({_end_of(worker.process.exitcode)})")
        crew.dismiss(worker)
        return
    if isinstance(message, EpisodeBegun | EpisodeDone):
        worker.reading = message.episode if isinstance(message, EpisodeBegun) else ""
        worker.deadline = time.monotonic() + crew.patience.seconds + crew.patience.per_frame * message.frames
        crew.tell(message)
        return
    if isinstance(message, PackDone):
        crew.tell(message)
    else:
        number, reason = message
        if number == errno.ENOSPC:
            raise disk_full(reason)
        crew.lost(worker, reason)
    following = crew.next_pack()
    if following is None:
        crew.dismiss(worker)
    else:
        crew.give(worker, following)


def _end_of(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {-exitcode}{', as when memory runs out' if exitcode == -9 else ''}"
    return f"exit code {exitcode}"


def in_this_process(work: PackWork, packs: Iterable[Pack], tell: Told) -> None:
    """Write `packs` one after the other without other processes; tells like `in_processes`, but tries nothing twice."""
    for pack in packs:
        try:
            tell(work.write(pack, tell))
        except StrictError:
            raise
        except (OSError, MemoryError, RuntimeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise disk_full(said(error)) from error
            tell(PackFailed(pack.number, pack.ids, said(error)))


def disk_full(reason: str) -> DiskFullError:
    """The error that ends a preparation whose disk is full."""
    return DiskFullError(errno.ENOSPC, f"the store's disk is full; make room and start again ({reason})")


def said(error: BaseException) -> str:
    """Kind and message of an error, for reports."""
    return f"{type(error).__name__}: {error}"


def _serve(work: PackWork, connection: Connection) -> None:
    """A worker's life: packs come in, events go out, until the pipe ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            pack = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Any = work.write(pack, connection.send)
        except Exception as error:  # whatever it is, it is told, and the pack tried again
            answer = (getattr(error, "errno", None), said(error))
        try:
            connection.send(answer)
        except OSError:
            return


def _end_with_parent() -> None:
    """End this worker as soon as the main process is gone, so that it writes nothing behind its successor's back."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
