"""The next frame's latents from noise: what NWM and PEVA do where DexWM predicts in one pass.

x = alpha x0 + sigma n, and the network tells v = alpha n - sigma x0 (Salimans and Ho, 2022). DDIM goes from noise to
latents (Song et al., 2021), by diffusers' scheduler. Latents are taken as they are: their spread is about 1.
"""

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from dexworld.models.config import DiffusionConfig

TIME_DIM = 64  # sinusoids that tell AdaLN the level of noise
_LONGEST = 10_000.0  # period of the slowest one, in levels
Denoise = Callable[[Tensor, Tensor], Tensor]  # noisy latents (N, P, D) and their levels (N,) to v (N, P, D)


class Diffusion(nn.Module):
    """Noise, its schedule and DDIM. Raises ImportError naming the extra without diffusers."""

    alpha: Tensor
    sigma: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        try:
            diffusers = import_module("diffusers")
        except ModuleNotFoundError as error:
            raise ImportError("diffusion needs the package diffusers: pip install 'dexworld[video]'") from error
        schedule = {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True, "clip_sample": False}
        schedule |= {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
        self.config, self.scheduler = config, diffusers.DDIMScheduler(config.train_steps, **schedule)
        kept = self.scheduler.alphas_cumprod
        self.register_buffer("alpha", kept.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - kept).sqrt(), persistent=False)

    def taught(self, clean: Tensor, denoise: Denoise) -> Tensor:
        """What the network makes of latents (N, P, D) at random levels of noise, (N, P, D); from torch's generator.

        Its squared error is that of v, weighted by sigma^2.
        """
        level = torch.randint(self.config.train_steps, (len(clean),), device=clean.device)
        alpha, sigma = (each[level, None, None].to(clean) for each in (self.alpha, self.sigma))
        noisy = alpha * clean + sigma * torch.randn_like(clean)
        return alpha * noisy - sigma * denoise(noisy, level)

    def sample(self, like: Tensor, denoise: Denoise, seed: int) -> Tensor:
        """Latents of the shape of `like` (N, P, D), all from the same noise, so that candidates can be compared."""
        noise = torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed))
        x = noise.to(like).expand_as(like)
        self.scheduler.set_timesteps(self.config.sample_steps)
        for level in self.scheduler.timesteps:
            v = denoise(x, level.to(like.device).expand(len(like)))
            x = self.scheduler.step(v, int(level), x).prev_sample
        return x


def with_level(condition: Tensor, level: Tensor) -> Tensor:
    """Conditions (N, C) whose last 64 numbers, zeros, become the sinusoids of levels (N,)."""
    rates = _LONGEST ** -(torch.arange(TIME_DIM // 2, device=level.device) / (TIME_DIM // 2))
    angles = level[:, None] * rates
    return torch.cat([condition[:, :-TIME_DIM], torch.cat([angles.sin(), angles.cos()], dim=-1).to(condition)], dim=-1)
