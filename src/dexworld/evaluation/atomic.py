"""Atomic hand motions: one hand that moves straight in one direction, opens or closes, while all else stands still.

Source: DexWM paper, Figure 7, which moves the right hand by 1 cm a frame.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dexworld.actions import HandMotion, hand_motion
from dexworld.hands import FINGERS, JOINTS, LEFT, NUM_TRACKED, RIGHT, WRIST
from dexworld.models.checkpoint import check_prediction
from dexworld.track import Track

INDEX_KNUCKLE, LITTLE_KNUCKLE = 5, 17
OPEN_SHARE = 0.3  # hands at rest are more open than closed, so opening goes less far


@dataclass(frozen=True)
class AtomicConfig:
    """Which atomic motions, and how far.

    steps: frames to move for. distance: metres a frame. curl: radians a frame that every finger joint closes by.
    hand: the one that moves. up: the world's upward direction; "left", "right", "forward" and "back" are level with the
    ground, as the camera looks (the simulator's world is z-up; EgoDex's is y-up: 0 1 0).
    """

    steps: int = 15
    distance: float = 0.01
    curl: float = 0.06
    hand: Literal["left", "right"] = "right"
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.distance > 0 or not self.curl > 0:
            raise ValueError(f"atomic motions need positive steps, distance and curl, not {self}")
        if self.hand not in ("left", "right"):
            raise ValueError(f"hand is {self.hand!r}; choose 'left' or 'right'")
        if not np.linalg.norm(self.up) > 0:
            raise ValueError("up must be a direction, not zero")


def of_hands(track: Track) -> HandMotion:
    """The motion of a track's hands in the paper's convention."""
    return hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)


def atomic_motions(
    episode: Track,
    frame: int = 0,
    config: AtomicConfig = AtomicConfig(),
    condition: Callable[[Track], HandMotion] = of_hands,
) -> dict[str, HandMotion]:
    """The motion (T transitions, unbatched) of each atomic movement by its name, from one frame of an episode.

    condition: a model's own. The camera, the body and the other hand stand still. Raises ValueError naming the episode
    and frame where the frame doesn't exist or the hand's wrist and knuckles are not annotated there.
    """
    movements = atomic_keypoints(episode, frame, config)
    still = episode.at([frame] * (config.steps + 1)).tensors(torch.float64)
    tracks = {name: still.with_columns(keypoints_world=torch.from_numpy(each)) for name, each in movements.items()}
    return {name: condition(track) for name, track in tracks.items()}


@torch.no_grad()
def roll_out(
    model: Any, episode: Track, motions: Mapping[str, HandMotion], frame: int = 0, device: torch.device | str = "cpu"
) -> tuple[Tensor, HandMotion]:
    """Latents (N, T + 1, P, D) of the named motions from one frame of an episode, the frame's own first; the motions
    (N, T) on the same device.

    Raises ValueError on no motions, lengths that differ, a frame that the model can't take, and NaN in predictions.
    """
    if not motions or len({motion.steps for motion in motions.values()}) != 1:
        raise ValueError("imagining needs one or more motions, all with the same number of steps")
    image = np.ascontiguousarray(episode.frames.read([frame]))
    latents = model.encode(torch.from_numpy(image).to(device)).float()  # (1, P, D)
    parts = zip(*(vars(motion).values() for motion in motions.values()), strict=True)
    together = HandMotion(*map(torch.stack, parts)).to(device=device, dtype=torch.float32)
    context = model.start(latents, together.index(0).slice(0, 0))
    predicted = model.rollout(context, together).float()  # (N, T, P, D)
    check_prediction(predicted, model, [str(episode.source)] * len(predicted))
    return torch.cat([latents.expand(len(motions), 1, -1, -1), predicted], dim=1), together


def atomic_keypoints(episode: Track, frame: int, config: AtomicConfig) -> dict[str, np.ndarray]:
    """World keypoints (T + 1, 42, 3) in metres of every atomic movement; see `atomic_motions`."""
    if not 0 <= frame < len(episode):
        raise ValueError(f"{episode.source}: there is no frame {frame}; it has frames 0 to {len(episode) - 1}")
    axes = viewing_axes(episode.world_from_camera[frame, :3, :3], np.asarray(config.up, dtype=float))
    rows = LEFT if config.hand == "left" else RIGHT
    start = episode.keypoints_world[frame].astype(float)
    needed = [WRIST, INDEX_KNUCKLE, LITTLE_KNUCKLE]
    if not episode.keypoints_valid[frame][rows][needed].all():
        lack = f"frame {frame} has no annotated {config.hand} wrist and knuckles to move"
        raise ValueError(f"{episode.source}: {lack}; choose another frame or hand")
    movements = {name: np.repeat(start[None], config.steps + 1, axis=0) for name in (*axes, "open", "close")}
    for step in range(config.steps + 1):
        for name, axis in axes.items():
            movements[name][step, rows] = start[rows] + step * config.distance * axis
        for name, share in (("open", -OPEN_SHARE), ("close", 1.0)):
            movements[name][step, rows] = curled(start[rows], share * config.curl * step, config.hand)
    return movements


def best_frame(episode: Track, hand: Literal["left", "right"] = "right") -> int:
    """The first frame that shows most of a hand's tracked keypoints; ValueError where no frame shows its wrist."""
    track = episode.tensors(torch.float64)
    motion = of_hands(track)
    height, width = episode.frames.size
    rows = slice(0, NUM_TRACKED // 2) if hand == "left" else slice(NUM_TRACKED // 2, NUM_TRACKED)
    u, v, _ = motion.pixels[:, rows].unbind(-1)
    seen = motion.visible[:, rows] & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    counts = torch.where(seen[:, 0], seen.sum(dim=1), torch.zeros(len(episode), dtype=torch.long))
    if counts.max() == 0:
        raise ValueError(f"{episode.source}: no frame shows the {hand} wrist; choose another episode or hand")
    return int(counts.argmax())


def viewing_axes(world_from_camera: np.ndarray, up: np.ndarray) -> dict[str, np.ndarray]:
    """Unit vectors in the world for every direction, as one looking through the camera would name them.

    world_from_camera: (3, 3) rotation. Forward is where the camera looks, made level; a camera that looks straight down
    (or up) has the top of its image as forward.
    """
    up = up / np.linalg.norm(up)
    ahead, top = (axis - (axis @ up) * up for axis in (world_from_camera[:, 2], -world_from_camera[:, 1]))
    forward = ahead if np.linalg.norm(ahead) >= 1e-3 else top
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    return {"up": up, "down": -up, "left": -right, "right": right, "forward": forward, "back": -forward}


def curled(hand: np.ndarray, angle: float | np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """Keypoints (21, 3) of one hand with every finger joint bent further by `angle` radians towards the palm.

    angle: one for all fingers, or (5,). Each finger bends in the plane of its own direction and the palm's normal.
    """
    angles = np.broadcast_to(angle, len(FINGERS))
    towards_index, towards_little = hand[INDEX_KNUCKLE] - hand[WRIST], hand[LITTLE_KNUCKLE] - hand[WRIST]
    normal = np.cross(towards_index, towards_little)  # out of the palm of a right hand
    normal = normal if side == "right" else -normal
    bent = hand.copy()
    if np.linalg.norm(normal) < 1e-9:
        return bent
    for finger in range(len(FINGERS)):
        joints = 1 + len(JOINTS) * finger + np.arange(len(JOINTS))
        axis = np.cross(hand[joints[-1]] - hand[joints[0]], normal)
        if np.linalg.norm(axis) < 1e-9:
            continue
        x, y, z = axis / np.linalg.norm(axis)
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        sine, cosine = np.sin(angles[finger]), np.cos(angles[finger])
        rotation = np.eye(3) + sine * cross + (1 - cosine) * cross @ cross  # Rodrigues' formula
        for pivot in range(len(JOINTS) - 1):
            beyond = joints[pivot + 1 :]
            bent[beyond] = bent[joints[pivot]] + (bent[beyond] - bent[joints[pivot]]) @ rotation.T
    return bent
