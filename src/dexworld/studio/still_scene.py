"""A still scene to paint a hand's path over: a simulated one by its seed, or a clip of a triplet folder."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.options import check_index
from dexworld.sim.hands.hand_clips import ATTEMPTS, Artist, HandClipConfig, camera_path, draw_scripts, simulate
from dexworld.sim.hands.hand_motion import Motion, fixtures_for
from dexworld.sim.hands.hand_puppet import HandPuppet
from dexworld.sim.hands.hand_scene import HandScene, random_hand_layout
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.render import make_renderer
from dexworld.studio.painted_path import PaintedPath, camera_axes, script_of
from dexworld.studio.start_frame import upward
from dexworld.video.clips.clip import ClipShape, TripletClip
from dexworld.video.clips.hand_video import render_track
from dexworld.video.clips.synthetic_clips import triplet_of
from dexworld.video.clips.triplets import open_triplets
from dexworld.video.judge.goal_image import hand_masks

HOME = np.array([0.35, -0.18, 1.05])  # metres, of a right wrist in a simulated scene: over the counter's near edge
MOVED = 0.02  # metres, or the same share of a drawer's or door's way: less is no goal
AHEAD = 0.45  # metres in front of the camera that a wrist of a recording starts at where none is tracked


@dataclass(frozen=True)
class Still:
    """Which scene. seed: of the simulator. folder, clip: of a triplet folder."""

    seed: int = 900_000
    folder: str = ""
    clip: int = 0


class StillScene(Protocol):
    """recorded: the scene's own clip, whose static video is the scene. axes: of `camera_axes`. goal: (H, W, 3) uint8, a
    wanted last picture without hands, or None where none is known."""

    recorded: TripletClip
    axes: np.ndarray
    goal: np.ndarray | None
    puppet: HandPuppet

    @property
    def floor(self) -> float | None:
        """Height in metres, along z, that hands stay above."""

    def home(self, hand: str) -> np.ndarray:
        """Where a wrist starts, (3,) metres, world."""

    def truth(self, path: PaintedPath) -> np.ndarray | None:
        """What really happens, (F, H, W, 3) uint8; None where nobody knows."""


def open_still(still: Still, shape: ClipShape) -> StillScene:
    """The scene. Raises ValueError where there is no such clip, or it lacks the camera that painting needs."""
    return RecordedStill(still) if still.folder else SimulatedStill(still.seed, shape)


def painted_clip(scene: StillScene, path: PaintedPath) -> TripletClip:
    """The scene with painted hands, as a video model is shown it: the outcome is not in it.

    The hands move as if nothing stopped them; a path without way-points has the hands of the recording.
    """
    known = replace(scene.recorded, interaction=scene.recorded.static)
    if not path.points or known.track is None:
        return known
    script = script_of(path, scene.axes, scene.puppet, scene.floor)
    keypoints, valid = scene.puppet.keypoints((script,), len(known.static))
    valid = np.broadcast_to(valid, keypoints.shape[:2])
    track = known.track.with_columns(keypoints_world=keypoints, keypoints_valid=valid)
    return replace(known, hands=render_track(track, *known.static.shape[1:3]), track=track)


class SimulatedStill:
    """A scene of the simulator, in which any path can be tried. See `StillScene`.

    Its goal is what the clip of this seed leads to, or, where that clip moves nothing, another act in this scene.
    """

    floor = COUNTER_TOP

    def __init__(self, seed: int, shape: ClipShape) -> None:
        self.config = HandClipConfig(shape.frames, shape.height, shape.width, shape.fps)
        self.scene = HandScene(random_hand_layout(seed, fixtures_for(self.config.skills)), *self.config.drawn_size)
        self._cameras, self.puppet = camera_path(seed, self.config), HandPuppet(self.scene.hands)
        self.axes = camera_axes(self._cameras[0], np.array([0.0, 0.0, 1.0]))
        scripts, motion = draw_scripts(
            self.scene, np.random.default_rng([seed, 14]), self.config
        )  # the clip of the seed
        wanted, draw = motion, 0
        while not _changes(wanted) and draw < ATTEMPTS:
            _, wanted = draw_scripts(self.scene, np.random.default_rng([seed, 17, draw]), self.config)
            draw += 1
        with make_renderer(self.scene.model, *self.config.drawn_size) as renderer:
            artist = Artist(self.scene, renderer, self.config)
            self._static = artist.static(motion.states[0], self._cameras)
            self.recorded = triplet_of(artist.clip(motion, scripts, self._cameras, self._static))
            self.goal = artist.static(wanted.states[-1], self._cameras[-1:])[0] if _changes(wanted) else None

    def home(self, hand: str) -> np.ndarray:
        """See `StillScene.home`."""
        return HOME * (1.0, 1.0 if hand == "right" else -1.0, 1.0)

    def truth(self, path: PaintedPath) -> np.ndarray:
        """See `StillScene.truth`: the path carried out in the simulator."""
        if not path.points:
            return self.recorded.interaction
        scripts = (script_of(path, self.axes, self.puppet, self.floor),)
        motion = simulate(self.scene, scripts, self.config)
        with make_renderer(self.scene.model, *self.config.drawn_size) as renderer:
            artist = Artist(self.scene, renderer, self.config)
            return artist.clip(motion, scripts, self._cameras, self._static).interaction


class RecordedStill:
    """A clip of a triplet folder. See `StillScene`.

    Its goal is the recording's last picture, in which what the hands cover counts as unchanged.
    """

    floor = None

    def __init__(self, still: Still) -> None:
        triplets = open_triplets(still.folder)
        check_index("clip", still.clip, len(triplets), still.folder)
        self.recorded, self.puppet = triplets[still.clip], HandPuppet()
        if (track := self.recorded.track) is None:
            lack = f"clip {self.recorded.name} has no hand_motions/<name>.npz, so its camera isn't known"
            raise ValueError(f"{still.folder}: {lack}; `dexworld video track-hands` finds them in plain video")
        self._track = track
        self.axes = camera_axes(track.world_from_camera[0], upward(track.world_from_camera[0]))
        hidden = hand_masks([self.recorded.hands], [track])[0][..., None]
        goal = np.where(hidden, self.recorded.static[-1], self.recorded.interaction[-1])
        self.goal = None if np.array_equal(goal, self.recorded.static[-1]) else goal

    def home(self, hand: str) -> np.ndarray:
        """See `StillScene.home`."""
        wrist = (RIGHT if hand == "right" else LEFT).start + WRIST
        seen = np.flatnonzero(self._track.keypoints_valid[:, wrist])
        if len(seen):
            return self._track.keypoints_world[seen[0], wrist].astype(float)
        pose = self._track.world_from_camera[0]
        return pose[:3, 3] + AHEAD * pose[:3, 2]

    def truth(self, path: PaintedPath) -> np.ndarray | None:
        """See `StillScene.truth`: known of the recording's own hands only."""
        return None if path.points else self.recorded.interaction


def _changes(motion: Motion) -> bool:
    first, last = motion.states[0], motion.states[-1]
    return bool(motion.moved.max(initial=0.0) > MOVED or abs(last.opening - first.opening) > MOVED)
