"""Egocentric video of two human hands at work on a kitchen counter: an offline stand-in for EgoDex.

A recording is some seconds of several acts (`human_acts`): hands reach, push, grasp and carry things and open a drawer
or a door. The head that carries the camera sways and follows the hands. The camera has EgoDex's field of view.
World frame: x away from the person over the counter, y to the left, z up, metres; `egodex_format` makes it EgoDex's.

Further columns of a recorded `Track` (T frames):

    keypoint_confidence    (T, 42) float32, `CONFIDENCE`: by rays from the camera, not by what was drawn
    hand_poses_world       (T, 2, 4, 4) left and right wrist; z along the stretched fingers, x out of the palm
    hand_metacarpals_world (T, 8, 3) index to little finger, left then right
    body_world             (T, 18, 3) synthetic, see `upper_body`
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import mujoco
import numpy as np

from dexworld.hands import BODY_KEYPOINTS, LEFT, RIGHT
from dexworld.sim.hands.hand_clips import draw_head
from dexworld.sim.hands.hand_motion import Motion, Pose, check_skills, fixtures_for, sentence
from dexworld.sim.hands.hand_scene import COUNTER_FRONT, MAX_OBJECTS, HandScene, SceneState, random_hand_layout
from dexworld.sim.hands.hand_skills import SKILLS
from dexworld.sim.hands.human_acts import Act, act_out
from dexworld.sim.hands.human_hands import FOREARM_GROUP, HAND_GROUP, SIDES, HandLooks
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP, add_decor
from dexworld.sim.kitchen.kitchen_simulation import with_motion
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
UPPER_ARM, FOREARM = 0.29, 0.265  # metres, an adult's
_REACH = 0.985 * (UPPER_ARM + FOREARM)
_BEHIND_EYES, _BELOW_EYES = 0.085, 0.055  # top of the neck from the camera, in the head's frame
_SLEEVE = 0.042  # metres, its radius
_NECK, _BACK = 0.115, 0.50  # lengths of neck and spine


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
    """A recording: the episode, what was done in it, and the names of the objects."""

    episode: Track
    acts: tuple[Act, ...]
    names: tuple[str, ...]


def film(seed: int, config: HumanVideoConfig, backend: str = "auto") -> HumanVideo:
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
    frames, columns = _draw(scene, motion, cameras, bodies, config, backend)
    columns["keypoints_valid"] = np.ones((config.frames, 42), bool)
    columns["body_world"] = bodies.astype(np.float32)
    columns |= with_motion({"object_positions": _positions(motion)})
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
    return HumanVideo(episode, acts, layout.names)


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


def _draw(scene, motion, cameras, bodies, config, backend):
    """Frames (T, H, W, 3), and what is read off every frame."""
    data = mujoco.MjData(scene.model)
    frames = np.empty((config.frames, config.height, config.width, 3), np.uint8)
    wrists, rows = [scene.hands.bodies[side][0] for side in SIDES], []
    with make_renderer(scene.model, config.height, config.width, backend) as renderer:
        for frame, (state, poses) in enumerate(zip(motion.states, motion.hands, strict=True)):
            _pose(scene, data, state, poses, bodies[frame])
            scene.look(data, cameras[frame])
            frames[frame] = renderer.rgb(data, scene.camera, _EVERYTHING)
            points, _ = scene.hands.keypoints(data, SIDES)
            hands = np.stack([pose(data.xmat[wrist].reshape(3, 3), data.xpos[wrist]) for wrist in wrists])
            sure = confidence(scene, data, points, cameras[frame], config)
            rows.append((points, hands, scene.hands.metacarpals(data), sure))
    names = ("keypoints_world", "hand_poses_world", "hand_metacarpals_world", "keypoint_confidence")
    columns = [np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)]
    return frames, dict(zip(names, columns, strict=True))


def _positions(motion: Motion) -> np.ndarray:
    """Centres (T, MAX_OBJECTS, 3) float32 of the objects, NaN where the scene has fewer."""
    found = np.full((len(motion.states), MAX_OBJECTS, 3), np.nan, np.float32)
    for row, state in zip(found, motion.states, strict=True):
        row[: len(state.positions)] = state.positions
    return found


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
        arm = [scene.model.body(f"{side}_{part}").id for part in ("forearm", "upper_arm")]
        arm_geoms = np.flatnonzero(np.isin(scene.model.geom_bodyid, arm))
        own[rows] = np.isin(hit[rows], [*scene.hands.geoms[side], *arm_geoms])
    near = reached > distances - _FLESH
    names = np.where(own & near, "visible", np.where(own, "self_occluded", "occluded"))
    return np.array([CONFIDENCE[name] for name in np.where(inside, names, "out_of_view")])


def upper_body(world_from_camera: np.ndarray, wrists: np.ndarray) -> np.ndarray:
    """A plausible upper body by an adult's measures: joints (18, 3) m in the rows of `hands.BODY_KEYPOINTS`.

    Nothing of it is measured or simulated. It gives data EgoDex's joints; the drawn forearms come from its elbows.

    world_from_camera: (4, 4) optical pose of the head camera; world x is ahead, z up. wrists: (2, 3) m, left and right.
    """
    up, ahead = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    turn, eyes = world_from_camera[:3, :3], world_from_camera[:3, 3]
    gaze = turn[:, 2] - up * (turn[:, 2] @ up)
    facing = 0.7 * ahead + 0.3 * gaze / max(float(np.linalg.norm(gaze)), 1e-6)
    facing /= np.linalg.norm(facing)
    left = np.cross(up, facing)
    skull = eyes - _BEHIND_EYES * turn[:, 2] + _BELOW_EYES * turn[:, 1]
    neck_root = skull - _NECK * (0.96 * up + 0.28 * facing)
    hip = neck_root - _BACK * up - 0.03 * facing
    joints = {"hip": hip}
    for number in range(1, 8):  # the back's curve is 2 cm deep
        share = number / 7.5
        joints[f"spine{number}"] = hip + share * (neck_root - hip) - 0.02 * np.sin(np.pi * share) * facing
    for number in range(1, 5):
        joints[f"neck{number}"] = neck_root + (number - 1) / 3 * (skull - neck_root)
    for side, sign, wrist in (("left", 1.0, wrists[0]), ("right", -1.0, wrists[1])):
        joints[f"{side}Shoulder"] = neck_root - 0.045 * up + 0.02 * facing + sign * 0.025 * left
        shoulder = neck_root - 0.06 * up + sign * 0.17 * left
        towards = shoulder + 0.3 * sign * left - 0.3 * up - 0.1 * facing
        joints[f"{side}Arm"], joints[f"{side}Forearm"] = _arm(shoulder, wrist, towards)
    return np.stack([joints[name] for name in BODY_KEYPOINTS])


def _arm(shoulder: np.ndarray, wrist: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shoulder, moved along when the wrist is out of reach, and elbow, both (3,).

    The elbow points to `towards` (3,), or as little higher as it must to stay above the counter.
    """
    along = wrist - shoulder
    distance = float(np.linalg.norm(along))
    along = along / distance
    if distance > _REACH:
        shoulder, distance = wrist - along * _REACH, _REACH
    middle = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    radius = np.sqrt(max(UPPER_ARM**2 - middle**2, 0.0))

    def elbow(raised: float) -> np.ndarray:
        aside = towards + np.array([0.0, 0.0, raised]) - shoulder
        aside = aside - along * (along @ aside)
        return shoulder + along * middle + radius * aside / np.linalg.norm(aside)

    low, high = 0.0, 0.6
    if _clears(elbow(low)):
        return shoulder, elbow(low)
    for _ in range(12):
        half = (low + high) / 2
        low, high = (low, half) if _clears(elbow(half)) else (half, high)
    return shoulder, elbow(high)


def _clears(elbow: np.ndarray) -> bool:
    """Whether a sleeve around `elbow` (3,) stays above the counter; before its edge it may hang."""
    return bool(elbow[2] >= COUNTER_TOP + _SLEEVE - 3.0 * max(COUNTER_FRONT - float(elbow[0]), 0.0))
