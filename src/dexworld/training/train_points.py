"""From pushes and static pairs to a world model that knows points: what `dexworld train points` runs (see `fit`).

The head learns to find points on true latents and to follow them under hands. With `consistency` it reads predicted
latents too, and the gradient goes on through the predictor.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.data.sampling import StrideSampling
from dexworld.data.windows import DEFAULT_COLUMNS, Window
from dexworld.forecast import Forecast
from dexworld.models.config import PointsConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.points import PointHead
from dexworld.models.world_model import load_world_model
from dexworld.training.checkpoints import check_settings
from dexworld.training.distributed import Processes
from dexworld.training.fit import fit, without_folders
from dexworld.training.losses import heatmap_cross_entropy, inside_image, latent_loss
from dexworld.training.run_data import DataConfig, RunData
from dexworld.training.sources import WindowSource, open_data
from dexworld.training.train_config import LoopConfig, check_not_negative, check_positive, fixed_settings
from dexworld.training.trainer import Trainer

Part = Literal["find", "movable", "follow"]
COLUMNS = (*DEFAULT_COLUMNS, "points", "points_visible")
MOVED_PX = 2.0  # a point that goes less far stands still
ERROR_PX = 8.0  # an error that costs 1 when points are followed
CHUNK = 32  # windows at a time in validation


@dataclass(frozen=True)
class PointsTrainConfig(LoopConfig):
    """Training of a point head. Raises ValueError naming the field that makes no sense."""

    steps: int = 3000
    """Optimiser steps in all."""
    batch_size: int = 8
    """Windows of each kind of data in which points are to be found."""
    follow_batch: int = 96
    """Windows in which points are to be followed."""
    parts: tuple[Part, ...] = ("find", "movable", "follow")
    """What is trained. A head that finds points well may need many more steps to follow them; neither that nor what is
    movable changes the maps."""
    moving_object_weight: float = 3.0
    """Extra weight of frames in which an object moves, in windows in which points are followed."""
    unroll_steps: int = 3
    """Steps that points are followed for, and frames in which they are found."""
    sigma_px: float = 4.0
    """Standard deviation of the points' target Gaussians, in pixels of the model's image."""
    moved_weight: float = 3.0
    """Weight of a point that moved, when it is to be found, over one that stands still."""
    hidden_weight: float = 0.5
    """Weight of a point that is hidden, when it is to be found: its heatmap is a guess of where it is."""
    still_weight: float = 0.15
    """Weight of a point that stands still, when it is to be followed, over one that moves."""
    jitter_px: float = 1.0
    """Standard deviation of where a point is said to be when it is to be followed: finding it is not exact either."""
    consistency: float = 0.0
    """Weight of finding points in predicted latents; above 0 the predictor is trained too."""
    ema: float = 0.99
    """Decay of the averaged weights, which are what is saved; 0 saves the trained weights themselves."""
    validation_windows: int = 256
    """Windows in each validation figure."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_windows"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "follow_batch", "unroll_steps", "sigma_px", "moved_weight", "validation_windows")
        if not self.parts or not set(self.parts) <= set(get_args(Part)):
            raise ValueError(f"parts is {self.parts}; choose from {', '.join(get_args(Part))}")
        check_not_negative(self, "moving_object_weight", "hidden_weight", "still_weight", "jitter_px", "consistency")


@dataclass(frozen=True)
class PointsRunConfig(DataConfig):
    """A training run of a point head. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...] = ()
    """Dataset folders in which hands move points, as `dexworld collect ... pushes` makes them."""
    pairs: tuple[Path, ...] = ()
    """Dataset folders of static pairs; points are only to be found in them."""
    output: Path = Path("outputs/points")
    """Folder of the run; a run that was stopped goes on there."""
    checkpoint: str = "reference"
    """World model that learns points: a folder, a Hugging Face id, or `reference`. It keeps what it has."""
    points: PointsConfig = field(default_factory=PointsConfig)
    """Size of the head, for a world model that has none yet."""
    training: PointsTrainConfig = field(default_factory=PointsTrainConfig)
    """Steps, losses, optimiser."""


@dataclass(frozen=True)
class PointBatch:
    """Windows in which points are found, one of each kind of data, and windows in which they are followed."""

    found: tuple[Window, ...]
    followed: Window


class PointTask:
    """What a point head loses on windows of points (a `trainer.Task`).

    sources: of each kind of data in which points are found. pushes: in which they are followed.
    """

    def __init__(
        self, model: DexWM, config: PointsTrainConfig, sources: list[WindowSource], pushes: WindowSource
    ) -> None:
        self.model, self.config, self.pushes = model, config, pushes
        self.sources = sources if "find" in config.parts else sources[-1:] if "movable" in config.parts else []

    def batch(self, index: int, device: torch.device) -> tuple[PointBatch, int]:
        """This process's share of batch number `index`, and the windows of the whole batch."""
        found, many = self.config.batch_size, self.config.follow_batch
        windows = tuple(source.batch(index, found).to(device) for source in self.sources)
        return PointBatch(windows, self.pushes.batch(index, many).to(device)), found * len(windows) + many

    def contents(self, batch: PointBatch) -> dict[str, Tensor]:
        """The windows' tensors by name."""
        windows = {**{f"found_{number}": each for number, each in enumerate(batch.found)}, "followed": batch.followed}
        return {f"{kind}/{name}": value for kind, each in windows.items() for name, value in each.tensors.items()}

    def broken_data(self, batch: PointBatch) -> str:
        """Where latents are not finite, if any."""
        for source, window in zip((*self.sources, self.pushes), (*batch.found, batch.followed), strict=True):
            if window.bad_row is not None:
                return f" Latents are not finite in {source.describe(window.bad_row)}."
        return ""

    def losses(self, batch: PointBatch, index: int) -> dict[str, Tensor]:
        """Scalars: `loss`, and its parts `find`, `hidden`, `movable`, `follow`, `spread`, and with `consistency`
        `predicted` and `latents`.
        """
        model, config = self.model, self.config
        losses: dict[str, Tensor] = {}
        for window in batch.found:
            maps = model.points.maps(window.latents.flatten(0, 1)).unflatten(0, window.latents.shape[:2])
            found = find_losses(model.points, window, maps, config) if "find" in config.parts else {}
            if "movable" in config.parts and window is batch.found[-1]:
                found["movable"] = movable_loss(model.points, window, maps)
            losses = {name: losses.get(name, 0.0) + value / len(batch.found) for name, value in found.items()}
            if config.consistency and window is batch.found[0]:
                predicted = model.unroll(window.latents[:, :1], model.condition(window.track))
                latents = latent_loss(predicted, window.latents[:, 1:])
                later = model.points.maps(predicted.flatten(0, 1)).unflatten(0, predicted.shape[:2])
                read = find_losses(model.points, window, torch.cat([maps[:, :1], later], dim=1), config)
                losses |= {"predicted": config.consistency * (read["find"] + read["hidden"]), "latents": latents}
        if "follow" in config.parts:
            losses["follow"], losses["spread"] = follow_losses(model, batch.followed, config, index)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}


def points_of(window: Window, image_size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (B, F, Q, 2) of points, where they are known, inside the picture, and seen (B, F, Q each)."""
    pixels = window.track["points"]
    inside = inside_image(pixels, torch.isfinite(pixels).all(dim=-1), image_size)
    return pixels.nan_to_num(0.0), inside, inside & window.track["points_visible"]


def find_losses(head: PointHead, window: Window, maps: Tensor, config: PointsTrainConfig) -> dict[str, Tensor]:
    """Cross-entropy `find` of where the points of a window's first frame are in the others, and `hidden` of whether."""
    pixels, inside, seen = points_of(window, head.image_size)
    logits, hidden = head.find(head.look(maps[:, 0], pixels[:, 0]), maps[:, 1:])
    asked = seen[:, :1] & inside[:, 1:]
    if not asked.any():
        return {"find": logits.sum() * 0.0, "hidden": hidden.sum() * 0.0}
    moved = (pixels[:, 1:] - pixels[:, :1]).norm(dim=-1) > MOVED_PX
    weight = torch.where(moved, config.moved_weight, 1.0) * torch.where(seen[:, 1:], 1.0, config.hidden_weight)
    weight = weight[asked]
    cost = heatmap_cross_entropy(logits[asked].float(), pixels[:, 1:][asked], head.image_size, config.sigma_px)
    truth = (~seen[:, 1:])[asked].float()
    return {
        "find": (cost * weight).sum() / weight.sum(),
        "hidden": F.binary_cross_entropy_with_logits(hidden[asked].float(), truth),
    }


def movable_loss(head: PointHead, window: Window, maps: Tensor) -> Tensor:
    """Cross-entropy of whether the points that a window's frames show move in it.

    What moves somewhere is movable. Pairs teach it best: between their pictures nearly everything that can move does.
    """
    pixels, inside, seen = points_of(window, head.image_size)
    looks = head.look(maps.flatten(0, 1), pixels.flatten(0, 1)).detach().unflatten(0, maps.shape[:2])
    moved = (((pixels - pixels[:, :1]).norm(dim=-1) > MOVED_PX) & inside & inside[:, :1]).any(dim=1, keepdim=True)
    logits = head.movable(looks)[..., 0].float()
    cost = F.binary_cross_entropy_with_logits(logits, moved.expand_as(logits).float(), reduction="none")
    return (cost * seen).sum() / seen.sum().clamp(min=1)


def followed(
    model: DexWM, window: Window, jitter: Tensor | None = None, hidden: bool = False
) -> tuple[Forecast, Tensor, Tensor, Tensor]:
    """The forecast (M, T, E, 1) of the M points that a window's first frame shows, where they were and went
    (M, T + 1, 2), whether each step's place counts (M, T), and which of the Q points it is (M,). jitter: (B, 1, Q, 2)
    pixels, moves a point's whole way. hidden: also of points that only a later frame shows: a hand hides what it holds.
    """
    pixels, inside, seen = points_of(window, model.config.image_size)
    row, number = (inside[:, 0] & seen.any(dim=1) if hidden else seen[:, 0]).nonzero(as_tuple=True)
    first = seen.long().argmax(dim=1)[row, number]  # the frame that tells what the point looks like
    frames, place = torch.unique(row * seen.shape[1] + first, return_inverse=True)
    with torch.no_grad():
        maps = model.points.maps(window.latents.flatten(0, 1)[frames])
        looks = model.points.look(maps, pixels.flatten(0, 1)[frames])[place, number]
    motion = model.condition(window.track).index(row)
    pixels = pixels if jitter is None else pixels + jitter
    forecast = model.points.follow(looks[:, None], pixels[row, 0, number][:, None], motion)
    counted = inside[:, 1:].long().cumprod(dim=1).bool()  # what has left the picture has left for good
    return forecast, pixels.transpose(1, 2)[row, number], counted.transpose(1, 2)[row, number], number


def follow_losses(model: DexWM, window: Window, config: PointsTrainConfig, index: int) -> tuple[Tensor, Tensor]:
    """How far points are from where they were to be, and the likelihood of that distance under the forecast's spread.

    The likelihood teaches the spread alone. Were it to teach places, the many points that stand still would drown those
    that move: their small spread makes their gradients hundreds of times larger. index: of the batch, seeds the jitter.
    """
    pixels = window.track["points"][:, :1]
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(index)).to(pixels)
    forecast, places, counted, _ = followed(model, window, config.jitter_px * noise, hidden=True)
    error = ((forecast.pixels[..., 0, :] - places[:, 1:, None]).square().sum(-1) + 1e-4).sqrt()  # (M, T, E)
    spread = forecast.spread[..., 0]
    unlikely = error.detach() / spread + 2.0 * spread.log()
    moved = (places[:, 1:] - places[:, :1]).norm(dim=-1) > MOVED_PX
    weight = torch.where(moved, 1.0, config.still_weight) * counted
    total = weight.sum().clamp(min=1.0)
    follow, likelihood = ((cost.mean(dim=-1) * weight).sum() / total for cost in (error / ERROR_PX, 0.1 * unlikely))
    return follow, likelihood


@torch.no_grad()
def points_figures(sources: list[WindowSource], windows: int, model: DexWM, device: torch.device) -> dict[str, float]:
    """Figures on `windows` windows of each source, always the same ones.

    Of points that moved: `found_px` and `found_still_px`, the median distance of where they are found and of where they
    were; `found_10px`, the share found within 10 px. `hidden_or_not`: the share of points of which that is told right,
    and `hidden`, the mean of it over hidden and seen ones. `followed_px` and `followed_still_px`: medians at the last
    step, under hands, of points that moved.
    """
    head, names = model.points, ("found", "found_still", "followed", "followed_still")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    told: list[Tensor] = []
    for number, source in enumerate(sources):
        for step in range(ceil(windows / CHUNK)):
            window = source.batch(step, CHUNK).to(device)
            pixels, inside, seen = points_of(window, head.image_size)
            maps = head.maps(window.latents.flatten(0, 1)).unflatten(0, window.latents.shape[:2])
            logits, hidden = head.find(head.look(maps[:, 0], pixels[:, 0]), maps[:, 1:])
            gone = (pixels[:, 1:] - pixels[:, :1]).norm(dim=-1)
            moved = seen[:, :1] & seen[:, 1:] & (gone > MOVED_PX)
            parts["found"].append((head.read(logits) - pixels[:, 1:]).norm(dim=-1)[moved])
            parts["found_still"].append(gone[moved])
            asked = seen[:, :1] & inside[:, 1:]
            told.append(torch.stack([hidden[asked] > 0, ~seen[:, 1:][asked]]))
            if number == 0:
                forecast, places, counted, _ = followed(model, window)
                gone = (places[:, -1] - places[:, 0]).norm(dim=-1)
                chosen = counted[:, -1] & (gone > MOVED_PX)
                error = (forecast.pixels[:, -1, :, 0].mean(dim=1) - places[:, -1]).norm(dim=-1)
                parts["followed"].append(error[chosen])
                parts["followed_still"].append(gone[chosen])
    lengths = {name: torch.cat(each) for name, each in parts.items()}
    figures = {f"{name}_px": float(each.median()) for name, each in lengths.items() if len(each)}
    if len(lengths["found"]):
        figures["found_10px"] = float((lengths["found"] < 10).float().mean())
    guess, truth = torch.cat(told, dim=1)
    figures["hidden_or_not"] = float((guess == truth).float().mean())
    if truth.any() and not truth.all():
        figures["hidden"] = float(np.mean([float((guess == truth)[kind].float().mean()) for kind in (truth, ~truth)]))
    return figures


def train_points(config: PointsRunConfig) -> Path:
    """Train a world model's point head, or go on with a run that was stopped, and return the folder of the model.

    Raises ValueError for data that is missing or does not fit, ResumeError or TrainingDiverged with what to do. Under
    torchrun all processes call this and share the batches (DDP).
    """
    return fit(partial(_prepare, config), config.device)


def with_points(model: DexWM, points: PointsConfig) -> DexWM:
    """The model with a new point head, unless it has one."""
    return model if model.config.points is not None else extended(model, points=points)


def extended(model: DexWM, **parts: Any) -> DexWM:
    """The model with new parts beside its own: fields of its config that were None."""
    larger = DexWM(replace(model.config, **parts), model.provenance)
    larger.load_state_dict({**larger.state_dict(), **model.state_dict()})
    return larger


def _prepare(
    config: PointsRunConfig, device: torch.device, processes: Processes
) -> tuple[Trainer[DexWM], dict[str, Any]]:
    training, data = config.training, RunData.open(config)
    torch.manual_seed(training.seed)  # the head draws its first weights from torch's generator
    model = load_world_model(config.checkpoint)
    if not isinstance(model, DexWM):
        raise ValueError(f"{config.checkpoint} is a {type(model).__name__}; points are learned by a DexWM")
    model = with_points(model, config.points)
    model.requires_grad_(False).points.requires_grad_(True)
    model.predictor.requires_grad_(training.consistency > 0)
    data, fingerprint = data.resized(model.config.image_size), encoder_fingerprint(model.encoder)
    static = RunData.open(replace(config, data=config.pairs)).resized(model.config.image_size) if config.pairs else None
    identity = {**data.identity(config), "pairs": static and static.identity(config), "encoder": fingerprint}
    check_settings(config.output / "checkpoints", {"training": fixed_settings(training), **identity})
    strategy = StrideSampling(training.unroll_steps + 1, 1, (1.0,), 0.0)
    runs, encoder = [data, *([static] if static else [])], model.encoder.to(device)
    opened = [open_data(config, training, run, encoder, fingerprint, device, processes) for run in runs]
    both = list(zip(runs, opened, strict=True))
    sources = [seen.source(strategy, run.training, COLUMNS) for run, (seen, _) in both]
    shown = [held.source(strategy, run.held_out, COLUMNS, shown=True) for run, (_, held) in both if run.validates]
    validation = partial(points_figures, shown, training.validation_windows) if shown else None
    moving = replace(strategy, moving_object_weight=training.moving_object_weight)
    task = PointTask(model, training, sources, opened[0][0].source(moving, data.training, COLUMNS))
    identity |= {"model": asdict(model.config)}
    provenance = {
        **data.provenance(static.provenance(model.provenance) if static else model.provenance),
        "initial": without_folders(config.checkpoint),
        "initial_provenance": model.provenance,
        "training": asdict(training),
        "pairs": static and static.provenance()["datasets"],
    }
    return Trainer(model, training, task, config.output, validation, identity, device, processes), provenance
