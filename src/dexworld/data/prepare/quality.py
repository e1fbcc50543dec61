"""What preparing cost: frames and keypoints of the store against the source's, read through the two readers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dexworld.data.source import CorruptEpisodeError, Source
from dexworld.data.store.encode import scaled_frame
from dexworld.data.store.prepared_dataset import PreparedDataset
from dexworld.data.store.store_settings import PrepareSettings, StoredFit
from dexworld.data.video import VideoError
from dexworld.pictures import psnr_of_mse
from dexworld.track import Track

NEAR_M = 0.02  # a keypoint nearer to the camera's plane has no meaningful pixel
LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709


@dataclass(frozen=True)
class FrameQuality:
    """psnr, psnr_luma: dB of a stored frame against the source's, scaled without encoding. keypoint_px: largest
    distance of a keypoint's pixel from where the source has it; None when none is seen."""

    episode: str
    psnr: float
    psnr_luma: float
    keypoint_px: float | None


def compare(
    source: Source,
    store: PreparedDataset,
    settings: PrepareSettings,
    episodes: int = 64,
    frames: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Compare random frames of `episodes` episodes of the store (0: of all), spread evenly, with their source.

    progress: called with (episodes done, of how many). Returns the figures of results.json: medians and 5th percentiles
    of the PSNR in dB, the largest distance of a keypoint in stored pixels, and what could not be compared, with the
    reason.
    """
    places = {name: index for index, name in enumerate(source.ids)}
    count = len(store) if not episodes else min(episodes, len(store))
    chosen = np.unique(np.linspace(0, len(store) - 1, count if frames else 0).round().astype(int))
    found: list[FrameQuality] = []
    failed: list[list[str]] = []
    for done, index in enumerate(chosen.tolist(), 1):
        name, generator = store.ids[index], np.random.default_rng([seed, index])
        try:
            found += compare_episode(name, source[places[name]], store[index], settings, frames, generator)
        except (CorruptEpisodeError, VideoError) as error:
            failed.append([name, str(error)])
        progress(done, len(chosen))
    return _summary(found) | {"not_compared": failed}


def compare_episode(
    name: str, before: Track, after: Track, settings: PrepareSettings, frames: int, generator: np.random.Generator
) -> list[FrameQuality]:
    """Compare up to `frames` random frames of one episode. Raises VideoError when the two have different lengths."""
    if len(before) != len(after):
        raise VideoError(f"{name}: the source has {len(before)} frames, the store {len(after)}")
    chosen = sorted(generator.choice(len(before), min(frames, len(before)), replace=False).tolist())
    fit = StoredFit.of(before.frames.size, settings)
    results = []
    for frame, stored, original in zip(chosen, after.frames.read(chosen), before.frames.read(chosen), strict=True):
        reference = scaled_frame(original, fit)
        both = psnr(reference, stored), psnr(reference @ LUMA, stored @ LUMA)
        results.append(FrameQuality(name, *both, _keypoint_distance(before, after, frame, fit)))
    return results


def psnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of values on an 8-bit scale (see `pictures.psnr_of_mse`)."""
    difference = (expected.astype(np.float64) - found.astype(np.float64)) / 255
    return psnr_of_mse(float(np.mean(difference**2)))


def _keypoint_distance(before: Track, after: Track, frame: int, fit: StoredFit) -> float | None:
    """Largest distance in stored pixels between the keypoints' pixels in source and store; seen in either counts."""
    pixels_before, depth = _pixels_of(before, frame)
    pixels_after, _ = _pixels_of(after, frame)
    pixels_before = fit.pixels(pixels_before)
    valid, valid_after = before.keypoints_valid[frame], after.keypoints_valid[frame]
    if not np.array_equal(valid, valid_after):
        raise VideoError(f"{before.source}: frame {frame} has other valid keypoints in the store")
    height, width = fit.stored
    inside = ((pixels_before >= 0) & (pixels_before <= (width, height))).all(axis=-1)
    seen = valid & inside & (depth > NEAR_M)
    return float(np.linalg.norm(pixels_before - pixels_after, axis=-1)[seen].max()) if seen.any() else None


def _pixels_of(episode: Track, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (42, 2) and depths (42,) in metres of a frame's keypoints, in float64; meaningless where depth <= 0."""
    world_from_camera = np.asarray(episode.world_from_camera[frame], dtype=np.float64)
    points = np.asarray(episode.keypoints_world[frame], dtype=np.float64)
    points = np.where(episode.keypoints_valid[frame][:, None], points, 0.0)
    camera = (points - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    depth = camera[:, 2]
    image = camera @ np.asarray(episode.intrinsics, dtype=np.float64).T
    return image[:, :2] / np.where(np.abs(depth) < 1e-6, 1e-6, depth)[:, None], depth


def _summary(found: list[FrameQuality]) -> dict[str, Any]:
    """The figures of results.json from single frames; None where there is nothing to tell."""
    figures: dict[str, Any] = {"episodes_compared": len({each.episode for each in found})}
    figures["frames_compared"] = len(found)
    for key in ("psnr", "psnr_luma"):
        values = [getattr(each, key) for each in found]
        figures[f"{key}_median_db"] = float(np.median(values)) if values else None
        figures[f"{key}_5th_percentile_db"] = float(np.percentile(values, 5)) if values else None
    distances = [each.keypoint_px for each in found if each.keypoint_px is not None]
    figures["frames_with_keypoints"] = len(distances)
    figures["keypoint_max_px"] = max(distances) if distances else None
    return figures
