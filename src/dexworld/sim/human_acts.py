"""What a person does at a counter for some seconds: short acts, one after the other, each by one hand or both.

An act is a script of `hand_skills` that is written for the scene as the last act left it. It starts from the pose in
which each hand is and is drawn again until its sentence comes true and no hand went through anything solid. A hand that
has nothing to do waits over the counter. Both hands are always there, as in EgoDex.
"""

import math
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np

from dexworld.sim.hand_choice import draw_script
from dexworld.sim.hand_clips import VIEW_CENTRE, VIEW_HALF, Motion, opening_metres
from dexworld.sim.hand_physics import HandWorld
from dexworld.sim.hand_scene import HandScene, SceneState
from dexworld.sim.hand_skills import HandScript, Key, Writer, idle
from dexworld.sim.human_hands import SIDES
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP

STEPS_PER_SECOND = 100  # of the physics; a hand may not jump through an object
ATTEMPTS = 16
HOVER_ATTEMPTS = 4  # the last ones: a hovering hand hardly ever fails
BOTH_SHARE = 0.6  # of the draws about objects are for both hands; fewer fit
HOVER_SHARE = 0.12  # of the draws a hand only reaches
COUNTER_FRONT = 0.3  # x of the counter's edge
EASY_SPEED = 0.45  # metres a second on average between two key poses, where an act has the time
RELEASE_SECONDS = 0.2
EASY_BENDING = 5.0  # radians a second, on average too
_MIRRORS = {"right": 1.0, "left": -1.0}
_KEY_TIMES_OF_PUT_BACK = (0.0, 0.18, 0.29, 0.41, 0.58, 0.63, 0.77, 0.83, 0.89, 1.0)

Pose = tuple[np.ndarray, np.ndarray, np.ndarray]  # wrist (3,) m, world_from_hand (3, 3), joints (16,) rad


@dataclass(frozen=True)
class Solids:
    """How deep a hand may be in solid things, metres, before an act is drawn again.

    Drawn fingers are flesh: a centimetre in an object that is pressed looks like a touch.
    """

    counter: float = 0.004
    fixture: float = 0.010
    object: float = 0.012
    hand: float = 0.008


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


@dataclass
class _Course:
    """The frames so far, and how many draws were thrown away."""

    states: list[SceneState] = field(default_factory=list)
    poses: list[dict[str, Pose]] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    rejected: int = 0


class SceneNow(HandScene):
    """A compiled scene whose scripts are written for a later state than its first."""

    def __init__(self, scene: HandScene, state: SceneState) -> None:
        self.__dict__.update(scene.__dict__)
        self._now = state

    @property
    def start(self) -> SceneState:
        """A copy of the state in which scripts begin."""
        return self._now.copy()


def act_out(
    scene: HandScene, rng: np.random.Generator, frames: int, fps: float, act_seconds: float, skills: tuple[str, ...]
) -> tuple[Motion, tuple[Act, ...], int]:
    """Draw and simulate acts of about `act_seconds` each that fill `frames` frames.

    Returns the motion with the state and both hands' poses at every frame, the acts, and the number of rejected draws.
    """
    course = _Course()
    state: SceneState = scene.start
    poses: dict[str, Pose] = {}
    for first, last in _spans(rng, frames, fps, act_seconds):
        now = SceneNow(scene, state)
        scripts, states, path, rejected = _draw_act(now, rng, poses, last - first, fps, skills, course.acts)
        course.states += states if not course.states else states[1:]
        course.poses += path if not course.poses else path[1:]
        course.acts.append(Act(first, last, scripts))
        course.rejected += rejected
        state, poses = course.states[-1], course.poses[-1]
    return Motion(tuple(course.states), tuple(course.poses)), tuple(course.acts), course.rejected


def _spans(rng: np.random.Generator, frames: int, fps: float, act_seconds: float) -> list[tuple[int, int]]:
    """First and last frame of every act; neighbours share a frame."""
    count = max(1, round((frames - 1) / fps / act_seconds))
    shares = rng.uniform(0.9, 1.1, count)
    ends = np.round(np.cumsum(shares) / shares.sum() * (frames - 1)).astype(int)
    return list(zip([0, *map(int, ends[:-1])], map(int, ends), strict=True))


def _draw_act(now, rng, poses, frames, fps, skills, before):
    """Scripts, states and poses of an act whose sentence comes true, and how many draws did not."""
    possible = skills
    if now.start.opening > 0:  # what is open stays open
        possible = tuple(skill for skill in skills if skill not in ("drawer", "door")) or ("reach",)
    done = {(script.skill, script.target) for act in before[-1:] for script in act.acting}
    for attempt in range(ATTEMPTS):
        writer = Writer(now, rng)
        hover = "reach" in skills and (rng.random() < HOVER_SHARE or attempt >= ATTEMPTS - HOVER_ATTEMPTS)
        scripts = draw_script(writer, possible, hover, miss=False, both_share=BOTH_SHARE)
        if attempt < ATTEMPTS - HOVER_ATTEMPTS and {(script.skill, script.target) for script in scripts} & done:
            continue  # not the same thing twice
        scripts = tuple(_put_back(script) if "lifts" in script.text else script for script in scripts)
        scripts = tuple(_at_ease(script, frames / fps) for script in _both_hands(writer, scripts, poses))
        states, path = simulate_act(now, scripts, frames, fps, poses)
        if comes_true(now, scripts, states) and not passes_through(now, states, path):
            return scripts, states, path, attempt
    scripts = _both_hands(Writer(now, rng), (), poses)
    return (scripts, *simulate_act(now, scripts, frames, fps, poses), ATTEMPTS)


def _put_back(script: HandScript) -> HandScript:
    """A lift that ends in the air, continued: the object is set down where it was."""
    rest, before, at, closed, up, _ = script.keys
    opened = replace(at, close=False)
    retreat = replace(before, position=before.position + 0.3 * (before.position - at.position))
    keys = (rest, before, at, closed, up, up, replace(closed), opened, retreat, rest)
    timed = tuple(replace(key, time=time) for key, time in zip(keys, _KEY_TIMES_OF_PUT_BACK, strict=True))
    return replace(script, keys=timed, text=script.text.replace(" and lifts it up", ", lifts it up and puts it back"))


def _both_hands(writer: Writer, scripts: tuple[HandScript, ...], poses: dict[str, Pose]) -> tuple[HandScript, ...]:
    """The scripts, a waiting hand for each side without one, all starting where the hands are."""
    acting = {script.side for script in scripts}
    scripts += tuple(idle(writer, _MIRRORS[side]) for side in SIDES if side not in acting)
    return tuple(
        replace(script, keys=(Key(0.0, *poses[script.side]), *script.keys[1:])) if poses else script
        for script in scripts
    )


def _at_ease(script: HandScript, seconds: float) -> HandScript:
    """The same keys in the same time, with more of it for long ways and less for short ones."""
    times = np.diff([key.time for key in script.keys])
    pairs = list(zip(script.keys[:-1], script.keys[1:], strict=True))
    moving = np.array([np.linalg.norm(end.position - start.position) for start, end in pairs]) / EASY_SPEED
    bending = np.array([np.abs(end.shape - start.shape).max() for start, end in pairs]) / EASY_BENDING
    wanted = np.maximum(times, np.maximum(moving, bending) / seconds)
    ends = np.concatenate([[0.0], np.cumsum(wanted) / wanted.sum()])
    return replace(script, keys=tuple(replace(k, time=float(t)) for k, t in zip(script.keys, ends, strict=True)))


def simulate_act(
    now: HandScene, scripts: tuple[HandScript, ...], frames: int, fps: float, poses: dict[str, Pose]
) -> tuple[list[SceneState], list[dict[str, Pose]]]:
    """States and hand poses at frames 0 to `frames` of an act; frame 0 is where the last act ended."""
    world = HandWorld(now)
    world.shapes = {side: shape.copy() for side, (_, _, shape) in poses.items()}
    per_frame = max(1, math.ceil(STEPS_PER_SECOND / fps))
    seconds = 1.0 / (fps * per_frame)
    states, path = [], []
    slack: dict[str, tuple[int, np.ndarray]] = {}  # when and how a grasping hand was more open than its script said
    for step in range(frames * per_frame + 1):
        commands = {script.side: script.command(step / (frames * per_frame)) for script in scripts}
        for side, (since, angles) in slack.items():
            if not commands[side].close:  # it opens from where the object stopped it
                share = max(0.0, 1.0 - (step - since) * seconds / RELEASE_SECONDS)
                loose = angles * share * share * (3 - 2 * share)
                commands[side] = replace(commands[side], shape=commands[side].shape + loose)
        world.step(commands, seconds)
        for side, command in commands.items():
            if command.close:
                slack[side] = (step, world.shapes[side] - command.shape)
        if step % per_frame == 0:
            states.append(world.state.copy())
            path.append({s: (c.position, c.rotation, world.shapes[s].copy()) for s, c in commands.items()})
    return states, path


def comes_true(scene: HandScene, scripts: tuple[HandScript, ...], states: list[SceneState]) -> bool:
    """Whether every script had its effect, and nothing else was moved by more than 3 cm or out of reach."""
    first, last = states[0], states[-1]
    moved = np.linalg.norm(last.positions - first.positions, axis=1)
    opened = opening_metres(scene, last) - opening_metres(scene, first)
    risen = np.max([state.positions[:, 2] for state in states], axis=0) - first.positions[:, 2]
    calm = np.ones(len(moved), bool)
    fixture_used = False
    for script in scripts:
        if script.skill == "idle" or script.effect == 0:
            continue
        if script.target < 0:
            fixture_used = True
            if opened < script.effect:
                return False
            continue
        calm[script.target] = False
        change = risen if "lifts" in script.text else moved
        if change[script.target] < script.effect:
            return False
    resting = last.positions[:, 2] - [item.half_height for item in scene.layout.objects] < COUNTER_TOP + 1e-6
    in_view = (np.abs(last.positions - VIEW_CENTRE) < VIEW_HALF).all()
    bystanders = moved[calm].max(initial=0) < (0.12 if fixture_used else 0.03)
    return bool(in_view and resting.all() and bystanders and (fixture_used or opened < 1e-6))


def passes_through(scene: HandScene, states: list[SceneState], path: list[dict[str, Pose]]) -> bool:
    """Whether a hand or an object is deeper in something solid than `Solids` allows, in any frame of an act."""
    return any(value > getattr(Solids(), name) for name, value in depths(scene, states, path).items())


def depths(scene: HandScene, states: list[SceneState], path: list[dict[str, Pose]]) -> dict[str, float]:
    """The greatest depth (m) in an act of hands in the counter, the fixture, objects and each other, by name.

    Objects in the fixture count as `fixture` too. Negative: how far they stayed apart at least.
    """
    worst = dict.fromkeys(("counter", "fixture", "object", "hand"), -math.inf)
    radii = scene.hands.sphere_radius
    data = mujoco.MjData(scene.model)
    for state, poses in zip(states[::2], path[::2], strict=True):
        for side, pose in poses.items():
            scene.hands.set_hand(data, side, *pose)
        mujoco.mj_kinematics(scene.model, data)
        centres = {side: scene.hands.spheres(data, side) for side in poses}
        for points in centres.values():
            over = points[:, 0] > COUNTER_FRONT
            worst["counter"] = max(
                worst["counter"], float((COUNTER_TOP - points[over, 2] + radii[over]).max(initial=-1))
            )
            for index in range(len(state.positions)):
                depth = radii - distance_to_object(scene, state, index, points)
                worst["object"] = max(worst["object"], float(depth.max()))
            worst["fixture"] = max(worst["fixture"], float((radii - _distance_to_fixture(scene, state, points)).max()))
        extents = np.array([item.radius for item in scene.layout.objects])
        gaps = np.minimum(
            _distance_to_fixture(scene, state, state.positions), _distance_to_bar(scene, state, state.positions)
        )
        worst["fixture"] = max(worst["fixture"], float((extents - gaps).max(initial=-1)))
        gaps = np.linalg.norm(centres["left"][:, None] - centres["right"][None], axis=-1)
        worst["hand"] = max(worst["hand"], float((radii[:, None] + radii[None] - gaps).max()))
    return worst


def distance_to_object(scene: HandScene, state: SceneState, index: int, points: np.ndarray) -> np.ndarray:
    """Signed distance (M,) m of world points (M, 3) from the surface of an object; negative inside."""
    item = scene.layout.objects[index]
    offset = points - state.positions[index]
    if item.kind == "ball":
        return np.linalg.norm(offset, axis=1) - item.radius
    if item.kind == "box":
        cosine, sine = math.cos(state.yaws[index]), math.sin(state.yaws[index])
        local = offset[:, :2] @ np.array([[cosine, -sine], [sine, cosine]])
        return _distance_to_box(
            np.column_stack([local, offset[:, 2]]), [item.radius, item.radius * item.aspect, item.half_height]
        )
    aside, above = np.linalg.norm(offset[:, :2], axis=1) - item.radius, np.abs(offset[:, 2]) - item.half_height
    return np.minimum(np.maximum(aside, above), 0) + np.hypot(np.maximum(aside, 0), np.maximum(above, 0))


def _distance_to_box(local: np.ndarray, half) -> np.ndarray:
    beyond = np.abs(local) - np.asarray(half)
    return np.minimum(beyond.max(axis=1), 0) + np.linalg.norm(np.maximum(beyond, 0), axis=1)


def _distance_to_fixture(scene: HandScene, state: SceneState, points: np.ndarray) -> np.ndarray:
    """Signed distance (M,) m of points (M, 3) from the cabinet and from its front where that is; inf without one."""
    fixture = scene.layout.fixture
    if fixture is None:
        return np.full(len(points), np.inf)
    half = np.array([fixture.depth / 2, fixture.half_width + 0.012, fixture.half_height + 0.006])
    middle = np.array([fixture.front + fixture.depth / 2, fixture.centre, fixture.base_height])
    cabinet = _distance_to_box(points - middle, half)
    start, end = (np.array([*corner, fixture.base_height]) for corner in fixture.panel(state.opening))
    along = (end - start) / np.linalg.norm(end - start)
    inward = np.array([along[1], -along[0], 0.0])
    inward *= -np.sign(inward @ fixture.bar(state.opening)[2])
    offset = points - (start + end) / 2 - 0.008 * inward
    local = np.stack([offset @ inward, offset @ along, offset[:, 2]], axis=1)
    front = _distance_to_box(local, [0.008, fixture.half_width, fixture.half_height])
    return np.minimum(cabinet, front)


def _distance_to_bar(scene: HandScene, state: SceneState, points: np.ndarray) -> np.ndarray:
    """Distance (M,) m of points (M, 3) from the handle, which hooked fingers may touch but objects not; inf without."""
    fixture = scene.layout.fixture
    if fixture is None:
        return np.full(len(points), np.inf)
    middle, axis, _ = fixture.bar(state.opening)
    half = fixture.handle_length / 2
    share = np.clip((points - middle) @ axis, -half, half)
    return np.linalg.norm(points - middle - share[:, None] * axis, axis=1) - fixture.bar_radius
