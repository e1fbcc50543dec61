"""From noise, or from the static video, to the latents of what the hands do."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dexworld.video.model.conditions import Conditions
from dexworld.video.model.dwm import DWM


@dataclass(frozen=True)
class SampleConfig:
    """How a video is sampled. Raises ValueError naming the field that makes no sense.

    steps: denoising steps; the model's own number when None.
    guidance: classifier-free guidance on the text; 1 is none. (6 in the DWM release.)
    hand_guidance: the same on the hands, against "no hands": above 1 exaggerates what the hands change. Meaningful for
        models that were trained with hand dropout.
    start: begin in pure noise, or in the static latents noised to `strength`.
    strength: how much of the noise schedule is run through, (0, 1]; below 1 only with start="static".
    """

    steps: int | None = None
    guidance: float = 1.0
    hand_guidance: float = 1.0
    start: Literal["noise", "static"] = "noise"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; sampling takes at least one")
        if not 0.0 < self.strength <= 1.0:
            raise ValueError(f"strength is {self.strength}; it lies in (0, 1]")
        if self.start not in ("noise", "static"):
            raise ValueError(f"start is {self.start!r}; choose 'noise' or 'static'")
        if self.start == "noise" and self.strength < 1.0:
            raise ValueError("pure noise has strength 1; use start='static' for a strength below 1")
        if self.guidance < 0 or self.hand_guidance < 0:
            raise ValueError("guidance can't be negative; 1 means none")


@torch.no_grad()
def sample(
    model: DWM,
    conditions: Conditions,
    config: SampleConfig,
    generators: list[torch.Generator],
    begin: Tensor | None = None,
) -> Tensor:
    """Latents (B, f, C, h, w) for a batch of conditions; row i's noise comes from `generators[i]` alone.

    begin: the latents that start="static" starts from; by default the conditions' static ones. Raises ValueError when
    there isn't one generator per row.
    """
    if len(generators) != len(conditions):
        raise ValueError(f"{len(conditions)} clips need as many generators, not {len(generators)}")
    static, process = conditions.static, model.process
    shape = static.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=each) for each in generators]).to(static)
    timesteps = process.timesteps(config.steps or model.config.sampling_steps, config.strength)
    latents = noise
    if config.start == "static":
        latents = process.noisy(static if begin is None else begin, noise, _filled(timesteps[0], latents))
    for index, timestep in enumerate(timesteps):
        now = _filled(timestep, latents)
        following = _filled(timesteps[index + 1], latents) if index + 1 < len(timesteps) else None
        clean = guided(model, latents, now, conditions, config)
        latents = process.step(latents, clean, now, following)
    return latents


def guided(model: DWM, noisy: Tensor, timestep: Tensor, conditions: Conditions, config: SampleConfig) -> Tensor:
    """The model's estimate of the clean latents, with guidance on text and hands."""
    clean = model.denoise(noisy, timestep, conditions)
    result = clean
    if config.guidance != 1.0 and conditions.text is not None:
        result = result + (config.guidance - 1) * (clean - model.denoise(noisy, timestep, conditions.without_text()))
    if config.hand_guidance != 1.0:
        without = model.denoise(noisy, timestep, conditions.without_hands())
        result = result + (config.hand_guidance - 1) * (clean - without)
    return result


def _filled(timestep: int, like: Tensor) -> Tensor:
    return torch.full((len(like),), timestep, dtype=torch.long, device=like.device)
