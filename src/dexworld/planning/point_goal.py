"""Goals on points: chosen points of the start picture should be at chosen places.

The points come from a goal picture (those that moved), or are given, as clicks are.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dexworld.models.points import Forecast, PointHead
from dexworld.planning.objectives import Objective, TimeWeights
from dexworld.planning.protocols import Goal, GoalPoints, Rollout

logger = logging.getLogger(__name__)

LATE = TimeWeights(0.3)
MOST_POINTS = 12  # of a goal picture
MOVED_PX = 8.0  # a point that goes less far stands still
_BACK_PX = 5.0  # how near a point must be found when it is looked for from the goal picture
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

    def __init__(self, head: PointHead, start: Tensor, points: GoalPoints) -> None:
        self.head, self.goal = head, points
        self.looks = head.look(head.maps(start[None]), points.pixels[None])[0]  # (Q, C)
        self.pixels = points.pixels

    def observe(self, latents: Tensor, expected: Tensor) -> None:
        """Look for the points in a new frame; those that are hidden are where they were expected (Q, 2)."""
        logits, hidden = self.head.find(self.looks[None], self.head.maps(latents[None])[:, None])
        self.pixels = torch.where(hidden[0, 0, :, None] > 0, expected, self.head.read(logits)[0, 0])


def moved_points(head: PointHead, start: Tensor, goal: Tensor, robot: Tensor) -> GoalPoints:
    """The points of a start frame that lie elsewhere in the goal picture; latents (P, D) of both.

    robot: cells (h, w) of the start picture that the robot covers. A point counts when it is seen in both, found back
    from the goal picture, and moves as its neighbours do. Without any, the goal has no points, and a warning says so.
    """
    rows, columns = head.map_size
    height, width = head.image_size
    grid = torch.stack(
        torch.meshgrid(
            (torch.arange(rows, device=start.device) + 0.5) * height / rows,
            (torch.arange(columns, device=start.device) + 0.5) * width / columns,
            indexing="ij",
        ),
        dim=-1,
    )
    queries = grid.flip(-1).flatten(0, 1)
    covered = torch.nn.functional.interpolate(robot[None, None].float(), (rows, columns), mode="area")[0, 0] > 0
    queries = queries[~covered.flatten()]
    maps = head.maps(torch.stack([start, goal]))
    found, sure = _found(head, maps[:1], queries, maps[1:])
    back, sure_back = _found(head, maps[1:], found, maps[:1])
    gone = (found - queries).norm(dim=-1)
    counted = (gone > MOVED_PX) & ((back - queries).norm(dim=-1) < _BACK_PX) & (sure > 0) & (sure_back > 0)
    queries, found, sure = queries[counted], found[counted], (sure * sure_back)[counted]
    if not len(queries):
        logger.warning("no point of the start picture lies elsewhere in the goal picture: nothing is to be moved")
        return GoalPoints(queries, found, sure)
    near = torch.cdist(queries, queries) < _ALIKE_PX[1]
    alike = near & (torch.cdist(found - queries, found - queries) < _ALIKE_PX[0])
    support = (alike * sure).sum(-1)
    group = alike[support.argmax()]
    queries, found, sure = queries[group], found[group], sure[group]
    best = sure.topk(min(MOST_POINTS, len(sure))).indices
    return GoalPoints(queries[best], found[best], sure[best])


def _found(head: PointHead, own: Tensor, pixels: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (Q, 2) of points of one picture in another, and how surely each is seen there (Q,), 0 where hidden."""
    logits, hidden = head.find(head.look(own, pixels[None]), other[None])
    peak = logits[0, 0].flatten(1).softmax(-1).amax(-1)
    return head.read(logits)[0, 0], peak * (hidden[0, 0] < 0)


def forecast_of(tracker: PointTracker, condition: Any, count: int) -> Forecast:
    """Where N candidates' hands take the points; their condition (N, T)."""
    looks, pixels = (each.expand(count, *each.shape) for each in (tracker.looks, tracker.pixels))
    return tracker.head.follow(looks, pixels, condition)
