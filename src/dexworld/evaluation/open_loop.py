"""Open-loop evaluation: the model sees one frame and the hand's motion, and predicts the next four seconds on its own.

Protocol: 20 steps at 5 Hz from an episode's first frame, which fills the whole context; every later frame is
predicted from predictions. Targets are the encoder's latents of the true frames. Source: DexWM paper, section 5 and
its released test script. `docs/evaluation.md` says what each figure means.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexworld.actions import hand_motion
from dexworld.evaluation.independent_metrics import keypoint_distances, picture_sums, point_sums
from dexworld.evaluation.ledger import Ledger
from dexworld.evaluation.open_loop_metrics import (
    PCK_THRESHOLDS,
    PREDICTIONS,
    REFERENCE_HEIGHT,
    Sums,
    keypoint_sums,
    keypoint_views,
    latent_sums,
    moving_tokens,
    object_pixels,
    summarise,
)
from dexworld.geometry import invert
from dexworld.models.checkpoint import check_prediction
from dexworld.planning.protocols import Dynamics
from dexworld.track import Frames, Track

Keypoints = Callable[[Tensor], tuple[Tensor, Tensor]]  # latents (T, P, D) to pixels (T, 12, 2) and confidences (T, 12)
Decode = Callable[[Tensor], Tensor]  # latents (T, P, D) to pictures (T, H, W, 3) uint8


@dataclass(frozen=True)
class OpenLoopConfig:
    """Predicted steps, steps per second, the seed of the shuffled control and the bootstrap, and its resamples.

    stretches: predictions of an episode, each from the frame where the one before ended.
    """

    steps: int = 20
    fps: float = 5.0
    seed: int = 0
    resamples: int = 2000
    stretches: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.resamples, self.stretches) < 1 or not self.fps > 0:
            raise ValueError(f"open-loop evaluation needs positive steps, fps, resamples and stretches, not {self}")

    @property
    def moments(self) -> dict[str, int]:
        """The reported moments: one second (where there is more) and the end, with the index of their step."""
        second = round(self.fps)
        early = {"1s": second - 1} if second < self.steps else {}
        return early | {f"{self.steps / self.fps:g}s": self.steps - 1}

    def frame_indices(self, fps: float, stretch: int = 0) -> list[int]:
        """Indices of the T + 1 evaluated frames of a stretch of an episode of `fps` frames per second."""
        first = stretch * self.steps
        return [round(step * fps / self.fps) for step in range(first, first + self.steps + 1)]


@dataclass(frozen=True)
class ChosenFrames:
    """Some frames of others, read when they are needed."""

    frames: Frames
    indices: list[int]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.size

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (N, H, W, 3) uint8 by their place among the chosen ones."""
        return self.frames.read([self.indices[index] for index in indices])


def evaluate_open_loop(
    model: Dynamics,
    episodes: Iterable[Track],
    config: OpenLoopConfig = OpenLoopConfig(),
    device: torch.device | str = "cpu",
    keypoints: Keypoints | None = None,
    decode: Decode | None = None,
    ledger: Ledger | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Open-loop figures of `model` over `episodes`, with their controls and bootstrap intervals.

    keypoints: reads keypoints from latents instead of the model's own head, such as `KeypointEvaluator.keypoints`.
    decode: draws latents, such as `Drawing.decode`; without it there are no figures of pictures.
    ledger: keeps every episode's sums as they are known; what it holds of an earlier run is not measured again.
    progress: called with ("roll-outs", episodes done, episodes).

    Returns plain values ready for `write_results`. Every figure `key` comes with `key_low` and `key_high` (95 %,
    bootstrap over episodes). Episodes that are too short for all steps are left out and counted. Raises ValueError
    on fewer than two usable episodes and where a prediction has NaN or Inf, naming the episode.
    """
    clips, too_short = [], 0
    for episode in episodes:
        if config.frame_indices(episode.fps, config.stretches - 1)[-1] >= len(episode):
            too_short += 1
        else:
            clips.append([clip_of(episode, config, stretch) for stretch in range(config.stretches)])
    if len(clips) < 2:
        wanted = f"at least 2 episodes of {config.stretches * config.steps / config.fps:g} s or more"
        raise ValueError(f"open-loop evaluation needs {wanted}, got {len(clips)} (and {too_short} shorter ones)")
    generator = np.random.default_rng(config.seed)
    measured = []
    for index, partner in enumerate(derangement(len(clips), generator)):
        progress("roll-outs", index, len(clips))
        pairs = list(zip(clips[index], clips[partner], strict=True))
        name = " ".join([str(index), *(each.source for each in pairs[0])])
        if ledger is None or name not in ledger:
            rows = [measure(model, *pair, torch.device(device), keypoints, decode) for pair in pairs]
            measured.append({key: sum(row[key] for row in rows) / len(rows) for key in rows[0]})
            if ledger is not None:
                ledger.add(name, measured[-1])
        else:
            measured.append({key: np.array(value) for key, value in ledger[name].items()})
    shared = [key for key in measured[0] if all(key in episode for episode in measured)]
    sums = {key: np.stack([episode[key] for episode in measured]) for key in shared}
    figures = summarise(sums, config.moments, generator, config.resamples)
    if "moved_points" in sums:
        moved = config.stretches * sums["moved_points"].sum(axis=0)
        figures |= {f"moved_points_{name}": round(float(moved[step])) for name, step in config.moments.items()}
    figures["curves"]["seconds"] = [(step + 1) / config.fps for step in range(config.steps)]
    counted = {"episodes": len(clips), "episodes_too_short": too_short, "seed": config.seed}
    return figures | counted | {"protocol": asdict(config) | {"pck_thresholds_px": list(PCK_THRESHOLDS)}}


def clip_of(episode: Track, config: OpenLoopConfig, stretch: int = 0) -> Track:
    """The T + 1 evaluated frames of a stretch of an episode that is long enough, float64 tensors with frames to read.

    ValueError where its frame rate is too low.
    """
    if episode.fps < config.fps:
        raise ValueError(f"{episode.source}: {episode.fps:g} frames per second, but {config.fps:g} are evaluated")
    indices = config.frame_indices(episode.fps, stretch)
    clip = episode.at(indices)
    clip = clip.with_columns(task_utf8=clip.task_utf8).tensors(torch.float64)
    return replace(clip, frames=ChosenFrames(episode.frames, indices), fps=config.fps)


def transplanted(clip: Track, other: Track) -> Track:
    """`clip` with hands, upper body and camera moving as in `other`, and its sentence: the shuffled-action control.

    The hands start where they are in `clip` and then make the displacements of `other`, as its camera saw them.
    """
    start, other_start = clip.world_from_camera[0], other.world_from_camera[0]
    ours_from_theirs = start[:3, :3] @ other_start[:3, :3].T
    moved = {"task_utf8": other.get("task_utf8")}
    for points, valid in (("keypoints_world", "keypoints_valid"), ("body_world", "body_valid")):
        if points in clip.columns and points in other.columns:
            known = other[valid] & other[valid][:1]
            displacement = torch.where(known[..., None], (other[points] - other[points][:1]) @ ours_from_theirs.T, 0.0)
            moved |= {points: clip[points][:1] + displacement, valid: clip[valid][:1].expand_as(clip[valid])}
    return replace(clip.with_columns(**moved), world_from_camera=start @ invert(other_start) @ other.world_from_camera)


def derangement(count: int, generator: np.random.Generator) -> list[int]:
    """A random partner for each of `count` episodes that is never itself: one random cycle through all of them."""
    order = generator.permutation(count)
    partners = np.empty(count, dtype=int)
    partners[order] = np.roll(order, -1)
    return partners.tolist()


@torch.no_grad()
def measure(
    model: Dynamics,
    clip: Track,
    partner: Track,
    device: torch.device,
    keypoints: Keypoints | None = None,
    decode: Decode | None = None,
) -> Sums:
    """The sums of one episode, (T,) arrays; `keypoints` and `decode` as in `evaluate_open_loop`.

    Raises ValueError naming the episode where a prediction has NaN or Inf.
    """
    steps = len(clip) - 1
    images = np.ascontiguousarray(clip.frames.read(list(range(steps + 1))))
    latents = model.encode(torch.from_numpy(images).to(device)).float()  # (T + 1, P, D)
    both = Track.stack([clip, transplanted(clip, partner)])
    tracks = (clip.at([0]), both)
    still, motions = (model.condition(track).to(device=device, dtype=torch.float32) for track in tracks)
    rollouts = model.rollout(model.start(latents[:1], still), motions).float()  # (2, T, P, D)
    check_prediction(rollouts, model, [str(clip.source)] * 2)

    truth, first = latents[1:], latents[:1].expand_as(latents[1:])
    predictions = dict(zip(PREDICTIONS, (rollouts[0], rollouts[1], first), strict=True))
    size, objects = clip.frames.size, object_pixels(clip)
    tokens = np.zeros((steps, truth.shape[1]))
    if objects is not None:
        now, unmoved = objects
        tokens = moving_tokens(now[1:], unmoved[1:], truth.shape[1], size).astype(float)
    motion = hand_motion(clip.keypoints_world, clip.keypoints_valid, clip.world_from_camera, clip.intrinsics)
    pixels, true = motion.pixels[1:, :, :2], {"true_latents_": truth}
    views = keypoint_views(pixels, motion.visible[1:], size)
    sums: Sums = {name: view.sum(-1).double().numpy() for name, view in views.items()}
    sums["object_tokens"] = tokens.sum(axis=-1)
    for prefix, predicted in predictions.items():
        sums |= latent_sums(prefix, predicted, truth, tokens)
    read = keypoints or model.keypoints
    found = {prefix: read(predicted)[0] for prefix, predicted in (predictions | true).items()}
    for prefix, each in found.items():
        sums |= keypoint_sums(prefix, each, pixels, views, size[0] / REFERENCE_HEIGHT)
    found = {prefix: each for prefix, each in found.items() if prefix in ("", "true_latents_")}
    sums |= keypoint_distances(found, motion.pixels[..., :2], views["in_view"] & motion.visible[0])
    if decode is not None:
        sums |= picture_sums(decode, {"": rollouts[0]} | true, images)
    head, points = getattr(model, "points", None), clip.get("points")
    if head is not None and points is not None:
        sums |= point_sums(head, latents, rollouts[0], motions.index(slice(1)), points, clip["points_visible"])
    return sums
