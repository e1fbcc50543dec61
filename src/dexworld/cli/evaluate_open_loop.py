"""The verb `evaluate open-loop`: predictions on held-out episodes."""

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from dexworld.cli.bars import counted, task_bars
from dexworld.data.datasets import open_dataset
from dexworld.data.resize import resized
from dexworld.evaluation.guard import Split, check_seeds
from dexworld.evaluation.ledger import Ledger
from dexworld.evaluation.open_loop import OpenLoopConfig, evaluate_open_loop
from dexworld.evaluation.results import write_results
from dexworld.models.latent_readers import AUTO, chosen_evaluator, drawing_of
from dexworld.models.reference import REFERENCE
from dexworld.models.world_model import load_world_model
from dexworld.report.rerun_log import RerunLog, log_open_loop, rerun_log

logger = logging.getLogger("dexworld")
SECONDS = 4.0


@dataclass(frozen=True)
class OpenLoop:
    """How well the model predicts on its own for four seconds, against copy-last and shuffled actions.

    A run that was stopped goes on with the episodes that are missing when it is started again.
    """

    output: Path
    """Folder for results.json and episodes.jsonl, which holds each episode's sums as they are known."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    episodes: int = 100
    """Held-out episodes."""
    seed: int = 1_000_000
    """First held-out scene."""
    data: Path | None = None
    """Dataset of held-out episodes; collected from the seeds when not given."""
    workers: int = 0
    """Processes for collecting; 0 is one per core."""
    split: Split = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning."""
    evaluator: str = AUTO
    """Who reads keypoints from latents: a keypoint evaluator made by `dexworld train evaluator`, or `own` for the
    model's own head, whose quality then goes into the figures. `auto` takes the shipped evaluator for models with the
    reference's encoder, and the own head for others; the results name it."""
    decoder: str = AUTO
    """Who draws predictions for the figures of pictures, as in `dexworld plan`; the results name it."""
    rate_hz: float = 5.0
    """Predicted steps a second, for four seconds. Recordings of pushes have one frame a second: 1."""
    stretches: int = 1
    """Predictions of an episode, each from the frame where the one before ended."""
    rerun: Path | None = None
    """File `NAME.rrd` for Rerun (extra `viz`): curves of errors; frames, hands, cameras of the first ten episodes."""

    def run(self) -> None:
        """Evaluate and write `results.json`."""
        with rerun_log(self.rerun) as log:
            self._evaluate(log)

    def _evaluate(self, log: RerunLog | None) -> None:
        model = load_world_model(self.checkpoint)
        evaluator, reader = chosen_evaluator(self.evaluator, model.encoder)
        drawing = drawing_of(model, self.decoder)
        trained = [model.provenance] if evaluator is None else [model.provenance, evaluator.provenance]
        for provenance in trained:
            check_seeds(range(self.seed, self.seed + self.episodes), provenance, self.split)
        folder = self.data or self.output / "episodes"
        if self.data is None:
            from dexworld.sim.collect_scenes import SceneRange, collect

            scenes = SceneRange(folder, self.episodes, self.seed, self.workers)
            collect(scenes, progress=counted("episodes", self.episodes))
        dataset = resized(open_dataset(folder), model.config.image_size)
        for provenance in trained:
            check_seeds(dataset.seeds, provenance, self.split)
        config = OpenLoopConfig(round(SECONDS * self.rate_hz), self.rate_hz, self.seed, stretches=self.stretches)
        about = {"data": dataset.fingerprint, "trained": trained, "keypoints": reader, "pictures": drawing.by}
        with task_bars() as update:
            figures = evaluate_open_loop(
                model,
                (dataset[index] for index in range(min(self.episodes, len(dataset)))),
                config,
                keypoints=None if evaluator is None else evaluator.keypoints,
                decode=drawing.decode,
                ledger=Ledger(self.output / "episodes.jsonl", asdict(config) | about),
                progress=update,
            )
        figures |= {"keypoints_read_by": reader, "pictures_drawn_by": drawing.by}
        figures["quarantined"] = len(dataset.quarantined)
        if hasattr(model, "cost"):
            figures["cost"] = model.cost()
        path = write_results(self.output, figures, seed=self.seed, seeds=dataset.seeds)
        if log is not None:
            log_open_loop(log, figures, dataset, self.rate_hz)
        if self.data is None:
            shutil.rmtree(folder)  # collected for this alone; the seeds bring it back
        logger.info(
            "squared error against copy-last: %.3f at 1 s, %.3f at 4 s; keypoints read by %s; %s",
            figures["mse_ratio_1s"],
            figures["mse_ratio_4s"],
            reader,
            path,
        )
