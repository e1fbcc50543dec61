"""Play one task episode with a policy, and keep what a report needs to show."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from dexworld.planning.cem import CEM
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.protocols import Gaussian, Policy
from dexworld.robots.observation import Observation
from dexworld.sim.env import check_targets
from dexworld.sim.simulation import TICKS_PER_FRAME, Simulation
from dexworld.sim.tasks import HORIZON, TaskEpisode, distance, hold, satisfied, step, tips_world

PolicyT = TypeVar("PolicyT", bound=Policy)


@dataclass(frozen=True)
class Played:
    """One episode as it went.

    distances: metres before the first move, after each move, and after holding still. frames: (F, 224, 392, 3) uint8 at
    5 Hz and `step_frames`, the picture after each move, when they were asked for. seconds: planning time of every move.
    """

    success: bool
    distances: tuple[float, ...]
    seconds: tuple[float, ...] = ()
    frames: tuple[np.ndarray, ...] = ()
    step_frames: tuple[np.ndarray, ...] = ()
    moves: tuple[np.ndarray, ...] = field(default=(), repr=False)


def play(
    policy: PolicyT,
    episode: TaskEpisode,
    simulation: Simulation,
    seed: int,
    film: bool = False,
    after_plan: Callable[[PolicyT], None] | None = None,
) -> Played:
    """Three moves of `policy` from the episode's start, then the success test. The simulation must be of its scene.

    `after_plan` is called after every decision, with the policy.
    """
    simulation.set_state(episode.start)
    policy.reset(episode.goal_image, seed=seed)
    frames, step_frames, seconds, moves = [], [], [], []
    distances = [distance(episode.task, simulation, episode)]
    ticks = 0

    def shoot(simulation: Simulation) -> None:
        nonlocal ticks
        if ticks % TICKS_PER_FRAME == 0:
            frames.append(simulation.image())
        ticks += 1

    on_tick = shoot if film else None
    for _ in range(HORIZON):
        targets = policy.act(Observation.from_dict(simulation.observation()))
        if isinstance(policy, MPCPolicy):
            seconds.append(policy.statistics[-1].seconds)
        if after_plan is not None:
            after_plan(policy)
        moves.append(targets)
        step(simulation, check_targets(targets, simulation.joint_limits), on_tick)
        distances.append(distance(episode.task, simulation, episode))
        if film:
            step_frames.append(simulation.image())
    success = hold(simulation, episode, on_tick)
    distances.append(distance(episode.task, simulation, episode))
    return Played(success, tuple(distances), tuple(seconds), tuple(frames), tuple(step_frames), tuple(moves))


class Replay:
    """A policy that carries out given moves (T, 23), whatever it sees."""

    def __init__(self, moves: np.ndarray):
        self._moves, self._next = moves, 0

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Start over."""
        self._next = 0

    def act(self, observation: Observation) -> np.ndarray:
        """The next move (23,) radians."""
        self._next += 1
        return self._moves[self._next - 1]


@dataclass(frozen=True)
class SimulatorSearch:
    """CEM on the true simulator, with the true state as its cost: what planning could reach with a perfect model.

    It sees what no policy sees, so it bounds the planner and its budget, not the world model. Fingers and arm start
    with the spread of the model-based planner.
    """

    samples: int = 24
    elites: int = 5
    iterations: int = 4
    arm_std: float = 0.3
    finger_std: float = 0.1

    def plan(self, episode: TaskEpisode, simulation: Simulation, seed: int) -> np.ndarray:
        """Moves (3, 23) radians; about `samples * iterations` simulated episodes of three seconds."""
        simulation.set_state(episode.start)
        mean = torch.from_numpy(simulation.joint_targets).expand(HORIZON, -1).clone()
        std = torch.full_like(mean, self.finger_std)
        std[:, :7] = self.arm_std
        bounds = torch.from_numpy(simulation.joint_limits)

        def cost(samples: torch.Tensor) -> torch.Tensor:
            return torch.tensor([true_cost(episode, simulation, moves) for moves in samples.numpy()], dtype=mean.dtype)

        solver = CEM(samples=self.samples, elites=self.elites, iterations=self.iterations)
        generator = torch.Generator().manual_seed(seed)
        return solver.solve(cost, Gaussian(mean, std), bounds, generator).actions.numpy()


def true_cost(episode: TaskEpisode, simulation: Simulation, moves: np.ndarray) -> float:
    """How far moves (3, 23) leave the task from done, metres, in the simulator; includes what leads towards it."""
    simulation.set_state(episode.start)
    for targets in moves:
        step(simulation, np.clip(targets, *simulation.joint_limits.T))
    left = distance(episode.task, simulation, episode)
    tips = tips_world(simulation)
    if episode.task == "push":  # the hand must come near the object before anything moves
        return left + 0.1 * float(np.linalg.norm(tips.mean(axis=0) - simulation.object_position()))
    towards_goal = float(np.linalg.norm(tips - episode.goal_tips, axis=1).mean())
    missing = 0.0 if satisfied(episode.task, simulation, episode) else 0.1
    return left + towards_goal + missing
