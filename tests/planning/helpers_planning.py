"""A world that consists of a robot hand's keypoints, and a model that knows it exactly.

An image carries the twelve keypoints' pixels in its first row; latents are Gaussian bumps on the patch grid, one
channel per keypoint, so they are a differentiable function of where the hand is.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from dexworld.actions import ActionConvention, hand_motion
from dexworld.geometry import rigid
from dexworld.hands import NUM_TRACKED
from dexworld.planning.candidates import CandidateCost, Scene
from dexworld.planning.objectives import Smoothness
from dexworld.planning.protocols import Goal
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.observation import Observation

HEIGHT, WIDTH, ROWS, COLUMNS = 224, 392, 8, 14
REST = np.array([0.0, -0.6, 0.0, -2.3, 0.0, 1.8, 0.8] + [0.1, 0.4, 0.4, 0.4] * 3 + [0.8, 0.4, 0.4, 0.4])
INTRINSICS = np.array([[146.0, 0.0, 196.0], [0.0, 146.0, 112.0], [0.0, 0.0, 1.0]])


def look_forward_and_down():
    forward = torch.tensor([0.8, 0.0, -0.6], dtype=torch.float64)
    right = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    return rigid(rotation, torch.tensor([-0.3, 0.0, 0.9], dtype=torch.float64)).numpy()


WORLD_FROM_CAMERA = look_forward_and_down()
WORLD_FROM_BASE = np.eye(4)


def scene(joints=REST, targets=None):
    def tensor(value):
        return torch.tensor(np.asarray(value), dtype=torch.float32)

    values = (joints, joints if targets is None else targets, WORLD_FROM_BASE, WORLD_FROM_CAMERA, INTRINSICS)
    return Scene(*map(tensor, values), (HEIGHT, WIDTH))


def no_goal():
    return Goal((HEIGHT, WIDTH), torch.zeros(NUM_TRACKED, 2), torch.zeros(NUM_TRACKED))


def hand_pixels(joints):
    """Tracked keypoints (12, 2) of a joint vector, as the toy camera sees them."""
    cost = CandidateCost(FrankaAllegro(), Smoothness(), no_goal(), scene(joints))
    return cost.kinematic_rollout(torch.tensor(joints, dtype=torch.float32)[None, None]).pixels[0, 0].numpy()


def image_of(joints, *, hand=True):
    """The toy camera's image: 1/32-pixel coordinates of the right hand's keypoints in 16 bits, two channels."""
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    if hand:
        values = np.clip(np.round(hand_pixels(joints) * 32) + 8192, 0, 65535).astype(np.uint16)
        image[0, :NUM_TRACKED, :2], image[1, :NUM_TRACKED, :2] = values >> 8, values & 255
        image[0, NUM_TRACKED // 2 : NUM_TRACKED, 2] = 255
    return image


def observation(joints=REST, targets=None):
    return Observation(
        image=image_of(joints),
        joint_positions=np.asarray(joints, dtype=np.float64),
        world_from_camera=WORLD_FROM_CAMERA,
        intrinsics=INTRINSICS,
        world_from_base=WORLD_FROM_BASE,
        joint_targets=np.asarray(joints if targets is None else targets, dtype=np.float64),
    )


def moved(joints=REST, seed=0, arm=0.25, finger=0.1):
    """A reachable pose near `joints`, within the limits."""
    step = np.random.default_rng(seed).standard_normal(23) * np.array([arm] * 7 + [finger] * 16)
    return FrankaAllegro().clamp(torch.tensor(joints + step)).numpy()


def motion_of(track, convention=ActionConvention()):
    """The motion (..., T) of a track (..., T + 1)."""
    place = (track.world_from_camera, track.intrinsics)
    return hand_motion(track.keypoints_world, track.keypoints_valid, *place, convention)


@dataclass
class ToyDynamics:
    """The exact model of the toy world; remembers what it was asked."""

    convention: ActionConvention = field(default_factory=ActionConvention)
    started: list = field(default_factory=list)
    rolled: list = field(default_factory=list)

    def encode(self, images):
        if tuple(images.shape[-3:]) != (HEIGHT, WIDTH, 3):
            raise ValueError(f"images must be {HEIGHT}x{WIDTH}")
        values = images[..., 0, :NUM_TRACKED, :].double() * 256 + images[..., 1, :NUM_TRACKED, :].double()
        present = images[..., 0, :NUM_TRACKED, 2] > 0
        return self._bumps(((values[..., :2] - 8192) / 32).float(), present)

    @property
    def needs_still_camera(self):
        return self.convention.frame == "window"

    def condition(self, track):
        return motion_of(track, self.convention)

    def start(self, latents, motion):
        assert len(latents) == motion.steps + 1
        self.started.append((latents, motion))
        return latents[-1]

    def rollout(self, context, motion, max_batch=None):
        size = max_batch or len(motion.deltas)
        self.rolled += [motion.index(slice(first, first + size)) for first in range(0, len(motion.deltas), size)]
        return self._bumps(motion.pixels[:, 1:, :, :2], motion.visible[:, 1:])

    def keypoints(self, latents):
        centres, _ = self._grid(latents)
        mass = latents.sum(-2)  # (..., 12)
        pixels = latents.transpose(-1, -2) @ centres / mass.clamp_min(1e-6)[..., None]
        return pixels, (mass > 0.5).to(latents)

    def _bumps(self, pixels, present):
        centres, patch = self._grid(pixels)
        distance = (pixels[..., None, :, :] - centres[:, None]).square().sum(-1)  # (..., P, 12)
        return torch.exp(-distance / (2 * patch**2)) * present[..., None, :]

    def _grid(self, like):
        row, column = torch.meshgrid(torch.arange(ROWS) + 0.5, torch.arange(COLUMNS) + 0.5, indexing="ij")
        patch = HEIGHT / ROWS
        return torch.stack([column, row], dim=-1).flatten(0, 1).to(like) * patch, patch
