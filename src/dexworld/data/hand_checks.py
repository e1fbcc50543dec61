"""Whether hands can be what their file says: their size, their place before the camera, their sides, the image's size.

Files come in millimetres, in OpenGL's axes, with exchanged sides. What can only be wrong is refused, what is odd is
warned of once. Each message names the likely cause. A track and a hand file pass the same check.
"""

from dataclasses import dataclass

import numpy as np

from dexworld.errors import warn_once
from dexworld.hands import BONE_LENGTHS, BONES, KEYPOINTS_PER_HAND, TIPS, WRIST
from dexworld.track import Track

SIDES = ("left", "right")
# Size against an adult's hand. Children, robots and trackers' errors reach 0.5 to 2; feet and decimetres are the
# smallest mistake of units (3.3 and 10), so that 0.2 and 5 are no hand in metres.
USUAL_SIZE, POSSIBLE_SIZE = (0.4, 2.5), (0.2, 5.0)
MESH_EXTENT = 0.17  # metres, longest side of the box around an adult's hand that is half closed
UNITS = {"millimetres": 1e3, "centimetres": 1e2, "kilometres": 1e-3}
AT_CAMERA = 0.04  # metres between a hand's middle and the camera: half a hand's breadth, no camera films that
NEAR = 0.01  # metres: meshes aren't drawn nearer to the camera plane
MOST = 0.5  # share of the points or frames that is more than a gap of tracking
EXPLAINED = 0.8  # share of the points that another reading of the numbers must bring into the picture to be believed
SEEN = 0.01  # share of the points in the picture; fewer means that the hands are never shown
BENT = 0.3  # sine of a finger's bend; the joint can't bend backwards by these 17 degrees in all four fingers
ENOUGH, OFTEN = 3, 0.1  # frames, and share of the frames, that tell a hand's side
OTHERWISE = 0.05  # share of those that may say the opposite
ALIKE = 0.5  # of the misfit: so much better must another order fit, or one hand the other than its mirror image
FLAT = 0.02  # of a hand: a mirror image that fits better than this is that of a flat hand, which has no side
# Where each of our 21 keypoints stands in other tools' order. MANO: wrist, three joints each of index, middle, little,
# ring finger and thumb, then the tips of thumb to little finger. InterHand2.6M: fingers from the tip, then the wrist.
ORDERS = {
    "mano": (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20),
    "interhand": (20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16),
}
UNLIKE = 0.25  # mean |log| of bones against an adult's of the same size; an Allegro has 0.16, MANO's order 0.34
OFF_CENTRE = 0.25  # of a side: a principal point that is further from the middle belongs to a cropped image


@dataclass(frozen=True)
class Hands:
    """Hands (F, 2, N, 3) in the camera frame: N = 21 keypoints of `dexworld.hands`, or the vertices of a mesh.

    valid: (F, 2, N) bool. intrinsics: (3, 3) for pictures of `size` (height, width). poses: world_from_camera
    (F, 4, 4). where: the folder or file that is warned of. drawn: whether the points were given in the camera's frame,
    to be drawn, and not in the world's.
    """

    points: np.ndarray
    valid: np.ndarray
    intrinsics: np.ndarray
    size: tuple[int, int]
    poses: np.ndarray
    where: str
    drawn: bool = False

    def check(self) -> None:
        """Raise ValueError naming the likely cause when these can be no hands; warn when they are odd."""
        check_centre(self.intrinsics, self.size, self.where)
        if self.valid.any():
            points = np.where(self.valid[..., None], self.points, 0.0).astype(np.float64)
            self._check_order(points)
            self._check_size(points)
            self._check_place(points)
            self._check_sides(points, np.asarray(self.valid.all(axis=2)))

    def _check_order(self, points: np.ndarray) -> None:
        """Refuse keypoints whose bones only have a hand's proportions when they are read in another tool's order."""
        for side, name in enumerate(SIDES if points.shape[2] == KEYPOINTS_PER_HAND else ()):
            whole = points[self.valid[:, side].all(axis=1), side]
            own = _disproportion(whole) if len(whole) else 0.0
            for order, rows in ORDERS.items() if own > UNLIKE else ():
                if _disproportion(whole[:, rows]) < ALIKE * own:
                    cause = f"the joints stand in the order of {order}; give wrist, then thumb to little finger"
                    raise ValueError(f"the {name} hand's bones have no hand's proportions: {cause}")

    def _check_size(self, points: np.ndarray) -> None:
        """Bones against an adult's, as the median over all frames; of a mesh its extent."""
        for side, name in enumerate(SIDES):
            ratios = _sizes(points[:, side], self.valid[:, side])
            ratio = float(np.median(ratios)) if len(ratios) else 1.0
            if USUAL_SIZE[0] <= ratio <= USUAL_SIZE[1]:
                continue
            if POSSIBLE_SIZE[0] <= ratio <= POSSIBLE_SIZE[1]:
                text = f"the {name} hand is {ratio:.2g} times as large as an adult's; check the unit"
                warn_once(self.where, "size", text)
                continue
            xyz = points[:, side][self.valid[:, side]]
            flat = np.median(np.abs(xyz[:, 2])) < 0.5 * np.ptp(xyz[:, :2], axis=0).max()
            units = [unit for unit, factor in UNITS.items() if USUAL_SIZE[0] <= ratio / factor <= USUAL_SIZE[1]]
            cause = "the keypoints are in another unit, or no hand's; give metres"
            if flat and (xyz[:, :2] >= 0).mean() > EXPLAINED and xyz[:, :2].max() < 2 * max(self.size):
                cause = "the keypoints are in pixels; give metres in the camera's frame"
            elif units:
                cause = f"the keypoints are in {units[0]}; give metres"
            elif ratio < 1e-6:
                cause = "all its points are the same"
            long = f"{ratio:.4g} times too long" if ratio > 1 else f"{1 / max(ratio, 1e-9):.4g} times too short"
            raise ValueError(f"the {name} hand's bones are {long}: {cause}")

    def _check_place(self, points: np.ndarray) -> None:
        """In front of the camera and in the picture; if not, whether a common mistake explains it."""
        present = self.valid.any(axis=2)
        middles = points.sum(axis=2)[present] / self.valid.sum(axis=2)[present][:, None]
        away = float(np.median(np.linalg.norm(middles, axis=1)))
        if away < AT_CAMERA:
            relative = "the points are relative to the hand, add its place in the camera's frame; or it is too near"
            raise ValueError(f"the hands' middles lie {away:.3f} m from the camera: {relative}")
        if self.drawn:
            self._check_plane(points)
        behind, inside = (points[self.valid][:, 2] <= 0).mean(), self._inside(points)
        if behind <= MOST and inside >= SEEN:
            return
        odd = f"{behind:.0%} of the points lie behind the camera" if behind > MOST else "no point lies in the picture"
        others = {"the axes look like OpenGL's (y up, z backwards), negate y and z": points * [1.0, -1.0, -1.0]}
        if self.drawn:
            others["the points are in the world's frame, give them in the camera's"] = _seen(points, self.poses)
        else:
            world = _in_world(points, self.poses)
            others["the camera's pose is camera-from-world, invert it"] = _in_world(world, self.poses)
            others["the keypoints are in the camera's frame already, not in the world's"] = world
        causes = [cause for cause, other in others.items() if self._inside(other) > EXPLAINED]
        if causes:
            raise ValueError(f"{odd}: {'; or '.join(causes)}")
        expected = "the axes are x right, y down, z forward, the pose world-from-camera, intrinsics in pixels"
        warn_once(self.where, "place", f"{odd}; {expected}")

    def _inside(self, points: np.ndarray) -> float:
        """Share of the valid points that lie before the camera and in the pictures."""
        points = points[self.valid]
        depth = np.where(points[:, 2] > NEAR, points[:, 2], np.nan)
        pixels = points @ self.intrinsics[:2].T / depth[:, None]
        return float(((pixels >= 0) & (pixels <= self.size[::-1])).all(axis=1).mean())

    def _check_plane(self, points: np.ndarray) -> None:
        """A hand that is drawn can't reach through the camera plane."""
        beyond = points[..., 2] > NEAR
        near, far = (np.any(self.valid & side, axis=2) for side in (~beyond, beyond))
        crossing, hands = near & far, self.valid.any(axis=2).sum()
        text = f"{crossing.sum()} of {hands} hands reach through the camera plane"
        if crossing.sum() > MOST * hands:
            raise ValueError(f"{text}: their depth is too small; points are metres before the camera")
        if crossing.any():
            first = int(np.argmax(crossing.any(axis=1)))
            warn_once(self.where, "plane", f"{text} (first in frame {first}); what is nearer than 1 cm isn't drawn")

    def _check_sides(self, points: np.ndarray, whole: np.ndarray) -> None:
        """Refuse a left hand that is a right one or the reverse, where curled fingers or the other hand tell.

        whole: (F, 2) bool, hands with all of their points.
        """
        wrong, told = [], []
        for side, name in enumerate(SIDES if points.shape[2] == KEYPOINTS_PER_HAND else ()):
            bends = _bends(points[whole[:, side], side]) * (1 if name == "right" else -1)
            right, opposite = (int((sign * bends > BENT).all(axis=1).sum()) for sign in (1, -1))
            told += [name] if right >= ENOUGH else []
            wrong += [name] if opposite >= max(ENOUGH, OFTEN * len(bends)) and right <= OTHERWISE * opposite else []
        if len(wrong) == 2:
            raise ValueError("left and right are exchanged, or the axes are left-handed: all fingers bend backwards")
        if wrong:
            other = "left" if wrong == ["right"] else "right"
            mirror = "sides are exchanged, or left hands not mirrored (HaMeR predicts right ones)"
            raise ValueError(f"the {wrong[0]} hand is a {other} one, its fingers bend backwards: {mirror}")
        both = points[whole.all(axis=1)]
        if len(both) >= ENOUGH and len(told) < 2:
            turned, mirrored = (np.median(_misfit(both[:, 0], both[:, 1], sign)) for sign in (1, -1))
            if mirrored > FLAT and turned < ALIKE * mirrored:
                raise ValueError("both hands are of one side: mirror x of left hands (HaMeR predicts right ones)")
            across = both.mean(axis=2)[..., 0]
            if not told and (across[:, 0] > across[:, 1]).all():
                text = f"the left hand is to the right of the right one in all {len(both)} frames"
                facing = "fine where the camera faces the person; else the sides are exchanged"
                warn_once(self.where, "sides", f"{text}: {facing}")


def check_track(track: Track, size: tuple[int, int] | None = None, where: str = "") -> None:
    """Check the hands of a recording; see `Hands`. A gripper's dummy hand is in no picture and not checked.

    size: (height, width) of the pictures, by default of the track's own. where: the folder or file that is warned of.
    """
    valid = np.asarray(track.keypoints_shown).reshape(len(track), 2, KEYPOINTS_PER_HAND)
    if valid.any():
        poses = track.world_from_camera.astype(np.float64)
        points = _seen(np.reshape(track.keypoints_world, (*valid.shape, 3)).astype(np.float64), poses)
        size = track.frames.size if size is None else size
        Hands(points, valid, track.intrinsics, size, poses, where or track.source).check()


def _seen(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Points (F, 2, N, 3) of the world in the camera's frame."""
    return (points - poses[:, None, None, :3, 3]) @ poses[:, None, :3, :3]


def _in_world(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    return points @ poses[:, None, :3, :3].swapaxes(2, 3) + poses[:, None, None, :3, 3]


def check_centre(intrinsics: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Raise ValueError when the principal point belongs to an image of another size or with exchanged sides."""
    (height, width), (x, y) = size, intrinsics[:2, 2]
    if cause := exchanged_sides(intrinsics, size):
        raise ValueError(cause)
    text = f"the principal point ({x:.0f}, {y:.0f}) of pictures of {width} x {height} (width x height)"
    if not (0 < x < width and 0 < y < height):
        raise ValueError(
            f"{text} lies outside: the intrinsics are those of an image of about {2 * x:.0f} x {2 * y:.0f}"
        )
    if max(abs(x / width - 0.5), abs(y / height - 0.5)) > OFF_CENTRE:
        warn_once(where, "centre", f"{text} is far from their middle; check that the intrinsics are of this size")


def exchanged_sides(intrinsics: np.ndarray, size: tuple[int, int]) -> str:
    """What is wrong when the principal point fits pictures of `size` (height, width) only with its sides exchanged."""
    (height, width), (x, y) = size, intrinsics[:2, 2]
    own = max(abs(x / width - 0.5), abs(y / height - 0.5))
    exchanged = max(abs(x / height - 0.5), abs(y / width - 0.5))
    if not exchanged < 0.05 < own:
        return ""
    turned = f"the pictures are {width} x {height} (width x height), the intrinsics those of {height} x {width}"
    return f"{turned}: height and width are exchanged, or the video was turned"


def _sizes(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Size of one hand's (F, N, 3) valid bones against an adult's: (n,); of a mesh that of its box in each frame."""
    if points.shape[1] != KEYPOINTS_PER_HAND:
        shown = points[valid.all(axis=1)]
        return np.ptp(shown, axis=1).max(axis=1) / MESH_EXTENT
    lengths = np.array(BONE_LENGTHS)
    pairs = [*BONES, *((WRIST, tip) for tip in TIPS)]  # some trackers give no more than wrist and tips
    adult = np.concatenate([lengths.ravel(), lengths.sum(axis=1)])
    starts, ends = np.array(pairs).T
    known = valid[:, starts] & valid[:, ends]
    return (np.linalg.norm(points[:, ends] - points[:, starts], axis=2) / adult)[known]


def _disproportion(points: np.ndarray) -> float:
    """Mean |log| of the median lengths of one hand's (F, 21, 3) bones against an adult's, scaled to one size."""
    starts, ends = np.array(BONES).T
    lengths = np.median(np.linalg.norm(points[:, ends] - points[:, starts], axis=2), axis=0)
    logs = np.log(np.maximum(lengths, 1e-12) / np.ravel(BONE_LENGTHS))
    return float(np.abs(logs - np.median(logs)).mean())


def _bends(points: np.ndarray) -> np.ndarray:
    """Sines (F, 4) of the bend of four fingers' middle joints (F, 21, 3), positive for a right hand's curl."""
    fingers = points[:, 5:].reshape(-1, 4, 4, 3)
    inner, outer = fingers[:, :, 1] - fingers[:, :, 0], fingers[:, :, 3] - fingers[:, :, 1]
    across = fingers[:, 3:, 0] - fingers[:, :1, 0]  # from the index to the little finger's knuckle
    return -(np.cross(_unit(inner), _unit(outer)) * _unit(across)).sum(axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _misfit(first: np.ndarray, second: np.ndarray, sign: int) -> np.ndarray:
    """What is left (F,) when hands (F, N, 3) are laid on each other by a turn (sign 1) or mirrored (-1); 1: all."""
    first, second = (hand - hand.mean(axis=1, keepdims=True) for hand in (first, second))
    u, values, v = np.linalg.svd(first.swapaxes(1, 2) @ second)
    values[:, 2] *= sign * np.sign(np.linalg.det(u @ v))
    whole = (first**2).sum(axis=(1, 2)) + (second**2).sum(axis=(1, 2))
    return np.sqrt(np.maximum(whole - 2 * values.sum(axis=1), 0.0) / np.maximum(whole, 1e-12))
