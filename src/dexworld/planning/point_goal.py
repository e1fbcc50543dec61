"""Goals on points: chosen points of the start picture should be at chosen places.

The points come from a goal picture (those that moved), or are given, as clicks are.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.planning.objectives import Objective, TimeWeights
from dexworld.planning.protocols import Goal, GoalPoints, PointModel, Rollout

logger = logging.getLogger(__name__)

LATE = TimeWeights(0.3)
MOST_POINTS = 12  # of a goal picture
QUERIES = 1000  # places of the goal picture that are looked for in the start picture: those that changed most
_LEAST = 0.1  # of the best point's score, for a point to count
MOVED_PX = 8.0  # a point that goes less far stands still
_FAINT = 0.01  # points of which the surest are less sure than this were not found
_FEW = 4  # points that tell how sure a group is: small objects have no more
_DIFFERENT = 0.01  # a difference that may as well be none
_COVERED = 0.8  # so much less a place of the start frame counts that the robot covers: its outline is too wide
_HAND_PX, _ELSEWHERE = 40.0, 0.02  # what is to be moved starts near the fingertips; a Gaussian's spread, and its floor
_ALIKE_PX = (10.0, 30.0)  # points of one object move alike, and lie near each other
AHEAD = 0.42  # how far on the way from the fingers to its goal a hidden object is taken to be
_HIDDEN_SPREAD_PX = 5.0  # of where a hidden object is taken to be
_HIDDEN_PX = 20.0  # so near each other are points of an object that is hidden at the start
_PUSHED_PX = 60.0  # from the fingers of a hand that hides it to where it should be; a Gaussian's spread
_NOISE = 0.02  # of colour shares
_VARIANCE = 6.0  # mean square distance under a Laplace distribution of scale 1 in the plane


@dataclass(frozen=True)
class PointGoal(Objective):
    """Expected distance, under the forecast, of the goal's points to where they should be, in units of the picture's
    height.

    risk: `expected` averages over the opinions and what each is unsure of; `centre` takes each opinion's centre alone;
    `worst` takes the opinion that is furthest off.
    """

    name: str = "points"
    risk: Literal["expected", "centre", "worst"] = "centre"
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


def clicked_points(start: np.ndarray, end: np.ndarray, device: torch.device | str = "cpu") -> GoalPoints:
    """Given points, pixels (Q, 2) [u, v], and where they should be. Raises ValueError where they are no pairs."""
    pixels, wanted = (torch.as_tensor(np.asarray(each, dtype=np.float32), device=device) for each in (start, end))
    if pixels.shape != wanted.shape or pixels.ndim != 2 or pixels.shape[1] != 2 or not len(pixels):
        shapes = f"{tuple(pixels.shape)} and {tuple(wanted.shape)}"
        raise ValueError(f"goal points are pixels (Q, 2) and as many (Q, 2), not {shapes}")
    if not (torch.isfinite(pixels) & torch.isfinite(wanted)).all():
        raise ValueError("goal points hold NaN or Inf")
    return GoalPoints(pixels, wanted, torch.ones(len(pixels), device=device))


def moved_points(
    head: PointModel, start: Tensor, goal: Tensor, changed: Tensor, hides: Tensor, robot: Tensor, hand: Tensor
) -> GoalPoints:
    """The points of a goal picture that lie elsewhere in the start frame; latents (P, D) of both.

    changed: (h, w), how much the pictures' colours differ, without brightness: shadows move, too. hides, robot: cells
    (h, w) that the robot covers in the start frame and in the goal picture. hand: pixels (2,) of its fingertips at the
    start.

    What is to be moved is seen in the goal picture. Where it is found in the start frame, a point counts when both
    pictures differ where it was and where it should be, and when it moves as its neighbours do. Where nothing is found
    so, what is movable in the goal picture, not seen in the start frame and nearest to its fingers is taken to be
    hidden by the hand at the start, on the way from its fingers to where it should be. Where nothing changed, the goal
    has no points, and a warning says so.
    """
    maps, wanted = head.maps(torch.stack([start, goal])), _places(head, robot)
    wanted = wanted[_sampled(changed, head, wanted).topk(min(QUERIES, len(wanted))).indices]
    looks = head.look(maps[1:], wanted[None])[0]
    logits, hidden = (each[0, 0] for each in head.find(looks[None], maps[:1][None]))
    movable, unseen = torch.sigmoid(head.movable(looks)[:, 0]), torch.sigmoid(hidden)
    cells, hides = grid(*head.map_size, head.image_size).to(wanted), covered_share(hides, head.map_size)
    left = _differs(changed, head, maps, cells.flatten(0, 1)).view(head.map_size) * (1.0 - _COVERED * hides)
    left = left * (_close(cells, hand, _HAND_PX) + _ELSEWHERE)
    heat = logits.flatten(1).softmax(-1).view(logits.shape) * left
    pixels, spread = head.read((heat + 1e-12).log()), 1.0
    sure = heat.flatten(1).amax(-1) * _differs(changed, head, maps, wanted) * movable * (1.0 - unseen).sqrt()
    sure, near = sure * ((wanted - pixels).norm(dim=-1) > MOVED_PX), torch.cdist(wanted, wanted)
    alike = (near < _ALIKE_PX[1]) & (torch.cdist(wanted - pixels, wanted - pixels) < _ALIKE_PX[0])
    group = _group(sure, alike)
    if not len(wanted) or (sure * group).topk(min(_FEW, len(sure))).values.mean() < _FAINT:
        sure = movable * unseen * _close(wanted, hand, _PUSHED_PX) * (_sampled(changed, head, wanted) > 0).any()
        group = _group(sure, near < _HIDDEN_PX)
        share = sure * group / (sure * group).sum().clamp_min(1e-9)
        pixels, spread = wanted + (1.0 - AHEAD) * (hand - share @ wanted), _HIDDEN_SPREAD_PX
    score = sure * group
    best = score.topk(min(MOST_POINTS, int((score > _LEAST * score.max()).sum()))).indices
    if not len(best):
        logger.warning("the goal picture looks like the start: nothing is to be moved")
    return GoalPoints(pixels[best], wanted[best], score[best], looks[best], spread)


def grid(rows: int, columns: int, image_size: tuple[int, int]) -> Tensor:
    """Centres (rows, columns, 2) [u, v] of a picture's cells, in pixels."""
    row = (torch.arange(rows) + 0.5) * image_size[0] / rows
    column = (torch.arange(columns) + 0.5) * image_size[1] / columns
    return torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)


def _places(head: PointModel, robot: Tensor) -> Tensor:
    """Pixels (Q, 2) on a grid of half a map's cell, where the robot (h, w) is not."""
    rows, columns = (2 * cells for cells in head.map_size)
    return grid(rows, columns, head.image_size).to(robot.device)[covered_share(robot, (rows, columns)) == 0]


def _group(sure: Tensor, alike: Tensor) -> Tensor:
    """The points (Q,) that are alike (Q, Q) with the one whose few best are surest."""
    if not len(sure):
        return sure > 0
    return alike[(alike * sure).topk(min(_FEW, len(sure)), dim=-1).values.sum(-1).argmax()]


def _close(pixels: Tensor, hand: Tensor, spread: float) -> Tensor:
    return torch.exp(-0.5 * ((pixels - hand).norm(dim=-1) / spread).square())


def covered_share(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Shares (h, w) of a map's cells that a mask of the picture's cells covers."""
    return functional.interpolate(mask[None, None].float(), size, mode="area")[0, 0]


def _sampled(changed: Tensor, head: PointModel, pixels: Tensor) -> Tensor:
    """Values (Q,) of cells (h, w) of the picture at pixels (Q, 2); small differences are noise."""
    cell = pixels.new_tensor([head.image_size[1] / changed.shape[1], head.image_size[0] / changed.shape[0]])
    column, row = (pixels / cell).long().unbind(-1)
    return (changed - _NOISE).clamp_min(0.0)[row.clamp(0, len(changed) - 1), column.clamp(0, changed.shape[1] - 1)]


def _differs(changed: Tensor, head: PointModel, maps: Tensor, pixels: Tensor) -> Tensor:
    """How surely two pictures, with maps (2, C, h, w), differ at pixels (Q, 2), in colour and looks: 0 to 1, (Q,)."""
    first, second = (functional.normalize(head.look(each[None], pixels[None])[0], dim=-1) for each in maps)
    differs = _sampled(changed, head, pixels) * (1.0 - (first * second).sum(-1)).clamp_min(0.0)
    return differs / (differs + _DIFFERENT)
