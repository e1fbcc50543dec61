"""What both editions of DROID share: the options, the gripper and its dummy hand, poses and intrinsics of cameras."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dexworld.data.readers.arrays import check_numbers, check_pinhole, pinhole, poses_from_euler
from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.data.source import CorruptEpisodeError
from dexworld.hands import NUM_KEYPOINTS

CameraChoice = Literal["left", "right", "ext1", "ext2", "wrist"]
Outcome = Literal["all", "success", "failure"]
ACTION = ("joint_position", "gripper_position")  # side by side in the column `action`
# Focal lengths in pixels at 1280 x 720 (4 micrometre pixels): the outer cameras are ZED 2 with 2.12 mm lenses, the one
# on the wrist a ZED Mini with 2.8 mm. Source: Stereolabs, "camera focal length and field of view".
NOMINAL_FOCAL, NOMINAL_WIDTH = {"ext1": 530.0, "ext2": 530.0, "wrist": 700.0}, 1280
MAX_POSE = 10.0  # metres from the robot's base to a camera, and radians
MAX_ANGLE = 6.5  # radians
MAX_REACH = 2.0  # metres from the base to the gripper; the arm reaches 0.86
MAX_ACTION = 1e3
SLACK = 0.1  # how far a gripper's position may lie outside 0 to 1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DroidOptions:
    """How DROID episodes are read. Raises ValueError on values that mean nothing.

    camera: `left` is the outer camera that the metadata calls left (the release of DexWM), `right` the other one.
    outcome: which episodes. hand: the dummy hand of the gripper.
    max_episodes: at most so many, evenly spread over the ids; 18,720 are about the paper's 100 hours.
    intrinsics: fx, fy, cx, cy in pixels of the video's own size, over everything that the files say.
    estimate_intrinsics: whether the maker's nominal focal length may stand in where no file has intrinsics (the raw
        release has none); if not, such an episode is corrupt.
    annotations: folder with files published later: intrinsics, better poses, language (see `droid_camera.py`).
    """

    camera: CameraChoice = "left"
    outcome: Outcome = "all"
    hand: GripperHand = field(default_factory=GripperHand)
    intrinsics: tuple[float, float, float, float] | None = None
    estimate_intrinsics: bool = True
    annotations: Path | None = None
    max_episodes: int | None = None

    def __post_init__(self) -> None:
        given, too_few = self.intrinsics, self.max_episodes is not None and self.max_episodes < 1
        all_finite = given is None or (len(given) == 4 and bool(np.isfinite(given).all()))
        for name, is_wrong, needed in (
            ("camera", self.camera not in get_args(CameraChoice), f"choose one of {', '.join(get_args(CameraChoice))}"),
            ("outcome", self.outcome not in get_args(Outcome), f"choose one of {', '.join(get_args(Outcome))}"),
            ("max_episodes", too_few, "it must be at least 1, or None for all"),
            ("intrinsics", not all_finite, "give fx, fy, cx, cy in pixels"),
        ):
            if is_wrong:
                raise ValueError(f"{name} is {getattr(self, name)!r}; {needed}")

    def warn_of_estimates(self, folder: Path) -> None:
        """Say once that intrinsics of a dataset that has none will be estimates."""
        if self.annotations is None and self.intrinsics is None and self.estimate_intrinsics:
            _LOG.warning(
                "%s: where it holds no intrinsics (DROID's releases have none) the cameras' nominal focal length "
                "stands in, and pixels of keypoints are estimates; the options droid.intrinsics and, for the raw "
                "release, droid.annotations take measured ones",
                folder,
            )


def hand_columns(hand: GripperHand, position: np.ndarray, closed: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """The columns of a gripper and of its dummy hand, which is in no picture: its keypoint_confidence is 0.

    position: (T, 6) metres in the robot's base and Euler angles, see `poses_from_euler`. closed: (T,) DROID's
    `gripper_position`, 0 open and 1 closed; the column `gripper_opening` is the reverse. Raises CorruptEpisodeError,
    starting with `where`, on NaN, on positions that the arm can't reach, and on values far outside 0 to 1.
    """
    here = f"{where}cartesian_position"
    check_numbers(position, MAX_ANGLE, here)
    far = np.linalg.norm(position[:, :3], axis=1) > MAX_REACH
    if far.any():
        place, row = position[far][0, :3].tolist(), int(np.argmax(far))
        raise CorruptEpisodeError(f"{here} is {place} m from the base at row {row}, further than the arm reaches")
    here = f"{where}gripper_position"
    check_numbers(closed, 1.0 + SLACK, here)
    if closed.min() < -SLACK:
        raise CorruptEpisodeError(f"{here} goes down to {closed.min():g}; it runs from 0 to 1")
    poses, opening = poses_from_euler(position), np.clip(1.0 - closed, 0.0, 1.0)
    keypoints, valid = hand.keypoints(poses, opening)
    return {
        "keypoints_world": keypoints,
        "keypoints_valid": valid,
        "keypoint_confidence": np.zeros((len(poses), NUM_KEYPOINTS), np.float32),
        "gripper_pose_world": poses,
        "gripper_opening": opening.astype(np.float32),
    }


def camera_vector(entry: Any, where: str) -> np.ndarray:
    """A camera's pose (6,), metres and radians, once it may be one; else CorruptEpisodeError starting with `where`."""
    try:
        vector = np.asarray(entry, dtype=np.float64)
    except (TypeError, ValueError):
        vector = np.zeros(0)
    if vector.shape != (6,) or not np.isfinite(vector).all() or np.abs(vector).max() > MAX_POSE:
        raise CorruptEpisodeError(f"{where}: the camera's pose is {entry!r}, expected six numbers (metres, radians)")
    if not vector.any():
        raise CorruptEpisodeError(f"{where}: the camera's pose is all zeros; this camera was not calibrated")
    return vector


def intrinsics(
    options: DroidOptions, stored: np.ndarray | None, role: str, size: tuple[int, int], where: str
) -> np.ndarray:
    """The pinhole matrix (3, 3) for frames of `size` (height, width).

    In this order: `options.intrinsics`; `stored`, as the files hold it; if `options.estimate_intrinsics`, the nominal
    focal length of the camera `role`. Raises CorruptEpisodeError without any, and for one that can't be of this size.
    """
    if options.intrinsics is not None:
        matrix, source = pinhole(*options.intrinsics), "options"
    elif stored is not None:
        matrix, source = stored, "files"
    elif options.estimate_intrinsics:
        focal = NOMINAL_FOCAL[role] * size[1] / NOMINAL_WIDTH
        matrix, source = pinhole(focal, focal, size[1] / 2, size[0] / 2), "estimate"
    else:
        raise CorruptEpisodeError(
            f"{where}: no intrinsics; give `intrinsics` or `annotations`, or allow `estimate_intrinsics`"
        )
    check_pinhole(matrix, size, f"{where}: intrinsics from {source}")
    return matrix
