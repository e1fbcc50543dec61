"""How well videos fit a sentence: the cosine of X-CLIP's video and text embeddings, with weights that the user gives.

DWM (section 4.4) scores a text goal by the cosine of VideoCLIP's embeddings without naming the network. X-CLIP (Ni et
al., "Expanding language-image pretrained models for general video recognition", ECCV 2022) is the network of that kind
in `transformers`. There is no weight-free text score: without weights there is no figure.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The normalisation that X-CLIP's weights were trained with (its model cards).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TextScorer:
    """X-CLIP from a local folder or a Hugging Face id, with its tokenizer. Raises OSError when either can't be read."""

    def __init__(self, weights: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import AutoTokenizer, XCLIPModel  # imported late: it costs seconds

        self.model: Any = XCLIPModel.from_pretrained(str(weights))  # transformers' attributes have no types
        self.model = self.model.eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(str(weights))
        self.device = torch.device(device)
        vision = self.model.config.vision_config
        self.frames, self.side = int(vision.num_frames), int(vision.image_size)

    @torch.no_grad()
    def __call__(self, videos: Sequence[np.ndarray], text: str) -> np.ndarray:
        """Cosines (N,) float64 of N videos (F, H, W, 3) uint8 with the sentence; higher fits better.

        Raises ValueError for an empty sentence.
        """
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
        """(frames, 3, side, side) float32 of a video (F, H, W, 3): evenly spread frames, whole picture, normalised.

        The picture is squeezed to a square, not cropped: the hand may act at its border.
        """
        chosen = np.linspace(0, len(video) - 1, self.frames).round().astype(int)
        planes = torch.from_numpy(video[chosen]).permute(0, 3, 1, 2).float() / 255.0
        planes = F.interpolate(planes, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return (planes - mean) / std
