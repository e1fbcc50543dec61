"""DWM: a video diffusion model that is shown a still world and moving hands, and makes what the hands do to it.

B batch, F pixel frames, f latent frames, C latent channels, h x w latent cells.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dexworld.models.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from dexworld.video.backbone import Backbone
from dexworld.video.codecs import Codec, build_codec
from dexworld.video.conditions import Conditions, hand_silhouette, hands_over, known_mask, repeated_first_frame
from dexworld.video.config import CONCATENATED, DWMConfig
from dexworld.video.lora import has_lora, is_adapter, save_adapter
from dexworld.video.noise import NoiseProcess, diffusion_process, flow_process

CODEC_PREFIX = "codec."


class DWM(nn.Module):
    """Frozen codec and a denoising transformer. `provenance` says where the weights come from.

    A new one has a random transformer (or `backbone`) and, for `pca`, a codec that still has to be fitted.
    """

    def __init__(
        self,
        config: DWMConfig,
        codec: nn.Module | None = None,
        backbone: Backbone | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = dict(provenance or {})
        self.codec: Any = (codec if codec is not None else build_codec(config.codec)).requires_grad_(False)
        if not isinstance(self.codec, Codec):
            raise TypeError(f"{type(codec).__name__} is no codec: it needs channels, mask_value, encode and decode")
        self.backbone = backbone if backbone is not None else Backbone(config)

    @property
    def device(self) -> torch.device:
        """Where the transformer's weights are."""
        return next(self.backbone.parameters()).device

    @property
    def process(self) -> NoiseProcess:
        """The noise that this backbone is trained to remove."""
        settings = self.config.backbone
        return (
            diffusion_process(settings.snr_shift) if settings.kind == "cogvideox" else flow_process(settings.flow_shift)
        )

    def encode(self, video: Tensor | np.ndarray) -> Tensor:
        """Latents (B, f, C, h, w) of video (B, F, H, W, 3) uint8. Raises ValueError for another clip shape."""
        clip = self.config.clip
        video = torch.as_tensor(video)
        if tuple(video.shape[1:]) != (clip.frames, clip.height, clip.width, 3):
            raise ValueError(
                f"this model takes clips (B, {clip.frames}, {clip.height}, {clip.width}, 3), not {tuple(video.shape)}; "
                "bring them to its frame count and size first (`dexworld video prepare`)"
            )
        return self.codec.encode(video.to(self.device))

    def decode(self, latents: Tensor) -> Tensor:
        """Video (B, F, H, W, 3) uint8 of latents (B, f, C, h, w)."""
        return self.codec.decode(latents)

    def conditions(
        self,
        static: Tensor,
        hands: Tensor | None = None,
        silhouette: Tensor | None = None,
        overlay: Tensor | None = None,
        hand_vectors: Tensor | None = None,
        text: Tensor | None = None,
        blank: Tensor | None = None,
    ) -> Conditions:
        """What this model's condition looks at, out of everything that is known about clips.

        static, hands, silhouette, overlay: latents (B, f, C, h, w); for `control`, static is that of the repeated first
            frame.
        blank: latents (1, f, C, h, w) of an empty hand video; encoded here when not given. Raises ValueError naming
        what is missing.
        """
        condition, channels = self.config.condition, self.config.backbone.mask_channels
        mask = known_mask(static, channels, self.codec.mask_value)
        given = {
            "overlay": overlay,
            "mesh": hands,
            "mask": silhouette,
            "control": silhouette,
            "adaln-global": hand_vectors,
            "adaln-frame": hand_vectors,
        }
        if condition != "none" and given[condition] is None:
            raise ValueError(f"condition {condition!r} needs the clip's hands, but none were given")
        if condition == "overlay":
            blank = static  # without hands nothing is drawn over it
        elif condition in ("mesh", "mask", "control") and blank is None:
            blank = self.blank_hands()
        if condition == "control":
            mask[:, 1:] = 0.0  # only the first frame is known
        return Conditions(
            static=static,
            mask=mask,
            hands=given[condition] if condition in (*CONCATENATED, "control") else None,
            hand_vectors=hand_vectors if condition.startswith("adaln") else None,
            text=text,
            blank=blank if condition in (*CONCATENATED, "control") else None,
        )

    def conditions_of(
        self,
        static: np.ndarray,
        hands: np.ndarray,
        first_frames: np.ndarray | None = None,
        hand_vectors: np.ndarray | None = None,
        text: Tensor | None = None,
    ) -> Conditions:
        """Conditions of clips: static and hand videos (B, F, H, W, 3) uint8, hand vectors (B, F, 128).

        first_frames: (B, 1 or F, H, W, 3), the interaction's first frame, for `control` only.
        """
        condition = self.config.condition
        if condition == "control":
            if first_frames is None:
                raise ValueError("condition 'control' starts from the interaction's first frame, and none was given")
            repeats = self.config.clip.frames if first_frames.shape[1] == 1 else 1
            static = repeated_first_frame(np.repeat(first_frames, repeats, axis=1))
        vectors = None if hand_vectors is None else torch.as_tensor(hand_vectors, dtype=torch.float32)
        return self.conditions(
            self.encode(static),
            hands=self.encode(hands) if condition == "mesh" else None,
            overlay=self.encode(hands_over(static, hands)) if condition == "overlay" else None,
            silhouette=self.encode(hand_silhouette(hands)) if condition in ("mask", "control") else None,
            hand_vectors=None if vectors is None else vectors.to(self.device),
            text=text,
        )

    def blank_hands(self) -> Tensor:
        """Latents (1, f, C, h, w) of a hand video without hands."""
        clip = self.config.clip
        return self.encode(torch.zeros(1, clip.frames, clip.height, clip.width, 3, dtype=torch.uint8))

    def denoise(self, noisy: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """The clean latents (B, f, C, h, w) that the model expects behind `noisy` at timesteps (B,), 0 .. 999."""
        control = conditions.hands if self.config.condition == "control" else None
        channels = conditions.channels(noisy, self.config.in_channels, hands=control is None)
        answer = self.backbone(channels, timestep, conditions.text, conditions.hand_vectors, control)
        if self.config.prediction == "residual":
            return conditions.static.to(answer) + answer
        return self.process.clean(noisy, answer, timestep)

    def save_pretrained(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write `config.json` and `model.safetensors`: the transformer, and a pca codec with it.

        With LoRA adapters only they and the patch embedding are written, beside the name of their base (`lora.py`).
        provenance: by default the model's own. Raises ValueError for adapters on a base that nothing names.
        """
        provenance = self.provenance if provenance is None else provenance
        if has_lora(self.backbone.transformer):
            base = self.provenance.get("base")
            if not base:
                raise ValueError(
                    "an adapter is saved without its base, and this model doesn't say which; set provenance['base']"
                )
            about = {"model": asdict(self.config), "provenance": provenance}
            save_adapter(self.backbone.transformer, folder, base=base, about=about)
            return
        weights = dict(self.backbone.state_dict())
        if self.config.codec.kind == "pca":
            weights |= {f"{CODEC_PREFIX}{name}": value for name, value in self.codec.state_dict().items()}
        write_checkpoint(folder, self.config, weights, provenance)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path) -> "DWM":
        """Read what `save_pretrained` wrote. Raises CheckpointError naming what is missing or doesn't fit."""
        if is_adapter(folder_or_hub_id):
            from dexworld.video.pretrained import load_model

            return load_model(folder_or_hub_id)
        config, weights, provenance = read_checkpoint(folder_or_hub_id, DWMConfig)
        model = cls(config, provenance=provenance)
        codec = {name: weights.pop(name) for name in list(weights) if name.startswith(CODEC_PREFIX)}
        load_exactly(model.backbone, weights, f"{folder_or_hub_id}")
        if config.codec.kind == "pca":
            codec = {name.removeprefix(CODEC_PREFIX): value for name, value in codec.items()}
            load_exactly(model.codec, codec, f"{folder_or_hub_id} (codec)")
        return model


def load_exactly(module: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Load weights that must match the module name by name, shape by shape. Raises CheckpointError naming misfits."""
    wanted = module.state_dict()
    complaints = [f"{name} is missing" for name in wanted if name not in weights]
    complaints += [f"{name} is unknown" for name in weights if name not in wanted]
    complaints += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    if complaints:
        more = f" and {len(complaints) - 5} more" if len(complaints) > 5 else ""
        raise CheckpointError(f"{where} doesn't fit the model: {'; '.join(complaints[:5])}{more}")
    module.load_state_dict(weights)
