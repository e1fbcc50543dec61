"""The door of every foreign layout: whatever its reader gives or fails with passes here."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dexworld.data.hand_checks import check_track
from dexworld.data.lerobot.layout import UNREADABLE
from dexworld.data.source import CorruptEpisodeError, FolderSource
from dexworld.data.video import VideoError
from dexworld.track import Track


@dataclass(frozen=True)
class ForeignSource(FolderSource):
    """Episodes in a layout that others published; see `data.source.Source`. A layout adds `read` and `files`."""

    options: Any

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy.

        Raises CorruptEpisodeError naming the file and the field of what is missing, damaged or makes no sense.
        """
        try:
            # damaged numbers are found by checks, whatever arithmetic says of them
            with np.errstate(over="ignore", invalid="ignore"):
                track = self.read(index)
                check_track(track, where=str(self.folder))
                return track
        except CorruptEpisodeError:
            raise
        except VideoError as error:
            raise CorruptEpisodeError(str(error)) from error
        except (*UNREADABLE, AttributeError) as error:  # AttributeError: a video stream without a codec
            raise CorruptEpisodeError(f"{self.folder}: episode {self.ids[index]}: {error}") from error

    def read(self, index: int) -> Track:
        """The episode as the layout's files hold it."""
        raise NotImplementedError
