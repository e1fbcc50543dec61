"""What a store is made with: size, codec, groups of pictures, episodes per file."""

import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Literal, get_args

from dexworld.data.resize import Fit
from dexworld.track import Track

Codec = Literal["h264", "h264-444", "av1", "jpeg"]


@dataclass(frozen=True)
class PrepareSettings:
    """What a prepared store is made with. Equal settings and sources give equal stores.

    Raises ValueError naming the field.
    """

    height: int = 224
    """Pixels that the scaled frame covers from top to bottom."""
    width: int | None = None
    """The same from left to right. None keeps the source's aspect, rounded to an even number: 1920 x 1080 becomes 398 x
    224. A width that differs from the aspect is reached by cutting the sides evenly, never by stretching."""
    crop: tuple[int, int] | None = None
    """Height and width cut from the centre after scaling. Cropping when training keeps more to choose from."""
    codec: Codec = "h264"
    """`h264-444` keeps full colour resolution, `jpeg` is the largest and the fastest to read."""
    crf: int | None = None
    """Constant rate factor of the codec (for jpeg: the quantiser scale, 1 to 31), lower is better; None takes the
    codec's default in `encode.RECIPES`."""
    group: int = 6
    """Frames from one key frame to the next; a random frame costs about half of it in decoding."""
    pack_episodes: int = 64
    """Consecutive episodes in one video and one parquet file."""
    fps: float | None = None
    """Frames per second that every episode must have; None takes the first episode's. One store has one rate."""

    def __post_init__(self) -> None:
        sizes = {"height": self.height, "width": self.width}
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(self.crop))
            if len(self.crop) != 2:
                raise ValueError(f"crop must be (height, width), not {self.crop}")
            sizes |= {"crop height": self.crop[0], "crop width": self.crop[1]}
        for name, side in sizes.items():
            if side is not None and (not 16 <= side <= 4096 or side % 2):
                raise ValueError(f"{name} is {side}; it must be even and 16 to 4096 pixels")
        if self.crop is not None and (self.crop[0] > self.height or self.crop[1] > (self.width or self.crop[1])):
            raise ValueError(f"crop {self.crop} is larger than the scaled frame ({self.height}, {self.width})")
        if self.codec not in get_args(Codec):
            raise ValueError(f"codec {self.codec!r} must be one of {', '.join(get_args(Codec))}")
        crf = {"jpeg": (1, 31), "av1": (0, 63)}.get(self.codec, (0, 51))
        for name, (low, high) in {"crf": crf, "group": (1, 250), "pack_episodes": (1, math.inf)}.items():
            if (value := getattr(self, name)) is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}; with {self.codec} it must be {low} to {high}")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps is {self.fps}; it must be positive, or None for the source's")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "PrepareSettings":
        """The settings that `to_json` gave. Raises ValueError naming fields that this version does not know."""
        if unknown := sorted(set(values) - set(cls.__dataclass_fields__)):
            raise ValueError(f"settings hold {', '.join(unknown)}, which this version of dexworld does not know")
        return cls(**values)

    def resolved(self, episode: Track) -> "PrepareSettings":
        """The same settings with the width and the rate that `episode` decides where they are None."""
        height, width = episode.frames.size
        own_width = max(16, 2 * round(width * self.height / height / 2))
        return replace(self, width=self.width or own_width, fps=self.fps or float(episode.fps))

    @property
    def is_resolved(self) -> bool:
        """Whether width and rate are known."""
        return self.width is not None and self.fps is not None

    @property
    def scaled_size(self) -> tuple[int, int]:
        """Height and width that frames are scaled to cover. Raises ValueError while the width is unknown."""
        if self.width is None:
            raise ValueError("the width is not known before `resolved` has seen an episode")
        return self.height, self.width

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the stored frames. Raises ValueError while the width is unknown."""
        return self.crop or self.scaled_size

    @property
    def key_distance(self) -> int:
        """Frames from one key frame to the next: `group`, and 1 for jpeg."""
        return 1 if self.codec == "jpeg" else self.group

    @property
    def rate(self) -> Fraction:
        """Frames per second of the stored video. Raises ValueError while it is unknown."""
        if self.fps is None:
            raise ValueError("the rate is not known before `resolved` has seen an episode")
        return Fraction(self.fps).limit_denominator(1001)

    def fit(self, source: tuple[int, int]) -> Fit:
        """How frames of `source` (height, width) become stored frames. Raises ValueError while the width is unknown.

        All numbers are even, so that the cut never divides a colour sample of 4:2:0 video.
        """
        return Fit.cover(source, self.stored_size, self.scaled_size, multiple=2)
