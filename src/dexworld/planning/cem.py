"""The population searches: the cross-entropy method, iCEM and MPPI."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dexworld.planning.protocols import Gaussian
from dexworld.planning.search import PopulationSolver, white_noise


@dataclass(frozen=True)
class CEM(PopulationSolver):
    """Cross-entropy method with a diagonal Gaussian (DexWM paper, section 4.4: 512 samples, 10 elites, 10 iterations).

    momentum: share of the old mean and std that is kept. Unlike in the release, candidates respect the bounds, and the
    plan is the best candidate ever seen instead of the final mean.
    """

    samples: int = 512
    iterations: int = 10
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")

    def refit(self, current: Gaussian, elites: Tensor, costs: Tensor) -> Gaussian:
        """Mean and (population) std of the elites, as the release computes them."""
        mean, std = elites.mean(0), elites.std(0, correction=0)
        mean = self.momentum * current.mean + (1 - self.momentum) * mean
        std = self.momentum * current.std + (1 - self.momentum) * std
        return Gaussian(mean, std)


@dataclass(frozen=True)
class ICEM(CEM):
    """Improved CEM (Pinneri et al. 2020): noise that is coloured in time, elites kept, populations that shrink.

    colour: exponent beta of the noise's power spectrum 1 / f ** beta along the horizon; 0 is white. keep: share of
    the elites that joins the next population. decay: each population is this many times smaller than the one before,
    but at least twice the elites.
    """

    samples: int = 128
    iterations: int = 6
    momentum: float = 0.1
    colour: float = 2.0
    keep: float = 0.3
    decay: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.colour < 0 or not 0 <= self.keep <= 1 or self.decay < 1:
            raise ValueError("iCEM needs colour >= 0, keep between 0 and 1 and decay >= 1")

    def population_size(self, iteration: int) -> int:
        """Shrinks geometrically."""
        return max(round(self.samples * self.decay**-iteration), 2 * self.elites)

    def noise(self, count: int, current: Gaussian, generator: torch.Generator) -> Tensor:
        """Coloured noise of unit variance."""
        return coloured_noise((count, *current.mean.shape), self.colour, generator, current.mean)

    def carry(self, elites: Tensor | None) -> list[Tensor]:
        """A share of the last elites."""
        return [] if elites is None else [elites[: round(self.keep * self.elites)]]


@dataclass(frozen=True)
class MPPI(PopulationSolver):
    """Model predictive path integral control: like CEM, but elites count by the softmax of their costs.

    Sources: Williams et al. 2017; the elites as in TD-MPC (Hansen et al. 2022).

    temperature: in standard deviations of the elites' costs, so that it means the same for any objective; small
    values trust the best alone. std_decay: the std is the larger of the weighted elites' own and std_decay times the
    last one.
    """

    elites: int = 32
    temperature: float = 0.5
    std_decay: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0 or not 0 <= self.std_decay <= 1:
            raise ValueError("MPPI needs temperature > 0 and std_decay between 0 and 1")

    def refit(self, current: Gaussian, elites: Tensor, costs: Tensor) -> Gaussian:
        """Softmax-weighted mean and std of the elites."""
        scale = self.temperature * costs.std(correction=0) + 1e-12
        weights = torch.softmax(-(costs - costs[0]) / scale, dim=0)[:, None, None]
        mean = (weights * elites).sum(0)
        spread = (weights * (elites - mean).square()).sum(0).sqrt()
        return Gaussian(mean, torch.maximum(spread, self.std_decay * current.std))


def coloured_noise(shape: tuple[int, int, int], colour: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """Noise (N, T, A), correlated along T with power spectrum 1 / f ** colour and unit variance at every step.

    White noise is filtered in the frequency domain over twice the horizon, so that the first and last step aren't
    tied together.
    """
    count, steps, actions = shape
    length = 2 * steps
    spectrum = torch.fft.rfft(white_noise((count, length, actions), generator, like), dim=1)
    frequency = torch.fft.rfftfreq(length, device=like.device).to(like)
    frequency[0] = frequency[1]
    gain = frequency ** (-colour / 2)
    # Every bin but the first and the last stands for two frequencies; the variance of a step is the mean of gain ** 2.
    power = (gain[0] ** 2 + gain[-1] ** 2 + 2 * (gain[1:-1] ** 2).sum()) / length
    noise = torch.fft.irfft(spectrum * (gain / power.sqrt())[:, None], n=length, dim=1)
    return noise[:, :steps]
