"""What runs in a worker process behind the view *DWM*: films of painted paths, imagined and true, and their ranking."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from dexworld.data.resize import Fit
from dexworld.models.reference import VIDEO
from dexworld.report.media import encode_mp4
from dexworld.studio.painted_path import PaintedPath
from dexworld.studio.still_scene import Still, StillScene, open_still, painted_clip
from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.select_actions import rank_order, scene_view
from dexworld.video.model.dwm import load_video_model
from dexworld.video.model.generate import Generator

SEED = 0  # of the noise: every path starts from the same
FILMS = 96  # that are kept
SCENES = 4  # that stay open


@dataclass(frozen=True)
class GoalPicture:
    """A goal of a visitor's own: pixels (height, width, 3), uint8."""

    pixels: bytes
    size: tuple[int, int]

    @classmethod
    def of(cls, picture: np.ndarray) -> "GoalPicture":
        """A picture (H, W, 3) uint8 as a goal."""
        return cls(picture.tobytes(), (picture.shape[0], picture.shape[1]))

    @property
    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.frombuffer(self.pixels, np.uint8).reshape(*self.size, 3)


@dataclass(frozen=True, eq=False)
class Film:
    """A video (F, H, W, 3) uint8, and the same as MP4."""

    frames: np.ndarray
    mp4: bytes


@dataclass(frozen=True, eq=False)
class OpenedStill:
    """A scene. static: its film without hands. cameras: world_from_camera (F, 4, 4). axes: of `camera_axes`.

    homes: where wrists start, (3,) metres, by hand. sentence: what the recording's hands do.
    """

    name: str
    static: Film
    fps: float
    cameras: np.ndarray
    intrinsics: np.ndarray
    axes: np.ndarray
    homes: dict[str, np.ndarray]
    goal: np.ndarray | None
    sentence: str


@dataclass(frozen=True, eq=False)
class PaintedFilm:
    """What the model makes of a path. keypoints: (F, 42, 3) metres, world, with valid (F, 42)."""

    film: Film
    keypoints: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, eq=False)
class PathRanking:
    """Paths by a goal. scores: (N,), at most 0, of the paths as given. order: (N,) of indices, best first."""

    scores: np.ndarray
    order: np.ndarray


class FilmPainter:
    """A video model, and the scenes that it was shown."""

    def __init__(self, checkpoint: str = VIDEO) -> None:
        self.generator = Generator(load_video_model(checkpoint))
        self.generator.check_texts()
        self._scene = lru_cache(maxsize=SCENES)(lambda still: open_still(still, self.generator.model.config.clip))
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    def begin(self, still: Still) -> OpenedStill:
        """Open a scene. Raises ValueError where there is none, or the model can't take it."""
        scene: StillScene = self._scene(still)
        clip = scene.recorded
        assert clip.track is not None
        self.generator.conditions([painted_clip(scene, PaintedPath())])
        return OpenedStill(
            name=f"the simulator, scene {still.seed}" if not still.folder else f"{still.folder}, clip {clip.name}",
            static=_film(clip.static, clip.fps),
            fps=clip.fps,
            cameras=np.asarray(clip.track.world_from_camera, float),
            intrinsics=np.asarray(clip.track.intrinsics, float),
            axes=scene.axes,
            homes={hand: scene.home(hand) for hand in ("left", "right")},
            goal=scene.goal,
            sentence=clip.prompt,
        )

    def film(self, still: Still, path: PaintedPath) -> PaintedFilm:
        """What the model expects of a path."""
        return self._made(still, path)[1]

    def truth(self, still: Still, path: PaintedPath) -> Film | None:
        """What really happens; None where nobody knows."""
        if ("truth", still, path) not in self._kept:
            scene: StillScene = self._scene(still)
            frames = scene.truth(path)
            self._keep(("truth", still, path), None if frames is None else _film(frames, scene.recorded.fps))
        return self._kept["truth", still, path]

    def ranking(self, still: Still, goal: GoalPicture | None, paths: tuple[PaintedPath, ...]) -> PathRanking:
        """The paths by a goal, the scene's own where none is given. Raises ValueError where the scene has none."""
        scene: StillScene = self._scene(still)
        made = [self._made(still, path) for path in paths]
        size = scene.recorded.static.shape[1:3]
        wanted = scene.goal
        if goal is not None:
            wanted = Fit.cover(goal.size, size).images(torch.from_numpy(goal.picture.copy())[None])[0].numpy()
        if wanted is None:
            raise ValueError("this scene has no goal picture; give one of your own")
        view = scene_view(wanted, [clip for clip, _ in made])
        scores = view.scores([painted.film.frames for _, painted in made])
        return PathRanking(scores, rank_order(scores, SEED))

    def _made(self, still: Still, path: PaintedPath) -> tuple[TripletClip, PaintedFilm]:
        if (still, path) not in self._kept:
            scene: StillScene = self._scene(still)
            clip = painted_clip(scene, path)
            (frames,) = self.generator.generate([clip], [SEED])
            assert clip.track is not None
            points = np.asarray(clip.track.keypoints_world, np.float32)
            self._keep((still, path), (clip, PaintedFilm(_film(frames, clip.fps), points, clip.track.keypoints_valid)))
        return self._kept[still, path]

    def _keep(self, key: Any, value: Any) -> None:
        self._kept[key] = value
        while len(self._kept) > FILMS:
            self._kept.popitem(last=False)


def _film(frames: np.ndarray, fps: float) -> Film:
    return Film(frames, encode_mp4(frames, fps))
