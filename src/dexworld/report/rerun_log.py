"""What a command saw and did as an `.rrd` file: frames, hands and cameras in space, and figures over time.

Open it with `rerun FILE.rrd`. Needs the extra `viz`.
"""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.files import check_writable
from dexworld.data.source import Source
from dexworld.evaluation.atomic import AtomicConfig, atomic_keypoints
from dexworld.hands import BONES, LEFT, RIGHT
from dexworld.report.demo import EpisodeResult
from dexworld.report.imagine import Imagined
from dexworld.report.overlay import FINGER_COLOURS
from dexworld.track import Track
from dexworld.writing import written_atomically

MAX_EPISODES = 10  # of a dataset; a recording of thousands of films is of use to nobody
FRAMES_AT_ONCE = 64  # decoded
JPEG_QUALITY = 80  # 1 to 95 (best)
BONE_COLOURS = [FINGER_COLOURS[bone // 4] for bone in range(len(BONES))]


@contextmanager
def rerun_log(path: Path | None) -> Iterator["RerunLog | None"]:
    """A log that becomes the file `path` when all went well; None without a path.

    Raises ModuleNotFoundError where the extra is missing and OSError where the file can't be written, at once.
    """
    if path is None:
        yield None
        return
    if path.suffix != ".rrd":
        raise ValueError(f"--rerun is {path}; Rerun opens files whose names end in .rrd")
    import rerun

    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "", str(path))
    check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        log = RerunLog(rerun, temporary)
        try:
            yield log
        finally:
            log.close()


class RerunLog:
    """A recording. Names are entity paths, such as `scene 7/camera`; times are seconds since an episode began."""

    def __init__(self, rerun: Any, path: Path) -> None:
        self.rerun, self.path = rerun, path
        self._stream: Any = None

    @property
    def stream(self) -> Any:
        """Rerun's own stream, opened by the first entry: processes that a command forks before know nothing of it."""
        if self._stream is None:
            self._stream = self.rerun.RecordingStream("dexworld")
            self._stream.save(self.path)
            self._stream.log("/", self.rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        return self._stream

    def close(self) -> None:
        """Write what is not written yet."""
        self.stream.disconnect()

    def entry(self, name: str, what: Any, static: bool = False) -> None:
        """Log one of Rerun's archetypes at the time that was set last, or as what holds all the time."""
        self.stream.log(self.rerun.new_entity_path(name.split("/")), what, static=static)

    def at(self, step: int, fps: float = 1.0) -> None:
        """Set the time of the entries that follow."""
        self.stream.set_time("step", sequence=step)
        self.stream.set_time("time", duration=step / fps)

    def track(self, name: str, track: Track) -> None:
        """The hands and the camera of an episode in space, with its frames as the camera sees them."""
        size = track.frames.size if len(track.frames) else None
        for step in range(len(track)):
            self.at(step, track.fps or 1.0)
            self.camera(name, track.world_from_camera[step], track.intrinsics, size)
            self.hands(name, track.keypoints_world[step], track.keypoints_valid[step])
        for first in range(0, len(track.frames), FRAMES_AT_ONCE):
            last = min(first + FRAMES_AT_ONCE, len(track.frames))
            for step, image in enumerate(track.frames.read(list(range(first, last))), first):
                self.at(step, track.fps)
                self.picture(f"{name}/camera/image", image)

    def camera(
        self, name: str, world_from_camera: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int] | None
    ) -> None:
        """A pose (4, 4) and a pinhole matrix (3, 3) of pictures of `size` (height, width) in pixels."""
        rr, entity = self.rerun, f"{name}/camera"
        self.entry(entity, rr.Transform3D(translation=world_from_camera[:3, 3], mat3x3=world_from_camera[:3, :3]))
        resolution = None if size is None else [size[1], size[0]]
        lens = rr.Pinhole(image_from_camera=intrinsics, resolution=resolution, camera_xyz=rr.ViewCoordinates.RDF)
        self.entry(entity, lens)

    def hands(self, name: str, keypoints_world: np.ndarray, valid: np.ndarray) -> None:
        """Keypoints (42, 3) in metres of which those that are `valid` (42,) are drawn, and the bones between them."""
        rr = self.rerun
        for side, rows in (("left", LEFT), ("right", RIGHT)):
            points, seen = np.asarray(keypoints_world[rows]), np.asarray(valid[rows])
            bones = [index for index, (a, b) in enumerate(BONES) if seen[a] and seen[b]]
            lines = np.array([points[list(BONES[index])] for index in bones]).reshape(-1, 2, 3)
            colours = [BONE_COLOURS[index] for index in bones]
            self.entry(f"{name}/{side} hand", rr.Points3D(points[seen], radii=0.004))
            self.entry(f"{name}/{side} hand/bones", rr.LineStrips3D(lines, colors=colours, radii=0.002))

    def picture(self, name: str, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8."""
        self.entry(name, self.rerun.Image(image).compress(jpeg_quality=JPEG_QUALITY))

    def film(self, name: str, frames: np.ndarray, fps: float) -> None:
        """Pictures (F, H, W, 3) uint8, `fps` of them a second."""
        for step, frame in enumerate(frames):
            self.at(step, fps)
            self.picture(name, frame)

    def figure(self, name: str, value: float) -> None:
        """One number of a curve, at the time that was set last."""
        self.entry(name, self.rerun.Scalars(float(value)))

    def curve(self, name: str, values: Any, fps: float = 1.0, first: int = 0) -> None:
        """Numbers over time; what is None is left out. first: the step of the first one."""
        for step, value in enumerate(values, first):
            if value is not None:
                self.at(step, fps)
                self.figure(name, value)

    def note(self, name: str, text: str) -> None:
        """A text in Markdown that belongs to no time."""
        media = self.rerun.MediaType.MARKDOWN
        self.entry(name, self.rerun.TextDocument(text, media_type=media), static=True)


def log_episodes(log: RerunLog, source: Source) -> None:
    """The first episodes of a dataset in the order of their ids, at most `MAX_EPISODES`."""
    shown = min(len(source), MAX_EPISODES)
    log.note("about", f"{shown} of {len(source)} episodes of {source.folder.name}")
    for index in range(shown):
        log.track(f"episode {source.ids[index]}", source[index])


def log_played(log: RerunLog, episode: EpisodeResult) -> None:
    """A planned episode: what was seen, imagined and filmed, the hand in space, and what the search found."""
    name = f"{episode.task} {episode.seed}"
    if episode.seen is not None:
        log.track(name, episode.seen)
    log.at(0)
    log.picture(f"{name}/goal", episode.goal_image)
    log.film(f"{name}/film", episode.outcome, episode.outcome_fps)
    for move, plan in enumerate(episode.plans):
        log.at(move)
        if plan.imagined is not None:
            log.picture(f"{name}/imagined", plan.imagined)
        if plan.statistics is None:
            continue
        log.figure(f"{name}/cost", plan.statistics.cost)
        for term, value in plan.statistics.terms.items():
            log.figure(f"{name}/terms/{term}", value)
        best = [step.best for step in plan.statistics.history]
        log.note(
            f"{name}/search/move {move + 1}", f"best cost by iteration: {', '.join(f'{each:.4g}' for each in best)}"
        )
    log.curve(f"{name}/distance to the goal, metres", (episode.distances[0],))
    log.curve(f"{name}/distance to the goal, metres", (episode.distances[1],), first=len(episode.plans))
    log.note(f"{name}/outcome", "success" if episode.success else "no success")


def log_imagined(log: RerunLog, imagined: Imagined, start: Track, frame: int, motion: AtomicConfig) -> None:
    """Imagined motions: the commanded hand in space, the pictures, and where the hand was told to be and is seen."""
    rr = log.rerun
    commanded = atomic_keypoints(start, frame, motion)
    for index, name in enumerate(imagined.names):
        for step, image in enumerate(imagined.images[index]):
            log.at(step, imagined.fps)
            log.camera(name, start.world_from_camera[frame], start.intrinsics, image.shape[:2])
            log.hands(name, commanded[name][step], start.keypoints_valid[frame])
            log.picture(f"{name}/camera/image", image)
            shown = imagined.in_view[index, step]
            for what, pixels in (("told", imagined.commanded_px), ("seen", imagined.predicted_px)):
                log.entry(f"{name}/camera/image/{what}", rr.Points2D(pixels[index, step][shown], radii=2.5))
        log.curve(f"{name}/change", imagined.change[index], imagined.fps, first=1)


def log_open_loop(log: RerunLog, figures: Mapping[str, Any], source: Source, fps: float) -> None:
    """An open-loop evaluation: its curves over the predicted steps, and the first episodes that it measured."""
    for name, values in figures["curves"].items():
        if name != "seconds":
            log.curve(f"curves/{name}", values, fps, first=1)
    log_episodes(log, source)


def log_tasks(log: RerunLog, results: list[Mapping[str, Any]]) -> None:
    """Outcomes of an evaluation of tasks, as its ledger holds them: distances to the goal over the moves, by policy."""
    for result in results:
        for policy, played in result.get("played", {}).items():
            name = f"{result['task']} {result['seed']}/{policy}"
            log.curve(f"{name}/distance to the goal, metres", played["distances"])
            log.curve(f"{name}/seconds of planning", played["seconds"])
            log.note(f"{name}/outcome", "success" if played["success"] else "no success")
