"""Which scripts a scene gets, what they do in it, simulated, and whether their sentences came true.

Scripts are drawn from a seed for training clips and enumerated for candidate sets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dexworld.sim.hands.hand_physics import HandWorld
from dexworld.sim.hands.hand_scene import HandScene, SceneState
from dexworld.sim.hands.hand_skills import SKILLS, HandScript, Writer, door, drawer, grasp, push, reach
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.objects import ObjectSpec

Pose = tuple[np.ndarray, np.ndarray, np.ndarray]  # wrist (3,) m, world_from_hand (3, 3), joints (16,) rad

CARRIES = ("lift", "left", "right", "closer")  # lifting is drawn twice as often as each way of carrying
_VIEW_CENTRE, _VIEW_HALF = np.array([0.62, 0.0, 1.0]), np.array([0.2, 0.27, 1.0])  # where an object may end


@dataclass(frozen=True)
class Motion:
    """What a simulation leaves: at every frame the scene's state, and the pose of each hand by its side."""

    states: tuple[SceneState, ...]
    hands: tuple[dict[str, Pose], ...]

    @property
    def moved(self) -> np.ndarray:
        """How far each object is from its start at the end (n,), metres."""
        return np.linalg.norm(self.states[-1].positions - self.states[0].positions, axis=1)


def check_skills(chosen: tuple[str, ...]) -> None:
    """Raise ValueError unless `chosen` are some of `SKILLS`."""
    unknown = set(chosen) - set(SKILLS)
    if unknown or not chosen:
        raise ValueError(f"skills {chosen} must be some of {SKILLS}; unknown: {sorted(unknown)}")


def fixtures_for(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The fixtures that scenes may have when only these skills are drawn."""
    if set(chosen) <= {"drawer", "door"}:
        return chosen
    return ("none", *(kind for kind in ("drawer", "door") if kind in chosen))


def act(
    world: HandWorld, scripts: Sequence[HandScript], frames: int, fps: float, per_frame: int, release: float = 0.0
) -> Motion:
    """The motion from now, frame 0, to frame `frames`, in `per_frame` physics steps a frame.

    release: seconds in which a hand that grasped goes from where the object stopped it to what its script says.
    """
    seconds, steps = 1.0 / (fps * per_frame), frames * per_frame
    states, poses = [], []
    slack: dict[str, tuple[int, np.ndarray]] = {}  # when and how a grasping hand was more open than its script said
    for step in range(steps + 1):
        commands = {script.side: script.command(step / steps) for script in scripts}
        for side, (since, angles) in slack.items():
            if release and not commands[side].close:
                share = max(0.0, 1.0 - (step - since) * seconds / release)
                loose = angles * share * share * (3 - 2 * share)
                commands[side] = replace(commands[side], shape=commands[side].shape + loose)
        world.step(commands, seconds)
        slack |= {s: (step, world.shapes[s] - command.shape) for s, command in commands.items() if command.close}
        if step % per_frame == 0:
            states.append(world.state.copy())
            poses.append({s: (c.position, c.rotation, world.shapes[s].copy()) for s, c in commands.items()})
    return Motion(tuple(states), tuple(poses))


def comes_true(scene: HandScene, scripts: Sequence[HandScript], motion: Motion, at_rest: bool = False) -> bool:
    """Whether every script had its effect, and nothing else was moved by more than 3 cm or out of reach.

    at_rest: the objects must stand on the counter at the end, so a lift counts in between; what scripts without an
    effect do is left to the caller.
    """
    first, last, moved = motion.states[0], motion.states[-1], motion.moved
    opened = scene.opening_metres(last) - scene.opening_metres(first)
    highest = np.max([state.positions[:, 2] for state in motion.states], axis=0) if at_rest else last.positions[:, 2]
    disturbed = max(moved.max(initial=0), opened) > 1e-6
    calm, fixture_used = np.ones(len(moved), bool), False
    for script in scripts:
        if script.effect == 0:
            if disturbed and not at_rest and script.skill != "idle":
                return False
            continue
        if script.target < 0:
            fixture_used, change = True, opened
        else:
            calm[script.target] = False
            rise = highest[script.target] - first.positions[script.target, 2]
            change = rise if "lifts" in script.text else moved[script.target]
        if change < script.effect:
            return False
    in_view = (np.abs(last.positions - _VIEW_CENTRE) < _VIEW_HALF).all()
    bystanders = moved[calm].max(initial=0) < (0.12 if fixture_used else 0.03)
    resting = last.positions[:, 2] - [item.half_height for item in scene.layout.objects] < COUNTER_TOP + 1e-6
    standing = not at_rest or resting.all()
    return bool(in_view and standing and bystanders and (fixture_used or opened < 1e-6))


def draw_script(
    writer: Writer, chosen: tuple[str, ...], hover: bool, miss: bool, both_share: float
) -> tuple[HandScript, ...]:
    """One script, or two for both hands, from the skills `chosen`. `hover`: reach only; `miss`: a near miss."""
    rng, count, fixture = writer.rng, len(writer.scene.layout.objects), writer.scene.layout.fixture
    kinds = [skill for skill in chosen if skill in ("push", "grasp")]
    if not hover and fixture is not None and fixture.kind in chosen and (not kinds or rng.random() < 0.5):
        return (_draw_fixture(writer, miss),)
    if hover or not kinds:
        return (reach(writer, int(rng.integers(count)), float(rng.choice([-1.0, 1.0]))),)
    order = rng.permutation(count)
    if not miss and count > 1 and rng.random() < both_share:
        ys = writer.start.positions[order[:2], 1]
        left, right = (order[0], order[1]) if ys[0] > ys[1] else (order[1], order[0])
        pairs = ((right, 1.0), (left, -1.0))
        return tuple(_draw_object(writer, kinds, int(index), mirror, False) for index, mirror in pairs)
    return (_draw_object(writer, kinds, int(order[0]), 0.0, miss),)


def _draw_fixture(writer: Writer, miss: bool) -> HandScript:
    rng, fixture = writer.rng, writer.fixture
    if fixture.kind == "door":
        return door(writer, miss=(fixture.handle_length / 2 + 0.06) if miss else 0.0)
    mirror = float(-np.sign(fixture.centre + rng.normal(0, 0.08)) or 1.0)
    beside = float(rng.choice([-1, 1])) * (fixture.handle_length / 2 + 0.065) if miss else 0.0
    return drawer(writer, mirror, beside)


def _draw_object(writer: Writer, kinds: list[str], index: int, mirror: float, miss: bool) -> HandScript:
    """A push or a grasp of one object; `mirror` 0 lets the act choose the hand."""
    rng, item = writer.rng, writer.scene.layout.objects[index]
    side = mirror or _nearer_hand(writer, index)
    if rng.choice(kinds) == "push":
        return _push(writer, index, side, str(rng.choice(_push_directions(item))), bool(mirror), miss)
    return _grasp(writer, index, side, str(rng.choice(["lift", *CARRIES])), miss)


def _nearer_hand(writer: Writer, index: int) -> float:
    """Usually the hand on the object's side: 1 right, -1 left."""
    return float(-np.sign(writer.start.positions[index, 1] + writer.rng.normal(0, 0.08)) or 1.0)


def _push_directions(item: ObjectSpec) -> list[str]:
    """A hand pulls closer only what it can reach over."""
    return ["left", "right", "away"] + (["closer"] if 2 * item.half_height < 0.085 else [])


def _push(writer: Writer, index: int, side: float, direction: str, side_is_fixed: bool, miss: bool) -> HandScript:
    rng, radius = writer.rng, writer.scene.layout.objects[index].radius
    if not side_is_fixed and direction in ("left", "right") and rng.random() < 0.8:  # else with the back of the hand
        side = 1.0 if direction == "left" else -1.0
    aside = float(rng.choice([-1, 1])) * (radius + float(rng.uniform(0.075, 0.1))) if miss else 0.0
    return push(writer, index, direction, side, aside)


def _grasp(writer: Writer, index: int, side: float, carry: str, miss: bool) -> HandScript:
    radius = writer.scene.layout.objects[index].radius
    return grasp(writer, index, side, carry, miss=radius + float(writer.rng.uniform(0.07, 0.1)) if miss else 0.0)


def every_kind(
    scene: HandScene, chosen: tuple[str, ...], quiet: bool, about: int | None = None
) -> list[Callable[[Writer], HandScript]]:
    """Functions that write each kind of script that is possible in `scene` with the skills `chosen`.

    quiet: the ones after which nothing has moved (hovering hands and near misses), else those that act. A fixture's
    comes first. about: only those about the object of that index.
    """
    kinds: list[Callable[[Writer], HandScript]] = []
    if about is None and scene.layout.fixture is not None and scene.layout.fixture.kind in chosen:
        kinds.append(partial(_draw_fixture, miss=quiet))
    for index, item in enumerate(scene.layout.objects):
        if about not in (None, index):
            continue
        freely = partial(_by_the_nearer_hand, index=index)
        if "push" in chosen:
            push_freely = partial(freely, make=_push, side_is_fixed=False, miss=quiet)
            kinds += [partial(push_freely, direction=way) for way in _push_directions(item)]
        if "grasp" in chosen:
            kinds += [
                partial(freely, make=_grasp, carry=way, miss=quiet) for way in (CARRIES[:1] if quiet else CARRIES)
            ]
        if quiet and "reach" in chosen:
            kinds.append(partial(freely, make=reach))
    return kinds


def _by_the_nearer_hand(writer: Writer, make: Callable[..., HandScript], index: int, **how) -> HandScript:
    return make(writer, index, _nearer_hand(writer, index), **how)


def sentence(acts: Sequence[Sequence[HandScript]]) -> str:
    """The prompt: what acting hands do, act after act, in the first person; acts of waiting are not mentioned."""
    parts = [", while ".join(script.text for script in scripts if script.skill != "idle") for scripts in acts]
    text = ", then ".join(part for part in parts if part) or "my hands rest over the counter"
    return text[0].upper() + text[1:] + "."
