"""The data of a study: collected in the simulator where they are not there yet, and opened."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dexworld.data.datasets import open_dataset
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.recordings import open_recordings
from dexworld.evaluation.guard import EVALUATION_START, Split, split_of
from dexworld.sim.collect_scenes import SceneRange, collect, collect_gripper, collect_human
from dexworld.sim.gripper.gripper_recording import GripperConfig
from dexworld.sim.hands.human_video import HumanVideoConfig
from dexworld.sim.kitchen.explore import ExploreConfig
from dexworld.studies.study import Recording, Sizes
from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets
from dexworld.video.clips.triplet_files import find_names
from dexworld.video.clips.triplets import open_triplets

CONFIGS: dict[str, Any] = {"allegro": ExploreConfig, "human": HumanVideoConfig, "gripper": GripperConfig}
FIRST_SCENE: dict[Split, int] = {"validation": 908_000, "evaluation": EVALUATION_START + 300}
Progress = Callable[[str, int], Callable]  # name and episodes of a dataset to what wraps the iterator of its scenes


def recordings_of(sizes: Sizes, names: Iterable[str], split: Split) -> dict[str, Recording]:
    """The data of these names and all held-out data, by the name of their folder: `robot`, `held-out-robot`, ..."""
    trained_on: Any = {name: sizes.data[name] for name in names}
    held_out = {
        f"held-out-{name}": replace(each, seed=FIRST_SCENE[split] + each.seed) for name, each in sizes.held_out.items()
    }
    return trained_on | held_out


@dataclass(frozen=True)
class Collector:
    """How data of a kind come into a folder: whether it holds so many, what records them, which scenes it holds."""

    is_there: Callable[[Path, int], bool]
    collect: Callable[[Recording, Path, int, Callable], None]
    seeds: Callable[[Path], Iterable[int]]


def collect_all(
    recordings: Mapping[str, Recording], folder: Path, workers: int = 0, progress: Progress = lambda *_: iter
) -> None:
    """Record what is missing below `folder`; started again after a kill it goes on.

    A dataset that is there with as many episodes is taken as it is, whoever made it. Raises ValueError for one with
    scenes of another split, and where a folder was begun with other settings.
    """
    for name, recording in recordings.items():
        place, collector = folder / name, COLLECTORS[recording.kind]
        if not collector.is_there(place, recording.episodes):
            collector.collect(recording, place, workers, progress(name, recording.episodes))
        found = {split_of(seed) for seed in collector.seeds(place)}
        if found != {split_of(recording.seed)}:
            raise ValueError(f"{place} holds {', '.join(sorted(found))} scenes, not those from {recording.seed} on")


def _is_there(place: Path, episodes: int) -> bool:
    if (place / "meta" / "dexworld.json").exists():
        return True
    return (place / "dataset.json").exists() and open_recordings(place).counts.get("episodes", 0) >= episodes


def _collect(recording: Recording, place: Path, workers: int, progress: Callable) -> None:
    """Record a dataset; video of hands and grippers is prepared from recordings beside it."""
    config = CONFIGS[recording.kind](**recording.options)
    raw = place if recording.kind == "allegro" else place.parent / "recordings" / place.name
    scenes = SceneRange(raw, recording.episodes, recording.seed, workers)
    if isinstance(config, ExploreConfig):
        collect(scenes, config, progress)
    elif isinstance(config, HumanVideoConfig):
        collect_human(scenes, config, progress)
    else:
        collect_gripper(scenes, config, progress)
    if raw != place:
        report = prepare(PrepareConfig(raw, place, workers=workers))
        if not report.ok:
            raise ValueError(f"{raw} can't be prepared: {report.text()}")


def _triplets_are_there(place: Path, clips: int) -> bool:
    return (place / "dataset.txt").exists() and len(find_names(place)) >= clips


def _record_triplets(recording: Recording, place: Path, workers: int, progress: Callable) -> None:
    config = SyntheticConfig(place, recording.episodes, recording.seed, workers=workers, **recording.options)
    record_triplets(config, progress)


EPISODES = Collector(_is_there, _collect, lambda place: open_dataset(place).seeds)
TRIPLETS = Collector(_triplets_are_there, _record_triplets, lambda place: open_triplets(place).seeds.values())
COLLECTORS = {**dict.fromkeys(CONFIGS, EPISODES), "triplets": TRIPLETS}
