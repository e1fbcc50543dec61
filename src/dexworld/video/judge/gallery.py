"""Which clips of an evaluation a page shows, and their videos: best, middle and worst, never the best only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.evaluate_videos import EvaluateConfig, Evaluation, Truth, generated
from dexworld.video.judge.references import VideoMethod, reference_methods
from dexworld.video.judge.video_measures import Measures, Perceptual

RANKED_BY = "psnr_inside"


@dataclass(frozen=True)
class ShownClip:
    """A clip with what methods made of it.

    region: (F, H, W) bool, where the hands act. videos: (F, H, W, 3) uint8 by method. figures: the measures of these
    videos, by method. place: "best", "median", "worst", or "" where clips aren't ranked.
    """

    clip: TripletClip
    region: np.ndarray
    videos: dict[str, np.ndarray]
    figures: dict[str, Measures]
    place: str = ""


def picked(evaluation: Evaluation, method: str, each: int = 2) -> list[tuple[int, str]]:
    """Indices of clips with their place: the `each` best, middle and worst by PSNR inside; none stands twice."""
    values = evaluation.of(method, RANKED_BY)
    known = [index for index, value in enumerate(values) if isinstance(value, int | float)]
    order = sorted(known, key=lambda index: -values[index])  # type: ignore[operator]
    count = len(order)
    if count <= 3 * each:
        best = (count + 2) // 3
        worst = (count - best) // 2 if count > 2 else count - best
        places = ["best"] * best + ["median"] * (count - best - worst) + ["worst"] * worst
        return list(zip(order, places, strict=True))
    middle = (count - each) // 2
    groups = (("best", order[:each]), ("median", order[middle : middle + each]), ("worst", order[-each:]))
    return [(index, place) for place, indices in groups for index in indices]


def shown_clips(
    evaluation: Evaluation,
    clips: Sequence[TripletClip],
    methods: Sequence[VideoMethod],
    method: str,
    codec: Any | None = None,
    perceptual: Perceptual | None = None,
    each: int = 2,
) -> list[ShownClip]:
    """The picked clips with videos of `methods` and references, made again from the first sample's seed."""
    everything, config = [*reference_methods(codec), *methods], evaluation.config
    places = picked(evaluation, method, each)
    return [shown_clip(clips[index], everything, config, perceptual, place) for index, place in places]


def shown_clip(
    clip: TripletClip,
    methods: Sequence[VideoMethod],
    config: EvaluateConfig = EvaluateConfig(),
    perceptual: Perceptual | None = None,
    place: str = "",
) -> ShownClip:
    """One clip with one video of each method, and their measures."""
    truth, perceptual = Truth(clip, config.after_first), perceptual or Perceptual()
    videos = {method.name: generated(method, [clip], replace(config, samples=1))[0][0] for method in methods}
    figures = {name: truth.measure(video, perceptual) for name, video in videos.items()}
    return ShownClip(clip, truth.region, videos, figures, place)
