"""Random pixel masks for inpainting pre-training: the ten kinds of VideoX-Fun's trainer, with its frequencies."""

import torch
from torch import Tensor

# Kind -> probability. Source: the mask mix of VideoX-Fun's training code, as measured from its description.
MIX: dict[str, float] = {
    "block in all frames": 0.05,
    "all frames": 0.2,
    "after the first frames": 0.2,
    "between first and last frames": 0.2,
    "block over a time span": 0.05,
    "pixel noise": 0.05,
    "small blocks in some frames": 0.05,
    "ellipse": 0.1,
    "circle": 0.05,
    "random frames": 0.05,
}


def random_mask(
    frames: int, height: int, width: int, generator: torch.Generator, kind: str | None = None
) -> tuple[Tensor, str]:
    """A mask (F, H, W) bool, True where pixels are to be made, and its kind: the given one, or one drawn from `MIX`."""
    if kind is None:
        kind = list(MIX)[int(torch.multinomial(torch.tensor(list(MIX.values())), 1, generator=generator))]
    if kind not in MIX:
        raise ValueError(f"no mask kind {kind!r}; choose from {', '.join(MIX)}")
    draw = _Draw(generator)
    mask = torch.zeros(frames, height, width, dtype=torch.bool)
    if kind == "block in all frames":
        mask[:, *draw.block(height, width)] = True
    elif kind == "all frames":
        mask[:] = True
    elif kind == "after the first frames":
        mask[draw.integer(1, min(4, max(frames - 1, 1))) :] = True
    elif kind == "between first and last frames":
        kept = draw.integer(1, max(1, min(4, (frames - 1) // 2)))
        mask[kept : max(frames - kept, kept)] = True
    elif kind == "block over a time span":
        start = draw.integer(0, frames - 1)
        mask[start : draw.integer(start + 1, frames), *draw.block(height, width)] = True
    elif kind == "pixel noise":
        mask = torch.rand(mask.shape, generator=generator) < draw.real(0.1, 0.9)
    elif kind == "small blocks in some frames":
        for frame in range(frames):
            for _ in range(draw.integer(0, 3)):
                mask[frame, *draw.block(height, width, largest=0.25)] = True
    elif kind in ("ellipse", "circle"):
        mask[0] = draw.ellipse(height, width, round_=kind == "circle")
    else:
        mask[torch.rand(frames, generator=generator) < 0.5] = True
    return mask, kind


class _Draw:
    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(torch.randint(low, max(high, low) + 1, (1,), generator=self.generator))

    def real(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def block(self, height: int, width: int, largest: float = 0.75) -> tuple[slice, slice]:
        """A rectangle as two slices, sides from an eighth to `largest` of the frame's."""
        rows = max(1, round(self.real(0.125, largest) * height))
        columns = max(1, round(self.real(0.125, largest) * width))
        top, left = self.integer(0, height - rows), self.integer(0, width - columns)
        return slice(top, top + rows), slice(left, left + columns)

    def ellipse(self, height: int, width: int, round_: bool) -> Tensor:
        vertical = self.real(0.1, 0.4) * height
        horizontal = vertical if round_ else self.real(0.1, 0.4) * width
        y = (torch.arange(height) + 0.5 - self.real(0.2, 0.8) * height) / vertical
        x = (torch.arange(width) + 0.5 - self.real(0.2, 0.8) * width) / horizontal
        return y[:, None].square() + x[None, :].square() <= 1
