"""Trained video models, ready to be sampled: on the device, in evaluation mode."""

from pathlib import Path

import torch

from dexworld.models.reference import checkpoint_path
from dexworld.video.model import DWM


def chosen_device(device: str = "auto") -> torch.device:
    """The device of that name; `auto` is CUDA where there is a GPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def load_video_model(path: str | Path, device: str = "auto") -> DWM:
    """A trained model from its folder, its hub id or the name of a shipped one, on `device` and in evaluation mode.

    Raises CheckpointError naming what is missing or doesn't fit.
    """
    return DWM.from_pretrained(checkpoint_path(str(path))).to(chosen_device(device)).eval()
