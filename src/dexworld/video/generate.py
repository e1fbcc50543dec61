"""Trained models as methods: clips in, videos of what the hands do out (see `references.VideoMethod`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.video.clip import TripletClip
from dexworld.video.conditions import Conditions
from dexworld.video.latents import check_shape
from dexworld.video.model import DWM
from dexworld.video.sampler import SampleConfig, sample

# Where the generated change is smaller than this (mean over 3 x 3 pixels, of 1), the static video's own pixels show.
DETAIL_THRESHOLD = 0.06


@dataclass(frozen=True)
class GenerateConfig:
    """How videos are made. Raises ValueError naming the field that makes no sense.

    sampling: steps, guidance, where to start.
    detail: `kept` shows the static video's own pixels where the generated latents change nothing, so a codec's
        blur touches only what the hands change (our reading of V = static + change); `codec` shows what was decoded.
    hands: False blanks the hands: pure navigation.
    batch: clips that are sampled at a time.
    """

    sampling: SampleConfig = field(default_factory=SampleConfig)
    detail: Literal["kept", "codec"] = "kept"
    hands: bool = True
    batch: int = 8

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; at least one clip is sampled at a time")
        if self.detail not in ("kept", "codec"):
            raise ValueError(f"detail is {self.detail!r}; choose 'kept' or 'codec'")


@dataclass(frozen=True)
class Generator:
    """A trained video model as a `VideoMethod`. texts: prompt embeddings (L, D) by clip name, for models with text."""

    model: DWM
    config: GenerateConfig = field(default_factory=GenerateConfig)
    name: str = "dwm"
    texts: dict[str, Tensor] | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """What the model was trained on."""
        return self.model.provenance

    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> list[np.ndarray]:
        """A video (F, H, W, 3) uint8 for each clip, drawn from its seed.

        Raises ValueError naming a clip of another shape, or without what the condition needs.
        """
        if len(clips) != len(seeds):
            raise ValueError(f"{len(clips)} clips need as many seeds, not {len(seeds)}")
        videos: list[np.ndarray] = []
        self.model.eval()
        for start in range(0, len(clips), self.config.batch):
            part = clips[start : start + self.config.batch]
            videos += list(self._batch(part, seeds[start : start + self.config.batch]))
        return videos

    @torch.no_grad()
    def _batch(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> np.ndarray:
        model = self.model
        conditions = self.conditions(clips)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        latents = sample(model, conditions, self.config.sampling, generators)
        made = model.decode(latents).cpu()
        if self.config.detail == "codec" or model.config.condition == "control":
            return made.numpy()
        static = torch.from_numpy(np.stack([clip.static for clip in clips]))
        return with_static_detail(made, model.decode(conditions.static).cpu(), static).numpy()

    def conditions(self, clips: Sequence[TripletClip]) -> Conditions:
        """What the model is told about the clips."""
        model = self.model
        condition = model.config.condition
        for clip in clips:
            check_shape(clip.static, model, clip.name)
            if condition.startswith("adaln") and clip.track is None:
                raise ValueError(f"{clip.name} has no hand_motions file, which condition {condition!r} needs")
        texts = None
        if self.texts is not None:
            texts = torch.stack([self.texts[clip.name] for clip in clips]).to(model.device)
        vectors = [clip.track.camera_vectors() for clip in clips if clip.track is not None]
        conditions = model.conditions_of(
            np.stack([clip.static for clip in clips]),
            np.stack([clip.hands for clip in clips]),
            first_frames=np.stack([clip.interaction[:1] for clip in clips]) if condition == "control" else None,
            hand_vectors=np.stack(vectors) if condition.startswith("adaln") else None,
            text=texts,
        )
        return conditions if self.config.hands else conditions.without_hands()


def with_static_detail(made: Tensor, decoded_static: Tensor, static: Tensor) -> Tensor:
    """The generated video, with the static video's own pixels where the two agree; all (B, F, H, W, 3) uint8.

    decoded_static: the static video through the same codec. What the codec loses of the static video is given back in
    proportion to how little the generated video differs from `decoded_static` around a pixel.
    """
    made_, decoded, static_ = (each.float() / 255 for each in (made, decoded_static, static))
    change = (made_ - decoded).abs().amax(dim=-1).flatten(0, 1)[:, None]  # (B F, 1, H, W)
    change = functional.avg_pool2d(change, 3, stride=1, padding=1, count_include_pad=False)
    share = (1 - change / DETAIL_THRESHOLD).clamp(0, 1).view(*made.shape[:-1], 1)
    return ((made_ + share * (static_ - decoded)) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class SDEdit:
    """Video-to-video without hands: the static video noised to `strength` and denoised by a model that knows no scene.

    The paper's CVX SDEdit baseline, with our inpainting pre-training in place of CogVideoX: everything is masked, so
    the only thing that the model sees of the scene is what is left of it in the noise (Meng et al., ICLR 2022).
    """

    model: DWM
    strength: float = 0.6
    steps: int = 10
    batch: int = 8

    def __post_init__(self) -> None:
        if self.model.config.condition != "none":
            raise ValueError(
                f"SDEdit needs a model without hands, such as an inpainting pre-training; this one has the condition "
                f"{self.model.config.condition!r}"
            )

    @property
    def name(self) -> str:
        """With its strength."""
        return f"sdedit_{self.strength:g}"

    @property
    def provenance(self) -> dict[str, Any]:
        """What the model was trained on."""
        return self.model.provenance

    @torch.no_grad()
    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> list[np.ndarray]:
        """A video (F, H, W, 3) uint8 for each clip, drawn from its seed."""
        videos: list[np.ndarray] = []
        config = SampleConfig(steps=self.steps, start="static", strength=self.strength)
        for start in range(0, len(clips), self.batch):
            part = clips[start : start + self.batch]
            static = self.model.encode(np.stack([clip.static for clip in part]))
            unknown = torch.zeros(
                len(part), static.shape[1], self.model.config.backbone.mask_channels, *static.shape[3:]
            )
            conditions = Conditions(torch.zeros_like(static), unknown.to(static))
            generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[start : start + self.batch]]
            videos += list(
                self.model.decode(sample(self.model, conditions, config, generators, begin=static)).cpu().numpy()
            )
        return videos
