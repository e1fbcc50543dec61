"""DexWM trained online: frames from the loader, resized, augmented and encoded on the device of the model.

What a run at the paper's scale needs: latents of EgoDex would fill 82 TB (917 kB a frame against 5.5 kB of video).
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from dexworld.data.augment import CHANCES, AugmentConfig, augment, draw_augmentation
from dexworld.data.loader import FrameBatch, FrameLoader
from dexworld.data.resize import Fit
from dexworld.data.sampling import uniforms
from dexworld.data.windows import Window
from dexworld.training.window_task import WindowTask

AUGMENTATION = 1 << 20  # stream of random numbers, apart from those that draw frames
FRAMES_PER_CALL = 256  # frames that the encoder takes at once

Encode = Callable[[Tensor], Tensor]


class FrameSource:
    """Windows whose latents are computed on the way (a `window_task.WindowSource`).

    loader: where frames come from; consecutive batches are loaded ahead by its workers. encode: images (N, H, W, 3)
    uint8 of `image_size` to latents (N, P, D); None gives zeros (N, 1, 1), for those who want labels only.
    augment: colours to change, one draw per clip from (seed, sample number). bfloat16: encode under autocast.
    """

    def __init__(
        self,
        loader: FrameLoader,
        encode: Encode | None,
        image_size: tuple[int, int],
        device: torch.device | str = "cpu",
        augment: AugmentConfig | None = None,
        seed: int = 0,
        bfloat16: bool = False,
    ) -> None:
        self.loader, self.encode, self.image_size = loader, encode, image_size
        self.device, self.augment, self.seed, self.bfloat16 = torch.device(device), augment, seed, bfloat16
        self._starts = np.concatenate([[0], np.cumsum(loader.sampler.clips.lengths)])
        self._stream: Iterator[FrameBatch] | None = None
        self._next = (0, 0, 0)

    def batch(self, step: int, size: int, first: int | None = None) -> Window:
        """Batch `step` of `size` windows on the device. first: number of its first sample (default step * size)."""
        wanted = (step, size, step * size if first is None else first)
        if self._stream is None or self._next != wanted:
            self._stream = self.loader.batches(step, size, wanted[2])
        frames = next(self._stream)
        self._next = (step + 1, size, wanted[2] + size)
        return self.window(frames)

    def window(self, batch: FrameBatch) -> Window:
        """The window of a batch of frames: resized with its intrinsics, augmented, encoded."""
        numbers, shown = batch.numbers.numpy(), batch.frame_numbers
        rows = torch.from_numpy(self._starts[batch.clips.numpy()])[:, None] + shown
        new = torch.ones_like(shown, dtype=torch.bool)
        new[:, 1:] = shown[:, 1:] != shown[:, :-1]  # a repeated frame is encoded once
        place = new.flatten().cumsum(0).view_as(shown) - 1
        batch = batch.to(self.device)
        fit = Fit(self.loader.image_size, self.image_size)
        latents = torch.zeros(*shown.shape, 1, 1, device=self.device)
        if self.encode is not None:
            images = fit.images(batch.frames)
            if self.augment is not None:
                chances = uniforms(self.seed, numbers, CHANCES, AUGMENTATION)
                images = augment(images, draw_augmentation(self.augment, chances))
            latents = self._encoded(images[new.to(self.device)])[place.to(self.device)]
        return Window(
            latents=latents,
            keypoints_world=batch.keypoints_world,
            keypoints_valid=batch.keypoints_valid,
            keypoints_shown=batch.keypoints_shown,
            world_from_camera=batch.world_from_camera,
            intrinsics=fit.intrinsics(batch.intrinsics),
            repeats=batch.repeats,
            stride=batch.stride,
            rows=rows.to(self.device),
        )

    @torch.no_grad()
    def _encoded(self, images: Tensor) -> Tensor:
        """Latents (N, P, D) float32 of images (N, H, W, 3) uint8."""
        assert self.encode is not None
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            return torch.cat([self.encode(part) for part in images.split(FRAMES_PER_CALL)]).float()

    def describe(self, row: int) -> str:
        """Dataset folder, episode and frame of a window's row."""
        clip = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.loader.describe(clip, row - int(self._starts[clip]))

    def close(self) -> None:
        """End the loader's workers."""
        self._stream = None
        self.loader.close()


class FrameTask(WindowTask):
    """`WindowTask` over frames: the workers of the first phase end when the second begins."""

    def batch(self, index: int, device: torch.device) -> tuple[Window, int]:
        """Batch number `index` of the run."""
        if self.unrolled(index) and isinstance(first_phase := self.sources[False], FrameSource):
            first_phase.close()
        return super().batch(index, device)
