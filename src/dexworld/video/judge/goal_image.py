"""How far generated last frames are from a goal picture that shows the goal state without hands.

A generated last frame shows the hand, the goal picture doesn't, so a plain distance would reward the candidate whose
hand covers the least. Everything under a hand is therefore taken out of the comparison before any distance is computed,
by one of two rules:

`union`: the pixels that the hand of any candidate covers are taken from the static video in both pictures. Every
    candidate is judged on the same pixels, and two candidates that differ in their hands alone get the same score.
`own`: the pixels that a candidate's own hand covers are taken from the static video in its picture only: what can't be
    seen counts as unchanged. More of the scene is compared, and a candidate may lose what its hand hides.

N candidates, F frames, H x W pixels. Pictures inside are float32 RGB in [0, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.actions import MIN_DEPTH
from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.track import Track
from dexworld.video.clips.clip import keypoints_camera
from dexworld.video.clips.hand_video import HAND_NOISE_LEVEL

Rule = Literal["union", "own", "none"]
RULES: tuple[Rule, ...] = ("union", "own", "none")
DILATION_PX = 3  # covers the blur of a codec and most of the contact shadow
LEVELS = 4  # of the multi-scale distances: pixels of 1, 2, 4 and 8
FOREARM_LENGTH, FOREARM_RADIUS = 0.45, 0.04  # metres
MIDDLE_KNUCKLE = 9  # of the 21 keypoints of a hand
CHANGE_FLOOR = 0.02  # weight of a pixel that should not change, beside 1 for the one that changes most
Distance = Callable[[Tensor, Tensor, Tensor], Tensor]  # (pictures (N, H, W, 3), goal, static (H, W, 3)) -> (N,)


def hand_masks(
    hands: Sequence[np.ndarray], tracks: Sequence[Track | None] = (), frames: int = 1, dilation: int = DILATION_PX
) -> np.ndarray:
    """Where the hands are at the end of N hand-only videos (F, H, W, 3) uint8 on black: (N, H, W) bool. tracks: of the
    same hands; with them the forearms count too, which only generated videos show. frames: how many of the last frames
    count. dilation: pixels by which the masks grow. Raises ValueError on another shape."""
    for index, video in enumerate(hands):
        if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
            raise ValueError(f"hand video {index} is {video.shape} {video.dtype}, expected (F, H, W, 3) uint8")
    covered = np.stack([(video[-frames:].max(axis=-1) > HAND_NOISE_LEVEL).any(axis=0) for video in hands])
    for index, track in enumerate(tracks):
        if track is not None:
            for frame in range(len(track) - frames, len(track)):
                covered[index] |= forearm_mask(track, frame, covered.shape[1:])
    grown = torch.from_numpy(covered)[:, None].float()
    return F.max_pool2d(grown, 2 * dilation + 1, stride=1, padding=dilation)[:, 0].bool().numpy()


def forearm_mask(track: Track, frame: int, size: tuple[int, int]) -> np.ndarray:
    """Where the forearms of a frame are in a picture of `size` (H, W): (H, W) bool. A forearm is taken to prolong the
    line from the middle finger's knuckle to the wrist, as thick as a sleeve; a bent wrist moves the true one off that
    line."""
    height, width = size
    rows, columns = np.mgrid[:height, :width] + 0.5
    points, found = keypoints_camera(track)[frame], np.zeros(size, dtype=bool)
    focal = track.intrinsics[[0, 1], [0, 1]].mean()
    for side in (LEFT, RIGHT):
        wrist, knuckle = side.start + WRIST, side.start + MIDDLE_KNUCKLE
        if not track.keypoints_valid[frame, [wrist, knuckle]].all():
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
    """A goal and the pixels that candidates may be compared with it on. goal, static: (H, W, 3) uint8, the wanted state
    and the untouched scene from the last camera pose, without hands. hidden: (N, H, W) bool, what each candidate's hand
    covers in its last frame. Raises ValueError when the sizes differ."""

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
            raise ValueError(
                f"goal {self.goal.shape}, static {self.static.shape} and hand masks {self.hidden.shape} must be of "
                "one size; resize the goal picture to that of the clips"
            )

    @cached_property
    def union(self) -> np.ndarray:
        """(H, W) bool: covered by the hand of at least one candidate."""
        return np.logical_or.reduce(self.hidden, axis=0)

    @cached_property
    def visible_change(self) -> float:
        """Share, 0 to 1, of the squared difference between goal and static that lies outside `union`. Near 0 the goal
        hides behind the hands, and no picture can tell the candidates apart. 1 where nothing changes."""
        change = np.square(self.goal.astype(float) - self.static).sum(axis=-1)
        total = change.sum()
        return float(change[~self.union].sum() / total) if total else 1.0

    def distances(self, last_frames: np.ndarray, distance: Distance, rule: Rule) -> np.ndarray:
        """Distances (N,) float64 of last frames (N, H, W, 3) uint8 to the goal; lower is nearer. Raises ValueError when
        the number or the size of the frames is not that of the hand masks."""
        expected = (*self.hidden.shape, 3)
        if last_frames.shape != expected or last_frames.dtype != np.uint8:
            raise ValueError(f"last frames are {last_frames.shape} {last_frames.dtype}, expected {expected} uint8")
        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}; choose from {', '.join(RULES)}")
        goal, pictures = self.goal, last_frames
        if rule == "union":
            goal, pictures = (np.where(self.union[..., None], self.static, each) for each in (goal, pictures))
        elif rule == "own":
            pictures = np.where(self.hidden[..., None], self.static, pictures)
        with torch.no_grad():
            found = distance(_unit(pictures), _unit(goal), _unit(self.static))
        return found.double().cpu().numpy()


def _unit(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).float() / 255.0


def colour(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """Mean absolute difference of RGB over all pixels, (N,)."""
    return (pictures - goal).abs().mean(dim=(1, 2, 3))


def squared(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """Mean squared difference of RGB over all pixels, (N,)."""
    return (pictures - goal).square().mean(dim=(1, 2, 3))


def pyramid(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """Mean absolute difference of RGB, averaged over pixels of 1, 2, 4 and 8: near misses count less than far ones."""
    return _over_levels(pictures - goal, lambda part: part.abs().mean(dim=(1, 2, 3)))


def gradient(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical gradients of RGB, averaged over the same four scales."""

    def edges(part: Tensor) -> Tensor:
        return part.diff(dim=3).abs().mean(dim=(1, 2, 3)) + part.diff(dim=2).abs().mean(dim=(1, 2, 3))

    return _over_levels(pictures - goal, edges)


def changed(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """Mean squared difference of RGB, each pixel weighted by how much the goal differs there from the static scene."""
    change = _smooth((goal - static)[None]).square().sum(dim=1, keepdim=True)  # (1, 1, H, W)
    weight = change / change.max().clamp(min=1e-6) + CHANGE_FLOOR
    error = (pictures - goal).permute(0, 3, 1, 2).square()
    return (error * weight).sum(dim=(1, 2, 3)) / weight.sum()


def direction(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """One minus the cosine between the change that a picture shows and the one that the goal shows, both blurred. It
    doesn't punish a video for showing the right change too faintly. 1 where either shows no change at all."""
    shown, wanted = _smooth(pictures - static).flatten(1), _smooth((goal - static)[None]).flatten(1)
    return 1.0 - F.cosine_similarity(shown, wanted.expand_as(shown), dim=1, eps=1e-6)


def blurred(pictures: Tensor, goal: Tensor, static: Tensor) -> Tensor:
    """Blurred mean squared difference: what is left of the wanted change, plus what changed that should not have."""
    return _smooth(pictures - goal).square().mean(dim=(1, 2, 3))


_ALL = (colour, squared, pyramid, gradient, changed, direction, blurred)
DISTANCES: dict[str, Distance] = {each.__name__: each for each in _ALL}


def distance_named(name: str) -> Distance:
    """The weight-free distance of that name. Raises ValueError listing the names there are."""
    if name not in DISTANCES:
        raise ValueError(f"no image distance {name!r}; choose from {', '.join(DISTANCES)}")
    return DISTANCES[name]


def _over_levels(difference: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of `measure` over the difference (N, H, W, 3) at halved resolutions, while there are pixels left."""
    planes, found = difference.permute(0, 3, 1, 2), []
    for _ in range(LEVELS):
        found.append(measure(planes))
        if min(planes.shape[2:]) < 4:
            break
        planes = F.avg_pool2d(planes, 2)
    return torch.stack(found).mean(dim=0)


def _smooth(difference: Tensor) -> Tensor:
    """(N, 3, H, W) of (N, H, W, 3), averaged over 5 x 5 pixels."""
    return F.avg_pool2d(difference.permute(0, 3, 1, 2), 5, stride=1, padding=2, count_include_pad=False)
