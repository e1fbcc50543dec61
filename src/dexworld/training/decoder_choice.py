"""Who draws the pictures of a world model's latents on pages: a decoder that is named, the shipped one, or the encoder.

Planning is not concerned: what it compares are the encoder's own pictures, whatever draws a page.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dexworld.models.dexwm import DexWM
from dexworld.models.reference import DECODER
from dexworld.training.frozen_encoder import AUTO, chosen_reader, open_decoder


@dataclass(frozen=True)
class Drawing:
    """decode: latents (..., P, D) to pictures (..., H, W, 3) uint8, None where nothing can. by: who draws, in words."""

    decode: Callable[[Tensor], Tensor] | None
    by: str


def drawing_of(model: DexWM, decoder: str = AUTO) -> Drawing:
    """How pictures of this model's latents are made.

    decoder: a folder, a Hugging Face id or `decoder`, the shipped one; `own` for the encoder's own way back; `auto` for
    the shipped decoder where it was trained on latents of this very encoder, and the own way back elsewhere. Raises
    CheckpointError when it can't be read, OtherEncoderError when it was trained for another encoder.
    """
    chosen, who = chosen_reader(decoder, model.encoder, open_decoder, DECODER, "the pixel decoder")
    if chosen is not None:
        return Drawing(chosen.decode, who)
    if model.encoder.can_decode:
        return Drawing(model.decode, f"the {model.config.encoder.kind} encoder's own way back")
    return Drawing(None, "nothing: this encoder has no way back, and no decoder was given")
