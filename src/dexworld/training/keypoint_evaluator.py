"""From dataset folders to a keypoint evaluator: what `dexworld train evaluator` runs.

It learns from latents of true frames only and never sees a prediction, so figures read with it say nothing about
itself: only about the model whose predictions it is shown (DexWM paper: the shared keypoint prediction layer).

<output>/model            the evaluator, ready for `--evaluator`, with its provenance
<output>/checkpoints      training state; start the same command again to go on
<output>/metrics.jsonl    the curve; the same in <output>/tensorboard
<output>/results.json     steps, seconds, validation figures
"""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexworld.actions import hand_motion
from dexworld.data.sampling import EveryFrame
from dexworld.data.source import Dataset
from dexworld.data.windows import Window
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.evaluator import EVALUATOR_PRESETS, EvaluatorConfig, KeypointEvaluator, evaluator_preset
from dexworld.models.latent_space import LatentSpace
from dexworld.training.config import LoopConfig, TrainConfig, check_positive
from dexworld.training.distributed import Processes
from dexworld.training.frozen_encoder import (
    FrozenData,
    FrozenRunConfig,
    open_evaluator,
    open_frozen_data,
    processes_of,
)
from dexworld.training.losses import ItemsEach, inside_image, keypoint_loss, own_items
from dexworld.training.run import run_trainer, save_run, without_folders
from dexworld.training.sources import CachedData, OnlineData, TrainingData
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import WindowSource

logger = logging.getLogger(__name__)
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
class EvaluatorRunConfig(FrozenRunConfig):
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


class EvaluatorTask:
    """Single frames with their keypoints (a `trainer.Task`). items_each: as in `losses.keypoint_loss`."""

    def __init__(
        self,
        model: KeypointEvaluator,
        config: EvaluatorTrainConfig,
        source: WindowSource,
        items_each: ItemsEach = own_items,
    ) -> None:
        self.model, self.config, self.source, self.items_each = model, config, source, items_each

    def batch(self, index: int, device: torch.device) -> tuple[Window, int]:
        """This process's share of batch number `index` of the run."""
        size = self.config.batch_size
        return self.source.batch(index, size).to(device), size

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """`loss`: of the heatmaps of visible keypoints (see `losses.keypoint_loss`)."""
        pixels, visible = _labels(batch)
        config = self.model.config
        logits = self.model(batch.latents)
        size, kind = config.latents.image_size, config.head.loss
        return {"loss": keypoint_loss(logits, pixels, visible, size, self.config.sigma_px, kind, self.items_each)}

    def contents(self, batch: Window) -> dict[str, Tensor]:
        """The window's tensors by name."""
        return batch.tensors

    def blame(self, batch: Window) -> str:
        """Which episode's latents are not finite, if any."""
        row = batch.bad_row
        return "" if row is None else f" Latents are not finite in {self.source.describe(row)}."


class EvaluatorValidation:
    """Always the same frames of held-out episodes."""

    def __init__(self, source: WindowSource, frames: int) -> None:
        self.source, self.frames = source, frames

    @torch.no_grad()
    def __call__(self, model: KeypointEvaluator, device: torch.device | str = "cpu") -> dict[str, float]:
        """Of the keypoints that are in front of the camera and inside the image: `pck5`, `pck10`, `pck20` (the share
        found within so many pixels, 0 to 1), `median_px` (distance), and `visible` (how many they are). Without any,
        `visible` alone."""
        distances = []
        for step in range(-(-self.frames // CHUNK)):
            window = self.source.batch(step, CHUNK).to(device)
            pixels, visible = _labels(window)
            found, _ = model.keypoints(window.latents)
            counted = inside_image(pixels, visible, model.config.latents.image_size)
            distances.append((found - pixels[..., :2]).norm(dim=-1)[counted].float().cpu())
        distance = torch.cat(distances)
        figures = {"visible": float(len(distance))}
        if len(distance):
            figures |= {f"pck{limit:g}": float((distance <= limit).float().mean()) for limit in THRESHOLDS_PX}
            figures["median_px"] = float(distance.median())
        return figures


def _labels(window: Window) -> tuple[Tensor, Tensor]:
    """Pixels (B, F, 12, 3) [u, v, depth] and visibility (B, F, 12) of the tracked keypoints."""
    track = window.track
    motion = hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
    return motion.pixels, motion.visible & window.tracked_shown


def train_evaluator(config: EvaluatorRunConfig, head: KeypointHeadConfig | None = None) -> Path:
    """Train an evaluator, or go on with a run that was stopped, and return the folder of the evaluator.

    head: the size instead of the preset's. Raises ValueError for data that is missing or does not fit, ResumeError or
    TrainingDiverged with what to do. Under torchrun all processes call this and share the batches (DDP).
    """
    with processes_of(config) as (device, processes):
        return _train(config, head or evaluator_preset(config.size), device, processes)


def _train(config: EvaluatorRunConfig, head: KeypointHeadConfig, device: torch.device, processes: Processes) -> Path:
    training = config.training
    with processes.first_alone():  # it fits and encodes what is missing, the others read what it wrote
        data = open_frozen_data(config, training.seed, device)
        source = _training_data(config, data, data.datasets, device, processes)
        shown = _training_data(config, data, data.held_out_data, device, processes) if data.held_out_data else source
    torch.manual_seed(training.seed)  # the modules draw their first weights from torch's generator
    model = _initial_evaluator(config, data, head)
    # Every checkpoint of the run is to know these, not only its last one.
    model.provenance = _provenance(config, data, model.provenance) | {"finished": False}
    validation = None
    if sum(len(episodes) for episodes in data.held_out):
        windows = shown.source(EveryFrame(), data.model, data.held_out, shown=True)
        validation = EvaluatorValidation(windows, training.validation_frames)
    else:
        logger.warning("no episode is held out: there will be no validation figures")
    identity: dict[str, Any] = data.identity(config)
    identity["evaluator"] = json.loads(json.dumps(asdict(model.config)))
    items = processes.items_each if processes.count > 1 else own_items
    task = EvaluatorTask(model, training, source.source(EveryFrame(), data.model, data.training), items)
    trainer = Trainer(model, training, task, config.output, validation, identity, device, processes=processes)
    finished = run_trainer(trainer)
    figures = trainer.figures or trainer.validate()
    return save_run(trainer, config.output, dict(model.provenance), figures, finished)


def _initial_evaluator(config: EvaluatorRunConfig, data: FrozenData, head: KeypointHeadConfig) -> KeypointEvaluator:
    if config.initial is not None:
        return open_evaluator(config.initial, data.model.encoder).train()
    return KeypointEvaluator(EvaluatorConfig(LatentSpace.of(data.model.config, data.fingerprint), head))


def _provenance(config: EvaluatorRunConfig, data: FrozenData, ancestry: dict[str, Any]) -> dict[str, Any]:
    """What a model card needs to know; the scenes that the evaluator it starts from has seen are among its own."""
    provenance = data.provenance(config.training, ancestry)
    if config.initial is None:
        return provenance
    return provenance | {"initial": without_folders(config.initial), "initial_provenance": ancestry}


def _training_data(
    config: EvaluatorRunConfig,
    data: FrozenData,
    datasets: list[Dataset],
    device: torch.device,
    processes: Processes,
) -> TrainingData:
    training, rank, count = config.training, processes.rank, processes.count
    if config.latents == "cached":
        return CachedData(datasets, data.model, data.fingerprint, config.mix, training.seed, device, rank, count)
    return OnlineData(
        datasets,
        data.model.config.image_size,
        config.mix,
        TrainConfig(batch_size=training.batch_size, seed=training.seed, bfloat16=training.bfloat16),
        device,
        workers=config.workers,
        rank=rank,
        world_size=count,
    )
