"""The verb `imagine`: simple hand motions from one start frame."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from dexworld.data.datasets import open_dataset
from dexworld.data.resize import resized_episode
from dexworld.evaluation.atomic import AtomicConfig, atomic_motions, best_frame
from dexworld.models.latent_readers import AUTO, drawing_of
from dexworld.models.reference import REFERENCE
from dexworld.models.world_model import load_world_model
from dexworld.options import check_index
from dexworld.report.imagine import imagine, write_imagine_report
from dexworld.report.rerun_log import RerunLog, log_imagined, rerun_log

logger = logging.getLogger("dexworld")
SEARCHED_FRAMES = 20  # of a recorded episode, for one that shows the hand


@dataclass(frozen=True)
class Imagine:
    """Let the model imagine simple hand motions from one start frame (the paper's Figure 7)."""

    output: Path
    """Folder for imagine.html and results.json."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    seed: int = 1_000_000
    """Simulated scene to start in, when no dataset is given."""
    data: Path | None = None
    """Dataset to take the start frame from."""
    episode: int = 0
    """Episode of the dataset."""
    frame: int | None = None
    """Frame of the episode; the first one that shows most of the hand when not given."""
    motion: AtomicConfig = field(default_factory=AtomicConfig)
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""
    rerun: Path | None = None
    """File `NAME.rrd` for Rerun (extra `viz`): what was imagined, and the commanded hand in space."""

    def run(self) -> None:
        """Imagine, and write the page."""
        with rerun_log(self.rerun) as log:
            self._imagine(log)

    def _imagine(self, log: RerunLog | None) -> None:
        model = load_world_model(self.checkpoint)
        drawing = drawing_of(model, self.decoder)
        if self.data is not None:
            dataset = open_dataset(self.data)
            check_index("episode", self.episode, len(dataset), str(self.data))
            episode = dataset[self.episode]
            if self.frame is not None:
                check_index("frame", self.frame, len(episode), episode.source)
        else:
            from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration

            if self.frame is not None and self.frame < 0:
                raise ValueError(f"frame is {self.frame}; it must be 0 or more")
            frames = SEARCHED_FRAMES if self.frame is None else max(2, self.frame + 1)
            episode = record_exploration(self.seed, config=ExploreConfig(frames=frames))
        episode = resized_episode(episode, model.config.image_size)
        frame = best_frame(episode, self.motion.hand) if self.frame is None else self.frame
        motions = atomic_motions(episode, frame, self.motion, model.condition)
        imagined = imagine(model, episode, motions, frame, decode=drawing.decode, drawn_by=drawing.by)
        if log is not None:
            log_imagined(log, imagined, episode, frame, self.motion)
        logger.info("see %s", write_imagine_report(self.output, imagined, seed=self.seed))
