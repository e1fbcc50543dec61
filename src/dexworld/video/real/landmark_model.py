"""MediaPipe's two hand networks, run without the mediapipe package: palms in a picture, landmarks of one hand.

The user gives `hand_landmarker.task`, or a folder with the two `.tflite` files; the extra `hands` runs them. Sizes, box
coding and the regions around palms and hands are those of MediaPipe's published graphs (modules hand_landmark and
palm_detection, Apache-2.0).
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.errors import UsageError

PALM_SIZE, HAND_SIZE = 192, 224  # pixels of the networks' square inputs
_FILES = ("*detector.tflite", "palm_detection_full.tflite"), ("hand_landmarks*.tflite", "hand_landmark_full.tflite")
_MISSING = "the hand networks need ai-edge-litert: pip install 'dexworld[hands]'"
# Cells of the detector's grids and how many boxes each has.
_GRIDS = ((24, 2), (12, 6))
# Landmarks that the region of the next frame is laid around: the wrist, the thumb's base, knuckles and middle joints.
_STEADY = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


@dataclass(frozen=True)
class Region:
    """A square of a picture, turned so that the hand in it points up. centre: (2,) pixels. size: pixels of its side."""

    centre: np.ndarray
    size: float
    angle: float = 0.0

    @property
    def axes(self) -> np.ndarray:
        """(2, 2): picture from square."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    def to_picture(self, places: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of places (..., 2) in the square, from 0 to 1."""
        return (places - 0.5) * self.size @ self.axes.T + self.centre


@dataclass(frozen=True)
class FoundHand:
    """One hand in one frame. pixels: (21, 2). shape: (21, 3) metres, the camera's axes, around the hand's own origin.

    presence: 0 to 1. right: 0 to 1, how surely it is a right hand of a picture that isn't mirrored.
    """

    pixels: np.ndarray
    shape: np.ndarray
    presence: float
    right: float

    @property
    def size(self) -> float:
        """Longer side of the box around it, pixels."""
        return float(np.ptp(self.pixels, axis=0).max())

    def region(self) -> Region:
        """Where to look for this hand in a neighbouring frame."""
        steady = self.pixels[list(_STEADY)]
        knuckles = 0.25 * (self.pixels[5] + self.pixels[13]) + 0.5 * self.pixels[9]
        return _around(steady, knuckles - self.pixels[0], 0.1, 2.0)


def _around(points: np.ndarray, up: np.ndarray, raise_by: float, scale: float) -> Region:
    """The square around points (n, 2) whose top lies where `up` (2,) points, raised by a share of their height."""
    turned = Region(np.zeros(2), 1.0, float(np.arctan2(up[0], -up[1])))
    local = points @ turned.axes
    low, high = local.min(axis=0), local.max(axis=0)
    centre = turned.axes @ ((low + high) / 2 - [0.0, raise_by * (high - low)[1]])
    return Region(centre, scale * float((high - low).max()), turned.angle)


class LandmarkModel:
    """Both networks on one CPU thread."""

    def __init__(self, path: Path) -> None:
        self._palm, self._hand = (_Network(content) for content in _contents(path))
        self._anchors = np.concatenate(
            [
                np.repeat(
                    np.stack(np.meshgrid(*[(np.arange(cells) + 0.5) / cells] * 2), axis=-1).reshape(-1, 2), boxes, 0
                )
                for cells, boxes in _GRIDS
            ]
        )

    def palms(self, picture: Tensor, tile: Region, threshold: float) -> list[tuple[float, Region]]:
        """Palms in a tile of a picture (3, H, W) in [0, 1]: score and the region of the hand, the best first."""
        boxes, scores = self._palm(_crop(picture, tile, PALM_SIZE))
        scores = 1 / (1 + np.exp(-np.clip(scores[:, 0], -80, 80)))
        found: list[tuple[float, Region]] = []
        for row in np.argsort(-scores)[: int((scores >= threshold).sum())]:
            centre, half = boxes[row, :2] / PALM_SIZE + self._anchors[row], boxes[row, 2:4] / PALM_SIZE / 2
            joints = boxes[row, 4:].reshape(7, 2) / PALM_SIZE + self._anchors[row]
            corners = tile.to_picture(centre + half * [[-1, -1], [1, -1], [-1, 1], [1, 1]])
            wrist, middle = tile.to_picture(joints[[0, 2]])
            side = float(np.ptp(corners, axis=0).max())
            turned = _around(wrist[None], middle - wrist, 0.0, 0.0)
            region = Region(corners.mean(axis=0) + turned.axes @ [0.0, -0.5 * side], 2.6 * side, turned.angle)
            if all(np.linalg.norm(region.centre - other.centre) > 0.25 * other.size for _, other in found):
                found.append((float(scores[row]), region))
        return found

    def hand(self, picture: Tensor, region: Region) -> FoundHand:
        """The hand in a region of a picture (3, H, W) in [0, 1], or whatever the network takes for one."""
        places, presence, mirrored_right, metric = self._hand(_crop(picture, region, HAND_SIZE))
        shape = metric.reshape(21, 3).astype(float)
        shape[:, :2] = shape[:, :2] @ region.axes.T
        pixels = region.to_picture(places.reshape(21, 3)[:, :2] / HAND_SIZE)
        return FoundHand(pixels, shape, float(np.ravel(presence)[0]), 1.0 - float(np.ravel(mirrored_right)[0]))


class _Network:
    """One `.tflite` network: picture in, outputs in the order of their names out."""

    def __init__(self, content: bytes) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError as error:
            raise ImportError(_MISSING) from error
        self._interpreter: Any = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = sorted(self._interpreter.get_output_details(), key=lambda output: output["name"])
        self._outputs = [output["index"] for output in outputs]

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input, picture)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def _crop(picture: Tensor, region: Region, side: int) -> np.ndarray:
    """(1, side, side, 3) float32 of a region; black outside the picture (3, H, W)."""
    height, width = picture.shape[1:]
    steps = (np.arange(side) + 0.5) / side
    places = region.to_picture(np.stack(np.meshgrid(steps, steps), axis=-1))  # (side, side, 2)
    grid = torch.from_numpy((2 * places / [width, height] - 1).astype(np.float32))
    crop = F.grid_sample(picture[None], grid[None], align_corners=False)
    return crop.permute(0, 2, 3, 1).contiguous().numpy()


def _contents(path: Path) -> list[bytes]:
    """The palm and the landmark network, of a `.task` (a zip archive) or a folder. Raises UsageError without them."""
    found = []
    if path.is_dir():
        for patterns in _FILES:
            files = [file for pattern in patterns for file in sorted(path.rglob(pattern))]
            found += [files[0].read_bytes()] if files else []
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            wanted = ("hand_detector.tflite", "hand_landmarks_detector.tflite")
            found = [archive.read(name) for name in wanted if name in names]
    if len(found) < 2:
        raise UsageError(
            f"{path}: give hand_landmarker.task, or a folder with its palm and its landmark network (.tflite)"
        )
    return found
