"""Patch PCA: an encoder that is fitted in seconds, needs no download, and decodes back to pixels (docs/model.md).

N images, P patches, V values of a cell (3 * side * side), D latent width. A patch is one cell, or with
`EncoderConfig.merge` a square of them, each projected alone.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from dexworld.models.config import EncoderConfig
from dexworld.models.encoders.base import Encoder, merged, unmerged


class PCAEncoder(Encoder):
    """Principal components of patches of the area-averaged image, with one scale for all so that latents have unit std.

    A new one is not fitted: use `fit`, or load a state dict.
    """

    can_decode = True
    mean: Tensor
    basis: Tensor
    scale: Tensor
    explained_variance: Tensor

    def __init__(self, config: EncoderConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size)
        self.side = config.patch // config.cells
        values = 3 * self.side**2
        shapes = {"mean": (values,), "basis": (values, config.cell_dim), "scale": (), "explained_variance": ()}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, batches: Iterable[Tensor]) -> "PCAEncoder":
        """Fit on batches of images (N, H, W, 3) uint8, each read once; returns itself.

        The covariance is accumulated in float64. Raises ValueError for fewer patches than dims, or when all are alike.
        """
        count = 0
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        outer = torch.zeros(len(total), len(total), dtype=torch.float64, device=total.device)
        for images in batches:
            patches = (
                self._patches(images).flatten(0, 1).double() - 0.5
            )  # mid-grey: less cancellation in the covariance
            count += len(patches)
            total += patches.sum(0)
            outer += patches.T @ patches
        dim = self.config.cell_dim
        if count <= dim:
            raise ValueError(f"{count} patches can't fit a pca encoder of {dim} dims; give it more images")
        mean = total / count
        covariance = outer / count - mean[:, None] * mean
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        eigenvalues, vectors = eigenvalues.flip(0).clamp_min(0.0), vectors.flip(1)
        variance = eigenvalues[:dim].sum()
        if variance <= 1e-12:
            raise ValueError("all patches are alike, so there is nothing to fit a pca encoder on")
        basis = vectors[:, :dim]
        signs = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()  # eigh leaves the sign open
        self.mean.copy_(mean + 0.5)
        self.basis.copy_(basis * signs)
        self.scale.copy_((variance / dim).sqrt())
        self.explained_variance.copy_(variance / eigenvalues.sum())
        return self

    @property
    def _cell_grid(self) -> tuple[int, int]:
        return self.grid[0] * self.config.cells, self.grid[1] * self.config.cells

    def _patches(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, cells, V) float32 in [0, 1]."""
        (rows, columns), side, factor = self._cell_grid, self.side, self.config.downsample
        blocks = images.reshape(len(images), rows * side, factor, columns * side, factor, 3)
        small = blocks.float().sum(dim=(2, 4)) / (255.0 * factor**2)
        return small.view(-1, rows, side, columns, side, 3).transpose(2, 3).reshape(len(images), rows * columns, -1)

    def _encode(self, images: Tensor) -> Tensor:
        self._require_fit()
        cells = (self._patches(images) - self.mean) @ (self.basis / self.scale)
        return merged(cells, self.grid, self.config.cells)

    def _decode(self, latents: Tensor) -> Tensor:
        self._require_fit()
        (rows, columns), side, factor = self._cell_grid, self.side, self.config.downsample
        cells = unmerged(latents.float(), self.grid, self.config.cells)
        patches = cells @ (self.basis * self.scale).T + self.mean
        squares = (255.0 * patches).round().clamp(0, 255).to(torch.uint8).view(-1, rows, columns, side, side, 3)
        small = squares.transpose(2, 3).reshape(-1, rows * side, columns * side, 3)
        return small.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)

    def _require_fit(self) -> None:
        if not self.scale > 0:
            raise ValueError("this pca encoder is not fitted; call fit() on training images or load a checkpoint")
