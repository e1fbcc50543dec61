"""Goals of a sentence: the points that `MPCPolicy.reset` takes, read from the start picture."""

import logging
from typing import Any

import numpy as np
import torch

from dexworld.planning.protocols import Dynamics
from dexworld.robots.observation import crop_margins, cropped_image

UNSURE = 0.2  # of a heatmap's share around its peak: the sentence's object was hardly found
logger = logging.getLogger(__name__)


@torch.no_grad()
def sentence_points(
    dynamics: Dynamics, image: np.ndarray, sentence: str, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1, 2) [u, v] of what a sentence asks to move, and where to, (1, 2), in a picture (H, W, 3) uint8.

    The end is kept inside the picture. device: the dynamics' own. Warns where the object is hardly found. Raises
    ValueError for a model without a text head or a sentence of too many words, ImportError without the sentence
    encoder's package.
    """
    model: Any = dynamics
    if not hasattr(model, "text"):
        raise ValueError("this world model doesn't understand sentences: `dexworld train text`")
    size = model.config.image_size
    top, left = crop_margins(image.shape, size)
    picture = torch.from_numpy(np.ascontiguousarray(cropped_image(image, size)))
    found = model.text.goal(model.points, model.encode(picture.to(device)), sentence)
    if found.sure < UNSURE:
        logger.warning("%r: what is to be moved was hardly found in the picture", sentence)
    most = found.end.new_tensor([size[1] - 1, size[0] - 1])
    inside = torch.stack([found.start, found.end]).clamp_min(0).minimum(most).cpu().numpy()
    start, end = inside + np.array([left, top])
    logger.info("%r: from %d,%d to %d,%d", sentence, *start, *end)
    return start[None], end[None]
