"""Scripts of a person's hands: reach, push, pull, grasp and lift, move, open a drawer or a door, and near misses.

A script is a list of wrist key poses. Scripts are written for the right hand; the left hand's are reflected in the
plane y = 0. Times are shares of the clip, so a longer clip shows the same act more slowly. Each script has a sentence
in the first person that says what it intends; whether it came about is for the caller to check (`hand_clips`).
"""

import math
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dexworld.sim import human_hands as hands
from dexworld.sim.hand_physics import HandCommand, contact
from dexworld.sim.hand_scene import HandScene
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP

SKILLS = ("reach", "push", "grasp", "drawer", "door")
CLEARANCE = 0.010  # metres between the lowest part of a pushing hand and the counter


@dataclass(frozen=True)
class Key:
    """A pose at `time` in [0, 1]; the segment that ends here is eased unless `linear`. `close`: see HandCommand."""

    time: float
    position: np.ndarray
    rotation: np.ndarray
    shape: np.ndarray
    close: bool = False
    linear: bool = False


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

    def command(self, time: float, current: np.ndarray | None = None) -> HandCommand:
        """The command at `time` in [0, 1]."""
        keys = self.keys
        after = next((i for i, key in enumerate(keys) if key.time >= time), len(keys) - 1)
        if after == 0:
            return HandCommand(keys[0].position, keys[0].rotation, keys[0].shape, keys[0].close)
        start, end = keys[after - 1], keys[after]
        share = min(max((time - start.time) / (end.time - start.time), 0.0), 1.0)
        if not end.linear:
            share = share**3 * (10 - 15 * share + 6 * share**2)
        position = start.position + share * (end.position - start.position)
        shape = start.shape + share * (end.shape - start.shape)
        return HandCommand(position, _between(start.rotation, end.rotation, share), shape, end.close)


def _between(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Normalised linear interpolation of rotations (3, 3)."""
    quaternions = np.zeros((2, 4))
    for row, rotation in zip(quaternions, (first, second), strict=True):
        mujoco.mju_mat2Quat(row, np.ascontiguousarray(rotation).ravel())
    if quaternions[0] @ quaternions[1] < 0:
        quaternions[1] *= -1
    mixed = (1 - share) * quaternions[0] + share * quaternions[1]
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, mixed / np.linalg.norm(mixed))
    return matrix.reshape(3, 3)


def orient(fingers, palm) -> np.ndarray:
    """world_from_hand (3, 3) with the fingers along `fingers` and the palm facing `palm` as far as possible."""
    z = np.asarray(fingers, float) / np.linalg.norm(fingers)
    x = np.asarray(palm, float) - z * (z @ np.asarray(palm, float))
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def turn_about_z(angle: float) -> np.ndarray:
    """Rotation (3, 3) by `angle` about the vertical."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])


class Writer:
    """Draws scripts for one scene. All lengths in the reflected frame of the hand that acts."""

    def __init__(self, scene: HandScene, rng: np.random.Generator) -> None:
        self.scene, self.rng = scene, rng

    def rest(self, mirror: float) -> Key:
        """A relaxed hand over the near edge of the counter, in view."""
        rng = self.rng
        position = np.array([0.35, -0.18, 1.05]) + rng.normal(0, 1, 3) * [0.02, 0.025, 0.012]
        rotation = orient([1.0, 0.2 + rng.normal(0, 0.1), -0.4 + rng.normal(0, 0.08)], [-0.2, 0.45, -1.0])
        relative = self.scene.hands.spheres_at("right", rotation, hands.RELAXED)
        while self._touches(relative + position, mirror):
            position = position + np.array([-0.005, 0, 0.015])
        return Key(0.0, position, rotation, hands.RELAXED)

    def _touches(self, centres: np.ndarray, mirror: float) -> bool:
        """Whether contact spheres in the acting hand's frame are closer than 1 cm to an object at the start."""
        start, radii = self.scene.start, self.scene.hands.sphere_radius + 0.01
        centres = centres * [1.0, mirror, 1.0]
        return any(
            contact(item, start.positions[index], start.yaws[index], centres, radii)[0].max() > 0
            for index, item in enumerate(self.scene.layout.objects)
        )

    def where(self, index: int, mirror: float) -> np.ndarray:
        """Object centre (3,) in the acting hand's frame."""
        return self.scene.start.positions[index] * np.array([1.0, mirror, 1.0])

    def wrist_for_contact(self, rotation, shape, direction, point, parts) -> np.ndarray:
        """The wrist position at which the hand's foremost part along `direction` just reaches `point` near the counter.

        parts(digit, segment): which contact spheres count as the pushing part.
        """
        model = self.scene.hands
        centres, radii = model.spheres_at("right", rotation, shape), model.sphere_radius
        chosen = parts(model.sphere_digit, model.sphere_segment)
        reach = centres @ direction + radii
        front = reach[chosen].max()
        foremost = chosen & (reach > front - 0.012)
        across = centres[foremost].mean(axis=0)
        across = across - direction * (across @ direction)
        wrist = np.asarray(point, float) - direction * front - across
        wrist[2] = COUNTER_TOP + CLEARANCE - (centres[:, 2] - radii).min()
        return wrist

    def finish(self, keys: list[Key], mirror: float) -> tuple[Key, ...]:
        """The keys in the world: reflected for the left hand."""
        reflect = np.diag([1.0, mirror, 1.0])
        return tuple(
            replace(key, position=reflect @ key.position, rotation=reflect @ key.rotation @ reflect) for key in keys
        )


def _side_of(mirror: float) -> str:
    return "right" if mirror > 0 else "left"


_DIRECTIONS = {"left": (0.0, 1.0), "right": (0.0, -1.0), "away": (1.0, 0.0), "closer": (-1.0, 0.0)}
_WORDS = {"left": "to the left", "right": "to the right", "away": "away from me", "closer": "towards me"}


def push(writer: Writer, index: int, direction: str, mirror: float, miss: float = 0.0) -> HandScript:
    """Push object `index` along `direction` (left, right, away, closer); `miss` m to the side of it if not 0."""
    rng, item = writer.rng, writer.scene.layout.objects[index]
    way = np.array([*_DIRECTIONS[direction], 0.0]) * np.array([1.0, mirror, 1.0])
    turn = turn_about_z(float(rng.uniform(-0.25, 0.25)))
    way = turn @ way
    anyone = lambda digit, segment: digit != 0  # noqa: E731 - the thumb gives way
    tips = lambda digit, segment: (digit >= 1) & (segment >= 1)  # noqa: E731
    if direction == "closer":
        rotation, shape, parts = turn @ orient([0.9, 0, -0.45], [-0.45, 0, -0.9]), hands.RAKE, tips
    elif direction == "away":
        rotation, shape, parts = turn @ orient([0.9, 0, -0.35], [-0.35, 0, -0.9]), hands.FIST, anyone
    else:
        rotation, shape, parts = turn @ orient([0.95, 0.1, -0.3], [0, 1.0, 0]), hands.FLAT, anyone
    centre = writer.where(index, mirror)
    lateral = np.array([-way[1], way[0], 0.0])
    centre = centre + lateral * (miss + float(rng.normal(0, 0.006)))
    size = item.radius * (max(1.0, item.aspect) if item.kind == "box" else 1.0)
    length = float(rng.uniform(0.09, 0.15))
    gap = float(rng.uniform(0.035, 0.06))
    pre = writer.wrist_for_contact(rotation, shape, way, centre - way * (size + gap), parts)
    end = pre + way * (gap + length)
    up = np.array([0, 0, 1.0])
    # To get behind an object the hand hops over it; to its far side it goes round, on the near side.
    hop = 2 * item.half_height + 0.03 if direction == "closer" else 0.035
    aside = np.array([-0.11, 0.0, 0.0]) if abs(way[1]) > 0.5 else -0.02 * way
    rest = writer.rest(mirror)
    keys = [
        rest,
        Key(0.20, pre + up * hop + aside, rotation, shape),
        Key(0.30, pre, rotation, shape),
        Key(0.66, end, rotation, shape),
        Key(0.78, end - way * 0.04 + up * hop + aside, rotation, shape),
        replace(rest, time=1.0),
    ]
    name, side = writer.scene.layout.names[index], _side_of(mirror)
    if miss:
        text = f"my {side} hand sweeps past the {name} without touching it"
        return HandScript(side, "push", writer.finish(keys, mirror), text, index, 0.0)
    return HandScript(
        side, "push", writer.finish(keys, mirror), f"my {side} hand pushes the {name} {_WORDS[direction]}", index, 0.05
    )


def grasp(writer: Writer, index: int, mirror: float, carry: str = "lift", miss: float = 0.0) -> HandScript:
    """Grasp object `index` from its side and lift it, or (`carry` left, right, closer) put it down elsewhere."""
    rng, item, model = writer.rng, writer.scene.layout.objects[index], writer.scene.hands
    # The palm faces a tall thing from its side, a low one from above, so that thumb and fingers get round it.
    tilt = float(np.interp(item.half_height, [0.022, 0.04, 0.07], [1.0, 0.7, 0.25]))
    palm = [0.0, math.cos(tilt), -math.sin(tilt)]
    rotation = turn_about_z(float(rng.uniform(-0.2, 0.25))) @ orient([0.97, 0, -0.22], palm)
    size = writer.scene.layout.looks.size
    radius = item.radius * (max(1.0, item.aspect) if item.kind == "box" else 1.0)
    support = radius if item.kind == "ball" else radius * math.cos(tilt) + item.half_height * math.sin(tilt)
    in_hand = np.array([0.017 * size + support, 0.0, max(0.08, 0.05 + radius) * size])
    centre = writer.where(index, mirror) + rotation @ np.array([-miss, 0.0, 0.0])
    at = centre - rotation @ in_hand
    centres = model.spheres_at("right", rotation, hands.GRIP_OPEN)
    lowest = (centres[:, 2] - model.sphere_radius).min()
    at[2] = max(at[2], COUNTER_TOP + 0.006 - lowest)
    back = turn_about_z(float(rng.uniform(-0.1, 0.1))) @ np.array([-0.09 - radius, -0.025, 0.02])
    rest = writer.rest(mirror)
    opened, closed = hands.GRIP_OPEN, hands.GRIP_CLOSED
    keys = [
        rest,
        Key(0.20, at + back, rotation, opened),
        Key(0.32, at, rotation, opened),
        Key(0.46, at, rotation, closed, close=True),
    ]
    name, side = writer.scene.layout.names[index], _side_of(mirror)
    if miss:
        keys += [
            Key(0.62, at + np.array([0, 0, 0.02]), rotation, opened),
            Key(0.75, at + back, rotation, opened),
            replace(rest, time=1.0),
        ]
        text = f"my {side} hand closes next to the {name} without touching it"
        return HandScript(side, "grasp", writer.finish(keys, mirror), text, index, 0.0)
    if carry == "lift":
        rise = np.array(
            [float(rng.uniform(-0.05, 0.0)), float(rng.uniform(-0.03, 0.03)), float(rng.uniform(0.1, 0.15))]
        )
        keys += [
            Key(0.84, at + rise, rotation, closed, close=True),
            Key(1.0, at + rise, rotation, closed, close=True),
        ]
        text = f"my {side} hand grasps the {name} and lifts it up"
        return HandScript(side, "grasp", writer.finish(keys, mirror), text, index, 0.06)
    way = np.array([*_DIRECTIONS[carry], 0.0]) * np.array([1.0, mirror, 1.0])
    shift = turn_about_z(float(rng.uniform(-0.3, 0.3))) @ way * float(rng.uniform(0.11, 0.17))
    up = np.array([0, 0, float(rng.uniform(0.04, 0.07))])
    keys += [
        Key(0.54, at + up, rotation, closed, close=True),
        Key(0.70, at + up + shift, rotation, closed, close=True),
        Key(0.77, at + shift, rotation, closed, close=True),
        Key(0.84, at + shift, rotation, opened),
        Key(0.91, at + shift + back * 1.3, rotation, opened),
        replace(rest, time=1.0),
    ]
    text = f"my {side} hand picks up the {name} and puts it down further {_WORDS[carry].removeprefix('to the ')}"
    text = text.replace("further towards", "closer to")
    return HandScript(side, "grasp", writer.finish(keys, mirror), text, index, 0.06)


def reach(writer: Writer, index: int, mirror: float) -> HandScript:
    """Hover over object `index` with an open hand or a pointing finger, and come back."""
    rng, item, model = writer.rng, writer.scene.layout.objects[index], writer.scene.hands
    shape = hands.POINT if rng.random() < 0.4 else hands.RELAXED
    rotation = turn_about_z(float(rng.uniform(-0.3, 0.3))) @ orient([0.9, 0, -0.5], [-0.5, 0, -0.9])
    centres = model.spheres_at("right", rotation, shape)
    over = writer.where(index, mirror) + np.array([*rng.normal(0, 0.02, 2), 0.0])
    if 2 * item.half_height < 0.1:
        over[2] += item.half_height + float(rng.uniform(0.03, 0.06))
    else:  # in front of a tall thing rather than over it, where the hand would leave the picture
        over += [-(item.radius + float(rng.uniform(0.03, 0.05))), 0, 0.3 * item.half_height]
    at = over - centres[model.sphere_digit == 1][-1] + [0, 0, float(model.sphere_radius.max())]
    rest = writer.rest(mirror)
    keys = [
        rest,
        Key(0.35, at, rotation, shape),
        Key(0.6, at + rng.normal(0, 0.012, 3) * [1, 1, 0], rotation, shape),
        replace(rest, time=1.0),
    ]
    name, side = writer.scene.layout.names[index], _side_of(mirror)
    verb = "points at" if shape is hands.POINT else "reaches over"
    text = f"my {side} hand {verb} the {name} and draws back without touching it"
    return HandScript(side, "reach", writer.finish(keys, mirror), text, index, 0.0)


def idle(writer: Writer, mirror: float) -> HandScript:
    """A hand that rests in view and hardly moves."""
    first = writer.rest(mirror)
    last = replace(first, time=1.0, position=first.position + writer.rng.normal(0, 0.01, 3))
    return HandScript(_side_of(mirror), "idle", writer.finish([first, last], mirror), "")


def drawer(writer: Writer, mirror: float, miss: float = 0.0) -> HandScript:
    """Hook the fingers over the drawer's bar from above and pull."""
    rng, fixture = writer.rng, writer.scene.layout.fixture
    assert fixture is not None
    rotation = turn_about_z(float(rng.uniform(-0.12, 0.12))) @ orient([1.0, 0, -0.17], [-0.17, 0, -1.0])
    middle = fixture.bar(0.0)[0] * np.array([1.0, mirror, 1.0])
    middle = middle + np.array([0, float(rng.normal(0, 0.01)) + miss, 0])
    at = middle + np.array([0.022, 0, 0]) - _hook_centre(writer, rotation)
    pull = np.array([-float(rng.uniform(0.105, 0.15)), 0, 0])
    up = np.array([-0.01, 0, 0.065])
    rest = writer.rest(mirror)
    keys = [
        rest,
        Key(0.22, at + up, rotation, hands.HOOK),
        Key(0.32, at, rotation, hands.HOOK),
        Key(0.70, at + pull, rotation, hands.HOOK),
        Key(0.80, at + pull + up + [0.015, 0, 0], rotation, hands.HOOK),
        replace(rest, time=1.0),
    ]
    side = _side_of(mirror)
    if miss:
        text = f"my {side} hand pulls back beside the handle of the drawer and the drawer stays closed"
        return HandScript(side, "drawer", writer.finish(keys, mirror), text, -1, 0.0)
    text = f"my {side} hand hooks the handle and pulls the drawer open"
    return HandScript(side, "drawer", writer.finish(keys, mirror), text, -1, 0.08)


def _hook_centre(writer: Writer, rotation: np.ndarray) -> np.ndarray:
    """Middle of the fingers' middle phalanges relative to the wrist in the hook shape (3,)."""
    model = writer.scene.hands
    centres = model.spheres_at("right", rotation, hands.HOOK)
    fingers = (model.sphere_digit >= 1) & (model.sphere_digit <= 3) & (model.sphere_segment == 1)
    return centres[fingers].mean(axis=0)


def door(writer: Writer, miss: float = 0.0) -> HandScript:
    """Hook the door's bar from its free edge and swing the door open; the hand is the one on that side."""
    rng, fixture = writer.rng, writer.scene.layout.fixture
    assert fixture is not None
    mirror = fixture.hinge
    facing = orient([1.0, 0, -0.12], [0, 1.0, 0])
    height = float(rng.normal(0, 0.008)) + miss

    def hooked(opening: float) -> tuple[np.ndarray, np.ndarray]:
        """Wrist pose whose fingers are behind the bar."""
        middle, _, normal = fixture.bar(opening)
        middle, normal = middle * [1.0, mirror, 1.0], normal * [1.0, mirror, 1.0]
        rotation = turn_about_z(-0.75 * opening) @ facing
        return middle - normal * 0.022 + [0, 0, height] - _hook_centre(writer, rotation), rotation

    angle = float(rng.uniform(0.55, 0.95))
    start, rotation = hooked(0.0)
    aside = np.array([-0.005, -0.07, 0.0])
    rest = writer.rest(mirror)
    keys = [rest, Key(0.22, start + aside, rotation, hands.HOOK), Key(0.32, start, rotation, hands.HOOK)]
    for share in np.linspace(0, 1, 13)[1:]:
        eased = share**3 * (10 - 15 * share + 6 * share**2)
        keys.append(Key(0.32 + 0.40 * share, *hooked(angle * eased), hands.HOOK, linear=True))
    end, rotation = hooked(angle)
    keys += [
        Key(0.81, end + turn_about_z(-angle) @ aside + [-0.01, 0, 0], rotation, hands.HOOK),
        replace(rest, time=1.0),
    ]
    side = _side_of(mirror)
    if miss:
        text = f"my {side} hand swings back above the handle of the cabinet door and the door stays closed"
        return HandScript(side, "door", writer.finish(keys, mirror), text, -1, 0.0)
    text = f"my {side} hand hooks the handle and swings the cabinet door open"
    return HandScript(side, "door", writer.finish(keys, mirror), text, -1, 0.08)
