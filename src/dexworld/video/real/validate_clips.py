"""Checks every file of a triplet folder and names what is wrong with it; nothing is passed over.

An `error` is what a model can't or mustn't train on. A `warning` is what the folder's owner should know: a file that no
list names, a small shift of the static video. Frames without a hand are only counted: detectors lose hands.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.parallel import parallel_map
from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.video.clips.clip import ClipShape, is_clip_length
from dexworld.video.clips.hand_video import MIN_HAND_SHARE, hand_share
from dexworld.video.clips.inventory import Findings, Problem, take_inventory
from dexworld.video.clips.triplet_files import (
    PROMPTS,
    RATE_TOLERANCE,
    TripletError,
    TripletFiles,
    files_of,
    read_prompt,
    read_track,
)
from dexworld.video.real.alignment import measure_alignment

SIDE_MULTIPLE = 16  # pixels: the codecs' factor 8 times the transformers' patch of 2
MAX_HAND_SHARE = 0.6  # of the image: a hand video brighter than that, in most frames, isn't hands on black
SAME_DIFFERENCE = 0.25  # of 255, mean of a frame: a static video this near in every frame shows the interaction
WRITE_PROMPT = "write one or two sentences of what happens"


@dataclass(frozen=True)
class ValidationReport:
    """All problems of a triplet folder. counts: totals. clips: figures of each clip by name."""

    root: Path
    problems: tuple[Problem, ...]
    counts: Mapping[str, Any]
    clips: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings may remain."""
        return not self.errors

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that a model can't or mustn't train on."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that the folder's owner should know of."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    def of_kind(self, kind: str) -> tuple[Problem, ...]:
        """The problems of one kind."""
        return tuple(problem for problem in self.problems if problem.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values; file names relative to the root where they lie in it."""
        return {
            "ok": self.ok,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "kinds": dict(Counter(problem.kind for problem in self.problems).most_common()),
            "counts": dict(self.counts),
            "problems": [asdict(problem) | {"file": self._short(problem.file)} for problem in self.problems],
            "clips": dict(self.clips),
        }

    def table(self, limit: int = 50) -> str:
        """Text for a terminal: the counts, then one line a problem, errors first; beyond `limit` only their number."""
        counts = self.counts
        lines = [
            f"{self.root}: {counts['clips']} clips, {counts['clips_with_errors']} with errors; "
            f"{len(self.errors)} errors, {len(self.warnings)} warnings",
            f"{counts['frames']} frames, {counts['frames_without_hands']} without a hand "
            f"(in {counts['clips_with_frames_without_hands']} clips)",
            *(f"shape {shape}: {count} clips" for shape, count in counts["shapes"].items()),
        ]
        ordered = (*self.errors, *self.warnings)
        rows = [(each.severity, each.kind, self._short(each.file), f"{each.message}; {each.fix}") for each in ordered]
        widths = [max((len(row[column]) for row in rows[:limit]), default=0) for column in range(3)]
        for row in rows[:limit]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[3]]))
        if len(rows) > limit:
            lines.append(f"... and {len(rows) - limit} more, all of them in the JSON report")
        return "\n".join(lines)

    def _short(self, file: str) -> str:
        path = Path(file)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else file


@dataclass(frozen=True)
class _Clip:
    """What was found in one triplet; a figure is None where the files didn't allow it."""

    name: str
    problems: tuple[Problem, ...]
    figures: dict[str, Any]  # shape [frames, height, width], fps, frames_without_hands, alignment
    has_motion: bool


def validate_triplets(
    root: Path | str,
    listing: Path | str | None = None,
    expected: ClipShape | None = None,
    prompts: str = PROMPTS,
    workers: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> ValidationReport:
    """Check the triplets that `listing` names (dataset.txt when there is one; else all that any file hints at).

    expected: the shape of every clip; without it clips must be usable (1 + 4n frames, sides multiples of 16). workers:
    processes, 0 for one per core. progress: wraps the clips that are done. Raises TripletError for a missing folder or
    list.
    """
    root = Path(root)
    inventory = take_inventory(root, listing)
    job = partial(_check_by_number, root=root, names=inventory.names, expected=expected, prompts=prompts)
    clips = sorted(
        progress(parallel_map(job, range(len(inventory.names)), workers, ordered=False)), key=lambda clip: clip.name
    )
    problems = [*inventory.problems, *(problem for clip in clips for problem in clip.problems)]
    figures = {clip.name: clip.figures for clip in clips}
    sizes = [(each["shape"], each["fps"]) for each in figures.values() if each["shape"]]
    shapes = Counter(f"{shape[0]} x {shape[1]} x {shape[2]} at {fps:g} fps" for shape, fps in sizes)
    if expected is None and len(shapes) > 1:
        listed = ", ".join(f"{count} of {shape}" for shape, count in shapes.most_common())
        message = f"the clips have {len(shapes)} shapes: {listed}"
        problems.append(Problem(str(root), "mixed-shapes", message, "prepare all clips with one shape", "warning"))
    lost = [each["frames_without_hands"] or 0 for each in figures.values()]
    counts = {
        "clips": len(clips),
        "clips_with_errors": sum(any(each.severity == "error" for each in clip.problems) for clip in clips),
        "frames": sum(shape[0] for shape, _ in sizes),
        "frames_without_hands": sum(lost),
        "clips_with_frames_without_hands": sum(count > 0 for count in lost),
        "clips_with_hand_motion": sum(clip.has_motion for clip in clips),
        "unlisted_files": inventory.unlisted,
        "shapes": dict(shapes),
    }
    return ValidationReport(root, tuple(problems), counts, figures)


def _check_by_number(number: int, root: Path, names: tuple[str, ...], expected: ClipShape | None, prompts: str):
    return _check(names[number], files_of(root, names[number], prompts), expected)


def _check(name: str, files: TripletFiles, expected: ClipShape | None) -> _Clip:
    """Check one triplet: files, sizes, lengths, rates, hand video, alignment of the static video, prompt, motion."""
    found = Findings()
    decoded = [_decoded(path, found) for path in (files.interaction, files.static, files.hands)]
    interaction, static, hands = decoded
    _check_prompt(files.prompt, found)
    shape, fps = None, None
    if interaction is not None:
        frames, fps = interaction
        shape = (len(frames), frames.shape[1], frames.shape[2])
        _check_shape(files.interaction, shape, fps, expected, found)
        for path, other in ((files.static, static), (files.hands, hands)):
            if other is not None:
                _check_equal(path, other[0].shape, other[1], shape, fps, found)
    without_hands = None if hands is None else _check_hands(files.hands, hands[0], found)
    videos = [each[0] for each in decoded if each is not None]
    alignment = None
    if len(videos) == 3 and len({video.shape for video in videos}) == 1:
        alignment = _check_alignment(files.static, videos[0], videos[1], videos[2], found)
    has_motion = files.motion.exists()
    if has_motion:
        _check_motion(files.motion, shape, found)
    figures: dict[str, Any] = {"shape": list(shape) if shape else None, "fps": fps}
    figures |= {"frames_without_hands": without_hands, "alignment": alignment}
    return _Clip(name, tuple(found), figures, has_motion)


def _decoded(path: Path, found: Findings) -> tuple[np.ndarray, float] | None:
    """All frames and the rate of a video, or None with the reason found."""
    if not path.exists():
        found.add(path, "missing", "the file doesn't exist", "write it, or take the clip out of the list")
        return None
    try:
        video = VideoFrames(path)
        return video.read(list(range(len(video)))), video.fps
    except VideoError as error:
        found.add(path, "undecodable", str(error), "copy or encode the file again")
        return None


def _check_prompt(path: Path, found: Findings) -> None:
    if not path.exists():
        found.add(path, "missing", "the prompt doesn't exist", WRITE_PROMPT)
        return
    try:
        if not read_prompt(path):
            found.add(path, "empty-prompt", "the prompt is empty", WRITE_PROMPT)
    except TripletError as error:
        found.add(path, "undecodable", str(error), "save the prompt as UTF-8 text")


def _check_shape(
    path: Path, shape: tuple[int, int, int], fps: float, expected: ClipShape | None, found: Findings
) -> None:
    frames, height, width = shape
    fix = "prepare the clip again with that {}"
    if not is_clip_length(frames) or (expected and frames != expected.frames):
        wanted = f"{expected.frames}" if expected else "1 + 4n (17, 49, ...)"
        found.add(path, "frame-count", f"{frames} frames, expected {wanted}", fix.format("length"))
    if expected and (height, width) != (expected.height, expected.width):
        message = f"{height} x {width} pixels, expected {expected.height} x {expected.width}"
        found.add(path, "size", message, fix.format("size"))
    elif height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        message = f"{height} x {width} pixels; both must be multiples of {SIDE_MULTIPLE}"
        found.add(path, "size", message, "prepare the clip again with such a size")
    if expected and abs(fps - expected.fps) > RATE_TOLERANCE:
        found.add(path, "frame-rate", f"{fps:g} fps, expected {expected.fps:g}", "prepare the clip again at that rate")


def _check_equal(path: Path, shape: tuple, fps: float, wanted: tuple, wanted_fps: float, found: Findings) -> None:
    fix = "render or prepare it again from the same frames as the interaction video"
    if shape[0] != wanted[0]:
        found.add(path, "frame-count", f"{shape[0]} frames, the interaction video has {wanted[0]}", fix)
    if shape[1:3] != wanted[1:]:
        message = f"{shape[1]} x {shape[2]} pixels, the interaction video {wanted[1]} x {wanted[2]}"
        found.add(path, "size", message, fix)
    if abs(fps - wanted_fps) > RATE_TOLERANCE:
        found.add(path, "frame-rate", f"{fps:g} fps, the interaction video {wanted_fps:g}", fix)


def _check_hands(path: Path, hands: np.ndarray, found: Findings) -> int:
    """Frames in which the hand video shows no hand."""
    share = hand_share(hands)
    without = int((share < MIN_HAND_SHARE).sum())
    if without == len(hands):
        found.add(path, "black-hands", "no frame shows a hand", "extract the hands again, or leave the clip out")
    if np.median(share) > MAX_HAND_SHARE:
        message = f"{np.median(share):.0%} of the image is bright in most frames: these are no hands on black"
        found.add(path, "no-hand-video", message, "render the hands alone, on black")
    return without


def _check_alignment(
    path: Path, interaction: np.ndarray, static: np.ndarray, hands: np.ndarray, found: Findings
) -> dict[str, Any]:
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


def _check_motion(path: Path, shape: tuple[int, int, int] | None, found: Findings) -> None:
    try:
        track = read_track(path)
    except TripletError as error:
        found.add(path, "bad-motion", str(error), "write it again, or remove it")
        return
    if shape is not None and len(track) != shape[0]:
        message = f"{len(track)} frames, the interaction video has {shape[0]}"
        found.add(path, "frame-count", message, "write it again from the clip's frames")
