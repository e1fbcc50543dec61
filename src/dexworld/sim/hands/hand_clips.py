"""Video triplets of hands that act on a counter: interaction, static scene and hands only, pixel aligned.

The three pictures of a frame share one camera pose (DWM paper, section 3; the released TRUMANS rendering). The
interaction shows everything. The static scene shows the clip's first state without hands or their shadows. The hands
pass shows only the hands, left green and right red, lit from the camera on black; neither scene nor forearm hides them.
Every clip follows from its seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dexworld.hands import HAND_AMBIENT, HAND_COLOURS, HAND_DIFFUSE
from dexworld.sim.hands.hand_motion import Motion, act, check_skills, comes_true, draw_script, fixtures_for, sentence
from dexworld.sim.hands.hand_physics import HandWorld
from dexworld.sim.hands.hand_scene import HEAD_POSITION, HEAD_TARGET, HandScene, SceneState, random_hand_layout
from dexworld.sim.hands.hand_skills import SKILLS, HandScript, Writer, idle
from dexworld.sim.hands.human_hands import ABSENT, FOREARM_GROUP, HAND_GROUP, SIDES
from dexworld.sim.poses import focal_length, looking_at, pinhole
from dexworld.sim.render import make_renderer
from dexworld.sim.renderer import Renderer, View

STEPS_PER_FRAME = 10
MIN_STEPS = 160  # a hand may not jump through an object, however few frames a clip has
ATTEMPTS = 12
IDLE_SHARE = 0.2  # of the clips: the other hand rests in view
BOTH_SHARE = 0.35  # of the clips about objects: both hands are tried; about half of them fit
QUIET_SHARE = 0.16  # of the clips: nothing moves; half of them are near misses
_EVERYTHING = View(groups=(0, 1, HAND_GROUP, FOREARM_GROUP))
_NO_HANDS = View(groups=(0, 1))
_ONLY_HANDS = View(groups=(HAND_GROUP,), shadows=False)


@dataclass(frozen=True)
class HandClipConfig:
    """What clips look like.

    frames, height, width (px), fps: of the stored videos. moving_camera: the head moves a little. skills: which scripts
    are drawn. supersample: pictures are drawn this many times larger and averaged.
    """

    frames: int = 17
    height: int = 96
    width: int = 144
    fps: float = 8.0
    moving_camera: bool = True
    skills: tuple[str, ...] = SKILLS
    supersample: int = 2

    def __post_init__(self) -> None:
        check_skills(self.skills)
        if self.frames < 2 or self.height < 16 or self.width < 16 or self.fps <= 0 or self.supersample < 1:
            raise ValueError(
                f"a clip needs frames >= 2, height and width >= 16 px, fps > 0 and supersample >= 1, got {self}"
            )

    @property
    def drawn_size(self) -> tuple[int, int]:
        """Height and width at which pictures are drawn, px."""
        return self.height * self.supersample, self.width * self.supersample


@dataclass(frozen=True)
class HandClip:
    """One clip. F frames, n objects; world frame and optical camera frames (x right, y down, z forward), metres.

    interaction, static, hands: (F, H, W, 3) uint8. keypoints_world (F, 42, 3) float32 and keypoints_valid (F, 42) bool
    in the order of `dexworld.hands`. world_from_camera (F, 4, 4); intrinsics (3, 3) px. object_positions: (F, n, 3).
    touched: something moved.
    """

    interaction: np.ndarray
    static: np.ndarray
    hands: np.ndarray
    keypoints_world: np.ndarray
    keypoints_valid: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    fps: float
    prompt: str
    seed: int
    object_names: tuple[str, ...]
    object_positions: np.ndarray
    touched: bool


def record_hand_clip(seed: int, config: HandClipConfig | None = None, backend: str = "auto") -> HandClip:
    """The clip of `seed`: same seed and configuration, same bytes on the same machine. About 0.7 CPU-seconds.

    Scripts are drawn until what they say comes true, `ATTEMPTS` times at most; then the last draw of a hovering hand,
    which can hardly fail, stands.
    """
    config = config or HandClipConfig()
    scene = HandScene(random_hand_layout(seed, fixtures_for(config.skills)), *config.drawn_size)
    scripts, motion = draw_scripts(scene, np.random.default_rng([seed, 14]), config)
    cameras = camera_path(seed, config)
    with make_renderer(scene.model, *config.drawn_size, backend) as renderer:
        artist = Artist(scene, renderer, config)
        return artist.clip(motion, scripts, cameras, artist.static(motion.states[0], cameras))


def simulate(scene: HandScene, scripts: Sequence[HandScript], config: HandClipConfig) -> Motion:
    """Act out scripts from the scene's start. States and hand poses at every frame, the first of them at time 0."""
    per_frame = max(STEPS_PER_FRAME, math.ceil(MIN_STEPS / (config.frames - 1)))
    return act(HandWorld(scene), scripts, config.frames - 1, config.fps, per_frame)


def draw_scripts(
    scene: HandScene, rng: np.random.Generator, config: HandClipConfig
) -> tuple[tuple[HandScript, ...], Motion]:
    """Scripts for a clip, drawn until their sentences come true in `scene`, and what they do."""
    nothing = rng.random() < QUIET_SHARE
    hover = nothing and (rng.random() < 0.5 or config.skills == ("reach",)) and "reach" in config.skills
    writer = Writer(scene, rng)
    for attempt in range(ATTEMPTS):
        hover = hover or attempt >= ATTEMPTS - 4
        scripts = draw_script(writer, config.skills, hover, nothing and not hover, BOTH_SHARE)
        if len(scripts) == 1:
            scripts = with_idle_hand(writer, scripts[0])
        motion = simulate(scene, scripts, config)
        if comes_true(scene, scripts, motion):
            return scripts, motion
    scripts = (replace(idle(writer, 1.0), skill="reach", text="my right hand rests over the counter"),)
    return scripts, simulate(scene, scripts, config)


def with_idle_hand(writer: Writer, script: HandScript) -> tuple[HandScript, ...]:
    """The script, now and then with the other hand at rest."""
    if writer.rng.random() >= IDLE_SHARE:
        return (script,)
    return script, idle(writer, -1.0 if script.side == "right" else 1.0)


def draw_head(rng: np.random.Generator, lean: float = 0.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Where a head is and looks, both (3,) m, and its roll. lean: metres that it looks nearer than usual."""
    place = np.array(HEAD_POSITION) + rng.normal(0, 1, 3) * [0.025, 0.03, 0.025]
    target = np.array(HEAD_TARGET) + [-lean, 0, 0] + rng.normal(0, 1, 3) * [0.02, 0.025, 0.01]
    return place, target, float(rng.normal(0, 0.03))


def camera_path(seed: int, config: HandClipConfig) -> np.ndarray:
    """world_from_camera (F, 4, 4) of a head that leans and turns a little; constant if the camera doesn't move."""
    rng = np.random.default_rng([seed, 13])
    place, target, roll = draw_head(rng)
    waves = rng.normal(0, 1, (2, 3, 2)) * np.array([1.0, 0.5])  # place and target; x, y, z; slow and quicker
    phases = rng.uniform(0, 2 * math.pi, (2, 3, 2))
    path = []
    for share in np.linspace(0, 1, config.frames) if config.moving_camera else np.zeros(config.frames):
        sway = (waves * np.sin(math.pi * np.array([1.0, 2.0]) * share + phases)).sum(axis=-1)
        path.append(looking_at(place + 0.011 * sway[0], target + 0.015 * sway[1], roll))
    return np.stack(path)


class Artist:
    """Draws the passes of clips in one scene."""

    def __init__(self, scene: HandScene, renderer: Renderer, config: HandClipConfig) -> None:
        self.scene, self.renderer, self.config = scene, renderer, config
        self.data = mujoco.MjData(scene.model)
        focal = focal_length(config.width, scene.layout.fov_deg)
        self.intrinsics = pinhole(focal, config.height, config.width)

    def static(self, state: SceneState, cameras: np.ndarray) -> np.ndarray:
        """(F, H, W, 3) uint8: `state` without hands from every camera pose."""
        self._pose(state, {})
        count = 1 if (cameras == cameras[0]).all() else len(cameras)
        pictures = []
        for camera in cameras[:count]:
            self.scene.look(self.data, camera)
            pictures.append(self._average(self._draw(_NO_HANDS)))
        return np.repeat(np.stack(pictures), len(cameras) // count, axis=0)

    def clip(self, motion: Motion, scripts: Sequence[HandScript], cameras: np.ndarray, static: np.ndarray) -> HandClip:
        """Draw a simulated motion."""
        present = tuple(script.side for script in scripts)
        rows = []
        for state, poses, camera in zip(motion.states, motion.hands, cameras, strict=True):
            self._pose(state, poses)
            self.scene.look(self.data, camera)
            interaction, hands = self._average(self._draw(_EVERYTHING)), self._hands_only()
            rows.append((interaction, hands, *self.scene.hands.keypoints(self.data, present)))
        interaction, hands, points, valid = (np.stack(column) for column in zip(*rows, strict=True))
        return HandClip(
            interaction=interaction,
            static=static,
            hands=hands,
            keypoints_world=points,
            keypoints_valid=valid,
            world_from_camera=cameras,
            intrinsics=self.intrinsics,
            fps=self.config.fps,
            prompt=sentence([scripts]),
            seed=self.scene.layout.seed,
            object_names=self.scene.layout.names,
            object_positions=np.stack([state.positions for state in motion.states]),
            touched=bool(motion.moved.max(initial=0) > 1e-6 or motion.states[-1].opening != motion.states[0].opening),
        )

    def _pose(self, state: SceneState, poses: dict) -> None:
        self.scene.pose(self.data, state)
        for side in SIDES:
            self.scene.hands.set_hand(self.data, side, *poses.get(side, ABSENT))

    def _draw(self, view: View) -> np.ndarray:
        return self.renderer.rgb(self.data, self.scene.camera, view)

    def _hands_only(self) -> np.ndarray:
        """The pass that a model is conditioned on, at the current camera. The model's colours and lights come back."""
        model = self.scene.model
        light = model.vis.headlight
        changed = (model.geom_rgba, model.light_active, light.ambient, light.diffuse, light.specular)
        before = [values.copy() for values in changed]
        try:
            for side in SIDES:
                model.geom_rgba[self.scene.hands.geoms[side], :3] = HAND_COLOURS[side]
            model.light_active[:] = 0
            light.ambient[:], light.diffuse[:], light.specular[:] = HAND_AMBIENT, HAND_DIFFUSE, 0
            return self._average(self._draw(_ONLY_HANDS))
        finally:
            for values, old in zip(changed, before, strict=True):
                values[:] = old

    def _average(self, picture: np.ndarray) -> np.ndarray:
        """Area average down to the stored size (H, W, C)."""
        scale = self.config.supersample
        if scale == 1:
            return picture
        wide = picture.astype(np.uint16)
        total = np.sum([wide[row::scale, column::scale] for row in range(scale) for column in range(scale)], axis=0)
        return ((total + scale * scale // 2) // (scale * scale)).astype(np.uint8)
