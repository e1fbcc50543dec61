"""Triangle meshes of hands over time: built from 21 keypoints (no MANO), or taken from MANO / HaMeR vertices.

The built hand is a tapered capsule along each of the 20 bones and a slab over the palm. It is no likeness; it shows the
pose, the size and what covers what, which is what the hand video is for.
"""

from dataclasses import dataclass

import numpy as np

from dexworld.hands import BONE_LENGTHS, BONES

SIDES = 8  # of a capsule
_CAP = np.radians([90.0, 45.0, 0.0])  # polar angle of a cap's rings, from the pole to the joint
PALM = ((0, 1, 5), (0, 5, 9), (0, 9, 13), (0, 13, 17))  # triangles between the wrist and neighbouring knuckles
# Radius of an adult hand at each keypoint, metres: wrist, then thumb, index, middle, ring, little from palm to tip.
_FINGER_RADII = [
    [0.0160, 0.0125, 0.0105, 0.0085],
    [0.0120, 0.0095, 0.0085, 0.0070],
    [0.0120, 0.0095, 0.0085, 0.0070],
    [0.0115, 0.0090, 0.0080, 0.0068],
    [0.0105, 0.0080, 0.0070, 0.0060],
]
RADII = np.concatenate([[0.021], np.ravel(_FINGER_RADII)])
LENGTHS = np.ravel(BONE_LENGTHS)


@dataclass(frozen=True)
class MeshSequence:
    """One hand's mesh in each of F frames.

    vertices: (F, V, 3) metres in the camera frame of their frame. faces: (M, 3) int. drawn: (F, M) bool, the faces that
    are shown; vertices of the others may hold anything.
    """

    vertices: np.ndarray
    faces: np.ndarray
    drawn: np.ndarray


def hand_mesh(keypoints: np.ndarray, valid: np.ndarray) -> MeshSequence:
    """Build one hand's mesh in F frames from its keypoints (F, 21, 3), metres in the camera frame; valid: (F, 21) bool.

    A bone is drawn when both its ends are valid, a palm triangle when its three corners are. Thickness follows the
    hand's size, taken from the valid bones of all frames, so that it doesn't flicker.
    """
    points = np.where(valid[..., None], keypoints, 0.0).astype(np.float64)
    starts, ends = np.array(BONES).T
    radii = RADII * _size(points, valid)

    bones, bone_faces = _capsules(points[:, starts], points[:, ends], radii[starts], radii[ends])
    palm = np.array(PALM)
    slabs, slab_faces = _slabs(points[:, palm], 0.7 * radii[palm].min(axis=1))
    faces_per_bone, faces_per_slab = len(bone_faces) // len(BONES), len(slab_faces) // len(PALM)
    bones_drawn = np.repeat(valid[:, starts] & valid[:, ends], faces_per_bone, axis=1)
    slabs_drawn = np.repeat(valid[:, palm].all(axis=2), faces_per_slab, axis=1)
    drawn = np.concatenate([bones_drawn, slabs_drawn], axis=1)
    faces = np.concatenate([bone_faces, slab_faces + bones.shape[1]])
    return MeshSequence(np.concatenate([bones, slabs], axis=1), faces, drawn)


def _size(points: np.ndarray, valid: np.ndarray) -> float:
    """Size of the hand against an adult's: the median ratio of its valid bones' lengths; 1 when it has none."""
    starts, ends = np.array(BONES).T
    ratios = np.linalg.norm(points[:, ends] - points[:, starts], axis=2) / LENGTHS
    known = ratios[valid[:, starts] & valid[:, ends]]
    return float(np.clip(np.median(known), 0.2, 5.0)) if len(known) else 1.0


def _capsules(start: np.ndarray, end: np.ndarray, radius_start: np.ndarray, radius_end: np.ndarray):
    """Vertices (F, bones * rings * sides, 3) and faces of capsules between points (F, bones, 3) with radii (bones,)."""
    axis = end - start
    length = np.linalg.norm(axis, axis=2, keepdims=True)
    axis = np.divide(axis, length, out=np.broadcast_to([0.0, 0.0, 1.0], axis.shape).copy(), where=length > 1e-9)
    helper = np.where(np.abs(axis[..., 2:]) < 0.9, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
    across = np.cross(axis, helper)
    across /= np.linalg.norm(across, axis=2, keepdims=True)
    frame = np.stack([across, np.cross(axis, across), axis], axis=2)  # (F, bones, 3 axes, 3)

    turn = np.arange(SIDES) * (2 * np.pi / SIDES)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    rings = []
    for centre, radius, sign, angles in ((start, radius_start, -1.0, _CAP), (end, radius_end, 1.0, _CAP[::-1])):
        for angle in angles:
            local = np.concatenate([circle * np.cos(angle), np.full((SIDES, 1), sign * np.sin(angle))], axis=1)
            offsets = np.einsum("sk,fbkc->fbsc", local, frame) * radius[:, None, None]
            rings.append(centre[:, :, None] + offsets)
    vertices = np.stack(rings, axis=2)  # (F, bones, rings, sides, 3)
    return vertices.reshape(len(start), -1, 3), _tube_faces(start.shape[1], len(rings))


def _tube_faces(bones: int, rings: int) -> np.ndarray:
    """Faces (bones * (rings - 1) * sides * 2, 3) between neighbouring rings of each bone."""
    corner = np.arange(bones * rings * SIDES).reshape(bones, rings, SIDES)
    following = np.roll(corner, -1, axis=2)
    lower = np.stack([corner[:, :-1], following[:, :-1], corner[:, 1:]], axis=-1)
    upper = np.stack([following[:, :-1], following[:, 1:], corner[:, 1:]], axis=-1)
    return np.concatenate([lower.reshape(bones, -1, 3), upper.reshape(bones, -1, 3)], axis=1).reshape(-1, 3)


def _slabs(corners: np.ndarray, thickness: np.ndarray):
    """Prisms over triangles (F, n, 3 corners, 3), `thickness` (n,) to either side; flat faces share no vertex."""
    normal = np.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 1e-12)
    offset = (normal * thickness[:, None])[..., None, :]
    prism = np.concatenate([corners + offset, corners - offset], axis=2)  # (F, n, 6, 3)
    sides = [(i, j, j + 3, i, j + 3, i + 3) for i, j in ((0, 1), (1, 2), (2, 0))]
    order = np.array([0, 1, 2, 3, 5, 4, *(index for side in sides for index in side)])
    vertices = prism[:, :, order].reshape(len(corners), -1, 3)
    return vertices, np.arange(vertices.shape[1]).reshape(-1, 3)
