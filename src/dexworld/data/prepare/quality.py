"""What preparing cost: frames and keypoints of the store against the source's, read through the two readers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dexworld.data.resize import Fit
from dexworld.data.source import CorruptEpisodeError, Source
from dexworld.data.store.encode import scaled_frame
from dexworld.data.store.prepared_dataset import PreparedDataset
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.pictures import psnr_of_mse
from dexworld.track import Track

NEAR_M = 0.02  # a keypoint nearer to the camera's plane has no meaningful pixel
LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709


FrameQuality = tuple[float, float, float | None]  # PSNR in dB, the same of luma, pixels that a keypoint is off


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
            found += _compare_episode(name, source[places[name]], store[index], settings, frames, generator)
        except (CorruptEpisodeError, VideoError) as error:
            failed.append([name, str(error)])
        progress(done, len(chosen))
    return {"episodes_compared": len(chosen) - len(failed), **_summary(found), "not_compared": failed}


def _compare_episode(
    name: str, before: Track, after: Track, settings: PrepareSettings, frames: int, generator: np.random.Generator
) -> list[FrameQuality]:
    """The quality of up to `frames` random frames, against the source's, scaled without encoding."""
    if len(before) != len(after):
        raise VideoError(f"{name}: the source has {len(before)} frames, the store {len(after)}")
    chosen = sorted(generator.choice(len(before), min(frames, len(before)), replace=False).tolist())
    fit, results = settings.fit(before.frames.size), []
    for frame, stored, original in zip(chosen, after.frames.read(chosen), before.frames.read(chosen), strict=True):
        reference = scaled_frame(original, fit)
        luma = psnr(reference @ LUMA, stored @ LUMA)
        results.append((psnr(reference, stored), luma, _keypoint_distance(before, after, frame, fit)))
    return results


def psnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of values on an 8-bit scale (see `pictures.psnr_of_mse`)."""
    difference = (expected.astype(np.float64) - found.astype(np.float64)) / 255
    return psnr_of_mse(float(np.mean(difference**2)))


def _keypoint_distance(before: Track, after: Track, frame: int, fit: Fit) -> float | None:
    """Largest distance in stored pixels between the keypoints' pixels in source and store; seen in either counts."""
    valid = before.keypoints_valid[frame]
    if not np.array_equal(valid, after.keypoints_valid[frame]):
        raise VideoError(f"{before.source}: frame {frame} has other valid keypoints in the store")
    pixels_before, depth = _pixels_of(before, frame)
    pixels_before, pixels_after = fit.pixels(pixels_before), _pixels_of(after, frame)[0]
    inside = ((pixels_before >= 0) & (pixels_before <= fit.target[::-1])).all(axis=-1)
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
    figures: dict[str, Any] = {"frames_compared": len(found)}
    for place, key in enumerate(("psnr", "psnr_luma")):
        values: list[Any] = [each[place] for each in found]
        figures[f"{key}_median_db"] = float(np.median(values)) if values else None
        figures[f"{key}_5th_percentile_db"] = float(np.percentile(values, 5)) if values else None
    distances = [distance for _, _, distance in found if distance is not None]
    return figures | {"frames_with_keypoints": len(distances), "keypoint_max_px": max(distances, default=None)}
