"""The sums that open-loop figures are made of, one episode at a time, and the figures made of them.

Every episode gives (T,) arrays, one number a step. Figures are ratios of sums over episodes.
"""

from typing import Any

import numpy as np
from torch import Tensor

from dexworld.evaluation.independent_metrics import RATIOS
from dexworld.evaluation.intervals import bootstrap_ratio
from dexworld.geometry import invert, project, transform_points
from dexworld.hands import NUM_TRACKED
from dexworld.track import Track

PCK_THRESHOLDS = (2.5, 5.0, 10.0, 20.0)  # pixels of a 224x392 frame, as released
REFERENCE_HEIGHT = 224  # of that frame; thresholds shrink with lower pictures
RELEASED_BORDER = (4, 5)  # pixels before and after a keypoint that its 9x9 heatmap needs, else it counts as not visible
MOVED_PX = 4.0  # an object this near to where it would be had it not moved counts as still
# Prefixes of figures: the model with the true motion, the model with another motion, and "nothing changes".
PREDICTIONS = ("", "shuffled_", "copy_last_")

Sums = dict[str, np.ndarray]


def latent_sums(prefix: str, predicted: Tensor, truth: Tensor, tokens: np.ndarray) -> Sums:
    """Errors of predicted against true latents (T, P, D); `tokens` (T, P) marks those that show a moved object."""
    error = (predicted - truth).cpu().double()
    squared = error.square().mean(dim=-1).numpy()
    return {
        f"{prefix}mae": error.abs().mean(dim=(-2, -1)).numpy(),
        f"{prefix}mse": squared.mean(axis=-1),
        f"{prefix}object_mse": (squared * tokens).sum(axis=-1),
    }


def keypoint_sums(prefix: str, predicted: Tensor, pixels: Tensor, views: dict[str, Tensor], scale: float = 1.0) -> Sums:
    """Keypoints within each threshold of the true `pixels`, both (T, 12, 2); `views` as `keypoint_views` gives them.

    scale: of the thresholds, the picture's height over `REFERENCE_HEIGHT`.
    "released" truncates both to whole pixels, as an argmax over a heatmap does; "visible" keeps sub-pixel positions.
    """
    predicted = predicted.cpu().double()
    visible = (views["in_view"], (predicted - pixels).norm(dim=-1))
    released = (views["drawn"], (predicted.floor() - pixels.floor()).norm(dim=-1))
    return {
        f"{prefix}{threshold_name(threshold)}_{kind}": (view & (distance <= threshold * scale)).sum(-1).double().numpy()
        for threshold in PCK_THRESHOLDS
        for kind, (view, distance) in (("released", released), ("visible", visible))
    }


def keypoint_views(pixels: Tensor, visible: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Which keypoints count, (T, 12) bool each, for true pixels (T, 12, 2) in an image of `size` (height, width).

    in_view: in front of the camera and inside the image. drawn: those whose 9x9 heatmap also fits, as in the release.
    """
    (height, width), (before, after) = size, RELEASED_BORDER
    u, v = pixels.unbind(-1)
    in_view = visible & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v = u.floor(), v.floor()
    drawn = in_view & (u >= before) & (u + after < width) & (v >= before) & (v + after < height)
    return {"in_view": in_view, "drawn": drawn}


def threshold_name(threshold: float) -> str:
    """`pck20`, `pck2_5`: a key without a dot."""
    return f"pck{threshold:g}".replace(".", "_")


def token_grid(tokens: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of square patches that cover an image (height, width). Raises ValueError if there are none."""
    height, width = image_size
    rows = round((tokens * height / width) ** 0.5)
    if rows < 1 or tokens % rows or abs((tokens // rows) / rows - width / height) > 0.15 * width / height:
        raise ValueError(f"{tokens} tokens form no grid of square patches on an image of {height}x{width}")
    return rows, tokens // rows


def object_pixels(clip: Track) -> tuple[np.ndarray, np.ndarray] | None:
    """Where a clip's objects are, (T, n, 2) pixels, and where they would be had nothing moved but the camera.

    Of their centres; NaN where an object is absent or behind the camera. None for a clip that doesn't know them.
    """
    if "object_positions" not in clip.columns:
        return None
    positions = clip["object_positions"].double()
    camera_from_world = invert(clip.world_from_camera.double())
    found = []
    for places in (positions, positions[:1].expand_as(positions)):
        pixels, depth = project(transform_points(camera_from_world, places), clip.intrinsics.double())
        found.append(pixels.masked_fill(~(depth > 0.0)[..., None], float("nan")).numpy())
    return found[0], found[1]


def moving_tokens(now: np.ndarray, unmoved: np.ndarray, tokens: int, size: tuple[int, int]) -> np.ndarray:
    """(T, P) bool: tokens that show an object which has moved since the first frame, at its old or its new place.

    now, unmoved: (T, n, 2) as `object_pixels` gives them. A token counts when its centre lies within one patch of an
    object's centre: objects are about a patch in size.
    """
    rows, columns = token_grid(tokens, size)
    patch = size[0] / rows
    centres = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1).reshape(-1, 2) * patch
    moved = np.linalg.norm(now - unmoved, axis=-1) > MOVED_PX  # (T, n); NaN compares false
    covered = np.zeros((len(now), len(centres)), dtype=bool)
    for place in (unmoved, now):
        near = np.abs(centres[None, :, None] - place[:, None]).max(axis=-1) <= patch  # (T, P, n)
        covered |= (near & moved[:, None]).any(axis=-1)
    return covered


def summarise(sums: Sums, steps_at: dict[str, int], generator: np.random.Generator, resamples: int) -> dict[str, Any]:
    """Figures and curves from sums (E, T) over all episodes, each with its bootstrap interval.

    steps_at: names of moments ("1s", "4s") and their step index; the last is the end of the rollout.
    """
    figures: dict[str, Any] = {}
    curves: dict[str, list[float | None]] = {}

    def add(key: str, numerators: np.ndarray, denominators: np.ndarray, scale: float = 1.0) -> None:
        """A figure sum / sum over episodes (E,), or a curve where they are (E, T)."""
        interval = bootstrap_ratio(numerators, denominators, generator, resamples).scaled(scale)
        for ending, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high)):
            (curves if numerators.ndim == 2 else figures)[key + ending] = finite(value)

    def add_percent(key: str, counts: np.ndarray, totals: np.ndarray, moments: bool = False) -> None:
        """The percentage over all steps and, with `moments`, of the last and of every step; counts (E, T)."""
        add(f"{key}_avg" if moments else key, counts.sum(axis=1), totals.sum(axis=1), 100.0)
        if moments:
            add(f"{key}_{last}", counts[:, -1], totals[:, -1], 100.0)
            add(key, counts, totals, 100.0)

    ones, twelve = np.ones_like(sums["mse"]), np.full_like(sums["mse"], NUM_TRACKED)
    last = list(steps_at)[-1]
    for prefix in PREDICTIONS[:2]:
        for kind in ("", "object_"):
            top, bottom = sums[f"{prefix}{kind}mse"], sums[f"copy_last_{kind}mse"]
            for name, step in steps_at.items():
                add(f"{prefix}{kind}mse_ratio_{name}", top[:, step], bottom[:, step])
            add(f"{prefix}{kind}mse_ratio", top, bottom)
    for prefix in PREDICTIONS:
        mae = sums[f"{prefix}mae"]
        add(f"{prefix}mae_avg", mae.mean(axis=1), ones[:, 0])
        add(f"{prefix}mae_{last}", mae[:, -1], ones[:, 0])
        add(f"{prefix}mae", mae, ones)
    for threshold in PCK_THRESHOLDS:
        name = threshold_name(threshold)
        for prefix in PREDICTIONS:
            add_percent(f"{prefix}{name}", sums[f"{prefix}{name}_released"], twelve, True)
            add_percent(f"{prefix}{name}_visible", sums[f"{prefix}{name}_visible"], sums["in_view"], True)
        add_percent(f"{name}_true_latents", sums[f"true_latents_{name}_visible"], sums["in_view"])
        add_percent(f"{name}_true_latents_released", sums[f"true_latents_{name}_released"], twelve)
    add_percent("pck_released_ceiling", sums["drawn"], twelve)
    for key, (above, below) in RATIOS.items():
        if above in sums:
            for name, step in steps_at.items():
                add(f"{key}_{name}", sums[above][:, step], sums[below][:, step])
            add(key, sums[above], sums[below])
    moving = int((sums["object_tokens"].sum(axis=1) > 0).sum())
    return figures | {"episodes_with_moving_objects": moving, "curves": curves}


def finite(value: float | np.ndarray) -> Any:
    """A number, or a list of numbers, with None for a figure that doesn't exist (NaN)."""
    if isinstance(value, np.ndarray):
        return [finite(float(item)) for item in value]
    return None if np.isnan(value) else float(value)
