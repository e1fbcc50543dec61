"""What a pixel decoder is trained on: L1, a perceptual distance, and a discriminator that it has to deceive.

The RAE recipe (Zheng et al., "Diffusion transformers with representation autoencoders", 2025), which the DexWM paper
follows (appendix A.4). Decoder and discriminator are trained side by side, each by its own loss, in one step of one
optimiser: AdamW keeps every parameter's moments apart, so this is what two optimisers of one learning rate would do.

The discriminator tells true patches from decoded ones (Isola et al., "Image-to-image translation with conditional
adversarial networks", 2017; adaptive weight: Esser et al., "Taming transformers", 2021). Departure from the RAE recipe,
whose discriminator stands on a frozen pretrained network: this one needs no weights. Group instead of batch
normalisation: every picture is judged by itself, and a checkpoint is its parameters and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dexworld.data.windows import Window
from dexworld.models.decoder import PixelDecoder, from_pixels, to_pixels
from dexworld.models.perceptual import PerceptualName
from dexworld.models.picture_metrics import psnr_of_mse, squared_error_map, ssim_map
from dexworld.training.distributed import Processes
from dexworld.training.sources import WindowSource
from dexworld.training.train_config import LoopConfig, check_fractions, check_not_negative, check_positive
from dexworld.training.window_task import SourceTask

CHUNK = 16  # pictures at a time in validation
GROUPS = 8
LARGEST_WEIGHT = 1e4  # of the adversarial loss


@dataclass(frozen=True)
class DecoderTrainConfig(LoopConfig):
    """Training of a pixel decoder: the loop and its losses. Raises ValueError naming the field that makes no sense."""

    batch_size: int = 16
    """Pictures in a batch."""
    learning_rate: float = 2e-4
    """Peak learning rate of AdamW, of the decoder and of the discriminator."""
    weight_decay: float = 0.0
    """Weight decay of matrices; vectors have none."""
    perceptual: float = 1.0
    """Weight of the perceptual distance, beside L1 of pixels in [-1, 1] with weight 1."""
    adversarial: float = 0.75
    """Weight of the adversarial loss, after it was scaled to gradients as long as those of the other two; 0 trains
    without a discriminator."""
    discriminator_start: float = 0.375
    """Fraction of the steps after which the discriminator begins to learn."""
    adversarial_start: float = 0.5
    """Fraction of the steps after which the decoder has to deceive it."""
    discriminator_channels: int = 64
    """Channels of the discriminator's first layer, a multiple of 8."""
    validation_pictures: int = 64
    """Pictures in the validation figures."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_pictures"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "perceptual", "adversarial")
        check_fractions(self, "discriminator_start", "adversarial_start")
        check_positive(self, "validation_pictures", "discriminator_channels")
        if self.discriminator_channels % 8:
            raise ValueError(f"discriminator_channels is {self.discriminator_channels}; it must be a multiple of 8")
        if self.adversarial_start < self.discriminator_start:
            raise ValueError(
                f"adversarial_start is {self.adversarial_start}, before discriminator_start "
                f"{self.discriminator_start}: nobody learns from a judge that knows nothing"
            )


class PatchDiscriminator(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] to logits (N, 1, h, w), above 0 where a patch looks true.

    channels: of the first layer, a multiple of 8; each of three layers halves the size and all but the first double
    the channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(2):
            layers += [nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1), nn.GroupNorm(GROUPS, 2 * channels)]
            layers.append(nn.LeakyReLU(0.2))
            channels *= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

    def judged(self, images: Tensor) -> Tensor:
        """The same logits; gradients reach the images, and none of the discriminator's parameters."""
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        return torch.func.functional_call(self, fixed, (images,))


def hinge_loss(true: Tensor, made: Tensor) -> Tensor:
    """Loss of the discriminator from its logits of true and of made pictures; 1 when it can't tell them apart."""
    return (functional.relu(1.0 - true).mean() + functional.relu(1.0 + made).mean()) / 2


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, weight: Tensor, mean: Callable[[Tensor], Tensor]
) -> Tensor:
    """The factor that gives both losses gradients of one length at `weight`, the last layer of the decoder.

    A constant without gradient, at most `LARGEST_WEIGHT`. mean: of a tensor over all processes that share the batch.
    """
    (ours,) = torch.autograd.grad(reconstruction, weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(adversarial, weight, retain_graph=True)
    return (mean(ours).norm() / (mean(theirs).norm() + 1e-4)).clamp(0.0, LARGEST_WEIGHT).detach()


class AdversarialDecoder(nn.Module):
    """A decoder and its adversary: what the trainer trains. Only the decoder is saved as a model."""

    def __init__(self, decoder: PixelDecoder, discriminator: PatchDiscriminator | None) -> None:
        super().__init__()
        self.decoder, self.discriminator = decoder, discriminator

    def save_pretrained(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write the decoder."""
        self.decoder.save_pretrained(folder, provenance)


class DecoderTask(SourceTask):
    """Pictures with their latents, and what a decoder loses on them.

    perceptual: distances (N,) of two batches (N, 3, H, W) in [-1, 1], called `name` in the curve; it is frozen.
    processes: those that share the batches.
    """

    def __init__(
        self,
        model: AdversarialDecoder,
        config: DecoderTrainConfig,
        source: WindowSource,
        perceptual: nn.Module,
        name: PerceptualName,
        processes: Processes = Processes(),
    ) -> None:
        self.model, self.config, self.source = model, config, source
        self.name, self.mean = name, processes.mean
        self.perceptual = perceptual.eval().requires_grad_(False)

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """Scalars: `loss`, and its parts before weighting.

        `l1`, and the perceptual distance by its name; once it has started, `discriminator` (1 when it knows nothing),
        `adversarial` (the judge's mean verdict on made pictures, negated) and `adversarial_weight` (its adaptive part).
        """
        config, discriminator = self.config, self.model.discriminator
        progress = index / (config.steps * config.accumulation)
        true = from_pixels(batch.frames[:, 0])
        made = self.model.decoder(batch.latents[:, 0]).float()
        losses = {"l1": (made - true).abs().mean()}
        reconstruction = losses["l1"]
        if config.perceptual:
            losses[self.name] = self.perceptual(made, true).mean()
            reconstruction = reconstruction + config.perceptual * losses[self.name]
        total = reconstruction
        if discriminator is not None and progress >= config.discriminator_start:
            losses["discriminator"] = hinge_loss(discriminator(true), discriminator(made.detach()))
            total = total + losses["discriminator"]
            if progress >= config.adversarial_start:
                adversarial = -discriminator.judged(made).mean()
                last = self.model.decoder.last_layer
                weight = adaptive_weight(reconstruction, adversarial, last, self.mean)
                losses |= {"adversarial": adversarial, "adversarial_weight": weight}
                total = total + config.adversarial * weight * adversarial
        return {"loss": total, **losses}


class DecoderValidation:
    """Always the same pictures of held-out episodes. perceptual: as in `DecoderTask`."""

    def __init__(self, source: WindowSource, pictures: int, perceptual: nn.Module, name: PerceptualName) -> None:
        self.source, self.pictures, self.perceptual, self.name = source, pictures, perceptual, name

    @torch.no_grad()
    def __call__(self, model: AdversarialDecoder, device: torch.device | str = "cpu") -> dict[str, float]:
        """Figures of 8-bit pictures: `l1` of values in [0, 1], `psnr` in dB of the mean squared error over them all,
        `ssim`, and the perceptual distance by its name. Raises ValueError for pictures of less than 11 pixels a side.
        """
        sums: dict[str, float] = {}
        for step, start in enumerate(range(0, self.pictures, CHUNK)):
            # Batches are of one size, so that pictures keep their numbers; of the last one only a part may count.
            batch, count = self.source.batch(step, CHUNK), min(CHUNK, self.pictures - start)
            images = batch.frames[:count, 0]
            made = to_pixels(model.decoder(batch.latents[:count, 0]))
            figures = {
                "l1": float((made.float() - images.float()).abs().mean()) / 255,
                self.name: float(self.perceptual(from_pixels(made), from_pixels(images)).mean()),
                "mse": float(squared_error_map(made.cpu().numpy(), images.cpu().numpy()).mean()),
                "ssim": float(ssim_map(made.cpu().numpy(), images.cpu().numpy()).mean(dtype=np.float64)),
            }
            for key, value in figures.items():
                sums[key] = sums.get(key, 0.0) + value * count
        means = {key: value / self.pictures for key, value in sums.items()}
        return {"psnr": psnr_of_mse(means.pop("mse")), **means}
