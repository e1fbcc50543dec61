"""DexWM as the judge of candidate hand motions: the other world model, on the same question.

It sees the first frame of the untouched scene and imagines each candidate's hand motion in its latent space. The last
predicted latents are compared with those of the goal picture, at tokens that are not under a hand.

N candidates, F video frames, T predicted steps, P tokens, D latent width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.track import Track
from dexworld.video.judge.goal_image import CHANGE_FLOOR, GoalView, Rule
from dexworld.video.judge.select_actions import RULE

STRIDE = 4  # video frames of one predicted step: four steps cover a clip of 17 frames
HIDDEN_SHARE = 0.25  # of a token's pixels under a hand, from which on the token is not compared
Measure = Literal["latents", "changed", "direction", "difference"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True)
class Imagined:
    """Last latents that DexWM predicts: final (N, P, D) of each candidate, untouched (P, D) of no hand."""

    final: Tensor
    untouched: Tensor


@dataclass(frozen=True)
class DexWMEvaluator:
    """A DexWM that was trained on clips (`as_episodes`), asked at `stride` video frames a step."""

    model: Any  # a `WorldModel` that decodes
    stride: int = STRIDE

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the model comes from; its training seeds guard the evaluation."""
        return self.model.provenance

    @torch.no_grad()
    def imagine(self, start: np.ndarray, tracks: Sequence[Track]) -> Imagined:
        """Roll out N motions of one camera path from `start` (H, W, 3) uint8. ValueError on another size or length."""
        if tuple(start.shape[:2]) != tuple(self.model.config.image_size):
            sizes = f"{self.model.config.image_size} pixels, the clip has {start.shape[:2]}"
            raise ValueError(f"DexWM was trained on {sizes}; train one on clips of this size (preset 'clip')")
        motion = self.motion([*tracks, without_hands(tracks[0])]).to(self._device)
        latents = self.model.encode(torch.from_numpy(np.ascontiguousarray(start))[None].to(self._device))  # (1, P, D)
        context = self.model.start(latents, motion.index(0).slice(0, 0))
        final = self.model.rollout(context, motion)[:, -1].float().cpu()
        return Imagined(final[:-1], final[-1])

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
    def pictures(self, imagined: Imagined, static: np.ndarray) -> np.ndarray:
        """Last frames (N, H, W, 3) uint8: the predicted change, against no hand, on the scene `static` (H, W, 3)."""
        latents = torch.cat([imagined.final, imagined.untouched[None]]).to(self._device)
        decoded = self.model.decode(latents).cpu().numpy().astype(np.int16)
        return np.clip(static + decoded[:-1] - decoded[-1], 0, 255).astype(np.uint8)

    @torch.no_grad()
    def scores(
        self, imagined: Imagined, view: GoalView, measure: Measure = "direction", rule: Rule = RULE
    ) -> np.ndarray:
        """Scores (N,) float64 of the imagined ends against the goal; higher is better.

        measure: what is compared.
            `latents`: mean squared distance of latents (DexWM, section 4.4);
            `changed`: the same, each token weighted by how much the goal differs there from the untouched scene;
            `direction`: cosine between predicted and wanted change, both against the untouched scene;
            `difference`: mean squared distance of the wanted change to the predicted one, against the prediction
            without hands: errors in predicting the camera cancel.
        """
        pictures = torch.from_numpy(np.stack([view.goal, view.static]))
        goal, static = self.model.encode(pictures.to(self._device)).float().cpu()
        wanted = (goal - static).expand_as(imagined.final)  # (N, P, D)
        shown = imagined.final - (imagined.untouched if measure in ("direction", "difference") else static)
        hidden = self._hidden(view, rule)
        shown = torch.where(hidden, 0.0, shown)  # what can't be seen counts as unchanged
        if rule == "union":
            wanted = torch.where(hidden, 0.0, wanted)
        if measure == "direction":
            return F.cosine_similarity(shown.flatten(1), wanted.flatten(1), dim=1, eps=1e-6).double().numpy()
        error = (shown - wanted).square().mean(-1)  # (N, P)
        if measure == "changed":
            change = wanted.square().mean(-1)
            error = error * (change / change.max().clamp(min=1e-6) + CHANGE_FLOOR)
        return -error.mean(-1).double().numpy()

    @property
    def _device(self) -> torch.device:
        return next(self.model.predictor.parameters()).device

    def _hidden(self, view: GoalView, rule: Rule) -> Tensor:
        """Tokens (N, P, 1) that are under a hand by the rule."""
        rows, columns = self.model.config.grid
        hidden = view.hidden if rule == "own" else np.broadcast_to(view.union, view.hidden.shape)
        height, width = hidden.shape[1:]
        covered = torch.from_numpy(hidden.copy()).float()[:, None]
        share = F.avg_pool2d(covered, (height // rows, width // columns)).flatten(1)
        return (share >= (HIDDEN_SHARE if rule != "none" else 2.0))[..., None]


def without_hands(track: Track) -> Track:
    """The same camera path with no hand in it."""
    points, valid = np.zeros_like(track.keypoints_world), np.zeros_like(track.keypoints_valid)
    return track.with_columns(keypoints_world=points, keypoints_valid=valid)
