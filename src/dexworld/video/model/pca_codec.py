"""A video codec without training or download: principal components of space-time patches.

The geometry of CogVideoX's VAE: frame 0 is cut into 8 x 8 patches, every four frames after it into 4 x 8 x 8 ones, each
kind with its own principal components. Fitted in a second on a few clips; at 96 x 144 pixels 16 channels keep about
30 dB (docs/video.md gives the measured figures).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dexworld.video.clips.clip import SPACE_FACTOR, TIME_FACTOR

# Channel i is divided by std_i ** WHITENING: 0 keeps the metric of pixels, 1 gives every channel the same variance.
# Half-way, fine detail is neither lost in the diffusion noise nor as dear as the coarse picture.
WHITENING = 0.5


class PCACodec(nn.Module):
    """Latents (B, f, C, h, w) of unit mean variance. `fitted` is False until `fit` or `load_state_dict`."""

    divisors = ("scale",)  # of its tensors, which must be positive
    mask_value = 1.0
    first_mean: Tensor
    first_basis: Tensor
    rest_mean: Tensor
    rest_basis: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        for name, frames in (("first", 1), ("rest", TIME_FACTOR)):
            size = 3 * frames * SPACE_FACTOR**2
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_basis", torch.zeros(size, channels))
        self.register_buffer("scale", torch.ones(channels))

    @property
    def metric(self) -> Tensor:
        """(C,) weights, 1 on average, that turn a squared error of latents into one of pixels, up to a factor."""
        return self.scale.square() / self.scale.square().mean()

    @property
    def fitted(self) -> bool:
        """Whether there are components to encode with."""
        return bool(self.first_basis.any())

    def fit(self, videos: Iterable[Tensor]) -> "PCACodec":
        """Fit on videos (F, H, W, 3) or (B, F, H, W, 3) uint8. Raises ValueError for fewer patches than channels."""
        moments = {name: _Moments(getattr(self, f"{name}_mean").numel()) for name in ("first", "rest")}
        for video in videos:
            first, rest = _patches(video[None] if video.ndim == 4 else video)
            moments["first"].add(first.flatten(0, -2))
            moments["rest"].add(rest.flatten(0, -2))
        variances = torch.zeros(self.channels, dtype=torch.float64)
        for name, each in moments.items():
            mean, values, basis = each.components(self.channels)
            getattr(self, f"{name}_mean").copy_(mean)
            getattr(self, f"{name}_basis").copy_(basis)
            # A latent cell of four frames holds four times the pixels: compare per pixel frame.
            variances += values / (2 * (1 if name == "first" else TIME_FACTOR))
        scale = variances.clamp_min(variances[0] * 1e-6).sqrt() ** WHITENING
        scale *= (variances / scale.square()).mean().sqrt()
        self.scale.copy_(scale)
        return self

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """See `Codec.encode`. Raises ValueError on another shape or type, RuntimeError when not fitted."""
        if not self.fitted:
            raise RuntimeError("this pca codec is not fitted; call fit, or load a model that was saved with its codec")
        first, rest = _patches(video)
        first = (first - self.first_mean) @ self.first_basis
        # divided by sqrt(4), an unchanging scene has latents of the same size in both kinds
        rest = (rest - self.rest_mean) @ self.rest_basis / TIME_FACTOR**0.5
        latents = torch.cat([first, rest], dim=1) / self.scale  # (B, f, h, w, C)
        return latents.permute(0, 1, 4, 2, 3).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See `Codec.decode`."""
        return (self.pixels(latents) * 255).round_().clamp_(0, 255).to(torch.uint8)

    def pixels(self, latents: Tensor) -> Tensor:
        """The same before rounding: (B, F, H, W, 3), 1 is white. Linear, hence differentiable."""
        return self._to_pixels(latents, self.first_mean, self.rest_mean)

    def pixel_error(self, error: Tensor) -> Tensor:
        """Squared error (B, F, H, W) of pixels that an error of latents makes, in the unit of the latents."""
        unit = self.scale.square().mean() * self.channels / (3 * SPACE_FACTOR**2)
        return self._to_pixels(error, 0.0, 0.0).square().mean(dim=-1) / unit

    def _to_pixels(self, latents: Tensor, first_mean: Tensor | float, rest_mean: Tensor | float) -> Tensor:
        values = latents.float().permute(0, 1, 3, 4, 2) * self.scale  # (B, f, h, w, C)
        first = values[:, :1] @ self.first_basis.T + first_mean
        rest = values[:, 1:] * TIME_FACTOR**0.5 @ self.rest_basis.T + rest_mean
        return torch.cat([_pixels(first, 1), _pixels(rest, TIME_FACTOR)], dim=1)


class _Moments:
    """Running mean and covariance of rows of `size` numbers, in double precision."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.total = torch.zeros(size, dtype=torch.float64)
        self.products = torch.zeros(size, size, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        self.count += len(rows)
        self.total += rows.double().sum(0).cpu()
        self.products += (rows.T @ rows).double().cpu()

    def components(self, channels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (size,), the largest variances (channels,) and their directions (size, channels)."""
        if self.count <= channels:
            raise ValueError(f"{self.count} patches can't fit {channels} channels; give more or longer videos")
        mean = self.total / self.count
        values, vectors = torch.linalg.eigh(self.products / self.count - mean[:, None] * mean[None])
        values, vectors = values.flip(0)[:channels].clamp_min(0), vectors.flip(1)[:, :channels]
        # The sign of a component is arbitrary: make the brighter side positive, the same on every machine.
        sign = torch.where(vectors.sum(0) < 0, -1.0, 1.0)
        return mean, values, vectors * sign


def check_codec_video(video: Tensor, group: int) -> None:
    """Raise ValueError unless video is (B, F, H, W, 3) uint8, its frames 1 + `group` n, its sides multiples of 8."""
    if video.ndim != 5 or video.shape[-1] != 3 or video.dtype != torch.uint8:
        raise ValueError(f"video must be (B, F, H, W, 3) uint8, not {tuple(video.shape)} {video.dtype}")
    frames, height, width = video.shape[1:4]
    if (frames - 1) % group or height % SPACE_FACTOR or width % SPACE_FACTOR:
        wanted = f"frames must be 1 + {group} n, sides multiples of {SPACE_FACTOR}"
        raise ValueError(f"video of {frames} frames of {height} x {width} doesn't fit: {wanted}")


def _patches(video: Tensor) -> tuple[Tensor, Tensor]:
    """Patches of frame 0, (B, 1, h, w, 192), and of the groups of four, (B, f - 1, h, w, 768), in [0, 1]."""
    check_codec_video(video, TIME_FACTOR)
    video = video.float() / 255
    return _cut(video[:, :1], 1), _cut(video[:, 1:], TIME_FACTOR)


def _cut(video: Tensor, group: int) -> Tensor:
    batch, frames, height, width, _ = video.shape
    side = SPACE_FACTOR
    blocks = video.reshape(batch, frames // group, group, height // side, side, width // side, side, 3)
    return blocks.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def _pixels(patches: Tensor, group: int) -> Tensor:
    batch, groups, rows, columns, _ = patches.shape
    side = SPACE_FACTOR
    blocks = patches.reshape(batch, groups, rows, columns, group, side, side, 3)
    return blocks.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, groups * group, rows * side, columns * side, 3)
