"""How actions enter the predictor: a vector for AdaLN, and features that lie where the hand is in the image.

B batch, T frames, P patches, K keypoints, D predictor width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.actions import ACTION_DIM, HandMotion
from dexworld.models.config import PredictorConfig
from dexworld.models.diffusion import TIME_DIM

SMALLEST_SCALE = 0.01  # metres or radians; a camera that never moves has no scale of its own
CHANNELS_PER_SIGMA = 4  # Gaussian, Gaussian * dx, Gaussian * dy, Gaussian * depth


def action_scale(motion: HandMotion, valid: Tensor, moving: Tensor) -> tuple[float, float, float]:
    """Root mean square of the points' displacements (metres), camera translations (metres) and rotations (radians).

    motion (B, T) of K points, with valid (B, T + 1, K); moving (B, T): the transitions that count.
    """
    both_valid = valid[:, 1:] & valid[:, :-1] & moving[..., None]
    deltas = motion.deltas
    parts = (deltas[:, :, :-2][both_valid], deltas[:, :, -2][moving], deltas[:, :, -1][moving])
    scales = [float(part.square().mean().sqrt()) if part.numel() else 0.0 for part in parts]
    keypoints, translation, rotation = (float(f"{max(scale, SMALLEST_SCALE):.4g}") for scale in scales)
    return keypoints, translation, rotation


class ActionEmbedding(nn.Module):
    """Actions (..., 44, 3) in metres and radians to AdaLN conditions (..., C), SiLU already applied.

    Without `embed_actions` this is SiLU of the 132 scaled numbers, the paper's form (section 3.2). Other models have
    other rows, `action_dim` numbers in all; action_scale is that of points, and of the camera in the last two rows.
    With diffusion, zeros behind them leave room for the level of noise.
    """

    inverse_scale: Tensor

    def __init__(
        self, config: PredictorConfig, action_scale: tuple[float, float, float], action_dim: int = ACTION_DIM
    ) -> None:
        super().__init__()
        scale = torch.full((action_dim,), action_scale[0])
        scale[-6:-3], scale[-3:] = action_scale[1:]
        self.register_buffer("inverse_scale", torch.ones(action_dim).div_(scale), persistent=False)
        self.level_dim = TIME_DIM if config.diffusion is not None else 0
        self.dim = (config.dim if config.embed_actions else action_dim) + self.level_dim
        self.network: nn.Module = nn.Identity()
        if config.embed_actions:
            first, second = nn.Linear(action_dim, config.dim), nn.Linear(config.dim, config.dim)
            self.network = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, deltas: Tensor) -> Tensor:
        """Conditions (..., C) of motions (..., 44, 3): keypoints, camera and its turn."""
        return F.pad(F.silu(self.network(deltas.flatten(-2) * self.inverse_scale)), (0, self.level_dim))

    def still(self) -> Tensor:
        """The condition (1, 1, C) of no action."""
        return self(torch.zeros_like(self.inverse_scale)[None, None, None])


class PixelAlignment(nn.Module):
    """Tells every query token where the tracked keypoints are, and where the action takes them.

    For each keypoint and each sigma, on the patch grid: a Gaussian of the distance in patches, the Gaussian times the
    offsets in x and y, and times the keypoint's depth minus a reference, so that contact can be told from a hand that
    hovers. A keypoint that is not visible gives zeros. (DWM, arXiv 2512.17907, finds that pixel alignment of the
    hand is what makes actions obeyed; measured on our data in docs/model.md.)
    """

    patches_per_pixel: Tensor
    sigmas: Tensor
    column_centres: Tensor
    row_centres: Tensor

    def __init__(self, config: PredictorConfig, grid: tuple[int, int], image_size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = grid
        self.tracked = list(config.tracked)
        self.depth_reference = config.depth_reference
        self.channels = len(config.tracked) * len(config.sigmas) * CHANNELS_PER_SIGMA
        patch = torch.tensor([image_size[1] / columns, image_size[0] / rows])
        self.register_buffer("patches_per_pixel", torch.ones(2).div_(patch), persistent=False)
        self.register_buffer("sigmas", torch.tensor(config.sigmas)[:, None, None], persistent=False)
        self.register_buffer("column_centres", torch.tensor([*range(columns)]).float().add_(0.5), persistent=False)
        self.register_buffer("row_centres", torch.tensor([*range(rows)]).float().add_(0.5), persistent=False)
        self.now = nn.Linear(self.channels, config.dim)
        self.next = nn.Linear(self.channels, config.dim, bias=False)

    def features(self, pixels: Tensor, visible: Tensor) -> Tensor:
        """Grid features (..., P, channels) of keypoints (..., 12, 3) [u px, v px, depth m], visible (..., 12).

        Every channel is a function of the row times a function of the column, so one product makes them all.
        """
        pixels, visible = pixels[..., self.tracked, :], visible[..., self.tracked]
        pixels = torch.where(visible[..., None], pixels, torch.zeros_like(pixels))
        centre = pixels[..., :2] * self.patches_per_pixel  # (..., K, 2) in patches
        depth = (pixels[..., 2] - self.depth_reference)[..., None, None]
        dx = self.column_centres - centre[..., 0, None, None]  # (..., K, 1, columns)
        dy = self.row_centres - centre[..., 1, None, None]
        column = torch.exp(-0.5 * (dx / self.sigmas[:, 0]) ** 2) * visible[..., None, None]  # (..., K, S, columns)
        row = torch.exp(-0.5 * (dy / self.sigmas[:, 0]) ** 2)
        columns = torch.stack([column, column * dx / self.sigmas[:, 0], column, column * depth], dim=-2)
        rows = torch.stack([row, row, row * dy / self.sigmas[:, 0], row], dim=-2)  # (..., K, S, 4, rows)
        columns = columns.flatten(-4, -2).transpose(-1, -2)  # (..., columns, K * S * 4)
        rows = rows.flatten(-4, -2).transpose(-1, -2)
        return (rows[..., :, None, :] * columns[..., None, :, :]).flatten(-3, -2)

    def forward(self, features_now: Tensor, features_next: Tensor) -> Tensor:
        """What is added to the query tokens (..., P, D)."""
        weight = self.now.weight
        return self.now(features_now.to(weight.dtype)) + self.next(features_next.to(weight.dtype))
