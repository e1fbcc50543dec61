"""What the hands do between two frames: the conditioning of the world model.

An action has 44 rows of three numbers: the displacement of each of the 42 keypoints (metres), the camera's translation
(metres) and the camera's rotation (extrinsic x-y-z Euler angles, radians). DexWM paper, section 3.1; where the released
code differs from the paper, `ActionConvention` names both.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dexworld.geometry import euler_xyz, invert, project, transform_points, wrap_angle
from dexworld.hands import NUM_KEYPOINTS, NUM_TRACKED, TRACKED

ACTION_ROWS = NUM_KEYPOINTS + 2  # 44
ACTION_DIM = 3 * ACTION_ROWS  # 132
MIN_DEPTH = 0.05  # metres; a keypoint nearer to the camera plane has no usable pixel


@dataclass(frozen=True)
class ActionConvention:
    """How an action is written down. Stored in every checkpoint.

    frame: `step` expresses both keypoints of a pair in the camera of its first frame (the paper);
        `window` in the camera of the window's first frame (the release).
    camera: `relative` is the pose of the later camera in the earlier one (the paper, angles wrapped);
        `release` is the world-frame difference of positions and Euler angles, the last angle modulo 2 pi into
        [0, 2 pi): a defect of the release, kept only to load and compare its checkpoints.
    """

    frame: Literal["step", "window"] = "step"
    camera: Literal["relative", "release"] = "relative"

    def __post_init__(self) -> None:
        if self.frame not in ("step", "window"):
            raise ValueError(f"action frame is {self.frame!r}; choose 'step' (the paper) or 'window' (the release)")
        if self.camera not in ("relative", "release"):
            raise ValueError(f"camera delta is {self.camera!r}; choose 'relative' (the paper) or 'release'")


OFFICIAL = ActionConvention(frame="window", camera="release")


@dataclass(frozen=True)
class HandMotion:
    """T transitions between T + 1 frames, with any leading batch dimensions.

    deltas: (..., T, 44, 3) actions, unscaled (metres, radians). Models that are told something else than the hands have
        other rows here.
    pixels: (..., T + 1, 12, 3) the tracked keypoints of every frame in that frame's own camera: u and v in pixels of
        the stored image, depth in metres.
    visible: (..., T + 1, 12) bool: annotated and in front of the camera; it may lie outside the image.
    """

    deltas: Tensor
    pixels: Tensor
    visible: Tensor

    def __post_init__(self) -> None:
        *batch, steps = self.deltas.shape[:-2]
        for name, tail in (("pixels", (steps + 1, NUM_TRACKED, 3)), ("visible", (steps + 1, NUM_TRACKED))):
            shape = tuple(getattr(self, name).shape)
            if shape != (*batch, *tail):
                raise ValueError(f"HandMotion.{name} has shape {shape}, expected {(*batch, *tail)}")

    @property
    def steps(self) -> int:
        """Number of transitions T."""
        return self.deltas.shape[-3]

    def slice(self, start: int, stop: int) -> "HandMotion":
        """Transitions `start` to `stop` (exclusive), with the frames at both their ends."""
        return HandMotion(
            self.deltas[..., start:stop, :, :],
            self.pixels[..., start : stop + 1, :, :],
            self.visible[..., start : stop + 1, :],
        )

    def then(self, later: "HandMotion") -> "HandMotion":
        """This motion followed by `later`, whose first frame must be this one's last."""
        return HandMotion(
            torch.cat([self.deltas, later.deltas], dim=-3),
            torch.cat([self.pixels, later.pixels[..., 1:, :, :]], dim=-3),
            torch.cat([self.visible, later.visible[..., 1:, :]], dim=-2),
        )

    def pad_left(self, count: int) -> "HandMotion":
        """Prepend `count` transitions in which nothing moves: repeats of the first frame with zero actions."""
        if count == 0:
            return self
        deltas = self.deltas.new_zeros(*self.deltas.shape[:-3], count, *self.deltas.shape[-2:])
        return HandMotion(
            torch.cat([deltas, self.deltas], dim=-3),
            torch.cat([self.pixels[..., :1, :, :]] * count + [self.pixels], dim=-3),
            torch.cat([self.visible[..., :1, :]] * count + [self.visible], dim=-2),
        )

    def expand(self, *batch: int) -> "HandMotion":
        """A view with the given leading batch dimensions."""
        kept = self.deltas.ndim - 3
        return HandMotion(*(value.expand(*batch, *value.shape[kept:]) for value in vars(self).values()))

    def index(self, selection) -> "HandMotion":
        """Select along the leading batch dimension(s), as `tensor[selection]` does."""
        return HandMotion(self.deltas[selection], self.pixels[selection], self.visible[selection])

    def to(self, *args, **kwargs) -> "HandMotion":
        """Move or cast the floating-point parts; `visible` stays boolean."""
        deltas, pixels = self.deltas.to(*args, **kwargs), self.pixels.to(*args, **kwargs)
        return replace(self, deltas=deltas, pixels=pixels, visible=self.visible.to(deltas.device))


def hand_motion(
    keypoints_world: Tensor,
    keypoints_valid: Tensor,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    convention: ActionConvention = ActionConvention(),
    told: tuple[Tensor, Tensor] | None = None,
) -> HandMotion:
    """The motion between T + 1 annotated frames.

    keypoints_world (..., T + 1, 42, 3) metres, keypoints_valid (..., T + 1, 42) bool, world_from_camera
    (..., T + 1, 4, 4) and intrinsics (..., 3, 3) for the stored image size. told: other points (..., T + 1, K, 3) in
    metres and which are valid (..., T + 1, K), whose displacements are the action instead of the keypoints'. A point
    that is missing in either frame of a pair has a zero displacement. Raises ValueError on non-finite values of valid
    points or cameras.
    """
    points, valid = told or (keypoints_world, keypoints_valid)
    whole = (keypoints_world[keypoints_valid], points[valid], world_from_camera)
    if not all(torch.isfinite(each).all() for each in whole):
        raise ValueError("keypoints or camera poses hold NaN or Inf; mark such keypoints invalid or drop the frame")
    keypoints_world = torch.where(keypoints_valid[..., None], keypoints_world, torch.zeros_like(keypoints_world))
    points = torch.where(valid[..., None], points, torch.zeros_like(points))
    camera_from_world = invert(world_from_camera)
    reference = camera_from_world[..., :-1, :, :] if convention.frame == "step" else camera_from_world[..., :1, :, :]
    rotation = reference[..., :3, :3]
    displacement = (points[..., 1:, :, :] - points[..., :-1, :, :]) @ rotation.transpose(-1, -2)
    both_valid = valid[..., 1:, :] & valid[..., :-1, :]
    displacement = torch.where(both_valid[..., None], displacement, torch.zeros_like(displacement))
    deltas = torch.cat([displacement, camera_delta(world_from_camera, convention)], dim=-2)

    tracked = list(TRACKED)
    points = transform_points(camera_from_world, keypoints_world[..., tracked, :])
    pixels, depth = project(points, intrinsics[..., None, :, :])
    visible = keypoints_valid[..., tracked] & (depth > MIN_DEPTH)
    pixels = torch.cat([pixels, depth[..., None]], dim=-1)
    return HandMotion(deltas, torch.where(visible[..., None], pixels, torch.zeros_like(pixels)), visible)


def camera_delta(world_from_camera: Tensor, convention: ActionConvention) -> Tensor:
    """Rows 42 and 43 of the action, (..., T, 2, 3), from camera poses (..., T + 1, 4, 4)."""
    earlier, later = world_from_camera[..., :-1, :, :], world_from_camera[..., 1:, :, :]
    if convention.camera == "relative":
        earlier_from_later = invert(earlier) @ later
        translation, angles = earlier_from_later[..., :3, 3], euler_xyz(earlier_from_later[..., :3, :3])
        return torch.stack([translation, wrap_angle(angles)], dim=-2)
    translation = later[..., :3, 3] - earlier[..., :3, 3]
    angles = euler_xyz(later[..., :3, :3]) - euler_xyz(earlier[..., :3, :3])
    angles = torch.cat([angles[..., :2], torch.remainder(angles[..., 2:], 2 * torch.pi)], dim=-1)
    return torch.stack([translation, angles], dim=-2)
