"""Checks every file of a triplet folder and names what is wrong with it; nothing is passed over.

An error is what a model can't or mustn't train on. A warning is what the folder's owner should know: a file that no
list names, a small shift of the static video. Frames without a hand are only counted: detectors lose hands.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.frame_table import frame_table
from dexworld.data.video_frames import VideoFrames
from dexworld.video.clips.clip import ClipShape, check_name, is_clip_length
from dexworld.video.clips.hand_video import MIN_HAND_SHARE, hand_share
from dexworld.video.clips.triplet_files import (
    RATE_TOLERANCE,
    SUFFIXES,
    TripletFiles,
    files_of,
    name_of,
    read_list,
    read_prompt,
    read_track,
)
from dexworld.video.clips.triplets import RECORD, read_record
from dexworld.video.real.alignment import measure_alignment

SIDE_MULTIPLE = 16  # pixels: the codecs' factor 8 times the transformers' patch of 2
MAX_HAND_SHARE = 0.6  # of the image: a hand video brighter than that, in most frames, isn't hands on black
SAME_DIFFERENCE = 0.25  # of 255, mean of a frame: a static video this near in every frame shows the interaction
WARNINGS = {  # kind of problem: what to do about it
    "unlisted": "list the clip, or move the file out of the folder",
    "uneven-times": "transcode it at a fixed rate: models take frames at equal steps",
    "shifted": "check intrinsics and distortion of the static rendering; scores outside the hands suffer from it",
}
FIXES = WARNINGS | {
    "missing": "write it, or take the clip out of the list",
    "undecodable": "write or copy the file again",
    "empty-prompt": "write one or two sentences of what happens",
    "frame-count": "prepare the clip again with that length, all its files from the same frames",
    "size": "prepare the clip again with such a size",
    "frame-rate": "prepare the clip again at that rate",
    "black-hands": "extract the hands again, or leave the clip out",
    "no-hand-video": "render the hands alone, on black",
    "static-is-interaction": "render the scene at the clip's start, without hands",
    "misaligned": "render the static video along the camera path of this clip, frame by frame",
    "bad-motion": "write it again, or remove it",
    "bad-name": "rename the clip's files",
    "bad-line": "correct or remove the line",
    "points-nowhere": "write the clip, or remove its entry",
    "empty": "expected <group>/videos/<stem>.mp4",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file below the root, of which kind (`FIXES`), in words."""

    file: str
    kind: str
    message: str
    fix: str
    severity: str


@dataclass
class ValidationReport:
    """All problems of a triplet folder, in the order in which they were found.

    counts: totals. clips: figures of each clip by name.
    """

    root: Path
    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    clips: dict[str, Any] = field(default_factory=dict)

    def add(self, file: Path, kind: str, message: str) -> None:
        """Note a problem; the file's name in front of the message is dropped."""
        text = message.removeprefix(str(file)).lstrip(":, ")
        name = file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file)
        self.problems.append(Problem(name, kind, text, FIXES[kind], "warning" if kind in WARNINGS else "error"))

    @property
    def errors(self) -> int:
        """Number of problems that aren't warnings."""
        return sum(problem.severity == "error" for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "ok": not self.errors,
            "errors": self.errors,
            "warnings": len(self.problems) - self.errors,
            "kinds": dict(Counter(problem.kind for problem in self.problems).most_common()),
            "counts": self.counts,
            "problems": [asdict(problem) for problem in self.problems],
            "clips": self.clips,
        }

    def table(self, limit: int = 50) -> str:
        """Text for a terminal: the counts, then one line a problem, errors first; beyond `limit` only their number."""
        counts = self.counts
        lines = [
            f"{self.root}: {counts['clips']} clips, {counts['clips_with_errors']} with errors; "
            f"{self.errors} errors, {len(self.problems) - self.errors} warnings",
            f"{counts['frames']} frames, {counts['frames_without_hands']} without a hand "
            f"(in {counts['clips_with_frames_without_hands']} clips)",
            *(f"shape {shape}: {count} clips" for shape, count in counts["shapes"].items()),
        ]
        for each in sorted(self.problems, key=lambda problem: problem.severity)[:limit]:
            lines.append(f"{each.severity:<9}{each.kind:<23}{each.file}  {each.message}; {each.fix}")
        if len(self.problems) > limit:
            lines.append(f"... and {len(self.problems) - limit} more, all of them in the JSON report")
        return "\n".join(lines)


def validate_triplets(
    root: Path | str, listing: Path | str | None = None, expected: ClipShape | None = None
) -> ValidationReport:
    """Check the triplets that `listing` names (dataset.txt when there is one; else all that any file hints at).

    expected: the shape of every clip; without it clips must be usable (1 + 4n frames, sides multiples of 16). Raises
    ValueError for a missing folder or list.
    """
    found = ValidationReport(Path(root))
    names = _names(listing, found)
    broken, motions = 0, 0
    for name in names:
        before, files = found.errors, files_of(found.root, name)
        found.clips[name] = _check(files, expected, found)
        broken += found.errors > before
        motions += files.motion.exists()
    sizes = [(each["shape"], each["fps"]) for each in found.clips.values() if each["shape"]]
    lost = [each["frames_without_hands"] or 0 for each in found.clips.values()]
    found.counts |= {
        "clips": len(names),
        "clips_with_errors": broken,
        "frames": sum(shape[0] for shape, _ in sizes),
        "frames_without_hands": sum(lost),
        "clips_with_frames_without_hands": sum(count > 0 for count in lost),
        "clips_with_hand_motion": motions,
        "shapes": dict(Counter(f"{shape[0]} x {shape[1]} x {shape[2]} at {fps:g} fps" for shape, fps in sizes)),
    }
    return found


def _names(listing: Path | str | None, found: ValidationReport) -> list[str]:
    """Names of the triplets to check, from the list (dataset.txt when none is given and it exists), else every file."""
    root = found.root
    if not root.is_dir():
        raise ValueError(f"{root}: is no folder")
    if listing is None and (root / "dataset.txt").is_file():
        listing = root / "dataset.txt"
    source = root if listing is None else Path(listing)
    files = {path: _clip_of(path.relative_to(root)) for path in sorted(root.rglob("*/*")) if path.is_file()}
    names = {name for name in files.values() if name}
    if listing is not None:
        lines, problems = read_list(root, listing)
        for problem in problems:
            found.add(source, "bad-line", problem)
        for name in sorted(lines.keys() - names):
            found.add(source, "points-nowhere", f"line {lines[name]} names clip {name!r}, of which no file exists")
        names &= lines.keys()
    for path, clip in files.items():
        if path.parent.name in SUFFIXES and clip not in names:
            refused = _refusal(path.relative_to(root)) if path.suffix == SUFFIXES[path.parent.name] else ""
            found.add(path, "bad-name" if refused else "unlisted", refused or "belongs to no clip that is checked")
    if not names:
        found.add(source, "empty", "holds no triplets")
    try:
        read_record(root)
    except ValueError as error:
        found.add(root / RECORD, "undecodable", str(error))
    return sorted(names)


def _clip_of(path: Path) -> str | None:
    """Name of the clip to which a file in a triplet folder belongs, None for other files."""
    its_own = path.suffix == SUFFIXES.get(path.parent.name) and not path.name.startswith(".")
    return name_of(path) if its_own and not _refusal(path) else None


def _refusal(path: Path) -> str:
    """Why the name of a clip's file is refused; empty for a good name, and for hidden files, which are no clip's."""
    try:
        check_name(name_of(path))
    except ValueError as error:
        return "" if path.name.startswith(".") else str(error)
    return ""


def _check(files: TripletFiles, expected: ClipShape | None, found: ValidationReport) -> dict[str, Any]:
    """Figures of one triplet: shape [frames, height, width], fps and what follows; None where its files don't allow."""
    videos = files.interaction, files.static, files.hands
    interaction, static, hands = frames = [_read(path, _decoded, found) for path in videos]
    for path, video in zip(videos, frames, strict=True):
        if video is not None and video[2]:
            found.add(path, "uneven-times", video[2])
    if _read(files.prompt, read_prompt, found) == "":
        found.add(files.prompt, "empty-prompt", "the prompt is empty")
    shape, fps, alignment = None, None, None
    if interaction is not None:
        shape, fps = list(interaction[0].shape[:3]), interaction[1]
        if expected is not None:
            wanted = [expected.frames, expected.height, expected.width]
            _compare(files.interaction, interaction, wanted, expected.fps, "expected", found)
        elif not is_clip_length(shape[0]):
            found.add(files.interaction, "frame-count", f"{shape[0]} frames, expected 1 + 4n (17, 49, ...)")
        if expected is None and (shape[1] % SIDE_MULTIPLE or shape[2] % SIDE_MULTIPLE):
            wrong = f"{shape[1]} x {shape[2]} pixels; both must be multiples of {SIDE_MULTIPLE}"
            found.add(files.interaction, "size", wrong)
        for path, other in zip(videos[1:], frames[1:], strict=True):
            if other is not None:
                _compare(path, other, shape, fps, "the interaction video has", found)
    without_hands = None if hands is None else _check_hands(files.hands, hands[0], found)
    if interaction and static and hands and interaction[0].shape == static[0].shape == hands[0].shape:
        alignment = _check_alignment(files.static, interaction[0], static[0], hands[0], found)
    if shape is not None and files.motion.exists():
        track = _read(files.motion, partial(read_track, size=(shape[1], shape[2])), found, "bad-motion")
        if track is not None and len(track) != shape[0]:
            found.add(files.motion, "frame-count", f"{len(track)} frames, the interaction video has {shape[0]}")
    return {"shape": shape, "fps": fps, "frames_without_hands": without_hands, "alignment": alignment}


def _read(path: Path, read: Callable[[Path], Any], found: ValidationReport, kind: str = "undecodable") -> Any:
    """What `read` makes of a file, or None with the reason found."""
    if not path.exists():
        found.add(path, "missing", "the file doesn't exist")
        return None
    try:
        return read(path)
    except ValueError as error:
        found.add(path, kind, str(error))
        return None


def _decoded(path: Path) -> tuple[np.ndarray, float, str]:
    """All frames (F, H, W, 3) uint8, frames per second, and how uneven their times are."""
    video = VideoFrames(path)
    return video.read(list(range(len(video)))), video.fps, frame_table(path).unevenness


def _compare(
    path: Path, video: tuple, wanted: list[int], wanted_fps: float, whose: str, found: ValidationReport
) -> None:
    (frames, height, width, _), fps = video[0].shape, video[1]
    if frames != wanted[0]:
        found.add(path, "frame-count", f"{frames} frames, {whose} {wanted[0]}")
    if [height, width] != wanted[1:]:
        found.add(path, "size", f"{height} x {width} pixels, {whose} {wanted[1]} x {wanted[2]}")
    if abs(fps - wanted_fps) > RATE_TOLERANCE:
        found.add(path, "frame-rate", f"{fps:g} fps, {whose} {wanted_fps:g}")


def _check_hands(path: Path, hands: np.ndarray, found: ValidationReport) -> int:
    """Frames in which the hand video shows no hand."""
    share = hand_share(hands)
    without = int((share < MIN_HAND_SHARE).sum())
    if without == len(hands):
        found.add(path, "black-hands", "no frame shows a hand")
    if np.median(share) > MAX_HAND_SHARE:
        bright = f"{np.median(share):.0%} of the image is bright in most frames"
        found.add(path, "no-hand-video", f"{bright}: these are no hands on black")
    return without


def _check_alignment(path: Path, moving: np.ndarray, static: np.ndarray, hands: np.ndarray, found: ValidationReport):
    pairs = zip(moving, static, strict=True)
    if all(np.abs(image.astype(np.int16) - still).mean() < SAME_DIFFERENCE for image, still in pairs):
        found.add(path, "static-is-interaction", "it is the interaction video itself: nothing happens between the two")
    alignment = measure_alignment(moving, static, hands)
    kind, reason = alignment.verdict
    if kind:
        found.add(path, kind, reason)
    return alignment.to_json()
