"""The verbs of `dexworld video`: triplets, training, generation, evaluation and the choice among actions."""

import logging
from dataclasses import dataclass
from typing import Annotated

import tyro

from dexworld.cli.progress import counted
from dexworld.evaluation.results import write_results
from dexworld.video.synthetic import SyntheticConfig, record_triplets
from dexworld.video.train import VideoRunConfig, train_video

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Synthesize:
    """Record triplets in the simulator, in parallel; start it again to go on after a kill."""

    config: Annotated[SyntheticConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Record, and write `results.json` beside the triplets."""
        config = self.config
        folder = record_triplets(config, counted("clips", config.clips))
        write_results(config.output, {"clips": len(folder), "settings": dict(folder.settings)}, seed=config.seed)
        logger.info("%d triplets in %s", len(folder), config.output)


@dataclass(frozen=True)
class VideoTrain:
    """Train a video world model on triplets; start it again to go on where it stopped."""

    config: Annotated[VideoRunConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Train, and leave the model in `<output>/model`."""
        logger.info("the model is in %s", train_video(self.config))


@dataclass(frozen=True)
class Video:
    """DWM: generate what hands do to a still scene, and choose among actions by imagining each."""

    what: (
        Annotated[Synthesize, tyro.conf.subcommand("synthesize")] | Annotated[VideoTrain, tyro.conf.subcommand("train")]
    )

    def run(self) -> None:
        """Run the chosen verb."""
        self.what.run()
