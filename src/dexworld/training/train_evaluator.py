"""From dataset folders to a keypoint evaluator: what `dexworld train evaluator` runs (see `fit` for what it leaves).

It learns from latents of true frames only and never sees a prediction, so figures read with it say nothing about
itself: only about the model whose predictions it is shown (DexWM paper: the shared keypoint prediction layer).
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexworld.data.sampling import EveryFrame
from dexworld.data.windows import Window
from dexworld.models.checkpoint import check_prediction
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.keypoint_head import EVALUATOR_PRESETS, EvaluatorConfig, KeypointEvaluator
from dexworld.models.latent_readers import open_evaluator
from dexworld.training.checkpoints import check_settings
from dexworld.training.distributed import Processes
from dexworld.training.fit import fit, without_folders
from dexworld.training.losses import ItemsEach, keypoint_distances, keypoint_loss, tracked_pixels
from dexworld.training.run_data import LatentRun, LatentRunConfig
from dexworld.training.sources import WindowSource, check_visible, open_data
from dexworld.training.train_config import LoopConfig, check_positive, fixed_settings
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import SourceTask

CHUNK = 32  # frames at a time in validation
THRESHOLDS_PX = (5.0, 10.0, 20.0)


@dataclass(frozen=True)
class EvaluatorTrainConfig(LoopConfig):
    """Training of a keypoint evaluator. Raises ValueError naming the field that makes no sense."""

    steps: int = 5000
    """Optimiser steps in all."""
    sigma_px: float = 4.0
    """Standard deviation of the keypoints' target Gaussians, in pixels of the model's image (2 in the paper)."""
    validation_frames: int = 512
    """Frames in the validation figures, rounded up to whole batches of 32."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_frames"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sigma_px", "validation_frames")


@dataclass(frozen=True)
class EvaluatorRunConfig(LatentRunConfig):
    """A training run of a keypoint evaluator. Raises ValueError naming the field that makes no sense."""

    output: Path = Path("outputs/evaluator")
    """Folder of the run; a run that was stopped goes on there."""
    size: str = "tiny"
    """Size of the evaluator: `debug`, `tiny`, `small`, or the released `paper` (12 blocks of width 512)."""
    initial: str | None = None
    """Evaluator to start from instead of new weights, of the same encoder: a folder or a Hugging Face id. It keeps its
    size."""
    training: EvaluatorTrainConfig = field(default_factory=EvaluatorTrainConfig)
    """Steps, optimiser."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in EVALUATOR_PRESETS:
            raise ValueError(f"size is {self.size!r}; choose from {', '.join(EVALUATOR_PRESETS)}")


class EvaluatorTask(SourceTask):
    """Single frames with their keypoints. items_each: as in `losses.keypoint_loss`."""

    def __init__(
        self, model: KeypointEvaluator, config: EvaluatorTrainConfig, source: WindowSource, items_each: ItemsEach
    ) -> None:
        super().__init__(config, source)
        self.model, self.items_each = model, items_each

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """`loss`: of the heatmaps of visible keypoints (see `losses.keypoint_loss`)."""
        pixels, visible = tracked_pixels(batch.track)
        size, kind = self.model.config.latents.image_size, self.model.config.head.loss
        logits = self.model(batch.latents)
        return {"loss": keypoint_loss(logits, pixels, visible, size, self.config.sigma_px, kind, self.items_each)}


@torch.no_grad()
def evaluator_figures(
    source: WindowSource, frames: int, model: KeypointEvaluator, device: torch.device
) -> dict[str, float]:
    """Figures on `frames` frames of a source, always the same ones.

    Of the keypoints that are in front of the camera and inside the image: `pck5`, `pck10`, `pck20` (the share found
    within so many pixels, 0 to 1), `median_px` (distance), and `visible` (how many they are). Without any, `visible`
    alone.
    """
    windows = (source.batch(step, CHUNK).to(device) for step in range(ceil(frames / CHUNK)))
    distance = torch.cat([keypoint_distances(model, window, model.config.latents.image_size) for window in windows])
    check_prediction(distance[:, None], model, [f"keypoint {index}" for index in range(len(distance))])
    figures = {"visible": float(len(distance))}
    if len(distance):
        figures |= {f"pck{limit:g}": float((distance <= limit).float().mean()) for limit in THRESHOLDS_PX}
        figures["median_px"] = float(distance.median())
    return figures


def train_evaluator(config: EvaluatorRunConfig, head: KeypointHeadConfig | None = None) -> Path:
    """Train an evaluator, or go on with a run that was stopped, and return the folder of the evaluator.

    head: the size instead of the preset's. Raises ValueError for data that is missing or does not fit, ResumeError or
    TrainingDiverged with what to do. Under torchrun all processes call this and share the batches (DDP).
    """
    return fit(partial(_prepare, config, head or EVALUATOR_PRESETS[config.size]), config.device)


def _prepare(
    config: EvaluatorRunConfig, head: KeypointHeadConfig, device: torch.device, processes: Processes
) -> tuple[Trainer[KeypointEvaluator], dict[str, Any]]:
    training = config.training
    with processes.first_alone():  # it fits the encoder, the others read what it wrote
        run = LatentRun.open(config, training.seed, device)
    data, identity = run.data, run.identity(config)
    check_visible(data)
    check_settings(config.output / "checkpoints", {"training": fixed_settings(training), **identity})
    torch.manual_seed(training.seed)  # the modules draw their first weights from torch's generator
    initial: dict[str, Any] = {}
    if config.initial is None:
        model = KeypointEvaluator(EvaluatorConfig(run.space, head))
    else:
        model = open_evaluator(config.initial, run.encoder).train()
        initial = {"initial": without_folders(config.initial), "initial_provenance": model.provenance}
    source, shown = open_data(config, training, data, run.encoder, run.space.encoder, device, processes)
    # Every checkpoint of the run is to know these, not only its last one. Scenes that an initial evaluator has seen
    # count as seen.
    model.provenance = run.provenance(training, model.provenance) | initial | {"finished": False}
    validation = None
    if data.validates:
        held_out = shown.source(EveryFrame(), data.held_out, shown=True)
        validation = partial(evaluator_figures, held_out, training.validation_frames)
    task = EvaluatorTask(model, training, source.source(EveryFrame(), data.training), processes.items_each)
    identity |= {"evaluator": asdict(model.config)}
    trainer = Trainer(model, training, task, config.output, validation, identity, device, processes)
    return trainer, dict(model.provenance)
