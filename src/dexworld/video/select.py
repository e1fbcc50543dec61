"""Action selection by imagination: simulate every candidate hand motion as a video, score the videos, take the best.

DWM, section 4.4: an image goal is scored by -LPIPS between the last generated frame and the goal picture, a text goal
by the cosine of video and text embeddings; the paper's code for it was not released. Departures: under the hands
nothing is compared (`goal_image`), and without weights for LPIPS a named weight-free distance takes its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from dexworld.video.clip import TripletClip
from dexworld.video.goal_image import Distance, GoalView, Rule, distance_named, hand_masks
from dexworld.video.references import VideoMethod

# Chosen on validation scenes (docs/video_selection.md).
DISTANCE = "direction"
RULE: Rule = "own"
MASK_FRAMES = 1
NEUTRAL_PROMPT = "A hand acts on the objects on a table."  # of every candidate: a caption would say what its hand does
PairDistance = Callable[[Tensor, Tensor], Tensor]  # pictures (N, 3, H, W), (1, 3, H, W) in [-1, 1] -> (N,)
TIE = 1e-9  # scores closer than this are equal


@dataclass(frozen=True)
class ImageGoal:
    """A goal picture (H, W, 3) uint8, from the last camera pose and without hands, and how distance to it is measured.

    distance: a name in `goal_image.DISTANCES`. lpips: LPIPS with weights; when given it takes the distance's place.
    mask_frames: so many of the last frames make up a hand's mask.
    """

    picture: np.ndarray
    distance: str = DISTANCE
    rule: Rule = RULE
    mask_frames: int = MASK_FRAMES
    lpips: PairDistance | None = None

    @property
    def score_name(self) -> str:
        """What a score of this goal is, for reports."""
        return f"-{'lpips' if self.lpips else self.distance} ({self.rule})"

    def measure(self) -> Distance:
        """The distance as a function. Raises ValueError for a name that there is not."""
        if self.lpips is None:
            return distance_named(self.distance)
        network = self.lpips
        return lambda pictures, goal, static: network(_planes(pictures), _planes(goal[None]))


def _planes(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) in [-1, 1], as LPIPS wants them, of (N, H, W, 3) in [0, 1]."""
    return 2.0 * pictures.permute(0, 3, 1, 2) - 1.0


@dataclass(frozen=True)
class TextGoal:
    """A sentence, and the scorer (`text_goal.TextScorer`) that compares videos (F, H, W, 3) uint8 with it."""

    text: str
    scorer: Callable[[Sequence[np.ndarray], str], np.ndarray]
    score_name: str = "x-clip cosine"


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order in which they should be tried.

    names: (N,) of the candidates as given. scores: (N,) float64, higher is better. order: (N,) indices, best first.
    videos: what was generated for each. visible_change: see `GoalView`; None for a text goal.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    order: np.ndarray
    score_name: str
    videos: tuple[np.ndarray, ...]
    visible_change: float | None = None

    @property
    def best(self) -> int:
        """Index of the winner."""
        return int(self.order[0])


def rank_order(scores: np.ndarray, seed: int) -> np.ndarray:
    """Indices (N,) by falling score; equal scores come in an order drawn from `seed`, never in the order given.

    Raises ValueError on NaN, which would rank anywhere.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores hold NaN or Inf: {scores.tolist()}")
    shuffled = np.random.default_rng([seed, 7]).permutation(len(scores))
    return shuffled[np.argsort(-np.round(scores[shuffled] / TIE) * TIE, kind="stable")]


def imagined_clips(clips: Sequence[TripletClip]) -> list[TripletClip]:
    """The clips as they are known before anything happened: the untouched scene stands where the outcome would."""
    return [replace(clip, interaction=clip.static) for clip in clips]


def rank_candidates(
    method: VideoMethod, clips: Sequence[TripletClip], goal: ImageGoal | TextGoal, seed: int = 0
) -> Ranking:
    """Simulate N candidates of one scene (clips that share `static` and differ in `hands`) and rank them by the goal.

    The outcomes in the clips are never looked at. All candidates are generated from the same noise, drawn from `seed`:
    what differs between the videos is then due to the hands. Raises ValueError for fewer than two candidates, or for
    candidates of different scenes.
    """
    check_one_scene(clips)
    videos = method.generate(imagined_clips(clips), [seed] * len(clips))
    names = tuple(clip.name for clip in clips)
    if isinstance(goal, TextGoal):
        scores, visible = goal.scorer(videos, goal.text), None
    else:
        view = scene_view(goal.picture, clips, goal.mask_frames)
        last = np.stack([video[-1] for video in videos])
        scores, visible = -view.distances(last, goal.measure(), goal.rule), view.visible_change
    return Ranking(names, scores, rank_order(scores, seed), goal.score_name, tuple(videos), visible)


def scene_view(goal: np.ndarray, clips: Sequence[TripletClip], mask_frames: int = MASK_FRAMES) -> GoalView:
    """A goal picture (H, W, 3) uint8 and what candidates of one scene may be compared with it on."""
    masks = hand_masks([clip.hands for clip in clips], [clip.track for clip in clips], mask_frames)
    return GoalView(goal, clips[0].static[-1], masks)


def check_one_scene(clips: Sequence[TripletClip]) -> None:
    """Refuse with ValueError what can't be compared: fewer than two candidates, or different static videos."""
    if len(clips) < 2:
        raise ValueError(f"there is nothing to select among {len(clips)} candidates; give at least two")
    for clip in clips[1:]:
        if clip.static.shape != clips[0].static.shape or not np.array_equal(clip.static, clips[0].static):
            raise ValueError(
                f"candidate {clip.name} has another static video than {clips[0].name}; candidates share one scene"
            )
