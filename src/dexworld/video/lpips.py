"""LPIPS; it lives in `models/lpips.py`, where training can use it too."""

from dexworld.models.lpips import BLOCKS, LPIPS, SCALE, SHIFT, SMALLEST, read_weights

__all__ = ["BLOCKS", "LPIPS", "SCALE", "SHIFT", "SMALLEST", "read_weights"]
