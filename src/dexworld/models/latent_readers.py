"""What reads latents beside the world model itself: pixel decoders and keypoint evaluators, and which one is chosen.

Planning is not concerned: what it compares are the encoder's own pictures, whatever draws a page.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dexworld.models.decoder import PixelDecoder
from dexworld.models.encoders import Encoder
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.latent_space import OtherEncoderError
from dexworld.models.reference import DECODER, EVALUATOR, checkpoint_path
from dexworld.models.world_model import WorldModel

AUTO, OWN = "auto", "own"  # who reads latents, besides an evaluator or a decoder that is named
Reader = TypeVar("Reader", PixelDecoder, KeypointEvaluator)


def encoder_fingerprint(encoder: Encoder) -> str:
    """Identifies an encoder by its configuration and weights; 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([encoder.config.identity(), encoder.image_size]).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def open_decoder(folder: str | Path, encoder: Encoder) -> PixelDecoder:
    """The decoder in `folder`, for pictures of this encoder's latents.

    Raises CheckpointError when it can't be read, OtherEncoderError when it was trained for another encoder.
    """
    decoder = PixelDecoder.from_pretrained(checkpoint_path(str(folder)))
    decoder.config.latents.check_encoder(encoder_fingerprint(encoder), f"the decoder {folder}")
    return decoder


def open_evaluator(folder: str | Path, encoder: Encoder) -> KeypointEvaluator:
    """The keypoint evaluator in `folder`, for this encoder's latents. Raises as `open_decoder`."""
    evaluator = KeypointEvaluator.from_pretrained(checkpoint_path(str(folder)))
    evaluator.config.latents.check_encoder(encoder_fingerprint(encoder), f"the keypoint evaluator {folder}")
    return evaluator


def chosen_evaluator(name: str, encoder: Encoder) -> tuple[KeypointEvaluator | None, str]:
    """The evaluator that reads keypoints from this encoder's latents, None for the model's own head, and who that is.

    name: a folder, a Hugging Face id or `evaluator`, the shipped one; `own` for the model's own head; `auto` for the
    shipped evaluator where it was trained on latents of this very encoder (the shipped reference's, which models that
    start from it keep). Raises as `open_evaluator`.
    """
    evaluator, who = _chosen(name, encoder, open_evaluator, EVALUATOR, "the evaluator")
    own = f"the model's own head ({who})" if who else "the model's own head"
    return evaluator, own if evaluator is None else who


@dataclass(frozen=True)
class Drawing:
    """decode: latents (..., P, D) to pictures (..., H, W, 3) uint8, None where nothing can. by: who draws, in words."""

    decode: Callable[[Tensor], Tensor] | None
    by: str


def drawing_of(model: WorldModel, decoder: str = AUTO) -> Drawing:
    """How pages draw this model's latents.

    decoder: a folder, a Hugging Face id or `decoder`, the shipped one; `own` for the encoder's own way back; `auto` for
    the shipped decoder where it was trained on latents of this very encoder, and the own way back elsewhere. Raises
    CheckpointError when it can't be read, OtherEncoderError when it was trained for another encoder.
    """
    chosen, who = _chosen(decoder, model.encoder, open_decoder, DECODER, "the pixel decoder")
    if chosen is not None:
        return Drawing(chosen.decode, who)
    if model.encoder.can_decode:
        return Drawing(model.encoder.decode, f"the {model.config.encoder.kind} encoder's own way back")
    return Drawing(None, "nothing: this encoder has no way back, and no decoder was given")


def _chosen(
    name: str, encoder: Encoder, open_reader: Callable[[str, Encoder], Reader], shipped: str, title: str
) -> tuple[Reader | None, str]:
    """The reader that `name` stands for, and who that is; None for the model's own way, and why unless asked for it.

    shipped: the name in `SHIPPED` of the one that dexworld ships; title: what that one is called.
    """
    if name == OWN:
        return None, ""
    if name != AUTO:
        # A run's folder and its `model` in it: the last part alone would name all alike.
        return open_reader(name, encoder), f"the {shipped} {'/'.join(Path(name).parts[-2:])}"
    try:
        return open_reader(shipped, encoder), f"{title} that dexworld ships"
    except FileNotFoundError:
        return None, f"this installation holds no {shipped}"
    except OtherEncoderError:
        return None, f"dexworld ships no {shipped} for this encoder"
