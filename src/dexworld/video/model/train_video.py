"""From triplet folders to a trained video model: what `dexworld video train` runs (see `fit` for what it leaves)."""

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.evaluation.guard import training_ranges
from dexworld.models.checkpoint import lasting_place
from dexworld.models.reference import checkpoint_path
from dexworld.training import checkpoints
from dexworld.training.distributed import local_device
from dexworld.training.fit import run_trainer, without_folders
from dexworld.training.train_config import fixed_settings
from dexworld.training.trainer import Trainer
from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.triplets import TripletFolder, open_triplets
from dexworld.video.model.clip_latents import (
    LatentFolder,
    check_clips,
    codec_fingerprint,
    encode_folder,
    fit_codec,
    tensors_digest,
)
from dexworld.video.model.dwm import DWM, load_base, started_from
from dexworld.video.model.generate import folder_prompts
from dexworld.video.model.lora import LoRAConfig, add_lora, has_lora
from dexworld.video.model.prompt_embeddings import check_text_encoder, embed_prompts
from dexworld.video.model.video_config import CONCATENATED, CONDITIONS, Condition, DWMConfig, Prediction, preset
from dexworld.video.model.video_task import VideoTask, VideoTrainConfig, VideoValidation, check_losses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoRunConfig:
    """A training run: which data, which model, where to. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...] = ()
    """Triplet folders (`dexworld video prepare`, `dexworld video synthesize`)."""
    output: Path = Path("outputs/video-train")
    """Folder of the run; a run that was stopped goes on there."""
    preset: str = "mini"
    """Model preset, for new weights."""
    condition: Condition = "mesh"
    """How the model sees the hands."""
    prediction: Prediction | None = None
    """What the transformer predicts; the preset's when not given."""
    reference: bool = False
    """The model also sees the hands in the colour of skin that the first frame shows; see `--reference-dropout`."""
    initial: str | None = None
    """Model folder or hub id to start from, e.g. an inpainting pre-training. Its codec and size are kept; a further
    condition starts at zero, so that the first step's answer is the initial model's."""
    base: str | None = None
    """Published weights to start from instead, in diffusers' or VideoX-Fun's layout: a folder or hub id of CogVideoX,
    CogVideoX-Fun, Wan 2.1 or Wan-Fun. Its prediction and, unless `clip_shape` is given, its clip size are kept."""
    clip_shape: tuple[int, int, int] | None = None
    """Frames, height and width of the clips, e.g. 17 240 368, instead of the preset's or the base's: Wan's
    positions are free (by default 49 frames of 480 x 720), CogVideoX was trained at one size."""
    lora_rank: int = 0
    """Train low-rank adapters and the patch embedding only (64 in the DWM release); 0 trains everything."""
    text_encoder: str | None = None
    """Folder or hub id with `text_encoder/` and `tokenizer/`, for prompts; without one a model sees no text."""
    recompute: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""
    weights: tuple[float, ...] = ()
    """How often each data folder is drawn from, relative to the others; by its number of clips when not given."""
    validation_data: tuple[Path, ...] = ()
    """Triplet folders of held-out scenes."""
    cache: Path | None = None
    """Folder for latents; by default beside the data, or the user's cache folder where that can't be written."""
    codec_clips: int = 100
    """Clips that a new pca codec is fitted on."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""
    training: VideoTrainConfig = field(default_factory=VideoTrainConfig)
    """Steps, losses, optimiser."""

    def __post_init__(self) -> None:
        if self.weights and (len(self.weights) != len(self.data) or not all(each > 0 for each in self.weights)):
            count = len(self.data)
            raise ValueError(f"weights are {self.weights}; give one positive number for each of {count} data folders")
        if self.clip_shape is not None and self.initial is not None:
            raise ValueError("the initial model keeps its clips: leave out `clip_shape`, or `initial`")
        if self.codec_clips < 1:
            raise ValueError(f"codec_clips is {self.codec_clips}; it must be positive")
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition is {self.condition!r}; choose from {', '.join(CONDITIONS)}")
        if self.base is not None and self.initial is not None:
            raise ValueError("base and initial both say where to start from; give one of them")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank is {self.lora_rank}; it is positive, or 0 for full training")
        if self.training.goal == "inpainting" and self.condition != "none":
            raise ValueError("inpainting pre-training sees no hands: use condition 'none' with goal 'inpainting'")


def train_video(config: VideoRunConfig) -> Path:
    """Train, or go on with a run, and return the model's folder. Raises ValueError, ResumeError or TrainingDiverged."""
    if config.lora_rank and config.base is None and config.initial is None:
        raise ValueError("lora_rank adapts a trained model; give the `base` or `initial` that it adapts")
    device, folders, held_out = open_run(config)
    model, ancestry = initial_model(config, folders, held_out)
    seeds = trained_seeds(folders, ancestry)
    check_held_out(held_out, seeds)
    # Every checkpoint of the run is to know these, not only its last one.
    model.provenance = {
        "base": model.provenance.get("base"),
        "training_seeds": seeds,
        "training": asdict(config.training),
        "text_encoder": without_folders(config.text_encoder) if config.text_encoder else None,
        "initial": without_folders(config.initial) if config.initial else None,
        "initial_provenance": ancestry,
        "finished": False,
    }
    model.to(device)
    encoded = [_encoded(folder, model, config) for folder in folders]
    validation = None
    if held_out:
        latents = [_encoded(folder, model, config) for folder in held_out]
        validation = VideoValidation(latents, config.training.validation_clips, config.training)
    else:
        logger.warning("no validation data was given: there will be no validation figures")
    identity = {"model": asdict(model.config), "codec": codec_fingerprint(model), **_settings(config, folders)}
    if config.lora_rank:  # a checkpoint holds what is trained only, so the rest must be the same again
        fixed = {name: each for name, each in model.backbone.named_parameters() if not each.requires_grad}
        identity |= {"base": _place(config.base), "initial": _place(config.initial), "frozen": tensors_digest(fixed)}
    task = VideoTask(model, config.training, encoded, config.weights)
    trainer: Trainer[DWM] = Trainer(model, config.training, task, config.output, validation, identity, device)
    provenance = {
        **model.provenance,
        "datasets": [_described(folder) for folder in folders],
        "validation_datasets": [{"name": each.root.name, "clips": len(each)} for each in held_out],
        "weights": list(config.weights),
    }
    return run_trainer(trainer, provenance, packages=("diffusers",))


def open_run(config: VideoRunConfig) -> tuple[torch.device, list[TripletFolder], list[TripletFolder]]:
    """The device, the training and the validation folders of a run, checked as far as no model is needed."""
    device = local_device(config.device)
    if not config.data:
        raise ValueError("data names no triplet folder; make one with `dexworld video synthesize` first")
    folders = [open_triplets(folder) for folder in config.data]
    held_out = [open_triplets(folder) for folder in config.validation_data]
    settings = {"training": fixed_settings(config.training), **_settings(config, folders)}
    checkpoints.check_settings(config.output / "checkpoints", settings)
    return device, folders, held_out


def _settings(config: VideoRunConfig, folders: list[TripletFolder]) -> dict[str, Any]:
    """What a continued run must share, as far as it is known without a model."""
    settings = {"data": [folder.fingerprint for folder in folders], "weights": list(config.weights)}
    return settings | {"lora_rank": config.lora_rank, "text_encoder": _place(config.text_encoder)}


def _place(name: str | None) -> str | None:
    return None if name is None else lasting_place(name)


def check_data(config: VideoRunConfig, model: DWMConfig, folders: list[TripletFolder]) -> None:
    """Refuse what a model can't be trained on, before anything is encoded. Raises ValueError naming the clip."""
    if config.text_encoder is not None:
        check_text_encoder(config.text_encoder, model.backbone)
    check_losses(model, config.training)
    for folder in folders:
        check_clips(folder, model)


def _described(folder: TripletFolder) -> dict[str, Any]:
    what = {"name": folder.root.name, "settings": dict(folder.settings), "clips": len(folder)}
    return what | {"fingerprint": folder.fingerprint}


def initial_model(
    config: VideoRunConfig, folders: list[TripletFolder], held_out: list[TripletFolder]
) -> tuple[DWM, dict[str, Any] | None]:
    """The model that training starts from, checked against new data, and the provenance of the one it was made of."""
    interrupted = checkpoints.latest(config.output / "checkpoints")
    torch.manual_seed(config.training.seed)  # the modules draw their first weights from torch's generator
    ancestry = None
    if config.base is not None:
        _check_lora(config, "none")
        clip = None if config.clip_shape is None else ClipShape(*config.clip_shape)
        model = load_base(config.base, clip, config.condition, reference=config.reference)
    elif config.initial is not None:
        base = DWM.from_pretrained(checkpoint_path(config.initial))
        _check_lora(config, base.config.condition)
        model, ancestry = started_from(base, config.condition, config.prediction, config.reference)
        ancestry = dict(ancestry)
    else:
        model = DWM(preset_config(config))
    if interrupted is None:
        check_held_out(held_out, trained_seeds(folders, ancestry))
        check_data(config, model.config, folders + held_out)
    if config.base is None and config.initial is None and model.config.codec.kind == "pca":
        if interrupted is not None:
            model.codec = DWM.from_pretrained(interrupted).codec  # the one that the run's latents are of
        else:
            fit_codec(model, folders, config.codec_clips, config.training.seed)
    transformer = model.backbone.transformer
    if config.lora_rank and not has_lora(transformer):
        model.provenance = {**model.provenance, "base": _place(config.base or config.initial)}
        model.backbone.requires_grad_(False)  # layers around the transformer stay as they are in the base
        add_lora(transformer, LoRAConfig(config.lora_rank, config.lora_rank), config.training.seed)
    model.backbone.recompute(config.recompute)
    return model, ancestry


def preset_config(config: VideoRunConfig) -> DWMConfig:
    """The config of a run's model of new weights."""
    settings = preset(config.preset)
    clip = settings.clip if config.clip_shape is None else ClipShape(*config.clip_shape, settings.clip.fps)
    prediction = config.prediction or settings.prediction
    settings = replace(settings, clip=clip, condition=config.condition, prediction=prediction)
    return replace(settings, reference=config.reference)


def _check_lora(config: VideoRunConfig, base: Condition) -> None:
    """Refuse adapters with a condition whose layers neither they nor their base would hold."""
    if config.lora_rank and config.condition not in (*CONCATENATED, "none", base):
        what = f"condition {config.condition!r} adds layers that a LoRA adapter lacks"
        raise ValueError(f"{what}; train in full (lora_rank 0)")


def _encoded(folder: TripletFolder, model: DWM, config: VideoRunConfig) -> LatentFolder:
    encoded = encode_folder(folder, model, config.cache)
    if config.text_encoder is None:
        return encoded
    prompts, place = list(folder_prompts(folder)), encoded.folder.parent
    texts = embed_prompts(prompts, model.config.backbone, config.text_encoder, place, model.device)
    return replace(encoded, texts={name: texts[prompt] for name, prompt in zip(folder.names, prompts, strict=True)})


def trained_seeds(folders: list[TripletFolder], ancestry: dict[str, Any] | None) -> list[list[int]]:
    """[first, last] ranges of the simulator seeds that a model has seen: its own, and those of its ancestors."""
    seeds = [list(pair) for folder in folders for pair in seed_ranges(folder)]
    recorded = training_ranges(ancestry) if ancestry and ancestry.get("training_seeds") else []
    return seeds + [list(pair) for pair in recorded if list(pair) not in seeds]


def check_held_out(held_out: list[TripletFolder], trained: list[list[int]]) -> None:
    """Raise ValueError naming a validation folder that holds scenes which are trained on."""
    for folder in held_out:
        shared = sorted(seed for seed in folder.seeds.values() if any(low <= seed <= high for low, high in trained))
        if shared:
            found = f"{len(shared)} of {len(folder)} validation clips in {folder.root} are of training scenes"
            raise ValueError(f"{found} (the first seed is {shared[0]}); make clips of other seeds")


def seed_ranges(folder: TripletFolder) -> list[tuple[int, int]]:
    """The simulator seeds of a folder as [first, last] ranges without gaps; none for real video."""
    seeds = np.unique(np.array(sorted(folder.seeds.values()), dtype=int))
    if not len(seeds):
        return []
    parts = np.split(seeds, np.flatnonzero(np.diff(seeds) != 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]
