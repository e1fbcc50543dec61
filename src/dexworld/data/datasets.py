"""Open any folder that a command wrote, whichever of our layouts it has."""

import os
from pathlib import Path

from dexworld.data.recordings import open_recordings
from dexworld.data.source import Dataset
from dexworld.data.store.prepared_dataset import open_prepared


def open_dataset(folder: Path | str, verify: bool = False) -> Dataset:
    """The dataset in `folder`: recordings of `dexworld collect`, or a store made by `dexworld prepare`.

    verify: decode every frame and compare every checksum. Raises FileNotFoundError naming what would make the folder a
    dataset, ValueError when its index is damaged or of another format version, and when its layout must be prepared
    first: recordings of human hands and of a gripper have the layouts of EgoDex and DROID.
    """
    folder = Path(folder)
    if os.path.lexists(folder / "dataset.json") or not folder.exists():  # a broken link is a damaged dataset
        return open_recordings(folder, verify)
    if (folder / "meta" / "dexworld.json").exists() or (folder / "staging").exists():
        return open_prepared(folder, verify)
    from dexworld.data.readers import LAYOUTS

    for kind, layout in LAYOUTS.items():
        if layout.recognises(folder):
            advice = f"run `dexworld prepare {folder} STORE` and open STORE"
            raise ValueError(f"{folder} is in the layout {kind!r}, which must be prepared once: {advice}")
    return open_recordings(folder)
