"""From dataset folders to a trained world model: what `dexworld train` runs (see `fit` for what it leaves)."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dexworld.data.source import Dataset
from dexworld.data.windows import DEFAULT_COLUMNS
from dexworld.models.config import DexWMConfig
from dexworld.models.encoders import EncoderChoice
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.world_model import Blocks, build_world_model, load_world_model, model_class, preset
from dexworld.training.checkpoints import check_settings
from dexworld.training.cost import Meter, known_peak, training_flops
from dexworld.training.distributed import Processes, local_device
from dexworld.training.fit import fit, without_folders
from dexworld.training.run_data import DataConfig, RunData, fit_encoder
from dexworld.training.sources import TrainingData, check_acting, open_data
from dexworld.training.train_config import SamplingConfig, ScaleConfig, TrainConfig, fixed_settings
from dexworld.training.trainer import Trainer
from dexworld.training.validation import Validation
from dexworld.training.window_task import WindowTask, check_losses, window_strategies

FIT_WINDOWS = 512  # windows that the action scale is measured on


@dataclass(frozen=True)
class RunConfig(DataConfig):
    """A training run: which data, which model, where to. Raises ValueError naming the field that makes no sense."""

    preset: str = "tiny"
    """Model preset."""
    initial: str | None = None
    """Checkpoint to start from instead of new weights: a folder, a Hugging Face id, or `reference`. Its encoder is
    kept."""
    sentences: str | None = None
    """Sentence encoder of a `text-...` preset: `universal` (the extra `text`), `hashed` (needs nothing), or a folder
    or Hugging Face id of a T5 or CLIP."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Which frames make a window, and how the data folders are mixed."""
    augment: bool = False
    """Change colours and sharpness of whole clips as the release does (online latents only)."""
    strict: bool = False
    """Stop at the first episode that can't be read, instead of naming, counting and replacing it (online latents)."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """How the machines are used."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """Steps, losses, optimiser."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.initial is not None and (self.encoder != EncoderChoice() or self.sentences is not None):
            raise ValueError("a model to start from keeps its encoders: leave out their options, or `initial`")
        if self.augment and self.latents == "cached":
            raise ValueError("cached latents can't be augmented; add `--latents online`")

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each data folder in what is drawn; () is as large as its data."""
        return self.sampling.mix


def train(config: RunConfig, model_config: Any = None) -> Path:
    """Train a world model, or go on with a run that was stopped, and return the folder of the model.

    model_config: the model instead of the preset's. Raises ValueError for data that is missing or does not fit,
    StaleCacheError, ResumeError or TrainingDiverged with what to do.
    """
    return fit(partial(_prepare, config, model_config), config.device, config.scale)


def check_run(config: RunConfig, model_config: Any = None) -> tuple[RunData, Any]:
    """The data of a run, and the config of its model; everything is checked that can be before anything heavy.

    Raises what `train` raises.
    """
    local_device(config.device)
    data, training = RunData.open(config), config.training
    if config.initial is not None:
        model_config = load_world_model(config.initial).config
    else:
        model_config = chosen_model(config, model_config)
    model = model_class(model_config)
    check_losses(model, training)
    strategy = window_strategies(model_config.num_context, training, config.sampling)[0]
    check_acting(data, strategy, tuple(getattr(model, "columns", DEFAULT_COLUMNS)))
    settings = {"training": fixed_settings(training), "loading": _loading(config), **data.identity(config)}
    check_settings(config.output / "checkpoints", settings)
    return data, model_config


def chosen_model(config: RunConfig, model_config: Any = None) -> Any:
    """The config of a new model with the encoders that the run asks for. Raises ValueError for one it can't have."""
    chosen = config.encoder.applied(model_config or preset(config.preset))
    if config.sentences is None:
        return chosen
    if not hasattr(chosen, "with_sentences"):
        raise ValueError(f"{type(chosen).__name__} reads no sentences; choose a preset `text-...`, or leave them out")
    return chosen.with_sentences(config.sentences)


def _loading(config: RunConfig) -> dict[str, Any]:
    return {"latents": config.latents, "augment": config.augment, "sampling": asdict(config.sampling)}


def _prepare(
    config: RunConfig, model_config: Any, device: torch.device, processes: Processes
) -> tuple[Trainer[Any], dict[str, Any]]:
    training = config.training
    data, model_config = check_run(config, model_config)
    with processes.first_alone():  # it fits the encoder, the others read what it wrote
        model = initial_model(config, model_config, data.datasets, device)
    ancestry = model.provenance if config.initial is not None else None
    fingerprint, encoder = encoder_fingerprint(model.encoder), model.encoder.to(device)
    options = (device, processes, config.augment, config.strict)
    source, shown = open_data(config, training, data, encoder, fingerprint, *options)
    if config.initial is None:
        torch.manual_seed(training.seed)
        model = scaled_to_data(model, source, data, config)
    columns = tuple(getattr(model, "columns", DEFAULT_COLUMNS))
    validation = None
    if data.validates:
        held_out = partial(shown.source, episodes=data.held_out, columns=columns, shown=True)
        sizes = (training.validation_rollouts, training.validation_windows)
        validation = Validation(held_out, *sizes, config.sampling.rate_hz)
    identity = {"model": asdict(model.config), "encoder": fingerprint, **data.identity(config)}
    windows = partial(source.source, episodes=data.training, columns=columns)
    task = WindowTask(model, training, windows, config.sampling, processes.items_each)
    loading = _loading(config)
    provenance = {
        **data.provenance(ancestry),
        "initial": without_folders(config.initial) if config.initial else None,
        "initial_provenance": ancestry,
        "training": asdict(training),
        "loading": loading,
    }
    places = (config.output, validation, identity | {"loading": loading}, device, processes, config.scale)
    blocks, meter = getattr(model, "blocks", Blocks([])), _meter(config, model, task, device, processes)
    idle_parameters = not (training.hand_consistency or training.true_keypoints)
    return Trainer(model, training, task, *places, blocks, idle_parameters, meter), provenance


def scaled_to_data(model: Any, source: TrainingData, data: RunData, config: RunConfig) -> Any:
    """The model with actions scaled to windows of the training data and new weights, where its kind scales them."""
    if not hasattr(model, "scaled_to"):
        return model
    strategy = window_strategies(model.config.num_context, config.training, config.sampling)[0]
    columns = tuple(getattr(model, "columns", DEFAULT_COLUMNS))
    window = source.labels(strategy, data.training, columns).batch(0, FIT_WINDOWS)
    return model.scaled_to(window.track, window.slots[1:] > window.repeats[:, None])


def initial_model(config: RunConfig, model_config: Any, datasets: list[Dataset], device: torch.device) -> Any:
    """The model that training starts from, with a fitted encoder."""
    if config.initial is not None:
        return load_world_model(config.initial)
    model_config = chosen_model(config, model_config)
    torch.manual_seed(config.training.seed)  # the modules draw their first weights from torch's generator
    model = build_world_model(model_config)
    fit_encoder(model.encoder, datasets, config.encoder_frames, config.training.seed, device, config.cache)
    return model


def _meter(config: RunConfig, model: Any, task: WindowTask, device: torch.device, processes: Processes) -> Meter:
    """Counts operations where a closed form is known, against the device's peak where that is given or known."""
    training, model_config = config.training, model.config
    if not isinstance(model_config, DexWMConfig):
        return Meter(devices=processes.count)

    def flops(index: int) -> float:
        return training_flops(model_config, training, config.latents == "online", task.unroll_steps(index))

    return Meter(flops, processes.count, config.scale.device_tflops or known_peak(device, training.bfloat16))
