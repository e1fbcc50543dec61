"""From dataset folders to a trained model folder: what `dexworld train` runs.

<output>/model            the model, ready for `DexWM.from_pretrained`, with its provenance
<output>/checkpoints      training state; start the same command again to go on
<output>/metrics.jsonl    the curve; the same in <output>/tensorboard
<output>/results.json     steps, seconds, validation figures
"""

import hashlib
import json
import logging
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import dexworld
from dexworld.data.datasets import open_dataset
from dexworld.data.files import write_json
from dexworld.data.resize import resized
from dexworld.data.source import Dataset
from dexworld.models.config import DexWMConfig, preset
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import EncoderChoice, PCAEncoder
from dexworld.models.reference import checkpoint_path
from dexworld.training.config import SamplingConfig, ScaleConfig, TrainConfig
from dexworld.training.cost import training_flops
from dexworld.training.distributed import Processes, choose, joined, local_device
from dexworld.training.fitting import encoder_fingerprint, fit_action_scale, fitted_encoder
from dexworld.training.losses import own_items
from dexworld.training.meter import Meter, known_peak
from dexworld.training.progress import TrainingLog
from dexworld.training.sources import CachedData, OnlineData, TrainingData
from dexworld.training.trainer import Trainer
from dexworld.training.validation import Validation
from dexworld.training.window_task import WindowSource, WindowTask, window_strategies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunConfig:
    """A training run: which data, which model, where to. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...] = ()
    """Dataset folders made by `dexworld collect` or `dexworld prepare`."""
    output: Path = Path("outputs/train")
    """Folder of the run; a run that was stopped goes on there."""
    preset: str = "tiny"
    """Model preset."""
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    """Pretrained encoder instead of the preset's."""
    initial: str | None = None
    """Checkpoint to start from instead of new weights: a folder, a Hugging Face id, or `reference`. Its encoder is
    kept."""
    validation_data: tuple[Path, ...] = ()
    """Dataset folders of held-out scenes."""
    validation_fraction: float = 0.05
    """Fraction of the training scenes that is held out when there is no validation data."""
    encoder_frames: int = 3000
    """Frames that a pca encoder is fitted on."""
    latents: Literal["cached", "online"] = "cached"
    """`cached` encodes every frame once and keeps it on disk; `online` decodes and encodes while training, which large
    data and augmentation need."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Which frames make a window, and how the data folders are mixed."""
    augment: bool = False
    """Change colours and sharpness of whole clips as the release does (online latents only)."""
    workers: int = 2
    """Processes that decode video for online latents."""
    strict: bool = False
    """Stop at the first episode that can't be read, instead of naming, counting and replacing it (online latents)."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """How the machines are used."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """Steps, losses, optimiser."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must lie in [0, 1)")
        if self.initial is not None and self.encoder != EncoderChoice():
            raise ValueError("a model to start from keeps its encoder: leave out the encoder's options, or `initial`")
        if self.encoder_frames < 1:
            raise ValueError(f"encoder_frames is {self.encoder_frames}; it must be positive")
        if self.latents not in ("cached", "online"):
            raise ValueError(f"latents is {self.latents!r}; choose 'cached' or 'online'")
        if self.augment and self.latents == "cached":
            raise ValueError("cached latents can't be augmented; add `--latents online`")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 or more")
        if self.sampling.mix and len(self.sampling.mix) != len(self.data):
            raise ValueError(f"mix gives {len(self.sampling.mix)} shares for {len(self.data)} data folders")

    @property
    def loading(self) -> dict[str, Any]:
        """What is drawn and shown, as JSON values; empty for what runs did before there was a choice."""
        chosen = {"latents": self.latents, "augment": self.augment, "sampling": asdict(self.sampling)}
        plain = {"latents": "cached", "augment": False, "sampling": asdict(SamplingConfig())}
        return {} if chosen == plain else json.loads(json.dumps(chosen))


def train(config: RunConfig, model_config: DexWMConfig | None = None) -> Path:
    """Train a model, or go on with a run that was stopped, and return the folder of the model.

    model_config: the model instead of the preset's. Raises ValueError for data that is missing or does not fit,
    StaleCacheError, ResumeError or TrainingDiverged with what to do.
    """
    if not config.data:
        raise ValueError("data names no dataset folder; make one with `dexworld collect` or `dexworld prepare` first")
    choose(config.scale.parallel)
    device = local_device(config.device)
    with joined(device, config.scale.timeout_seconds) as processes:
        return _train(config, model_config, device, processes)


def _train(config: RunConfig, model_config: DexWMConfig | None, device: torch.device, processes: Processes) -> Path:
    if not processes.is_first:
        logging.getLogger("dexworld").setLevel(logging.WARNING)  # the first process tells what all do
    datasets, held_out_data = _open_all(config.data), _open_all(config.validation_data)
    with processes.first_alone():  # it fits the encoder, the others read what it wrote
        model = _initial_model(config, model_config, datasets, device)
    ancestry = model.provenance if config.initial is not None else None
    fingerprint = encoder_fingerprint(model.encoder)
    training, held_out = split_by_scene(datasets, 0.0 if held_out_data else config.validation_fraction)
    with processes.first_alone():  # it encodes what is not cached yet
        data = _training_data(config, datasets, model, fingerprint, device, processes)
        validation_data = data
        if held_out_data:
            held_out = [np.arange(len(dataset)) for dataset in held_out_data]
            validation_data = _training_data(config, held_out_data, model, fingerprint, device, processes)
    strategies = window_strategies(model.config.predictor.num_context, config.training, config.sampling)
    if config.initial is None:
        model = _with_fitted_scale(model, data.labels(strategies[0], training), config.training.seed)
    validation = None
    if sum(len(episodes) for episodes in held_out):
        settings = config.training
        validation = Validation(
            lambda strategy: validation_data.source(strategy, model, held_out, shown=True),
            settings.validation_rollouts,
            settings.validation_windows,
            config.sampling.rate_hz,
        )
    else:
        logger.warning("no episode is held out: there will be no validation figures")
    identity = {
        "model": json.loads(json.dumps(asdict(model.config))),
        "encoder": fingerprint,
        "data": [dataset.fingerprint for dataset in datasets],
        "validation_fraction": None if held_out_data else config.validation_fraction,
    } | ({"loading": config.loading} if config.loading else {})
    task = WindowTask(
        model,
        config.training,
        lambda each: data.source(each, model, training),
        config.sampling,
        processes.items_each if processes.count > 1 else own_items,
    )
    trainer = Trainer(
        model,
        config.training,
        task,
        config.output,
        validation,
        identity,
        device,
        processes=processes,
        scale=config.scale,
        blocks=model.predictor.layers,
        block_methods=("context_key_value",),
        compiled_methods=("context_key_value", "own_frame", "after_context"),
        idle_parameters=not (config.training.hand_consistency or config.training.true_keypoints),
        meter=_meter(config, model.config, task, device, processes),
    )
    finished = run_trainer(trainer)
    return _finish(config, trainer, datasets, held_out_data, training, held_out, finished, ancestry)


def run_trainer(trainer: Trainer) -> bool:
    """Resume and train, the first process with a log in the trainer's folder; True when the last step is done."""
    trainer.resume()
    if not trainer.processes.is_first:
        return trainer.run()
    with TrainingLog(trainer.folder, trainer.config.steps, trainer.step) as log:
        trainer.report, trainer.on_step = log.report, log.advance
        return trainer.run()


def _meter(
    config: RunConfig, model: DexWMConfig, task: WindowTask, device: torch.device, processes: Processes
) -> Meter:
    """Counts operations of this run, against the device's peak where that is given or known."""
    training, encoded = config.training, config.latents == "online"
    teacher, unrolled = training_flops(model, training, encoded)
    deep = training_flops(model, training.deeper, encoded)[1]

    def flops(index: int) -> float:
        return deep if task.deep(index) else unrolled if task.unrolled(index) else teacher

    peak = config.scale.device_tflops or known_peak(device, training.bfloat16)
    return Meter(flops, processes.count, peak)


def _open_all(folders: tuple[Path, ...]) -> list[Dataset]:
    datasets = []
    for folder in folders:
        dataset = open_dataset(folder)
        if dataset.quarantined:
            shown = "; ".join(f"{file}: {reason}" for file, reason in dataset.quarantined[:3])
            logger.warning("%s: %d episodes are quarantined (%s)", folder, len(dataset.quarantined), shown)
        if not len(dataset):
            raise ValueError(f"{folder} holds no readable episode ({len(dataset.quarantined)} are quarantined)")
        datasets.append(dataset)
    return datasets


def split_by_scene(datasets: list[Dataset], fraction: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Indices of training and of held-out episodes of each dataset; about `fraction` is held out.

    All episodes of a scene (simulator seed) fall on one side, the same one in every run and in every dataset.
    """
    training, held_out = [], []
    for dataset in datasets:
        scenes = zip(dataset.ids, dataset.episode_seeds, strict=True)
        names = [name if seed is None else f"seed {seed}" for name, seed in scenes]
        digests = (hashlib.sha256(name.encode()).digest() for name in names)
        out = np.array([int.from_bytes(digest[:8], "big") / 2**64 < fraction for digest in digests])
        training.append(np.flatnonzero(~out))
        held_out.append(np.flatnonzero(out))
    return training, held_out


def _initial_model(
    config: RunConfig, model_config: DexWMConfig | None, datasets: list[Dataset], device: torch.device
) -> DexWM:
    if config.initial is not None:
        return DexWM.from_pretrained(checkpoint_path(config.initial))
    model_config = config.encoder.applied(model_config or preset(config.preset))
    torch.manual_seed(config.training.seed)  # the modules draw their first weights from torch's generator
    model = DexWM(model_config)
    if isinstance(model.encoder, PCAEncoder):
        sized = [resized(dataset, model_config.image_size) for dataset in datasets]
        state = fitted_encoder(model_config, sized, config.encoder_frames, config.training.seed, device)
        model.encoder.load_state_dict(state)
    return model


def _training_data(
    config: RunConfig,
    datasets: list[Dataset],
    model: DexWM,
    fingerprint: str,
    device: torch.device,
    processes: Processes,
) -> TrainingData:
    mix, rank, count = config.sampling.mix, processes.rank, processes.count
    if config.latents == "cached":
        return CachedData(datasets, model.to(device), fingerprint, mix, config.training.seed, device, rank, count)
    return OnlineData(
        datasets,
        model.config.image_size,
        mix,
        config.training,
        device,
        augment=config.augment,
        workers=config.workers,
        strict=config.strict,
        rank=rank,
        world_size=count,
    )


def _with_fitted_scale(model: DexWM, source: WindowSource, seed: int) -> DexWM:
    """The same model with the action scale of the data; raw actions, as in the paper's presets, stay raw."""
    if model.config.action_scale == (1.0, 1.0, 1.0):
        return model
    scale = fit_action_scale(source, model.config)
    logger.info("action scale: keypoints %.4f m, camera %.4f m and %.4f rad", *scale)
    torch.manual_seed(seed)
    scaled = DexWM(replace(model.config, action_scale=scale))
    scaled.encoder.load_state_dict(model.encoder.state_dict())
    return scaled


def _finish(
    config: RunConfig,
    trainer: Trainer,
    datasets: list[Dataset],
    held_out_data: list[Dataset],
    training: list[np.ndarray],
    held_out: list[np.ndarray],
    finished: bool,
    ancestry: dict[str, Any] | None,
) -> Path:
    figures = trainer.figures or trainer.validate()
    provenance = {
        **data_provenance(datasets, training, held_out_data, held_out, ancestry),
        "initial": without_folders(config.initial) if config.initial else None,
        "initial_provenance": ancestry,
        "training": asdict(config.training),
        **({"loading": config.loading} if config.loading else {}),
    }
    return save_run(trainer, config.output, provenance, figures, finished)


def data_provenance(
    datasets: list[Dataset],
    training: list[np.ndarray],
    held_out_data: list[Dataset],
    held_out: list[np.ndarray],
    ancestry: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a model card needs to know about data, as JSON values.

    training, held_out: numbers of the episodes, as from `split_by_scene`. ancestry: provenance of the model that
    training began from, if any; a fine-tuned one has seen what its ancestors were trained on.
    """
    seeds = [[dataset.seeds[0], dataset.seeds[-1]] for dataset in datasets if dataset.seeds]
    inherited = [list(pair) for pair in (ancestry or {}).get("training_seeds", []) if list(pair) not in seeds]
    return {
        "training_seeds": seeds + inherited,
        "datasets": [
            {
                "name": dataset.folder.name,
                "settings": dataset.settings,
                "episodes": len(dataset),
                "training_episodes": len(episodes),
                "frames": sum(dataset.lengths),
                "quarantined": len(dataset.quarantined),
                "fingerprint": dataset.fingerprint,
            }
            for dataset, episodes in zip(datasets, training, strict=True)
        ],
        "validation_datasets": [{"name": each.folder.name, "settings": each.settings} for each in held_out_data],
        "validation_episodes": sum(len(episodes) for episodes in held_out),
    }


def save_run(
    trainer: Trainer,
    output: Path,
    provenance: dict[str, Any],
    figures: dict[str, float],
    finished: bool,
    packages: tuple[str, ...] = (),
) -> Path:
    """Write the trained model to `output`/model and the run's results.json; returns the model's folder. All processes
    call it, the first one writes.

    provenance: what only this kind of run knows; command, steps, time, figures and versions are added here. packages:
    further ones whose versions matter.
    """
    seconds = round(trainer.seconds, 1)
    provenance = provenance | {
        "command": command_line(),
        "steps": trainer.step,
        "finished": finished,
        "seconds": seconds,
        "processes": trainer.processes.count,
        "figures": figures,
        "code": code_version(),
        "versions": {
            **{name: version(name) for name in ("dexworld", "torch", "numpy", *packages)},
            "python": platform.python_version(),
        },
    }
    folder = output / "model"
    with trainer.averaged() as model:
        if trainer.processes.is_first:
            model.save_pretrained(folder, provenance)
    if not trainer.processes.is_first:
        return folder
    results = {"steps": trainer.step, "finished": finished, "seconds": seconds, "validation": figures}
    write_json(output / "results.json", results)
    return folder


def code_version() -> str:
    """A digest of the package's source files, the same for equal code wherever it lies; 16 hexadecimal digits."""
    root = Path(dexworld.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def command_line() -> str:
    """This process's command line, for a model card: absolute paths are cut to their last part."""
    return shlex.join(without_folders(word) for word in sys.argv)


def without_folders(word: str) -> str:
    """The last part of an absolute path, any other word as it is: a model card is no place for somebody's folders."""
    return Path(word).name if Path(word).is_absolute() else word
