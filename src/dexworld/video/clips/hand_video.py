"""The hand video of a triplet: both hands' meshes alone on black, coloured and lit as DWM's release does.

Left green, right red; colour times (0.7 ambient + 0.6 diffuse), the light at the camera; the hands occlude each other,
the scene doesn't occlude them; no forearm. The recipe agrees with the brightest colours of the released hand videos,
(166, 255, 166) and (255, 133, 138).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dexworld.hands import HAND_AMBIENT, HAND_COLOURS, HAND_DIFFUSE, LEFT, RIGHT
from dexworld.track import Track
from dexworld.video.clips.clip import keypoints_camera
from dexworld.video.clips.hand_mesh import MeshSequence, hand_mesh
from dexworld.video.clips.rasteriser import NEAR, rasterise

HAND_LEVEL = 100  # of 255, brightest channel: a pixel of a hand video, even a compressed one, that shows a hand
HAND_THRESHOLD = 100  # of 765: a pixel whose R + G + B exceeds this belongs to a hand (DWM release)
HAND_NOISE_LEVEL = 24  # of 255: a hand video is black elsewhere, up to the noise of its compression
MIN_HAND_SHARE = 5e-5  # of the image: fewer such pixels are no hand
SUPERSAMPLE = 2  # a pixel is the average of this many squared


def render_hands(
    left: MeshSequence, right: MeshSequence, intrinsics: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Render hand meshes to a video (F, H, W, 3) uint8 RGB, shaded by interpolated vertex normals.

    intrinsics: (3, 3) pixels of H x W.
    """
    frames, intrinsics = len(left.vertices), intrinsics.astype(np.float64)
    vertices = np.concatenate([left.vertices, right.vertices], axis=1).astype(np.float64)
    faces = np.concatenate([left.faces, right.faces + left.vertices.shape[1]])
    colours = np.repeat([HAND_COLOURS["left"], HAND_COLOURS["right"]], [len(left.faces), len(right.faces)], axis=0)
    shown = np.concatenate([left.drawn, right.drawn], axis=1)
    video = np.zeros((frames, height, width, 3), dtype=np.uint8)
    for frame in range(frames):
        drawn = shown[frame]
        if drawn.any():
            top, bottom, left_edge, right_edge = _box(vertices[frame][faces[drawn].ravel()], intrinsics, height, width)
            camera = intrinsics - np.array([[0, 0, left_edge], [0, 0, top], [0, 0, 0]])
            camera = camera * np.array([SUPERSAMPLE, SUPERSAMPLE, 1.0])[:, None]
            rows, columns = bottom - top, right_edge - left_edge
            size = rows * SUPERSAMPLE, columns * SUPERSAMPLE
            image = _image(vertices[frame], faces[drawn], colours[drawn], camera, *size)
            image = image.reshape(rows, SUPERSAMPLE, columns, SUPERSAMPLE, 3).mean(axis=(1, 3))
            video[frame, top:bottom, left_edge:right_edge] = np.clip(np.rint(image * 255), 0, 255)
    return video


def hand_share(video: np.ndarray) -> np.ndarray:
    """Share of the pixels (F,) that show a hand in each frame of a hand video (F, H, W, 3) uint8."""
    return np.array([(np.maximum.reduce([*np.moveaxis(frame, 2, 0)]) >= HAND_LEVEL).mean() for frame in video])


def frames_with_hands(video: np.ndarray) -> np.ndarray:
    """(F,) bool: frames of a hand video (F, H, W, 3) uint8 in which a hand is seen."""
    return hand_share(video) >= MIN_HAND_SHARE


def render_track(track: Track, height: int, width: int) -> np.ndarray:
    """The hand video (F, H, W, 3) uint8 of a track: meshes built from its keypoints, seen by its camera."""
    points = keypoints_camera(track)
    left, right = (hand_mesh(points[:, side], track.keypoints_valid[:, side]) for side in (LEFT, RIGHT))
    return render_hands(left, right, track.intrinsics, height, width)


def _box(points: np.ndarray, intrinsics: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) that hold all that can be seen of points (P, 3)."""
    points = points[points[:, 2] > NEAR]
    if not len(points):
        return 0, 0, 0, 0
    column, row = (points @ intrinsics[:2].T / points[:, 2:]).T
    top, bottom = np.clip([np.floor(row.min()), np.ceil(row.max())], 0, height).astype(int)
    left, right = np.clip([np.floor(column.min()), np.ceil(column.max())], 0, width).astype(int)
    return int(top), int(bottom), int(left), int(right)


def _image(
    vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, intrinsics: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Shaded image (H, W, 3) in [0, 1] of faces (M, 3) with colours (M, 3)."""
    face, weights = rasterise(vertices, faces, intrinsics, height, width)
    covered = face >= 0
    seen, weights = face[covered], weights[covered]
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # length: twice the area
    at_vertex = [np.bincount(faces.ravel(), np.repeat(normals[:, i], 3), len(vertices)) for i in range(3)]
    normal = np.einsum("pc,pcx->px", weights, _unit(np.stack(at_vertex, axis=1))[faces[seen]])
    point = np.einsum("pc,pcx->px", weights, corners[seen])
    # either winding is lit alike: mirrored left hands come with reversed faces, and only outer faces are seen anyway
    facing = np.abs((_unit(normal) * _unit(point)).sum(axis=1))
    image = np.zeros((height, width, 3))
    image[covered] = np.minimum(colours[seen] * (HAND_AMBIENT + HAND_DIFFUSE * facing)[:, None], 1.0)
    return image


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-12)


def skin_colour(hands: np.ndarray, picture: np.ndarray) -> np.ndarray | None:
    """The median colour (3,) uint8 of a picture (H, W, 3) below the hands (H, W, 3) of its hand video; None without."""
    if not frames_with_hands(hands[None])[0]:
        return None
    return np.median(picture[hands.max(axis=-1) >= HAND_LEVEL], axis=0).astype(np.uint8)


def painted_hands(hands: np.ndarray, skin: np.ndarray | None) -> np.ndarray:
    """A hand video (F, H, W, 3) uint8 in one colour (3,), shaded as it was; black without a colour.

    The colour is that of the median shade of the first frame that shows hands.
    """
    shown = frames_with_hands(hands)
    if skin is None or not shown.any():
        return np.zeros_like(hands)
    levels = hands.max(axis=-1)
    first = levels[shown.argmax()]
    level = np.median(first[first >= HAND_LEVEL])
    return np.clip(np.rint(levels[..., None] / level * skin), 0, 255).astype(np.uint8)


def over_video(video: np.ndarray, hands: np.ndarray, skin: np.ndarray | None) -> np.ndarray:
    """A video (F, H, W, 3) uint8 with the hands of a hand video over it, painted; the video itself without a colour."""
    if skin is None:
        return video
    return np.where((hands.max(axis=-1) >= HAND_LEVEL)[..., None], painted_hands(hands, skin), video)


def hand_silhouette(hands: Tensor | np.ndarray) -> Tensor:
    """A white-on-black video of where the hands are: (..., H, W, 3) uint8 of a hand video of the same shape."""
    hands = torch.as_tensor(hands)
    seen = hands.to(torch.int32).sum(-1, keepdim=True) > HAND_THRESHOLD
    return seen.expand(hands.shape).to(torch.uint8) * 255


def repeated_first_frame(videos: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Videos (B, F, H, W, 3) that stand still at their first frame: the static video of a fixed camera."""
    stacked = np.asarray(videos)
    return np.repeat(stacked[:, :1], stacked.shape[1], axis=1)
