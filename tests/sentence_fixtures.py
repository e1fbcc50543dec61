"""A sentence encoder without a package: every word has a vector of its own."""

import zlib

import numpy as np


class HashedWords:
    """The stand-in behind the same seam; words mean nothing to it, so that no two are alike."""

    width = 16

    def encode(self, texts):
        seeds = [zlib.crc32(text.encode()) for text in texts]
        return np.stack([np.random.default_rng(seed).normal(size=self.width) / 4 for seed in seeds]).astype(np.float32)
