"""Sentences that say where an object should be, drawn for a scene whose objects' kinds, colours and places are known.

"Push the red ball to the left of the bowl", "the mug should be 10 cm nearer". Places are metres along the viewer's axes
[ahead, left] on the counter. Some words, sentence forms and pairs of colour and kind are kept out of training.
"""

import colorsys
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from dexworld.track import OBJECT_KINDS

Wording = Literal["seen", "words", "pairs"]  # of training; with words or with pairs that training doesn't have
Words = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]  # by meaning: words of training, and words kept out of it

BESIDE_CM = 11  # between centres, where a sentence says no distance
SHIFT_CM = 10
DISTANCES_CM = (5, 6, 8, 10, 12, 14, 15, 16, 18, 20)
APART = 0.07  # metres between the place and other objects
GREY = 0.25  # colours of less saturation have no name
MARGIN_DEG = 12.0  # so near the next colour's hues, a colour may be called by that name, too

# From which hue on, degrees
HUES = {"red": -15, "orange": 15, "yellow": 42, "green": 70, "turquoise": 155, "blue": 195, "purple": 255, "pink": 295}
COLOURS: Words = {
    "red": (("red", "crimson", "cherry red", "ruby"), ("scarlet", "bright red")),
    "orange": (("orange", "light orange", "amber", "bright orange"), ("tangerine", "orange-coloured")),
    "yellow": (("yellow", "golden", "canary yellow", "mustard"), ("lemon yellow", "yellowish")),
    "green": (("green", "grass green", "light green", "olive green"), ("emerald", "lime green")),
    "turquoise": (("turquoise", "cyan", "aquamarine", "blue-green"), ("teal", "aqua")),
    "blue": (("blue", "sky blue", "dark blue", "cobalt"), ("navy blue", "azure")),
    "purple": (("purple", "lilac", "lavender", "plum"), ("violet", "purplish")),
    "pink": (("pink", "rose", "hot pink", "fuchsia"), ("magenta", "pinkish")),
}
NOUNS: Words = {
    "box": (("box", "carton", "block", "parcel"), ("package", "cardboard box")),
    "can": (("can", "tin can", "soup can", "tin"), ("soda can", "beer can")),
    "ball": (("ball", "sphere", "toy ball", "globe"), ("round ball", "rubber ball")),
    "bottle": (("bottle", "flask", "glass bottle", "wine bottle"), ("water bottle", "plastic bottle")),
    "mug": (("mug", "cup", "tea mug", "beaker"), ("teacup", "coffee mug")),
    "bowl": (("bowl", "dish", "fruit bowl", "salad bowl"), ("soup bowl", "round dish")),
}
THINGS = (("object", "thing", "one"), ("item",))
SIDES: Words = {
    "ahead": (
        ("behind {b}", "at the back of {b}", "on the far side of {b}", "past {b}", "beyond {b}"),
        ("in back of {b}", "to the rear of {b}"),
    ),
    "near": (
        ("in front of {b}", "before {b}", "on this side of {b}", "at the near side of {b}"),
        ("at the front of {b}", "on the near side of {b}"),
    ),
    "left": (
        ("to the left of {b}", "left of {b}", "on the left of {b}", "on the left side of {b}"),
        ("to the left-hand side of {b}", "leftward of {b}"),
    ),
    "right": (
        ("to the right of {b}", "right of {b}", "on the right of {b}", "on the right side of {b}"),
        ("to the right-hand side of {b}", "rightward of {b}"),
    ),
}
WAYS: Words = {
    "ahead": (
        ("away", "farther away", "away from me", "back towards the wall", "to the rear"),
        ("to the back", "further back"),
    ),
    "near": (
        ("nearer", "towards me", "closer to me", "towards the camera", "forwards to me"),
        ("to the front", "towards the viewer"),
    ),
    "left": (
        ("to the left", "left", "leftwards", "towards the left", "to my left side"),
        ("to the left-hand side", "in the left direction"),
    ),
    "right": (
        ("to the right", "right", "rightwards", "towards the right", "to my right side"),
        ("to the right-hand side", "in the right direction"),
    ),
}
FREE: Words = {
    "next": (
        ("next to {b}", "near {b}", "beside {b}", "right by {b}", "alongside {b}"),
        ("close to {b}", "adjacent to {b}"),
    ),
    "towards": (("towards {b}", "closer to {b}", "toward {b}"), ("nearer to {b}", "in the direction of {b}")),
    "from": (("away from {b}", "farther from {b}", "apart from {b}"), ("further away from {b}", "off from {b}")),
}
CENTIMETRES = (("cm", "centimetres"), ("centimeters",))
NUMBERS = {5: "five", 6: "six", 8: "eight", 10: "ten", 12: "twelve", 15: "fifteen", 20: "twenty"}
FORMS = (
    (
        *("push {a} {where}", "move {a} {where}", "please slide {a} {where}", "shift {a} {where}"),
        *("{a} should be {where}", "could you put {a} {where}", "get {a} {where} please"),
        "{where} is the place for {a}",
    ),
    ("shove {a} {where}", "can you bring {a} {where}?", "{where}, that is where {a} belongs", "I want {a} {where}"),
)
_HALF = 0.5**0.5
UNITS: dict[tuple[str, ...], tuple[float, float]] = {  # by sides: [ahead, left]
    **{("ahead",): (1.0, 0.0), ("near",): (-1.0, 0.0), ("left",): (0.0, 1.0), ("right",): (0.0, -1.0)},
    **{("ahead", "left"): (_HALF, _HALF), ("ahead", "right"): (_HALF, -_HALF)},
    **{("near", "left"): (-_HALF, _HALF), ("near", "right"): (-_HALF, -_HALF)},
}
PAIRS = (("red", "ball"), ("blue", "bowl"), ("green", "can"), ("yellow", "mug"), ("pink", "bottle"), ("purple", "box"))


@dataclass(frozen=True)
class Scene:
    """Objects that sentences are about. kinds: numbers (n,) in `OBJECT_KINDS`, -1 where absent. colours: (n, 3) RGB in
    [0, 1]. positions: (n, 3) metres in the world. shown: which of them (n,) the picture shows. world_from_camera:
    (4, 4).
    """

    kinds: np.ndarray
    colours: np.ndarray
    positions: np.ndarray
    shown: np.ndarray
    world_from_camera: np.ndarray

    @cached_property
    def axes(self) -> np.ndarray:
        """The viewer's axes (2, 2), ahead and left, in the world's plane."""
        ahead = self.world_from_camera[:2, 2] / np.linalg.norm(self.world_from_camera[:2, 2])
        return np.stack([ahead, [-ahead[1], ahead[0]]])

    @cached_property
    def places(self) -> np.ndarray:
        """(n, 2) metres [ahead, left]."""
        return self.positions[:, :2] @ self.axes.T

    def end(self, meaning: "Meaning") -> np.ndarray:
        """Where the object of a meaning should be, (3,) metres in the world, at its height."""
        return np.append(np.asarray(meaning.target) @ self.axes, self.positions[meaning.moved, 2])


@dataclass(frozen=True)
class Meaning:
    """What a sentence asks for: the object `moved` should be at `target` (2,) metres [ahead, left].

    anchor: the object that the place is relative to, `moved` itself where no other is named. relation: `shift`, `side`,
    or a key of `FREE`. sides: a key of `UNITS`. distance_cm: None where it is not said.
    """

    moved: int
    anchor: int
    relation: str
    sides: tuple[str, ...]
    distance_cm: int | None
    target: tuple[float, float]


@dataclass(frozen=True)
class Caption:
    """A sentence and what it means."""

    sentence: str
    meaning: Meaning


def colour_names(rgb: np.ndarray) -> tuple[str, ...]:
    """What a colour (3,) in [0, 1] may be called, best first; nothing where it is greyish."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*map(float, rgb))
    if saturation < GREY:
        return ()
    names, starts, degrees = list(HUES), list(HUES.values()), (hue * 360 + 15) % 360 - 15
    own = max(number for number, start in enumerate(starts) if degrees >= start)
    end = starts[own + 1] if own + 1 < len(starts) else 345
    near = [own - 1] * (degrees - starts[own] < MARGIN_DEG) + [(own + 1) % len(names)] * (end - degrees < MARGIN_DEG)
    return tuple(names[number] for number in (own, *near))


def draw_caption(rng: np.random.Generator, scene: Scene, wording: Wording = "seen") -> Caption | None:
    """A sentence about a scene; None where no object can be told from the others in this wording."""
    named = {index: names for index in np.flatnonzero(scene.shown) if (names := _names(scene, int(index), wording))}
    if not named:
        return None
    moved = int(rng.choice(list(named)))
    found = [each for each in meanings(scene, moved) if each.anchor in named]
    relation = rng.choice(sorted({each.relation for each in found}))
    found = [each for each in found if each.relation == relation]
    free = (found[number] for number in rng.permutation(len(found)) if _free(scene, found[number]))
    meaning = next(free, None)
    return None if meaning is None else worded(rng, scene, meaning, wording)


def nearest_caption(
    rng: np.random.Generator, scene: Scene, moved: int, target: np.ndarray, wording: Wording = "seen"
) -> Caption | None:
    """The sentence whose meaning is nearest to object `moved` being at `target` (2,) [ahead, left]; None where it has
    no name."""
    named = {index for index in np.flatnonzero(scene.shown) if _names(scene, int(index), wording)}
    found = [each for each in meanings(scene, moved) if each.anchor in named] if moved in named else []
    if not found:
        return None
    best = min(found, key=lambda each: float(np.linalg.norm(np.subtract(each.target, target))))
    return worded(rng, scene, best, wording)


def meanings(scene: Scene, moved: int) -> Iterator[Meaning]:
    """All that a sentence can ask of an object."""
    own = _floats(scene.places[moved])
    for sides in UNITS:
        for centimetres in (None, *DISTANCES_CM):
            yield Meaning(moved, moved, "shift", sides, centimetres, _from(own, UNITS[sides], centimetres or SHIFT_CM))
    for anchor in np.flatnonzero(scene.shown).tolist():
        if anchor == moved:
            continue
        there = _floats(scene.places[anchor])
        length = max(math.dist(there, own), 1e-6)
        way = ((there[0] - own[0]) / length, (there[1] - own[1]) / length)
        for sides in UNITS:
            for centimetres in (None, 12, 15, 20):
                place = _from(there, UNITS[sides], centimetres or BESIDE_CM)
                yield Meaning(moved, anchor, "side", sides, centimetres, place)
        yield Meaning(moved, anchor, "next", (), None, _from(there, way, -BESIDE_CM))
        for relation, sign in (("towards", 1), ("from", -1)):
            for centimetres in (None, *DISTANCES_CM):
                place = _from(own, way, sign * (centimetres or SHIFT_CM))
                yield Meaning(moved, anchor, relation, (), centimetres, place)


def worded(rng: np.random.Generator, scene: Scene, meaning: Meaning, wording: Wording) -> Caption:
    """A sentence of that meaning."""
    kept = int(wording == "words")

    def chosen(words: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
        return str(rng.choice(words[kept]))

    def named(index: int) -> str:
        names = _names(scene, index, wording)
        colour, kind = names[rng.integers(len(names))]
        noun = chosen(THINGS) if kind is None else chosen(NOUNS[kind])
        return f"the {noun}" if colour is None else f"the {chosen(COLOURS[colour])} {noun}"

    if meaning.relation in FREE:
        where = chosen(FREE[meaning.relation])
    else:
        phrases = [chosen((WAYS if meaning.relation == "shift" else SIDES)[side]) for side in meaning.sides]
        phrases = [each.removesuffix(" {b}").removesuffix(" of") for each in phrases[:-1]] + phrases[-1:]
        where = " and ".join(phrases)
    if meaning.distance_cm is not None:
        number = NUMBERS.get(meaning.distance_cm) if rng.random() < 0.3 else None
        where = f"{number or meaning.distance_cm} {chosen(CENTIMETRES)} {where}"
    where = where.replace("{b}", named(meaning.anchor)) if "{b}" in where else where
    return Caption(chosen(FORMS).format(a=named(meaning.moved), where=where), meaning)


def _names(scene: Scene, index: int, wording: Wording) -> list[tuple[str | None, str | None]]:
    """The (colour, kind) that tell an object from the others, either None where the other suffices."""
    there = [number for number in np.flatnonzero(scene.kinds >= 0) if number != index]
    kind, colours = OBJECT_KINDS[scene.kinds[index]], colour_names(scene.colours[index])
    colour = colours[0] if colours else None
    same_kind = {number for number in there if scene.kinds[number] == scene.kinds[index]}
    same_colour = {number for number in there if colour is None or colour in colour_names(scene.colours[number])}
    grey = {number for number in there if not colour_names(scene.colours[number])}
    pair = colour is not None and not same_kind & (same_colour | grey)
    if wording == "pairs":
        return [(colour, kind)] if pair and (colour, kind) in PAIRS else []
    names: list[tuple[str | None, str | None]] = []
    if pair and (colour, kind) not in PAIRS:
        names += [(colour, kind)] * 2
    if not same_kind:
        names.append((None, kind))
    if colour is not None and not same_colour | grey:
        names.append((colour, None))
    return names


def _free(scene: Scene, meaning: Meaning) -> bool:
    """Whether the place is away from the other objects."""
    there = np.flatnonzero(scene.kinds >= 0).tolist()
    return all(math.dist(scene.places[each], meaning.target) > APART for each in there if each != meaning.moved)


def _floats(place: np.ndarray) -> tuple[float, float]:
    return float(place[0]), float(place[1])


def _from(place: tuple[float, float], way: tuple[float, float], centimetres: float) -> tuple[float, float]:
    return place[0] + 0.01 * centimetres * way[0], place[1] + 0.01 * centimetres * way[1]
