"""Checks every file of a triplet folder and names what is wrong with it; nothing is passed over.

An `error` is what a model can't or mustn't train on. A `warning` is what the folder's owner should know: a file that no
list names, a small shift of the static video. Frames without a hand are only counted: detectors lose hands.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.video.clips.clip import ClipShape, is_clip_length
from dexworld.video.clips.hand_video import MIN_HAND_SHARE, hand_share
from dexworld.video.clips.inventory import Findings, Problem, take_inventory
from dexworld.video.clips.triplet_files import (
    RATE_TOLERANCE,
    TripletError,
    TripletFiles,
    files_of,
    read_prompt,
    read_track,
)
from dexworld.video.real.alignment import measure_alignment

Video = tuple[np.ndarray, float]  # all frames (F, H, W, 3) uint8, frames per second
Content = TypeVar("Content")
SIDE_MULTIPLE = 16  # pixels: the codecs' factor 8 times the transformers' patch of 2
MAX_HAND_SHARE = 0.6  # of the image: a hand video brighter than that, in most frames, isn't hands on black
SAME_DIFFERENCE = 0.25  # of 255, mean of a frame: a static video this near in every frame shows the interaction


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

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values; file names relative to the root where they lie in it."""
        return {
            "ok": self.ok,
            "errors": len(self.errors),
            "warnings": len(self.problems) - len(self.errors),
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
            f"{len(self.errors)} errors, {len(self.problems) - len(self.errors)} warnings",
            f"{counts['frames']} frames, {counts['frames_without_hands']} without a hand "
            f"(in {counts['clips_with_frames_without_hands']} clips)",
            *(f"shape {shape}: {count} clips" for shape, count in counts["shapes"].items()),
        ]
        shown = sorted(self.problems, key=lambda problem: problem.severity)[:limit]
        rows = [(each.severity, each.kind, self._short(each.file), f"{each.message}; {each.fix}") for each in shown]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines += ["  ".join(map(str.ljust, row, [*widths, 0])) for row in rows]
        if len(self.problems) > limit:
            lines.append(f"... and {len(self.problems) - limit} more, all of them in the JSON report")
        return "\n".join(lines)

    def _short(self, file: str) -> str:
        path = Path(file)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else file


def validate_triplets(
    root: Path | str, listing: Path | str | None = None, expected: ClipShape | None = None
) -> ValidationReport:
    """Check the triplets that `listing` names (dataset.txt when there is one; else all that any file hints at).

    expected: the shape of every clip; without it clips must be usable (1 + 4n frames, sides multiples of 16). Raises
    TripletError for a missing folder or list.
    """
    root, found = Path(root), Findings()
    names, unlisted = take_inventory(root, listing, found)
    figures, broken, motions = {}, 0, 0
    for name in sorted(names):
        clip, files = Findings(), files_of(root, name)
        figures[name] = _check(files, expected, clip)
        broken += any(problem.severity == "error" for problem in clip)
        motions += files.motion.exists()
        found.extend(clip)
    sizes = [(each["shape"], each["fps"]) for each in figures.values() if each["shape"]]
    shapes = Counter(f"{shape[0]} x {shape[1]} x {shape[2]} at {fps:g} fps" for shape, fps in sizes)
    if expected is None and len(shapes) > 1:
        listed = ", ".join(f"{count} of {shape}" for shape, count in shapes.most_common())
        found.add(root, "mixed-shapes", f"the clips have {len(shapes)} shapes: {listed}", "warning")
    lost = [each["frames_without_hands"] or 0 for each in figures.values()]
    counts = {
        "clips": len(figures),
        "clips_with_errors": broken,
        "frames": sum(shape[0] for shape, _ in sizes),
        "frames_without_hands": sum(lost),
        "clips_with_frames_without_hands": sum(count > 0 for count in lost),
        "clips_with_hand_motion": motions,
        "unlisted_files": unlisted,
        "shapes": dict(shapes),
    }
    return ValidationReport(root, tuple(found), counts, figures)


def _check(files: TripletFiles, expected: ClipShape | None, found: Findings) -> dict[str, Any]:
    """Figures of one triplet: shape [frames, height, width], fps and what follows; None where its files don't allow."""
    videos = (files.interaction, files.static, files.hands)
    interaction, static, hands = (_read(path, _decoded, found) for path in videos)
    if _read(files.prompt, read_prompt, found) == "":
        found.add(files.prompt, "empty-prompt", "the prompt is empty")
    shape, fps = None, None
    if interaction is not None:
        shape, fps = list(interaction[0].shape[:3]), interaction[1]
        if expected is not None:
            wanted = [expected.frames, expected.height, expected.width]
            _compare(files.interaction, interaction, wanted, expected.fps, "expected", found)
        else:
            _check_usable(files.interaction, shape, found)
        for path, other in ((files.static, static), (files.hands, hands)):
            if other is not None:
                _compare(path, other, shape, fps, "the interaction video has", found)
    without_hands = None if hands is None else _check_hands(files.hands, hands[0], found)
    alignment = None
    if interaction and static and hands and interaction[0].shape == static[0].shape == hands[0].shape:
        alignment = _check_alignment(files.static, interaction[0], static[0], hands[0], found)
    track = _read(files.motion, read_track, found, "bad-motion") if files.motion.exists() else None
    if track is not None and shape is not None and len(track) != shape[0]:
        found.add(files.motion, "frame-count", f"{len(track)} frames, the interaction video has {shape[0]}")
    return {"shape": shape, "fps": fps, "frames_without_hands": without_hands, "alignment": alignment}


def _read(path: Path, read: Callable[[Path], Content], found: Findings, kind: str = "undecodable") -> Content | None:
    """What `read` makes of a file, or None with the reason found."""
    if not path.exists():
        found.add(path, "missing", "the file doesn't exist")
        return None
    try:
        return read(path)
    except (VideoError, TripletError) as error:
        found.add(path, kind, str(error))
        return None


def _decoded(path: Path) -> Video:
    video = VideoFrames(path)
    return video.read(list(range(len(video)))), video.fps


def _check_usable(path: Path, shape: list[int], found: Findings) -> None:
    frames, height, width = shape
    if not is_clip_length(frames):
        found.add(path, "frame-count", f"{frames} frames, expected 1 + 4n (17, 49, ...)")
    if height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        found.add(path, "size", f"{height} x {width} pixels; both must be multiples of {SIDE_MULTIPLE}")


def _compare(path: Path, video: Video, wanted: list[int], wanted_fps: float, whose: str, found: Findings) -> None:
    (frames, height, width, _), fps = video[0].shape, video[1]
    if frames != wanted[0]:
        found.add(path, "frame-count", f"{frames} frames, {whose} {wanted[0]}")
    if [height, width] != wanted[1:]:
        found.add(path, "size", f"{height} x {width} pixels, {whose} {wanted[1]} x {wanted[2]}")
    if abs(fps - wanted_fps) > RATE_TOLERANCE:
        found.add(path, "frame-rate", f"{fps:g} fps, {whose} {wanted_fps:g}")


def _check_hands(path: Path, hands: np.ndarray, found: Findings) -> int:
    """Frames in which the hand video shows no hand."""
    share = hand_share(hands)
    without = int((share < MIN_HAND_SHARE).sum())
    if without == len(hands):
        found.add(path, "black-hands", "no frame shows a hand")
    if np.median(share) > MAX_HAND_SHARE:
        bright = f"{np.median(share):.0%} of the image is bright in most frames"
        found.add(path, "no-hand-video", f"{bright}: these are no hands on black")
    return without


def _check_alignment(
    path: Path, interaction: np.ndarray, static: np.ndarray, hands: np.ndarray, found: Findings
) -> dict[str, Any]:
    pairs = zip(interaction, static, strict=True)
    if all(np.abs(moving.astype(np.int16) - still).mean() < SAME_DIFFERENCE for moving, still in pairs):
        message = "it is the interaction video itself: nothing happens between the two"
        found.add(path, "static-is-interaction", message)
    alignment = measure_alignment(interaction, static, hands)
    if alignment.problem:
        found.add(path, "misaligned", alignment.problem)
    if alignment.remark:
        found.add(path, "shifted", alignment.remark, "warning")
    return alignment.to_json()
