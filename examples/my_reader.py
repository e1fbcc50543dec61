"""A reader of one's own recordings, with a column that dexworld has never heard of.

    python examples/my_reader.py RECORDINGS STORE      (then: dexworld train --data STORE)

RECORDINGS holds NAME.mp4 beside NAME.npz. The npz holds `keypoints_world` (T, 42, 3) in metres, `keypoints_valid`
(T, 42), `world_from_camera` (T, 4, 4), `intrinsics` (3, 3) in pixels, and any number of other arrays with T rows: they
become columns of the same name. A model that names them in `columns` finds them in `window.track`.
"""

import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dexworld.data.datasets import open_dataset
from dexworld.data.loader import FrameLoader
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.readers import LAYOUTS, Layout
from dexworld.data.sampling import StrideSampling
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.data.windows import DEFAULT_COLUMNS, Window
from dexworld.track import Track

CAMERA = ("world_from_camera", "intrinsics")


@dataclass(frozen=True)
class MyRecordings:
    """The recordings of a folder (a `dexworld.data.source.Source`)."""

    folder: Path
    kind: str = "mine"
    quarantined: tuple[tuple[str, str], ...] = ()

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """One per recording, sorted."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.npz")))

    @property
    def splits(self) -> tuple[str, ...]:
        """The split that each recording belongs to: these know none."""
        return ("",) * len(self)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Track:
        """Recording `index`. Raises CorruptEpisodeError naming the file; `prepare` then leaves it out and counts it."""
        video, labels = self.files(index)
        try:
            with np.load(labels, allow_pickle=False) as archive:
                arrays = dict(archive)
            frames = VideoFrames(video)
            columns = {name: each for name, each in arrays.items() if name not in CAMERA}
            camera = {name: arrays[name] for name in CAMERA}
            return Track(**camera, columns=columns, fps=frames.fps, frames=frames, source=str(labels))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, VideoError) as error:
            raise CorruptEpisodeError(f"{labels}: {error}") from error

    def files(self, index: int) -> tuple[Path, ...]:
        """Video and labels of recording `index`."""
        return self.folder / f"{self.ids[index]}.mp4", self.folder / f"{self.ids[index]}.npz"


LAYOUTS["mine"] = Layout(
    "*.npz beside *.mp4",
    lambda folder: any(path.with_suffix(".mp4").exists() for path in folder.glob("*.npz")),
    MyRecordings,
)


def prepared_window(recordings: Path, store: Path, *columns: str) -> Window:
    """Prepare the recordings, and draw a batch of windows from the store with further columns in its track."""
    # One worker: further processes would not know this reader, unless it lies in a module that they import.
    report = prepare(PrepareConfig(recordings, store, settings=PrepareSettings(height=32), workers=1))
    print(report.text())
    strategy = StrideSampling(frames=4, history=2)
    return FrameLoader([open_dataset(store)], strategy, 2, seed=0, columns=(*DEFAULT_COLUMNS, *columns)).batch(0)


if __name__ == "__main__":
    track = prepared_window(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]).track
    print({name: tuple(value.shape) for name, value in track.columns.items()})
