"""Controls of the selection benchmark: what can be won without any model of the world."""

import numpy as np
import torch
import torch.nn.functional as F

from dexworld.video.clip import TripletClip
from dexworld.video.generate import Generator, shown
from dexworld.video.goal_image import HAND_THRESHOLD, GoalView
from dexworld.video.references import through_codec

BLUR_PX = 9


def composite(clip: TripletClip) -> np.ndarray:
    """The hand video pasted on the static video, (F, H, W, 3) uint8: hands, and no change of any object."""
    return np.where((clip.hands.max(axis=-1) > HAND_THRESHOLD)[..., None], clip.hands, clip.static)


@torch.no_grad()
def as_shown_by(method: Generator, video: np.ndarray, static: np.ndarray) -> np.ndarray:
    """A video (F, H, W, 3) uint8 of the scene `static` as a trained method would show it, had it generated just this.

    It goes through the model's codec, and keeps the static video's own detail where the method does.
    """
    made, untouched = (torch.from_numpy(through_codec(method.model.codec, each))[None] for each in (video, static))
    return shown(made, untouched, torch.from_numpy(static.copy())[None], method.config)[0].numpy()


def hand_over_change(clips: list[TripletClip], view: GoalView) -> np.ndarray:
    """Scores (N,): the cosine between where each hand was at any time and where the goal differs from the scene.

    Both maps are blurred, so that a hand that passes close by counts a little. It knows nothing of what hands do to
    objects, only that things change where hands are; the camera's motion within the clip is ignored. 0 for a hand that
    is never in view, or a goal that changes nothing.
    """
    change = np.abs(view.goal.astype(np.float32) - view.static).sum(axis=-1)
    swept = np.stack([(clip.hands.max(axis=-1) > HAND_THRESHOLD).any(axis=0) for clip in clips])
    maps = torch.from_numpy(np.concatenate([swept.astype(np.float32), change[None]]))[:, None]
    smooth = F.avg_pool2d(maps, BLUR_PX, stride=1, padding=BLUR_PX // 2).flatten(1)
    return F.cosine_similarity(smooth[:-1], smooth[-1:], dim=1, eps=1e-6).double().numpy()
