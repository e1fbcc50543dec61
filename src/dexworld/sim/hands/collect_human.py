"""Collect videos of human hands in EgoDex's layout, in parallel processes; started again after a kill it goes on.

A scene's episode is number `seed` of its task's folder, so an interrupted collection finds what is missing by looking,
and collections of neighbouring seeds may share a folder. `dexworld-human.json` beside the splits holds the settings.
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from dexworld.sim.hands.egodex_format import EgoDexLabels, in_arkit_world, split_of, write_egodex
from dexworld.sim.hands.human_video import HumanVideo, HumanVideoConfig, film
from dexworld.sim.recording import SceneRange, keep_settings, record_missing, recording_settings
from dexworld.sim.render import choose_backend

SETTINGS_FILE = "dexworld-human.json"
_VERBS = {"reach": "reach", "push": "push", "grasp": "grasp", "drawer": "open", "door": "open"}
_TASKS = {
    "drawer": "open_drawer",
    "door": "open_cabinet_door",
    "grasp": "pick_and_place_objects",
    "push": "push_objects",
    "reach": "reach_for_objects",
}  # the first skill here that occurs names the episode's task


@dataclass(frozen=True)
class CollectHumanConfig(SceneRange):
    """Human-hand videos in EgoDex's layout. Training episodes are written to the split `part1`, others to `test`."""

    video: HumanVideoConfig = field(default_factory=HumanVideoConfig)


def collect_human(config: CollectHumanConfig, progress=iter) -> tuple[Path, ...]:
    """Record the episodes that are not yet in `config.output`; returns the hdf5 files of all that were asked for.

    `progress` wraps the iterator of finished seeds. Raises ValueError if the folder was made with other settings.
    """
    backend = choose_backend(config.backend)
    settings = recording_settings("dexworld.sim.human_video", backend, video=asdict(config.video))
    keep_settings(config.output / SETTINGS_FILE, settings)
    there = recorded(config.output)
    job = partial(_record_and_write, folder=config.output, video=config.video, backend=backend)
    record_missing(config, job, lambda seed: seed in there, progress)
    there = recorded(config.output)
    return tuple(there[seed] for seed in config.seeds)


def recorded(folder: Path) -> dict[int, Path]:
    """The finished episodes of a folder: seed -> hdf5."""
    paths = [path for path in folder.glob("*/*/*.hdf5") if path.stem.isdecimal() and path.with_suffix(".mp4").exists()]
    return {int(path.stem): path for path in sorted(paths, key=lambda path: (int(path.stem), path))}


def _record_and_write(seed: int, folder: Path, video: HumanVideoConfig, backend: str) -> int:
    recording = film(seed, video, backend)
    write_egodex(folder, seed, in_arkit_world(recording.episode), labels_of(recording), split_of(seed))
    return seed


def labels_of(video: HumanVideo) -> EgoDexLabels:
    """The words of a recording: its task is the rarest thing that is done in it."""
    done = [script for act in video.acts for script in act.acting]
    skills = [script.skill for script in done]
    things = [video.names[script.target] if script.target >= 0 else script.skill for script in done]
    return EgoDexLabels(
        task=next((name for skill, name in _TASKS.items() if skill in skills), "rest_hands"),
        description=video.episode.task,
        verbs=tuple(dict.fromkeys(_VERBS[skill] for skill in skills)),
        objects=tuple(dict.fromkeys(things)),
    )
