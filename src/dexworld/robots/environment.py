"""The seam of environments: what evaluation and the controls know of a world that a robot acts in.

`examples/my_environment.py` shows one; the simulated kitchen is `dexworld.sim.kitchen.kitchen_env.KitchenEnv`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dexworld.robots.boxes import Box
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot

Values = dict[str, Any]


@runtime_checkable
class Environment(Protocol):
    """A Gymnasium environment of one robot with one task at a time.

    An action is a vector of absolute joint targets (J,), as `Robot.check_targets` accepts them. Observations are dicts
    that hold the fields of `Observation`. The info of `reset` holds a `goal_image` (H, W, 3) uint8. An episode ends
    when `step` says terminated or truncated; then `success` judges it.

    Optional member: `keep_out`, a tuple of `boxes.Box`es that the arm has to stay out of, such as its table.
    """

    @property
    def robot(self) -> Robot:
        """Who acts."""

    @property
    def film(self) -> Sequence[np.ndarray]:
        """Pictures since a reset whose options hold `film=True`, evenly spaced in time; else empty."""

    def reset(self, *, seed: int | None = None, options: Values | None = None) -> tuple[Values, Values]:
        """Start an episode: (observation, info)."""

    def step(self, action: np.ndarray) -> tuple[Values, Any, bool, bool, Values]:
        """Move to the joint targets: (observation, reward, terminated, truncated, info)."""

    def observe(self) -> Observation:
        """What a policy sees now."""

    def distance(self) -> float:
        """How far the task is from done, metres."""

    def success(self) -> bool:
        """Hold still, and judge whether the task is done. Ends the episode."""

    def close(self) -> None:
        """Free what the environment holds."""


@dataclass(frozen=True)
class SearchSpace:
    """Where a search in the true simulator looks for moves, when that is not every joint by itself.

    moves: (T, J) joint targets that it begins with. directions: (D, J), what one unit adds to the targets of a move.
    std: (D,) units, the spread that it begins with.
    """

    moves: np.ndarray
    directions: np.ndarray
    std: np.ndarray

    def targets(self, units: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Joint targets (..., T, J) within limits (J, 2) of units (..., T, D)."""
        return np.clip(self.moves + units @ self.directions, *limits.T)


@runtime_checkable
class SimulatedEnvironment(Environment, Protocol):
    """An environment whose true state can be read and restored: what a search in the true simulator needs.

    Optional member: `search_space()`, the `SearchSpace` of the episode as it stands, or None.
    """

    def get_state(self) -> Any:
        """The complete state."""

    def set_state(self, state: Any) -> None:
        """Go back to a state of this episode."""

    def move(self, action: np.ndarray) -> None:
        """As `step`, without observing."""

    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it. Reads the true state."""


@dataclass(frozen=True)
class Workplace:
    """A robot and what stands around it, where nobody here can step: `keep_out` boxes as of `Environment`, and the
    `workspace` that it stays in, or None.
    """

    robot: Robot
    keep_out: tuple[Box, ...] = ()
    workspace: Box | None = None
