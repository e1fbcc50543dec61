"""What a plan is made of: jobs, the slice of time that they share, and who comes first."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from machine import Machine

logger = logging.getLogger("gpu")
Number = TypeVar("Number")
Item = TypeVar("Item")
Figures = dict[str, Any]
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Job:
    """One thing that a plan does.

    value: what its figures or weights are worth, in a unit of the plan's own. seconds: the least that it takes on the
    GPU machine; it isn't begun with less. work: does it and returns figures. needs: jobs that must be done before.
    again: done anew in every slice, as training goes on.
    """

    name: str
    value: float
    seconds: float
    work: Callable[["Slice"], Figures]
    needs: tuple[str, ...] = ()
    again: bool = False


@dataclass
class Slice:
    """The time, the machine and the folders that a plan has now.

    output: what comes back from the machine, at most eight files. work: data, checkpoints and everything else. end:
    time (`time.time`) at which the last job stops. number: of the slice, from 0: how many others wrote into the output
    before. entries: of jobs, by name, as results.json has them. deadline: of the job that runs now.
    """

    machine: Machine
    output: Path
    work: Path
    end: float
    rehearsed: bool
    number: int = 0
    entries: dict[str, Figures] = field(default_factory=dict)
    deadline: float = 0.0

    def size(self, full: Number, rehearsed: Number) -> Number:
        """`full` on the GPU machine, `rehearsed` on a CPU: the only difference between the two."""
        return rehearsed if self.rehearsed else full

    @property
    def matmul_tflops(self) -> float:
        """The rate that the self-check measured. Raises ValueError where it failed."""
        found = self.entries.get("self-check", {}).get("matmul_tflops")
        if found is None:
            raise ValueError("the self-check didn't measure the rate of a product of matrices")
        return float(found)

    @property
    def left(self) -> float:
        """Seconds until the running job's deadline."""
        return self.deadline - time.time()

    def until(self, share: float) -> Callable[[Iterable[Item]], Iterator[Item]]:
        """Passes items on until `share` of the time that is left now has gone; the first item always comes through."""
        stop = time.time() + share * self.left

        def passed(items: Iterable[Item]) -> Iterator[Item]:
            for item in items:
                yield item
                if time.time() > stop:
                    logger.info("stopped in time; what was finished stays")
                    break
            if hasattr(items, "close"):
                items.close()  # ends the processes that work on further items

        return passed


def open_jobs(jobs: Iterable[Job], entries: dict[str, Figures], tried: Iterable[str]) -> list[Job]:
    """Jobs that this slice still has to do: not tried in it, and not done before unless they are done anew."""
    return [
        job for job in jobs if job.name not in tried and (job.again or entries.get(job.name, {}).get("state") != DONE)
    ]


def next_job(jobs: list[Job], entries: dict[str, Figures], tried: Iterable[str], seconds: float) -> Job | None:
    """The open job of most value per second among those whose needs are met and that fit into `seconds`.

    Jobs of equal worth come in the plan's order. A job of the plan that is done anew must have been done in this slice
    (it is among `tried`) before those that need it.
    """
    anew = {job.name for job in jobs if job.again}

    def met(name: str) -> bool:
        return entries.get(name, {}).get("state") == DONE and (name in tried or name not in anew)

    ready = [job for job in open_jobs(jobs, entries, tried) if all(map(met, job.needs)) and job.seconds <= seconds]
    return max(ready, key=lambda job: job.value / job.seconds, default=None)


def deadline_of(job: Job, waiting: list[Job], end: float, now: float) -> float:
    """When a job has to stop: what the others that wait need at least is kept for them, as far as it is there."""
    kept = sum(each.seconds for each in waiting if each is not job)
    return min(max(end - kept, now + job.seconds), end)
