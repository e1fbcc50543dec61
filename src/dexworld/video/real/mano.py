"""MANO's mesh and joints from its parameters, with the user's own model file. MANO is licensed and doesn't come along.

The file is an `.npz` that the user's own `smplx` writes (docs/video_data.md). Source: Romero et al., Embodied Hands,
2017, for the model; smplx (`lbs.py`, `vertex_ids.py`) for names, shapes and the vertices that are the fingertips.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dexworld.data.files import read_arrays
from dexworld.data.hand_checks import ORDERS

JOINTS = 16
TIP_VERTICES = (744, 320, 443, 554, 671)  # thumb to little finger
MIRROR = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Mano:
    """The right hand's model, of V vertices. parents: (16,), -1 for the wrist. See `read_mano` for the other shapes."""

    template: np.ndarray
    shape_directions: np.ndarray
    pose_directions: np.ndarray
    regressor: np.ndarray
    weights: np.ndarray
    parents: np.ndarray
    faces: np.ndarray

    def hands(self, rotations: np.ndarray, betas: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (n, V, 3) and keypoints (n, 21, 3) in our order, metres, the wrist near the origin.

        rotations: (n, 16, 3, 3), wrist first, full rotations of the hand's own side. betas: (n, 10). right: (n,) bool;
        left hands are the mirror images of right ones.
        """
        signs = np.where(right[:, None], 1.0, MIRROR)  # (n, 3)
        rotations = rotations * signs[:, None, :, None] * signs[:, None, None, :]
        shaped = self.template + np.einsum("vcb,nb->nvc", self.shape_directions, betas)
        joints = self.regressor @ shaped
        bent = (rotations[:, 1:] - np.eye(3)).reshape(len(rotations), -1)
        posed = shaped + (bent @ self.pose_directions).reshape(shaped.shape)

        transforms = np.zeros((len(rotations), JOINTS, 4, 4))  # of each joint, from the model's frame at rest
        for joint, parent in enumerate(self.parents):
            local = np.tile(np.eye(4), (len(rotations), 1, 1))
            local[:, :3, :3] = rotations[:, joint]
            local[:, :3, 3] = joints[:, joint] - (joints[:, parent] if joint else 0.0)
            transforms[:, joint] = transforms[:, parent] @ local if joint else local
        turned = np.einsum("njac,njc->nja", transforms[..., :3, :3], joints)
        from_rest = np.concatenate([transforms[..., :3, :3], (transforms[..., :3, 3] - turned)[..., None]], axis=-1)
        blended = np.einsum("vj,njac->nvac", self.weights, from_rest)
        vertices = np.einsum("nvac,nvc->nva", blended[..., :3], posed) + blended[..., 3]
        keypoints = np.concatenate([transforms[..., :3, 3], vertices[:, TIP_VERTICES]], axis=1)[:, ORDERS["mano"]]
        return vertices * signs[:, None], keypoints * signs[:, None]

    def faces_of_both(self) -> np.ndarray:
        """Triangles (2, M, 3) of the left and the right hand, turned outwards."""
        return np.stack([self.faces[:, ::-1], self.faces])


def read_mano(path: Path) -> Mano:
    """The model in an `.npz` of `smplx.MANOLayer`'s buffers for the right hand.

    v_template (V, 3), shapedirs (V, 3, 10), posedirs (135, 3 V), J_regressor (16, V), lbs_weights (V, 16), parents
    (16,), faces (M, 3). Raises ValueError naming what is missing or of another shape.
    """
    if path.suffix != ".npz":
        raise ValueError(f"{path}: is no .npz; write one from your MANO file as docs/video_data.md shows")
    arrays, _ = read_arrays(path)
    corners = len(arrays["v_template"]) if "v_template" in arrays else 0
    shapes = {
        "v_template": (corners, 3),
        "shapedirs": (corners, 3, 10),
        "posedirs": (9 * (JOINTS - 1), 3 * corners),
        "J_regressor": (JOINTS, corners),
        "lbs_weights": (corners, JOINTS),
        "parents": (JOINTS,),
        "faces": (len(arrays.get("faces", ())), 3),
    }
    for name, shape in shapes.items():
        found = arrays[name].shape if name in arrays else "missing"
        if found != shape:
            raise ValueError(f"{path}: {name} is {found}, must be {shape}; write it as docs/video_data.md shows")
    if corners <= max(TIP_VERTICES):
        raise ValueError(f"{path}: has {corners} vertices, MANO has 778")
    numbers = [arrays[name].astype(int if name in ("parents", "faces") else float) for name in shapes]
    return Mano(*numbers)


def rotation_matrices(turns: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) of axis-angle vectors (..., 3) in radians (Rodrigues' formula)."""
    angle = np.linalg.norm(turns, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(turns / np.maximum(angle, 1e-12), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*turns.shape[:-1], 3, 3)
    angle = angle[..., None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
