"""What the denoiser is told besides the noisy latents, and in which order the channels stand.

Input channels, as in the DWM release: [noisy C, mask m, static C, hands C]. The first three are exactly the layout of
CogVideoX-Fun's (m = 1) and Wan-Fun's (m = 4) inpainting models, which is why one can start from their weights. Hands
in the colour of skin (ours) add C channels at the end.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.video.clips.clip import TIME_FACTOR, TripletClip
from dexworld.video.clips.hand_video import hand_silhouette, painted_hands, repeated_first_frame


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch. Latents are (B, f, C, h, w).

    static: of the static video, or of the masked video when inpainting. mask: (B, f, m, h, w), `codec.mask_value` where
    pixels are known and 0 where they are to be made. hands: of the hand video or its silhouette, for models that take
    it. hand_vectors: (B, F, 128) keypoints in the camera's frame, for the AdaLN conditions. text: (B, L, D) embeddings;
    None stands for zeros. blank: latents (1, f, C, h, w) of an empty hand video, for clips without hands. reference: of
    the hand video in the colour of skin, blank where that is unknown, for models that take it.
    """

    static: Tensor
    mask: Tensor
    hands: Tensor | None = None
    hand_vectors: Tensor | None = None
    text: Tensor | None = None
    blank: Tensor | None = None
    reference: Tensor | None = None

    def __len__(self) -> int:
        return len(self.static)

    def to(self, device: torch.device | str) -> "Conditions":
        """The same on another device."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in given.items() if value is not None})

    def without_hands(self, rows: Tensor | None = None) -> "Conditions":
        """The same with the hands blanked, in rows (B,) bool or everywhere."""
        rows = torch.ones(len(self), dtype=torch.bool, device=self.static.device) if rows is None else rows
        vectors = self.hand_vectors
        if vectors is not None:
            vectors = torch.where(rows.view(-1, 1, 1), torch.zeros_like(vectors), vectors)
        hands = None if self.hands is None else self._blanked(self.hands, rows)
        return replace(self, hands=hands, hand_vectors=vectors).without_reference(rows)

    def without_text(self, rows: Tensor | None = None) -> "Conditions":
        """The same with the text embeddings zeroed, in the rows (B,) bool or everywhere."""
        if self.text is None:
            return self
        zeros = torch.zeros_like(self.text)
        return replace(self, text=zeros if rows is None else torch.where(rows.view(-1, 1, 1), zeros, self.text))

    def without_reference(self, rows: Tensor) -> "Conditions":
        """The same without a reference in the rows (B,) bool."""
        if self.reference is None:
            return self
        return replace(self, reference=self._blanked(self.reference, rows))

    def _blanked(self, hands: Tensor, rows: Tensor) -> Tensor:
        if self.blank is None:
            raise ValueError("hands can't be blanked: these conditions hold no latents of an empty hand video")
        return torch.where(rows.view(-1, 1, 1, 1, 1), self.blank.to(hands), hands)

    def channels(self, noisy: Tensor, expected: int, hands: bool = True) -> Tensor:
        """The transformer's input (B, f, in_channels, h, w). ValueError naming parts that aren't `expected` in sum."""
        parts = {"noisy": noisy, "mask": self.mask, "static": self.static}
        if self.hands is not None and hands:
            parts["hands"] = self.hands
        if self.reference is not None:
            parts["reference"] = self.reference
        joined = torch.cat([each.to(noisy) for each in parts.values()], dim=2)
        if joined.shape[2] != expected:
            sizes = " + ".join(f"{name} {each.shape[2]}" for name, each in parts.items())
            raise ValueError(f"the conditions give {sizes} = {joined.shape[2]} channels, this model takes {expected}")
        return joined


def video_of(clip: TripletClip, kind: str) -> np.ndarray:
    """A clip's video (F, H, W, 3) uint8 by the name of its latents.

    interaction, static, hands: the clip's own. silhouette: white hands on black. first_frame: the interaction's first
    frame, repeated. painted: the hands in the colour of skin, black where that is unknown.
    """
    if kind == "silhouette":
        return hand_silhouette(clip.hands).numpy()
    if kind == "painted":
        return painted_hands(clip.hands, clip.skin)
    return repeated_first_frame(clip.interaction[None])[0] if kind == "first_frame" else getattr(clip, kind)


def latent_mask(unknown: Tensor, channels: int, size: tuple[int, int], value: float) -> Tensor:
    """The model's mask (B, f, m, h, w) of a pixel mask (B, F, H, W), 1 where pixels are to be made.

    The model sees what is known, 1 - mask, times `value`. With one channel (CogVideoX-Fun) frame 0 is resized by itself
    and the others in time and space together. With four (Wan-Fun) each channel is one pixel frame of the latent frame's
    four; frame 0 fills all four of its own.
    """
    batch, frames = unknown.shape[:2]
    known = 1.0 - unknown.float()
    if channels == 1:
        latent_frames = (frames - 1) // TIME_FACTOR + 1
        options: dict[str, Any] = {"mode": "trilinear", "align_corners": False}
        first = functional.interpolate(known[:, None, :1], size=(1, *size), **options)
        if frames == 1:
            return (first * value).transpose(1, 2)
        rest = functional.interpolate(known[:, None, 1:], size=(latent_frames - 1, *size), **options)
        return (torch.cat([first, rest], dim=2) * value).transpose(1, 2)
    if channels != TIME_FACTOR:
        raise ValueError(f"a mask has 1 or {TIME_FACTOR} channels, not {channels}")
    small = functional.interpolate(known, size=size, mode="nearest")
    folded = torch.cat([small[:, :1].expand(-1, TIME_FACTOR, -1, -1), small[:, 1:]], dim=1)
    return folded.reshape(batch, -1, TIME_FACTOR, *size) * value


def known_mask(like: Tensor, channels: int, value: float) -> Tensor:
    """The mask (B, f, m, h, w) that says "everything is known", for latents `like` (B, f, C, h, w): DWM's constant."""
    batch, frames, _, height, width = like.shape
    return torch.full((batch, frames, channels, height, width), value, device=like.device)
