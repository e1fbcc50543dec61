"""Which latents a network reads: their shape, the pictures they are of, and the encoder that makes them."""

from dataclasses import dataclass

from dexworld.models.config import DexWMConfig


class OtherEncoderError(ValueError):
    """Latents are to be read that another encoder made than the one that the reader was trained for."""


@dataclass(frozen=True)
class LatentSpace:
    """Latents (P, D) of one encoder, tokens row by row.

    dim: latent width D. grid: rows and columns of tokens, P in all. image_size: (height, width) of the pictures.
    encoder: fingerprint of the encoder's configuration and weights (`latent_readers.encoder_fingerprint`).
    Raises ValueError naming what makes no sense.
    """

    dim: int
    grid: tuple[int, int]
    image_size: tuple[int, int]
    encoder: str

    def __post_init__(self) -> None:
        if self.dim < 1 or min(self.grid) < 1 or min(self.image_size) < 1:
            raise ValueError(f"latent width, grid and image size must be positive, not {self}")
        if self.image_size[0] % self.grid[0] or self.image_size[1] % self.grid[1]:
            raise ValueError(f"a grid of {self.grid} tokens doesn't tile images of {self.image_size} pixels")

    @classmethod
    def of(cls, config: DexWMConfig, encoder: str) -> "LatentSpace":
        """The latents of a model of `config`, whose encoder has that fingerprint."""
        return cls(config.encoder.dim, config.grid, config.image_size, encoder)

    @property
    def tokens(self) -> int:
        """Number of tokens P."""
        return self.grid[0] * self.grid[1]

    @property
    def cell(self) -> tuple[int, int]:
        """Height and width in pixels of the part of a picture that one token stands for."""
        return self.image_size[0] // self.grid[0], self.image_size[1] // self.grid[1]

    def check_encoder(self, fingerprint: str, what: str) -> None:
        """Raise OtherEncoderError when `what`, e.g. "the decoder x", is to read an encoder of another fingerprint."""
        if fingerprint != self.encoder:
            raise OtherEncoderError(
                f"{what} reads the latents of encoder {self.encoder[:12]}, this model's is {fingerprint[:12]}. Train "
                "one for this model's encoder, or name the model that it was trained for"
            )
