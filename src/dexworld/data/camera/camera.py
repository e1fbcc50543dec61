"""A camera with a lens, and its pictures as a pinhole camera of the wanted size would take them."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from dexworld.data.camera.lens import COEFFICIENTS, Model, distorted, folds_at, undistorted
from dexworld.data.resize import Fit, Size
from dexworld.track import Frames

FIRST_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # added to intrinsics that count from its centre
SAME_ASPECT = 0.01  # a picture with sides of another ratio isn't this camera's at another resolution
_MOST_ZOOM = 4.0
_ALONG = 65  # places along each side of a picture


@dataclass(frozen=True)
class Camera:
    """Intrinsics (3, 3) with the centre of the first pixel at (0.5, 0.5), a lens, and its pictures' (height, width).

    size: None where the file doesn't say. Raises ValueError for what is no camera.
    """

    intrinsics: np.ndarray
    size: Size | None = None
    model: Model = "plumb_bob"
    distortion: tuple[float, ...] = (0.0,) * 5

    def __post_init__(self) -> None:
        matrix = np.asarray(self.intrinsics, float)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ValueError(f"intrinsics must be a finite (3, 3) matrix, not {matrix.tolist()}")
        if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and np.allclose(matrix[2], (0, 0, 1)) and matrix[1, 0] == 0):
            raise ValueError(f"intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], not {matrix.tolist()}")
        if self.model not in COEFFICIENTS:
            raise ValueError(f"the lens model {self.model!r} is unknown; known are {', '.join(COEFFICIENTS)}")
        if len(self.distortion) not in COEFFICIENTS[self.model] or not np.isfinite(self.distortion).all():
            wanted = " or ".join(map(str, COEFFICIENTS[self.model]))
            raise ValueError(f"{self.model} has {wanted} finite distortion coefficients, not {list(self.distortion)}")
        object.__setattr__(self, "intrinsics", matrix)

    @property
    def bends(self) -> bool:
        """Whether the lens does anything."""
        return self.model == "equidistant" or any(self.distortion)

    def of_size(self, size: Size) -> "Camera":
        """The same camera at another resolution (height, width). Raises ValueError where the aspect differs."""
        if self.size is None or tuple(self.size) == tuple(size):
            return replace(self, size=(size[0], size[1]))
        (height, width), (wanted_height, wanted_width) = self.size, size
        if abs(wanted_width * height / (wanted_height * width) - 1) > SAME_ASPECT:
            raise ValueError(
                f"pictures are {wanted_width} x {wanted_height} (width x height), the camera was calibrated at "
                f"{width} x {height}: cut or stretched pictures have other intrinsics; calibrate at this size"
            )
        matrix = np.diag([wanted_width / width, wanted_height / height, 1.0]) @ self.intrinsics
        return replace(self, intrinsics=matrix, size=(wanted_height, wanted_width))

    def shown(self, places: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of places (..., 2), x/z and y/z in the optical frame."""
        return _pixels(distorted(places, self.model, self.distortion), self.intrinsics)

    def places(self, pixels: np.ndarray) -> np.ndarray:
        """Places (..., 2) of pixels (..., 2); NaN where the lens model shows none."""
        return undistorted(_places(np.asarray(pixels, float), self.intrinsics), self.model, self.distortion)

    def fold(self) -> float | None:
        """Pixels from the middle at which the lens model turns back, inside the picture of `size`; None: nowhere."""
        assert self.size is not None
        corners = _places(_border(self.size), self.intrinsics)
        bent = float(np.linalg.norm(corners, axis=-1).max())
        reach = folds_at(self.model, self.distortion, np.tan(min(bent, 1.5)) if self.model == "equidistant" else bent)
        if reach is None:
            return None
        return float(distorted(np.array([reach, 0.0]), self.model, self.distortion)[0] * self.intrinsics[0, 0])


@dataclass(frozen=True)
class PinholeView:
    """Pictures of `camera` (with its size) as a pinhole camera with pictures of `target` (height, width) takes them.

    The lens is taken out at the camera's own size, with a focal length that leaves no black edge; then pictures are
    scaled to cover the target and cut, as training data is. Raises ValueError where the lens model can't be taken out.
    """

    camera: Camera
    target: Size
    fit: Fit = field(init=False)

    def __post_init__(self) -> None:
        if self.camera.size is None:
            raise ValueError("the camera's picture size is not known; use Camera.of_size")
        if self.camera.bends and (fold := self.camera.fold()) is not None:
            raise ValueError(
                f"the lens model turns back {fold:.0f} pixels from the middle, inside the picture: calibrate again "
                "with the board in the corners too, or with fewer coefficients"
            )
        object.__setattr__(self, "fit", Fit.cover(self.camera.size, self.target))

    @cached_property
    def undistorted_intrinsics(self) -> np.ndarray:
        """(3, 3) of the picture without its lens, at the camera's own size: the focal length is the camera's, or the
        smallest longer one with which every pixel was seen.
        """
        camera = self.camera
        assert camera.size is not None
        border, inside = _border(camera.size), np.array(camera.size[::-1]) + 1e-6

        def zoomed(zoom: float) -> np.ndarray:
            return camera.intrinsics @ np.diag([zoom, zoom, 1.0]) if zoom != 1.0 else camera.intrinsics

        def seen(zoom: float) -> bool:
            shown = camera.shown(_places(border, zoomed(zoom)))
            return bool(((shown >= -1e-6) & (shown <= inside)).all())

        if not camera.bends or seen(1.0):
            return camera.intrinsics
        if not seen(_MOST_ZOOM):
            raise ValueError(
                f"even at {_MOST_ZOOM:g} times the focal length the lens leaves black edges: calibrate again"
            )
        low, high = 1.0, _MOST_ZOOM
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (low, middle) if seen(middle) else (middle, high)
        return zoomed(high)

    @cached_property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) of the target's pictures."""
        return self.fit.intrinsics(self.undistorted_intrinsics)

    def undistorted(self, image: np.ndarray) -> np.ndarray:
        """A picture (H, W, 3) uint8 of the camera without its lens, of the same size. Raises ValueError on others."""
        if image.shape != (*(self.camera.size or ()), 3) or image.dtype != np.uint8:
            raise ValueError(f"picture is {image.shape} {image.dtype}, expected {(*(self.camera.size or ()), 3)} uint8")
        if not self.camera.bends:
            return image
        working = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        taken = functional.grid_sample(working, self._grid, mode="bilinear", padding_mode="border", align_corners=False)
        return taken[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()

    def image(self, image: np.ndarray) -> np.ndarray:
        """A picture (H, W, 3) uint8 of the camera as the target's."""
        return self.fit.images(torch.from_numpy(np.ascontiguousarray(self.undistorted(image)))).numpy()

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the camera's pictures to those of the target's; they may lie outside. NaN as `places`."""
        return self.fit.pixels(_pixels(self.camera.places(pixels), self.undistorted_intrinsics))

    @cached_property
    def _grid(self) -> torch.Tensor:
        """Where each pixel comes from, (1, H, W, 2), as `grid_sample` counts."""
        assert self.camera.size is not None
        height, width = self.camera.size
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        places = _places(np.stack([columns, rows], axis=-1), self.undistorted_intrinsics)
        grid = self.camera.shown(places) * (2.0 / np.array([width, height])) - 1.0
        return torch.from_numpy(grid.astype(np.float32))[None]


@dataclass(frozen=True)
class UndistortedFrames:
    """`track.Frames` of a camera, read without its lens."""

    frames: Frames
    view: PinholeView

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> Size:
        """(height, width) of the frames."""
        return self.frames.size

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (N, H, W, 3) uint8 without the lens."""
        return np.stack([self.view.undistorted(image) for image in self.frames.read(indices)])


def _pixels(places: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    return places @ intrinsics[:2, :2].T + intrinsics[:2, 2]


def _places(pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    return (pixels - intrinsics[:2, 2]) @ np.linalg.inv(intrinsics[:2, :2]).T


def _border(size: Size) -> np.ndarray:
    """Pixels (N, 2) along the edge of a picture of (height, width)."""
    height, width = size
    share = np.linspace(0.0, 1.0, _ALONG)
    across = [np.stack([width * share, np.full(_ALONG, edge)], axis=-1) for edge in (0.0, height)]
    down = [np.stack([np.full(_ALONG, edge), height * share], axis=-1) for edge in (0.0, width)]
    return np.concatenate([*across, *down])
