"""What Figures 7 and 9 of the DexWM paper show, as numbers: does the imagined hand go where it is told to go?

The keypoint evaluator, which never saw a prediction, reads the hand in imagined latents. Pixels are those of a picture
224 pixels high. T steps, E episodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.data.datasets import open_dataset
from dexworld.data.resize import resized
from dexworld.evaluation.atomic import AtomicConfig, atomic_motions, best_frame, of_hands, roll_out
from dexworld.evaluation.guard import check_seeds
from dexworld.evaluation.open_loop import OpenLoopConfig, clip_of, derangement, transplanted
from dexworld.evaluation.open_loop_metrics import REFERENCE_HEIGHT, Sums, keypoint_sums, keypoint_views
from dexworld.hands import NUM_TRACKED
from dexworld.models.world_model import load_world_model
from dexworld.studies.study import RATE_HZ, SECONDS
from dexworld.studies.study_measures import Subject
from dexworld.track import Track

HELD_OUT = "human"
UP = (0.0, 1.0, 0.0)  # EgoDex's world is y-up
CENTIMETRES = AtomicConfig(up=UP)  # the right hand, 1 cm a step, as in Figure 7
OPPOSITES = (("up", "down"), ("left", "right"), ("forward", "back"))
CURLS = ("close", "open")  # motions of the fingers alone
SEEN_PX = 10.0  # ends of opposite motions that are nearer to each other in the picture have no direction there
FOUND_PX = 20.0  # PCK@20
COSINE = 0.5**0.5  # within 45 degrees: one in four at random
HAND = NUM_TRACKED // 2  # tracked keypoints of a hand: the wrist, then the tips
ATOMIC_SUMS = (
    *("atomic_pairs", "atomic_right", "atomic_gone", "curl_pairs", "curls_gone"),
    *("atomic_points", "atomic_found", "atomic_error", "still_found", "still_error", "reader_error"),
)


def held_out_clips(subject: Subject, model: Any) -> list[Track]:
    """The held-out episodes in the model's size. Raises SeedError for scenes that a model was trained on."""
    dataset = resized(open_dataset(subject.held_out[HELD_OUT]), model.config.image_size)
    for provenance in (model.provenance, subject.evaluator.provenance):
        check_seeds(dataset.seeds, provenance, subject.split)
    return [dataset[index] for index in range(len(dataset))]


def start_frame(episode: Track) -> int | None:
    """The frame of an episode from which atomic actions start; None where it never shows the hand."""
    try:
        return best_frame(episode, CENTIMETRES.hand)
    except ValueError:
        return None


@dataclass(frozen=True)
class AtomicMeasure:
    """Figure 7: the right hand moves up, down, left, right, forward, back, opens and closes, from one frame.

    The hand is read at the ends of two opposite motions, so that faults of the reader which both share cancel. Sums
    (E, 1): `atomic_pairs` that end apart in the picture, `atomic_right` of them that are read to lie apart in that
    direction, `atomic_gone` the shares of the way between the ends; `curl_pairs`, `curls_gone` the same of opening and
    closing, tips as seen from the wrist. `atomic_points` keypoints at the ends of all motions, `atomic_found` those
    that are read within 20 pixels, `atomic_error` pixels that all are off; `still_found` and `still_error` if nothing
    moved, `reader_error` of the start frame where it is. An episode without the hand adds nothing.
    """

    @torch.no_grad()
    def __call__(self, subject: Subject) -> Sums:
        """See the class."""
        model = load_world_model(subject.model)
        rows = []
        for episode in held_out_clips(subject, model):
            frame = start_frame(episode)
            if frame is None:
                rows.append(dict.fromkeys(ATOMIC_SUMS, 0.0))
                continue
            motions = atomic_motions(episode, frame, CENTIMETRES, model.condition)
            latents, together = roll_out(model, episode, motions, frame)
            ends, size = [0, CENTIMETRES.steps], episode.frames.size
            pixels, visible = together.pixels[:, ends, :, :2], together.visible[:, ends]
            seen = keypoint_views(pixels, visible, size)["in_view"].all(dim=1)
            read = subject.evaluator.keypoints(latents[:, ends])[0]
            scale = REFERENCE_HEIGHT / size[0]
            rows.append(atomic_sums(tuple(motions), scale * pixels, scale * read, seen))
        return {key: np.array([[row[key]] for row in rows]) for key in ATOMIC_SUMS}


def atomic_sums(names: Sequence[str], commanded: Tensor, read: Tensor, seen: Tensor) -> dict[str, float]:
    """The sums of an episode from pixels (N, 2, 12, 2), commanded and read, in the first and the last frame of N named
    motions. seen: (N, 12), keypoints that are in view in both; those of the right hand count.
    """
    sums = dict.fromkeys(ATOMIC_SUMS, 0.0)
    commanded, read, seen = commanded[..., HAND:, :], read[..., HAND:, :], seen[..., HAND:]
    sums["atomic_points"] = int(seen.sum())
    for key, found in {"atomic": read[:, 1], "still": read[:, 0]}.items():
        distances = (found - commanded[:, 1])[seen].norm(dim=-1)
        sums |= {f"{key}_error": float(distances.sum()), f"{key}_found": int((distances <= FOUND_PX).sum())}
    sums["reader_error"] = float((read[:, 0] - commanded[:, 0])[seen].norm(dim=-1).sum())
    place = {name: index for index, name in enumerate(names)}
    for pair in (*OPPOSITES, CURLS):
        one, other = (place[name] for name in pair)
        shown = seen[one] & seen[other]
        told, found = (each[one, 1] - each[other, 1] for each in (commanded, read))  # (6, 2)
        if pair == CURLS and shown[0] and shown[1:].any():
            told, found = ((each - each[:1])[shown].flatten() for each in (told, found))
            sums["curl_pairs"] += 1
            sums["curls_gone"] += float(found @ told / told.square().sum().clamp_min(1.0))
        elif pair != CURLS and shown.any():
            told, found = (each[shown].mean(dim=0) for each in (told, found))
            if told.norm() >= SEEN_PX:
                sums["atomic_pairs"] += 1
                sums["atomic_right"] += float(found @ told > COSINE * found.norm() * told.norm())
                sums["atomic_gone"] += float(found @ told / told.square().sum())
    return sums


@dataclass(frozen=True)
class Transfer:
    """What one clip's hands do, done in another: the source, the target, and the target with the source's motion."""

    source: Track
    target: Track
    moved: Track

    def imagined(self, model: Any) -> tuple[Tensor, HandMotion]:
        """Latents (T + 1, P, D) from the target's first frame, and where the hands should be, batched by one."""
        latents, _ = roll_out(model, self.target, {"": model.condition(self.moved)})
        return latents[0], of_hands(self.moved)


def transfers(clips: list[Track]) -> Iterator[Transfer]:
    """Each clip of four seconds as the target of another's motion, the same pairs for every model.

    Raises ValueError where no two clips are so long.
    """
    config = OpenLoopConfig(round(SECONDS * RATE_HZ), RATE_HZ)
    long = [clip_of(each, config) for each in clips if config.frame_indices(each.fps)[-1] < len(each)]
    if len(long) < 2:
        raise ValueError(f"a transfer needs two held-out clips of {SECONDS:g} s, and there are {len(long)}")
    for target, partner in zip(long, derangement(len(long), np.random.default_rng(0)), strict=True):
        yield Transfer(long[partner], target, transplanted(target, long[partner]))


@dataclass(frozen=True)
class TransferMeasure:
    """Figure 9: the action sequence of one clip, rolled out from the first frame of another.

    Sums (E, T): `transfer_pck20_visible` and `in_view` of the keypoints where the transferred motion puts the hands,
    `start_pck20_visible` for the start frame repeated; `tips` in view with their wrist, `tips_error` pixels by which
    they are off as seen from it, `start_tips_error` for the start frame.
    """

    @torch.no_grad()
    def __call__(self, subject: Subject) -> Sums:
        """See the class."""
        model = load_world_model(subject.model)
        rows = [transfer_sums(each, model, subject) for each in transfers(held_out_clips(subject, model))]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def transfer_sums(transfer: Transfer, model: Any, subject: Subject) -> Sums:
    """The sums of one transfer, (T,) each."""
    latents, motion = transfer.imagined(model)
    size = transfer.target.frames.size
    read = subject.evaluator.keypoints(latents)[0].double()
    pixels = motion.pixels[1:, :, :2]
    views = keypoint_views(pixels, motion.visible[1:], size)
    sums: Sums = {"in_view": views["in_view"].sum(-1).double().numpy()}
    tips = views["in_view"].unflatten(-1, (2, HAND))
    tips = tips[..., 1:] & tips[..., :1]
    sums["tips"] = tips.sum((-2, -1)).double().numpy()
    for prefix, found in {"transfer_": read[1:], "start_": read[:1].expand_as(read[1:])}.items():
        kept = keypoint_sums(prefix, found, pixels, views, size[0] / REFERENCE_HEIGHT)
        sums[f"{prefix}pck20_visible"] = kept[f"{prefix}pck20_visible"]
        off = (from_wrist(found) - from_wrist(pixels)).norm(dim=-1) * REFERENCE_HEIGHT / size[0]
        sums[f"{prefix}tips_error"] = torch.where(tips, off, 0.0).sum((-2, -1)).numpy()
    return sums


def from_wrist(pixels: Tensor) -> Tensor:
    """Tips (T, 2, 5, 2) as seen from their wrists, of tracked keypoints (T, 12, 2)."""
    hands = pixels.unflatten(-2, (2, HAND))
    return hands[..., 1:, :] - hands[..., :1, :]
