"""Packs written by a Ray cluster: the same work as in local processes, on machines that share the two folders."""

import errno
import logging
from collections import deque
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from dexworld.data.prepare.plan import Pack
from dexworld.data.prepare.processes import TRIES, disk_full, said
from dexworld.data.prepare.work import PackDone, PackFailed, PackWork, Told

logger = logging.getLogger(__name__)
LOCAL = "local"


class RayMissingError(ValueError):
    """Ray was asked for and is not installed."""


def with_ray(work: PackWork, packs: Iterable[Pack], tell: Told, address: str, workers: int) -> None:
    """Write `packs` on the Ray cluster at `address`, telling PackDone and PackFailed as they happen.

    address: "local" starts one on this machine, "auto" joins the one that runs here, anything else is Ray's address.
    workers: actors of one CPU each; 0 takes every CPU of the cluster. Source and destination must be paths that every
    machine sees. A pack whose actor dies or raises is tried once more, then told as PackFailed. Raises RayMissingError
    without Ray, DiskFullError when the store's disk is full.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"num_cpus": workers or None} if address == LOCAL else {}
        ray.init(address=address, include_dashboard=False if address == LOCAL else None, log_to_driver=False, **options)
    try:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        _drive(ray, ray.remote(num_cpus=1)(_Writer), work, iter(packs), tell, count)
    finally:
        if ours:
            ray.shutdown()


class _Writer:
    """An actor: opens the source once, then writes pack after pack."""

    def __init__(self, work: PackWork) -> None:
        self.work = work

    def write(self, pack: Pack) -> PackDone | tuple[bool, str]:
        """The pack written, or (whether the disk is full, what happened)."""
        try:
            return self.work.write(pack)
        except Exception as error:  # whatever it is, it is told, and the pack tried again
            return isinstance(error, OSError) and error.errno == errno.ENOSPC, said(error)


def _drive(ray: ModuleType, actor: Any, work: PackWork, packs: Any, tell: Told, count: int) -> None:
    again: deque[Pack] = deque()
    failures: dict[int, int] = {}
    running: dict[Any, tuple[Any, Pack]] = {}
    idle: list[Any] = []
    while True:
        while len(running) < count:
            pack = again.popleft() if again else next(packs, None)
            if pack is None:
                break
            writer = idle.pop() if idle else actor.remote(work)
            running[writer.write.remote(pack)] = (writer, pack)
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        writer, pack = running.pop(done[0])
        try:
            answer = ray.get(done[0])
            idle.append(writer)
        except ray.exceptions.RayError as error:  # the actor or its machine is gone; a new one takes its place
            answer = (False, said(error).splitlines()[0])
        if isinstance(answer, PackDone):
            tell(answer)
            continue
        full, reason = answer
        if full:
            raise disk_full(reason)
        failures[pack.number] = failures.get(pack.number, 0) + 1
        if failures[pack.number] < TRIES:
            logger.warning("pack %d: %s; it is tried once more", pack.number, reason)
            again.append(pack)
        else:
            tell(PackFailed(pack.number, pack.ids, f"{reason}, {TRIES} times"))


def _ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RayMissingError(
            'Ray is not installed; add it with `pip install "dexworld[ray]"`, or use --workers and --shard, which '
            "need nothing"
        ) from error
    return ray
