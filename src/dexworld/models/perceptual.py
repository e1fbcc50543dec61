"""Perceptual distances of pictures: of network features with weights (LPIPS, Lite0), or of gradients, without weights.

LPIPS: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018, version 0.1, with
VGG16. Nothing is downloaded.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dexworld.models.checkpoint import check_finite, read_tensors
from dexworld.models.encoders.cnn import Lite0, read_lite0, weights_file
from dexworld.models.picture_metrics import check_mask, check_videos, region_means

LEVELS = 4  # scales of the gradient distance: pixels of 1, 2, 4 and 8
FLOOR = 0.02  # gradient per pixel, of a [0, 1] range, below which differences are grain and count for little
# VGG16's convolutions: (index in torchvision's `features`, channels in, channels out); a pooling comes between blocks.
BLOCKS = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
# The paper's colour scaling of images in [-1, 1] (ImageNet's mean and deviation, carried over from [0, 1]).
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10
LITE0_BLOCKS = (0, 2, 4, 10)  # of strides 2, 4, 8 and 16


class FeatureDistance(nn.Module):
    """A distance of images by what a network makes of them, as maps of several scales; `distances` averages them.

    smallest: pixels a side that the network needs. Buffers or parameters say on which device it runs.
    """

    smallest = 16  # survives four poolings

    def maps(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Per scale, distances (N, h, w) of images (N, 3, H, W) in [-1, 1]; their means add up to the distance."""
        raise NotImplementedError

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances (N,) of images (N, 3, H, W) in [-1, 1]."""
        return torch.stack([part.mean(dim=(1, 2)) for part in self.maps(first, second)]).sum(dim=0)

    @torch.no_grad()
    def distances(
        self, prediction: np.ndarray, truth: np.ndarray, masks: Sequence[np.ndarray | None] = (None,)
    ) -> list[float | None]:
        """Mean distance of videos (F, H, W, 3) uint8 over their frames and over each mask, as in `region_means`.

        Raises ValueError on other shapes and on frames that are too small.
        """
        check_videos(prediction, truth)
        if min(truth.shape[1:3]) < self.smallest:
            what = f"{type(self).__name__} needs frames of {self.smallest} pixels a side or more"
            raise ValueError(f"{what}, not {truth.shape[1:3]}")
        for mask in masks:
            if mask is not None:
                check_mask(mask, truth.shape)
        frames = (  # one by one: VGG's first features are 64 times a frame
            [part[0] for part in self.maps(self.planes(ours), self.planes(theirs))]
            for ours, theirs in zip(prediction, truth, strict=True)
        )
        return [None if means is None else float(means.sum()) for means in region_means(frames, masks)]

    def planes(self, image: np.ndarray) -> Tensor:
        """(1, 3, H, W) in [-1, 1], on the network's device, of an image (H, W, 3) uint8."""
        planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        return planes.to(next(self.parameters()).device).float() / 127.5 - 1


class Lite0Distance(FeatureDistance):
    """Squared differences of EfficientNet-Lite0's unit-length features after four blocks, averaged (ours).

    Like LPIPS, without learned weights of channels and with a network that comes in a package (extra `cnn`). From 0,
    equal features, to 4, opposite ones, at every scale. New ones hold random weights: use `from_package`.
    """

    smallest = 32

    def __init__(self) -> None:
        super().__init__()
        self.network = Lite0(LITE0_BLOCKS[-1])

    @classmethod
    def from_package(cls) -> "Lite0Distance":
        """With the package's weights. Raises ValueError naming the extra where it is missing."""
        distance = cls()
        distance.network.load_state_dict(read_lite0(weights_file(), distance.network))
        return distance.eval().requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit-length features of images (N, 3, H, W) in [-1, 1] after each of `LITE0_BLOCKS`."""
        pixels = ((images + 1) * 127.5 - 127) / 128  # as in the official code
        found, planes = [], functional.relu6(self.network.stem(pixels))
        for number, block in enumerate(self.network.blocks):
            planes = block(planes)
            if number in LITE0_BLOCKS:
                found.append(unit_length(planes))
        return found

    def maps(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """As `FeatureDistance`, after each block."""
        pairs = zip(self.features(first), self.features(second), strict=True)
        return [(a - b).square().sum(dim=1) / len(LITE0_BLOCKS) for a, b in pairs]


def unit_length(planes: Tensor) -> Tensor:
    """Features (N, C, h, w), each pixel's scaled to length 1."""
    return planes / (planes.square().sum(dim=1, keepdim=True).sqrt() + EPSILON)


class LPIPS(FeatureDistance):
    """Distance of images: squared differences of VGG16's unit-length features after each block, weighted and summed."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers = [layer for block in BLOCKS for layer in block]
        self.convolutions = nn.ModuleDict(
            {str(i): nn.Conv2d(before, after, 3, padding=1) for i, before, after in layers}
        )
        self.heads = nn.ParameterList(torch.zeros(block[-1][2]) for block in BLOCKS)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_files(cls, vgg: Path | str, heads: Path | str) -> "LPIPS":
        """VGG16 from `vgg` (keys `features.N.weight`, `features.N.bias`) and linear heads from `heads` (keys
        `lin0.model.1.weight` to `lin4.model.1.weight`), each .safetensors or .npz; other keys are left alone.

        Raises ValueError naming a key that is missing or has another shape, or a file of another kind;
        FileNotFoundError for a file that isn't there.
        """
        lpips = cls()
        features, weights = read_weights(Path(vgg)), read_weights(Path(heads))
        with torch.no_grad():
            for name, target in lpips.convolutions.named_parameters():  # such as 0.weight
                target.copy_(_entry(features, f"features.{name}", tuple(target.shape), vgg))
            for number, head in enumerate(lpips.heads):
                head.copy_(_entry(weights, f"lin{number}.model.1.weight", (1, len(head), 1, 1), heads).flatten())
        return lpips.eval().requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit-length features of images (N, 3, H, W) in [-1, 1] after each of the five blocks."""
        found, planes = [], (images - self.shift) / self.scale
        for number, block in enumerate(BLOCKS):
            planes = functional.max_pool2d(planes, 2) if number else planes
            for index, _, _ in block:
                planes = functional.relu(self.convolutions[str(index)](planes))
            found.append(unit_length(planes))
        return found

    def maps(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Weighted squared differences (N, h, w) after each block, of images (N, 3, H, W) in [-1, 1]."""
        pairs = zip(self.features(first), self.features(second), self.heads, strict=True)
        return [((a - b).square() * head.view(1, -1, 1, 1)).sum(dim=1) for a, b, head in pairs]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .npz file by name.

    Raises ValueError for pickles (.pth), which can run code, and CheckpointError naming a tensor with NaN or Inf.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such weight file")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        check_finite(weights, path)
        return weights
    raise ValueError(f"{path}: weights are read from .safetensors or .npz; docs/video_data.md converts them")


def _entry(weights: dict[str, Tensor], key: str, shape: tuple[int, ...], path: Path | str) -> Tensor:
    if key not in weights:
        raise ValueError(f"{path}: has no {key!r}; its first keys are {sorted(weights)[:4]}")
    if tuple(weights[key].shape) != shape:
        raise ValueError(f"{path}: {key!r} has shape {tuple(weights[key].shape)}, expected {shape}")
    return weights[key]


def gradient_maps(first: Tensor, second: Tensor) -> list[Tensor]:
    """Per scale, the relative gradient difference (N, h, w), 0 to 1, of images (N, 3, H, W) in [0, 1].

    The length of the difference of two pixels' colour gradients, over the sum of their lengths (plus `FLOOR`). Places
    and directions of edges count, brightness does not. Differentiable.
    """
    maps = []
    for level in range(LEVELS):
        if level:
            first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
        ours, theirs = _gradients(first), _gradients(second)
        maps.append((ours - theirs).norm(dim=1) / (ours.norm(dim=1) + theirs.norm(dim=1) + FLOOR))
    return maps


def _gradients(images: Tensor) -> Tensor:
    """(N, 6, H, W): differences to the next pixel, two directions of three colours."""
    wider = functional.pad(images, (0, 1, 0, 1), mode="replicate")
    return torch.cat([wider.diff(dim=3)[:, :, :-1], wider.diff(dim=2)[:, :, :, :-1]], dim=1)


class GradientDistance(nn.Module):
    """Multi-scale gradient distance, 0 (equal) to 1: a perceptual distance without weights."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances (N,) of images (N, 3, H, W) in [-1, 1]."""
        maps = gradient_maps((first + 1) / 2, (second + 1) / 2)
        return torch.stack([part.mean(dim=(1, 2)) for part in maps]).mean(dim=0)
