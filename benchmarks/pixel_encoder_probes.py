"""Figures that can be compared between world models whose latents differ.

Errors of latents can't. What can: where probes, trained on true latents of each encoder for the same CPU time, find the
hand and the objects in predicted latents; and how often, among several motions, the true one leads to the latents
nearest to those of the true outcome, which is what a planner needs of a model.

Every figure is a ratio of sums over windows, kept per episode: {name: (sums above (E,), sums below (E,))}.
B queries, N pictures, P tokens, D latent width.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.actions import hand_motion
from dexworld.data.windows import Window
from dexworld.evaluation.open_loop import Clip, transplanted
from dexworld.models.dexwm import DexWM
from dexworld.models.keypoint_head import KeypointHead
from dexworld.track import ArrayFrames
from dexworld.training.losses import inside_image, keypoint_loss
from pixel_encoder_model import SECOND, Pictures

STEPS = 4  # of a second each
MOMENTS = {"1s": 1, "4s": 4}
CANDIDATES = 16
NEAR = 0.25  # share of another motion that the near candidates have
REFERENCE_HEIGHT = 224  # thresholds are pixels of frames of this height
Figures = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Scaling:
    """Brings an encoder's latents to mean 0 and variance 1, all dims by one factor, for the probes."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, latents: Tensor) -> "Scaling":
        mean = latents.mean(dim=(0, 1))
        return cls(mean, (latents - mean).square().mean().sqrt().clamp_min(1e-9))

    def __call__(self, latents: Tensor) -> Tensor:
        return (latents.float() - self.mean) / self.deviation


class ObjectMap(nn.Module):
    """How near the closest object's centre is to each token, from what the token and its eight neighbours show."""

    def __init__(self, dim: int, grid: tuple[int, int], width: int = 64) -> None:
        super().__init__()
        self.grid = grid
        self.look = nn.Conv2d(dim + 2, width, 3, padding=1)
        self.read = nn.Conv2d(width, 1, 1)
        rows, columns = (torch.linspace(-1, 1, side) for side in grid)
        self.register_buffer("places", torch.stack(torch.meshgrid(rows, columns, indexing="ij")))  # (2, rows, columns)

    def forward(self, latents: Tensor) -> Tensor:
        """Logits (N, P) of latents (N, P, D)."""
        picture = latents.transpose(1, 2).unflatten(2, self.grid)
        places = self.get_buffer("places").expand(len(latents), -1, -1, -1)
        return self.read(F.gelu(self.look(torch.cat([picture, places], dim=1)))).flatten(1)


def object_map(places: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """What `ObjectMap` is to say (N, P), from object centres (N, 5, 2) in pixels, NaN where there is none.

    1 at an object's centre, falling off as a Gaussian of 0.7 tokens.
    """
    cell = size[0] / grid[0]
    rows, columns = np.meshgrid(np.arange(grid[0]) + 0.5, np.arange(grid[1]) + 0.5, indexing="ij")
    centres = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)  # (P, 1, 2)
    squared = ((centres - places[:, None] / cell) ** 2).sum(-1)  # (N, P, 5)
    return np.exp(-np.nan_to_num(squared, nan=np.inf).min(-1) / (2 * 0.7**2))


def encode(model: DexWM, pictures: Pictures, rows: np.ndarray) -> Tensor:
    """Latents (*rows.shape, P, D) float32."""
    flat = rows.ravel()
    latents = [model.encode(pictures.images(part)) for part in np.array_split(flat, max(1, len(flat) // 64))]
    return torch.cat(latents).view(*rows.shape, *latents[0].shape[-2:])


def train_for(seconds: float, module: nn.Module, loss: Callable[[np.random.Generator], Tensor], seed: int) -> None:
    """Minimise `loss` for so much CPU time."""
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-4)
    random, begin = np.random.default_rng(seed), time.process_time()
    while (share := (time.process_time() - begin) / seconds) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1.02 - share)
        optimiser.zero_grad(set_to_none=True)
        loss(random).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    module.eval()


def train_keypoints(model: DexWM, latents: Tensor, window: Window, seconds: float, seed: int) -> KeypointHead:
    """A keypoint head of the preset's size on true latents (N, P, D) of a window of one frame each."""
    config = model.config
    torch.manual_seed(seed)
    head = KeypointHead(config.keypoint_head, config.encoder.dim, config.grid, config.image_size)
    pixels, visible = labels(window)

    def loss(random: np.random.Generator) -> Tensor:
        pick = torch.from_numpy(random.choice(len(latents), 64))
        logits = head(latents[pick])
        size = config.image_size
        return keypoint_loss(logits, pixels[pick, 0], visible[pick, 0], size, 3.0, config.keypoint_head.loss)

    train_for(seconds, head, loss, seed)
    return head


def train_objects(model: DexWM, latents: Tensor, places: np.ndarray, seconds: float, seed: int) -> ObjectMap:
    """An object map on true latents (N, P, D) with object centres (N, 5, 2) in pixels."""
    config = model.config
    torch.manual_seed(seed)
    probe = ObjectMap(config.encoder.dim, config.grid)
    targets = torch.from_numpy(object_map(places, config.grid, config.image_size)).float()

    def loss(random: np.random.Generator) -> Tensor:
        pick = torch.from_numpy(random.choice(len(latents), 64))
        return F.binary_cross_entropy_with_logits(probe(latents[pick]), targets[pick])

    train_for(seconds, probe, loss, seed)
    return probe


def labels(window: Window) -> tuple[Tensor, Tensor]:
    """Pixels (B, F, 12, 3) and visibility (B, F, 12) of the tracked keypoints."""
    track = window.track
    motion = hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
    return motion.pixels, motion.visible


def window_rows(pictures: Pictures) -> np.ndarray:
    """(B, 5) rows of frames a second apart: first, middle and last windows of every episode that is long enough."""
    span, rows = STEPS * SECOND, []
    for start, end in zip(pictures.starts[:-1], pictures.starts[1:], strict=True):
        slack = int(end - start) - 1 - span
        if slack >= 0:
            rows += [start + first + SECOND * np.arange(STEPS + 1) for first in sorted({0, slack // 2, slack})]
    return np.array(rows)


@torch.no_grad()
def measure(
    model: DexWM, scaling: Scaling, head: KeypointHead, objects: ObjectMap, pictures: Pictures, seed: int
) -> Figures:
    """All figures of a model on a dataset; every roll-out starts from a single frame and makes steps of a second."""
    rows = window_rows(pictures)
    window, true = pictures.window(rows), encode(model, pictures, rows)
    track = window.track
    motion = hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
    parts = np.array_split(np.arange(len(rows)), max(1, len(rows) // 25))
    predicted = torch.cat([model.unroll(true[part, :1], motion.index(torch.from_numpy(part))) for part in parts])
    episode = pictures.episode_of[rows[:, 0]]
    sums = Sums(episode, len(pictures.starts) - 1)
    for name, step in MOMENTS.items():
        error = (predicted[:, step - 1] - true[:, step]).square().mean((-1, -2))
        still = (true[:, 0] - true[:, step]).square().mean((-1, -2))
        sums.add(f"mse_ratio_{name}", error.numpy(), still.numpy())
        shown = {"": predicted[:, step - 1], "true_": true[:, step], "still_": true[:, 0]}
        for kind, latents in shown.items():
            found, _ = head.read(head(scaling(latents)))
            _keypoints(sums, f"{kind}", name, found, motion.pixels[:, step], motion.visible[:, step], pictures.size)
        _objects(sums, name, {kind: scaling(each) for kind, each in shown.items()}, objects, pictures, rows, step)
    _ranking(sums, model, pictures, rows, true, seed)
    return sums.values


class Sums:
    """Sums over the windows of each episode. episode: (B,) of each window."""

    def __init__(self, episode: np.ndarray, episodes: int) -> None:
        self.episode, self.episodes = episode, episodes
        self.values: Figures = {}

    def add(self, name: str, above: np.ndarray, below: np.ndarray, chosen: np.ndarray | None = None) -> None:
        """A figure of windows (B,), or of some of them (`chosen`: their indices)."""
        episode = self.episode if chosen is None else self.episode[chosen]
        self.values[name] = tuple(  # type: ignore[assignment]
            np.bincount(episode, weights=np.asarray(part, dtype=float), minlength=self.episodes)
            for part in (above, below)
        )


def _keypoints(
    sums: Sums, kind: str, name: str, found: Tensor, pixels: Tensor, visible: Tensor, size: tuple[int, int]
) -> None:
    counted = inside_image(pixels, visible, size)
    distance = (found - pixels[..., :2]).norm(dim=-1)
    for limit in (10, 20):
        near = (distance <= limit * size[0] / REFERENCE_HEIGHT) & counted
        sums.add(f"{kind}pck{limit}_{name}", near.sum(-1).numpy(), counted.sum(-1).numpy())


def _objects(
    sums: Sums, name: str, shown: dict[str, Tensor], probe: ObjectMap, pictures: Pictures, rows: np.ndarray, step: int
) -> None:
    """How well objects' maps are read (unexplained share of their variance), and how much of objects' motion is seen.

    `object_motion`: the change of the map that is read from the latents since it was read from the first frame,
    projected on the true one, over tokens whose true map has changed by 0.2 or more: 1 when all of it is seen, 0 when
    nothing moves. Plain errors there would favour a probe that is unsure everywhere.
    """
    start, goal = (object_map(pictures.objects[rows[:, at]], probe.grid, pictures.size) for at in (0, step))
    change = (goal - start) * (np.abs(goal - start) >= 0.2)
    spread_of_goal = (goal - goal.mean(0)) ** 2
    read = {kind: probe(latents).sigmoid().numpy() for kind, latents in shown.items()}
    for kind, found in read.items():
        sums.add(f"{kind}objects_unexplained_{name}", ((found - goal) ** 2).sum(1), spread_of_goal.sum(1))
        sums.add(f"{kind}object_motion_{name}", ((found - read["still_"]) * change).sum(1), (change**2).sum(1))


def _ranking(sums: Sums, model: DexWM, pictures: Pictures, rows: np.ndarray, true: Tensor, seed: int) -> None:
    """How often the true motion leads nearest to the true latents, of 16: among others, and among others mixed in."""
    random = np.random.default_rng([seed, 7])
    chosen = np.unique(sums.episode, return_index=True)[1]  # the first window of every episode
    clips = {index: _clip(pictures, rows[index, :3]) for index in chosen}
    hits: dict[str, list[float]] = {}
    for index in chosen:
        others = chosen[sums.episode[chosen] != sums.episode[index]]
        picked = random.choice(others, CANDIDATES - 1, replace=len(others) < CANDIDATES - 1)
        strangers = [transplanted(clips[index], clips[other]) for other in picked]
        near = [_mixed(clips[index], stranger, NEAR) for stranger in strangers]
        for kind, candidates, steps in (("others", strangers, 2), ("near", near, 1)):
            motion = _motions([clips[index], *candidates], steps)
            context = model.start(true[index, :1], motion.index(0).slice(0, 0))
            with torch.autocast("cpu", torch.bfloat16):
                outcome = model.rollout(context, motion).float()  # (16, steps, P, D)
            for step in range(steps):
                distance = (outcome[:, step] - true[index, step + 1]).square().mean((-1, -2))
                # The true motion is first: with equal distances it shares the place with the others.
                tied = int((distance == distance.min()).sum())
                first = float(distance[0] == distance.min()) / tied
                hits.setdefault(f"top1_{kind}_{step + 1}s", []).append(first)
                better = float((distance < distance[0]).sum())
                hits.setdefault(f"rank_{kind}_{step + 1}s", []).append(1.0 + better)
    for name, values in hits.items():
        sums.add(name, np.array(values), np.ones(len(values)), chosen)


def _clip(pictures: Pictures, rows: np.ndarray) -> Clip:
    window = pictures.window(rows[None])
    return Clip(
        frames=ArrayFrames(np.zeros((1, 1, 1, 3), dtype=np.uint8)),  # nobody looks at them
        indices=rows.tolist(),
        keypoints_world=window.track.keypoints_world[0].double(),
        keypoints_valid=window.track.keypoints_valid[0],
        world_from_camera=window.track.world_from_camera[0].double(),
        intrinsics=window.track.intrinsics[0].double(),
        objects_px=None,
        source="",
    )


def _mixed(clip: Clip, other: Clip, share: float) -> Clip:
    """`clip` with so large a share of the difference to `other` added to where its hand goes."""
    difference = other.keypoints_world - clip.keypoints_world
    return replace(clip, keypoints_world=clip.keypoints_world + share * difference)


def _motions(clips: list[Clip], steps: int):
    stacked = {
        name: torch.stack([getattr(clip, name) for clip in clips])[:, : steps + 1]
        for name in ("keypoints_world", "keypoints_valid", "world_from_camera")
    }
    motion = hand_motion(**stacked, intrinsics=torch.stack([clip.intrinsics for clip in clips]))
    return motion.to(torch.float32)
