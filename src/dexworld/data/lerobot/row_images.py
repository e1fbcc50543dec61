"""Frames of a LeRobot dataset that keeps single images in its rows instead of a video."""

from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from dexworld.data.lerobot.layout import LeRobotLayout
from dexworld.data.lerobot.packets import DECODE_ERRORS, Decoder
from dexworld.data.lerobot.table import episode_rows
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError
from dexworld.track import frame_numbers


@dataclass(frozen=True)
class RowImages:
    """Frames stored as PNG or JPEG files inside the rows of an episode. Holds no open file."""

    layout: LeRobotLayout = field(repr=False)
    row: int
    key: str

    def __len__(self) -> int:
        return self.layout.lengths[self.row]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.layout.video_size(self.key)

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be decoded.
        """
        wanted = frame_numbers(indices, len(self), f"{self.layout.folder}: {self.key}")
        path = self.layout.data_file(self.row)
        try:
            images = episode_rows(self.layout, self.row, [self.key])[self.key]
        except CorruptEpisodeError as error:
            raise VideoError(str(error)) from error
        frames = np.empty((len(wanted), *self.size, 3), dtype=np.uint8)
        for place, index in enumerate(wanted.tolist()):
            frames[place] = _decoded(images[index], self.size, f"{path}: {self.key}, frame {index} of its episode")
        return frames


def _decoded(content: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """An image file's bytes as (H, W, 3) uint8 RGB."""
    heads = {b"\x89PNG": "png", b"\xff\xd8\xff": "mjpeg"}
    name = next((name for head, name in heads.items() if isinstance(content, bytes) and content.startswith(head)), None)
    if name is None:
        raise VideoError(f"{where} holds no PNG or JPEG")
    try:
        decoder = Decoder(name, b"")
        pictures = decoder.context.decode(av.Packet(content)) + decoder.context.decode(None)
        if len(pictures) != 1 or (pictures[0].height, pictures[0].width) != size:
            raise VideoError(f"{len(pictures)} pictures, or one that is not {size[0]} x {size[1]}")
        return decoder.rgb(pictures[0])
    except DECODE_ERRORS as error:
        raise VideoError(f"{where} can't be decoded ({error})") from error
