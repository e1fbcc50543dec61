"""DexWM as the judge of candidate hand motions: the other world model, on the same question.

It sees the first frame of the untouched scene and imagines each candidate's hand motion in its latent space. The last
predicted latents are compared with those of the goal picture, at tokens that are not under the candidate's own hand.

N candidates, T predicted steps, P tokens, D latent width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.models.checkpoint import check_prediction
from dexworld.track import Track
from dexworld.video.judge.goal_image import GoalView

STRIDE = 4  # video frames of one predicted step: four steps cover a clip of 17 frames
HIDDEN_SHARE = 0.25  # of a token's pixels under a hand, from which on the token is not compared


@dataclass(frozen=True)
class DexWMEvaluator:
    """A DexWM that was trained on clips (`as_episodes`), asked at `stride` video frames a step."""

    model: Any  # a `WorldModel`
    stride: int = STRIDE

    @torch.no_grad()
    def imagine(self, start: np.ndarray, tracks: Sequence[Track]) -> tuple[Tensor, Tensor]:
        """The last latents (N, P, D) after N motions of one camera path from `start` (H, W, 3), and (P, D) of no hand.

        Raises ValueError on another size or length.
        """
        if tuple(start.shape[:2]) != tuple(self.model.config.image_size):
            sizes = f"{self.model.config.image_size} pixels, the clip has {start.shape[:2]}"
            raise ValueError(f"DexWM was trained on {sizes}; train one on clips of this size (preset 'clip')")
        motion = self.motion([*tracks, without_hands(tracks[0])]).to(self._device)
        latents = self.model.encode(torch.from_numpy(np.ascontiguousarray(start))[None].to(self._device))  # (1, P, D)
        context = self.model.start(latents, motion.index(0).slice(0, 0))
        final = self.model.rollout(context, motion)[:, -1].float().cpu()
        check_prediction(final, self.model, [*(f"candidate {index}" for index in range(len(tracks))), "no hand"])
        return final[:-1], final[-1]

    def motion(self, tracks: Sequence[Track]) -> HandMotion:
        """The candidates' motion (N, T) at this stride; the last step is shorter when the stride doesn't divide."""
        lengths = {len(track) for track in tracks}
        if len(lengths) != 1:
            raise ValueError(f"candidates last {sorted(lengths)} frames; they must be of one length")
        length = lengths.pop()
        frames = [*range(0, length - 1, self.stride), length - 1]
        # The first picture shows no hand: it is told where the hand is, as in training on `clip_episode`.
        return self.model.condition(Track.stack([track.at(frames).tensors(torch.float32) for track in tracks]))

    @torch.no_grad()
    def scores(self, final: Tensor, untouched: Tensor, view: GoalView) -> np.ndarray:
        """Scores (N,) float64 of what `imagine` returned: the cosine of predicted and wanted change."""
        pictures = torch.from_numpy(np.stack([view.goal, view.static]))
        goal, static = self.model.encode(pictures.to(self._device)).float().cpu()
        shown = torch.where(self._hidden(view), 0.0, final - untouched)  # what can't be seen counts as unchanged
        wanted = (goal - static).expand_as(final)
        return F.cosine_similarity(shown.flatten(1), wanted.flatten(1), dim=1, eps=1e-6).double().numpy()

    @property
    def _device(self) -> torch.device:
        return next(self.model.predictor.parameters()).device

    def _hidden(self, view: GoalView) -> Tensor:
        """Tokens (N, P, 1) that are under the candidate's own hand."""
        rows, columns = self.model.config.grid
        height, width = view.hidden.shape[1:]
        covered = torch.from_numpy(view.hidden.copy()).float()[:, None]
        return (F.avg_pool2d(covered, (height // rows, width // columns)).flatten(1) >= HIDDEN_SHARE)[..., None]


def without_hands(track: Track) -> Track:
    """The same camera path with no hand in it."""
    points, valid = np.zeros_like(track.keypoints_world), np.zeros_like(track.keypoints_valid)
    return track.with_columns(keypoints_world=points, keypoints_valid=valid)
