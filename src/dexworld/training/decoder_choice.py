"""Who draws the pictures of a world model's latents on pages: a decoder that is named, the shipped one, or the encoder.

Planning is not concerned: what it compares are the encoder's own pictures, whatever draws a page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dexworld.models.decoder import PixelDecoder
from dexworld.models.dexwm import DexWM
from dexworld.models.reference import DECODER, checkpoint_path
from dexworld.training.fitting import encoder_fingerprint
from dexworld.training.frozen_encoder import AUTO, open_decoder

OWN = "own"  # the encoder's own way back


@dataclass(frozen=True)
class Drawing:
    """decode: latents (..., P, D) to pictures (..., H, W, 3) uint8, None where nothing can. by: who draws, in words."""

    decode: Callable[[Tensor], Tensor] | None
    by: str


def drawing_of(model: DexWM, decoder: str = AUTO) -> Drawing:
    """How pictures of this model's latents are made.

    decoder: a folder, a Hugging Face id or `decoder`, the shipped one; `own` for the encoder's own way back; `auto` for
    the shipped decoder where it was trained on latents of this very encoder, and the own way back elsewhere. Raises
    CheckpointError when it can't be read, ValueError when it was trained for another encoder.
    """
    if decoder == AUTO:
        shipped = shipped_decoder()
        if shipped is not None and shipped.config.latents.encoder == encoder_fingerprint(model.encoder):
            return Drawing(shipped.decode, "the pixel decoder that dexworld ships")
    elif decoder != OWN:
        # A run's folder and its `model` in it: the last part alone would name every decoder alike.
        return Drawing(open_decoder(decoder, model.encoder).decode, f"the decoder {'/'.join(Path(decoder).parts[-2:])}")
    if model.encoder.can_decode:
        return Drawing(model.decode, f"the {model.config.encoder.kind} encoder's own way back")
    return Drawing(None, "nothing: this encoder has no way back, and no decoder was given")


def shipped_decoder() -> PixelDecoder | None:
    """The decoder that is shipped with the package, None where this installation holds none."""
    try:
        return PixelDecoder.from_pretrained(checkpoint_path(DECODER))
    except FileNotFoundError:
        return None
