"""What a sentence means in a picture: which point is to be moved, and where it should be.

B batch, L words, W width of their vectors, D width of the head, C channels of the maps, h x w their cells.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.models.config import TextConfig
from dexworld.models.keypoint_head import HeadBlock
from dexworld.models.points import PointHead
from dexworld.models.sentences import MOST_WORDS, SentenceEncoder, UniversalSentenceEncoder, word_vectors

ROLES = 3  # the object to be moved, the object that its place is relative to, and where that is
_UNIT_PX = 50.0  # what lengths in pixels count as one
_STEP_PX = 20.0


@dataclass(frozen=True)
class TextGoal:
    """What a sentence asks for: the pixel `start` (2,) [u, v] should come to the pixel `end` (2,).

    anchor: (2,) pixel of the object that the end is relative to. sure: the share of the heatmap around `start`.
    """

    start: Tensor
    end: Tensor
    anchor: Tensor
    sure: float


class TextHead(nn.Module):
    """Words and a picture's maps (of a `PointHead`) to heatmaps of two objects, and to where the first should be.

    sentence_encoder: of `goal`; None takes `UniversalSentenceEncoder` when it is asked for.
    """

    def __init__(self, config: TextConfig, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        dim = config.dim
        self.config, self.image_size = config, image_size
        self.sentence_encoder: SentenceEncoder | None = None
        self.words = nn.Linear(config.words, dim)
        self.positions = nn.Parameter(torch.randn(ROLES + MOST_WORDS, dim).mul_(0.02))
        self.blocks = nn.ModuleList(HeadBlock(dim, config.heads, 2) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim)
        sizes = (channels + 2, *[config.channels] * config.layers)
        self.picture = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(sizes))
        self.match = nn.Conv2d(config.channels, dim, 1)
        self.place = nn.Sequential(
            nn.Linear(dim + 8, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2)
        )

    def roles(self, words: Tensor) -> Tensor:
        """What each role is like (B, 3, D), from words (B, L, W)."""
        x = F.pad(self.words(words), (0, 0, ROLES, 0)) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, :ROLES])

    def features(self, maps: Tensor) -> Tensor:
        """What roles are compared with, (N, D, h, w), from maps (N, C, h, w)."""
        height, width = maps.shape[-2:]
        rows, columns = (torch.linspace(-1, 1, size, device=maps.device) for size in (height, width))
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(maps), -1, -1, -1)
        x = torch.cat([F.normalize(maps, dim=1) * maps.shape[1] ** 0.5, places], dim=1)
        for number, layer in enumerate(self.picture):
            x = F.gelu(layer(x)) + (x if number else 0.0)
        return self.match(x)

    def heatmaps(self, roles: Tensor, features: Tensor) -> Tensor:
        """Heatmap logits (B, 2, h, w) of the object to be moved and of the other one, in features (B, D, h, w)."""
        return torch.einsum("brd,bdhw->brhw", roles[:, :2], features)

    def end(self, roles: Tensor, start: Tensor, anchor: Tensor) -> Tensor:
        """Where the object at pixels `start` (B, 2) should be, relative to the one at `anchor`: pixels (B, 2)."""
        centre = anchor.new_tensor([self.image_size[1], self.image_size[0]]) / 2
        way = start - anchor
        length = way.norm(dim=-1, keepdim=True)
        far = [way / length.clamp_min(4.0), length / _UNIT_PX, (length < 4.0).to(way)]
        x = torch.cat([roles[:, 2], (anchor - centre) / _UNIT_PX, way / _UNIT_PX, *far], dim=-1)
        return anchor + _STEP_PX * self.place(x)

    def goal(self, head: PointHead, latents: Tensor, sentence: str) -> TextGoal:
        """What a sentence asks for in a picture with latents (P, D). head: the point head of the same model.

        Raises ImportError without the sentence encoder's package, ValueError for a sentence of too many words or none.
        """
        if self.sentence_encoder is None:
            self.sentence_encoder = UniversalSentenceEncoder()
        roles = self.roles(word_vectors(self.sentence_encoder, [sentence]).to(latents))
        logits = self.heatmaps(roles, self.features(head.maps(latents[None])))
        (start, anchor), sure = head.read(logits)[0], logits[0, 0].flatten().softmax(-1).topk(9).values.sum()
        return TextGoal(start, self.end(roles, start[None], anchor[None])[0], anchor, float(sure))
