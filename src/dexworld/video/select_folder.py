"""Action selection in a scene of one's own: a folder with a static video, hand videos and a goal, to a ranking.

static.mp4                  the untouched scene along the camera's path
hands/<candidate>.mp4       hands alone on black, one video per candidate, as long and as large as static.mp4
hand_motions/<candidate>.npz   optional: keypoints and camera, for models that want them (`HandTrack`)
goal.png or goal.jpg        the wanted scene from the last camera pose, without hands; or
goal.txt                    a sentence that says what should happen
"""

from pathlib import Path

import av
import numpy as np

from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.video.clip import TripletClip
from dexworld.video.goal_image import Rule
from dexworld.video.lpips import LPIPS
from dexworld.video.perceptual import NO_WEIGHTS
from dexworld.video.references import VideoMethod
from dexworld.video.select import DISTANCE, NEUTRAL_PROMPT, RULE, ImageGoal, Ranking, TextGoal, rank_candidates
from dexworld.video.text_goal import TextScorer
from dexworld.video.triplets import read_prompt, read_track

GOAL_PICTURES = ("goal.png", "goal.jpg")
GOAL_TEXT = "goal.txt"


class SelectionError(ValueError):
    """A folder that candidates can't be selected from; the message names the file and what to do."""


def rank_folder(
    method: VideoMethod,
    folder: Path | str,
    goal: str | None = None,
    distance: str = DISTANCE,
    rule: Rule = RULE,
    lpips: LPIPS | None = None,
    text_weights: str | Path | None = None,
    seed: int = 0,
) -> Ranking:
    """Simulate every candidate of `folder` with `method` and rank them by its goal.

    goal: `image` or `text`; by default the picture if there is one, else the sentence. distance, rule,
    lpips: how distance to the picture is measured, see `ImageGoal`. text_weights: an X-CLIP folder or hub id, without
    which a sentence can't be scored. Raises SelectionError naming the file that is missing or doesn't fit.
    """
    folder = Path(folder)
    clips = folder_candidates(folder)
    pictures = [folder / name for name in GOAL_PICTURES if (folder / name).exists()]
    if goal not in (None, "image", "text"):
        raise SelectionError(f"goal is {goal!r}; choose 'image' or 'text'")
    goal = goal or ("image" if pictures else "text")
    if goal == "image":
        if not pictures:
            raise SelectionError(f"{folder}: holds no goal picture ({' or '.join(GOAL_PICTURES)})")
        picture = read_picture(pictures[0])
        if picture.shape != clips[0].static.shape[1:]:
            raise SelectionError(
                f"{pictures[0]} is {picture.shape[0]} x {picture.shape[1]}, the videos are "
                f"{clips[0].static.shape[1]} x {clips[0].static.shape[2]}; resize it to their size"
            )
        return rank_candidates(method, clips, ImageGoal(picture, distance, rule, lpips=lpips), seed)
    if not (folder / GOAL_TEXT).exists():
        raise SelectionError(f"{folder}: holds neither a goal picture ({', '.join(GOAL_PICTURES)}) nor {GOAL_TEXT}")
    if text_weights is None:
        raise SelectionError(
            f"{folder / GOAL_TEXT}: the score of a text goal is {NO_WEIGHTS}; name a folder with X-CLIP weights, or "
            "give a goal picture"
        )
    text = read_prompt(folder / GOAL_TEXT)
    return rank_candidates(method, clips, TextGoal(text, TextScorer(text_weights)), seed)


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
            raise SelectionError(
                f"{path}: {len(hands)} frames of {hands.size}, static.mp4 has {len(static)} of {static.size}; "
                "candidates are as long and as large as the static video"
            )
        motion = folder / "hand_motions" / f"{path.stem}.npz"
        scene = static.read(list(range(len(static))))
        try:
            clips.append(
                TripletClip(
                    name=path.stem,
                    interaction=scene,
                    static=scene,
                    hands=hands.read(list(range(len(hands)))),
                    prompt=NEUTRAL_PROMPT,
                    fps=static.fps,
                    track=read_track(motion) if motion.exists() else None,
                )
            )
        except ValueError as error:
            raise SelectionError(f"{path}: {error}") from error
    return clips


def read_picture(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 RGB. Raises SelectionError when it can't be read."""
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, StopIteration, IndexError) as error:
        raise SelectionError(f"{path}: can't be read as a picture ({error})") from error


def _video(path: Path) -> VideoFrames:
    if not path.exists():
        raise SelectionError(f"{path}: is missing; see the layout in the documentation of `select`")
    frames = VideoFrames(path)
    try:
        len(frames)
    except VideoError as error:
        raise SelectionError(str(error)) from error
    return frames
