"""What a clip looks like, in few numbers: for the Frechet distance between the clips of a method and the true ones.

For every channel of the features that `Lite0Distance` compares, a clip has the mean over pixels and frames and the mean
absolute change from frame to frame. These are 384 numbers, whose covariance would need thousands of clips. So
`DIRECTIONS` random orthogonal directions of them are kept, the same ones in every evaluation.

Features (samples, len(REGIONS), DIRECTIONS) of a clip are NaN for an empty region.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.evaluation.intervals import Interval, jackknife
from dexworld.models.frechet import frechet_distance
from dexworld.models.perceptual import Lite0Distance

REGIONS = ("", "_inside")  # of a frame, as measures' names end
DIRECTIONS = 16
FEWEST_CLIPS = 2 * DIRECTIONS  # for a covariance that is more than noise
SCALE = 10.0  # means of unit-length features differ in the second digit behind the point


@torch.no_grad()
def clip_features(network: Lite0Distance, video: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Features (len(REGIONS), DIRECTIONS) of a video (F, H, W, 3) uint8 with its interaction region (F, H, W) bool.

    A coarse pixel counts inside by the share of the region in it.
    """
    frames = zip(*(network.features(network.planes(frame)) for frame in video), strict=True)  # one by one: memory
    levels = [torch.cat(level) for level in frames]  # (F, C, h, w) after each block
    inside = torch.from_numpy(region)[:, None].to(levels[0])
    everywhere = torch.ones_like(inside)
    numbers = torch.stack([_pooled(levels, everywhere), _pooled(levels, inside)]).double().cpu().numpy()
    return np.where(region.any() | (np.array(REGIONS) == "")[:, None], numbers @ _directions(numbers.shape[1]), np.nan)


def _pooled(levels: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Means and changes of all channels, one after another, over a mask (F, 1, H, W)."""
    found = []
    for planes in levels:
        shares = functional.adaptive_avg_pool2d(mask, (planes.shape[2], planes.shape[3]))
        for values, weights in ((planes, shares), (planes.diff(dim=0).abs(), shares[1:])):
            found.append((values * weights).sum(dim=(0, 2, 3)) / weights.sum().clamp_min(1e-6))
    return SCALE * torch.cat(found)


def _directions(size: int) -> np.ndarray:
    """Orthonormal columns (size, DIRECTIONS)."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((size, DIRECTIONS)))[0]


def clips_frechet(truth: np.ndarray, *methods: np.ndarray) -> Interval | str:
    """Frechet distance of a method's clips to the true ones, or of two methods the first's less the second's.

    truth, methods: (N, S, DIRECTIONS) of the same N clips, each with S samples of its own. The interval is a jackknife
    over clips: a bootstrap draws clips twice, which makes every such distance too large. Too few clips give the reason.
    """
    arrays = [truth, *methods]
    known = np.all([~np.isnan(each).any(axis=(1, 2)) for each in arrays], axis=0)
    if known.sum() < FEWEST_CLIPS:
        return f"n/a (needs {FEWEST_CLIPS} clips, there are {known.sum()})"
    true, *made = (each[known] for each in arrays)

    def distance(rows: np.ndarray) -> float:
        found = [frechet_distance(each[rows].reshape(-1, DIRECTIONS), true[rows, 0]) for each in made]
        return found[0] - sum(found[1:])

    return jackknife(distance, int(known.sum()))
