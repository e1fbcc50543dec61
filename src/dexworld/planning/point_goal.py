"""Goals on points: chosen points of the start picture should be at chosen places.

The points come from a goal picture (those that moved), or are given, as clicks are.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from dexworld.forecast import Forecast
from dexworld.planning.objectives import Objective, TimeWeights
from dexworld.planning.protocols import Goal, GoalPoints, PointModel, Rollout

logger = logging.getLogger(__name__)

LATE = TimeWeights(0.3)
MOST_POINTS = 12  # of a goal picture
QUERIES = 1000  # places of the goal picture that are looked for in the start picture: those that changed most
MOVED_PX = 8.0  # a point that goes less far stands still
_ALIKE_PX = (10.0, 30.0)  # points of one object move alike, and lie near each other
_VARIANCE = 6.0  # mean square distance under a Laplace distribution of scale 1 in the plane


@dataclass(frozen=True)
class PointGoal(Objective):
    """Expected distance, under the forecast, of the goal's points to where they should be, in units of the picture's
    height.

    risk: `expected` averages over the opinions and what each is unsure of; `centre` takes each opinion's centre alone;
    `worst` takes the opinion that is furthest off.
    """

    name: str = "points"
    risk: Literal["expected", "centre", "worst"] = "expected"
    time: TimeWeights = LATE

    needs_points = True

    def __post_init__(self) -> None:
        if self.risk not in ("expected", "centre", "worst"):
            raise ValueError(f"risk is {self.risk!r}; choose 'expected', 'centre' or 'worst'")

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        if rollout.points is None or goal.points is None:
            raise ValueError(f"objective {self.name!r} needs points: plan with a world model that has a point head")
        square = (rollout.points.pixels - goal.points.wanted).square().sum(-1)  # (N, T, E, Q)
        if self.risk != "centre":
            square = square + _VARIANCE * rollout.points.spread.square()
        distance = (square + 1e-6).sqrt()
        opinions = distance.amax(dim=2) if self.risk == "worst" else distance.mean(dim=2)
        weights = goal.points.weights
        return self.time.mean((opinions * weights).sum(-1) / weights.sum().clamp_min(1e-9)) / goal.image_size[0]


class PointTracker:
    """Where the goal's points are now, from picture to picture. Latents (P, D) are of observed frames.

    Raises ValueError when nothing is asked for: neither points nor a goal picture in which something moved.
    """

    def __init__(self, head: PointModel, start: Tensor, points: GoalPoints) -> None:
        self.head, self.goal = head, points
        looks = points.looks
        self.looks = head.look(head.maps(start[None]), points.pixels[None])[0] if looks is None else looks  # (Q, C)
        self.pixels = points.pixels

    def observe(self, latents: Tensor, expected: Tensor) -> None:
        """Look for the points in a new frame; those that are hidden are where they were expected (Q, 2)."""
        logits, hidden = self.head.find(self.looks[None], self.head.maps(latents[None])[:, None])
        self.pixels = torch.where(hidden[0, 0, :, None] > 0, expected, self.head.read(logits)[0, 0])


def moved_points(head: PointModel, start: Tensor, goal: Tensor, robot: Tensor) -> GoalPoints:
    """The points of a goal picture that lie elsewhere in the start frame; latents (P, D) of both.

    robot: cells (h, w) of the goal picture that the robot covers. What is to be moved is seen in the goal picture; at
    the start the hand may hide it, and then its place is a guess. A point counts when both pictures differ where it was
    and where it should be, and when it moves as its neighbours do. Without any, the goal has no points, and a warning
    says so.
    """
    maps = head.maps(torch.stack([start, goal]))
    wanted = _places(head, robot)
    wanted = wanted[_change(head, maps, wanted).topk(min(QUERIES, len(wanted))).indices]
    looks = head.look(maps[1:], wanted[None])[0]
    logits, _ = head.find(looks[None], maps[:1][None])
    pixels, peak = head.read(logits)[0, 0], logits[0, 0].flatten(1).softmax(-1).amax(-1)
    sure = peak * _change(head, maps, wanted) * _change(head, maps, pixels)
    moved = (wanted - pixels).norm(dim=-1) > MOVED_PX
    wanted, pixels, looks, sure = wanted[moved], pixels[moved], looks[moved], sure[moved]
    if not len(wanted):
        logger.warning("no point of the goal picture lies elsewhere in the start picture: nothing is to be moved")
        return GoalPoints(pixels, wanted, sure, looks)
    near = torch.cdist(wanted, wanted) < _ALIKE_PX[1]
    alike = near & (torch.cdist(wanted - pixels, wanted - pixels) < _ALIKE_PX[0])
    group = alike[(alike * sure).sum(-1).argmax()]
    best = (sure * group).topk(min(MOST_POINTS, int(group.sum()))).indices
    return GoalPoints(pixels[best], wanted[best], sure[best], looks[best])


def _places(head: PointModel, robot: Tensor) -> Tensor:
    """Pixels (Q, 2) on a grid of half a map's cell, where the robot (h, w) is not."""
    height, width = head.image_size
    rows, columns = (2 * cells for cells in head.map_size)
    row = (torch.arange(rows, device=robot.device) + 0.5) * height / rows
    column = (torch.arange(columns, device=robot.device) + 0.5) * width / columns
    covered = functional.interpolate(robot[None, None].float(), (rows, columns), mode="area")[0, 0] > 0
    return torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)[~covered]


def _change(head: PointModel, maps: Tensor, pixels: Tensor) -> Tensor:
    """How much two pictures, with maps (2, C, h, w), differ at pixels (Q, 2): 0 where they look alike, (Q,)."""
    first, second = (functional.normalize(head.look(each[None], pixels[None])[0], dim=-1) for each in maps)
    return (1.0 - (first * second).sum(-1)).clamp_min(0.0)


def forecast_of(tracker: PointTracker, condition: Any, count: int) -> Forecast:
    """Where N candidates' hands take the points; their condition (N, T)."""
    looks, pixels = (each.expand(count, *each.shape) for each in (tracker.looks, tracker.pixels))
    return tracker.head.follow(looks, pixels, condition)
