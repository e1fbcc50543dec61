"""The adversary of a pixel decoder: a small convolutional network that tells true patches from decoded ones.

Sources: Isola et al., "Image-to-image translation with conditional adversarial networks", 2017 (patches); Esser et al.,
"Taming transformers", 2021 (adaptive weight). Departure from the RAE recipe, whose discriminator stands on a frozen
pretrained network: this one needs no weights. Group instead of batch normalisation: every picture is judged by itself,
and a checkpoint is its parameters and nothing else.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 8
LARGEST_WEIGHT = 1e4  # of the adversarial loss


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
