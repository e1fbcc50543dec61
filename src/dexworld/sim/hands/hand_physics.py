"""Quasi-static contact between kinematic hands and the things on a counter.

These rules replace rigid-body dynamics: they are cheap, repeat exactly and can't diverge.

- Push: a sphere of the hand that reaches into an object's footprint displaces the object along the contact normal until
  they only touch. A box also turns, by the ellipsoidal limit surface of a pressed, sliding body (Lynch and Mason 1996,
  "Stable pushing"). Pushed objects push others. Nothing topples; a hand above an object does not move it.
- Close: while a script closes a hand, each digit stops where it touches an object.
- Grasp: an object is held, and follows the palm rigidly, once at least three of the palm and the five digits touch it
  and two of these contacts oppose each other. It falls when the script opens the hand.
- Handle: a drawer or door opens only by fingers behind its bar (at least two of them) that move out further than the
  bar; it stays where it was left, and its front pushes what stands in its way.
"""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from dexworld.sim.hands.hand_scene import Fixture, HandScene, SceneState
from dexworld.sim.hands.human_hands import ABSENT, DIGITS, SIDES
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.objects import ObjectSpec
from dexworld.sim.poses import turn_about_z

GRAVITY = 9.81
TOUCH = 0.012  # metres: a digit that stopped before an object is at most one step away from it
_JOINTS_OF_DIGIT = (slice(0, 4), *(slice(4 + 3 * index, 7 + 3 * index) for index in range(4)))


@dataclass(frozen=True)
class Key:
    """Where a script wants a hand at `time` in [0, 1]: wrist (3,) m, world_from_hand (3, 3), joints (16,) rad.

    close: digits that touch something stop there. linear: the way here is not eased.
    """

    time: float
    position: np.ndarray
    rotation: np.ndarray
    shape: np.ndarray
    close: bool = False
    linear: bool = False


@dataclass(frozen=True)
class _Hold:
    index: int
    offset: np.ndarray  # object centre in the hand's frame
    rotation: np.ndarray  # world_from_hand at the grasp
    yaw: float


class HandWorld:
    """The state of a scene that hands act on, from `state` on. `state` and `shapes` are current after every `step`."""

    def __init__(self, scene: HandScene, state: SceneState | None = None) -> None:
        self.scene, self.state = scene, scene.start if state is None else state.copy()
        self.data = mujoco.MjData(scene.model)
        self.held: dict[str, _Hold] = {}
        self.shapes: dict[str, np.ndarray] = {}
        self._stopped = {side: np.zeros(len(DIGITS), bool) for side in SIDES}
        self._fall_speed = np.zeros(len(scene.layout.objects))
        for side in SIDES:
            scene.hands.set_hand(self.data, side, *ABSENT)

    def step(self, commands: dict[str, Key], seconds: float) -> None:
        """Move the hands to `commands` and let the scene follow. Absent sides stay hidden."""
        for side, command in commands.items():
            self._close_or_open(side, command)
        mujoco.mj_kinematics(self.scene.model, self.data)
        spheres = {side: self.scene.hands.spheres(self.data, side) for side in commands}
        for side, command in commands.items():
            if side in self.held:
                self._carry(side, command)
            elif command.close:
                self._grasp(side, command, spheres[side])
        self._push_each_other(self._push(spheres))
        self._fall(seconds)
        if self.scene.layout.fixture is not None:
            self._pull_handle(self.scene.layout.fixture, spheres)

    def _held_objects(self) -> set[int]:
        return {hold.index for hold in self.held.values()}

    def _close_or_open(self, side: str, command: Key) -> None:
        """Set the hand; while it closes, take back the joints of digits that would enter an object."""
        hands, stopped = self.scene.hands, self._stopped[side]
        if not command.close:
            self.held.pop(side, None)
            stopped[:] = False
        shape = command.shape.copy()
        before = self.shapes.get(side, shape)
        for digit in np.flatnonzero(stopped):
            shape[_JOINTS_OF_DIGIT[digit]] = before[_JOINTS_OF_DIGIT[digit]]
        hands.set_hand(self.data, side, command.position, command.rotation, shape)
        if command.close and not stopped.all():
            mujoco.mj_kinematics(self.scene.model, self.data)
            spheres = hands.spheres(self.data, side)
            for index in range(len(self.state.positions)):
                depth, _ = self._contact(index, spheres)
                for digit in np.unique(hands.sphere_digit[(depth > 0.0005) & (hands.sphere_digit >= 0)]):
                    stopped[digit] = True
                    shape[_JOINTS_OF_DIGIT[digit]] = before[_JOINTS_OF_DIGIT[digit]]
            hands.set_hand(self.data, side, command.position, command.rotation, shape)
        self.shapes[side] = shape

    def _grasp(self, side: str, command: Key, spheres: np.ndarray) -> None:
        """Start to hold the object that the hand encloses, if there is one."""
        digit_of, taken = self.scene.hands.sphere_digit, self._held_objects()
        for index in range(len(self.state.positions)):
            if index in taken:
                continue
            depth, normal = self._contact(index, spheres)
            parts = [
                part for part in (-1, *np.flatnonzero(self._stopped[side])) if depth[digit_of == part].max() > -TOUCH
            ]
            if len(parts) < 3:
                continue
            normals = np.array([normal[digit_of == part][depth[digit_of == part].argmax()] for part in parts])
            if (normals @ normals.T).min() > -0.25:
                continue
            offset = command.rotation.T @ (self.state.positions[index] - command.position)
            self.held[side] = _Hold(index, offset, command.rotation.copy(), float(self.state.yaws[index]))
            self._fall_speed[index] = 0.0
            return

    def _carry(self, side: str, command: Key) -> None:
        hold = self.held[side]
        position = command.position + command.rotation @ hold.offset
        position[2] = max(position[2], self._rest_height(hold.index))  # the counter is solid
        turn = command.rotation @ hold.rotation.T
        self.state.positions[hold.index] = position
        self.state.yaws[hold.index] = hold.yaw + math.atan2(turn[1, 0], turn[0, 0])

    def _rest_height(self, index: int) -> float:
        return COUNTER_TOP + self.scene.layout.objects[index].half_height

    def _contact(self, index: int, spheres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How deep each sphere is in object `index` (M,), negative outside, and the way out for the object (M, 2)."""
        item, radii = self.scene.layout.objects[index], self.scene.hands.sphere_radius
        return contact(item, self.state.positions[index], self.state.yaws[index], spheres, radii)

    def _push(self, spheres: dict[str, np.ndarray]) -> list[int]:
        """Displace every object that is not held out of the hands. Returns the indices of those that moved."""
        held, moved = self._held_objects(), []
        for index in range(len(self.state.positions)):
            if index in held:
                moved.append(index)
                continue
            for _ in range(8):
                found = [(side, *self._contact(index, centres)) for side, centres in spheres.items()]
                if not found:
                    break
                side, depth, normal = max(found, key=lambda entry: entry[1].max())
                if depth.max() < 1e-4:
                    break
                deepest = int(depth.argmax())
                self._slide(index, spheres[side][deepest, :2], normal[deepest], float(depth[deepest]))
                if index not in moved:
                    moved.append(index)
        return moved

    def _slide(self, index: int, point: np.ndarray, normal: np.ndarray, depth: float) -> None:
        item, position = self.scene.layout.objects[index], self.state.positions[index]
        if item.kind == "box":
            lever = point - position[:2]
            torque = lever[0] * normal[1] - lever[1] * normal[0]
            pressure_radius = 0.6 * item.radius * math.sqrt(0.5 * (1 + item.aspect**2))
            share = 1.0 / (1.0 + (torque / pressure_radius) ** 2)
            turn = depth * share * torque / pressure_radius**2
            self.state.yaws[index] += float(np.clip(turn, -0.08, 0.08))
            depth *= share
        position[:2] += depth * normal

    def _push_each_other(self, moved: list[int]) -> None:
        """Objects are discs to each other; one that was moved shoves the ones in its way."""
        queue, shoves = list(moved), 0
        positions, objects, held = self.state.positions, self.scene.layout.objects, self._held_objects()
        while queue and shoves < 32:
            index = queue.pop(0)
            for other in range(len(objects)):
                apart = abs(positions[other, 2] - positions[index, 2])
                if other == index or other in held or apart > objects[other].half_height + objects[index].half_height:
                    continue
                offset = positions[other, :2] - positions[index, :2]
                distance = float(np.linalg.norm(offset))
                overlap = objects[other].radius + objects[index].radius - distance
                if overlap > 1e-5 and distance > 1e-6:
                    positions[other, :2] += offset / distance * overlap
                    queue.append(other)
                    shoves += 1

    def _fall(self, seconds: float) -> None:
        held, positions = self._held_objects(), self.state.positions
        for index in range(len(positions)):
            rest = self._rest_height(index)
            if index in held or positions[index, 2] <= rest:
                self._fall_speed[index] = 0.0
                continue
            self._fall_speed[index] += GRAVITY * seconds
            positions[index, 2] = max(positions[index, 2] - self._fall_speed[index] * seconds, rest)

    def _pull_handle(self, fixture: Fixture, spheres: dict[str, np.ndarray]) -> None:
        fingers = self.scene.hands.sphere_digit >= 1
        digits, radii = self.scene.hands.sphere_digit[fingers], self.scene.hands.sphere_radius[fingers]
        opening = self.state.opening
        for _ in range(6):
            middle, axis, normal = fixture.bar(opening)
            push = 0.0
            for centres in spheres.values():
                offset = centres[fingers] - middle
                along = offset @ axis
                across = offset - along[:, None] * axis
                overlap = radii + fixture.bar_radius - np.linalg.norm(across, axis=1)
                behind = (across @ normal < 0) & (np.abs(along) < fixture.handle_length / 2) & (overlap > 0)
                if len(np.unique(digits[behind])) >= 2:
                    push = max(push, float(overlap[behind].max()))
            if push < 1e-5:
                break
            opening = min(opening + push / fixture.lever, fixture.travel)
        if opening != self.state.opening:
            self.state = SceneState(self.state.positions, self.state.yaws, opening)
            self._push_each_other(self._push_by_panel(fixture))

    def _push_by_panel(self, fixture: Fixture) -> list[int]:
        """The opening front displaces what stands in its way. Returns the indices of those objects."""
        moved, (start, end) = [], fixture.panel(self.state.opening)
        normal = fixture.bar(self.state.opening)[2][:2]
        for index, item in enumerate(self.scene.layout.objects):
            position = self.state.positions[index]
            share = np.clip((position[:2] - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            gap = position[:2] - (start + share * (end - start))
            if np.linalg.norm(gap) < item.radius:
                position[:2] += normal * max(item.radius - float(gap @ normal), 0.0)
                moved.append(index)
        return moved


def contact(
    item: ObjectSpec, position: np.ndarray, yaw: float, centres: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Contact of spheres with one upright object.

    centres: (M, 3) and radii (M,) of the spheres, metres. Returns the depth (M,), how far each sphere's reach at the
    object's height overlaps the footprint (negative: the gap; -inf: passes above or below), and the unit direction
    (M, 2) in which the object gets free.
    """
    offset = centres[:, :2] - position[:2]
    above = np.abs(centres[:, 2] - position[2])
    if item.kind == "ball":
        reach = item.radius + radii
        distance = np.maximum(np.linalg.norm(offset, axis=1), 1e-9)
        depth = np.where(above < reach, np.sqrt(np.maximum(reach**2 - above**2, 0)) - distance, -np.inf)
        return depth, -offset / distance[:, None]
    gap = np.maximum(above - item.half_height, 0.0)
    reach = np.sqrt(np.maximum(radii**2 - gap**2, 0.0))
    if item.kind == "box":
        distance, outward = _from_rectangle(offset, yaw, item)
    else:
        length = np.maximum(np.linalg.norm(offset, axis=1), 1e-9)
        distance, outward = length - item.radius, offset / length[:, None]
    depth = reach - distance
    over = (gap > 0) & (distance < 0)  # rests on the lid, or hangs above it
    return np.where((gap < radii) & ~over, depth, -np.inf), -outward


def _from_rectangle(offset: np.ndarray, yaw: float, item: ObjectSpec) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance (M,) of planar points from a box's footprint and the outward directions (M, 2)."""
    world_from_box = turn_about_z(yaw)[:2, :2]
    local = offset @ world_from_box
    half = np.array([item.radius, item.radius * item.aspect])
    beyond = local - np.clip(local, -half, half)
    outside = np.linalg.norm(beyond, axis=1)
    to_face = half - np.abs(local)
    face = to_face.argmin(axis=1)
    rows = np.arange(len(local))
    inward = np.zeros_like(local)
    inward[rows, face] = np.where(local[rows, face] >= 0, 1.0, -1.0)
    is_out = outside > 1e-9
    direction = np.where(is_out[:, None], beyond / np.maximum(outside, 1e-9)[:, None], inward)
    return np.where(is_out, outside, -to_face[rows, face]), direction @ world_from_box.T
