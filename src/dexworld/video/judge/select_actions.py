"""Action selection by imagination: simulate every candidate hand motion as a video, score the videos, take the best.

DWM, section 4.4: an image goal is scored by -LPIPS between the last generated frame and the goal picture, a text goal
by the cosine of video and text embeddings. Departures: what a hand covers counts as unchanged (`goal_image`), and
without weights for LPIPS the cosine of shown and wanted change takes its place, chosen on validation scenes.

A scene of one's own is a folder (`rank_folder`):

    static.mp4                     the untouched scene along the camera's path
    hands/<candidate>.mp4          hands alone on black, one video per candidate, as long and as large as static.mp4
    hand_motions/<candidate>.npz   optional: keypoints and camera, for models that want them (`Track`)
    goal.png or goal.jpg           the wanted scene from the last camera pose, without hands; or
    goal.txt                       a sentence that says what should happen
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.models.perceptual import LPIPS
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.triplet_files import read_prompt, read_track
from dexworld.video.judge.goal_image import GoalView, PairDistance, hand_masks
from dexworld.video.judge.references import VideoMethod
from dexworld.video.judge.video_measures import NO_WEIGHTS, TextScorer

NEUTRAL_PROMPT = "A hand acts on the objects on a table."  # of every candidate: a caption would say what its hand does
TIE = 1e-9  # scores closer than this are equal
GOAL_PICTURES = ("goal.png", "goal.jpg")
GOAL_TEXT = "goal.txt"
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order in which they should be tried.

    names: (N,) of the candidates as given. scores: (N,) float64, higher is better. order: (N,) indices, best first.
    videos: what was generated for each.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    order: np.ndarray
    score_name: str
    videos: tuple[np.ndarray, ...]

    @property
    def best(self) -> int:
        """Index of the winner."""
        return int(self.order[0])


def rank_order(scores: np.ndarray, seed: int) -> np.ndarray:
    """Indices (N,) by falling score; equal scores come in an order drawn from `seed`. Raises ValueError on NaN."""
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores hold NaN or Inf: {scores.tolist()}")
    shuffled = np.random.default_rng([seed, 7]).permutation(len(scores))
    return shuffled[np.argsort(-np.round(scores[shuffled] / TIE) * TIE, kind="stable")]


def imagined_clips(clips: Sequence[TripletClip]) -> list[TripletClip]:
    """The clips as they are known before anything happened: the untouched scene stands where the outcome would."""
    return [replace(clip, interaction=clip.static) for clip in clips]


def image_score_name(lpips: Any | None) -> str:
    """What the score of a goal picture is, for reports."""
    return f"-{'direction' if lpips is None else 'lpips'} (own)"


def rank_candidates(
    method: VideoMethod,
    clips: Sequence[TripletClip],
    goal: np.ndarray | str,
    lpips: PairDistance | None = None,
    scorer: Callable[..., np.ndarray] | None = None,
    seed: int = 0,
) -> Ranking:
    """Simulate N candidates of one scene (clips that share `static` and differ in `hands`) and rank them by the goal.

    goal: a picture (H, W, 3) uint8 without hands, or a sentence for `scorer`, e.g. a `TextScorer`. The outcomes are
    never looked at. All candidates start from the same noise, drawn from `seed`. Raises ValueError for fewer than two
    candidates, for candidates of different scenes, and for a sentence without a scorer.
    """
    if len(clips) < 2:
        raise ValueError(f"there is nothing to select among {len(clips)} candidates; give at least two")
    for clip in clips[1:]:
        if not np.array_equal(clip.static, clips[0].static):
            other = f"another static video than {clips[0].name}"
            raise ValueError(f"candidate {clip.name} has {other}; candidates share one scene")
    if not isinstance(goal, str):
        score, score_name = partial(scene_view(goal, clips).scores, lpips=lpips), image_score_name(lpips)
    elif scorer is not None:
        score, score_name = partial(scorer, text=goal), "x-clip cosine"
    else:
        raise ValueError(f"the score of a text goal is {NO_WEIGHTS}; name X-CLIP weights, or give a goal picture")
    videos = method.generate(imagined_clips(clips), [seed] * len(clips))
    scores, names = score(videos), tuple(clip.name for clip in clips)
    return Ranking(names, scores, rank_order(scores, seed), score_name, tuple(videos))


def scene_view(goal: np.ndarray, clips: Sequence[TripletClip]) -> GoalView:
    """A goal picture (H, W, 3) uint8 and what candidates of one scene may be compared with it on."""
    masks = hand_masks([clip.hands for clip in clips], [clip.track for clip in clips])
    return GoalView(goal, clips[0].static[-1], masks)


class SelectionError(ValueError):
    """A folder that candidates can't be selected from; the message names the file and what to do."""


def rank_folder(
    method: VideoMethod,
    folder: Path,
    lpips: LPIPS | None = None,
    text_weights: str | Path | None = None,
    seed: int = 0,
) -> Ranking:
    """Simulate every candidate of `folder` with `method` and rank them by its goal.

    text_weights: an X-CLIP folder or hub id, for a sentence. Raises SelectionError naming what is missing or doesn't
    fit.
    """
    clips, goal = folder_candidates(folder), folder_goal(folder)
    scorer = TextScorer(text_weights) if isinstance(goal, str) and text_weights is not None else None
    try:
        return rank_candidates(method, clips, goal, lpips, scorer, seed)
    except ValueError as error:
        raise SelectionError(f"{folder}: {error}") from error


def folder_goal(folder: Path) -> np.ndarray | str:
    """The goal of a folder: picture (H, W, 3) uint8 RGB, or else sentence. Raises SelectionError for neither."""
    pictures = [folder / name for name in GOAL_PICTURES if (folder / name).exists()]
    if pictures:
        return read_picture(pictures[0])
    if not (folder / GOAL_TEXT).exists():
        raise SelectionError(f"{folder}: holds neither a goal picture ({', '.join(GOAL_PICTURES)}) nor {GOAL_TEXT}")
    return read_prompt(folder / GOAL_TEXT)


def read_picture(path: Path) -> np.ndarray:
    """A PNG or JPEG (H, W, 3) uint8 RGB, upright. Raises SelectionError for one that is no picture or ends early."""
    try:
        content = path.read_bytes()
        if content.startswith(JPEG_START) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
            raise ValueError("it ends early")
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.options = {"err_detect": "explode"}
            frame = next(container.decode(video=0))
    except (av.FFmpegError, OSError, ValueError, StopIteration, IndexError) as error:
        raise SelectionError(f"{path}: can't be read as a picture ({error})") from error
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))


def folder_candidates(folder: Path) -> list[TripletClip]:
    """The candidates of a folder, sorted by name. Raises SelectionError naming the file that is missing or odd."""
    static = _video(folder / "static.mp4")
    files = sorted((folder / "hands").glob("*.mp4"))
    if len(files) < 2:
        raise SelectionError(f"{folder / 'hands'}: holds {len(files)} hand videos; selection needs at least two")
    clips = []
    for path in files:
        hands = _video(path)
        if len(hands) != len(static) or hands.size != static.size:
            other = f"static.mp4 has {len(static)} of {static.size}; bring them to one length and size"
            raise SelectionError(f"{path}: {len(hands)} frames of {hands.size}, {other}")
        motion = folder / "hand_motions" / f"{path.stem}.npz"
        scene, shown = (video.read(list(range(len(video)))) for video in (static, hands))
        try:
            track = read_track(motion, static.size) if motion.exists() else None
            clips.append(TripletClip(path.stem, scene, scene, shown, NEUTRAL_PROMPT, static.fps, track))
        except ValueError as error:
            raise SelectionError(f"{path}: {error}") from error
    return clips


def _video(path: Path) -> VideoFrames:
    if not path.exists():
        raise SelectionError(f"{path}: is missing; see the layout in the documentation of `select`")
    frames = VideoFrames(path)
    try:
        len(frames)
    except VideoError as error:
        raise SelectionError(str(error)) from error
    return frames
