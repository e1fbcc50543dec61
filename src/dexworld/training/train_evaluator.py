"""From dataset folders to a keypoint evaluator: what `dexworld train evaluator` runs (see `fit` for what it leaves).

It learns from latents of true frames only and never sees a prediction, so figures read with it say nothing about
itself: only about the model whose predictions it is shown (DexWM paper: the shared keypoint prediction layer).
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from dexworld.data.sampling import EveryFrame
from dexworld.data.source import Dataset
from dexworld.data.windows import Window
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.evaluator import EVALUATOR_PRESETS, EvaluatorConfig, KeypointEvaluator, evaluator_preset
from dexworld.models.latent_readers import open_evaluator
from dexworld.models.latent_space import LatentSpace
from dexworld.training.config import LoopConfig, TrainConfig, check_positive
from dexworld.training.distributed import Processes
from dexworld.training.fit import Job, fit, without_folders
from dexworld.training.latent_run import LatentRun, LatentRunConfig
from dexworld.training.losses import ItemsEach, inside_image, keypoint_loss, own_items, tracked_pixels
from dexworld.training.sources import CachedData, OnlineData, TrainingData
from dexworld.training.window_task import WindowSource

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
        pixels, visible = tracked_pixels(batch.track)
        config = self.model.config
        logits = self.model(batch.latents)
        size, kind = config.latents.image_size, config.head.loss
        return {"loss": keypoint_loss(logits, pixels, visible, size, self.config.sigma_px, kind, self.items_each)}

    def contents(self, batch: Window) -> dict[str, Tensor]:
        """The window's tensors by name."""
        return {name: getattr(batch, name) for name in batch.__dataclass_fields__}

    def broken_data(self, batch: Window) -> str:
        """Which episode's latents are not finite, if any."""
        bad = ~torch.isfinite(batch.latents).flatten(2).all(dim=-1)
        return f" Latents are not finite in {self.source.describe(int(batch.rows[bad][0]))}." if bad.any() else ""


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
            pixels, visible = tracked_pixels(window.track)
            found, _ = model.keypoints(window.latents)
            counted = inside_image(pixels, visible, model.config.latents.image_size)
            distances.append((found - pixels[..., :2]).norm(dim=-1)[counted].float().cpu())
        distance = torch.cat(distances)
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
    size = head or evaluator_preset(config.size)
    return fit(config.output, config.training, lambda device, all_: _job(config, size, device, all_), config.device)


def _job(config: EvaluatorRunConfig, head: KeypointHeadConfig, device: torch.device, processes: Processes) -> Job:
    training = config.training
    with processes.first_alone():  # it fits and encodes what is missing, the others read what it wrote
        run = LatentRun.open(config, training.seed, device)
        data = run.data
        source = _training_data(config, run, data.datasets, device, processes)
        shown = _training_data(config, run, data.held_out_data, device, processes) if data.held_out_data else source
    torch.manual_seed(training.seed)  # the modules draw their first weights from torch's generator
    if config.initial is None:
        model = KeypointEvaluator(EvaluatorConfig(LatentSpace.of(run.model.config, run.fingerprint), head))
        provenance = run.provenance(training, model.provenance)
    else:  # the scenes that it has seen are among the new one's own
        model = open_evaluator(config.initial, run.model.encoder).train()
        initial = {"initial": without_folders(config.initial), "initial_provenance": model.provenance}
        provenance = run.provenance(training, model.provenance) | initial
    # Every checkpoint of the run is to know these, not only its last one.
    model.provenance = provenance | {"finished": False}
    validation = None
    if data.validates:
        windows = shown.source(EveryFrame(), run.model, data.held_out, shown=True)
        validation = EvaluatorValidation(windows, training.validation_frames)
    described = {"evaluator": json.loads(json.dumps(asdict(model.config)))}
    items = processes.items_each if processes.count > 1 else own_items
    task = EvaluatorTask(model, training, source.source(EveryFrame(), run.model, data.training), items)
    return Job(model, task, run.identity(config) | described, dict(model.provenance), validation)


def _training_data(
    config: EvaluatorRunConfig, run: LatentRun, datasets: list[Dataset], device: torch.device, processes: Processes
) -> TrainingData:
    training, rank, count = config.training, processes.rank, processes.count
    if config.latents == "cached":
        return CachedData(datasets, run.model, run.fingerprint, config.mix, training.seed, device, rank, count)
    return OnlineData(
        datasets,
        run.model.config.image_size,
        config.mix,
        TrainConfig(batch_size=training.batch_size, seed=training.seed, bfloat16=training.bfloat16),
        device,
        workers=config.workers,
        rank=rank,
        world_size=count,
    )
