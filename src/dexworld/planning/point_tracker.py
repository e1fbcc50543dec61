"""Where a goal's points may be: a particle filter over the way that they went, from picture to picture.

Points of one object go together. What a hand hides is still known: a forecast says where hands took it, and a place
that is seen without it is none of its places. K hypotheses, Q points, h x w cells of a map.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dexworld.forecast import Forecast
from dexworld.planning.point_goal import covered_share
from dexworld.planning.protocols import GoalPoints, PointModel

HYPOTHESES = 64
_FOLLOWED = 12  # pairs of points and hypotheses in a forecast, at least
_STEADY_PX = 1.5  # spread of points that nothing moved
_DRIFT = 0.3  # of a forecast's way, its spread
_FOUND_PX = 1.5  # spread of places at which a point is found
_ANYWHERE = 0.02  # that an object is at no place that was forecast
_MISSED = 0.05  # how likely a picture is in which the points are not seen where they should be, against chance
_POINTS = 4.0  # independent points that all of an object's are worth


class PointTracker:
    """Where the goal's points may be now: `offsets` (K, 2), pixels, from `start` (Q, 2), equally likely.

    Latents (P, D) are of the head's frames.
    """

    def __init__(self, head: PointModel, start: Tensor, points: GoalPoints) -> None:
        self.head, self.start, self.share, looks = head, points.pixels, points.share, points.looks
        self.looks = head.look(head.maps(start[None]), points.pixels[None])[0] if looks is None else looks  # (Q, C)
        self._generator = torch.Generator().manual_seed(0)
        self.expected = self.start  # (Q, 2): where the last step should have taken them
        self.offsets = points.spread * self._noise(HYPOTHESES) if len(self.start) else self.start.new_zeros(1, 2)

    def __getstate__(self) -> dict[str, Any]:
        """For another process that only calls `follow`: without the head, which it has to set to its own."""
        return vars(self) | {"head": None, "_generator": None}

    @property
    def pixels(self) -> Tensor:
        """Where the points are taken to be, (Q, 2): the middle of the hypotheses."""
        return self.start + self.offsets.mean(dim=0)

    def left(self, wanted: Tensor) -> float:
        """Expected distance of the points to where they should be, (Q, 2), pixels."""
        away = (self.start - wanted + self.offsets[:, None]).norm(dim=-1)  # (K, Q)
        return float((away @ self.share).mean())

    def moved(self, motion: Any) -> None:
        """The hand has moved: a condition (1, 1) of the executed step."""
        if not len(self.start):
            return
        middle = int(self.share.argmax())
        places = (self.start[middle] + self.offsets)[None]
        forecast = self.head.follow(self.looks[middle].expand(1, len(self.offsets), -1), places, motion)
        way = forecast.pixels[0, -1].mean(dim=0) - places[0]
        spread = _STEADY_PX + _DRIFT * way.norm(dim=-1, keepdim=True)
        self.offsets = self.offsets + way + spread * self._noise(len(way))
        self.expected = self.pixels

    def observe(self, latents: Tensor, covered: Tensor) -> None:
        """Look for the points in a new frame. covered (h', w'): cells of the picture that the robot hides."""
        if not len(self.start):
            return
        logits, hidden = (
            each[0, 0] for each in self.head.find(self.looks[None], self.head.maps(latents[None])[:, None])
        )
        found = self.head.read(logits) - self.start  # (Q, 2)
        drawn = found[torch.randint(len(found), (HYPOTHESES,), generator=self._generator)]
        tried = torch.cat([self.offsets, drawn + _FOUND_PX * self._noise(HYPOTHESES)])
        area = self.head.image_size[0] * self.head.image_size[1]
        before, at_finds = _density(tried, self.offsets, 2.0 * _STEADY_PX), _density(tried, found, _FOUND_PX)
        prior = (1.0 - _ANYWHERE) * before + _ANYWHERE / area
        weights = prior * self._likelihood(tried, logits, hidden, covered) / (before + at_finds)
        self.offsets = tried[_drawn(weights, HYPOTHESES)]

    def follow(self, condition: Any, count: int) -> Forecast:
        """Where N = `count` candidates' hands take the points; their condition (N, T). Hypotheses are opinions."""
        queries = len(self.start)
        several = max(1, math.ceil(_FOLLOWED / max(queries, 1)))
        offsets = self.offsets[torch.linspace(0, len(self.offsets) - 1, several * queries).round().long()]
        offsets = offsets + (self.offsets.mean(dim=0) - offsets.mean(dim=0))  # a few of them, with the mean of all
        mixed = torch.randperm(len(offsets), generator=torch.Generator().manual_seed(0))
        pixels = (self.start + offsets[mixed].unflatten(0, (several, queries))).flatten(0, 1)
        looks = self.looks.repeat(several, 1)
        forecast = self.head.follow(looks.expand(count, -1, -1), pixels.expand(count, -1, -1), condition)
        both = (forecast.pixels, forecast.spread)
        return Forecast(*(each.unflatten(3, (several, queries)).flatten(2, 3) for each in both))

    def _likelihood(self, offsets: Tensor, logits: Tensor, hidden: Tensor, covered: Tensor) -> Tensor:
        """Of the picture, if the points went so far (M, 2), against chance: (M,)."""
        seen = logits.flatten(1).softmax(-1) * logits[0].numel() * torch.sigmoid(-hidden)[:, None]
        ratio = (
            torch.maximum(seen.view(logits.shape), covered_share(covered, self.head.map_size)).clamp_min(_MISSED).log()
        )  # (Q, h, w)
        height, width = self.head.image_size
        places = 2.0 * (self.start[:, None] + offsets) / offsets.new_tensor([width, height]) - 1.0  # (Q, M, 2)
        each = functional.grid_sample(ratio[:, None], places[:, :, None], padding_mode="border", align_corners=False)
        total = _POINTS * (self.share[:, None] * each[:, 0, :, 0]).sum(dim=0)
        return (total - total.max()).exp()

    def _noise(self, count: int) -> Tensor:
        return torch.randn((count, 2), generator=self._generator).to(self.start)


def _drawn(weights: Tensor, count: int) -> Tensor:
    """Indices (count,) of systematic draws by weights (M,), in order."""
    ends = weights.double().cumsum(0)
    places = (torch.arange(count) + 0.5).to(ends) / count * ends[-1]
    return torch.searchsorted(ends, places).clamp_max(len(weights) - 1)


def _density(places: Tensor, centres: Tensor, spread: float) -> Tensor:
    """Of places (M, 2) under equal Gaussians around centres, per square pixel."""
    square = torch.cdist(places, centres).square() / spread**2
    return torch.exp(-0.5 * square).mean(-1) / (2.0 * math.pi * spread**2)
