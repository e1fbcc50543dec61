"""What a person does at a counter for some seconds: short acts, one after the other, each by one hand or both.

An act is a script of `hand_skills`, written for the scene as the last act left it. It starts from the pose in which
each hand is. It is drawn again until its sentence comes true and no hand went through anything solid. A hand without a
script waits over the counter. Both hands are always there, as in EgoDex.
"""

import math
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dexworld.sim.hands.hand_motion import Motion, Pose, act, comes_true, draw_script
from dexworld.sim.hands.hand_physics import HandWorld, Key
from dexworld.sim.hands.hand_scene import COUNTER_FRONT, Fixture, HandScene, SceneState
from dexworld.sim.hands.hand_skills import HandScript, Writer, idle
from dexworld.sim.hands.human_hands import SIDES
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.poses import turn_about_z

STEPS_PER_SECOND = 100  # of the physics; a hand may not jump through an object
ATTEMPTS = 16
HOVER_ATTEMPTS = 4  # the last ones: a hovering hand hardly ever fails
BOTH_SHARE = 0.6  # of the draws about objects are for both hands; fewer fit
HOVER_SHARE = 0.12  # of the draws a hand only reaches
EASY_SPEED = 0.45  # metres a second on average between two key poses, where an act has the time
RELEASE_SECONDS = 0.2
EASY_BENDING = 5.0  # radians a second, on average too
_MIRRORS = {"right": 1.0, "left": -1.0}
_KEY_TIMES_OF_PUT_BACK = (0.0, 0.18, 0.29, 0.41, 0.58, 0.63, 0.77, 0.83, 0.89, 1.0)
# How deep (m) a hand, or an object in the fixture, may be in solid things before an act is drawn again. Drawn fingers
# are flesh: a centimetre in an object that is pressed looks like a touch.
ALLOWED_DEPTHS = {"counter": 0.004, "fixture": 0.010, "object": 0.012, "hand": 0.008}


@dataclass(frozen=True)
class Act:
    """What both hands do from frame `first` to frame `last`, both included."""

    first: int
    last: int
    scripts: tuple[HandScript, ...]

    @property
    def acting(self) -> tuple[HandScript, ...]:
        """The scripts of the hands that do something."""
        return tuple(script for script in self.scripts if script.skill != "idle")


def act_out(
    scene: HandScene, rng: np.random.Generator, frames: int, fps: float, act_seconds: float, skills: tuple[str, ...]
) -> tuple[Motion, tuple[Act, ...]]:
    """Draw and simulate acts of about `act_seconds` each that fill `frames` frames: the motion, and the acts."""
    states: list[SceneState] = []
    poses: list[dict[str, Pose]] = []
    acts: list[Act] = []
    for first, last in _spans(rng, frames, fps, act_seconds):
        before = (states[-1], poses[-1]) if acts else (scene.start, {})
        done = {(script.skill, script.target) for past in acts[-1:] for script in past.acting}
        scripts, motion = _draw_act(scene, rng, *before, last - first, fps, skills, done)
        states += motion.states[1 if acts else 0 :]
        poses += motion.hands[1 if acts else 0 :]
        acts.append(Act(first, last, scripts))
    return Motion(tuple(states), tuple(poses)), tuple(acts)


def _spans(rng: np.random.Generator, frames: int, fps: float, act_seconds: float) -> list[tuple[int, int]]:
    """First and last frame of every act; neighbours share a frame."""
    count = max(1, round((frames - 1) / fps / act_seconds))
    shares = rng.uniform(0.9, 1.1, count)
    ends = np.round(np.cumsum(shares) / shares.sum() * (frames - 1)).astype(int)
    return list(zip([0, *map(int, ends[:-1])], map(int, ends), strict=True))


def _draw_act(scene, rng, state, poses, frames, fps, skills, done):
    """Scripts and motion of an act whose sentence comes true."""
    possible, writer = skills, Writer(scene, rng, state)
    if state.opening > 0:  # what is open stays open
        possible = tuple(skill for skill in skills if skill not in ("drawer", "door")) or ("reach",)
    for attempt in range(ATTEMPTS):
        hover = "reach" in skills and (rng.random() < HOVER_SHARE or attempt >= ATTEMPTS - HOVER_ATTEMPTS)
        scripts = draw_script(writer, possible, hover, miss=False, both_share=BOTH_SHARE)
        if attempt < ATTEMPTS - HOVER_ATTEMPTS and {(script.skill, script.target) for script in scripts} & done:
            continue  # not the same thing twice
        scripts = tuple(_put_back(script) if "lifts" in script.text else script for script in scripts)
        scripts = tuple(_at_ease(script, frames / fps) for script in _both_hands(writer, scripts, poses))
        motion = _simulate(scene, scripts, frames, fps, state, poses)
        if comes_true(scene, scripts, motion, at_rest=True) and not passes_through(scene, motion):
            return scripts, motion
    scripts = _both_hands(writer, (), poses)
    return scripts, _simulate(scene, scripts, frames, fps, state, poses)


def _put_back(script: HandScript) -> HandScript:
    """A lift that ends in the air, continued: the object is set down where it was."""
    rest, before, at, closed, up, _ = script.keys
    opened = replace(at, close=False)
    retreat = replace(before, position=before.position + 0.3 * (before.position - at.position))
    keys = (rest, before, at, closed, up, up, closed, opened, retreat, rest)
    timed = tuple(replace(key, time=time) for key, time in zip(keys, _KEY_TIMES_OF_PUT_BACK, strict=True))
    return replace(script, keys=timed, text=script.text.replace(" and lifts it up", ", lifts it up and puts it back"))


def _both_hands(writer: Writer, scripts: tuple[HandScript, ...], poses: dict[str, Pose]) -> tuple[HandScript, ...]:
    """The scripts, a waiting hand for each side without one, all starting where the hands are."""
    acting = {script.side for script in scripts}
    scripts += tuple(idle(writer, _MIRRORS[side]) for side in SIDES if side not in acting)
    if not poses:
        return scripts
    return tuple(replace(script, keys=(Key(0.0, *poses[script.side]), *script.keys[1:])) for script in scripts)


def _at_ease(script: HandScript, seconds: float) -> HandScript:
    """The same keys in the same time, with more of it for long ways and less for short ones."""
    times = np.diff([key.time for key in script.keys])
    pairs = list(zip(script.keys[:-1], script.keys[1:], strict=True))
    moving = np.array([np.linalg.norm(end.position - start.position) for start, end in pairs]) / EASY_SPEED
    bending = np.array([np.abs(end.shape - start.shape).max() for start, end in pairs]) / EASY_BENDING
    wanted = np.maximum(times, np.maximum(moving, bending) / seconds)
    ends = np.concatenate([[0.0], np.cumsum(wanted) / wanted.sum()])
    return replace(script, keys=tuple(replace(k, time=float(t)) for k, t in zip(script.keys, ends, strict=True)))


def _simulate(scene, scripts, frames: int, fps: float, state: SceneState, poses: dict[str, Pose]) -> Motion:
    """The motion of an act; frame 0 is where the last act ended."""
    world = HandWorld(scene, state)
    world.shapes = {side: shape.copy() for side, (_, _, shape) in poses.items()}
    return act(world, scripts, frames, fps, max(1, math.ceil(STEPS_PER_SECOND / fps)), RELEASE_SECONDS)


def passes_through(scene: HandScene, motion: Motion) -> bool:
    """Whether a hand or an object is deeper in something solid than `ALLOWED_DEPTHS`, in any frame of an act."""
    return any(depth > ALLOWED_DEPTHS[name] for name, depth in depths(scene, motion).items())


def depths(scene: HandScene, motion: Motion) -> dict[str, float]:
    """The greatest depth (m) in an act of hands in the counter, the fixture, objects and each other, by name.

    Objects in the fixture count as `fixture` too. Negative: how far they stayed apart at least.
    """
    found: dict[str, list[float]] = {name: [-math.inf] for name in ALLOWED_DEPTHS}
    radii, data = scene.hands.sphere_radius, mujoco.MjData(scene.model)
    extents, fixture = np.array([item.radius for item in scene.layout.objects]), scene.layout.fixture
    for state, poses in zip(motion.states[::2], motion.hands[::2], strict=True):
        for side, pose in poses.items():
            scene.hands.set_hand(data, side, *pose)
        mujoco.mj_kinematics(scene.model, data)
        centres = {side: scene.hands.spheres(data, side) for side in poses}
        for points in centres.values():
            over = points[:, 0] > COUNTER_FRONT
            found["counter"].append((COUNTER_TOP - points[over, 2] + radii[over]).max(initial=-1))
            found["object"] += [
                (radii - distance_to_object(scene, state, index, points)).max() for index in range(len(extents))
            ]
            if fixture is not None:
                found["fixture"].append((radii - _distance_to_fixture(fixture, state.opening, points)).max())
        if fixture is not None:
            for distance in (_distance_to_fixture, _distance_to_bar):
                found["fixture"].append((extents - distance(fixture, state.opening, state.positions)).max(initial=-1))
        gaps = np.linalg.norm(centres["left"][:, None] - centres["right"][None], axis=-1)
        found["hand"].append((radii[:, None] + radii[None] - gaps).max())
    return {name: float(max(values)) for name, values in found.items()}


def distance_to_object(scene: HandScene, state: SceneState, index: int, points: np.ndarray) -> np.ndarray:
    """Signed distance (M,) m of world points (M, 3) from the surface of an object; negative inside."""
    item = scene.layout.objects[index]
    offset = points - state.positions[index]
    if item.kind == "ball":
        return np.linalg.norm(offset, axis=1) - item.radius
    if item.kind == "box":
        local = np.column_stack([offset[:, :2] @ turn_about_z(state.yaws[index])[:2, :2], offset[:, 2]])
        return _distance_to_box(local, [item.radius, item.radius * item.aspect, item.half_height])
    aside, above = np.linalg.norm(offset[:, :2], axis=1) - item.radius, np.abs(offset[:, 2]) - item.half_height
    return np.minimum(np.maximum(aside, above), 0) + np.hypot(np.maximum(aside, 0), np.maximum(above, 0))


def _distance_to_box(local: np.ndarray, half) -> np.ndarray:
    beyond = np.abs(local) - np.asarray(half)
    return np.minimum(beyond.max(axis=1), 0) + np.linalg.norm(np.maximum(beyond, 0), axis=1)


def _distance_to_fixture(fixture: Fixture, opening: float, points: np.ndarray) -> np.ndarray:
    """Signed distance (M,) m of points (M, 3) from the cabinet and from its front where that is."""
    half = np.array([fixture.depth / 2, fixture.half_width + 0.012, fixture.half_height + 0.006])
    middle = np.array([fixture.front + fixture.depth / 2, fixture.centre, fixture.base_height])
    cabinet = _distance_to_box(points - middle, half)
    start, end = (np.array([*corner, fixture.base_height]) for corner in fixture.panel(opening))
    along = (end - start) / np.linalg.norm(end - start)
    inward = np.array([along[1], -along[0], 0.0])
    inward *= -np.sign(inward @ fixture.bar(opening)[2])
    offset = points - (start + end) / 2 - 0.008 * inward
    local = np.stack([offset @ inward, offset @ along, offset[:, 2]], axis=1)
    front = _distance_to_box(local, [0.008, fixture.half_width, fixture.half_height])
    return np.minimum(cabinet, front)


def _distance_to_bar(fixture: Fixture, opening: float, points: np.ndarray) -> np.ndarray:
    """Distance (M,) m of points (M, 3) from the handle, which hooked fingers may touch but objects not."""
    middle, axis, _ = fixture.bar(opening)
    half = fixture.handle_length / 2
    share = np.clip((points - middle) @ axis, -half, half)
    return np.linalg.norm(points - middle - share[:, None] * axis, axis=1) - fixture.bar_radius
