"""Video triplets of hands that act on a counter: interaction, static scene and hands only, pixel aligned.

The three pictures of a frame share one camera pose (DWM paper, section 3; the released TRUMANS rendering): the
interaction shows everything, the static scene shows the clip's first state without hands or their shadows, the hands
pass shows only the hands, left green and right red, lit from the camera on black, and neither scene nor forearm hides
them. Every clip follows from its seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dexworld.hands import HAND_AMBIENT, HAND_COLOURS, HAND_DIFFUSE
from dexworld.sim.hands.hand_choice import draw_script, sentence
from dexworld.sim.hands.hand_physics import HandWorld
from dexworld.sim.hands.hand_scene import HEAD_POSITION, HEAD_TARGET, HandScene, SceneState, random_hand_layout
from dexworld.sim.hands.hand_skills import SKILLS, HandScript, Writer, idle
from dexworld.sim.hands.human_hands import FOREARM_GROUP, HAND_GROUP, SIDES
from dexworld.sim.render import Renderer, View, make_renderer

STEPS_PER_FRAME = 10
MIN_STEPS = 160  # a hand may not jump through an object, however few frames a clip has
ATTEMPTS = 12
VIEW_CENTRE, VIEW_HALF = np.array([0.62, 0.0, 1.0]), np.array([0.2, 0.27, 1.0])  # where an object may end
_EVERYTHING = View(groups=(0, 1, HAND_GROUP, FOREARM_GROUP))
_NO_HANDS = View(groups=(0, 1))
_ONLY_HANDS = View(groups=(HAND_GROUP,), shadows=False)


@dataclass(frozen=True)
class HandClipConfig:
    """What clips look like.

    frames, height, width (px), fps: of the stored videos. moving_camera: the head moves a little. shadows: hands cast
    shadows. skills: which scripts are drawn. supersample: pictures are drawn this many times larger and averaged.
    idle_share: share of the clips in which the other hand rests in view. both_share: of the clips about
    objects for which both hands are tried (about half of them fit).
    touch_nothing: share of the clips that end in nothing having moved, half of them near misses.
    """

    frames: int = 17
    height: int = 96
    width: int = 144
    fps: float = 8.0
    moving_camera: bool = True
    shadows: bool = True
    skills: tuple[str, ...] = SKILLS
    supersample: int = 2
    idle_share: float = 0.2
    both_share: float = 0.35
    touch_nothing: float = 0.16

    def __post_init__(self) -> None:
        unknown = set(self.skills) - set(SKILLS)
        if unknown or not self.skills:
            raise ValueError(f"skills {self.skills} must be some of {SKILLS}; unknown: {sorted(unknown)}")
        if self.frames < 2 or self.height < 16 or self.width < 16 or self.fps <= 0 or self.supersample < 1:
            raise ValueError(
                f"a clip needs frames >= 2, height and width >= 16 px, fps > 0 and supersample >= 1, got {self}"
            )
        shares = (self.idle_share, self.both_share, self.touch_nothing)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"idle_share, both_share and touch_nothing are shares in [0, 1], got {shares}")
        if not {"push", "grasp"} & set(self.skills) and self.both_share > 0 and self.skills != ("reach",):
            object.__setattr__(self, "both_share", 0.0)  # only object skills combine


@dataclass(frozen=True)
class HandClip:
    """One clip. F frames, n objects; world frame and optical camera frames (x right, y down, z forward), metres.

    interaction, static, hands: (F, H, W, 3) uint8. keypoints_world (F, 42, 3) float32 and keypoints_valid (F, 42) bool
    in the order of `dexworld.hands`. world_from_camera (F, 4, 4); intrinsics (3, 3) px. hand_mask: (F, H, W) bool,
    where a hand is visible in the interaction. object_positions: (F, n, 3). fixture_opening: (F,) metres of a drawer or
    radians of a door, None without one. touched: something moved.
    """

    interaction: np.ndarray
    static: np.ndarray
    hands: np.ndarray
    hand_mask: np.ndarray
    keypoints_world: np.ndarray
    keypoints_valid: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    fps: float
    prompt: str
    skill: str
    seed: int
    object_names: tuple[str, ...]
    object_positions: np.ndarray
    fixture_kind: str
    fixture_opening: np.ndarray | None
    touched: bool

    def __post_init__(self) -> None:
        shape = self.interaction.shape
        if self.static.shape != shape or self.hands.shape != shape or self.hand_mask.shape != shape[:3]:
            raise ValueError(
                f"clip of seed {self.seed}: the passes differ in shape: interaction {shape}, static "
                f"{self.static.shape}, hands {self.hands.shape}, hand_mask {self.hand_mask.shape}"
            )


@dataclass(frozen=True)
class Motion:
    """What a simulation leaves: per frame the scene's state and both hands' poses.

    hands: per frame a dict side -> (position (3,), rotation (3, 3), shape (16,)).
    """

    states: tuple[SceneState, ...]
    hands: tuple[dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], ...]

    @property
    def moved(self) -> np.ndarray:
        """How far each object is from its start at the end (n,), metres."""
        return np.linalg.norm(self.states[-1].positions - self.states[0].positions, axis=1)


def record_hand_clip(seed: int, config: HandClipConfig | None = None, backend: str = "auto") -> HandClip:
    """The clip of `seed`: same seed and configuration, same bytes on the same machine. About 0.7 CPU-seconds.

    Scripts are drawn until what they say comes true, `ATTEMPTS` times at most; then the last draw of a hovering hand,
    which can hardly fail, stands.
    """
    config = config or HandClipConfig()
    layout = random_hand_layout(seed, fixtures_for(config.skills))
    scene = HandScene(layout, config.height * config.supersample, config.width * config.supersample)
    scripts, motion = draw_scripts(scene, np.random.default_rng([seed, 14]), config)
    cameras = camera_path(seed, config)
    with make_renderer(
        scene.model, config.height * config.supersample, config.width * config.supersample, backend
    ) as renderer:
        artist = Artist(scene, renderer, config)
        return artist.clip(motion, scripts, cameras, artist.static(motion.states[0], cameras))


def fixtures_for(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The fixtures that scenes may have when only these skills are drawn."""
    if set(chosen) <= {"drawer", "door"}:
        return chosen
    return ("none", *(kind for kind in ("drawer", "door") if kind in chosen))


def simulate(scene: HandScene, scripts: Sequence[HandScript], config: HandClipConfig) -> Motion:
    """Act out scripts. States and hand poses at every frame, the first of them at time 0."""
    world = HandWorld(scene)
    states, poses = [], []
    per_frame = max(STEPS_PER_FRAME, math.ceil(MIN_STEPS / (config.frames - 1)))
    seconds = 1.0 / (config.fps * per_frame)
    steps = (config.frames - 1) * per_frame
    for step in range(steps + 1):
        commands = {script.side: script.command(step / steps) for script in scripts}
        world.step(commands, seconds)
        if step % per_frame == 0:
            states.append(world.state.copy())
            poses.append({s: (c.position, c.rotation, world.shapes[s].copy()) for s, c in commands.items()})
    return Motion(tuple(states), tuple(poses))


def draw_scripts(
    scene: HandScene, rng: np.random.Generator, config: HandClipConfig
) -> tuple[tuple[HandScript, ...], Motion]:
    """Scripts for a clip, drawn until their sentences come true in `scene`, and what they do."""
    nothing = rng.random() < config.touch_nothing
    hover = nothing and (rng.random() < 0.5 or config.skills == ("reach",)) and "reach" in config.skills
    for attempt in range(ATTEMPTS):
        hover = hover or attempt >= ATTEMPTS - 4
        writer = Writer(scene, rng)
        miss = nothing and not hover
        scripts: tuple[HandScript, ...] = draw_script(writer, config.skills, hover, miss, config.both_share)
        if len(scripts) == 1 and rng.random() < config.idle_share:
            other = -1.0 if scripts[0].side == "right" else 1.0
            scripts = (*scripts, idle(writer, other))
        motion = simulate(scene, scripts, config)
        if comes_true(scene, scripts, motion):
            return scripts, motion
    scripts = (replace(idle(Writer(scene, rng), 1.0), skill="reach", text="my right hand rests over the counter"),)
    return scripts, simulate(scene, scripts, config)


def comes_true(scene: HandScene, scripts: Sequence[HandScript], motion: Motion) -> bool:
    """Whether every script had its effect, and nothing else was moved by more than 3 cm."""
    moved = motion.moved
    calm = np.ones(len(moved), bool)
    opened = opening_metres(scene, motion.states[-1])
    fixture_used = False
    for script in scripts:
        if script.skill == "idle":
            continue
        if script.effect == 0:
            if moved.max(initial=0) > 1e-6 or opened > 1e-6:
                return False
        elif script.target >= 0:
            calm[script.target] = False
            if moved[script.target] < script.effect:
                return False
            if "lifts" in script.text and motion.states[-1].positions[script.target, 2] < (
                motion.states[0].positions[script.target, 2] + script.effect
            ):
                return False
        else:
            fixture_used = True
            if opened < script.effect:
                return False
    in_view = (np.abs(motion.states[-1].positions - VIEW_CENTRE) < VIEW_HALF).all()
    bystanders = moved[calm].max(initial=0) < (0.12 if fixture_used else 0.03)
    return bool(in_view and bystanders and (fixture_used or opened < 1e-6))


def opening_metres(scene: HandScene, state: SceneState) -> float:
    """How far the fixture's handle travelled, metres."""
    fixture = scene.layout.fixture
    if fixture is None:
        return 0.0
    return state.opening * (1.0 if fixture.kind == "drawer" else fixture.bar_offset)


def camera_path(seed: int, config: HandClipConfig) -> np.ndarray:
    """world_from_camera (F, 4, 4) of a head that leans and turns a little; constant if the camera doesn't move."""
    rng = np.random.default_rng([seed, 13])
    place = np.array(HEAD_POSITION) + rng.normal(0, 1, 3) * [0.025, 0.03, 0.025]
    target = np.array(HEAD_TARGET) + rng.normal(0, 1, 3) * [0.02, 0.025, 0.01]
    roll = float(rng.normal(0, 0.03))
    time = np.linspace(0, 1, config.frames)
    waves = rng.normal(0, 1, (2, 3, 2)) * np.array([1.0, 0.5])  # place and target; x, y, z; slow and quicker
    phases = rng.uniform(0, 2 * math.pi, (2, 3, 2))
    path = np.zeros((config.frames, 4, 4))
    for frame, share in enumerate(time if config.moving_camera else np.zeros(config.frames)):
        sway = (waves * np.sin(math.pi * np.array([1.0, 2.0]) * share + phases)).sum(axis=-1)
        path[frame] = looking_at(place + 0.011 * sway[0], target + 0.015 * sway[1], roll)
    return path


def looking_at(place: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """world_from_camera (4, 4), optical axes, of a camera at `place` that looks at `target`; `roll` radians."""
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = math.cos(roll), math.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1] = cosine * right + sine * down, cosine * down - sine * right
    pose[:3, 2], pose[:3, 3] = forward, place
    return pose


class Artist:
    """Draws the passes of clips in one scene."""

    def __init__(self, scene: HandScene, renderer: Renderer, config: HandClipConfig) -> None:
        self.scene, self.renderer, self.config = scene, renderer, config
        self.data = mujoco.MjData(scene.model)
        model = scene.model
        focal = 0.5 * config.width / math.tan(math.radians(scene.layout.fov_deg) / 2)
        self.intrinsics = np.array([[focal, 0, config.width / 2], [0, focal, config.height / 2], [0, 0, 1.0]])
        self._hand_geoms = np.concatenate([scene.hands.geoms[side] for side in SIDES])
        self._skin = model.geom_rgba.copy()
        self._head_light = [np.array(x) for x in (model.vis.headlight.ambient, model.vis.headlight.diffuse)]
        self._shine = np.array(model.vis.headlight.specular)

    def static(self, state: SceneState, cameras: np.ndarray) -> np.ndarray:
        """(F, H, W, 3) uint8: `state` without hands from every camera pose."""
        for side in SIDES:
            self.scene.hands.hide_hand(self.data, side)
        self.scene.pose(self.data, state)
        if (cameras == cameras[0]).all():
            return np.repeat(self._picture(cameras[0], _NO_HANDS)[None], len(cameras), axis=0)
        return np.stack([self._picture(camera, _NO_HANDS) for camera in cameras])

    def clip(self, motion: Motion, scripts: Sequence[HandScript], cameras: np.ndarray, static: np.ndarray) -> HandClip:
        """Draw a simulated motion."""
        present = tuple(script.side for script in scripts)
        passes: dict[str, list] = {"interaction": [], "hands": [], "hand_mask": [], "points": [], "valid": []}
        for state, poses, camera in zip(motion.states, motion.hands, cameras, strict=True):
            self._pose(state, poses)
            whole = self._draw(camera, _EVERYTHING)
            visible = np.isin(self.renderer.segmentation(self.data, self.scene.camera, _EVERYTHING), self._hand_geoms)
            if not self.config.shadows:
                whole = self._without_hand_shadows(whole)
            passes["interaction"].append(self._average(whole))
            passes["hand_mask"].append(self._average((visible * 255).astype(np.uint8)[..., None])[..., 0] >= 128)
            passes["hands"].append(self._hands_only())
            points, valid = self.scene.hands.keypoints(self.data, present)
            passes["points"].append(points)
            passes["valid"].append(valid)
        fixture = self.scene.layout.fixture
        first, last = motion.states[0], motion.states[-1]
        acting = [script for script in scripts if script.skill != "idle"]
        return HandClip(
            interaction=np.stack(passes["interaction"]),
            static=static,
            hands=np.stack(passes["hands"]),
            hand_mask=np.stack(passes["hand_mask"]),
            keypoints_world=np.stack(passes["points"]),
            keypoints_valid=np.stack(passes["valid"]),
            world_from_camera=cameras,
            intrinsics=self.intrinsics,
            fps=self.config.fps,
            prompt=sentence(scripts),
            skill="+".join(script.skill for script in acting),
            seed=self.scene.layout.seed,
            object_names=self.scene.layout.names,
            object_positions=np.stack([state.positions for state in motion.states]),
            fixture_kind="none" if fixture is None else fixture.kind,
            fixture_opening=None if fixture is None else np.array([state.opening for state in motion.states]),
            touched=bool(motion.moved.max(initial=0) > 1e-6 or last.opening != first.opening),
        )

    def _pose(self, state: SceneState, poses: dict) -> None:
        self.scene.pose(self.data, state)
        for side in SIDES:
            if side in poses:
                self.scene.hands.set_hand(self.data, side, *poses[side])
            else:
                self.scene.hands.hide_hand(self.data, side)

    def _draw(self, camera: np.ndarray, view: View) -> np.ndarray:
        self.scene.look(camera)
        self.scene.refresh(self.data)
        return self.renderer.rgb(self.data, self.scene.camera, view)

    def _picture(self, camera: np.ndarray, view: View) -> np.ndarray:
        return self._average(self._draw(camera, view))

    def _without_hand_shadows(self, whole: np.ndarray) -> np.ndarray:
        """The picture without hands, with hands and forearms pasted in where they are visible."""
        ids = self.renderer.segmentation(self.data, self.scene.camera, _EVERYTHING)
        group = np.concatenate([self.scene.model.geom_group, [0]])[ids]  # -1, nothing, is the last entry
        person = np.isin(group, (HAND_GROUP, FOREARM_GROUP))
        empty = self.renderer.rgb(self.data, self.scene.camera, _NO_HANDS)
        return np.where(person[..., None], whole, empty)

    def _hands_only(self) -> np.ndarray:
        """The pass that a model is conditioned on, at the current camera."""
        model = self.scene.model
        lights = model.light_active.copy()
        try:
            for side in SIDES:
                model.geom_rgba[self.scene.hands.geoms[side], :3] = HAND_COLOURS[side]
            model.light_active[:] = 0
            model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = HAND_AMBIENT, HAND_DIFFUSE
            model.vis.headlight.specular[:] = 0
            picture = self.renderer.rgb(self.data, self.scene.camera, _ONLY_HANDS)
        finally:
            model.geom_rgba[:], model.light_active[:] = self._skin, lights
            model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = self._head_light
            model.vis.headlight.specular[:] = self._shine
        return self._average(picture)

    def _average(self, picture: np.ndarray) -> np.ndarray:
        """Area average down to the stored size (H, W, C)."""
        scale = self.config.supersample
        if scale == 1:
            return picture
        wide = picture.astype(np.uint16)
        total = np.sum([wide[row::scale, column::scale] for row in range(scale) for column in range(scale)], axis=0)
        return ((total + scale * scale // 2) // (scale * scale)).astype(np.uint8)
