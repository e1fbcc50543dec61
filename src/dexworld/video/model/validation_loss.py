"""What training is watched by: the loss and the one-step error of held-out clips, inside and outside what is made."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dexworld.video.model.clip_latents import LatentFolder
from dexworld.video.model.dwm import DWM
from dexworld.video.model.video_task import (
    VideoBatch,
    VideoTrainConfig,
    denoising_loss,
    inpainting_batch,
    interaction_batch,
    move,
)

BATCH = 8
CHANGED = 0.25  # a cell has changed when its mean squared difference from the static video exceeds this (variance 1)


@dataclass(frozen=True)
class VideoValidation:
    """Figures of a model on the first `clips` clips of every held-out folder, with the same noise every time."""

    folders: list[LatentFolder]
    clips: int
    config: VideoTrainConfig

    @torch.no_grad()
    def __call__(self, model: DWM, device: torch.device) -> dict[str, float]:
        """Figures of `model`.

        loss: as in training, without dropout. Denoised from pure noise in one step: changed, the squared error in the
        cells that the hands change, over that of the static video (below 1 is better than doing nothing); unchanged,
        the mean squared error in all others, where the static video has next to none. Where inpainting is trained,
        those figures are of random masks instead: hidden, the squared error in the cells to be filled, over that of the
        masked video; known, the mean squared error in all others.
        """
        generator, rng = torch.Generator().manual_seed(self.config.seed), np.random.default_rng(self.config.seed)
        blank, inpainting = model.blank_hands().cpu(), self.config.goal == "inpainting"
        losses, changed, still, copied, counts = [], 0.0, 0.0, 0.0, [0, 0]
        for folder in self.folders:
            places = [(folder, index) for index in range(min(self.clips, len(folder)))]
            for start in range(0, len(places), BATCH):
                part, shift = places[start : start + BATCH], self.config.timestep_shift
                if inpainting:
                    batch = move(inpainting_batch(model, part, rng, generator, shift), device)
                else:
                    batch = move(interaction_batch(model, part, generator, blank, shift), device)
                loss = denoising_loss(model, batch, self.config.weight_cap, self.config.outside_weight)
                losses.append((float(loss), len(batch.clean)))
                last = torch.full_like(batch.timestep, 999)
                clean = model.denoise(batch.noise, last, batch.conditions).float()
                static = batch.conditions.static if inpainting else _static_of(part, batch)
                copy = (static - batch.clean).square().mean(dim=2)
                error = (clean - batch.clean).square().mean(dim=2)
                moved = _hidden(batch, model.codec.mask_value) if inpainting else copy > CHANGED
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


def _static_of(places: list[tuple[LatentFolder, int]], batch: VideoBatch) -> Tensor:
    return torch.stack([folder[index].static for folder, index in places]).to(batch.clean)


def _hidden(batch: VideoBatch, known: float) -> Tensor:
    """The cells (B, f, h, w) that are to be filled, for the most part."""
    return batch.conditions.mask.mean(dim=2) < known / 2
