"""DWM: a video diffusion model that is shown a still world and moving hands, and makes what the hands do to it.

B batch, F pixel frames, f latent frames, C latent channels, h x w latent cells.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dexworld.models.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    Pretrained,
    config_of,
    lasting_place,
    located,
    read_settings,
    write_card,
)
from dexworld.models.reference import checkpoint_path
from dexworld.training.distributed import local_device
from dexworld.training.fit import without_folders
from dexworld.video.clips.clip import ClipShape, TripletClip, camera_vectors
from dexworld.video.model.backbone import Backbone
from dexworld.video.model.codecs import build_codec
from dexworld.video.model.conditions import Conditions, known_mask, video_of
from dexworld.video.model.lora import (
    ADAPTER_FILE,
    ADAPTER_FILES,
    has_lora,
    is_adapter,
    load_adapter,
    read_adapter,
    save_adapter,
)
from dexworld.video.model.noise import NoiseProcess, diffusion_process, flow_process
from dexworld.video.model.patch_embedding import widen_patch_embedding
from dexworld.video.model.published_weights import (
    check_expressible,
    load_transformer,
    published_config,
    widen,
)
from dexworld.video.model.video_config import HANDS_SHOWN, Condition, DWMConfig, Prediction

CODEC_PREFIX = "codec."


class DWM(Pretrained):
    """Frozen codec and a denoising transformer. A new one is random, with a `pca` codec that still has to be fitted."""

    config_type, divisors = DWMConfig, (f"{CODEC_PREFIX}scale",)

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
        self.backbone = backbone if backbone is not None else Backbone(config)

    @property
    def device(self) -> torch.device:
        """Where the transformer's weights are."""
        return next(self.backbone.parameters()).device

    @property
    def process(self) -> NoiseProcess:
        """The noise that this backbone is trained to remove."""
        settings = self.config.backbone
        if settings.kind == "cogvideox":
            return diffusion_process(settings.snr_shift)
        return flow_process(settings.flow_shift)

    def encode(self, video: Tensor | np.ndarray) -> Tensor:
        """Latents (B, f, C, h, w) of video (B, F, H, W, 3) uint8. Raises ValueError for another clip shape."""
        clip = self.config.clip
        video = torch.as_tensor(video)
        if tuple(video.shape[1:]) != (clip.frames, clip.height, clip.width, 3):
            wanted = f"(B, {clip.frames}, {clip.height}, {clip.width}, 3)"
            raise ValueError(f"this model takes clips {wanted}, not {tuple(video.shape)} (`dexworld video prepare`)")
        return self.codec.encode(video.to(self.device))

    def decode(self, latents: Tensor) -> Tensor:
        """Video (B, F, H, W, 3) uint8 of latents (B, f, C, h, w)."""
        return self.codec.decode(latents)

    def conditions(
        self,
        latents: Callable[[str], Tensor],
        vectors: Sequence[tuple[str, Tensor | None]],
        text: Tensor | None = None,
        blank: Tensor | None = None,
    ) -> Conditions:
        """What this model's condition looks at, out of everything that is known about B clips.

        latents: of the clips' videos (B, f, C, h, w) by kind, see `video_of`. vectors: name and keypoints (F, 128) of
        each clip; one may come twice. blank: latents (1, f, C, h, w) of an empty hand video, encoded here when not
        given. Raises ValueError naming a clip without keypoints for a condition that needs them.
        """
        condition = self.config.condition
        static, shown = latents("first_frame" if condition == "control" else "static"), HANDS_SHOWN.get(condition)
        mask = known_mask(static, self.config.backbone.mask_channels, self.codec.mask_value)
        if condition == "control":
            mask[:, 1:] = 0.0  # only the first frame is known
        hand_vectors = None
        if condition.startswith("adaln"):
            for name, each in vectors:
                if each is None:
                    raise ValueError(f"{name} has no hand_motions file, which condition {condition!r} needs")
            hand_vectors = torch.stack([each for _, each in vectors if each is not None]).to(static)
        if shown is None:
            return Conditions(static, mask, None, hand_vectors, text)
        reference = latents("painted") if self.config.reference else None
        blank = self.blank_hands() if blank is None else blank
        return Conditions(static, mask, latents(shown), None, text, blank, reference)

    def conditions_of(self, clips: Sequence[TripletClip], text: Tensor | None = None) -> Conditions:
        """The same of clips that are encoded here."""
        vectors = [
            (clip.name, None if clip.track is None else torch.from_numpy(camera_vectors(clip.track))) for clip in clips
        ]
        return self.conditions(
            lambda kind: self.encode(np.stack([video_of(clip, kind) for clip in clips])), vectors, text
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

    def saved_weights(self) -> dict[str, Tensor]:
        """The transformer's state, and a pca codec's with it."""
        weights = dict(self.backbone.state_dict())
        if self.config.codec.kind == "pca":
            weights |= {f"{CODEC_PREFIX}{name}": value for name, value in self.codec.state_dict().items()}
        return weights

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take in what `saved_weights` gave."""
        codec = {name: weights.pop(name) for name in list(weights) if name.startswith(CODEC_PREFIX)}
        self.backbone.load_state_dict(weights)
        if codec:
            self.codec.load_state_dict({name.removeprefix(CODEC_PREFIX): value for name, value in codec.items()})

    def save_pretrained(
        self, folder: str | Path, provenance: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """As `Pretrained.save_pretrained`.

        With LoRA adapters only they and the patch embedding are written, beside the name of their base (`lora.py`).
        provenance: by default the model's own. Raises ValueError for adapters on a base that nothing names.
        """
        base, own = self.provenance.get("base"), self.provenance
        provenance = dict(own if provenance is None else provenance)
        if provenance.get("base"):  # a model card shows it; an adapter's own record has the whole path
            provenance["base"] = without_folders(provenance["base"])
        if not has_lora(self.backbone.transformer):
            super().save_pretrained(folder, provenance, dtype)
            self.provenance = own
            return
        if not base:
            raise ValueError("an adapter is saved without its base, which is unknown; set provenance['base']")
        about = {"model": asdict(self.config), "provenance": provenance}
        save_adapter(self.backbone.transformer, folder, base=base, about=about)
        write_card(Path(folder), self.config, provenance)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path, revision: str | None = None) -> "DWM":
        """As `Pretrained.from_pretrained`; an adapter is loaded onto its base (`load_model`)."""
        folder = located(folder_or_hub_id, [CONFIG_FILE, WEIGHTS_FILE, *ADAPTER_FILES], revision)
        model = load_model(folder) if is_adapter(folder) else super().from_pretrained(folder)
        model.source = str(folder_or_hub_id)
        return model


def load_base(
    source: str | Path,
    clip: ClipShape | None = None,
    condition: Condition = "mesh",
    prediction: Prediction = "velocity",
    codec_source: str | None = None,
    reference: bool = False,
) -> DWM:
    """A world model that starts from the transformer and the VAE of a published video model, a folder or hub id.

    clip: by default the size of the checkpoint's own training clips. codec_source: another codec than its own. Raises
    CheckpointError for a folder that can't be used, ValueError for a condition that the backbone doesn't take.
    """
    source = lasting_place(source)
    transformer = load_transformer(source)
    codec = lasting_place(codec_source or source)
    config = replace(published_config(transformer, source, clip, condition, prediction, codec), reference=reference)
    check_expressible(transformer, config, str(source))
    widen(transformer, config, str(source))
    return DWM(config, None, Backbone(config, transformer), {"base": source})


def started_from(
    base: DWM, condition: Condition, prediction: Prediction | None = None, reference: bool = False
) -> tuple[DWM, dict[str, Any]]:
    """A model with further conditions that computes what `base` computes, and the provenance of `base`.

    The patch embedding is widened by zero columns, AdaLN and control layers end in zeros. reference: it is to see the
    hands in the colour of skin; always so where the base does. Raises ValueError for another prediction than the
    base's, or a base with another condition.
    """
    if prediction not in (None, base.config.prediction):
        own = f"the initial model predicts {base.config.prediction!r}"
        raise ValueError(f"{own}; its weights can't start {prediction!r}")
    config = replace(base.config, condition=condition, reference=reference or base.config.reference)
    if config == base.config:
        return base, base.provenance
    own = base.config.condition
    if own not in ("none", condition):
        only = f"only a model without hands ('none') can be given the condition {condition!r}"
        raise ValueError(f"the initial model has the condition {own!r}; {only}")
    transformer = widen_patch_embedding(copy.deepcopy(base.backbone.transformer), config.in_channels)
    backbone = Backbone(config, transformer)
    if backbone.skip is not None and base.backbone.skip is not None:
        backbone.skip.copy_from(base.backbone.skip)
    return DWM(config, codec=base.codec, backbone=backbone), base.provenance


def load_model(folder_or_hub_id: str | Path, base: str | Path | None = None) -> DWM:
    """Read what `DWM.save_pretrained` wrote, or an adapter that the DWM release published. Raises CheckpointError.

    base: where the adapter's base lies now; needed for the release's, which doesn't name it.
    """
    if not is_adapter(folder_or_hub_id):
        return DWM.from_pretrained(folder_or_hub_id)
    saved = read_adapter(folder_or_hub_id)
    source = base or saved.get("base")
    if not source:
        raise CheckpointError(f"{folder_or_hub_id} doesn't name the checkpoint it was trained on; give it as `base`")
    source = lasting_place(source)
    if Path(source).is_absolute() and not Path(source).is_dir():
        gone = f"{folder_or_hub_id} is an adapter of {source}, which is not there"
        raise CheckpointError(f"{gone}; put it back, or name its new place in {ADAPTER_FILE}")
    if "model" in saved:
        config = config_of(DWMConfig, saved["model"], f"{folder_or_hub_id}: model")
        if _is_ours(source, saved):
            base_model = DWM.from_pretrained(checkpoint_path(str(source)))
            model = started_from(base_model, config.condition, reference=config.reference)[0]
            if replace(model.config, codec=config.codec) != config:
                raise CheckpointError(f"{source} is not the model that {folder_or_hub_id} was trained on: sizes differ")
        else:
            # The VAE may have moved with its base.
            vae = None if config.codec.source == saved.get("base") else config.codec.source
            own = config.clip, config.condition, config.prediction, vae, config.reference
            model = load_base(source, *own)
            model.config = model.backbone.config = replace(config, codec=model.config.codec)
    else:
        model = load_base(source)
    model.backbone.requires_grad_(False)  # what the adapter doesn't hold is not trained further
    load_adapter(model.backbone.transformer, folder_or_hub_id)
    model.provenance, model.source = {**saved.get("provenance", {}), "base": source}, str(folder_or_hub_id)
    return model


def _is_ours(source: str | Path, saved: dict[str, Any]) -> bool:
    """Whether an adapter's base is a model of ours, not a published one in its own layout."""
    if is_adapter(source):
        return True
    path = Path(checkpoint_path(str(source)))
    if path.is_dir():
        return (path / CONFIG_FILE).is_file() and "model" in read_settings(path / CONFIG_FILE)
    return bool(saved.get("provenance", {}).get("initial"))


def load_video_model(path: str | Path, device: str = "auto") -> DWM:
    """A trained model from its folder, its hub id or the name of a shipped one, on `device` and in evaluation mode."""
    where = local_device(device)  # checked before anything is loaded
    return DWM.from_pretrained(checkpoint_path(str(path))).to(where).eval()
