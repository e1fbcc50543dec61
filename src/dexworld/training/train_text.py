"""From pictures with described objects to a world model that understands sentences: `dexworld train text` (see `fit`).

Sentences are drawn while training (`captions.py`). The head learns on the maps of the model's point head, which stay
as they are, and so does everything else.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.data.sampling import EveryFrame
from dexworld.data.windows import DEFAULT_COLUMNS, Window
from dexworld.geometry import invert, project, transform_points
from dexworld.models.config import TextConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.sentences import SentenceEncoder, UniversalSentenceEncoder, word_vectors
from dexworld.models.world_model import load_world_model
from dexworld.training.captions import Caption, Scene, Wording, draw_caption
from dexworld.training.checkpoints import check_settings
from dexworld.training.distributed import Processes
from dexworld.training.fit import fit, without_folders
from dexworld.training.losses import heatmap_cross_entropy
from dexworld.training.run_data import DataConfig, RunData
from dexworld.training.sources import WindowSource, open_data
from dexworld.training.train_config import LoopConfig, check_not_negative, check_positive, fixed_settings
from dexworld.training.train_points import extended
from dexworld.training.trainer import Trainer

OBJECTS = ("object_kinds", "object_colours", "object_positions")
COLUMNS = (*DEFAULT_COLUMNS, *OBJECTS, "points_visible")  # the first points are the objects' centres
CHUNK = 32  # pictures at a time in validation
_UNIT_PX = 8.0  # an error of the end that costs about 1


@dataclass(frozen=True)
class TextTrainConfig(LoopConfig):
    """Training of a text head. Raises ValueError naming the field that makes no sense."""

    steps: int = 3000
    """Optimiser steps in all."""
    batch_size: int = 12
    """Pictures in a batch."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    sentences: int = 8
    """Sentences of each picture in a batch."""
    sigma_px: float = 4.0
    """Standard deviation of the objects' target Gaussians, in pixels of the model's image."""
    jitter_px: float = 1.0
    """Standard deviation of where objects are said to be when their place is to be told: finding them is not exact."""
    word_noise: float = 0.01
    """Standard deviation of what is added to the words' vectors, of length 1: other words for the same lie near."""
    ema: float = 0.995
    """Decay of the averaged weights, which are what is saved; 0 saves the trained weights themselves."""
    validation_pictures: int = 384
    """Pictures in each validation figure."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_pictures"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sentences", "sigma_px", "validation_pictures")
        check_not_negative(self, "jitter_px", "word_noise")


@dataclass(frozen=True)
class TextRunConfig(DataConfig):
    """A training run of a text head. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...] = ()
    """Dataset folders whose objects are described, as `dexworld collect ... pairs` and `pushes` make them."""
    output: Path = Path("outputs/text")
    """Folder of the run; a run that was stopped goes on there."""
    checkpoint: str = "reference"
    """World model with a point head that learns to understand sentences: a folder, a Hugging Face id, or `reference`.
    It keeps what it has."""
    text: TextConfig = field(default_factory=TextConfig)
    """Size of the head, for a world model that has none yet."""
    training: TextTrainConfig = field(default_factory=TextTrainConfig)
    """Steps, losses, optimiser."""


@dataclass(frozen=True)
class TextBatch:
    """B sentences about N pictures with latents (N, P, D): the vectors of their words (B, L, W).

    picture: (B,) which picture a sentence is about. start, anchor, end: pixels (B, 2) of the object that is to be
    moved, of the one that its place is relative to, and of where it should be.
    """

    latents: Tensor
    words: Tensor
    picture: Tensor
    start: Tensor
    anchor: Tensor
    end: Tensor


def scenes_of(window: Window) -> list[Scene]:
    """The B scenes of a window's first frames."""
    kinds, colours, positions = (window.track[name][:, 0].numpy() for name in OBJECTS)
    shown = window.track["points_visible"][:, 0, : kinds.shape[1]].numpy() & (kinds >= 0)
    return list(map(Scene, kinds, colours, positions, shown, window.track.world_from_camera[:, 0].numpy()))


def captioned(
    window: Window, encoder: SentenceEncoder, seed: int, count: int, wording: Wording = "seen"
) -> tuple[TextBatch, list[tuple[int, Caption]]]:
    """A batch of up to `count` sentences about each picture of a window, and (picture, caption) of each.

    The sentences depend on the seed and on the samples' numbers alone. Pictures in which nothing can be named are left
    out.
    """
    scenes = scenes_of(window)
    found: list[tuple[int, Caption]] = []
    for row, (scene, number) in enumerate(zip(scenes, window.numbers.tolist(), strict=True)):
        rng = np.random.default_rng([seed, number])
        captions = (draw_caption(rng, scene, wording) for _ in range(count))
        found += [(row, caption) for caption in captions if caption is not None]
    rows, points = torch.tensor([row for row, _ in found], dtype=torch.long), np.zeros((len(found), 3, 3), np.float32)
    for place, (row, caption) in zip(points, found, strict=True):
        scene, meaning = scenes[row], caption.meaning
        place[:2], place[2] = scene.positions[[meaning.moved, meaning.anchor]], scene.end(meaning)
    track = window.track
    seen = transform_points(invert(track.world_from_camera[rows, 0]), torch.from_numpy(points))
    pixels, _ = project(seen, track.intrinsics[rows])
    sentences = [caption.sentence for _, caption in found]
    words = word_vectors(encoder, sentences) if found else torch.zeros(0, 1, encoder.width)
    return TextBatch(window.latents[:, 0], words, rows, *pixels.unbind(1)), found


class TextTask:
    """Pictures with sentences about them, and what a text head loses on them (a `trainer.Task`)."""

    def __init__(self, model: DexWM, config: TextTrainConfig, source: WindowSource, encoder: SentenceEncoder) -> None:
        self.model, self.config, self.source, self.encoder = model, config, source, encoder

    def batch(self, index: int, device: torch.device) -> tuple[TextBatch, int]:
        """This process's share of batch number `index`, and the sentences of the whole batch."""
        size, count = self.config.batch_size, self.config.sentences
        batch, _ = captioned(self.source.batch(index, size), self.encoder, self.config.seed, count)
        return TextBatch(*(getattr(batch, each.name).to(device) for each in fields(batch))), size * count

    def contents(self, batch: TextBatch) -> dict[str, Tensor]:
        """The batch's tensors by name."""
        return {each.name: getattr(batch, each.name) for each in fields(batch)}

    def broken_data(self, batch: TextBatch) -> str:
        """Whether latents are not finite."""
        return "" if torch.isfinite(batch.latents).all() else " Latents are not finite: delete the data's cache."

    def losses(self, batch: TextBatch, index: int) -> dict[str, Tensor]:
        """Scalars: `loss`, and its parts `start`, `anchor` and `end`."""
        head, sigma, count = self.model.text, self.config.sigma_px, max(1, len(batch.words))
        generator = torch.Generator().manual_seed(index)
        noise = self.config.word_noise * torch.randn(batch.words.shape, generator=generator).to(batch.words)
        roles = head.roles(batch.words + noise * (batch.words != 0).any(dim=-1, keepdim=True))
        with torch.no_grad():
            maps = self.model.points.maps(batch.latents)
        logits, names = head.heatmaps(roles, head.features(maps)[batch.picture]).float(), ("start", "anchor")
        losses = {
            name: heatmap_cross_entropy(logits[:, role], getattr(batch, name), head.image_size, sigma).sum() / count
            for role, name in enumerate(names)
        }
        noise = self.config.jitter_px * torch.randn(2, *batch.start.shape, generator=generator).to(batch.start)
        noise[1] = torch.where((batch.start == batch.anchor).all(-1, keepdim=True), noise[0], noise[1])
        end = head.end(roles, batch.start + noise[0], batch.anchor + noise[1])
        losses["end"] = F.smooth_l1_loss(end / _UNIT_PX, batch.end / _UNIT_PX, reduction="sum") / count
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}


@torch.no_grad()
def text_figures(
    source: WindowSource, pictures: int, encoder: SentenceEncoder, model: DexWM, device: torch.device
) -> dict[str, float]:
    """Figures on a sentence about each of `pictures` pictures of a source, always the same ones, for each wording.

    `seen`: words and pairs of colour and kind of training; `words`: with other words; `pairs`: with other pairs.
    `start_px`, `end_px`: median errors. `right`: the share whose start lies nearer to the right object's centre than to
    any other's. `chance`: the same for any shown object.
    """
    figures: dict[str, float] = {}
    for wording in ("seen", "words", "pairs"):
        parts: dict[str, list[Tensor]] = {name: [] for name in ("start", "end", "right", "chance")}
        for step in range(ceil(pictures / CHUNK)):
            window = source.batch(step, CHUNK)
            batch, found = captioned(window.to("cpu"), encoder, 0, 1, wording)
            if not found:
                continue
            features = model.text.features(model.points.maps(batch.latents.to(device)))[batch.picture]
            start, end = (each.cpu() for each in understood(model, features, batch.words.to(device)))
            rows = batch.picture
            track, positions = window.track, window.track["object_positions"][rows, 0].float()
            seen = transform_points(invert(track.world_from_camera[rows, 0]), positions)
            places, _ = project(seen, track.intrinsics[rows])
            away = (places - start[:, None]).norm(dim=-1).nan_to_num(torch.inf)
            moved = torch.tensor([caption.meaning.moved for _, caption in found])
            parts["right"].append((away.argmin(dim=1) == moved).float())
            parts["chance"].append(1.0 / (window.track["object_kinds"][rows, 0] >= 0).sum(dim=1).float())
            parts["start"].append((start - batch.start).norm(dim=-1))
            parts["end"].append((end - batch.end).norm(dim=-1))
        if parts["start"]:
            values = {name: torch.cat(each) for name, each in parts.items()}
            figures |= {f"{wording}_{name}_px": float(values[name].median()) for name in ("start", "end")}
            figures |= {f"{wording}_{name}": float(values[name].mean()) for name in ("right", "chance")}
    return figures


def understood(model: DexWM, features: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (B, 2) each of what is to be moved and of where to, for words (B, L, W) and features (B, D, h, w)."""
    roles = model.text.roles(words)
    start, anchor = model.points.read(model.text.heatmaps(roles, features)).unbind(1)
    return start, model.text.end(roles, start, anchor)


def train_text(
    config: TextRunConfig, sentence_encoder: Callable[[], SentenceEncoder] = UniversalSentenceEncoder
) -> Path:
    """Train a world model's text head, or go on with a run that was stopped, and return the folder of the model.

    Raises ValueError for data that is missing or does not fit, ImportError without the sentence encoder's package,
    ResumeError or TrainingDiverged with what to do. Under torchrun all processes call this and share the batches (DDP).
    """
    return fit(partial(_prepare, config, sentence_encoder), config.device)


def _prepare(
    config: TextRunConfig,
    sentence_encoder: Callable[[], SentenceEncoder],
    device: torch.device,
    processes: Processes,
) -> tuple[Trainer[DexWM], dict[str, Any]]:
    training, encoder, data = config.training, sentence_encoder(), RunData.open(config)
    torch.manual_seed(training.seed)  # the head draws its first weights from torch's generator
    model = load_world_model(config.checkpoint)
    if not isinstance(model, DexWM) or model.config.points is None:
        raise ValueError(f"{config.checkpoint} has no point head, whose maps sentences need: `dexworld train points`")
    model = model if model.config.text is not None else extended(model, text=config.text)
    if model.config.text.words != encoder.width:
        wide = f"{model.config.text.words} numbers a word, the sentence encoder gives {encoder.width}"
        raise ValueError(f"the text head reads {wide}: set `--words {encoder.width}`")
    model.requires_grad_(False).text.requires_grad_(True)
    data, fingerprint = data.resized(model.config.image_size), encoder_fingerprint(model.encoder)
    identity = {**data.identity(config), "encoder": fingerprint}
    check_settings(config.output / "checkpoints", {"training": fixed_settings(training), **identity})
    opened, shown = open_data(config, training, data, model.encoder.to(device), fingerprint, device, processes)
    validation = None
    if data.validates:
        held_out = shown.source(EveryFrame(), data.held_out, COLUMNS, shown=True)
        validation = partial(text_figures, held_out, training.validation_pictures, encoder)
    task = TextTask(model, training, opened.source(EveryFrame(), data.training, COLUMNS), encoder)
    identity |= {"model": asdict(model.config)}
    provenance = {
        **data.provenance(model.provenance),
        "initial": without_folders(config.checkpoint),
        "initial_provenance": model.provenance,
        "training": asdict(training),
    }
    return Trainer(model, training, task, config.output, validation, identity, device, processes), provenance
