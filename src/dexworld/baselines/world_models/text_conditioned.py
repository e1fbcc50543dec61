"""A model that is told the episode's sentence in place of actions.

It stands for the text-conditioned Cosmos-Predict2 of DexWM's comparison (section 4.3), trained as DexWM is: same
network, data and losses. The sentence enters by AdaLN, the same in every step. An episode without one tells zeros.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.baselines.told_otherwise import ToldOtherwiseConfig, presets
from dexworld.models.checkpoint import lasting_place
from dexworld.models.dexwm import DexWM
from dexworld.models.sentences import UNIVERSAL, SentenceEncoder, sentence_encoder
from dexworld.models.world_model import Kind, register
from dexworld.track import Track

UNSCALED = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class TextConditionedConfig(ToldOtherwiseConfig):
    """DexWM's sizes with a sentence encoder, which is named and never trained.

    sentences: `universal` (the package of the extra `text`), `hashed` (no package), or a folder or hub id of a T5 or
    CLIP. width: numbers of its vectors, which are scaled to a root mean square of 1.
    """

    action_scale: tuple[float, float, float] = UNSCALED
    sentences: str = UNIVERSAL
    width: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 6 or self.action_scale != UNSCALED:
            found = f"{self.width} and {self.action_scale}"
            raise ValueError(f"a sentence has 6 numbers or more, and no scale, not {found}")

    @property
    def action_dim(self) -> int:
        """A sentence's vector."""
        return self.width

    def with_sentences(self, name: str) -> "TextConditionedConfig":
        """The same with another sentence encoder, which is loaded for its width."""
        place = lasting_place(name)
        return self if place == self.sentences else replace(self, sentences=place, width=sentence_encoder(place).width)


class TextConditioned(DexWM):
    """DexWM that is told a sentence."""

    config_type, kind = TextConditionedConfig, "text"
    columns = ("keypoints_world", "keypoints_valid", "keypoints_shown", "task_utf8")

    @cached_property
    def sentences(self) -> SentenceEncoder:
        """The sentence encoder, loaded when it is first asked for."""
        return sentence_encoder(self.config.sentences)

    @cached_property
    def _known(self) -> dict[bytes, Tensor]:
        return {b"": torch.zeros(self.config.width)}

    def condition(self, track: Track) -> HandMotion:
        """T transitions (..., T) that all say the sentence, (..., T, 1, width)."""
        motion = super().condition(track)
        rows = track.task_utf8[..., 0, :]
        rows = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        texts = [bytes(row).rstrip(b"\0") for row in rows.reshape(-1, rows.shape[-1])]
        if new := sorted(set(texts) - self._known.keys()):
            encoded = self.sentences.encode([text.decode(errors="ignore") for text in new])
            vectors = F.normalize(torch.as_tensor(encoded, dtype=torch.float32), dim=-1) * self.config.width**0.5
            self._known.update(zip(new, vectors, strict=True))
        told = torch.stack([self._known[text] for text in texts]).to(motion.deltas)
        told = told.reshape(*rows.shape[:-1], 1, 1, self.config.width)
        return replace(motion, deltas=told.expand(*motion.deltas.shape[:-2], 1, -1))

    def unroll(self, latents: Tensor, motion: HandMotion) -> Tensor:
        """As DexWM's, the sentence told with each copy of frame 0 that fills the context, as in training."""
        missing = max(0, self.config.num_context - latents.shape[1])
        motion, sentence = motion.pad_left(missing), motion.deltas[:, -1:]
        motion = replace(motion, deltas=sentence.expand_as(motion.deltas))
        return super().unroll(torch.cat([latents[:, :1]] * missing + [latents], dim=1), motion)

    def start(self, latents: Tensor, motion: HandMotion) -> Tensor:  # type: ignore[override]
        """The observed latents (C, P, D): candidates may be told different sentences, so they share nothing else."""
        return latents

    def rollout(self, context: Tensor, motion: HandMotion, max_batch: int | None = None) -> Tensor:  # type: ignore[override]
        """As DexWM's, (N, T, P, D)."""
        total, size = motion.deltas.shape[0], max_batch or motion.deltas.shape[0]
        whole, latents = motion.pad_left(context.shape[0] - 1), context.expand(total, -1, -1, -1)
        parts = (slice(first, first + size) for first in range(0, total, size))
        return torch.cat([self.unroll(latents[part], whole.index(part)) for part in parts])


register(
    Kind(
        TextConditioned.kind,
        TextConditioned,
        TextConditionedConfig,
        presets(TextConditioned.kind, TextConditionedConfig, action_scale=UNSCALED),
    )
)
