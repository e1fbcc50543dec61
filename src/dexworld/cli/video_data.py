"""The verbs of `dexworld video` that make and check triplets: synthesize, prepare, validate, episodes."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.cli.bars import counted
from dexworld.evaluation.results import write_results
from dexworld.video.clips.as_episodes import triplets_as_episodes
from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets
from dexworld.video.real.prepare_clips import ReshapeConfig, VideosConfig, prepare_videos, reshape_triplets
from dexworld.video.real.validate_clips import validate_triplets

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
class Prepare:
    """Make triplets out of real video."""

    what: (
        Annotated[VideosConfig, tyro.conf.subcommand("videos")]
        | Annotated[ReshapeConfig, tyro.conf.subcommand("triplets")]
    )

    def run(self) -> None:
        """Prepare, and write what was done and left out into `results.json`."""
        if isinstance(self.what, VideosConfig):
            folder, figures = prepare_videos(self.what, counted("videos"))
        else:
            folder, figures = reshape_triplets(self.what, counted("clips"))
        write_results(self.what.output, figures)
        for name, reason in list(figures["left_out"].items())[:5]:
            logger.warning("left out %s: %s", name, reason)
        logger.info("%d triplets in %s, %d left out", len(folder), self.what.output, len(figures["left_out"]))


@dataclass(frozen=True)
class Validate:
    """Name each missing, misaligned, wrong-size or undecodable file of a triplet folder; exit code 1 if any."""

    data: Path
    """Triplet folder."""
    output: Path
    """Folder for results.json."""
    listing: Path | None = None
    """List file; without one every triplet of the folder is checked."""
    shape: ClipShape | None = None
    """Frames, size and rate that every clip must have."""

    def run(self) -> None:
        """Validate, print the table, and write `results.json`."""
        report = validate_triplets(self.data, self.listing, self.shape)
        sys.stdout.write(report.table() + "\n")
        write_results(self.output, report.to_json())
        if report.errors:
            sys.exit(1)


@dataclass(frozen=True)
class Episodes:
    """Turn triplets with hand motion into episodes, so that `dexworld train` trains a DexWM on the same clips."""

    data: Path
    """Triplet folder."""
    output: Path
    """Dataset folder to write."""

    def run(self) -> None:
        """Convert, and write `results.json` beside the episodes."""
        dataset = triplets_as_episodes(self.data, self.output, progress=counted("clips"))
        write_results(self.output, {"episodes": len(dataset), "frames": sum(dataset.lengths)})
        logger.info("%d episodes in %s", len(dataset), self.output)
