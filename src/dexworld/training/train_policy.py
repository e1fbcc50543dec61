"""From exploration to a policy: what `dexworld train policy` runs (see `fit` for what it leaves).

A trajectory shows how its robot came to each of its later frames. A goal is one of those, drawn uniformly (DexWM paper,
sections 4.5 and C.3), and the moves up to it are what is learned; after it they stay.
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dexworld.baselines.goal_policy import POLICY_PRESETS, Form, GoalPolicy, GoalPolicyConfig
from dexworld.data.sampling import Drawn, Uniforms, uniforms
from dexworld.data.windows import DEFAULT_COLUMNS, Window
from dexworld.training.checkpoints import check_settings
from dexworld.training.distributed import Processes
from dexworld.training.fit import fit
from dexworld.training.losses import ItemsEach, keypoint_loss, own_items, tracked_pixels
from dexworld.training.run_data import LatentRun, LatentRunConfig
from dexworld.training.sources import WindowSource, open_data
from dexworld.training.train_config import (
    LoopConfig,
    check_fractions,
    check_not_negative,
    check_positive,
    fixed_settings,
)
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import SourceTask

JOINTS = ("joint_positions", "joint_targets")
COLUMNS = (*DEFAULT_COLUMNS, *JOINTS)
SIGMA = 0.5  # tokens, of the keypoints' target Gaussians
FIT_WINDOWS = 512  # that the scales are measured on
CHUNK = 64  # windows at a time in validation
NOISE = 1 << 21  # stream of random numbers, apart from those that draw frames


@dataclass(frozen=True)
class PolicyTrainConfig(LoopConfig):
    """Training of a policy. Raises ValueError naming the field that makes no sense."""

    steps: int = 5000
    """Optimiser steps in all."""
    batch_size: int = 64
    """Samples in a batch."""
    start_share: float = 0.4
    """Fraction of windows in which only the present frame was seen, as at the start of an episode."""
    true_keypoints: float = 0.5
    """Weight of finding the tracked keypoints in the pictures, as DexWM does for its keypoint head; with 0 a policy
    learns from moves alone, as Diffusion Policy does."""
    validation_windows: int = 512
    """Windows in the validation figures, rounded up to whole batches of 64."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_windows"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self, "start_share")
        check_not_negative(self, "true_keypoints")
        check_positive(self, "validation_windows")


@dataclass(frozen=True)
class PolicyRunConfig(LatentRunConfig):
    """A training run of a policy. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...] = ()
    """Dataset folders of one robot's exploration, as `dexworld collect` makes them."""
    output: Path = Path("outputs/policy")
    """Folder of the run; a run that was stopped goes on there."""
    form: Form = "unet"
    """Diffusion Policy as a 1-D `unet` or a `transformer`, or `bc`: behaviour cloning of the next move."""
    size: str = "tiny"
    """Size of the policy: `debug`, `tiny`, or the `paper` of Diffusion Policy."""
    training: PolicyTrainConfig = field(default_factory=PolicyTrainConfig)
    """Steps, optimiser."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in POLICY_PRESETS:
            raise ValueError(f"size is {self.size!r}; choose from {', '.join(POLICY_PRESETS)}")


@dataclass(frozen=True)
class GoalSampling:
    """Windows of observed frames, the frames to which moves lead, and a goal (a `PartStrategy`).

    The present is every frame but the last once an epoch, and the goal uniform among the frames after it. Moves that
    would lead beyond the goal lead to it.
    """

    history: int
    horizon: int
    step_seconds: float
    start_share: float = 0.0

    @property
    def frames(self) -> int:
        """History, horizon and the goal."""
        return self.history + self.horizon + 1

    def parts(self, lengths: np.ndarray, fps: np.ndarray) -> np.ndarray:
        """As many windows (E,) as frames that have a later one."""
        if (np.asarray(fps) * self.step_seconds < 1.0 - 1e-9).any():
            raise ValueError(f"clips of {np.min(fps):g} frames per second give no steps of {self.step_seconds:g} s")
        return np.asarray(lengths) - 1

    def draw(self, lengths: np.ndarray, fps: np.ndarray, part: np.ndarray, random: Uniforms) -> Drawn:
        """Windows that begin at the given frame, with a later frame as their goal; see `PartStrategy.draw`."""
        chance, step = random(2), np.round(fps * self.step_seconds).astype(int)[:, None]
        goal = part + 1 + np.floor(chance[:, 0] * (lengths - 1 - part)).astype(int)
        starts = chance[:, 1] < self.start_share
        observed = part[:, None] + np.where(starts[:, None], 0, step) * np.arange(1 - self.history, 1)
        reached = np.minimum(part[:, None] + step * np.arange(1, self.horizon + 1), goal[:, None])
        repeats = np.where(starts, self.history - 1, 0)
        return Drawn(np.concatenate([np.maximum(observed, 0), reached, goal[:, None]], 1), repeats, step[:, 0])


class PolicyTask(SourceTask):
    """Windows of `GoalSampling` and what a policy loses on them. items_each: as in `losses.keypoint_loss`."""

    def __init__(
        self, model: GoalPolicy, config: PolicyTrainConfig, source: WindowSource, items_each: ItemsEach = own_items
    ) -> None:
        super().__init__(config, source)
        self.model, self.items_each = model, items_each

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """Scalars: `loss`, and its parts before weighting, `moves` and `keypoints`. Noise depends on a sample's number
        alone.
        """
        latents, joints, moves = parts_of(batch, self.model.config.history)
        features, maps = self.model.look(latents)
        losses = {
            "moves": moves_loss(self.model, self.model.condition(features, joints), moves, batch, self.config.seed)
        }
        total = losses["moves"]
        if self.config.true_keypoints:
            space = self.model.config.latents
            pixels, visible = (_pictures(each, self.model.config.history) for each in tracked_pixels(batch.track))
            size, sigma_px = space.image_size, SIGMA * space.cell[1]
            losses["keypoints"] = keypoint_loss(maps, pixels, visible, size, sigma_px, "cross_entropy", self.items_each)
            total = total + self.config.true_keypoints * losses["keypoints"]
        return {"loss": total, **losses}


def _pictures(values: Tensor, history: int) -> Tensor:
    """Of a window's frames (B, F + T + 1, ...), those that a policy looks at: the observed ones and the goal."""
    return torch.cat([values[:, :history], values[:, -1:]], dim=1)


def parts_of(window: Window, history: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, F + 1, P, D) of the observed frames and the goal, joints (B, F, 2 J) and moves (B, T, J)."""
    joints = torch.cat([window.track[name] for name in JOINTS], dim=-1)[:, :history].float()
    targets = window.track["joint_targets"].float()
    moves = targets[:, history:-1] - targets[:, history - 1 : history]
    return _pictures(window.latents, history), joints, moves


def moves_loss(model: GoalPolicy, condition: Tensor, moves: Tensor, window: Window, seed: int) -> Tensor:
    """The policy's own loss, with noise from the seed and the windows' numbers."""
    chance = torch.from_numpy(uniforms(seed, window.numbers.cpu().numpy(), 1 + moves[0].numel(), NOISE)).to(moves)
    noise = torch.special.ndtri(chance[:, 1:].clamp(1e-6, 1.0 - 1e-6)).view_as(moves)
    return model.loss(condition, moves, (chance[:, 0] * model.config.noise_steps).long(), noise)


@torch.no_grad()
def policy_figures(source: WindowSource, windows: int, model: GoalPolicy, device: torch.device) -> dict[str, float]:
    """Figures on `windows` windows of a source, always the same ones.

    `moves` as in training. `move_rad`: root mean square error of the first move's joint targets, of one sample; and
    `still_rad`: of targets that stay.
    """
    losses, errors, still = [], [], []
    for step in range(ceil(windows / CHUNK)):
        window = source.batch(step, CHUNK).to(device)
        latents, joints, moves = parts_of(window, model.config.history)
        condition = model.condition(model.look(latents)[0], joints)
        made = model.moves(condition, torch.Generator().manual_seed(step))
        losses.append(moves_loss(model, condition, moves, window, 0))
        errors.append((made - moves)[:, 0].square().mean())
        still.append(moves[:, 0].square().mean())
    parts = {"moves": losses, "move_rad": errors, "still_rad": still}
    means = {name: float(torch.stack(each).mean()) for name, each in parts.items()}
    return {name: value if name == "moves" else value**0.5 for name, value in means.items()}


def train_policy(config: PolicyRunConfig) -> Path:
    """Train a policy, or go on with a run that was stopped, and return the folder of the policy.

    Raises ValueError for data that is missing or does not fit, ResumeError or TrainingDiverged with what to do;
    ImportError without diffusers. Under torchrun all processes call this and share the batches (DDP).
    """
    return fit(partial(_prepare, config), config.device)


def _prepare(
    config: PolicyRunConfig, device: torch.device, processes: Processes
) -> tuple[Trainer[GoalPolicy], dict[str, Any]]:
    training = config.training
    with processes.first_alone():  # it fits the encoder, the others read what it wrote
        run = LatentRun.open(config, training.seed, device)
    data, identity = run.data, run.identity(config)
    check_settings(config.output / "checkpoints", {"training": fixed_settings(training), **identity})
    made = GoalPolicyConfig.sized(run.space, _joints(data.datasets), config.form, config.size)
    torch.manual_seed(training.seed)  # the modules draw their first weights from torch's generator
    model = GoalPolicy(made)
    source, shown = open_data(config, training, data, run.encoder, run.space.encoder, device, processes)
    strategy = GoalSampling(made.history, made.horizon, made.step_seconds, training.start_share)
    alike = source.source(strategy, data.training, COLUMNS, shown=True).batch(0, FIT_WINDOWS)
    model.scale_to(*parts_of(alike, made.history))
    # Every checkpoint of the run is to know these, not only its last one.
    model.provenance = run.provenance(training) | {"finished": False}
    validation = None
    if data.validates:
        held_out = shown.source(strategy, data.held_out, COLUMNS, shown=True)
        validation = partial(policy_figures, held_out, training.validation_windows)
    task = PolicyTask(model, training, source.source(strategy, data.training, COLUMNS), processes.items_each)
    identity |= {"policy": asdict(made)}
    trainer = Trainer(model, training, task, config.output, validation, identity, device, processes)
    return trainer, dict(model.provenance)


def _joints(datasets: list[Any]) -> int:
    """Number of joints in all recordings. Raises ValueError naming a dataset without joints, or with others."""
    counts = {}
    for dataset in datasets:
        columns = dataset[0].columns
        if lacking := [name for name in JOINTS if name not in columns]:
            advice = "a policy learns from recordings of a robot, as `dexworld collect` makes them"
            raise ValueError(f"{dataset.folder} holds no column {lacking[0]!r}, but {', '.join(columns)}; {advice}")
        counts[columns["joint_targets"].shape[-1]] = dataset.folder
    if len(counts) > 1:
        listed = ", ".join(f"{count} in {folder}" for count, folder in counts.items())
        raise ValueError(f"a policy moves one robot, and these have different numbers of joints: {listed}")
    return next(iter(counts))
