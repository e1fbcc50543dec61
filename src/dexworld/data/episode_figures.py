"""What can be measured on one episode: visibility, speeds, pictures, and what looks wrong with them.

Pixels, depths and speeds follow the conventions of `geometry.py` and `actions.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dexworld.actions import MIN_DEPTH
from dexworld.data.resize import Fit
from dexworld.data.statistics import Figures
from dexworld.data.video_frames import VideoFrames
from dexworld.geometry import geodesic_angle, invert, project, transform_points
from dexworld.hands import LEFT, RIGHT, TRACKED, WRIST
from dexworld.track import COLUMNS, Track

HANDS = {"left": LEFT, "right": RIGHT}
MIDDLE_KNUCKLE = 9  # row within a hand
CHUNK = 32  # frames decoded at once
STRIDE = 4  # every fourth pixel of every fourth row is compared
SNAPSHOT_WIDTH = 384  # pixels
# Beyond these an episode looks wrong. Speeds are between neighbouring frames.
KEYPOINT_SPEED = 8.0  # m/s; people move their hands at up to 5
CAMERA_SPEED, CAMERA_TURN_DEG = 4.0, 720.0  # m/s of its position, degrees/s of its rotation
HAND_LENGTH = (0.02, 0.25)  # metres from the wrist to the middle finger's knuckle, as the median of an episode
BEHIND = 0.5  # share of the valid keypoints that may lie behind the camera
MOVED = 0.01  # share of the picture's width that a keypoint moves while the picture stands still
STILL = 0.05  # grey levels of 255: two pictures that differ less, on average, are the same
DARK = 3.0  # grey levels of 255: a picture whose mean and spread are below is black


FINDINGS = {  # kind to what it is called and what to do
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

    name: of the episode in its dataset. findings: kind (of `FINDINGS`), message, and the first frame or None.
    """

    def __init__(self, episode: Track, name: str) -> None:
        self.episode, self.name = episode, name
        self.findings: list[dict[str, Any]] = []
        self.figures = Figures(len(episode))
        self.height, self.width = (int(side) for side in episode.frames.size)
        self.valid = episode.keypoints_valid
        self.points = np.where(self.valid[..., None], episode.keypoints_world, 0.0).astype(np.float64)
        self.cameras = torch.from_numpy(episode.world_from_camera.astype(np.float64))
        intrinsics = torch.from_numpy(episode.intrinsics.astype(np.float64))
        pixels, depth = project(transform_points(invert(self.cameras), torch.from_numpy(self.points)), intrinsics)
        self.pixels, self.depth = pixels.numpy(), depth.numpy()
        inside = (self.pixels >= 0).all(axis=-1) & (self.pixels < (self.width, self.height)).all(axis=-1)
        self.visible = self.valid & (self.depth > MIN_DEPTH) & inside

    def labels(self, every_packet: bool) -> None:
        """Measure the labels, and the video's rate against theirs. every_packet: and the time of each of its frames."""
        self._tally()
        self._check_camera()
        self._check_keypoints()
        self._hand_lengths()
        if len(self.episode) > 1:
            self._speeds()
        self._check_times(every_packet)

    def _find(self, kind: str, message: str, frame: int | None = None) -> None:
        self.findings.append({"kind": kind, "message": message, "frame": frame})

    def _tally(self) -> None:
        episode, figures = self.episode, self.figures
        figures.tallies["tasks"][episode.task] += 1
        figures.tallies["sizes"][self.height, self.width] += 1
        figures.tallies["fps"][round(float(episode.fps), 3)] += 1
        figures.tallies["extras"].update(name for name in episode.columns if name not in COLUMNS)
        figures.spread("length_s").add(np.array([len(episode) / float(episode.fps)]))
        # a hand is seen when its wrist and five tips are, the points that losses and scores count
        left, right = self.visible[:, TRACKED].reshape(-1, 2, len(TRACKED) // 2).all(2).T
        shown = {"left": left, "right": right, "none": ~left & ~right, "one": left ^ right, "two": left & right}
        figures.tallies["hands"].update({name: int(frames.sum()) for name, frames in shown.items()})
        confidence = episode.get("keypoint_confidence")
        if confidence is not None:
            for side, rows in HANDS.items():
                figures.spread(f"confidence.{side}").add(np.nan_to_num(confidence[:, rows], nan=0.0))
        action = episode.get("action")
        if action is not None:
            values = np.asarray(action).reshape(len(action), -1)
            width = values.shape[1]
            figures.tallies["actions"][width] += 1
            figures.tallies["action_frames"][width] += len(values)
            for dimension, column in enumerate(values.T):
                figures.spread((width, dimension)).add(column)

    def _check_camera(self) -> None:
        poses, height, width = self.cameras.numpy(), self.height, self.width
        rotation = poses[:, :3, :3]
        error = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2))
        mirrored = np.linalg.det(rotation) < 0
        bottom = np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=1)
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
        length, valid = len(self.episode), self.valid
        if not valid.any():
            self._find("no-keypoints", f"none of {length} frames has a valid keypoint")
            return
        behind = valid & (self.depth <= 0)
        share = behind.sum() / valid.sum()
        if share > BEHIND:
            self._find(
                "behind-camera", f"{100 * share:.0f} % of the valid keypoints", int(np.argmax(behind.any(axis=1)))
            )
        elif not self.visible.any():
            self._find("never-visible", f"{length} frames")
        always = valid.all(axis=0)
        long_enough = length > max(2, self.episode.fps) and always.any()
        if long_enough and np.ptp(self.points[:, always], axis=0).max() == 0:
            self._find("frozen-labels", f"{int(always.sum())} keypoints for {length / self.episode.fps:.1f} s")

    def _hand_lengths(self) -> None:
        for side, rows in HANDS.items():
            ends = [rows.start + WRIST, rows.start + MIDDLE_KNUCKLE]
            both = self.valid[:, ends].all(axis=1)
            wrist, knuckle = self.points[both][:, ends].transpose(1, 0, 2)
            lengths = np.linalg.norm(knuckle - wrist, axis=-1)
            self.figures.spread(f"hand_length_m.{side}").add(lengths)
            if lengths.size and not HAND_LENGTH[0] <= np.median(lengths) <= HAND_LENGTH[1]:
                message = f"{side} hand, wrist to middle knuckle {np.median(lengths):.3g} m"
                self._find("hand-size", message, int(np.argmax(both)))

    def _speeds(self) -> None:
        rate, both = self.episode.fps, self.valid[1:] & self.valid[:-1]
        distance = np.where(both, np.linalg.norm(np.diff(self.points, axis=0), axis=-1), 0.0)
        for side, rows in HANDS.items():
            counted = both[:, rows].sum(1)
            mean = distance[:, rows].sum(1)[counted > 0] / counted[counted > 0]
            self.figures.spread(f"speeds_per_s.{side}_hand").add(mean * rate)
        before, after = self.cameras[:-1], self.cameras[1:]
        travel = torch.linalg.vector_norm(after[:, :3, 3] - before[:, :3, 3], dim=-1).numpy() * rate
        turn = np.degrees(geodesic_angle(before[:, :3, :3], after[:, :3, :3]).numpy()) * rate
        self.figures.spread("speeds_per_s.camera").add(travel)
        self.figures.spread("speeds_per_s.camera_turn_deg").add(turn)
        self._jumps("keypoint-jump", (distance * rate).max(axis=1), KEYPOINT_SPEED, "m/s")
        self._jumps("camera-jump", travel, CAMERA_SPEED, "m/s")
        self._jumps("camera-jump", turn, CAMERA_TURN_DEG, "deg/s")

    def _jumps(self, kind: str, speeds: np.ndarray, limit: float, unit: str) -> None:
        fast = speeds > limit
        if fast.any():
            message = f"{int(fast.sum())} times above {limit:g} {unit}, up to {speeds.max():.3g} {unit}"
            self._find(kind, message, int(np.argmax(fast)) + 1)

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
        last, seen = len(self.episode) - 1, self.figures.tallies["pictures"]
        counts = self.visible.sum(axis=1)
        most = np.flatnonzero(counts == counts.max())
        best = int(most[np.argmin(np.abs(most - len(counts) / 2))])
        pairs = {0, max(0, min(best, last - 1)), max(0, last - 1)}
        wanted = sorted({frame for first in pairs for frame in (first, first + 1) if frame <= last} | {best})
        seen["episodes"] += 1
        frozen, black, before = list[int](), list[int](), -2
        kept: np.ndarray = np.zeros(0)
        previous: np.ndarray = kept
        for frame, picture in self._decoded(None if every_frame else wanted):
            small = picture[::STRIDE, ::STRIDE].astype(np.int16)
            seen["decoded"] += 1
            if small.mean() < DARK and small.std() < DARK:
                black.append(frame)
            if before == frame - 1:
                seen["compared"] += 1
                if np.abs(small - previous).mean() < STILL:
                    seen["identical"] += 1
                    if self._moves(before):
                        frozen.append(frame)
            previous, before = small, frame
            if frame == best:
                kept = picture.copy()
        seen["black"] = len(black)
        if frozen:
            self._find("frozen-frames", f"{len(frozen)} of {seen['compared']} compared", frozen[0])
        if black:
            self._find("black-frames", f"{len(black)} of {seen['decoded']} decoded", black[0])
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
        return bool(both.any() and np.median(moved) > MOVED * self.width)

    def _snapshot(self, picture: np.ndarray, frame: int) -> Snapshot:
        height, width = picture.shape[:2]
        smaller = min(1.0, SNAPSHOT_WIDTH / width)
        fit = Fit.cover((height, width), (max(1, round(height * smaller)), max(1, round(width * smaller))))
        image, visible = fit.images(torch.from_numpy(picture)).numpy(), self.visible[frame]
        pixels = np.where(visible[:, None], fit.pixels(self.pixels[frame]), 0.0)
        return Snapshot(self.name, frame, self.episode.task, image, pixels, visible)
