"""What can be measured on one episode: visibility, speeds, pictures, and what looks wrong with them.

Pixels, depths and speeds follow the conventions of `geometry.py` and `actions.py`; every threshold is a field of
`Limits`. Figures of many episodes add up (`Figures.merge`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from dexworld.actions import MIN_DEPTH
from dexworld.data.resize import Fit
from dexworld.data.statistics import ActionFigures, Histogram, Largest, Summed, linear, logarithmic
from dexworld.data.video_frames import VideoFrames
from dexworld.geometry import geodesic_angle, invert, project, transform_points
from dexworld.hands import KEYPOINT_NAMES, LEFT, NUM_KEYPOINTS, RIGHT, WRIST
from dexworld.track import COLUMNS, Track

T = TypeVar("T")
HANDS = {"left": LEFT, "right": RIGHT}
MIDDLE_KNUCKLE = 9  # row within a hand
HAND_SHOWN = 0.5  # share of a hand's keypoints that must lie in the picture for the hand to count as visible
MAP_ROWS, MAP_COLUMNS = 18, 32  # where in the picture keypoints lie
LARGEST = 10
SPEEDS = {"left_hand": (1e-4, 1e2), "right_hand": (1e-4, 1e2), "camera": (1e-4, 1e2), "camera_turn_deg": (1e-2, 1e4)}
STEPS, EXTREMES = ("keypoints", "camera", "camera_turn"), ("keypoint", "camera", "camera_turn_deg")
CHUNK = 32  # frames decoded at once
STRIDE = 4  # every fourth pixel of every fourth row is compared
SNAPSHOT_WIDTH = 384  # pixels


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


def _zeros(*shape: int) -> Callable[[], np.ndarray]:
    return lambda: np.zeros(shape, np.int64)


def _each(names: Iterable[str], make: Callable[[], T]) -> Callable[[], dict[str, T]]:
    return lambda: {name: make() for name in names}


@dataclass
class Figures(Summed):
    """Figures of one or many episodes.

    valid, in_front, visible: (42,) frames in which each keypoint is annotated, further in front of the camera than
    5 cm, and in the picture as well. hands_shown: frames with no, one and two hands in the picture. per_hand: frames
    with the left and the right. map: (2, 18, 32) visible keypoints of each hand by place in the picture.
    confidence: per hand, over all keypoints and frames (NaN counts as 0); confidence_sum: (42,) over confidence_frames.
    speeds: metres (degrees for `camera_turn_deg`) per second between neighbouring frames, per hand the mean over its
    keypoints. steps: metres and radians per frame. actions: recorded by a robot, by the number of their dimensions.
    tasks, sizes (height, width), rates, extras: episodes with each. lengths: of episodes, in seconds.
    """

    frames: int = 0
    seconds: float = 0.0
    valid: np.ndarray = field(default_factory=_zeros(NUM_KEYPOINTS))
    in_front: np.ndarray = field(default_factory=_zeros(NUM_KEYPOINTS))
    visible: np.ndarray = field(default_factory=_zeros(NUM_KEYPOINTS))
    hands_shown: np.ndarray = field(default_factory=_zeros(3))
    per_hand: np.ndarray = field(default_factory=_zeros(2))
    map: np.ndarray = field(default_factory=_zeros(2, MAP_ROWS, MAP_COLUMNS))
    confidence: dict[str, Histogram] = field(default_factory=_each(HANDS, lambda: linear(0, 1, 20)))
    confidence_sum: np.ndarray = field(default_factory=lambda: np.zeros(NUM_KEYPOINTS))
    confidence_frames: int = 0
    speeds: dict[str, Histogram] = field(
        default_factory=lambda: {name: logarithmic(*span, 10) for name, span in SPEEDS.items()}
    )
    steps: dict[str, Histogram] = field(default_factory=_each(STEPS, lambda: logarithmic(1e-6, 1e2, 5)))
    hand_length: dict[str, Histogram] = field(default_factory=_each(HANDS, lambda: linear(0.0, 0.3, 60)))
    depth: Histogram = field(default_factory=lambda: linear(0.0, 4.0, 80))
    largest: dict[str, Largest] = field(default_factory=_each(EXTREMES, lambda: Largest(LARGEST)))
    actions: dict[int, ActionFigures] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    rates: dict[float, int] = field(default_factory=dict)
    extras: dict[str, int] = field(default_factory=dict)
    lengths: Histogram = field(default_factory=lambda: logarithmic(0.01, 1e5, 10))
    decoded_episodes: int = 0
    decoded: int = 0
    compared: int = 0
    identical: int = 0
    black: int = 0


@dataclass(frozen=True)
class Snapshot:
    """One frame to look at. image: (h, w, 3) uint8, scaled down. pixels: (42, 2) in it. visible: (42,) bool."""

    episode: str
    frame: int
    task: str
    image: np.ndarray
    pixels: np.ndarray
    visible: np.ndarray


class Measurement:
    """Figures and findings of one episode: `labels` measures all but the pictures, `pictures` measures those.

    number, name: of the episode in its dataset, for the lists of extremes.
    """

    def __init__(self, episode: Track, number: int, name: str, limits: Limits) -> None:
        self.episode, self.number, self.name, self.limits = episode, number, name, limits
        self.findings: list[Finding] = []
        self.height, self.width = (int(side) for side in episode.frames.size)
        self.figures = Figures(
            frames=len(episode),
            seconds=len(episode) / episode.fps,
            tasks={episode.task: 1},
            sizes={(self.height, self.width): 1},
            rates={round(float(episode.fps), 3): 1},
            extras={name: 1 for name in episode.columns if name not in COLUMNS},
        )
        self.figures.lengths.add(np.array([len(episode) / float(episode.fps)]))
        valid = episode.keypoints_valid
        self.points = np.where(valid[..., None], episode.keypoints_world, 0.0).astype(np.float64)
        self.cameras = torch.from_numpy(episode.world_from_camera.astype(np.float64))
        intrinsics = torch.from_numpy(episode.intrinsics.astype(np.float64))
        pixels, depth = project(transform_points(invert(self.cameras), torch.from_numpy(self.points)), intrinsics)
        self.pixels, self.depth = pixels.numpy(), depth.numpy()
        self.in_front = valid & (self.depth > MIN_DEPTH)
        inside = (self.pixels >= 0).all(axis=-1) & (self.pixels < (self.width, self.height)).all(axis=-1)
        self.visible = self.in_front & inside

    def labels(self, every_packet: bool) -> None:
        """Measure the labels, and the video's rate against theirs. every_packet: and the time of each of its frames."""
        self._visibility()
        action = self.episode.get("action")
        if action is not None:
            values = np.asarray(action, dtype=np.float64).reshape(len(action), -1)
            self.figures.actions[values.shape[1]] = ActionFigures.of(values)
        self._check_camera()
        self._check_keypoints()
        self._hand_lengths()
        if len(self.episode) > 1:
            self._keypoint_motion()
            self._camera_motion()
        self._check_times(every_packet)

    def _find(self, kind: str, message: str, frame: int | None = None) -> None:
        self.findings.append(Finding(kind, message, frame))

    def _visibility(self) -> None:
        figures, episode = self.figures, self.episode
        figures.valid += episode.keypoints_valid.sum(0)
        figures.in_front += self.in_front.sum(0)
        figures.visible += self.visible.sum(0)
        per_hand = np.stack([self.visible[:, rows].mean(1) >= HAND_SHOWN for rows in HANDS.values()])
        figures.per_hand += per_hand.sum(1)
        figures.hands_shown += np.bincount(per_hand.sum(0), minlength=3)
        figures.depth.add(self.depth[self.visible])
        for places, rows in zip(figures.map, HANDS.values(), strict=True):
            pixels = self.pixels[:, rows][self.visible[:, rows]]
            columns = (pixels[:, 0] / self.width * MAP_COLUMNS).astype(int).clip(0, MAP_COLUMNS - 1)
            lines = (pixels[:, 1] / self.height * MAP_ROWS).astype(int).clip(0, MAP_ROWS - 1)
            np.add.at(places, (lines, columns), 1)
        confidence = episode.get("keypoint_confidence")
        if confidence is not None:
            confidence = np.nan_to_num(np.asarray(confidence, dtype=np.float64), nan=0.0)
            for name, rows in HANDS.items():
                figures.confidence[name].add(confidence[:, rows])
            figures.confidence_sum += confidence.sum(0)
            figures.confidence_frames += len(confidence)

    def _check_camera(self) -> None:
        poses, height, width = self.cameras.numpy(), self.height, self.width
        rotation = poses[:, :3, :3]
        error = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2))
        mirrored = np.linalg.det(rotation) < 0
        bottom = np.abs(self.episode.world_from_camera[:, 3] - [0, 0, 0, 1]).max(axis=1)
        bad = (error > 1e-3) | mirrored | (bottom > 1e-6)
        if bad.any():
            what = "mirrored" if mirrored.any() else f"off by up to {max(error.max(), bottom.max()):.2g}"
            self._find("not-rigid", f"{int(bad.sum())} camera poses are {what}", int(np.argmax(bad)))
        (fx, skew, cx), (_, fy, cy), bottom_row = self.episode.intrinsics.astype(np.float64)
        if not (
            (0.1 * width < fx < 10 * width)
            and (0.8 < fx / (fy or np.nan) < 1.25)
            and (0.25 * width < cx < 0.75 * width and 0.25 * height < cy < 0.75 * height)
            and (abs(skew) < 0.01 * fx and np.allclose(bottom_row, [0, 0, 1]))
        ):
            values = f"fx {fx:.4g}, fy {fy:.4g}, cx {cx:.4g}, cy {cy:.4g}, skew {skew:.2g}"
            self._find("intrinsics", f"{values} for {width} x {height} pixels")

    def _check_keypoints(self) -> None:
        episode, valid = self.episode, self.episode.keypoints_valid
        if not valid.any():
            self._find("no-keypoints", f"none of {len(episode)} frames has a valid keypoint")
            return
        behind = valid & (self.depth <= 0)
        if behind.sum() > self.limits.behind * valid.sum():
            share = 100 * behind.sum() / valid.sum()
            self._find("behind-camera", f"{share:.0f} % of the valid keypoints", int(np.argmax(behind.any(axis=1))))
        elif not self.visible.any():
            self._find("never-visible", f"{len(episode)} frames")
        always = valid.all(axis=0)
        long_enough = len(episode) > max(2, episode.fps) and always.any()
        if long_enough and np.ptp(episode.keypoints_world[:, always], axis=0).max() == 0:
            self._find("frozen-labels", f"{int(always.sum())} keypoints for {len(episode) / episode.fps:.1f} s")

    def _hand_lengths(self) -> None:
        shortest, longest = self.limits.hand_length
        for name, rows in HANDS.items():
            ends = [rows.start + WRIST, rows.start + MIDDLE_KNUCKLE]
            both = self.episode.keypoints_valid[:, ends].all(axis=1)
            wrist, knuckle = self.episode.keypoints_world[both][:, ends].astype(np.float64).transpose(1, 0, 2)
            lengths = np.linalg.norm(knuckle - wrist, axis=-1)
            self.figures.hand_length[name].add(lengths)
            if lengths.size and not shortest <= np.median(lengths) <= longest:
                message = f"{name} hand, wrist to middle knuckle {np.median(lengths):.3g} m"
                self._find("hand-size", message, int(np.argmax(both)))

    def _keypoint_motion(self) -> None:
        valid, rate = self.episode.keypoints_valid[1:] & self.episode.keypoints_valid[:-1], self.episode.fps
        distance = np.where(valid, np.linalg.norm(np.diff(self.points, axis=0), axis=-1), 0.0)
        self.figures.steps["keypoints"].add(distance[valid])
        for side, rows in HANDS.items():
            counted = valid[:, rows].sum(1)
            mean = distance[:, rows].sum(1)[counted > 0] / counted[counted > 0]
            self.figures.speeds[f"{side}_hand"].add(mean * rate)
        if valid.any():
            speed = distance * rate
            note = KEYPOINT_NAMES[int(np.argmax(speed)) % NUM_KEYPOINTS]
            self._fastest("keypoint", speed.max(axis=1), self.limits.keypoint_speed, "m/s", note)

    def _camera_motion(self) -> None:
        cameras, limits, rate = self.cameras, self.limits, self.episode.fps
        travel = torch.linalg.vector_norm(cameras[1:, :3, 3] - cameras[:-1, :3, 3], dim=-1).numpy()
        turn = geodesic_angle(cameras[:-1, :3, :3], cameras[1:, :3, :3]).numpy()
        self.figures.steps["camera"].add(travel)
        self.figures.steps["camera_turn"].add(turn)
        speed, turning = travel * rate, np.degrees(turn) * rate
        self.figures.speeds["camera"].add(speed)
        self.figures.speeds["camera_turn_deg"].add(turning)
        self._fastest("camera", speed, limits.camera_speed, "m/s")
        self._fastest("camera_turn_deg", turning, limits.camera_turn_deg, "deg/s")

    def _fastest(self, key: str, speeds: np.ndarray, limit: float, unit: str, note: str = "") -> None:
        """Note the largest of (T - 1,) speeds, and a jump where some are above the limit."""
        place = (self.number, int(np.argmax(speeds)) + 1)
        self.figures.largest[key].add(speeds.max(), place, self.name, note)
        fast = speeds > limit
        if fast.any():
            message = f"{int(fast.sum())} times above {limit:g} {unit}, up to {speeds.max():.3g} {unit}"
            self._find("keypoint-jump" if key == "keypoint" else "camera-jump", message, int(np.argmax(fast)) + 1)

    def _check_times(self, every_packet: bool) -> None:
        frames, rate = self.episode.frames, self.episode.fps
        own_rate = float(getattr(frames, "fps", 0.0) or 0.0)
        if own_rate and abs(own_rate / rate - 1) > 0.01:
            self._find("rate", f"the video shows {own_rate:.4g} frames per second, the labels {rate:.4g}")
        times = getattr(frames, "timestamps", None) if every_packet else None
        if times is not None and len(times) > 1:
            steps = np.diff(times) * rate
            uneven = np.abs(steps - 1) > 0.5
            if uneven.any():
                message = f"{int(uneven.sum())} steps are not 1 / {rate:.4g} s; the longest is {steps.max():.1f} frames"
                self._find("uneven-times", message, int(np.argmax(uneven)) + 1)

    def pictures(self, every_frame: bool) -> Snapshot:
        """Decode frames, count them, and keep the one with the most visible keypoints; of equals, near the middle.

        every_frame: decode all of them; otherwise the first two, the last two, and two that show the hands. Raises
        VideoError naming the frame that can't be decoded.
        """
        figures, limits, last = self.figures, self.limits, len(self.episode) - 1
        counts = self.visible.sum(axis=1)
        most = np.flatnonzero(counts == counts.max())
        best = int(most[np.argmin(np.abs(most - len(counts) / 2))])
        pairs = {0, max(0, min(best, last - 1)), max(0, last - 1)}
        wanted = sorted({frame for first in pairs for frame in (first, first + 1) if frame <= last} | {best})
        frozen, black, before = list[int](), list[int](), -2
        kept: np.ndarray = np.zeros(0)
        previous: np.ndarray = kept
        for frame, picture in self._decoded(None if every_frame else wanted):
            small = picture[::STRIDE, ::STRIDE].astype(np.int16)
            figures.decoded += 1
            if small.mean() < limits.dark and small.std() < limits.dark:
                black.append(frame)
            if before == frame - 1:
                figures.compared += 1
                if np.abs(small - previous).mean() < limits.still:
                    figures.identical += 1
                    if self._moves(before):
                        frozen.append(frame)
            previous, before = small, frame
            if frame == best:
                kept = picture.copy()
        figures.black, figures.decoded_episodes = len(black), 1
        if frozen:
            self._find("frozen-frames", f"{len(frozen)} of {figures.compared} compared", frozen[0])
        if black:
            self._find("black-frames", f"{len(black)} of {figures.decoded} decoded", black[0])
        return self._snapshot(kept, best)

    def _decoded(self, wanted: list[int] | None) -> Iterator[tuple[int, np.ndarray]]:
        """(frame number, picture), in order; all of them when `wanted` is None."""
        frames = self.episode.frames
        if wanted is None and isinstance(frames, VideoFrames) and frames.uneven:  # each is decoded once
            yield from enumerate(picture.to_ndarray() for picture in frames.pictures())
            return
        numbers = list(range(len(frames))) if wanted is None else wanted
        for start in range(0, len(numbers), CHUNK):
            chunk = numbers[start : start + CHUNK]
            yield from zip(chunk, frames.read(chunk), strict=True)

    def _moves(self, frame: int) -> bool:
        """Whether keypoints move, in the middle, by more than the limit from `frame` to the next."""
        both = self.visible[frame] & self.visible[frame + 1]
        moved = np.linalg.norm(self.pixels[frame + 1][both] - self.pixels[frame][both], axis=-1)
        return bool(both.any() and np.median(moved) > self.limits.moved * self.width)

    def _snapshot(self, picture: np.ndarray, frame: int) -> Snapshot:
        height, width = picture.shape[:2]
        smaller = min(1.0, SNAPSHOT_WIDTH / width)
        fit = Fit.cover((height, width), (max(1, round(height * smaller)), max(1, round(width * smaller))))
        image = fit.images(torch.from_numpy(np.ascontiguousarray(picture))).numpy()
        pixels, visible = fit.pixels(self.pixels[frame]), self.visible[frame]
        pixels = np.where(visible[:, None], pixels, 0.0)
        return Snapshot(self.name, frame, self.episode.task, image, pixels, visible)
