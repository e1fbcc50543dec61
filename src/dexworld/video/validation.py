"""Checks every file of a triplet folder and names what is wrong with it; nothing is passed over.

An `error` is what a model can't or mustn't train on. A `warning` is what its owner should know: a file that no list
names, a small shift of the static video. Frames without a hand are counted, not complained about: detectors lose hands.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dexworld.data.video import VideoError, VideoFrames
from dexworld.sim.recording import in_processes
from dexworld.video.alignment import measure_alignment
from dexworld.video.clip import is_clip_length
from dexworld.video.config import ClipShape
from dexworld.video.hand_video import MIN_HAND_SHARE, hand_share
from dexworld.video.inventory import take_inventory
from dexworld.video.problems import Problem, ValidationReport
from dexworld.video.triplets import PROMPTS, TripletError, TripletFiles, files_of, read_prompt, read_track

SIDE_MULTIPLE = 16  # pixels: the codecs' factor 8 times the transformers' patch of 2
MAX_HAND_SHARE = 0.6  # of the image: a hand video brighter than that, in most frames, isn't hands on black
SAME_DIFFERENCE = 0.25  # of 255, mean of a frame: a static video this near in every frame shows the interaction


@dataclass(frozen=True)
class ClipCheck:
    """What was found in one triplet; figures are None where the files didn't allow them."""

    name: str
    problems: tuple[Problem, ...]
    shape: tuple[int, int, int] | None = None  # frames, height, width
    fps: float | None = None
    frames_without_hands: int | None = None
    alignment: dict[str, Any] | None = None
    has_motion: bool = False


def validate_triplets(
    root: Path | str,
    listing: Path | str | None = None,
    expected: ClipShape | None = None,
    prompts: str = PROMPTS,
    workers: int = 1,
    progress: Callable[[Iterable[ClipCheck]], Iterable[ClipCheck]] = iter,
) -> ValidationReport:
    """Check the triplets that `listing` names (dataset.txt when there is one; else all that any file hints at).

    expected: the shape that every clip must have; without it clips must only be usable (1 + 4n frames, sides multiples
    of 16). Every frame of every video is decoded. workers: processes, 0 for one per core. progress: wraps the finished
    checks. Raises TripletError when the root is no folder or the list file doesn't exist.
    """
    root = Path(root)
    inventory = take_inventory(root, listing, prompts)
    job = partial(_check_by_number, root=root, names=inventory.names, expected=expected, prompts=prompts)
    checks = sorted(progress(in_processes(job, range(len(inventory.names)), workers)), key=lambda check: check.name)
    problems = [*inventory.problems, *(problem for check in checks for problem in check.problems)]
    shapes = Counter(
        f"{check.shape[0]} x {check.shape[1]} x {check.shape[2]} at {check.fps:g} fps"
        for check in checks
        if check.shape and check.fps
    )
    if expected is None and len(shapes) > 1:
        listed = ", ".join(f"{count} of {shape}" for shape, count in shapes.most_common())
        message = f"the clips have {len(shapes)} shapes: {listed}"
        problems.append(Problem(str(root), "mixed-shapes", message, "prepare all clips with one shape", "warning"))
    lost = [check.frames_without_hands for check in checks if check.frames_without_hands is not None]
    counts = {
        "clips": len(checks),
        "clips_with_errors": sum(any(p.severity == "error" for p in check.problems) for check in checks),
        "frames": sum(check.shape[0] for check in checks if check.shape),
        "frames_without_hands": sum(lost),
        "clips_with_frames_without_hands": sum(count > 0 for count in lost),
        "clips_with_hand_motion": sum(check.has_motion for check in checks),
        "unlisted_files": inventory.unlisted,
        "shapes": dict(shapes),
    }
    clips = {
        check.name: {
            "shape": list(check.shape) if check.shape else None,
            "fps": check.fps,
            "frames_without_hands": check.frames_without_hands,
            "alignment": check.alignment,
        }
        for check in checks
    }
    return ValidationReport(root, tuple(problems), counts, clips)


def _check_by_number(number: int, root: Path, names: tuple[str, ...], expected, prompts: str) -> ClipCheck:
    return check_triplet(names[number], files_of(root, names[number], prompts), expected)


def check_triplet(name: str, files: TripletFiles, expected: ClipShape | None = None) -> ClipCheck:
    """Check one triplet: files, sizes, lengths, rates, hand video, alignment of the static video, prompt, motion."""
    found = _Findings()
    videos = {role: _decoded(getattr(files, role), found) for role in ("interaction", "static", "hands")}
    _check_prompt(files.prompt, found)
    lead = videos["interaction"]
    shape = None
    if lead is not None:
        frames, fps = lead
        shape = (len(frames), frames.shape[1], frames.shape[2])
        _check_shape(files.interaction, shape, fps, expected, found)
        for role in ("static", "hands"):
            if (other := videos[role]) is not None:
                _check_equal(getattr(files, role), other[0], other[1], frames, fps, found)
    without_hands = None
    if videos["hands"] is not None:
        without_hands = _check_hands(files.hands, videos["hands"][0], found)
    decoded = [video[0] for video in videos.values() if video is not None]
    alignment = None
    if len(decoded) == 3 and decoded[0].shape == decoded[1].shape == decoded[2].shape:
        alignment = _check_alignment(files.static, decoded[0], decoded[1], decoded[2], found)
    if files.motion.exists():
        _check_motion(files.motion, shape, found)
    return ClipCheck(
        name=name,
        problems=tuple(found.problems),
        shape=shape,
        fps=lead[1] if lead else None,
        frames_without_hands=without_hands,
        alignment=alignment,
        has_motion=files.motion.exists(),
    )


@dataclass
class _Findings:
    problems: list[Problem] = field(default_factory=list)

    def add(
        self, file: Path, kind: str, message: str, fix: str, severity: Literal["error", "warning"] = "error"
    ) -> None:
        self.problems.append(Problem(str(file), kind, message, fix, severity))


def _decoded(path: Path, found: _Findings) -> tuple[np.ndarray, float] | None:
    """All frames and the rate of a video, or None with the reason found."""
    if not path.exists():
        found.add(path, "missing", "the file doesn't exist", "write it, or take the clip out of the list")
        return None
    try:
        video = VideoFrames(path)
        return video.read(list(range(len(video)))), video.fps
    except VideoError as error:
        reason = str(error).removeprefix(f"{path}: ")
        found.add(path, "undecodable", reason, "copy or encode the file again")
        return None


def _check_prompt(path: Path, found: _Findings) -> None:
    if not path.exists():
        found.add(path, "missing", "the prompt doesn't exist", "write one or two sentences of what happens")
        return
    try:
        if not read_prompt(path):
            found.add(path, "empty-prompt", "the prompt is empty", "write one or two sentences of what happens")
    except TripletError as error:
        found.add(path, "undecodable", str(error).removeprefix(f"{path}: "), "save the prompt as UTF-8 text")


def _check_shape(
    path: Path, shape: tuple[int, int, int], fps: float, expected: ClipShape | None, found: _Findings
) -> None:
    frames, height, width = shape
    if not is_clip_length(frames) or (expected and frames != expected.frames):
        wanted = f"{expected.frames}" if expected else "1 + 4n (17, 49, ...)"
        found.add(path, "frame-count", f"{frames} frames, expected {wanted}", "prepare the clip again with that length")
    if expected and (height, width) != (expected.height, expected.width):
        message = f"{height} x {width} pixels, expected {expected.height} x {expected.width}"
        found.add(path, "size", message, "prepare the clip again with that size")
    elif height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        message = f"{height} x {width} pixels; both must be multiples of {SIDE_MULTIPLE}"
        found.add(path, "size", message, "prepare the clip again with such a size")
    if expected and abs(fps - expected.fps) > 0.01:
        found.add(path, "frame-rate", f"{fps:g} fps, expected {expected.fps:g}", "prepare the clip again at that rate")


def _check_equal(path: Path, own: np.ndarray, own_fps: float, frames: np.ndarray, fps: float, found: _Findings) -> None:
    fix = "render or prepare it again from the same frames as the interaction video"
    if len(own) != len(frames):
        found.add(path, "frame-count", f"{len(own)} frames, the interaction video has {len(frames)}", fix)
    if own.shape[1:3] != frames.shape[1:3]:
        message = f"{own.shape[1]} x {own.shape[2]} pixels, the interaction video {frames.shape[1]} x {frames.shape[2]}"
        found.add(path, "size", message, fix)
    if abs(own_fps - fps) > 0.01:
        found.add(path, "frame-rate", f"{own_fps:g} fps, the interaction video {fps:g}", fix)


def _check_hands(path: Path, hands: np.ndarray, found: _Findings) -> int:
    """Frames in which the hand video shows no hand."""
    share = hand_share(hands)
    without = int((share < MIN_HAND_SHARE).sum())
    if without == len(hands):
        found.add(path, "black-hands", "no frame shows a hand", "extract the hands again, or leave the clip out")
    if np.median(share) > MAX_HAND_SHARE:
        message = f"{np.median(share):.0%} of the image is bright in most frames: these are no hands on black"
        found.add(path, "no-hand-video", message, "render the hands alone, on black")
    return without


def _check_alignment(path: Path, interaction: np.ndarray, static: np.ndarray, hands: np.ndarray, found: _Findings):
    pairs = zip(interaction, static, strict=True)
    if all(np.abs(moving.astype(np.int16) - still).mean() < SAME_DIFFERENCE for moving, still in pairs):
        message = "it is the interaction video itself: nothing happens between the two"
        found.add(path, "static-is-interaction", message, "render the scene at the clip's start, without hands")
    alignment = measure_alignment(interaction, static, hands)
    if alignment.problem:
        fix = "render the static video along the camera path of this clip, frame by frame"
        found.add(path, "misaligned", alignment.problem, fix)
    if alignment.remark:
        fix = "check intrinsics and distortion of the static rendering; scores outside the hands suffer from it"
        found.add(path, "shifted", alignment.remark, fix, "warning")
    return alignment.to_json()


def _check_motion(path: Path, shape: tuple[int, int, int] | None, found: _Findings) -> None:
    try:
        track = read_track(path)
    except TripletError as error:
        found.add(path, "bad-motion", str(error).removeprefix(f"{path}: "), "write it again, or remove it")
        return
    if shape is not None and len(track) != shape[0]:
        message = f"{len(track)} frames, the interaction video has {shape[0]}"
        found.add(path, "frame-count", message, "write it again from the clip's frames")


__all__ = ["ClipCheck", "Problem", "ValidationReport", "check_triplet", "validate_triplets"]
