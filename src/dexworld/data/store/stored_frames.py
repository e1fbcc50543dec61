"""Single frames of a stored video, read by the place of their packets: no container is opened, nothing is searched.

A window costs one read per group of pictures, and decoding from the group's key frame to the last frame wanted from it.
Every packet is compared with its checksum before it is decoded: a damaged byte is an error, never a picture.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from dexworld.data.packets import DECODE_ERRORS, bytes_at, decoder_of, forget_decoder, opened
from dexworld.data.video import VideoError
from dexworld.track import frame_numbers


@dataclass(frozen=True)
class StoredFrames:
    """T frames of one episode in a prepared video. Holds no open file, so it can be pickled.

    packets: (T, 3) int64 offset, size and CRC-32 of each frame's packet. size: height and width. decoder: FFmpeg's name
    of the codec, extradata its head. group: frames from one key frame to the next, the first frame being one.
    """

    path: Path
    packets: np.ndarray
    size: tuple[int, int]
    decoder: str
    extradata: bytes
    group: int

    def __len__(self) -> int:
        return len(self.packets)

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one whose bytes are damaged.
        """
        wanted = frame_numbers(indices, len(self), str(self.path))
        frames = np.empty((len(wanted), *self.size, 3), dtype=np.uint8)
        groups: dict[int, dict[int, list[int]]] = {}
        for place, index in enumerate(wanted.tolist()):
            groups.setdefault(index // self.group, {}).setdefault(index, []).append(place)
        file = opened(self.path)
        for group in sorted(groups):
            self._decode(file, group * self.group, groups[group], frames)
        return frames

    def _decode(self, file: int, start: int, places: dict[int, list[int]], frames: np.ndarray) -> None:
        """Fill `frames` at places[index] with each index wanted from the group that starts at frame `start`."""
        rows = self.packets[start : max(places) + 1].tolist()
        first_byte, end_byte = rows[0][0], rows[-1][0] + rows[-1][1]
        try:
            content = bytes_at(file, first_byte, end_byte - first_byte)
        except DECODE_ERRORS as error:
            raise VideoError(f"{self.path}: frame {start} can't be read ({error})") from error
        decoder = decoder_of(self.decoder, self.extradata)
        for index, (offset, size, checksum) in enumerate(rows, start):
            packet = content[offset - first_byte : offset - first_byte + size]
            if len(packet) != size or zlib.crc32(packet) != checksum:
                raise VideoError(f"{self.path}: frame {index} is damaged: its bytes are not those written")
            try:
                pictures = decoder.context.decode(av.Packet(packet))
                if len(pictures) != 1:
                    raise VideoError(f"it becomes {len(pictures)} pictures")
                if index in places:
                    frames[places[index]] = decoder.rgb(pictures[0], self.size)
            except DECODE_ERRORS as error:
                forget_decoder(self.decoder, self.extradata)
                raise VideoError(f"{self.path}: frame {index} can't be decoded ({error})") from error
