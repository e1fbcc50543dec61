"""The verb `collect`: recordings of a simulated hand, gripper or robot hand at work."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from dexworld.cli.bars import counted
from dexworld.data.readers import open_source
from dexworld.evaluation.results import write_results
from dexworld.report.rerun_log import log_episodes, rerun_log
from dexworld.sim.adroit.adroit_exploration import AdroitConfig
from dexworld.sim.collect_scenes import SceneRange, collect, collect_gripper, collect_human, collect_objects
from dexworld.sim.dexjoco.dexjoco_exploration import DexJoCoConfig
from dexworld.sim.gripper.gripper_recording import GripperConfig
from dexworld.sim.hands.human_video import HumanVideoConfig
from dexworld.sim.kitchen.explore import ExploreConfig
from dexworld.sim.kitchen.object_scenes import PairConfig, PushConfig
from dexworld.sim.table.table_exploration import TableConfig

logger = logging.getLogger("dexworld")


Allegro = Annotated[ExploreConfig, tyro.conf.subcommand("allegro")]
Human = Annotated[HumanVideoConfig, tyro.conf.subcommand("human")]
Gripper = Annotated[GripperConfig, tyro.conf.subcommand("gripper")]
Pushes = Annotated[PushConfig, tyro.conf.subcommand("pushes")]
Pairs = Annotated[PairConfig, tyro.conf.subcommand("pairs")]
Adroit = Annotated[AdroitConfig, tyro.conf.subcommand("adroit")]
DexJoCo = Annotated[DexJoCoConfig, tyro.conf.subcommand("dexjoco")]
Table = Annotated[TableConfig, tyro.conf.subcommand("table")]
# The others are the Allegro hand.
_NAMES: dict[type, str] = {AdroitConfig: "adroit", DexJoCoConfig: "dexjoco", TableConfig: "table"}


@dataclass(frozen=True)
class Collect:
    """Record episodes in the simulator, in parallel; start it again to go on after a kill.

    Who acts comes behind the options: `allegro` (a Franka arm with an Allegro hand, the default; a dataset to train
    from), `pushes` and `pairs` (the same robot: data that teaches objects), `human` (two hands below a moving head
    camera, in EgoDex's layout), `gripper` (a Franka arm with a parallel gripper, in DROID's raw layout), `adroit` (a
    Shadow hand in Adroit's scenes; extra `adroit`), `dexjoco` (a Franka arm with an Allegro hand in DexJoCo's scenes;
    its own environment, docs/dexjoco.md) or `table` (any described robot at a table). Each has options of its own;
    prepare `human` and `gripper` before training.
    """

    scenes: Annotated[SceneRange, tyro.conf.arg(name="")]
    rerun: Path | None = None
    """File `NAME.rrd` for Rerun (extra `viz`): frames, hands and cameras of the first ten episodes."""
    embodiment: Allegro | Pushes | Pairs | Human | Gripper | Adroit | DexJoCo | Table = field(
        default_factory=ExploreConfig
    )

    def run(self) -> None:
        """Collect, and write `results.json` beside the recordings."""
        with rerun_log(self.rerun) as log:
            figures = self._collected()
            if log is not None:
                log_episodes(log, open_source(self.scenes.output))
        write_results(self.scenes.output, figures, seed=self.scenes.seed)
        logger.info("%d episodes in %s", figures["episodes"], self.scenes.output)

    def _collected(self) -> dict[str, Any]:
        progress = counted("episodes", self.scenes.episodes)
        if isinstance(self.embodiment, HumanVideoConfig):
            files = collect_human(self.scenes, self.embodiment, progress)
            return {"embodiment": "human", "episodes": len(files)}
        if isinstance(self.embodiment, GripperConfig):
            return {"embodiment": "gripper", **collect_gripper(self.scenes, self.embodiment, progress)}
        if isinstance(self.embodiment, ExploreConfig):
            dataset = collect(self.scenes, self.embodiment, progress)
        else:
            dataset = collect_objects(self.scenes, self.embodiment, progress)
        return {
            "embodiment": _NAMES.get(type(self.embodiment), "allegro"),
            "episodes": len(dataset),
            "frames": sum(dataset.lengths),
            "quarantined": list(dataset.quarantined),
            "counts": dataset.counts,
        }
