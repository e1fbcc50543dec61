"""Egocentric video of two human hands at work on a kitchen counter: an offline stand-in for EgoDex.

A recording is some seconds of several acts (`human_acts`): hands reach, push, grasp and carry things and open a drawer
or a door. The head that carries the camera sways and follows the hands. The camera has EgoDex's field of view.
World frame: x away from the person over the counter, y to the left, z up, metres; `egodex_format` makes it EgoDex's.

Further columns of a recorded `Track` (T frames):

    keypoint_confidence    (T, 42) float32, `CONFIDENCE`: by rays from the camera, not by what was drawn
    hand_poses_world       (T, 2, 4, 4) left and right wrist; z along the stretched fingers, x out of the palm
    hand_metacarpals_world (T, 8, 3) index to little finger, left then right
    body_world, body_valid (T, 18, 3), (T, 18): synthetic, see `human_body`
    object_motion          (T,) metres that objects and fixture moved since the frame before, the furthest of them
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import mujoco
import numpy as np

from dexworld.hands import BODY_KEYPOINTS, LEFT, RIGHT
from dexworld.sim.hands.hand_choice import sentence
from dexworld.sim.hands.hand_clips import draw_head
from dexworld.sim.hands.hand_motion import Motion, Pose, check_skills, fixtures_for
from dexworld.sim.hands.hand_scene import HandScene, SceneState, random_hand_layout
from dexworld.sim.hands.hand_skills import SKILLS
from dexworld.sim.hands.human_acts import Act, act_out
from dexworld.sim.hands.human_body import FOREARM, UPPER_ARM, upper_body
from dexworld.sim.hands.human_hands import FOREARM_GROUP, HAND_GROUP, SIDES, HandLooks
from dexworld.sim.kitchen.kitchen_scene import add_decor
from dexworld.sim.poses import looking_at, pinhole, pose
from dexworld.sim.render import make_renderer
from dexworld.sim.renderer import View
from dexworld.track import ArrayFrames, Track

FOCAL_OVER_WIDTH = 736.6339 / 1920  # EgoDex's constant intrinsics: fx = fy = 736.6339 px at 1920 x 1080
# Of a keypoint: seen; behind its own hand or arm; behind something else; outside the picture.
CONFIDENCE = {"visible": 1.0, "self_occluded": 0.7, "occluded": 0.4, "out_of_view": 0.1}
_EVERYTHING = View(groups=(0, 1, HAND_GROUP, FOREARM_GROUP))
_FLESH = 0.03  # metres: a joint lies at most this far under its skin, seen from anywhere
_GAZE_SECONDS, _GAZE_SHARE = 0.35, 0.45  # how slowly and how far the head follows the hands


@dataclass(frozen=True)
class HumanVideoConfig:
    """What recordings look like.

    seconds, fps, height, width (px): of the stored video; 16:9 with EgoDex's field of view by default. act_seconds: of
    one act, on average. skills: which scripts are drawn. head_motion: how much the head moves, 0: not at all.
    antialias: samples per pixel (0, 2 or 4; doubles the cost of drawing). shadow_size: of the shadow map.
    """

    seconds: float = 6.0
    fps: float = 30.0
    height: int = 216
    width: int = 384
    act_seconds: float = 2.0
    skills: tuple[str, ...] = SKILLS
    head_motion: float = 1.0
    antialias: int = 0
    shadow_size: int = 512

    def __post_init__(self) -> None:
        check_skills(self.skills)
        if not (self.fps > 0 and self.seconds > 0) or self.frames < 2 or self.height < 16 or self.width < 16:
            raise ValueError(f"a video needs fps > 0, two frames and 16 x 16 px at least, got {self}")
        if self.height % 2 or self.width % 2:
            raise ValueError(f"H.264 needs an even size, not {self.height} x {self.width}")
        if self.act_seconds < 1.0 or self.head_motion < 0 or self.antialias not in (0, 2, 4) or self.shadow_size < 64:
            raise ValueError(
                f"acts of a second at least, head_motion >= 0, antialias 0, 2 or 4 and shadow_size >= 64, got {self}"
            )

    @property
    def frames(self) -> int:
        """Number of frames."""
        return round(self.seconds * self.fps)

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) pixels for the stored size."""
        return pinhole(FOCAL_OVER_WIDTH * self.width, self.height, self.width)


@dataclass(frozen=True)
class HumanVideo:
    """A recording: the episode, what was done in it, and how everything moved.

    labels: (T, H, W) uint8, what was drawn, empty unless asked for: 1 the left hand, 2 the right hand, 3 and 4 the arms
    behind them, else 0. names: of the objects.
    """

    episode: Track
    labels: np.ndarray
    acts: tuple[Act, ...]
    motion: Motion
    names: tuple[str, ...]


def film(seed: int, config: HumanVideoConfig, backend: str = "auto", labels: bool = False) -> HumanVideo:
    """The recording of `seed`: same seed and configuration, same bytes. Raises ValueError if it can't be drawn."""
    field_of_view = 2 * math.degrees(math.atan(0.5 / FOCAL_OVER_WIDTH))
    layout = replace(random_hand_layout(seed, fixtures_for(config.skills)), fov_deg=field_of_view)
    scene = HandScene(layout, config.height, config.width, partial(_add_arms_and_walls, looks=layout.looks))
    _end_forearms_at_elbows(scene)
    quality = scene.model.vis.quality
    quality.offsamples, quality.shadowsize = config.antialias, config.shadow_size
    rng = np.random.default_rng([seed, 21])
    motion, acts = act_out(scene, rng, config.frames, config.fps, config.act_seconds, config.skills)
    wrists = np.array([[poses[side][0] for side in SIDES] for poses in motion.hands])
    cameras = head_path(seed, wrists, acts, config)
    bodies = np.stack([upper_body(camera, pair) for camera, pair in zip(cameras, wrists, strict=True)])
    frames, drawn, columns = _draw(scene, motion, cameras, bodies, config, backend, labels)
    columns["keypoints_valid"] = np.ones((config.frames, 42), bool)
    columns["body_world"] = bodies.astype(np.float32)
    columns["body_valid"] = np.ones(bodies.shape[:2], bool)
    columns["object_motion"] = object_motion(scene, motion.states)
    episode = Track(
        frames=ArrayFrames(frames),
        fps=config.fps,
        world_from_camera=cameras,
        intrinsics=config.intrinsics,
        source=f"dexworld.sim.human_video seed {seed}",
        task=sentence([act.scripts for act in acts]),
        seed=seed,
        columns=columns,
    )
    return HumanVideo(episode, drawn, acts, motion, layout.names)


def object_motion(scene: HandScene, states: Sequence[SceneState]) -> np.ndarray:
    """(T,) float32 metres since the frame before of the object, or handle, that moved most; 0 in the first frame."""
    places = np.array([[*state.positions.ravel(), scene.opening_metres(state), 0, 0] for state in states])
    steps = np.linalg.norm(np.diff(places.reshape(len(states), -1, 3), axis=0), axis=2).max(axis=1)
    return np.concatenate([[0.0], steps]).astype(np.float32)


def head_path(seed: int, wrists: np.ndarray, acts: Sequence[Act], config: HumanVideoConfig) -> np.ndarray:
    """world_from_camera (T, 4, 4) of a head that sways and turns, with some delay, to the hands that act.

    wrists: (T, 2, 3) m, left and right.
    """
    rng = np.random.default_rng([seed, 22])
    amount, count = config.head_motion, len(wrists)
    place, target, roll = draw_head(rng, lean=0.09)
    gaze = np.repeat(target[None], count, axis=0)
    for act in acts:
        sides = [SIDES.index(script.side) for script in act.acting]
        if sides:
            looked_at = wrists[act.first : act.last + 1, sides].mean(axis=1) + np.array([0.12, 0.0, 0.0])
            gaze[act.first : act.last + 1] += _GAZE_SHARE * (looked_at - target)
    gaze = target + amount * (_smooth(gaze, _GAZE_SECONDS * config.fps) - target)
    time = np.arange(count) / config.fps
    rates, phases = rng.uniform(0.12, 0.45, (2, 3, 2)), rng.uniform(0, 2 * math.pi, (2, 3, 2))
    sizes = rng.normal(0, 1, (2, 3, 2)) * [[[0.028]], [[0.03]]]
    sway = amount * (sizes[..., None] * np.sin(2 * math.pi * rates[..., None] * time + phases[..., None])).sum(axis=2)
    tilts = roll + amount * 0.02 * np.sin(2 * math.pi * 0.25 * time + phases[0, 0, 0])
    return np.stack([looking_at(place + sway[0][:, f], gaze[f] + sway[1][:, f], float(tilts[f])) for f in range(count)])


def _smooth(path: np.ndarray, frames: float) -> np.ndarray:
    """Gaussian average over time of (T, 3); `frames` is the standard deviation."""
    half = max(1, math.ceil(3 * frames))
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / max(frames, 1e-6)) ** 2)
    padded = np.pad(path, ((half, half), (0, 0)), mode="edge")
    columns = [np.convolve(padded[:, axis], weights / weights.sum(), mode="valid") for axis in range(path.shape[1])]
    return np.stack(columns, axis=1)


def _draw(scene, motion, cameras, bodies, config, backend, with_labels):
    """Frames (T, H, W, 3), hand labels (T, H, W) uint8 (empty unless asked for), and what is read off every frame."""
    data = mujoco.MjData(scene.model)
    size = (config.frames, config.height, config.width)
    frames, labels = np.empty((*size, 3), np.uint8), np.zeros(size if with_labels else (0, *size[1:]), np.uint8)
    geom_label = np.zeros(scene.model.ngeom + 1, np.uint8)  # the last entry stands for -1, nothing
    for value, side in enumerate(SIDES, 1):
        geom_label[scene.hands.geoms[side]] = value
        geom_label[_arm_geoms(scene, side)] = value + 2
    wrists, rows = [scene.hands.bodies[side][0] for side in SIDES], []
    with make_renderer(scene.model, config.height, config.width, backend) as renderer:
        for frame, (state, poses) in enumerate(zip(motion.states, motion.hands, strict=True)):
            _pose(scene, data, state, poses, bodies[frame])
            scene.look(data, cameras[frame])
            frames[frame] = renderer.rgb(data, scene.camera, _EVERYTHING)
            if with_labels:
                labels[frame] = geom_label[renderer.segmentation(data, scene.camera, _EVERYTHING)]
            points, _ = scene.hands.keypoints(data, SIDES)
            hands = np.stack([pose(data.xmat[wrist].reshape(3, 3), data.xpos[wrist]) for wrist in wrists])
            sure = confidence(scene, data, points, cameras[frame], config)
            rows.append((points, hands, scene.hands.metacarpals(data), sure))
    names = ("keypoints_world", "hand_poses_world", "hand_metacarpals_world", "keypoint_confidence")
    columns = [np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)]
    return frames, labels, dict(zip(names, columns, strict=True))


def _pose(scene: HandScene, data: mujoco.MjData, state: SceneState, poses: dict[str, Pose], body: np.ndarray) -> None:
    scene.pose(data, state)
    for side in SIDES:
        shoulder, elbow = (body[BODY_KEYPOINTS.index(side + name)] for name in ("Arm", "Forearm"))
        scene.hands.set_hand(data, side, *poses[side])
        scene.hands.point_forearm(data, side, elbow)
        arm = scene.model.body_mocapid[scene.model.body(f"{side}_upper_arm").id]
        data.mocap_pos[arm] = elbow
        mujoco.mju_quatZ2Vec(data.mocap_quat[arm], (shoulder - elbow) / np.linalg.norm(shoulder - elbow))


def _add_arms_and_walls(spec: mujoco.MjSpec, looks: HandLooks) -> None:
    """What a wide view shows besides: the upper arms, and the walls to both sides."""
    for side, sign in zip(SIDES, (1.0, -1.0), strict=True):
        arm = spec.worldbody.add_body(name=f"{side}_upper_arm", mocap=True)
        shape = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "rgba": [*looks.sleeve, 1.0], "group": FOREARM_GROUP}
        arm.add_geom(fromto=[0, 0, 0, 0, 0, UPPER_ARM], size=[0.042, 0, 0], contype=0, conaffinity=0, **shape)
        turned = [math.sqrt(0.5), sign * math.sqrt(0.5), 0.0, 0.0]  # the texture's plane looks into the room
        add_decor(spec.worldbody, [3, 1.4, 0.02], [0, sign * 2.4, 1.4], quat=turned, material="wall")


def _end_forearms_at_elbows(scene: HandScene) -> None:
    """Sleeves are drawn to the elbow, where the upper arm begins."""
    model = scene.model
    for side in SIDES:
        sleeve = int(model.body_geomadr[model.body(f"{side}_forearm").id]) + 1
        end = scene.layout.looks.sleeve_start * scene.layout.looks.size
        model.geom_size[sleeve, 1] = (FOREARM - end) / 2
        model.geom_pos[sleeve] = [0, 0, -(FOREARM + end) / 2]


def _arm_geoms(scene: HandScene, side: str) -> np.ndarray:
    bodies = [scene.model.body(f"{side}_{part}").id for part in ("forearm", "upper_arm")]
    return np.flatnonzero(np.isin(scene.model.geom_bodyid, bodies))


def confidence(
    scene: HandScene, data: mujoco.MjData, points: np.ndarray, camera: np.ndarray, config: HumanVideoConfig
) -> np.ndarray:
    """How surely each world keypoint (42, 3) can be seen from `camera` (4, 4): values of `CONFIDENCE`, (42,).

    A ray from the camera finds what is first hit. A joint is inside the hand, so it counts as visible when that is its
    own hand or forearm and lies within `_FLESH` before it.
    """
    local = (points - camera[:3, 3]) @ camera[:3, :3]
    depth = np.maximum(local[:, 2], 1e-6)
    pixels = local[:, :2] / depth[:, None] * FOCAL_OVER_WIDTH * config.width + [config.width / 2, config.height / 2]
    inside = (local[:, 2] > 0) & (pixels >= 0).all(axis=1) & (pixels < [config.width, config.height]).all(axis=1)
    distances = np.linalg.norm(local, axis=1)
    rays = np.ascontiguousarray((points - camera[:3, 3]) / distances[:, None], np.float64).ravel()
    hit, reached = np.full(len(points), -1, np.int32), np.zeros(len(points))
    origin, groups, count = camera[:3, 3].copy(), _EVERYTHING.mask(), len(points)
    mujoco.mj_multiRay(scene.model, data, origin, rays, groups, True, -1, hit, reached, None, count, 10.0)
    own = np.zeros(len(points), bool)
    for side, rows in zip(SIDES, (LEFT, RIGHT), strict=True):
        own[rows] = np.isin(hit[rows], [*scene.hands.geoms[side], *_arm_geoms(scene, side)])
    near = reached > distances - _FLESH
    names = np.where(own & near, "visible", np.where(own, "self_occluded", "occluded"))
    return np.array([CONFIDENCE[name] for name in np.where(inside, names, "out_of_view")])
