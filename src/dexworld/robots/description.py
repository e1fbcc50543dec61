"""The TOML file that says what in a robot's model is its hand; docs/robots.md lists its keys."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexworld.hands import KEYPOINTS_PER_HAND, LEFT, RIGHT
from dexworld.robots.model_file import Coupling, close_names
from dexworld.robots.robot import Grip

FINGERS = ("thumb", "index", "middle", "ring", "little")
SIDES = {"left": LEFT, "right": RIGHT}
_KEYS = (
    *("name", "model", "package", "base", "arm", "fingers", "coupled", "held", "limits", "spheres", "grip"),
    *("motion", "without", "parts", *SIDES),
)
_PART_KEYS = ("model", "prefix", "on", "offset", "rotation", "without")
MOTION_KEYS = ("velocity", "acceleration", "lag")
_HAND_KEYS = ("wrist", "palm", *FINGERS)


@dataclass(frozen=True)
class Place:
    """A point: metres along the axes of a body or site of the model."""

    at: str
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Hand:
    """keypoints: by row 0 to 20 of a hand (`hands.HAND_KEYPOINTS`). palm: a body or site whose axes are the palm's
    (x out of the palm, z to the fingertips); None takes them from the keypoints. stands_in: which finger shows which.
    """

    keypoints: dict[int, Place]
    palm: str | None
    stands_in: dict[str, str]


@dataclass(frozen=True)
class Part:
    """Another model on a body or site of the robot. rotation: quaternion (w, x, y, z). prefix: before all its names."""

    model: str
    prefix: str
    on: str
    offset: tuple[float, ...]
    rotation: tuple[float, ...]
    without: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """A robot of a model. Angles in radians, lengths in metres.

    arm, fingers: joints that are controlled, in the order of joint vectors. hands: by side. coupled: joints that follow
    others, besides those of the model. held: where the joints stand that aren't controlled. limits: where they differ
    from the model's. motion: by one of `MOTION_KEYS`, numbers above 0 by joint, or of all joints of `arm` or `fingers`.
    spheres: its outline, empty to derive them from the model's shapes. without: bodies that are left
    out with all below them. parts: other models that are put on. model: the file, relative to an installed package's
    folder, and package: what pip installs it from; both for descriptions that dexworld ships.
    """

    source: str
    name: str
    base: str
    arm: tuple[str, ...]
    fingers: tuple[str, ...]
    hands: dict[str, Hand]
    coupled: dict[str, Coupling]
    held: dict[str, float]
    limits: dict[str, tuple[float, float]]
    motion: dict[str, dict[str, float]]
    spheres: tuple[tuple[Place, float], ...]
    grip: Grip | None
    without: tuple[str, ...]
    parts: tuple[Part, ...]
    model: str
    package: str


def read_description(path: str | Path) -> Description:
    """Read and check a description. Raises FileNotFoundError, and ValueError that names the key."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give the TOML file that describes the robot's hand")
    return parse_description(path.read_text(encoding="utf-8"), str(path))


def parse_description(text: str, source: str) -> Description:
    """A description from TOML text; source: what errors call it."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is no TOML: {error}") from None
    try:
        return _description(table, source)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _description(table: dict[str, Any], source: str) -> Description:
    _check_keys(table, _KEYS, "")
    hands = {side: _hand(table[side], side) for side in SIDES if side in table}
    if not hands:
        raise ValueError("no hand: add a table [right] or [left] with wrist, thumb, index, middle, ring, little")
    arm, fingers = (tuple(_texts(table.get(key, []), key)) for key in ("arm", "fingers"))
    twice = {name for name in (*arm, *fingers) if (*arm, *fingers).count(name) > 1}
    if twice:
        raise ValueError(f"joint {min(twice)!r} stands twice in arm and fingers")
    if not arm and not fingers:
        raise ValueError("no joints: list the controlled ones in `arm` and `fingers`")
    coupled = {}
    for name, value in _table(table, "coupled").items():
        _check_keys(value, ("of", "polynomial"), f"coupled.{name}")
        coupled[name] = Coupling(str(value.get("of", "")), _numbers(value.get("polynomial", [0, 1]), f"coupled.{name}"))
    limits = {name: _numbers(value, f"limits.{name}", 2) for name, value in _table(table, "limits").items()}
    spheres = []
    for index, value in enumerate(table.get("spheres", [])):
        _check_keys(value, ("at", "offset", "radius"), f"spheres[{index}]")
        (radius,) = _numbers([value.get("radius", 0)], f"spheres[{index}].radius", 1)
        if radius <= 0:
            raise ValueError(f"spheres[{index}] needs a radius above 0, in metres")
        spheres.append((_place({key: value[key] for key in ("at", "offset") if key in value}, "spheres"), radius))
    grip = _grip(table["grip"]) if "grip" in table else None
    if grip is not None and not len(grip.opened) == len(grip.closed) == len(fingers):
        raise ValueError(f"grip needs {len(fingers)} numbers in opened and in closed, one for each of `fingers`")
    return Description(
        source=source,
        name=str(table.get("name", Path(source).stem)),
        base=str(table.get("base", "world")),
        arm=arm,
        fingers=fingers,
        hands=hands,
        coupled=coupled,
        held={name: _numbers([value], f"held.{name}", 1)[0] for name, value in _table(table, "held").items()},
        limits={name: (low, high) for name, (low, high) in limits.items()},
        motion=_motion(_table(table, "motion"), (*arm, *fingers)),
        spheres=tuple(spheres),
        grip=grip,
        without=tuple(_texts(table.get("without", []), "without")),
        parts=tuple(_part(value, f"parts[{index}]") for index, value in enumerate(table.get("parts", []))),
        model=str(table.get("model", "")),
        package=str(table.get("package", "")),
    )


def _motion(table: dict[str, Any], joints: Sequence[str]) -> dict[str, dict[str, float]]:
    _check_keys(table, MOTION_KEYS, "motion")
    found = {}
    for key in table:
        numbers = _table(table, key)
        _check_keys(numbers, ("arm", "fingers", *joints), f"motion.{key}")
        found[key] = {name: _numbers([value], f"motion.{key}.{name}", 1)[0] for name, value in numbers.items()}
        if min(found[key].values(), default=1.0) <= 0:
            raise ValueError(f"motion.{key} needs numbers above 0")
    return found


def _part(table: Any, key: str) -> Part:
    _check_keys(table, _PART_KEYS, key)
    missing = [name for name in ("model", "on") if not isinstance(table.get(name), str)]
    if missing:
        raise ValueError(f"{key} lacks {' and '.join(missing)}: the part's file, and the body that it is put on")
    return Part(
        table["model"],
        str(table.get("prefix", "")),
        table["on"],
        _numbers(table.get("offset", [0, 0, 0]), f"{key}.offset", 3),
        _numbers(table.get("rotation", [1, 0, 0, 0]), f"{key}.rotation", 4),
        tuple(_texts(table.get("without", []), f"{key}.without")),
    )


def _hand(table: Any, side: str) -> Hand:
    _check_keys(table, _HAND_KEYS, side)
    if "wrist" not in table:
        raise ValueError(f"{side}.wrist is missing: name the body or site of the wrist")
    keypoints, stands_in = {0: _place(table["wrist"], f"{side}.wrist")}, {}
    for finger in FINGERS:
        value, name = table.get(finger), finger
        if isinstance(value, str):
            if value not in FINGERS or not isinstance(table.get(value), list):
                others = [each for each in FINGERS if isinstance(table.get(each), list)]
                raise ValueError(
                    f"{side}.{finger} = {value!r} is no finger that has places{close_names(value, others)}"
                )
            name, stands_in[finger] = value, value
        places = table.get(name, [])
        if not isinstance(places, list) or len(places) not in (0, 4):
            raise ValueError(
                f'{side}.{finger} needs four places from knuckle to tip ("" for one that is missing), or the name of '
                "the finger that stands in for it"
            )
        first = 1 + 4 * FINGERS.index(finger)
        rows = enumerate(places, first)
        keypoints |= {row: _place(place, f"{side}.{finger}[{row - first}]") for row, place in rows if place != ""}
    assert max(keypoints) < KEYPOINTS_PER_HAND
    palm = table.get("palm")
    return Hand(keypoints, None if palm is None else str(palm), stands_in)


def _place(value: Any, key: str) -> Place:
    if isinstance(value, str):
        return Place(value)
    _check_keys(value, ("at", "offset"), key)
    if not isinstance(value.get("at"), str):
        raise ValueError(f"{key} needs `at`, the name of a body or site")
    return Place(value["at"], _numbers(value.get("offset", [0, 0, 0]), f"{key}.offset", 3))


def _grip(table: Any) -> Grip:
    keys = ("world_from_palm", "centre", "opened", "closed")
    _check_keys(table, keys, "grip")
    missing = [key for key in keys if key not in table]
    if missing:
        raise ValueError(f"grip lacks {', '.join(missing)}")
    rows = [_numbers(row, "grip.world_from_palm", 3) for row in table["world_from_palm"]]
    centre, opened, closed = (_numbers(table[key], f"grip.{key}") for key in keys[1:])
    if len(rows) != 3 or len(centre) != 3:
        raise ValueError("grip needs world_from_palm as three rows of three numbers and centre as three numbers")
    return Grip(tuple(rows), centre, opened, closed)  # type: ignore[arg-type]


def _check_keys(table: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} must be a table, not {table!r}")
    for key in table:
        if key not in known:
            raise ValueError(f"{where or 'the top'} has an unknown key {key!r}{close_names(key, known)}")


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a table of joints, not {value!r}")
    return value


def _texts(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{key} must be a list of joint names, not {value!r}")
    return value


def _numbers(value: Any, key: str, count: int | None = None) -> tuple[float, ...]:
    good = isinstance(value, list) and all(isinstance(each, int | float) and math.isfinite(each) for each in value)
    if not good or (count is not None and len(value) != count):
        raise ValueError(f"{key} must be {count or 'a list of'} numbers, not {value!r}")
    return tuple(map(float, value))
