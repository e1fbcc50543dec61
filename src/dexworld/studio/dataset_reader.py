"""What runs in a worker process behind the view *Data*: episodes of any folder, and what is wrong with them."""

from collections import OrderedDict
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image

from dexworld.data.episode_figures import Measurement
from dexworld.data.inspection import InspectConfig, Inspection, account, chosen_episodes, episode_report
from dexworld.data.source import Source
from dexworld.data.statistics import Figures
from dexworld.hands import LEFT, RIGHT
from dexworld.options import check_index
from dexworld.report.overlay import hand_overlay
from dexworld.studio.start_frame import open_any
from dexworld.track import Track

SURVEY = InspectConfig(decode="none")  # all of up to 2,000 episodes, or a sample of 2,000, as `dexworld inspect` does
SURVEY_S = 0.3  # seconds that one request reads on for: whoever clicks meanwhile waits so long
FOLDERS, TRACKS, PICTURES = 4, 4, 96  # that stay open, and pictures that are kept
WIDEST = 640  # pixels of a picture as it is sent
UNSEEN, PARTLY, ASIDE, SEEN = range(
    4
)  # of a hand in a frame: no keypoint is valid, some, all but not in view, all in view


@dataclass(frozen=True)
class OpenedFolder:
    """A folder. ids: of its episodes. quarantined: (file, reason) that opening found broken. surveyed: how many of the
    episodes the survey reads."""

    kind: str
    ids: tuple[str, ...]
    quarantined: tuple[tuple[str, str], ...]
    surveyed: int


@dataclass(frozen=True)
class SurveyNews:
    """What the survey of a folder found. rows: by index, those that weren't known yet, each as a line of inspect's
    episodes.jsonl, with the frames that show the `left` and the `right` hand. account: as of `inspection.account`."""

    read: int
    rows: dict[int, dict[str, Any]]
    figures: Figures
    account: dict[str, Any]


@dataclass(frozen=True, eq=False)
class OpenedEpisode:
    """An episode without its film. T frames.

    keypoints: (T, 42, 3) metres, world, with valid (T, 42). cameras: world_from_camera (T, 4, 4). size: height and
    width of its pictures as they are sent, with the intrinsics (3, 3) of these. hands: (T, 2), of left and right, one
    of `UNSEEN` to `SEEN`. findings: of its labels, each as of `Measurement`.
    """

    index: int
    name: str
    task: str
    fps: float
    size: tuple[int, int]
    keypoints: np.ndarray
    valid: np.ndarray
    cameras: np.ndarray
    intrinsics: np.ndarray
    hands: np.ndarray
    figures: Figures
    findings: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass
class _Folder:
    source: Source
    chosen: list[int]
    survey: Inspection
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)


class DatasetReader:
    """The folders that visitors look at. Nothing is decoded before it is asked for."""

    def __init__(self) -> None:
        self._folders: OrderedDict[str, _Folder] = OrderedDict()
        self._tracks: OrderedDict[tuple[str, int], tuple[Track, Measurement]] = OrderedDict()
        self._pictures: OrderedDict[tuple[str, int, int], np.ndarray] = OrderedDict()

    def open(self, folder: str) -> OpenedFolder:
        """Read a folder's list of episodes. Raises ValueError or FileNotFoundError where it holds none.

        A survey goes on where the episodes are the same as before.
        """
        source, before = open_any(folder), self._folders.get(folder)
        if before is None or (before.source.ids, before.source.quarantined) != (source.ids, source.quarantined):
            chosen = chosen_episodes(len(source), SURVEY)
            before = _Folder(source, chosen, Inspection(source, len(chosen), SURVEY))
        self._forget(folder)
        _keep(self._folders, folder, before, FOLDERS)
        return OpenedFolder(source.kind, tuple(source.ids), tuple(source.quarantined), len(before.chosen))

    def survey(self, folder: str, known: int) -> SurveyNews:
        """Read the labels of further episodes for a moment. known: how many rows the asker has."""
        found, began = self._folder(folder), monotonic()
        while known >= len(found.rows) < len(found.chosen) and monotonic() - began < SURVEY_S:
            index = found.chosen[len(found.rows)]
            report = episode_report(index, found.source)
            tally = report.figures.tallies["hands"] if report.figures is not None else {}
            found.rows[index] = report.row | {side: tally.get(side, 0) for side in ("left", "right")}
            found.survey.add(report)
        rows = dict(list(found.rows.items())[known:])
        return SurveyNews(len(found.rows), rows, found.survey.figures, account(found.survey))

    def episode(self, folder: str, index: int) -> OpenedEpisode:
        """An episode's labels. Raises ValueError where there is no such episode, or it can't be read."""
        track, measured = self._track(folder, index)
        valid, visible = measured.valid, measured.visible
        hands = [_state(valid[:, rows], visible[:, rows]) for rows in (LEFT, RIGHT)]
        factor = _smaller(measured.width)
        size = round(measured.height / factor), round(measured.width / factor)
        intrinsics = np.diag([size[1] / measured.width, size[0] / measured.height, 1.0]) @ track.intrinsics
        return OpenedEpisode(
            index=index,
            name=measured.name,
            task=track.task,
            fps=float(track.fps),
            size=size,
            keypoints=measured.points.astype(np.float32),
            valid=valid,
            cameras=track.world_from_camera.astype(np.float32),
            intrinsics=intrinsics,
            hands=np.stack(hands, axis=1),
            figures=measured.figures,
            findings=measured.findings,
        )

    def check(self, folder: str, index: int) -> dict[str, Any]:
        """The row of an episode of which a few frames were decoded, too."""
        return episode_report(index, self._folder(folder).source, decoded=frozenset([index])).row

    def pictures(self, folder: str, index: int, frames: tuple[int, ...], hands: bool) -> list[np.ndarray]:
        """Frames (H, W, 3) uint8 of an episode, at most `WIDEST` wide. hands: draw them on top."""
        track, measured = self._track(folder, index)
        check_index("frame", max(frames), len(track), measured.name)
        missing = [frame for frame in frames if (folder, index, frame) not in self._pictures]
        if missing:
            for frame, picture in zip(missing, track.frames.read(missing), strict=True):
                _keep(self._pictures, (folder, index, frame), narrowed(picture), PICTURES)
        found = [self._pictures[folder, index, frame] for frame in frames]
        if not hands:
            return found
        pixels = measured.pixels / _smaller(measured.width)
        pairs = zip(frames, found, strict=True)
        return [hand_overlay(picture, pixels[frame], measured.visible[frame], scale=1) for frame, picture in pairs]

    def _folder(self, folder: str) -> _Folder:
        if folder not in self._folders:
            self.open(folder)
        self._folders.move_to_end(folder)
        return self._folders[folder]

    def _track(self, folder: str, index: int) -> tuple[Track, Measurement]:
        if (folder, index) not in self._tracks:
            source = self._folder(folder).source
            check_index("episode", index, len(source), folder)
            measured = Measurement(track := source[index], source.ids[index])
            measured.labels(every_packet=False)
            _keep(self._tracks, (folder, index), (track, measured), TRACKS)
        return self._tracks[folder, index]

    def _forget(self, folder: str) -> None:
        kept: tuple[OrderedDict[Any, Any], ...] = (self._tracks, self._pictures)
        for each in kept:
            for key in [key for key in each if key[0] == folder]:
                del each[key]


def _keep(kept: "OrderedDict[Any, Any]", key: Any, value: Any, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def _smaller(width: int) -> float:
    """By what a picture's sides are divided."""
    return max(1.0, width / WIDEST)


def narrowed(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8, made at most `WIDEST` wide."""
    height, width = picture.shape[:2]
    if width <= WIDEST:
        return picture
    size = (WIDEST, round(height / _smaller(width)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _state(valid: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """(T,) of `UNSEEN` to `SEEN` for one hand's keypoints (T, 21)."""
    every = np.where(visible.all(1), SEEN, ASIDE)
    return np.where(valid.all(1), every, np.where(valid.any(1), PARTLY, UNSEEN)).astype(np.uint8)
