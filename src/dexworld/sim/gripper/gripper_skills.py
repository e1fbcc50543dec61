"""What an operator does with the gripper: reach, push, pick and place, open and close, and move about.

Every skill is a generator of waypoints that looks at the true state while it runs, as a person looks at the scene, and
returns whether it worked. Aim and timing vary, and attempts fail now and then: DROID has failures too.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from dexworld.sim.gripper.gripper_control import Waypoint, downward
from dexworld.sim.gripper.gripper_simulation import MAX_OPENING, OBJECT_AREA, GripperSimulation
from dexworld.sim.hands.hand_scene import COLOURS
from dexworld.sim.poses import heading

SKILLS = ("reach", "push", "pick_place", "grip", "explore")
LIFTED = 0.03  # metres above where it stood: an object this high with the gripper on it is carried
PLACED = 0.08  # metres from where it should have been put
PUSHED = 0.04  # metres: a push that moved its object less has failed
REACHED = 0.07  # metres from the grasp point to the object's top
ATTEMPTS = 3
_FINGER_TIP = 0.010  # metres from the grasp point to the fingertips
_TOP_CLEARANCE = 0.038  # metres from the grasp point to the palm, less a little

Plan = Generator[Waypoint, None, bool]


@dataclass
class Operator:
    """Skills in one simulation.

    text: the instruction of the skill that was started last. attempts: to grasp. carried: objects that were lifted.
    """

    simulation: GripperSimulation
    rng: np.random.Generator
    text: str = ""
    attempts: int = 0
    carried: int = 0

    def begin(self, skill: str) -> Plan:
        """The waypoints of a skill. Raises KeyError for one that isn't in `SKILLS`."""
        return {name: getattr(self, name) for name in SKILLS}[skill]()

    def reach(self) -> Plan:
        """Come close to an object from above, without touching it, and stay for a moment."""
        index = self._object()
        self.text = f"move the gripper to the {self._name(index)}"
        rotation = downward(self._yaw(), *self.rng.normal(0, 0.12, 2))
        for height in (self.rng.uniform(0.1, 0.18), self.rng.uniform(0.03, 0.05)):
            goal = _raised(self._top(index), height)
            goal[:2] += self.rng.normal(0, 0.012, 2)
            yield Waypoint(goal, rotation, self.rng.uniform(0.3, 1.0), self._speed(), hold=0.3)
        from_top = float(np.linalg.norm(goal - self._top(index)))
        yield self._up(rotation, self.rng.uniform(0.3, 1.0))
        return from_top < REACHED

    def push(self) -> Plan:
        """Slide an object over the counter with the fingertips."""
        index = self._object()
        before, item = self._place(index), self.simulation.layout.objects[index]
        angle, length = self.rng.uniform(-math.pi, math.pi), self.rng.uniform(0.08, 0.2)
        if self.rng.random() < 0.6:  # towards the middle, where there is room
            middle = np.array([0.48, 0.0]) - before[:2]
            angle = math.atan2(middle[1], middle[0]) + self.rng.normal(0, 0.5)
        ahead = heading(angle)
        self.text = f"push the {self._name(index)} {_side(ahead)}"
        height = max(_FINGER_TIP + 0.012, min(0.06, 0.5 * item.half_height + self.rng.uniform(0, 0.02)))
        rotation = downward(_nearest_yaw(angle + math.pi / 2) + self.rng.normal(0, 0.2), self.rng.normal(0, 0.08))
        opening = self.rng.uniform(0.0, 0.6)
        start = before - ahead * (item.radius + self.rng.uniform(0.045, 0.07))
        end = before + ahead * (length - item.radius)
        start[2] = end[2] = height
        yield Waypoint(_raised(start, 0.13), rotation, opening, self._speed())
        yield Waypoint(start, rotation, opening, 0.18)
        yield Waypoint(end, rotation, opening, self.rng.uniform(0.1, 0.25), hold=0.1)
        yield self._up(rotation, opening)
        return float(np.linalg.norm((self._place(index) - before)[:2])) > PUSHED

    def pick_place(self) -> Plan:
        """Grasp an object from above, lift it, carry it to a free spot and put it down; tries up to three times."""
        index = self._object()
        spot = self._free_spot(index)
        self.text = f"pick up the {self._name(index)} and put it {_side(spot - self._place(index))}"
        for _ in range(ATTEMPTS):
            held, rotation, opening = yield from self._grasp(index)
            if held:
                break
            yield self._up(rotation, 1.0)
        else:
            return False
        grip = self._place(index) - self._grasp_point()
        above, height = spot - grip, self.rng.uniform(0.1, 0.2)
        above[2] = self._grasp_point()[2]
        yield Waypoint(_raised(above, height - 0.12), rotation, opening, self._speed(0.8), seconds=5.0)
        down = above.copy()
        down[2] = self.simulation.layout.objects[index].half_height - grip[2] + self.rng.uniform(0.002, 0.02)
        yield Waypoint(down, rotation, opening, 0.15, hold=0.15)
        carried = self._place(index)
        yield Waypoint(down, rotation, self.rng.uniform(0.7, 1.0), 0.15, hold=0.2)
        yield self._up(rotation, 1.0)
        near = float(np.linalg.norm((self._place(index) - spot)[:2])) < PLACED
        return near and float(np.linalg.norm((carried - spot)[:2])) < PLACED

    def grip(self) -> Plan:
        """Stay about where it is and open and close the fingers."""
        self.text = "open and close the gripper"
        here, rotation = self._grasp_point(), downward(self._yaw(), *self.rng.normal(0, 0.15, 2))
        here[2] = max(here[2], 0.15)
        for _ in range(int(self.rng.integers(5, 9))):
            here = here + self.rng.normal(0, 0.012, 3)
            opening = float(self.rng.choice([0.0, 1.0, self.rng.random()]))
            yield Waypoint(here, rotation, opening, hold=self.rng.uniform(0.1, 0.5), seconds=2.0)
        return True

    def explore(self) -> Plan:
        """Move to random places over and between the objects, turn the wrist, open and close at will."""
        self.text = "move around freely"
        while True:
            low = self.rng.random() < 0.45
            x, y = self._somewhere()
            place = np.array([x, y, self.rng.uniform(0.025, 0.07) if low else self.rng.uniform(0.1, 0.38)])
            if self.rng.random() < 0.5:
                place[:2] = self._place(self._object())[:2] + self.rng.normal(0, 0.05, 2)
            tilts = self.rng.normal(0, 0.1 if low else 0.3, 2)
            opening = self.rng.random() if self.rng.random() < 0.5 else self.simulation.opening
            rotation, speed = downward(self._yaw(), *tilts), self.rng.uniform(0.12, 0.4)
            hold = self.rng.uniform(0.1, 0.6) if self.rng.random() < 0.25 else 0.0
            yield Waypoint(place, rotation, opening, speed, seconds=2.5, hold=hold)

    def _grasp(self, index: int) -> Generator[Waypoint, None, tuple[bool, np.ndarray, float]]:
        """One attempt: above, around, close, lift. Returns whether it holds, the rotation and the commanded opening."""
        self.attempts += 1
        centre, yaw = self._grasp_pose(index)
        sloppy = 0.02 if self.rng.random() < 0.12 else 0.004
        centre[:2] += self.rng.normal(0, sloppy, 2)
        rotation = downward(yaw + self.rng.normal(0, 0.06), *self.rng.normal(0, 0.04, 2))
        rest = self._place(index)[2]
        wide = self.rng.uniform(0.9, 1.0)
        yield Waypoint(_raised(centre, self.rng.uniform(0.09, 0.15)), rotation, wide, self._speed(), tolerance=0.01)
        yield Waypoint(centre, rotation, wide, self.rng.uniform(0.1, 0.2), tolerance=0.006, hold=0.1)
        yield Waypoint(centre, rotation, 0.0, 0.1, hold=0.35)
        yield Waypoint(_raised(centre, self.rng.uniform(0.1, 0.16)), rotation, 0.0, 0.18, hold=0.1)
        held = bool(self._place(index)[2] > rest + LIFTED and self.simulation.touched()[index])
        self.carried += int(held)
        return held, rotation, 0.0

    def _grasp_pose(self, index: int) -> tuple[np.ndarray, float]:
        """Grasp point (3,) and yaw for an object: across its narrow side, or over the rim of a vessel."""
        item, place = self.simulation.layout.objects[index], self._place(index)
        axes = self.simulation.object_rotation(index)
        half = item.half_height * max(abs(axes[2, 2]), 0.3)  # lower when it has fallen over
        top = place[2] + half
        if item.kind == "box":
            narrow = axes[:, 0] if item.aspect >= 1 else axes[:, 1]
            slide = math.atan2(narrow[1], narrow[0])
        elif item.kind in ("bottle", "can") and abs(axes[2, 2]) < 0.5:  # lying: across its length
            slide = math.atan2(axes[1, 2], axes[0, 2]) + math.pi / 2
        else:
            slide = self.rng.uniform(-0.9, 0.9) + math.pi / 2
        depth = min(self.rng.uniform(0.018, _TOP_CLEARANCE), half if item.kind == "ball" else 2 * half)
        if item.kind in ("mug", "bowl") or item.radius > 0.9 * MAX_OPENING:
            slide = self.rng.uniform(-math.pi, math.pi)
            place[:2] += (item.radius - 0.004) * np.array([math.cos(slide), math.sin(slide)])
            depth = min(0.018, item.half_height)
        place[2] = max(top - depth, _FINGER_TIP + 0.004)
        return place, _nearest_yaw(slide + math.pi / 2)

    def _object(self) -> int:
        """An object on the counter, mostly the first."""
        places = self.simulation.object_positions()
        there = [i for i, place in enumerate(places) if place[2] > -0.02 and 0.25 < np.linalg.norm(place[:2]) < 0.75]
        if not there or (0 in there and self.rng.random() < 0.5):
            return 0
        return int(self.rng.choice(there))

    def _free_spot(self, index: int) -> np.ndarray:
        """Where an object can be put down (3,): away from the others and from where it is."""
        others = np.delete(self.simulation.object_positions(), index, axis=0)
        here, spot = self._place(index), self._place(index)
        for _ in range(60):
            spot[:2] = self._somewhere()
            clear = not len(others) or np.linalg.norm(others[:, :2] - spot[:2], axis=1).min() > 0.11
            if clear and 0.1 < np.linalg.norm(spot[:2] - here[:2]) < 0.35:
                break
        return spot

    def _somewhere(self) -> np.ndarray:
        return self.rng.uniform([OBJECT_AREA[0], OBJECT_AREA[2]], [OBJECT_AREA[1] - 0.02, OBJECT_AREA[3]])

    def _up(self, rotation: np.ndarray, opening: float) -> Waypoint:
        """Straight up from where the grasp point is."""
        place = self._grasp_point()
        place[2] = max(place[2] + 0.08, self.rng.uniform(0.16, 0.24))
        return Waypoint(place, rotation, opening, self._speed(), tolerance=0.02)

    def _grasp_point(self) -> np.ndarray:
        return self.simulation.pad_points().mean(axis=0)

    def _place(self, index: int) -> np.ndarray:
        return self.simulation.object_positions()[index]

    def _top(self, index: int) -> np.ndarray:
        return _raised(self._place(index), self.simulation.layout.objects[index].half_height)

    def _yaw(self) -> float:
        return float(np.clip(self.rng.normal(0, 0.6), -1.4, 1.4))

    def _speed(self, scale: float = 1.0) -> float:
        return float(scale * self.rng.uniform(0.16, 0.34))

    def _name(self, index: int) -> str:
        item = self.simulation.layout.objects[index]
        colour = min(COLOURS, key=lambda name: math.dist(COLOURS[name], item.rgba[:3]))
        return f"{colour} {item.kind}"


def _raised(point: np.ndarray, height: float) -> np.ndarray:
    """`point` (3,), `height` metres higher."""
    return np.array([point[0], point[1], point[2] + height])


def _nearest_yaw(angle: float) -> float:
    """The gripper is symmetrical: `angle` plus a multiple of pi, within a quarter turn of home."""
    return (angle + math.pi / 2) % math.pi - math.pi / 2


def _side(way: np.ndarray) -> str:
    """In words, where `way` (3,) leads."""
    if abs(way[1]) > abs(way[0]):
        return "to the left" if way[1] > 0 else "to the right"
    return "further away" if way[0] > 0 else "closer to the robot"
