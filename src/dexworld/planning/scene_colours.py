"""An object term for encoders that decode: does the scene around the robot look as in the goal picture?

Patches are larger than objects and mix them with the robot, so a latent distance can't tell a moved object from a moved
arm. A decoded prediction can: kinematics tell which cells the robot hides. docs/planning.md has measurements.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dexworld.planning.objectives import Objective
from dexworld.planning.protocols import Goal, Rollout

CELL_PX = 4  # side of the cells that pictures are compared on
_MARGIN_PX = 3.0  # around the outline, for what the outline leaves out
_DARK = 0.3  # keeps the colour of dark cells from being noise


@dataclass(frozen=True)
class SceneColours(Objective):
    """How much of what should change outside the robot's silhouette still has to: 1 at the start, 0 as in the goal
    picture.

    Compares the last predicted picture with the goal's, cell by cell, in colour without brightness (the arm throws
    shadows). Each cell weighs by how much it differs between start and goal; cells that the robot hid at the start
    don't count.

    tolerance: differences of colour share below it are noise. hidden_cost: the share of what had to change that a cell
    costs which the candidate's robot hides.
    """

    name: str = "scene"
    tolerance: float = 0.03
    hidden_cost: float = 0.5

    needs_picture = True
    needs_latents = True
    needs_decoder = True

    def __post_init__(self) -> None:
        if self.tolerance < 0 or not 0 <= self.hidden_cost <= 1:
            raise ValueError("SceneColours needs tolerance >= 0 and hidden_cost between 0 and 1")

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        predicted, hidden = rollout.picture, rollout.silhouette
        wanted, start, start_hidden = goal.picture, goal.start_picture, goal.start_silhouette
        if predicted is None or hidden is None or wanted is None or start is None or start_hidden is None:
            raise ValueError(f"objective {self.name!r} compares pictures: plan with a dynamics that decodes latents")
        change = self._difference(start, wanted)  # (h, w)
        weight = change * ~start_hidden
        error = torch.where(hidden, self.hidden_cost * change, self._difference(predicted, wanted))  # (N, h, w)
        return (error * weight).sum((-1, -2)) / (change * weight).sum().clamp_min(1e-9)

    def _difference(self, first: Tensor, second: Tensor) -> Tensor:
        return ((first - second).abs().mean(-1) - self.tolerance).clamp_min(0.0).square()


def colour_cells(images: Tensor) -> Tensor:
    """Colour shares (..., h, w, 3) of images (..., H, W, 3) uint8, averaged over cells of `CELL_PX` pixels."""
    flat = images.reshape(-1, *images.shape[-3:]).permute(0, 3, 1, 2).float() / 255
    cells = functional.avg_pool2d(flat, CELL_PX).permute(0, 2, 3, 1)
    cells = cells / (cells.sum(-1, keepdim=True) + _DARK)
    return cells.reshape(*images.shape[:-3], *cells.shape[1:])


def silhouette(pixels: Tensor, depth: Tensor, radii: Tensor, focal: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Cells (N, h, w) that spheres cover, with one cell around them.

    pixels (N, M, 2) and depth (N, M) in metres of the spheres' centres, radii (M,) in metres, focal length in pixels.
    """
    height, width = image_size[0] // CELL_PX, image_size[1] // CELL_PX
    reach = focal * radii / depth.clamp_min(0.1) + _MARGIN_PX  # (N, M) pixels
    reach = torch.where(depth > 0.05, reach, torch.zeros_like(reach)).square()
    row = (torch.arange(height, device=pixels.device) + 0.5) * CELL_PX
    column = (torch.arange(width, device=pixels.device) + 0.5) * CELL_PX
    across = (column - pixels[..., :1]).square()  # (N, M, w)
    down = (row - pixels[..., 1:]).square()  # (N, M, h)
    covered = torch.zeros(len(pixels), height, width, dtype=torch.bool, device=pixels.device)
    for sphere in range(pixels.shape[1]):  # all at once would take N x M x h x w numbers
        covered |= down[:, sphere, :, None] + across[:, sphere, None, :] < reach[:, sphere, None, None]
    return functional.max_pool2d(covered[:, None].float(), 3, 1, 1)[:, 0] > 0
