"""Other people's packages, imported without the parts that nothing here uses."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import av
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "data"))  # the writers of small datasets

# Imports of theirs that no test needs: torchvision of PyPI brings CUDA, and breaks beside a torch without it.
_VISION = ("io", "transforms", "transforms.v2", "transforms.v2.functional", "transforms.functional", "tv_tensors")
_OTHERS = ("lancedb", "lancedb.permutation", "lance", "cv2")
NEEDLESS = ("torchvision", *(f"torchvision.{part}" for part in _VISION), *_OTHERS)


class VideoReader:
    """What LeRobot decodes with. Torchvision's is PyAV within as well, and gone from its newest releases."""

    def __init__(self, path: str, stream: str) -> None:
        self.container = av.open(path)

    def seek(self, seconds: float, keyframes_only: bool = False) -> None:
        self.container.seek(int(seconds * av.time_base))

    def __iter__(self):
        for frame in self.container.decode(video=0):
            yield {"data": torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1), "pts": frame.time}


@pytest.fixture(scope="session")
def foreign():
    """`foreign(name)` is a module of another project; the test is skipped where that is not installed."""
    missing = [name for name in NEEDLESS if importlib.util.find_spec(name.split(".")[0]) is None]

    def imported(name: str) -> ModuleType:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            pytest.skip(f"{name.split('.')[0]} is not installed: make interop")
        for each in missing:
            sys.modules[each] = MagicMock(__spec__=ModuleSpec(each, None), VideoReader=VideoReader)
            parent, _, part = each.rpartition(".")
            if parent:
                setattr(sys.modules[parent], part, sys.modules[each])
        try:
            return importlib.import_module(name)
        finally:
            for each in missing:
                del sys.modules[each]

    return imported
