"""How large a store will be, before the first frame is written."""

import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dexworld.data.prepared.encode import RECIPES
from dexworld.data.prepared.settings import PrepareSettings
from dexworld.data.source import CorruptEpisodeError, Dataset, Source
from dexworld.data.video import VideoError

logger = logging.getLogger(__name__)
# Bytes of a stored frame of 398 x 224 at the codec's default rate factor: `python benchmarks/storage.py`, the textured
# clip, which compresses worse than what people film. Another rate factor moves the size by this share a step.
FRAME_BYTES = {"h264": 7700, "h264-444": 9000, "hevc": 4900, "av1": 5500, "jpeg": 32500}
PER_CRF = {"h264": 0.89, "h264-444": 0.89, "hevc": 0.89, "av1": 0.95, "jpeg": 0.8}
MEASURED_PIXELS = 398 * 224
LABEL_BYTES = 1500  # keypoints, confidences, camera and packet places of a frame, compressed
MARGIN = 1.1
SAMPLED = 20  # episodes whose lengths are read when the source doesn't know them


@dataclass(frozen=True)
class DiskEstimate:
    """episodes, frames: in the source; frames of a foreign one are estimated from a sample. bytes: of the whole store,
    with what assembling needs on top. missing: of that, bytes still to be written. free: on the store's disk."""

    episodes: int
    frames: int
    bytes: int
    missing: int
    free: int

    def check(self, destination: Path) -> None:
        """Raise ValueError with the figures when what is missing doesn't fit."""
        if self.missing > self.free:
            raise ValueError(
                f"{destination} needs about {gigabytes(self.missing)} more ({self.frames} frames of {self.episodes} "
                f"episodes), but {gigabytes(self.free)} are free; make room, choose another disk or codec, or start "
                "with --force True"
            )


def estimate_disk(source: Source, settings: PrepareSettings, destination: Path, missing_share: float) -> DiskEstimate:
    """Estimate the store of `source` with resolved settings; missing_share: of its episodes that are yet to be written.

    Reads the lengths of 20 episodes, spread evenly, when the source doesn't know them all.
    """
    if isinstance(source, Dataset):
        frames = sum(source.lengths)
    else:
        lengths = _sampled_lengths(source)
        frames = round(len(source) * float(np.mean(lengths))) if lengths else 0
    height, width = settings.stored_size
    size = MARGIN * frames * (frame_bytes(settings, height * width) + LABEL_BYTES)
    folder = next(each for each in (destination, *destination.resolve().parents) if each.exists())
    free = shutil.disk_usage(folder).free
    return DiskEstimate(len(source), frames, math.ceil(size), math.ceil(size * missing_share), free)


def frame_bytes(settings: PrepareSettings, pixels: int) -> float:
    """Expected bytes of a stored frame of so many pixels, labels not included."""
    steps = 0 if settings.crf is None else settings.crf - RECIPES[settings.codec].crf
    return FRAME_BYTES[settings.codec] * pixels / MEASURED_PIXELS * PER_CRF[settings.codec] ** steps


def _sampled_lengths(source: Source) -> list[int]:
    lengths = []
    for index in np.unique(np.linspace(0, len(source) - 1, SAMPLED).round().astype(int)):
        try:
            lengths.append(len(source[int(index)]))
        except (CorruptEpisodeError, VideoError) as error:
            logger.debug("not counted in the estimate: %s", error)
    return lengths


def gigabytes(count: float) -> str:
    """A number of bytes as people say it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
