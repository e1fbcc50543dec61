"""What can be measured on one episode: visibility, speeds, pictures, and what looks wrong with them.

Pixels, depths and speeds follow the conventions of `geometry.py` and `actions.py`; every threshold is a field of
`Limits`. Figures of many episodes add up (`Figures.merge`).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dexworld.actions import MIN_DEPTH
from dexworld.data.action_figures import ActionFigures, actions_of
from dexworld.data.statistics import Histogram, Largest, linear, logarithmic
from dexworld.geometry import geodesic_angle, invert, project, transform_points
from dexworld.hands import KEYPOINT_NAMES, LEFT, NUM_KEYPOINTS, RIGHT, WRIST
from dexworld.track import Track

HANDS = (("left", LEFT), ("right", RIGHT))
MIDDLE_KNUCKLE = 9  # row within a hand
HAND_SHOWN = 0.5  # share of a hand's keypoints that must lie in the picture for the hand to count as visible
MAP_ROWS, MAP_COLUMNS = 18, 32  # where in the picture keypoints lie
LARGEST = 10


@dataclass(frozen=True)
class Limits:
    """Beyond these an episode looks wrong. Speeds are between neighbouring frames."""

    keypoint_speed: float = 8.0
    """Metres per second; people move their hands at up to 5."""
    camera_speed: float = 4.0
    """Metres per second of the camera's position."""
    camera_turn_deg: float = 720.0
    """Degrees per second of the camera's rotation."""
    hand_length: tuple[float, float] = (0.02, 0.25)
    """Metres from the wrist to the middle finger's knuckle, as the median of an episode."""
    behind: float = 0.5
    """Share of the valid keypoints that may lie behind the camera."""
    moved: float = 0.01
    """Share of the picture's width that a keypoint moves while the picture stands still."""
    still: float = 0.05
    """Grey levels of 255: two pictures that differ less, on average, are the same."""
    dark: float = 3.0
    """Grey levels of 255: a picture whose mean and spread are below is black."""


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong. kind: a key of `FINDINGS`. frame: where first, if anywhere in particular."""

    kind: str
    message: str
    frame: int | None = None


FINDINGS = {
    "keypoint-jump": ("keypoints jump", "Tracking errors or missing frames; drop the episode or mark them invalid."),
    "camera-jump": ("the camera jumps", "Lost tracking, or poses in another order than the video's frames."),
    "behind-camera": (
        "hands behind the camera",
        "The camera's axes must be x right, y down, z forward, and its pose world-from-camera, not the inverse.",
    ),
    "never-visible": ("no keypoint ever in the picture", "Check intrinsics, image size and the camera's pose."),
    "no-keypoints": ("no valid keypoint at all", "Nothing can be learned about hands from it."),
    "frozen-labels": ("labels stand still", "Every keypoint keeps its place through the whole episode."),
    "not-rigid": ("camera poses are no rigid transforms", "Rotations must be orthonormal with determinant 1."),
    "intrinsics": ("implausible intrinsics", "They must fit the size of the stored frames."),
    "hand-size": ("implausible size of a hand", "Keypoints must be in metres and in the order of hands.py."),
    "rate": ("video and labels at different rates", "Frame i of the video must belong to label i."),
    "uneven-times": ("frames at uneven times", "Speeds from neighbouring frames are wrong where time jumps."),
    "frozen-frames": ("the picture stands still while hands move", "Video and labels are out of step there."),
    "black-frames": ("black pictures", "Nothing can be seen in them."),
}


def _speed() -> Histogram:
    return logarithmic(1e-4, 1e2, 10)


@dataclass
class Figures:
    """Figures of one or many episodes.

    valid, in_front, visible: (42,) frames in which each keypoint is annotated, further in front of the camera than
    5 cm, and in the picture as well. hands_shown: frames with no, one and two hands in the picture. per_hand: frames
    with the left and the right. map: (2, 18, 32) visible keypoints of each hand by place in the picture.
    confidence: per hand, over all keypoints and frames (NaN counts as 0); confidence_sum: (42,) over confidence_frames.
    speeds: metres (degrees for `camera_turn_deg`) per second between neighbouring frames, per hand the mean over its
    keypoints. steps: the same per frame instead of per second, what an action holds (metres, radians). actions: of a
    robot, as recorded, by the number of their dimensions.
    """

    frames: int = 0
    seconds: float = 0.0
    valid: np.ndarray = field(default_factory=lambda: np.zeros(NUM_KEYPOINTS, np.int64))
    in_front: np.ndarray = field(default_factory=lambda: np.zeros(NUM_KEYPOINTS, np.int64))
    visible: np.ndarray = field(default_factory=lambda: np.zeros(NUM_KEYPOINTS, np.int64))
    hands_shown: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    per_hand: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    map: np.ndarray = field(default_factory=lambda: np.zeros((2, MAP_ROWS, MAP_COLUMNS), np.int64))
    confidence: dict[str, Histogram] = field(default_factory=lambda: {name: linear(0, 1, 20) for name, _ in HANDS})
    confidence_sum: np.ndarray = field(default_factory=lambda: np.zeros(NUM_KEYPOINTS))
    confidence_frames: int = 0
    speeds: dict[str, Histogram] = field(
        default_factory=lambda: {
            name: _speed() for name in ("left_hand", "right_hand", "camera")
        } | {"camera_turn_deg": logarithmic(1e-2, 1e4, 10)}
    )  # fmt: skip
    steps: dict[str, Histogram] = field(
        default_factory=lambda: {name: logarithmic(1e-6, 1e2, 5) for name in ("keypoints", "camera", "camera_turn")}
    )
    hand_length: dict[str, Histogram] = field(default_factory=lambda: {name: linear(0.0, 0.3, 60) for name, _ in HANDS})
    depth: Histogram = field(default_factory=lambda: linear(0.0, 4.0, 80))
    largest: dict[str, Largest] = field(
        default_factory=lambda: {name: Largest(LARGEST) for name in ("keypoint", "camera", "camera_turn_deg")}
    )
    actions: dict[int, ActionFigures] = field(default_factory=dict)
    decoded: int = 0
    compared: int = 0
    identical: int = 0
    black: int = 0

    def merge(self, other: "Figures") -> None:
        """Add the figures of further episodes; the order of adding decides the last digit of sums."""
        for name in ("frames", "seconds", "confidence_frames", "decoded", "compared", "identical", "black"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("valid", "in_front", "visible", "hands_shown", "per_hand", "map", "confidence_sum"):
            getattr(self, name).__iadd__(getattr(other, name))
        for name in ("confidence", "speeds", "steps", "hand_length", "largest"):
            for key, value in getattr(self, name).items():
                value.merge(getattr(other, name)[key])
        self.depth.merge(other.depth)
        for width, found in other.actions.items():
            if width in self.actions:
                self.actions[width].merge(found)
            else:
                self.actions[width] = found


@dataclass(frozen=True)
class Projected:
    """Keypoints in the picture. pixels: (T, 42, 2). depth: (T, 42) metres. in_front, visible: (T, 42) bool."""

    pixels: np.ndarray
    depth: np.ndarray
    in_front: np.ndarray
    visible: np.ndarray


def projected(episode: Track) -> Projected:
    """Every keypoint of every frame in that frame's own picture; what is not valid is neither in front nor visible."""
    valid = episode.keypoints_valid
    points = torch.from_numpy(np.where(valid[..., None], episode.keypoints_world, 0.0).astype(np.float64))
    cameras = torch.from_numpy(episode.world_from_camera.astype(np.float64))
    intrinsics = torch.from_numpy(episode.intrinsics.astype(np.float64))
    pixels_t, depth_t = project(transform_points(invert(cameras), points), intrinsics)
    pixels, depth = pixels_t.numpy(), depth_t.numpy()
    height, width = episode.frames.size
    in_front = valid & (depth > MIN_DEPTH)
    inside = (pixels >= 0).all(axis=-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    return Projected(pixels, depth, in_front, in_front & inside)


def label_figures(episode: Track, number: int, name: str, limits: Limits) -> tuple[Figures, list[Finding], Projected]:
    """Measure everything but the pictures. number, name: of the episode in its dataset, for the lists of extremes."""
    figures, shown = Figures(frames=len(episode), seconds=len(episode) / episode.fps), projected(episode)
    valid = episode.keypoints_valid
    figures.valid += valid.sum(0)
    figures.in_front += shown.in_front.sum(0)
    figures.visible += shown.visible.sum(0)
    per_hand = np.stack([shown.visible[:, rows].mean(1) >= HAND_SHOWN for _, rows in HANDS])
    figures.per_hand += per_hand.sum(1)
    figures.hands_shown += np.bincount(per_hand.sum(0), minlength=3)
    figures.depth.add(shown.depth[shown.visible])
    _place_on_map(figures.map, episode, shown)
    _read_confidence(figures, episode)
    figures.actions = actions_of(episode.columns.get("action"))
    findings = _camera_findings(episode, limits) + _keypoint_findings(episode, shown, limits)
    findings += _hand_lengths(figures, episode, limits) + _motion(figures, episode, number, name, limits)
    return figures, findings, shown


def _place_on_map(places: np.ndarray, episode: Track, shown: Projected) -> None:
    height, width = episode.frames.size
    for hand, (_, rows) in enumerate(HANDS):
        pixels = shown.pixels[:, rows][shown.visible[:, rows]]
        columns = (pixels[:, 0] / width * MAP_COLUMNS).astype(int).clip(0, MAP_COLUMNS - 1)
        lines = (pixels[:, 1] / height * MAP_ROWS).astype(int).clip(0, MAP_ROWS - 1)
        np.add.at(places[hand], (lines, columns), 1)


def _read_confidence(figures: Figures, episode: Track) -> None:
    confidence = episode.columns.get("keypoint_confidence")
    if confidence is None:
        return
    confidence = np.nan_to_num(np.asarray(confidence, dtype=np.float64), nan=0.0)
    for name, rows in HANDS:
        figures.confidence[name].add(confidence[:, rows])
    figures.confidence_sum += confidence.sum(0)
    figures.confidence_frames += len(confidence)


def _camera_findings(episode: Track, limits: Limits) -> list[Finding]:
    findings = []
    rotation = episode.world_from_camera[:, :3, :3].astype(np.float64)
    error = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2))
    mirrored = np.linalg.det(rotation) < 0
    bottom = np.abs(episode.world_from_camera[:, 3] - [0, 0, 0, 1]).max(axis=1)
    bad = (error > 1e-3) | mirrored | (bottom > 1e-6)
    if bad.any():
        what = "mirrored" if mirrored.any() else f"off by up to {max(error.max(), bottom.max()):.2g}"
        findings.append(Finding("not-rigid", f"{int(bad.sum())} camera poses are {what}", int(np.argmax(bad))))
    height, width = episode.frames.size
    (fx, skew, cx), (_, fy, cy), bottom_row = episode.intrinsics.astype(np.float64)
    plausible = (
        (0.1 * width < fx < 10 * width)
        and (0.8 < fx / (fy or np.nan) < 1.25)
        and (0.25 * width < cx < 0.75 * width and 0.25 * height < cy < 0.75 * height)
        and (abs(skew) < 0.01 * fx and np.allclose(bottom_row, [0, 0, 1]))
    )
    if not plausible:
        values = f"fx {fx:.4g}, fy {fy:.4g}, cx {cx:.4g}, cy {cy:.4g}, skew {skew:.2g}"
        findings.append(Finding("intrinsics", f"{values} for {width} x {height} pixels"))
    return findings


def _keypoint_findings(episode: Track, shown: Projected, limits: Limits) -> list[Finding]:
    valid = episode.keypoints_valid
    if not valid.any():
        return [Finding("no-keypoints", f"none of {len(episode)} frames has a valid keypoint")]
    findings = []
    behind = valid & (shown.depth <= 0)
    if behind.sum() > limits.behind * valid.sum():
        share = 100 * behind.sum() / valid.sum()
        frame = int(np.argmax(behind.any(axis=1)))
        findings.append(Finding("behind-camera", f"{share:.0f} % of the valid keypoints", frame))
    elif not shown.visible.any():
        findings.append(Finding("never-visible", f"{len(episode)} frames"))
    always = valid.all(axis=0)
    if len(episode) > max(2, episode.fps) and always.any():
        points = episode.keypoints_world[:, always]
        if np.ptp(points, axis=0).max() == 0:
            seconds = len(episode) / episode.fps
            findings.append(Finding("frozen-labels", f"{int(always.sum())} keypoints for {seconds:.1f} s"))
    return findings


def _hand_lengths(figures: Figures, episode: Track, limits: Limits) -> list[Finding]:
    findings = []
    for name, rows in HANDS:
        ends = [rows.start + WRIST, rows.start + MIDDLE_KNUCKLE]
        both = episode.keypoints_valid[:, ends].all(axis=1)
        wrist, knuckle = episode.keypoints_world[both][:, ends].astype(np.float64).transpose(1, 0, 2)
        lengths = np.linalg.norm(knuckle - wrist, axis=-1)
        figures.hand_length[name].add(lengths)
        if lengths.size and not limits.hand_length[0] <= np.median(lengths) <= limits.hand_length[1]:
            message = f"{name} hand, wrist to middle knuckle {np.median(lengths):.3g} m"
            findings.append(Finding("hand-size", message, int(np.argmax(both))))
    return findings


def _motion(figures: Figures, episode: Track, number: int, name: str, limits: Limits) -> list[Finding]:
    if len(episode) < 2:
        return []
    findings: list[Finding] = []
    valid = episode.keypoints_valid[1:] & episode.keypoints_valid[:-1]
    points = np.where(episode.keypoints_valid[..., None], episode.keypoints_world, 0.0).astype(np.float64)
    distance = np.where(valid, np.linalg.norm(np.diff(points, axis=0), axis=-1), 0.0)
    figures.steps["keypoints"].add(distance[valid])
    for side, rows in HANDS:
        counted = valid[:, rows].sum(1)
        mean = distance[:, rows].sum(1)[counted > 0] / counted[counted > 0]
        figures.speeds[f"{side}_hand"].add(mean * episode.fps)
    if valid.any():
        speed = distance * episode.fps
        frame, keypoint = np.unravel_index(int(np.argmax(speed)), speed.shape)
        place = (number, int(frame) + 1)
        figures.largest["keypoint"].add(speed[frame, keypoint], place, name, KEYPOINT_NAMES[int(keypoint)])
        fast = speed > limits.keypoint_speed
        if fast.any():
            count, first = int(fast.any(axis=1).sum()), int(np.argmax(fast.any(axis=1))) + 1
            message = f"{count} times above {limits.keypoint_speed:g} m/s, up to {speed.max():.3g} m/s"
            findings.append(Finding("keypoint-jump", message, first))
    cameras = torch.from_numpy(episode.world_from_camera.astype(np.float64))
    travel = torch.linalg.vector_norm(cameras[1:, :3, 3] - cameras[:-1, :3, 3], dim=-1).numpy()
    turn = geodesic_angle(cameras[:-1, :3, :3], cameras[1:, :3, :3]).numpy()
    figures.steps["camera"].add(travel)
    figures.steps["camera_turn"].add(turn)
    for key, values, limit, unit in (
        ("camera", travel * episode.fps, limits.camera_speed, "m/s"),
        ("camera_turn_deg", np.degrees(turn) * episode.fps, limits.camera_turn_deg, "deg/s"),
    ):
        figures.speeds[key].add(values)
        figures.largest[key].add(values.max(), (number, int(np.argmax(values)) + 1), name, "")
        if (values > limit).any():
            message = f"{int((values > limit).sum())} times above {limit:g} {unit}, up to {values.max():.3g} {unit}"
            findings.append(Finding("camera-jump", message, int(np.argmax(values > limit)) + 1))
    return findings


def time_findings(episode: Track, every_packet: bool) -> list[Finding]:
    """Compare the episode's rate with that of its video, where the video knows its own. every_packet: and each time."""
    findings = []
    rate = float(getattr(episode.frames, "fps", 0.0) or 0.0)
    if rate and abs(rate / episode.fps - 1) > 0.01:
        findings.append(Finding("rate", f"the video shows {rate:.4g} frames per second, the labels {episode.fps:.4g}"))
    times = getattr(episode.frames, "timestamps", None) if every_packet else None
    if times is not None and len(times) > 1:
        steps = np.diff(times) * episode.fps
        uneven = np.abs(steps - 1) > 0.5
        if uneven.any():
            message = (
                f"{int(uneven.sum())} steps are not 1 / {episode.fps:.4g} s; the longest is {steps.max():.1f} frames"
            )
            findings.append(Finding("uneven-times", message, int(np.argmax(uneven)) + 1))
    return findings


def best_frame(shown: Projected) -> int:
    """The frame with the most visible keypoints; of equals the one nearest the middle."""
    counts = shown.visible.sum(axis=1)
    best = np.flatnonzero(counts == counts.max())
    return int(best[np.argmin(np.abs(best - len(counts) / 2))])


def keypoint_rows(figures: Figures) -> list[dict[str, Any]]:
    """Per keypoint: its name and the shares of frames in which it is valid, in front, visible; its mean confidence."""
    frames, counted = max(figures.frames, 1), figures.confidence_frames
    return [
        {
            "keypoint": name,
            "valid": float(figures.valid[row] / frames),
            "in_front": float(figures.in_front[row] / frames),
            "visible": float(figures.visible[row] / frames),
            "confidence": float(figures.confidence_sum[row] / counted) if counted else None,
        }
        for row, name in enumerate(KEYPOINT_NAMES)
    ]
