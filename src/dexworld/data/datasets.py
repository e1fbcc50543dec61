"""Open any folder that training can use, whichever of our layouts it has."""

from pathlib import Path

from dexworld.data.source import Dataset
from dexworld.data.store import open_dataset as open_episodes


def open_dataset(folder: Path | str, verify: bool = False) -> Dataset:
    """The dataset in `folder`: episodes recorded by `dexworld collect`, or a store made by `dexworld prepare`.

    verify: decode every frame and compare every checksum. Raises FileNotFoundError naming what would make the folder a
    dataset, ValueError when its index is damaged or of another format version.
    """
    folder = Path(folder)
    if (folder / "dataset.json").exists() or not (folder / "meta" / "info.json").exists():
        return open_episodes(folder, verify)
    from dexworld.data.prepared.dataset import open_prepared

    return open_prepared(folder, verify)
