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
from dexworld.video.real.prepare_clips import (
    CustomConfig,
    FixedCameraConfig,
    Prepared,
    ReshapeConfig,
    prepare_custom,
    prepare_fixed_camera,
    reshape_triplets,
)
from dexworld.video.real.validate_clips import validate_triplets

logger = logging.getLogger("dexworld")
Seed = Annotated[int, tyro.conf.arg(help="Recorded in results.json; nothing here is drawn at random.")]


def logged_progress(items):
    """Items, with a log line for every hundredth."""
    for count, item in enumerate(items, 1):
        yield item
        if count % 100 == 0:
            logger.info("%d done", count)


def _finish(prepared: Prepared, output: Path, seed: int) -> None:
    write_results(output, prepared.to_json(), seed=seed)
    for name, reason in list(prepared.left_out.items())[:5]:
        logger.warning("left out %s: %s", name, reason)
    logger.info("%d triplets in %s, %d left out", len(prepared.folder), output, len(prepared.left_out))


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
class FixedCamera:
    """Real video of a standing camera with hand files (HaMeR, MANO, keypoints): TASTE-Rob style."""

    config: Annotated[FixedCameraConfig, tyro.conf.arg(name="")]
    seed: Seed = 0

    def run(self) -> None:
        """Prepare, and write what was done and left out into `results.json`."""
        _finish(prepare_fixed_camera(self.config, logged_progress), self.config.output, self.seed)


@dataclass(frozen=True)
class Custom:
    """One clip of any camera, with its hands and, when the camera moves, its static video."""

    config: Annotated[CustomConfig, tyro.conf.arg(name="")]
    seed: Seed = 0

    def run(self) -> None:
        """Prepare, and write what was done into `results.json`."""
        _finish(prepare_custom(self.config), self.config.output, self.seed)


@dataclass(frozen=True)
class Triplets:
    """Existing triplets, of the release's, TRUMANS' or TASTE-Rob's layout, in the shape that a model works on."""

    config: Annotated[ReshapeConfig, tyro.conf.arg(name="")]
    seed: Seed = 0

    def run(self) -> None:
        """Reshape, and write what was done and left out into `results.json`."""
        _finish(reshape_triplets(self.config, logged_progress), self.config.output, self.seed)


@dataclass(frozen=True)
class Prepare:
    """Make triplets out of real video."""

    what: (
        Annotated[FixedCamera, tyro.conf.subcommand("fixed-camera")]
        | Annotated[Custom, tyro.conf.subcommand("custom")]
        | Annotated[Triplets, tyro.conf.subcommand("triplets")]
    )

    def run(self) -> None:
        """Run the chosen preparation."""
        self.what.run()


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
    seed: Seed = 0

    def run(self) -> None:
        """Validate, print the table, and write `results.json`."""
        report = validate_triplets(self.data, self.listing, self.shape)
        sys.stdout.write(report.table() + "\n")
        write_results(self.output, report.to_json(), seed=self.seed)
        if not report.ok:
            sys.exit(1)


@dataclass(frozen=True)
class Episodes:
    """Turn triplets with hand motion into episodes, so that `dexworld train` trains a DexWM on the same clips."""

    data: Path
    """Triplet folder."""
    output: Path
    """Dataset folder to write."""
    seed: Seed = 0

    def run(self) -> None:
        """Convert, and write `results.json` beside the episodes."""
        dataset = triplets_as_episodes(self.data, self.output, progress=logged_progress)
        write_results(self.output, {"episodes": len(dataset), "frames": sum(dataset.lengths)}, seed=self.seed)
        logger.info("%d episodes in %s", len(dataset), self.output)
