"""Where points will be, as world models say it and planners read it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Forecast:
    """Where points will be: E opinions of each.

    pixels (N, T, E, Q, 2) [u, v] at the ends of T steps, and spread (N, T, E, Q), the scale of a Laplace distribution
    around them, pixels.
    """

    pixels: Tensor
    spread: Tensor
