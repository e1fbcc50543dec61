"""Open any collection of episodes, whatever its layout: our own recordings and stores, and what others publish."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from dexworld.data.lerobot.layout import is_lerobot
from dexworld.data.readers import droid, droid_lerobot, egodex, lerobot, robocasa, robot_run
from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.readers.egodex import EgoDexOptions
from dexworld.data.readers.lerobot import LeRobotOptions
from dexworld.data.readers.robocasa import RoboCasaOptions
from dexworld.data.readers.robot_run import RobotRunOptions
from dexworld.data.recordings import open_recordings
from dexworld.data.source import Source
from dexworld.data.store.prepared_dataset import open_prepared

Kind = Literal["auto", "episodes", "prepared", "egodex", "droid", "droid-lerobot", "robocasa", "lerobot", "robot-run"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class ReaderOptions:
    """Options of every reader; only those of the layout that is opened count. `droid` serves both of its editions."""

    egodex: EgoDexOptions = field(default_factory=EgoDexOptions)
    droid: DroidOptions = field(default_factory=DroidOptions)
    robocasa: RoboCasaOptions = field(default_factory=RoboCasaOptions)
    lerobot: LeRobotOptions = field(default_factory=LeRobotOptions)
    robot_run: RobotRunOptions = field(default_factory=RobotRunOptions)


@dataclass(frozen=True)
class Layout:
    """One layout that `open_source` knows.

    needs: what a folder must hold to be recognised, for people to read. options: the field of `ReaderOptions` that
    `open` takes, if any.
    """

    needs: str
    recognises: Callable[[Path], bool]
    open: Callable[..., Source]
    options: str = ""


# Asked in this order; the first that recognises a folder reads it, so the more particular stands first.
LAYOUTS: dict[str, Layout] = {
    "episodes": Layout(
        "dataset.json, as `dexworld collect` writes it", lambda path: (path / "dataset.json").is_file(), open_recordings
    ),
    "prepared": Layout(
        "meta/info.json and meta/dexworld.json, as `dexworld prepare` writes them",
        lambda folder: (folder / "meta" / "dexworld.json").is_file(),
        open_prepared,
    ),
    "droid-lerobot": Layout(
        "meta/info.json of LeRobot v3 with DROID's features",
        droid_lerobot.recognises,
        droid_lerobot.open_droid_lerobot,
        "droid",
    ),
    "lerobot": Layout("meta/info.json of LeRobot v3", is_lerobot, lerobot.open_lerobot, "lerobot"),
    "droid": Layout(
        "LAB/success|failure/DATE/TIME with trajectory.h5, metadata_*.json and recordings/MP4",
        droid.recognises,
        droid.open_droid,
        "droid",
    ),
    "egodex": Layout("SPLIT/TASK with N.mp4 beside N.hdf5", egodex.recognises, egodex.open_egodex, "egodex"),
    "robocasa": Layout(
        "*.hdf5 of robomimic with data/demo_N/obs/robot0_right_gripper_keypoint_pose",
        robocasa.recognises,
        robocasa.open_robocasa,
        "robocasa",
    ),
    "robot-run": Layout(
        "*.run, as a robot's client records them", robot_run.recognises, robot_run.open_robot_runs, "robot_run"
    ),
}


def kind_of(folder: Path | str) -> str:
    """The layout that `folder` has. Raises FileNotFoundError when there is none, ValueError for an unknown layout."""
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"there is no {folder}")
    for kind, layout in LAYOUTS.items():
        if layout.recognises(folder):
            return kind
    needs = "; ".join(f"{kind}: {layout.needs}" for kind, layout in LAYOUTS.items())
    raise ValueError(f"{folder} has no layout that is known. Name its kind if it has one of these: {needs}")


def open_source(folder: Path | str, kind: str = "auto", options: ReaderOptions = ReaderOptions()) -> Source:
    """The episodes in `folder`. kind: one of KINDS; "auto" finds it out, see `kind_of`.

    Raises FileNotFoundError when the folder is missing, ValueError when `kind` is unknown or no layout recognises the
    folder (the message lists what each needs), and whatever the layout's own reader raises.
    """
    folder = Path(folder)
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r} of dataset; choose from {', '.join(KINDS)}")
    if not folder.exists():
        raise FileNotFoundError(f"there is no {folder}")
    layout = LAYOUTS[kind_of(folder) if kind == "auto" else kind]
    return layout.open(folder, getattr(options, layout.options)) if layout.options else layout.open(folder)
