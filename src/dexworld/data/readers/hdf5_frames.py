"""Frames that lie in an HDF5 file as raw pixels, read when they are asked for."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from dexworld.data.hdf5 import opened_hdf5
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import MAX_SIDE, VideoError
from dexworld.track import frame_numbers


@dataclass(frozen=True)
class Hdf5Frames:
    """Frames of the dataset `key`, (T, H, W, 3) uint8 RGB, without `crop_rows` rows at the top and at the bottom.

    Holds no open file, so it can be pickled; a read opens the file once. Every error is a VideoError naming file and
    dataset, and the frame where it is known.
    """

    path: Path
    key: str
    crop_rows: int = 0

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        """Frames, cropped height, width."""
        where = f"{self.path}: {self.key}"
        try:
            with opened_hdf5(self.path) as file:
                node = file.get(self.key)
                if not isinstance(node, h5py.Dataset):
                    raise VideoError(f"{where} is missing")
                shape, dtype = node.shape, node.dtype
        except CorruptEpisodeError as error:
            raise VideoError(str(error)) from error
        if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or not 0 < max(shape[1:3]) <= MAX_SIDE:
            raise VideoError(f"{where} has shape {shape} {dtype}, expected (T, H, W, 3) uint8")
        if shape[0] == 0 or shape[1] <= 2 * self.crop_rows or shape[2] == 0:
            raise VideoError(
                f"{where} has shape {shape}; nothing is left of it without {self.crop_rows} rows each side"
            )
        return shape[0], shape[1] - 2 * self.crop_rows, shape[2]

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height (cropped) and width in pixels."""
        return self._shape[1], self._shape[2]

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be read.
        """
        length, height, width = self._shape
        wanted = frame_numbers(indices, length, f"{self.path}: {self.key}")
        frames = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        rows, frame = slice(self.crop_rows, self.crop_rows + height), -1
        try:
            with opened_hdf5(self.path) as file:
                node = file[self.key]
                for frame in np.unique(wanted).tolist():  # in order: neighbours may share a compressed chunk
                    frames[wanted == frame] = node[frame, rows]
        except CorruptEpisodeError as error:
            raise VideoError(f"frame {frame} can't be read: {error}") from error
        return frames
