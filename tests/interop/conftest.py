"""Other people's packages, imported without the parts that nothing here uses."""

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import av
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "data"))  # the writers of small datasets

# Imports of theirs that no test needs: torchvision of PyPI brings CUDA, and breaks beside a torch without it.
NEEDLESS = ("torchvision", "torchcodec", "lancedb", "lance", "cv2")


class VideoReader:
    """What LeRobot decodes with. Torchvision's is PyAV within as well, and gone from its newest releases."""

    def __init__(self, path: str, stream: str) -> None:
        self.container = av.open(path)

    def seek(self, seconds: float, keyframes_only: bool = False) -> None:
        self.container.seek(int(seconds * av.time_base))

    def __iter__(self):
        for frame in self.container.decode(video=0):
            yield {"data": torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1), "pts": frame.time}


class _Mocked(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return SimpleNamespace(VideoReader=VideoReader) if name == "io" else MagicMock()


class _Mocks(MetaPathFinder, Loader):
    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.names else None

    def create_module(self, spec):
        return _Mocked(spec.name)

    def exec_module(self, module):
        pass


@pytest.fixture(scope="session")
def foreign():
    """`foreign(name)` is a module of another project; the test is skipped where that is not installed."""
    missing = {name for name in NEEDLESS if importlib.util.find_spec(name) is None}
    mocks = _Mocks(missing)

    def imported(name: str) -> ModuleType:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            pytest.skip(f"{name.split('.')[0]} is not installed: make interop")
        sys.meta_path.append(mocks)
        try:
            return importlib.import_module(name)
        finally:
            sys.meta_path.remove(mocks)
            for module in [each for each in sys.modules if each.split(".")[0] in missing]:
                del sys.modules[module]

    return imported
