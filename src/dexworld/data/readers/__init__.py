"""Open any collection of episodes, whatever its layout: our own recordings and stores, and what others publish."""

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dexworld.data.readers.egodex import EgoDexOptions
from dexworld.data.source import Source


@dataclass(frozen=True)
class Layout:
    """One layout that `open_source` knows. needs: what a folder must hold to be recognised, for people to read."""

    kind: str
    needs: str
    module: str
    opener: str
    options: str | None = None


# Asked in this order; the first that recognises the folder reads it, so the more particular stands first.
LAYOUTS = (
    Layout("episodes", "dataset.json (`dexworld collect`)", "dexworld.data.datasets", "open_dataset"),
    Layout("prepared", "meta/dexworld.json (`dexworld prepare`)", "dexworld.data.datasets", "open_dataset"),
    Layout(
        "droid-lerobot",
        "meta/info.json of LeRobot v3 with camera_extrinsics.* and observation.images.* of DROID",
        "dexworld.data.readers.droid_lerobot",
        "open_droid_lerobot",
        "droid",
    ),
    Layout("lerobot", "meta/info.json of LeRobot v3", "dexworld.data.readers.lerobot", "open_lerobot", "lerobot"),
    Layout(
        "droid",
        "LAB/success|failure/DATE/TIME with trajectory.h5, metadata_*.json and recordings/MP4",
        "dexworld.data.readers.droid",
        "open_droid",
        "droid",
    ),
    Layout("egodex", "SPLIT/TASK with N.mp4 beside N.hdf5", "dexworld.data.readers.egodex", "open_egodex", "egodex"),
    Layout(
        "robocasa",
        "*.hdf5 of robomimic with data/demo_N",
        "dexworld.data.readers.robocasa",
        "open_robocasa",
        "robocasa",
    ),
)
KINDS = ("auto", *(layout.kind for layout in LAYOUTS))


@dataclass(frozen=True)
class ReaderOptions:
    """Options of every reader; only those of the layout that is opened count."""

    egodex: EgoDexOptions = field(default_factory=EgoDexOptions)
    droid: Any = None
    robocasa: Any = None
    lerobot: Any = None


def open_source(folder: Path | str, kind: str = "auto", options: ReaderOptions = ReaderOptions()) -> Source:
    """The episodes in `folder`. kind: the layout's name, or "auto" to find it out.

    Raises FileNotFoundError when the folder is missing, ValueError when `kind` is unknown or no layout recognises the
    folder (the message lists what each needs), and whatever the layout's own reader raises.
    """
    folder = Path(folder)
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r} of dataset; choose from {', '.join(KINDS)}")
    if not folder.exists():
        raise FileNotFoundError(f"there is no {folder}")
    layout = next((layout for layout in LAYOUTS if _is(layout, folder, kind)), None)
    if layout is None:
        needs = "\n".join(f"  {layout.kind}: {layout.needs}" for layout in LAYOUTS)
        raise ValueError(f"{folder} is of no layout that is known. What each needs:\n{needs}\nName it with --kind.")
    opener = getattr(import_module(layout.module), layout.opener)
    if layout.options is None:
        return opener(folder)
    chosen = getattr(options, layout.options)
    return opener(folder) if chosen is None else opener(folder, chosen)


def _is(layout: Layout, folder: Path, kind: str) -> bool:
    if kind != "auto":
        return kind == layout.kind
    if layout.kind == "episodes":
        return (folder / "dataset.json").is_file()
    if layout.kind == "prepared":
        return (folder / "meta" / "dexworld.json").is_file()
    if find_spec(layout.module) is None:
        return False
    return import_module(layout.module).recognises(folder)
