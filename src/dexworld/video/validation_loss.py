"""What training is watched by: the loss and the one-step error of held-out clips, inside and outside what changes."""

from dataclasses import dataclass

import torch

from dexworld.video.latents import LatentFolder
from dexworld.video.model import DWM
from dexworld.video.objective import VideoTrainConfig, denoising_loss, interaction_batch, move

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
        the mean squared error in all others, where the static video has next to none.
        """
        generator = torch.Generator().manual_seed(self.config.seed)
        blank = model.blank_hands().cpu()
        losses, changed, still, copied, counts = [], 0.0, 0.0, 0.0, [0, 0]
        for folder in self.folders:
            places = [(folder, index) for index in range(min(self.clips, len(folder)))]
            for start in range(0, len(places), BATCH):
                batch = move(interaction_batch(model, places[start : start + BATCH], generator, blank), device)
                losses.append((float(denoising_loss(model, batch, self.config.weight_cap)), len(batch.clean)))
                last = torch.full_like(batch.timestep, 999)
                clean = model.denoise(batch.noise, last, batch.conditions).float()
                static = torch.stack([folder[index].static for _, index in places[start : start + BATCH]]).to(device)
                copy = (static - batch.clean).square().mean(dim=2)
                error = (clean - batch.clean).square().mean(dim=2)
                moved = copy > CHANGED
                changed += float(error[moved].sum())
                copied += float(copy[moved].sum())
                still += float(error[~moved].sum())
                counts[0] += int(moved.sum())
                counts[1] += int((~moved).sum())
        total = sum(size for _, size in losses)
        figures = {"loss": sum(loss * size for loss, size in losses) / total}
        if copied > 0:
            figures["changed"] = changed / copied
        if counts[1]:
            figures["unchanged"] = still / counts[1]
        return figures
