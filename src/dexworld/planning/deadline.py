"""When a search has to be over: it then returns the best candidate that it has evaluated.

It works around any `Solver`: costs are computed a few candidates at a time while these fit, and the search is ended
from within its cost function.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dexworld.planning.protocols import CostFunction, Gaussian, Plan, Solver
from dexworld.planning.search import Archive

_FIRST = 8  # candidates that are evaluated whatever the time; they tell how long more of them take
_AT_ONCE = 0.03  # share of the whole time that one batch may take
_KEPT = 16  # best candidates of a search that was ended


class _OutOfTime(Exception):
    """Ends a search from within its cost function."""


class Deadline:
    """`seconds` from now; None is never. clock: of what they are counted by."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._begun = clock, clock()
        self._seconds = seconds
        self._pace = 0.0  # seconds of a candidate in the last batch; 0 before the first
        self._batches = 0.0  # seconds that batches took so far
        self._left_out = False

    def part(self, share: float) -> "Deadline":
        """A deadline after this share of the time that is left."""
        return Deadline(None if self._seconds is None else share * max(0.0, self._left()), self._clock)

    def costs(self, evaluate: Callable[[slice], Tensor], count: int) -> Tensor:
        """Costs (N,) of N = `count` candidates, `evaluate` giving those of some; Inf where there was no time.

        Once there is time for none it ends the search that asks.
        """
        if self._seconds is None:
            return evaluate(slice(0, count))
        parts: list[Tensor] = []
        done = 0
        while done < count and (size := min(count - done, self._fitting())):
            began = self._clock()
            parts.append(evaluate(slice(done, done + size)))
            float(parts[-1].detach().sum())  # waits for a GPU
            spent = self._clock() - began
            self._pace, self._batches, done = max(spent / size, 1e-9), self._batches + spent, done + size
        if not parts:
            raise _OutOfTime
        self._left_out |= done < count
        return torch.cat([*parts, parts[0].new_full((count - done,), torch.inf)])

    def search(
        self,
        solver: Solver,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """`solver.solve`, ended where its next population would be late: then `Plan.complete` is False."""
        if self._seconds is None:
            return solver.solve(cost_function, initial, bounds, generator, proposals)
        archive, ended = Archive(_KEPT), self._clock()

        def timed(samples: Tensor) -> Tensor:
            nonlocal ended
            before, costs = self._batches, cost_function(samples)
            archive.record(archive.add(samples, costs), _KEPT)
            since, ended = self._clock() - ended, self._clock()
            beside = since - (self._batches - before)  # drawing, decoding and kinematics of a population
            if self._left_out or beside + self._pace > self._left():
                raise _OutOfTime
            return costs

        try:
            return solver.solve(timed, initial, bounds, generator, proposals)
        except _OutOfTime:
            return replace(archive.plan(initial.std), complete=False)

    def _left(self) -> float:
        assert self._seconds is not None
        return self._begun + self._seconds - self._clock()

    def _fitting(self) -> int:
        """How many candidates to evaluate next: a power of two, so that a compiled model sees few sizes; 0 is none."""
        if not self._pace:
            return _FIRST
        assert self._seconds is not None
        fit = int(min(self._left(), max(_AT_ONCE * self._seconds, self._pace)) / self._pace)
        return 1 << (fit.bit_length() - 1) if fit >= 1 else 0
