"""How near generated last frames come to a goal picture that shows the goal state without hands.

A generated last frame shows the hand, the goal picture doesn't. A plain distance would reward the candidate whose hand
covers the least. So the pixels that a candidate's own hand covers are taken from the static video: what can't be seen
counts as unchanged.

N candidates, F frames, H x W pixels. Pictures inside are float32 RGB in [0, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.actions import MIN_DEPTH
from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.track import Track
from dexworld.video.clips.clip import keypoints_camera
from dexworld.video.clips.hand_video import HAND_NOISE_LEVEL

DILATION_PX = 3  # covers the blur of a codec and most of the contact shadow
FOREARM_LENGTH, FOREARM_RADIUS = 0.45, 0.04  # metres
MIDDLE_KNUCKLE = 9  # of the 21 keypoints of a hand
PairDistance = Callable[[Tensor, Tensor], Tensor]  # LPIPS: pictures (N, 3, H, W), (1, 3, H, W) in [-1, 1] -> (N,)


def hand_masks(hands: Sequence[np.ndarray], tracks: Sequence[Track | None] = ()) -> np.ndarray:
    """Where the hands are in the last frames of N videos (F, H, W, 3) uint8 of hands on black, dilated: (N, H, W) bool.

    tracks: of the same hands; with them the forearms count too, which only generated videos show.
    """
    covered = np.stack([video[-1].max(axis=-1) > HAND_NOISE_LEVEL for video in hands])
    for index, track in enumerate(tracks):
        if track is not None:
            covered[index] |= forearm_mask(track, covered.shape[1:])
    grown = torch.from_numpy(covered)[:, None].float()
    return F.max_pool2d(grown, 2 * DILATION_PX + 1, stride=1, padding=DILATION_PX)[:, 0].bool().numpy()


def forearm_mask(track: Track, size: tuple[int, int]) -> np.ndarray:
    """Where forearms, straight on from knuckle through wrist, are in the last picture, of `size` (H, W)."""
    height, width = size
    rows, columns = np.mgrid[:height, :width] + 0.5
    points, found = keypoints_camera(track)[-1], np.zeros(size, dtype=bool)
    focal = track.intrinsics[[0, 1], [0, 1]].mean()
    for side in (LEFT, RIGHT):
        wrist, knuckle = side.start + WRIST, side.start + MIDDLE_KNUCKLE
        if not track.keypoints_valid[-1, [wrist, knuckle]].all():
            continue
        along = points[wrist] - points[knuckle]
        along = along / max(float(np.linalg.norm(along)), 1e-6)
        for step in np.arange(0.0, FOREARM_LENGTH, FOREARM_RADIUS / 2):
            x, y, depth = points[wrist] + step * along
            if depth > MIN_DEPTH:
                u, v = track.intrinsics[:2] @ np.array([x / depth, y / depth, 1.0])
                found |= np.hypot(columns - u, rows - v) <= focal * FOREARM_RADIUS / depth
    return found


@dataclass(frozen=True)
class GoalView:
    """A goal and the pixels that candidates may be compared with it on. Raises ValueError when the sizes differ.

    goal, static: (H, W, 3) uint8, the wanted state and the untouched scene from the last camera pose, without hands.
    hidden: (N, H, W) bool, what each candidate's hand covers in its last frame.
    """

    goal: np.ndarray
    static: np.ndarray
    hidden: np.ndarray

    def __post_init__(self) -> None:
        for name in ("goal", "static"):
            value = getattr(self, name)
            if value.ndim != 3 or value.shape[-1] != 3 or value.dtype != np.uint8:
                raise ValueError(f"{name} is {value.shape} {value.dtype}, expected (H, W, 3) uint8")
        size = self.goal.shape[:2]
        if self.static.shape[:2] != size or self.hidden.shape[1:] != size or self.hidden.ndim != 3:
            shapes = f"goal {self.goal.shape}, static {self.static.shape} and hand masks {self.hidden.shape}"
            raise ValueError(f"{shapes} must be of one size; resize the goal picture to that of the clips")

    def scores(self, videos: Sequence[np.ndarray], lpips: PairDistance | None = None) -> np.ndarray:
        """Scores (N,) float64 of videos (F, H, W, 3) uint8, higher is better; ValueError for another shape.

        Minus LPIPS between last frame and goal, or without it the cosine of shown and wanted change, both blurred,
        less one; -1 where either shows none.
        """
        pictures, expected = np.stack([video[-1] for video in videos]), (*self.hidden.shape, 3)
        if pictures.shape != expected or pictures.dtype != np.uint8:
            raise ValueError(f"last frames are {pictures.shape} {pictures.dtype}, expected {expected} uint8")
        shown = _planes(np.where(self.hidden[..., None], self.static, pictures))
        goal, static = _planes(self.goal[None]), _planes(self.static[None])
        with torch.no_grad():
            distance = direction(shown, goal, static) if lpips is None else lpips(2.0 * shown - 1.0, 2.0 * goal - 1.0)
        return -distance.double().cpu().numpy()


def _planes(pictures: np.ndarray) -> Tensor:
    """(N, 3, H, W) in [0, 1] of (N, H, W, 3) uint8."""
    return (torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255.0).permute(0, 3, 1, 2)


def direction(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """One minus the cosine of shown and wanted change (N or 1, 3, H, W), both blurred; 1 where either shows none."""
    shown, wanted = _smooth(pictures - static).flatten(1), _smooth(goal - static).flatten(1)
    return 1.0 - F.cosine_similarity(shown, wanted.expand_as(shown), dim=1, eps=1e-6)


def _smooth(difference: Tensor) -> Tensor:
    return F.avg_pool2d(difference, 5, stride=1, padding=2, count_include_pad=False)
