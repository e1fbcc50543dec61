"""What the video model is trained on and watched by: batches of encoded clips, the loss, figures on held-out clips."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from dexworld.data.video_frames import VideoFrames
from dexworld.models.encoders.cnn import weights_file
from dexworld.training.train_config import LoopConfig, check_fractions, check_not_negative, check_positive
from dexworld.video.clips.clip import SPACE_FACTOR
from dexworld.video.clips.masks import random_mask
from dexworld.video.model.clip_latents import LatentClip, LatentFolder
from dexworld.video.model.conditions import Conditions, latent_mask
from dexworld.video.model.dwm import DWM
from dexworld.video.model.perceptual_term import PerceptualTerm
from dexworld.video.model.video_config import DWMConfig

VALIDATION_BATCH = 8
Place = tuple[LatentFolder, int]  # of a clip: its folder and its index there
CHANGED = 0.25  # a cell has changed when its mean squared difference from the static video exceeds this (variance 1)


@dataclass(frozen=True)
class VideoTrainConfig(LoopConfig):
    """Training of the video model: the loop, and what a batch is made of. Raises ValueError naming a bad field."""

    steps: int = 10_000
    """Optimiser steps in all (15,000 in the DWM release)."""
    batch_size: int = 8
    """Clips in a batch."""
    ema: float = 0.995
    """Decay of the averaged weights, which are what is saved; 0 saves the trained weights themselves."""
    goal: Literal["interaction", "inpainting"] = "interaction"
    """What is learned: the interaction from static and hands, or to fill random masks of any video (pre-training)."""
    hand_dropout: float = 0.1
    """Fraction of the clips whose hands are blanked and whose target is then the static video: no hand, no change. None
    for the condition `control`, which is shown a first frame and no static video."""
    prompt_dropout: float = 0.1
    """Fraction of the clips whose text is zeroed, so that guidance means something (0 in the DWM release)."""
    reference_dropout: float = 0.3
    """Fraction of the clips whose reference picture is hidden, so that it may be left out later."""
    timestep_shift: float = 1.0
    """How strongly training dwells on high noise: 1 draws timesteps uniformly, as the release; 3 has its median at 750.
    At high noise a model has to imagine; at low noise it only cleans up, which takes a narrow model's whole width."""
    weight_cap: float = 5.0
    """Largest weight of the clean-latents error (min-SNR) for `residual`; its velocity weight is 1 / sigma^2."""
    outside_weight: float = 1.0
    """How many times an error counts outside the interaction region, where nothing changes. An unsure model spreads its
    changes; the region is small and its errors large, so at 1 the scene around it pays. Small models only (`pca`)."""
    perceptual: float = 0.0
    """Weight of the lite0 distance to the true video in the loss (extra `cnn`): sharper where the truth is unknown, for
    some PSNR. Small models only (`pca`)."""
    validation_clips: int = 32
    """Held-out clips in each validation figure."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_clips"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self, "hand_dropout", "prompt_dropout", "reference_dropout")
        check_positive(self, "weight_cap", "validation_clips", "timestep_shift", "outside_weight")
        check_not_negative(self, "perceptual")
        if self.goal not in ("interaction", "inpainting"):
            raise ValueError(f"goal is {self.goal!r}; choose 'interaction' or 'inpainting'")


@dataclass(frozen=True)
class VideoBatch:
    """Clean latents (B, f, C, h, w), noise, timesteps (B,), conditions; region: (B, F, H, W) bool or None."""

    clean: Tensor
    noise: Tensor
    timestep: Tensor
    conditions: Conditions
    names: tuple[str, ...] = field(default=())
    region: Tensor | None = None


def denoising_loss(model: DWM, batch: VideoBatch, weight_cap: float, outside_weight: float = 1.0) -> Tensor:
    """The loss of a batch, a scalar; see `latent_loss`."""
    return latent_loss(model, batch, denoised(model, batch), weight_cap, outside_weight)


def denoised(model: DWM, batch: VideoBatch) -> Tensor:
    """The clean latents (B, f, C, h, w) that a model expects behind a batch's noisy ones."""
    noisy = model.process.noisy(batch.clean, batch.noise, batch.timestep)
    return model.denoise(noisy, batch.timestep, batch.conditions).float()


def latent_loss(model: DWM, batch: VideoBatch, clean: Tensor, weight_cap: float, outside_weight: float) -> Tensor:
    """The loss, a scalar, of a model that expects the latents `clean` behind a batch's noisy ones.

    For velocity predictions its squared error, as in the DWM release. For residual predictions that of the clean
    latents, weighted as that of the velocity would be, but at most by `weight_cap` (min-SNR: Hang et al., 2023). With
    an `outside_weight`, that error is measured in pixels, and those outside the region count so many times.
    """
    sigma = model.process.at(batch.timestep, clean)[1]
    if outside_weight != 1.0 and batch.region is not None:
        return _weighted_by_region(model, batch, clean, sigma, weight_cap, outside_weight)
    error = (clean - batch.clean).square()
    weight = 1 / sigma.square().clamp_min(1e-8)
    if model.config.prediction == "residual":
        weight = weight.clamp_max(weight_cap)
        metric = getattr(model.codec, "metric", None)
        if metric is not None:
            weight = weight * metric.to(clean).view(1, 1, -1, 1, 1)
    # (x0 error) / sigma^2 is exactly the squared error of the velocity, for diffusion and for flow matching alike
    return (weight * error).mean()


def check_losses(model: DWMConfig, config: VideoTrainConfig) -> None:
    """Raise ValueError for a loss on pixels of a model that it isn't made for, or without the network that it needs."""
    for name, without in (("outside_weight", 1), ("perceptual", 0)):
        if getattr(config, name) != without and (model.prediction != "residual" or model.codec.kind != "pca"):
            found = f"leave it at {without} for {model.prediction} predictions through {model.codec.kind}"
            raise ValueError(f"{name} needs residual predictions through a pca codec; {found}")
    if config.perceptual:
        weights_file()


def _weighted_by_region(
    model: DWM, batch: VideoBatch, clean: Tensor, sigma: Tensor, weight_cap: float, outside_weight: float
) -> Tensor:
    assert batch.region is not None
    counts = torch.where(batch.region, 1.0, outside_weight)
    error = model.codec.pixel_error(clean - batch.clean) * (counts / counts.mean())
    weight = (1 / sigma.square().clamp_min(1e-8)).clamp_max(weight_cap)
    return (weight.flatten() * error.flatten(1).mean(dim=1)).mean()


class VideoTask:
    """Batches of encoded clips and their loss (a `trainer.Task`); what is drawn depends on seed and index alone."""

    def __init__(
        self, model: DWM, config: VideoTrainConfig, folders: list[LatentFolder], weights: tuple[float, ...] = ()
    ) -> None:
        check_losses(model.config, config)
        self.model, self.config, self.folders = model, config, folders
        sizes = np.array([len(folder) for folder in folders], dtype=float)
        shares = np.asarray(weights, dtype=float) if weights else sizes
        self.shares = shares / shares.sum()
        self.blank = model.blank_hands().cpu()
        self.perceptual = PerceptualTerm(model.codec, model.device) if config.perceptual else None

    def batch(self, index: int, device: torch.device) -> tuple[VideoBatch, int]:
        """Batch number `index`."""
        rng = np.random.default_rng([self.config.seed, 11, index])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clips = [self._draw(rng) for _ in range(self.config.batch_size)]
        if self.config.goal == "inpainting":
            batch = inpainting_batch(self.model, clips, rng, generator, self.config.timestep_shift)
        else:
            batch = interaction_batch(self.model, clips, generator, self.blank, self.config.timestep_shift)
            batch = self._drop(batch, generator)
        return move(batch, device), len(clips)

    def _draw(self, rng: np.random.Generator) -> Place:
        folder = self.folders[int(rng.choice(len(self.folders), p=self.shares))]
        return folder, int(rng.integers(len(folder)))

    def _drop(self, batch: VideoBatch, generator: torch.Generator) -> VideoBatch:
        """Blank hands, and aim at the static video then; zero texts; hide reference pictures."""
        size = len(batch.clean)
        blanked = torch.rand(size, generator=generator) < self.config.hand_dropout
        silent = torch.rand(size, generator=generator) < self.config.prompt_dropout
        unseen = torch.rand(size, generator=generator) < self.config.reference_dropout
        if self.model.config.condition in ("none", "control"):
            # No hands to blank; or `static` is a repeated first frame, which is not what happens without hands.
            blanked = torch.zeros_like(blanked)
        static = batch.conditions.static
        clean = torch.where(blanked.view(-1, 1, 1, 1, 1), static, batch.clean)
        conditions = batch.conditions.without_hands(blanked).without_text(silent).without_reference(unseen)
        region = None if batch.region is None else batch.region | blanked.view(-1, 1, 1, 1)
        return VideoBatch(clean, batch.noise, batch.timestep, conditions, batch.names, region)

    def losses(self, batch: VideoBatch, index: int) -> dict[str, Tensor]:
        """`loss`, see `latent_loss`, and in it `lite0_distance` where that has a weight."""
        config, clean = self.config, denoised(self.model, batch)
        loss = latent_loss(self.model, batch, clean, config.weight_cap, config.outside_weight)
        if self.perceptual is None:
            return {"loss": loss}
        distance = self.perceptual(clean, batch.clean, torch.Generator().manual_seed(index))
        return {"loss": loss + config.perceptual * distance, "lite0_distance": distance}

    def contents(self, batch: VideoBatch) -> dict[str, Tensor]:
        """The batch's latents, noise and timesteps."""
        contents = {name: getattr(batch, name) for name in ("clean", "noise", "timestep")}
        return contents | {"static": batch.conditions.static}

    def broken_data(self, batch: VideoBatch) -> str:
        """Which clip's latents are not finite, if any."""
        for name, clean, static in zip(batch.names, batch.clean, batch.conditions.static, strict=True):
            if not (torch.isfinite(clean).all() and torch.isfinite(static).all()):
                return f" The latents of clip {name} are not finite: look at its videos and delete its latents."
        return ""


def interaction_batch(
    model: DWM, places: list[Place], generator: torch.Generator, blank: Tensor, timestep_shift: float = 1.0
) -> VideoBatch:
    """Clips as training and validation see them: target the interaction, everything known, noise at random times."""
    clips = [folder[index] for folder, index in places]
    clean = stack(clips, "interaction")
    text = stack(clips, "text") if clips[0].text is not None else None
    vectors = [(clip.name, clip.hand_vectors) for clip in clips]
    conditions = model.conditions(lambda kind: stack(clips, kind), vectors, text, blank)
    noise = torch.randn(clean.shape, generator=generator)
    timestep = random_timesteps(len(clean), timestep_shift, generator)
    names = tuple(clip.name for clip in clips)
    return VideoBatch(clean, noise, timestep, conditions, names, stack(clips, "region"))


def inpainting_batch(
    model: DWM, places: list[Place], rng: np.random.Generator, generator: torch.Generator, timestep_shift: float = 1.0
) -> VideoBatch:
    """Fill masked videos, interactions and static ones alike; black where masked, as VideoX-Fun's -1."""
    settings, clip = model.config, model.config.clip
    videos, unknown, names = [], [], []
    for folder, index in places:
        name = folder.triplets.names[index]
        files = folder.triplets.files[name]
        source = VideoFrames(files.interaction if rng.random() < 0.7 else files.static)
        videos.append(source.read(list(range(len(source)))))
        names.append(name)
        unknown.append(random_mask(clip.frames, clip.height, clip.width, generator)[0])
    video, mask = torch.from_numpy(np.stack(videos)), torch.stack(unknown)
    clean = model.encode(video).cpu()
    static = model.encode(video * ~mask[..., None]).cpu()
    size = (clip.height // SPACE_FACTOR, clip.width // SPACE_FACTOR)
    known = latent_mask(mask, settings.backbone.mask_channels, size, model.codec.mask_value)
    # Nothing known: as VideoX-Fun, mostly as a text-to-video model sees it, mask and masked video all zeros.
    empty = mask.flatten(1).all(1) & (torch.rand(len(mask), generator=generator) < 0.9)
    static = torch.where(empty.view(-1, 1, 1, 1, 1), torch.zeros_like(static), static)
    noise = torch.randn(clean.shape, generator=generator)
    timestep = random_timesteps(len(clean), timestep_shift, generator)
    return VideoBatch(clean, noise, timestep, Conditions(static, known), tuple(names))


def random_timesteps(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Timesteps (count,) from 0 to 999; uniform for shift 1, the higher the shift the noisier."""
    share = torch.rand(count, generator=generator, dtype=torch.float64)
    return (1000 * shift * share / (1 + (shift - 1) * share)).long().clamp_max(999)


def stack(clips: list[LatentClip], kind: str) -> Tensor:
    """One field of every clip, (B, ...)."""
    return torch.stack([getattr(clip, kind) for clip in clips])


def move(batch: VideoBatch, device: torch.device) -> VideoBatch:
    """The batch on a device."""
    moved = {name: getattr(batch, name).to(device) for name in ("clean", "noise", "timestep", "conditions")}
    return replace(batch, **moved, region=None if batch.region is None else batch.region.to(device))


@dataclass(frozen=True)
class VideoValidation:
    """Figures of a model on the first `clips` clips of every held-out folder, with the same noise every time."""

    folders: list[LatentFolder]
    clips: int
    config: VideoTrainConfig

    @torch.no_grad()
    def __call__(self, model: DWM, device: torch.device) -> dict[str, float]:
        """Figures of `model`.

        loss: as in training, without dropout. Of clips denoised from pure noise in one step: changed, the squared error
        in the cells that the hands change over that of the static video (below 1 is better than doing nothing);
        unchanged, the mean squared error in all others. Of inpainting: hidden, the squared error in the cells to be
        filled over that of the masked video; known, the mean squared error in all others.
        """
        generator, rng = torch.Generator().manual_seed(self.config.seed), np.random.default_rng(self.config.seed)
        blank, inpainting = model.blank_hands().cpu(), self.config.goal == "inpainting"
        losses, changed, still, copied, counts = [], 0.0, 0.0, 0.0, [0, 0]
        for folder in self.folders:
            places = [(folder, index) for index in range(min(self.clips, len(folder)))]
            for start in range(0, len(places), VALIDATION_BATCH):
                part, shift = places[start : start + VALIDATION_BATCH], self.config.timestep_shift
                if inpainting:
                    batch = move(inpainting_batch(model, part, rng, generator, shift), device)
                else:
                    batch = move(interaction_batch(model, part, generator, blank, shift), device)
                loss = denoising_loss(model, batch, self.config.weight_cap, self.config.outside_weight)
                losses.append((float(loss), len(batch.clean)))
                last = torch.full_like(batch.timestep, 999)
                clean = model.denoise(batch.noise, last, batch.conditions).float()
                static = batch.conditions.static
                if not inpainting:  # `control` is shown a repeated first frame instead
                    static = torch.stack([folder[index].static for folder, index in part]).to(batch.clean)
                copy = (static - batch.clean).square().mean(dim=2)
                error = (clean - batch.clean).square().mean(dim=2)
                hidden = batch.conditions.mask.mean(dim=2) < model.codec.mask_value / 2  # for the most part
                moved = hidden if inpainting else copy > CHANGED
                changed += float(error[moved].sum())
                copied += float(copy[moved].sum())
                still += float(error[~moved].sum())
                counts[0] += int(moved.sum())
                counts[1] += int((~moved).sum())
        total = sum(size for _, size in losses)
        figures = {"loss": sum(loss * size for loss, size in losses) / total}
        if copied > 0:
            figures["hidden" if inpainting else "changed"] = changed / copied
        if counts[1]:
            figures["known" if inpainting else "unchanged"] = still / counts[1]
        return figures
