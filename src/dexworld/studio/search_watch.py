"""Watch a search while it runs: after each population it waits until somebody asks for the next.

search = WatchedSearch(policy, observation)
while not (news := search.next()).done: ...      # or search.stop()
"""

import threading
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexworld.geometry import transform_points
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.protocols import CostFunction, Gaussian, Plan, Solver
from dexworld.robots.observation import Observation

WAYS = 24  # candidates of a population whose ways are told
ELITES = 6
WAIT_S = 60.0  # that a search waits to be asked; then it is given up


@dataclass(frozen=True, eq=False)
class SearchNews:
    """One population, or the plan at the end (`done`).

    costs: (N,) sorted. ways: (W, T + 1, 3) metres, world, of the best candidates' wrists from now on. hands: (E, 42, 3)
    keypoints at the end of the best. populations: how many there were, of `expected`. seconds: of the whole plan.
    """

    costs: np.ndarray
    ways: np.ndarray
    hands: np.ndarray
    populations: int
    expected: int
    done: bool = False
    seconds: float = 0.0

    @property
    def spread(self) -> float:
        """Metres, standard deviation of where the best wrists end."""
        return float(np.linalg.norm(self.ways[:, -1].std(axis=0))) if len(self.ways) else 0.0


class _Stopped(Exception):
    """Nobody wants the plan any more."""


class _Watched:
    """A solver that tells every population and its costs."""

    def __init__(self, solver: Solver, told: Any) -> None:
        self.solver, self.told = solver, told

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """As the solver's."""

        def watched(samples: Tensor) -> Tensor:
            costs = cost_function(samples)
            self.told(samples, costs)
            return costs

        return self.solver.solve(watched, initial, bounds, generator, proposals)


class WatchedSearch:
    """One `act` of a policy, in a thread that waits after each population."""

    def __init__(self, policy: MPCPolicy, observation: Observation) -> None:
        self.policy, self.observation = policy, observation
        self.actions: np.ndarray | None = None
        self.stopped = False
        self._news: SimpleQueue[SearchNews | Exception] = SimpleQueue()
        self._go = threading.Semaphore(0)
        self._last: SearchNews | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begun = False

    def next(self) -> SearchNews:
        """Search on until the next population is judged, or the plan is found. Raises what the policy raises."""
        if self._begun:
            self._go.release()
        else:
            self._begun = True
            self._thread.start()
        news = self._news.get()
        if isinstance(news, Exception):
            raise news
        self._last = news
        return news

    def stop(self) -> None:
        """Give the search up."""
        self.stopped = True
        self._go.release()
        if self._begun:
            self._thread.join()

    def _run(self) -> None:
        policy, solver = self.policy, self.policy.solver
        inner: Any = solver.solver if isinstance(solver, HandSpaceSolver) else solver
        watched: Any = _Watched(inner, self._told)
        policy.solver = replace(solver, solver=watched) if isinstance(solver, HandSpaceSolver) else watched
        news: SearchNews | Exception
        try:
            self.actions = policy.act(self.observation)
            news = self._planned()
        except _Stopped:
            news = ValueError(f"the search was given up after {WAIT_S} s in which nobody asked for more; plan again")
        except Exception as error:
            news = error
        finally:
            policy.solver = solver  # before anyone hears of the end
        self._news.put(news)

    def _told(self, samples: Tensor, costs: Tensor) -> None:
        self._news.put(self._population(samples, costs))
        if not self._go.acquire(timeout=WAIT_S) or self.stopped:
            raise _Stopped

    @torch.no_grad()
    def _population(self, samples: Tensor, costs: Tensor) -> SearchNews:
        order = costs.detach().argsort()[:WAYS]
        hands, wrists = self._reached(samples[order])
        before = self._last.populations if self._last else 0
        solver: Any = self.policy.solver
        while hasattr(solver, "solver"):
            solver = solver.solver
        return SearchNews(
            costs.detach().sort().values.cpu().numpy(), wrists, hands[:ELITES], before + 1, solver.iterations
        )

    def _planned(self) -> SearchNews:
        plan, before = self.policy.plan, self._last
        assert plan is not None
        hands, wrists = self._joint_ways(plan.actions[None])
        costs, populations = plan.elite_costs.numpy(), before.populations if before else 0
        seconds = self.policy.statistics[-1].seconds
        return SearchNews(costs, wrists, hands, populations, populations, True, seconds)

    def _reached(self, samples: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Hands (N, 42, 3) at the end of candidates, and ways (N, T + 1, 3) of their wrists, in the world."""
        if not isinstance(self.policy.solver, HandSpaceSolver):
            return self._joint_ways(samples)
        hand, wrist = self._now()
        shift = samples[..., :3].cumsum(dim=1).cpu().numpy()
        ways = np.concatenate([np.zeros_like(shift[:, :1]), shift], axis=1) + wrist
        return hand + shift[:, -1:], ways

    def _joint_ways(self, joints: Tensor) -> tuple[np.ndarray, np.ndarray]:
        _, wrist = self._now()
        world = torch.as_tensor(self.observation.world_from_base, dtype=joints.dtype)
        pose = self.policy.robot.forward(joints)
        hands = transform_points(world, pose.keypoints[:, -1]).cpu().numpy()
        wrists = transform_points(world, pose.wrist).cpu().numpy()
        return hands, np.concatenate([np.broadcast_to(wrist, (len(wrists), 1, 3)), wrists], axis=1)

    def _now(self) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (42, 3) and wrist (3,) now, in the world."""
        joints = torch.as_tensor(self.observation.joint_positions, dtype=torch.float64)
        world, pose = torch.as_tensor(self.observation.world_from_base).double(), self.policy.robot.forward(joints)
        return transform_points(world, pose.keypoints).numpy(), transform_points(world, pose.wrist[None])[0].numpy()
