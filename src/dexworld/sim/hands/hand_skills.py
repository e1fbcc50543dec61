"""Scripts of a person's hands: reach, push, pull, grasp and lift, move, open a drawer or a door, and near misses.

A script is a list of wrist key poses. Scripts are written for the right hand; the left hand's are reflected in the
plane y = 0. Times are shares of the clip, so a longer clip shows the same act more slowly. Each script has a sentence
in the first person that says what it intends; `hand_motion.comes_true` checks whether it came about.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dexworld.sim.hands import human_hands as hands
from dexworld.sim.hands.hand_physics import Key, contact
from dexworld.sim.hands.hand_scene import Fixture, HandScene, SceneState
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.objects import ObjectSpec
from dexworld.sim.poses import orient, quaternion, rotation_of, turn_about_z

SKILLS = ("reach", "push", "grasp", "drawer", "door")
CLEARANCE = 0.010  # metres between the lowest part of a pushing hand and the counter
_UP = np.array([0, 0, 1.0])
_DIRECTIONS = {"left": (0.0, 1.0), "right": (0.0, -1.0), "away": (1.0, 0.0), "closer": (-1.0, 0.0)}
_WORDS = {"left": "to the left", "right": "to the right", "away": "away from me", "closer": "towards me"}
_CARRIED = {"left": "further left", "right": "further right", "away": "further away from me", "closer": "closer to me"}


@dataclass(frozen=True)
class HandScript:
    """What one hand does in a clip.

    side: left or right. text: the sentence without its full stop, "my right hand ...". target: index of the object that
    it is about, -1 for the fixture or none. effect: metres that the target should move at least; 0: nothing may move.
    """

    side: str
    skill: str
    keys: tuple[Key, ...]
    text: str
    target: int = -1
    effect: float = 0.0

    def command(self, time: float) -> Key:
        """The pose at `time` in [0, 1]."""
        keys = self.keys
        after = next((i for i, key in enumerate(keys) if key.time >= time), len(keys) - 1)
        if after == 0:
            return keys[0]
        start, end = keys[after - 1], keys[after]
        share = min(max((time - start.time) / (end.time - start.time), 0.0), 1.0)
        if not end.linear:
            share = _eased(share)
        position = start.position + share * (end.position - start.position)
        shape = start.shape + share * (end.shape - start.shape)
        return Key(time, position, _between(start.rotation, end.rotation, share), shape, end.close)


def _eased(share: float) -> float:
    return share**3 * (10 - 15 * share + 6 * share**2)


def _between(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Normalised linear interpolation of rotations (3, 3)."""
    start, end = quaternion(first), quaternion(second)
    if start @ end < 0:
        end *= -1
    mixed = (1 - share) * start + share * end
    return rotation_of(mixed / np.linalg.norm(mixed))


class Writer:
    """Draws scripts for a scene in state `start`. All lengths in the reflected frame of the hand that acts."""

    def __init__(self, scene: HandScene, rng: np.random.Generator, start: SceneState | None = None) -> None:
        self.scene, self.rng, self.hands = scene, rng, scene.hands
        self.start = scene.start if start is None else start

    @property
    def fixture(self) -> Fixture:
        """The scene's drawer or door. Raises ValueError when there is none."""
        if self.scene.layout.fixture is None:
            raise ValueError(f"the scene of seed {self.scene.layout.seed} has neither drawer nor door")
        return self.scene.layout.fixture

    def rest(self, mirror: float) -> Key:
        """A relaxed hand over the near edge of the counter, in view."""
        rng = self.rng
        position = np.array([0.35, -0.18, 1.05]) + rng.normal(0, 1, 3) * [0.02, 0.025, 0.012]
        rotation = orient([1.0, 0.2 + rng.normal(0, 0.1), -0.4 + rng.normal(0, 0.08)], [-0.2, 0.45, -1.0])
        relative = self.hands.spheres_at(rotation, hands.RELAXED)
        while self._touches(relative + position, mirror):
            position = position + np.array([-0.005, 0, 0.015])
        return Key(0.0, position, rotation, hands.RELAXED)

    def _touches(self, centres: np.ndarray, mirror: float) -> bool:
        """Whether contact spheres in the acting hand's frame are closer than 1 cm to an object at the start."""
        centres, radii = centres * [1.0, mirror, 1.0], self.hands.sphere_radius + 0.01
        things = zip(self.scene.layout.objects, self.start.positions, self.start.yaws, strict=True)
        return any(contact(item, place, yaw, centres, radii)[0].max() > 0 for item, place, yaw in things)

    def thing(self, index: int, mirror: float) -> tuple[ObjectSpec, str, np.ndarray]:
        """An object, its name, and its centre (3,) in the acting hand's frame."""
        layout = self.scene.layout
        return layout.objects[index], layout.names[index], self.start.positions[index] * np.array([1.0, mirror, 1.0])

    def wrist_for_contact(self, rotation, shape, direction, point, parts) -> np.ndarray:
        """The wrist position at which the hand's foremost part along `direction` just reaches `point` near the counter.

        parts (M,) bool: which contact spheres count as the pushing part.
        """
        centres, radii = self.hands.spheres_at(rotation, shape), self.hands.sphere_radius
        reach = centres @ direction + radii
        front = reach[parts].max()
        across = centres[parts & (reach > front - 0.012)].mean(axis=0)
        across = across - direction * (across @ direction)
        wrist = np.asarray(point, float) - direction * front - across
        wrist[2] = COUNTER_TOP + CLEARANCE - (centres[:, 2] - radii).min()
        return wrist

    def script(
        self, skill: str, mirror: float, keys: Sequence[Key], text: str, target: int = -1, effect: float = 0.0
    ) -> HandScript:
        """The script in the world, reflected for the left hand. text: what the hand does, without its subject."""
        reflect, side = np.diag([1.0, mirror, 1.0]), "right" if mirror > 0 else "left"
        world = [replace(k, position=reflect @ k.position, rotation=reflect @ k.rotation @ reflect) for k in keys]
        return HandScript(side, skill, tuple(world), f"my {side} hand {text}" if text else "", target, effect)


def push(writer: Writer, index: int, direction: str, mirror: float, miss: float = 0.0) -> HandScript:
    """Push object `index` along `direction` (left, right, away, closer); `miss` m to the side of it if not 0."""
    rng, (item, name, centre) = writer.rng, writer.thing(index, mirror)
    way = np.array([*_DIRECTIONS[direction], 0.0]) * np.array([1.0, mirror, 1.0])
    turn = turn_about_z(float(rng.uniform(-0.25, 0.25)))
    way = turn @ way
    digit, segment = writer.hands.sphere_digit, writer.hands.sphere_segment
    parts = digit != 0  # the thumb gives way
    if direction == "closer":
        rotation, shape = turn @ orient([0.9, 0, -0.45], [-0.45, 0, -0.9]), hands.RAKE
        parts = (digit > 0) & (segment > 0)
    elif direction == "away":
        rotation, shape = turn @ orient([0.9, 0, -0.35], [-0.35, 0, -0.9]), hands.FIST
    else:
        rotation, shape = turn @ orient([0.95, 0.1, -0.3], [0, 1.0, 0]), hands.FLAT
    centre = centre + np.array([-way[1], way[0], 0.0]) * (miss + float(rng.normal(0, 0.006)))
    size = item.radius * (max(1.0, item.aspect) if item.kind == "box" else 1.0)
    length = float(rng.uniform(0.09, 0.15))
    gap = float(rng.uniform(0.035, 0.06))
    pre = writer.wrist_for_contact(rotation, shape, way, centre - way * (size + gap), parts)
    end = pre + way * (gap + length)
    # To get behind an object the hand hops over it; to its far side it goes round, on the near side.
    hop = 2 * item.half_height + 0.03 if direction == "closer" else 0.035
    aside = np.array([-0.11, 0.0, 0.0]) if abs(way[1]) > 0.5 else -0.02 * way
    above = [(0.20, pre + _UP * hop + aside), (0.30, pre), (0.66, end), (0.78, end - way * 0.04 + _UP * hop + aside)]
    rest = writer.rest(mirror)
    keys = [rest, *(Key(time, place, rotation, shape) for time, place in above), replace(rest, time=1.0)]
    if miss:
        return writer.script("push", mirror, keys, f"sweeps past the {name} without touching it", index)
    return writer.script("push", mirror, keys, f"pushes the {name} {_WORDS[direction]}", index, 0.05)


def grasp(writer: Writer, index: int, mirror: float, carry: str = "lift", miss: float = 0.0) -> HandScript:
    """Grasp object `index` from its side and lift it, or (`carry` left, right, closer) put it down elsewhere."""
    rng, (item, name, centre) = writer.rng, writer.thing(index, mirror)
    # The palm faces a tall thing from its side, a low one from above, so that thumb and fingers get round it.
    tilt = float(np.interp(item.half_height, [0.022, 0.04, 0.07], [1.0, 0.7, 0.25]))
    palm = [0.0, math.cos(tilt), -math.sin(tilt)]
    rotation = turn_about_z(float(rng.uniform(-0.2, 0.25))) @ orient([0.97, 0, -0.22], palm)
    size = writer.scene.layout.looks.size
    radius = item.radius * (max(1.0, item.aspect) if item.kind == "box" else 1.0)
    support = radius if item.kind == "ball" else radius * math.cos(tilt) + item.half_height * math.sin(tilt)
    in_hand = np.array([0.017 * size + support, 0.0, max(0.08, 0.05 + radius) * size])
    at = centre + rotation @ np.array([-miss, 0.0, 0.0]) - rotation @ in_hand
    lowest = (writer.hands.spheres_at(rotation, hands.GRIP_OPEN)[:, 2] - writer.hands.sphere_radius).min()
    at[2] = max(at[2], COUNTER_TOP + 0.006 - lowest)
    back = turn_about_z(float(rng.uniform(-0.1, 0.1))) @ np.array([-0.09 - radius, -0.025, 0.02])
    rest = writer.rest(mirror)

    def opened(*path: tuple[float, np.ndarray]) -> list[Key]:
        return [Key(time, place, rotation, hands.GRIP_OPEN) for time, place in path]

    def closed(*path: tuple[float, np.ndarray]) -> list[Key]:
        return [Key(time, place, rotation, hands.GRIP_CLOSED, close=True) for time, place in path]

    keys = [rest, *opened((0.20, at + back), (0.32, at)), *closed((0.46, at))]
    home = replace(rest, time=1.0)
    if miss:
        keys += [*opened((0.62, at + np.array([0, 0, 0.02])), (0.75, at + back)), home]
        return writer.script("grasp", mirror, keys, f"closes next to the {name} without touching it", index)
    if carry == "lift":
        rise = [float(rng.uniform(-0.05, 0.0)), float(rng.uniform(-0.03, 0.03)), float(rng.uniform(0.1, 0.15))]
        keys += closed((0.84, at + np.array(rise)), (1.0, at + np.array(rise)))
        return writer.script("grasp", mirror, keys, f"grasps the {name} and lifts it up", index, 0.06)
    way = np.array([*_DIRECTIONS[carry], 0.0]) * np.array([1.0, mirror, 1.0])
    shift = turn_about_z(float(rng.uniform(-0.3, 0.3))) @ way * float(rng.uniform(0.11, 0.17))
    up = np.array([0, 0, float(rng.uniform(0.04, 0.07))])
    keys += closed((0.54, at + up), (0.70, at + up + shift), (0.77, at + shift))
    keys += [*opened((0.84, at + shift), (0.91, at + shift + back * 1.3)), home]
    return writer.script("grasp", mirror, keys, f"picks up the {name} and puts it down {_CARRIED[carry]}", index, 0.06)


def reach(writer: Writer, index: int, mirror: float) -> HandScript:
    """Hover over object `index` with an open hand or a pointing finger, and come back."""
    rng, (item, name, over) = writer.rng, writer.thing(index, mirror)
    verb, shape = ("points at", hands.POINT) if rng.random() < 0.4 else ("reaches over", hands.RELAXED)
    rotation = turn_about_z(float(rng.uniform(-0.3, 0.3))) @ orient([0.9, 0, -0.5], [-0.5, 0, -0.9])
    over = over + np.array([*rng.normal(0, 0.02, 2), 0.0])
    if 2 * item.half_height < 0.1:
        over[2] += item.half_height + float(rng.uniform(0.03, 0.06))
    else:  # in front of a tall thing rather than over it, where the hand would leave the picture
        over += [-(item.radius + float(rng.uniform(0.03, 0.05))), 0, 0.3 * item.half_height]
    tip = writer.hands.spheres_at(rotation, shape)[writer.hands.sphere_digit == 1][-1]
    at = over - tip + [0, 0, float(writer.hands.sphere_radius.max())]
    rest = writer.rest(mirror)
    away = Key(0.6, at + rng.normal(0, 0.012, 3) * [1, 1, 0], rotation, shape)
    keys = [rest, Key(0.35, at, rotation, shape), away, replace(rest, time=1.0)]
    return writer.script("reach", mirror, keys, f"{verb} the {name} and draws back without touching it", index)


def idle(writer: Writer, mirror: float) -> HandScript:
    """A hand that rests in view and hardly moves."""
    first = writer.rest(mirror)
    last = replace(first, time=1.0, position=first.position + writer.rng.normal(0, 0.01, 3))
    return writer.script("idle", mirror, [first, last], "")


def drawer(writer: Writer, mirror: float, miss: float = 0.0) -> HandScript:
    """Hook the fingers over the drawer's bar from above and pull; `miss` m beside the handle if not 0."""
    rng = writer.rng
    rotation = turn_about_z(float(rng.uniform(-0.12, 0.12))) @ orient([1.0, 0, -0.17], [-0.17, 0, -1.0])
    middle = writer.fixture.bar(0.0)[0] * np.array([1.0, mirror, 1.0])
    middle = middle + np.array([0, float(rng.normal(0, 0.01)) + miss, 0])
    at = middle + np.array([0.022, 0, 0]) - _hook_centre(writer, rotation)
    end = at + np.array([-float(rng.uniform(0.105, 0.15)), 0, 0])
    up = np.array([-0.01, 0, 0.065])
    rest = writer.rest(mirror)
    path = [(0.22, at + up), (0.32, at), (0.70, end), (0.80, end + up + [0.015, 0, 0])]
    keys = [rest, *(Key(time, place, rotation, hands.HOOK) for time, place in path), replace(rest, time=1.0)]
    if miss:
        text = "pulls back beside the handle of the drawer and the drawer stays closed"
        return writer.script("drawer", mirror, keys, text)
    return writer.script("drawer", mirror, keys, "hooks the handle and pulls the drawer open", effect=0.08)


def _hook_centre(writer: Writer, rotation: np.ndarray) -> np.ndarray:
    """Middle of the fingers' middle phalanges relative to the wrist in the hook shape (3,)."""
    model = writer.hands
    fingers = (model.sphere_digit >= 1) & (model.sphere_digit <= 3) & (model.sphere_segment == 1)
    return model.spheres_at(rotation, hands.HOOK)[fingers].mean(axis=0)


def door(writer: Writer, miss: float = 0.0) -> HandScript:
    """Hook the door's bar from its free edge and swing the door open; the hand is the one on that side."""
    rng, fixture = writer.rng, writer.fixture
    mirror = fixture.hinge
    facing = orient([1.0, 0, -0.12], [0, 1.0, 0])
    height = float(rng.normal(0, 0.008)) + miss

    def hooked(opening: float) -> tuple[np.ndarray, np.ndarray]:
        """Wrist pose whose fingers are behind the bar."""
        middle, _, normal = (part * [1.0, mirror, 1.0] for part in fixture.bar(opening))
        rotation = turn_about_z(-0.75 * opening) @ facing
        return middle - normal * 0.022 + [0, 0, height] - _hook_centre(writer, rotation), rotation

    angle = float(rng.uniform(0.55, 0.95))
    start, rotation = hooked(0.0)
    aside = np.array([-0.005, -0.07, 0.0])
    rest = writer.rest(mirror)
    keys = [rest, Key(0.22, start + aside, rotation, hands.HOOK), Key(0.32, start, rotation, hands.HOOK)]
    for share in np.linspace(0, 1, 13)[1:]:
        keys.append(Key(0.32 + 0.40 * share, *hooked(angle * _eased(share)), hands.HOOK, linear=True))
    end, rotation = hooked(angle)
    keys.append(Key(0.81, end + turn_about_z(-angle) @ aside + [-0.01, 0, 0], rotation, hands.HOOK))
    keys.append(replace(rest, time=1.0))
    if miss:
        text = "swings back above the handle of the cabinet door and the door stays closed"
        return writer.script("door", mirror, keys, text)
    return writer.script("door", mirror, keys, "hooks the handle and swings the cabinet door open", effect=0.08)
