"""DexWM: a latent world model of hands and what they do, as verbs.

B batch, N candidates, C observed frames, T predicted steps, P patches, D latent width.
"""

import logging
from dataclasses import replace
from typing import Any

from torch import Tensor

from dexworld.actions import HandMotion, hand_motion
from dexworld.models.checkpoint import Pretrained
from dexworld.models.conditioning import action_scale
from dexworld.models.config import PRESETS, DexWMConfig
from dexworld.models.encoders import build_encoder
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.points import PointHead
from dexworld.models.predictor import Predictor
from dexworld.models.rollout import Context, rollout, start
from dexworld.models.text_head import TextHead
from dexworld.models.world_model import DEFAULT_KIND, Blocks, Kind, register
from dexworld.track import Track

logger = logging.getLogger(__name__)


class DexWM(Pretrained):
    """Frozen encoder, latent predictor and keypoint head; with `config.points` also `points`, a `PointHead`, and with
    `config.text` `text`, a `TextHead`.

    A new one has a random predictor and head and, for `pca`, an encoder that still needs `fit`.
    """

    config_type, kind = DexWMConfig, DEFAULT_KIND

    def __init__(self, config: DexWMConfig, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.provenance = config, dict(provenance or {})
        self.encoder = build_encoder(config.encoder, config.image_size).requires_grad_(False)
        dim, grid, image_size = config.encoder.dim, config.grid, config.image_size
        self.predictor = Predictor(config.predictor, dim, grid, image_size, config.action_scale, config.action_dim)
        self.keypoint_head = KeypointHead(config.keypoint_head, dim, grid, image_size)
        if config.points is not None:
            self.points = PointHead(config.points, dim, grid, image_size, config.predictor.tracked)
            if config.text is not None:
                self.text = TextHead(config.text, config.points.channels, image_size)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (..., P, D) float32 of images (..., H, W, 3) uint8 RGB. Raises ValueError for another size."""
        return self.encoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (..., H, W, 3) uint8 of latents. Raises ValueError when the encoder has no way back."""
        return self.encoder.decode(latents)

    def told(self, track: Track) -> tuple[Tensor, Tensor]:
        """Points (..., T + 1, K, 3) in metres whose displacements are told, and which (..., T + 1, K) are valid.

        Baselines are told of others than the 42 keypoints.
        """
        return track.keypoints_world, track.keypoints_valid

    def condition(self, track: Track) -> HandMotion:
        """The motion (..., T) between the T + 1 frames of a track, in this model's action convention."""
        labels = (track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
        return hand_motion(*labels, self.config.action_convention, self.told(track))

    @property
    def needs_still_camera(self) -> bool:
        """Whether actions refer to the camera of the window's first frame, so that planning needs a still one."""
        return self.config.action_convention.frame == "window"

    @property
    def blocks(self) -> Blocks:
        """The predictor's blocks."""
        return Blocks([*self.predictor.layers], ("context_key_value",))

    def scaled_to(self, track: Track, moving: Tensor) -> "DexWM":
        """A model of new weights with this encoder, its actions scaled to the transitions `moving` (B, T) of a track.

        Raw actions, as in the paper's presets, stay raw.
        """
        if self.config.action_scale == (1.0, 1.0, 1.0):
            return self
        scale = action_scale(self.condition(track), self.told(track)[1], moving)
        logger.info("action scale: points %.4f m, camera %.4f m and %.4f rad", *scale)
        scaled = type(self)(replace(self.config, action_scale=scale))
        scaled.encoder = self.encoder
        return scaled

    def predict(self, latents: Tensor, motion: HandMotion) -> Tensor:
        """Teacher-forced training pass: frames 1 .. T (B, T, P, D) from latents (B, T + 1, P, D) and motion (B, T).

        The prediction of frame i sees the true frames 0 .. i - 1; T is at most `config.predictor.num_context`.
        """
        return self.predictor(latents, motion)

    def unroll(self, latents: Tensor, motion: HandMotion) -> Tensor:
        """Predict T frames (B, T, P, D) from observed latents (B, C, P, D), each from the predictions before it.

        motion (B, C - 1 + T) covers the observed frames too. Differentiable: this is the multistep training pass.
        """
        seen = latents.shape[1] - 1
        if motion.steps <= seen:
            raise ValueError(f"{motion.steps} transitions leave nothing to predict after {seen + 1} observed frames")
        context = start(self.predictor, latents, motion.slice(0, seen), constant=False)
        return rollout(self.predictor, context, motion.slice(seen, motion.steps))

    def start(self, latents: Tensor, motion: HandMotion) -> Context:
        """What all candidates of a plan share, from observed latents (C, P, D) and the motion (C - 1) between them."""
        return start(self.predictor, latents[None], motion.expand(1), constant=True)

    def rollout(self, context: Context, motion: HandMotion, max_batch: int | None = None) -> Tensor:
        """Latents (N, T, P, D) that N candidates' motion (N, T) leads to from `context`.

        motion.pixels[:, 0] is the last observed frame. Equal to the plain window-by-window definition up to rounding.
        Differentiable in `motion`; under `torch.no_grad()` candidates share the context's keys. max_batch: candidates
        at a time.
        """
        return rollout(self.predictor, context, motion, max_batch)

    def keypoint_logits(self, latents: Tensor) -> Tensor:
        """Heatmap logits (..., 12, h, w) of latents (..., P, D), for losses."""
        return self.keypoint_head(latents)

    def keypoints(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Tracked keypoints (..., 12, 2) [u, v] in image pixels and confidences (..., 12) in [0, 1]."""
        return self.keypoint_head.read(self.keypoint_head(latents))

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part (the values of a pca encoder are counted as its parameters)."""
        counts = {"encoder": sum(value.numel() for value in [*self.encoder.parameters(), *self.encoder.buffers()])}
        heads = [each for each in ("points", "text") if getattr(self.config, each)]
        for name in ("predictor", "keypoint_head", *heads):
            counts[name] = sum(value.numel() for value in self.get_submodule(name).parameters())
        return {**counts, "total": sum(counts.values())}

    def saved_weights(self) -> dict[str, Tensor]:
        """The state that a checkpoint holds. Encoders from `transformers` are named in the config, not copied."""
        weights = self.state_dict()
        if self.config.encoder.kind != "transformers":
            return weights
        return {key: value for key, value in weights.items() if not key.startswith("encoder.")}


register(Kind(DEFAULT_KIND, DexWM, DexWMConfig, PRESETS))
