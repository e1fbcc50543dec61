"""The two noise processes of video diffusion, one deterministic step that serves both, and published schedules.

A noisy latent is x = alpha x0 + sigma n. CogVideoX follows a diffusion schedule and predicts v = alpha n - sigma x0.
Wan follows a straight line, alpha = 1 - sigma, and predicts the flow n - x0. (The DWM paper writes the loss on the
noise; its code, as here, uses v: both have the same optimum.) A checkpoint that declares another schedule is refused.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexworld.models.checkpoint import CheckpointError, read_settings, understood
from dexworld.video.model.published_parts import find_optional_part
from dexworld.video.model.video_config import Kind

TRAIN_STEPS = 1000
# What our processes fix, as in CogVideoX-5B and Wan 2.1. A setting that a file leaves out has this value: the defaults
# of diffusers' classes are other ones (epsilon, leading, clipping).
FIXED: dict[Kind, dict[str, Any]] = {
    "cogvideox": {
        "num_train_timesteps": TRAIN_STEPS,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "set_alpha_to_one": True,
        "clip_sample": False,
        "timestep_spacing": "trailing",
    },
    "wan": {"num_train_timesteps": TRAIN_STEPS, "use_dynamic_shifting": False, "prediction_type": "flow_prediction"},
}
SHIFT = {"cogvideox": ("snr_shift_scale",), "wan": ("flow_shift", "shift")}  # names of the shift in files
PUBLISHED_SHIFT = {"cogvideox": 1.0, "wan": 5.0}


@dataclass(frozen=True)
class NoiseProcess:
    """alpha, sigma: (1000,) of timesteps 0 .. 999. flow: what the transformer predicts. shift: of sampling's times."""

    alpha: Tensor
    sigma: Tensor
    flow: bool
    shift: float = 1.0

    def at(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of timesteps (B,), shaped to multiply latents `like` (B, ...)."""
        shape = (-1,) + (1,) * (like.ndim - 1)
        index = timestep.to(self.alpha.device)
        return self.alpha[index].to(like).view(shape), self.sigma[index].to(like).view(shape)

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x at timesteps (B,)."""
        alpha, sigma = self.at(timestep, clean)
        return alpha * clean + sigma * noise

    def velocity(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What a velocity-predicting transformer should answer."""
        if self.flow:
            return noise - clean
        alpha, sigma = self.at(timestep, clean)
        return alpha * noise - sigma * clean

    def clean(self, noisy: Tensor, velocity: Tensor, timestep: Tensor) -> Tensor:
        """The clean latents that a velocity stands for."""
        alpha, sigma = self.at(timestep, noisy)
        return noisy - sigma * velocity if self.flow else alpha * noisy - sigma * velocity

    def step(self, noisy: Tensor, clean: Tensor, timestep: Tensor, following: Tensor | None) -> Tensor:
        """From `timestep` (B,) to `following`, None for the end: DDIM with eta 0 (diffusion), an Euler step (flow)."""
        if following is None:
            return clean
        alpha, sigma = self.at(timestep, noisy)
        return self.noisy(clean, (noisy - alpha * clean) / sigma, following)

    def timesteps(self, steps: int, strength: float = 1.0) -> list[int]:
        """`steps` timesteps, from the noisiest down ("trailing"), scaled to begin at `strength` of the way."""
        if steps < 1 or not 0.0 < strength <= 1.0:
            raise ValueError(f"sampling needs steps >= 1 and a strength in (0, 1], not {steps} and {strength}")
        times = torch.linspace(strength, 0, steps + 1, dtype=torch.float64)[:-1]
        times = self.shift * times / (1 + (self.shift - 1) * times)
        return [max(0, round(float(time) * TRAIN_STEPS) - 1) for time in times]


@lru_cache(maxsize=8)
def diffusion_process(snr_shift: float) -> NoiseProcess:
    """CogVideoX's schedule: scaled-linear betas 0.00085 .. 0.012, SNR divided by `snr_shift`, zero SNR at the end."""
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    cumulative = (1 - betas).cumprod(0)
    cumulative = cumulative / (snr_shift + (1 - snr_shift) * cumulative)
    alpha = cumulative.sqrt()
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return NoiseProcess(alpha.float(), (1 - alpha.square()).sqrt().float(), flow=False)


@lru_cache(maxsize=8)
def flow_process(shift: float) -> NoiseProcess:
    """Wan's straight line from data to noise; timestep t is noise level (t + 1) / 1000."""
    sigma = torch.arange(1, TRAIN_STEPS + 1, dtype=torch.float64) / TRAIN_STEPS
    return NoiseProcess((1 - sigma).float(), sigma.float(), flow=True, shift=shift)


def noise_settings(source: str | Path, kind: Kind) -> dict[str, float]:
    """{"snr_shift": ...} or {"flow_shift": ...} of a model's folder or id, from its `scheduler/scheduler_config.json`.

    The published values when it has none. Raises CheckpointError naming every setting that we don't sample with.
    """
    folder = find_optional_part(source, "scheduler")
    settings = {} if folder is None else read_settings(folder / "scheduler_config.json")
    differing = [(name, value) for name, value in FIXED[kind].items() if settings.get(name, value) != value]
    if differing:
        wrong = "; ".join(f"{name} is {settings[name]!r}, not {value!r}" for name, value in differing)
        raise CheckpointError(f"the checkpoint's scheduler is not one that we sample with: {wrong}")
    shift = next((settings[name] for name in SHIFT[kind] if name in settings), PUBLISHED_SHIFT[kind])
    with understood(f"{source}: the scheduler's shift"):
        return {"snr_shift" if kind == "cogvideox" else "flow_shift": float(shift)}
