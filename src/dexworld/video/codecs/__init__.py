"""Video codecs: uint8 video to latents and back, behind one interface."""

from dexworld.video.codecs.base import Codec, build_codec
from dexworld.video.codecs.pca import PCACodec

__all__ = ["Codec", "PCACodec", "build_codec"]
