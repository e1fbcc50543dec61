"""Does a method leave alone what the hands don't touch, and does it act where they do?

DWM generates on top of a static video that already is right wherever nothing happens (paper, residual formulation).
These figures measure how far that holds. They compare with the static video and not with the truth, so grain and
exposure of real recordings don't blur them.
"""

import numpy as np

from dexworld.video.metrics import checked_mask, checked_videos, psnr
from dexworld.video.regions import RegionConfig, changed_pixels


def preservation(
    prediction: np.ndarray,
    static: np.ndarray,
    region: np.ndarray,
    truly_changed: np.ndarray,
    config: RegionConfig = RegionConfig(),
) -> dict[str, float | None]:
    """How much of the unaffected scene a video keeps, and how much of the affected scene it changes.

    prediction, static: (F, H, W, 3) uint8. region: (F, H, W) bool, the interaction region; outside it the scene is
    unaffected. truly_changed: (F, H, W) bool, `changed_pixels` of the truth. A pixel is changed by the same rule, with
    the same thresholds, as in the region.

    "kept": share, 0 to 1, of the pixels outside that the prediction doesn't change. "acted": share of the truly changed
    pixels that it changes as well; 0 for a copy of the static video. "psnr_static_outside": dB between prediction and
    static video outside. None where there are no such pixels.
    """
    checked_videos(prediction, static)
    checked_mask(region, static.shape)
    checked_mask(truly_changed, static.shape)
    changed = changed_pixels(prediction, static, config)
    return {
        "kept": _share(~changed, ~region),
        "acted": _share(changed, truly_changed),
        "psnr_static_outside": psnr(prediction, static, ~region),
    }


def _share(found: np.ndarray, among: np.ndarray) -> float | None:
    count = int(among.sum())
    return float((found & among).sum()) / count if count else None
