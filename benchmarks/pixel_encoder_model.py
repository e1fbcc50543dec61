"""An encoder that learns from pixels together with the predictor, and how it is trained beside the frozen one.

The recipe is that of LeWorldModel (arXiv 2603.19312), from its description: two terms, the error of the predicted
embeddings and a penalty that keeps embeddings a standard Gaussian (SIGReg, arXiv 2511.08544). No second encoder and no
stopped gradient: it flows into the embeddings that are predicted from and into those that are predicted. Departure:
LeWorldModel has one vector for a picture, planning here reads a grid of tokens, so the penalty is asked of tokens.
B windows, F frames, P tokens, D latent width, G groups of N samples.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dexworld.data.datasets import open_dataset
from dexworld.data.files import written_atomically
from dexworld.data.resize import Fit, resized
from dexworld.data.sampling import StrideSampling
from dexworld.data.source import Dataset
from dexworld.data.windows import MOVED, Window
from dexworld.models.config import DexWMConfig, EncoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders.base import Encoder
from dexworld.models.encoders.pca import PCAEncoder
from dexworld.models.keypoint_head import HeadBlock
from dexworld.track import Track
from dexworld.training.config import TrainConfig
from dexworld.training.objective import WindowLoss

Arm = Literal["pca", "pixels", "unregularised"]
Grouping = Literal["position", "pooled"]
RATE = 5.0  # frames a second of the simulator's episodes
SECOND = 5  # frames from one frame of a window to the next


@dataclass(frozen=True)
class Pictures:
    """All N frames of the E episodes of a dataset at a model's size (H, W), and their labels in memory.

    frames: (N, H, W, 3) uint8, memory-mapped. objects: (N, 5, 2) centres in pixels of these frames, NaN where there is
    none. starts: (E + 1,) first row of each episode. The rest as in `Track`; intrinsics (E, 3, 3).
    """

    frames: np.ndarray
    objects: np.ndarray
    keypoints_world: np.ndarray
    keypoints_valid: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    object_motion: np.ndarray
    starts: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def episode_of(self) -> np.ndarray:
        """(N,) the episode of each row."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def images(self, rows: np.ndarray) -> Tensor:
        """Frames (n, H, W, 3) uint8 of these rows."""
        return torch.from_numpy(np.ascontiguousarray(self.frames[rows]))

    def window(self, rows: np.ndarray, repeats: np.ndarray | None = None) -> Window:
        """The windows of rows (B, F), without latents."""
        zeros = np.zeros(len(rows), dtype=int)
        clips = np.searchsorted(self.starts, rows[:, 0], side="right") - 1
        hands = {"keypoints_world": self.keypoints_world[rows], "keypoints_valid": self.keypoints_valid[rows]}
        return Window(
            track=Track(self.world_from_camera[rows], self.intrinsics[clips], hands).tensors(),
            repeats=torch.from_numpy(zeros if repeats is None else repeats),
            stride=torch.from_numpy(zeros),
            rows=torch.from_numpy(rows),
        )


def open_pictures(folder: Path, size: tuple[int, int], store: Path) -> Pictures:
    """The frames of a dataset folder brought to `size` once and kept in `store`."""
    stored = open_dataset(folder)
    dataset = resized(stored, size)
    path = store / f"{dataset.fingerprint}.npy"
    starts = np.cumsum([0, *dataset.lengths])
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as partial:
            frames = np.lib.format.open_memmap(partial, "w+", np.uint8, (int(starts[-1]), *size, 3))
            for index, length in enumerate(dataset.lengths):
                frames[starts[index] : starts[index + 1]] = dataset[index].frames.read(list(range(length)))
            frames.flush()
    arrays_path = path.with_suffix(".npz")
    if not arrays_path.exists():
        with written_atomically(arrays_path) as partial, partial.open("wb") as file:
            np.savez(file, **_labels(stored, size))
    with np.load(arrays_path, allow_pickle=False) as arrays:
        return Pictures(np.load(path, mmap_mode="r"), starts=starts, **arrays)


def _labels(stored: Dataset, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The fields of `Pictures` that are labels, for frames of `size`."""
    columns: dict[str, list[np.ndarray]] = {name.name: [] for name in fields(Pictures)[1:-1]}
    for index in range(len(stored)):
        episode = stored[index]
        fit, valid = Fit(episode.frames.size, size), episode.keypoints_valid
        columns["objects"].append(fit.pixels(np.asarray(episode.columns["object_pixels"], dtype=float)))
        columns["keypoints_world"].append(np.where(valid[..., None], episode.keypoints_world, 0).astype(np.float32))
        columns["keypoints_valid"].append(valid)
        columns["world_from_camera"].append(episode.world_from_camera.astype(np.float32))
        columns["intrinsics"].append(fit.intrinsics(episode.intrinsics).astype(np.float32)[None])
        columns["object_motion"].append(np.asarray(episode.columns["object_motion"], dtype=np.float32))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


class Windows:
    """Random windows of frames a second apart, which is the step that planning takes (`StrideSampling`)."""

    def __init__(self, pictures: Pictures, frames: int, history: int, seed: int) -> None:
        self.pictures, self.seed = pictures, seed
        self.sampling = StrideSampling(frames, history)
        self.episode_of, self.lengths = pictures.episode_of, np.diff(pictures.starts)
        weight = 1.0 + (pictures.object_motion > MOVED)  # frames in which objects move come twice as often
        self.cumulative = np.cumsum(weight / weight.sum())

    def batch(self, step: int, size: int) -> Window:
        """Batch number `step`: always the same windows."""
        random = np.random.default_rng([self.seed, step])
        row = np.searchsorted(self.cumulative, random.random(size)).clip(max=len(self.episode_of) - 1)
        clip = self.episode_of[row]
        short = random.random(size) < self.sampling.short_history
        repeats = np.where(short, random.integers(1, max(2, self.sampling.history), size), 0)
        drawn = self.sampling.place(
            self.lengths[clip],
            np.full(size, RATE),
            row - self.pictures.starts[clip],
            np.full(size, SECOND),
            repeats,
            random.random(size),
        )
        return self.pictures.window(self.pictures.starts[clip][:, None] + drawn.frames, drawn.repeats)


class PixelEncoder(Encoder):
    """Three convolutions to one token per patch, transformer blocks over the tokens, a linear layer; trainable.

    Its output has no normalisation: the regulariser sets its scale.
    """

    def __init__(self, config: EncoderConfig, image_size: tuple[int, int], width: int = 96, depth: int = 2) -> None:
        super().__init__(config, image_size)
        if config.patch != 12 or config.downsample != 1:
            raise ValueError(f"the convolutions make tokens of 12 pixels, not {config.patch * config.downsample}")
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 3),
            nn.GELU(),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.GELU(),
            nn.Conv2d(64, width, 4, 2, 1),
        )
        self.positions = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], width))
        self.blocks = nn.Sequential(*(HeadBlock(width, 4, 2) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.dim)

    def _encode(self, images: Tensor) -> Tensor:
        pixels = (images.float() / 255.0 - 0.45) / 0.25
        x = self.stem(pixels.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)  # (N, P, width)
        return self.project(self.norm(self.blocks(x + self.positions))).float()

    def tokens(self, images: Tensor) -> Tensor:
        """Latents (N, P, D) of images (N, H, W, 3) uint8, with gradients."""
        return self._encode(images)


def epps_pulley(samples: Tensor, knots: int = 17, reach: float = 5.0) -> Tensor:
    """How far N numbers are from a standard Gaussian: (..., N) to (...,), 0 for a perfect sample of infinite size.

    N times the integral of |empirical characteristic function - exp(-t^2 / 2)|^2 under the weight exp(-t^2 / 2)
    (Epps and Pulley 1983), by the trapezoid rule on [-reach, reach]; the integrand is even, so half of it is summed.
    """
    t = torch.linspace(0.0, reach, knots, device=samples.device)
    gauss = torch.exp(-0.5 * t.square())
    step = torch.full_like(t, 2 * reach / (knots - 1))
    step[[0, -1]] *= 0.5
    angles = samples[..., None] * t
    error = (angles.cos().mean(-2) - gauss).square() + angles.sin().mean(-2).square()
    return samples.shape[-1] * (error * gauss * step).sum(-1)


def sigreg(samples: Tensor, generator: torch.Generator, directions: int = 64) -> Tensor:
    """Mean `epps_pulley` of groups of samples (G, N, D) along random directions, the same ones for all groups."""
    lines = torch.randn(samples.shape[-1], directions, generator=generator, device=samples.device)
    projected = samples.float() @ (lines / lines.norm(dim=0))  # (G, N, directions)
    return epps_pulley(projected.transpose(1, 2)).mean()


def token_groups(latents: Tensor, grouping: Grouping, generator: torch.Generator, groups: int = 24) -> Tensor:
    """Samples (G, n, D) of the latents (N, P, D) of N pictures that are to be Gaussian.

    `position`: of one place in all pictures (n = N), so that a code of the place alone is no way out. `pooled`: of
    random places and pictures, as many samples in all.
    """
    pictures, tokens, dim = latents.shape
    if grouping == "pooled":
        pick = torch.randint(pictures * tokens, (groups * pictures,), generator=generator)
        return latents.reshape(-1, dim)[pick].view(max(1, groups // 8), -1, dim)
    return latents[:, torch.randint(tokens, (groups,), generator=generator)].transpose(0, 1)


@dataclass(frozen=True)
class Training:
    """seconds: CPU time of training. weight: of the regulariser (LeWorldModel: 0.1)."""

    seconds: float = 60.0
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup: float = 0.05
    teacher_forced: float = 0.6
    weight: float = 0.1
    grouping: Grouping = "position"
    bfloat16: bool = True
    points: int = 4


@dataclass
class Trained:
    """A model, the steps it made, and its latents' spread over training."""

    model: DexWM
    steps: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def build(arm: Arm, config: DexWMConfig, seed: int) -> DexWM:
    """A new world model; the `pca` encoder is still to be fitted, the others learn."""
    torch.manual_seed(seed)
    model = DexWM(config)
    if arm != "pca":
        model.encoder = PixelEncoder(config.encoder, config.image_size)
    return model


def train(
    arm: Arm, config: DexWMConfig, pictures: Pictures, options: Training, seed: int, watch: Callable[[DexWM], dict]
) -> Trained:
    """Train an arm for `options.seconds` of CPU time, the encoder's work included, `watch` and the fit of pca not.

    Both kinds draw the same windows in the same order; the one that does more work for a step sees fewer of them.
    """
    model = build(arm, config, seed)
    if isinstance(model.encoder, PCAEncoder):
        rows = np.random.default_rng(seed).choice(len(pictures.frames), min(2000, len(pictures.frames)), replace=False)
        model.encoder.fit([pictures.images(part) for part in np.array_split(np.sort(rows), 8)])
    recipe = TrainConfig(hand_consistency=0.0, true_keypoints=0.0, seed=seed)
    objective = WindowLoss(model, recipe)
    context = config.predictor.num_context
    sources = [Windows(pictures, context + more, context, seed) for more in (1, recipe.unroll_steps)]
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    done = Trained(model)
    losses: list[Tensor] = []
    begin, watched = time.process_time(), 0.0
    while (spent := time.process_time() - begin - watched) < options.seconds:
        share = spent / options.seconds
        if len(done.curve) <= share * options.points:
            before = time.process_time()
            done.curve.append({"share": share, "steps": done.steps} | _mean(losses) | watch(model))
            losses = []
            watched += time.process_time() - before
        unrolled = share >= options.teacher_forced
        window = sources[unrolled].batch(done.steps, options.batch_size)
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * _schedule(share, options.warmup)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            window, latents = encoded(model, window, pictures, arm)
            loss = prediction = objective(window, unrolled)["loss"]
        penalty = torch.zeros(())
        if arm == "pixels":
            penalty = sigreg(token_groups(latents, options.grouping, generator), generator)
            loss = prediction + options.weight * penalty
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(torch.stack([prediction.detach(), penalty.detach()]))
        done.steps += 1
    done.seconds = spent
    model.eval()
    done.curve.append({"share": 1.0, "steps": done.steps} | _mean(losses) | watch(model))
    return done


def encoded(model: DexWM, window: Window, pictures: Pictures, arm: Arm) -> tuple[Window, Tensor]:
    """The windows with their latents, and those of their distinct frames (N, P, D), each encoded once."""
    rows, places = np.unique(window.rows.numpy(), return_inverse=True)
    images = pictures.images(rows)
    latents = model.encode(images) if arm == "pca" else model.encoder.tokens(images)
    return replace(window, latents=latents[torch.from_numpy(places.reshape(window.rows.shape))]), latents


def spread(model: DexWM, pictures: Pictures, rows: np.ndarray) -> dict[str, float]:
    """How far latents of the frames `rows` of some episodes are from collapse.

    Deviations from each place's mean over the frames, so that a code of the place alone counts as nothing. variance:
    mean over dims; smallest: that of the weakest dim. effective_rank: exp of the entropy of the covariance's
    eigenvalues, at most D. dynamic: share of the variance that lies within episodes, where only what moves differs.
    """
    with torch.no_grad():
        latents = torch.cat(
            [model.encode(pictures.images(part)) for part in np.array_split(rows, min(8, len(rows)))]
        ).double()
    deviation = latents - latents.mean(0)
    covariance = deviation.flatten(0, 1).T @ deviation.flatten(0, 1) / deviation[..., 0].numel()
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp_min(0)
    total = float(eigenvalues.sum())
    within = torch.zeros(())
    episodes = torch.from_numpy(pictures.episode_of[rows])
    for episode in episodes.unique():
        own = deviation[episodes == episode]
        within = within + (own - own.mean(0)).square().sum()
    shares = (eigenvalues / max(total, 1e-300)).clamp_min(1e-300)
    return {
        "variance": total / len(eigenvalues),
        "smallest_variance": float(covariance.diagonal().min()),
        "effective_rank": math.exp(float(-(shares * shares.log()).sum())) if total > 1e-12 else 0.0,
        "dynamic": float(within / deviation.square().sum().clamp_min(1e-300)),
    }


def _mean(losses: list[Tensor]) -> dict[str, float]:
    if not losses:
        return {}
    prediction, penalty = torch.stack(losses).mean(0).tolist()
    return {"prediction": prediction, "penalty": penalty}


def _schedule(share: float, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine to 2 %."""
    if share < warmup:
        return (share + 0.1 * warmup) / (1.1 * warmup)
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (share - warmup) / (1.0 - warmup)))
