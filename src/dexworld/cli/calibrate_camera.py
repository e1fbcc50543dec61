"""The verb `camera calibrate`: intrinsics and hand-eye pose from pictures of a board."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from dexworld.data.camera.board import BoardConfig
from dexworld.data.camera.camera_files import HandEye, write_camera, write_hand_eye
from dexworld.data.camera.camera_findings import camera_facts
from dexworld.data.camera.lens import Model
from dexworld.data.files import read_json
from dexworld.data.readers.arrays import is_rigid
from dexworld.data.rigid_poses import poses_of, rotations_of
from dexworld.evaluation.results import write_results

_PICTURES, _MUCH_PX = (".png", ".jpg", ".jpeg", ".bmp"), 1.0


@dataclass(frozen=True)
class CalibrateCamera:
    """Calibrate a camera from pictures of a ChArUco board or a grid of AprilTags (extra `camera`).

    Writes camera.yaml (ROS camera_info) and, where the folder holds poses.json, hand_eye.yaml (easy_handeye).
    """

    folder: tyro.conf.Positional[Path]
    """Folder of pictures. poses.json gives the robot's pose for each: {"NAME.png": [x, y, z, qx, qy, qz, qw]} or 4 x 4
    numbers, base to flange, metres."""
    output: Path = Path("outputs/camera")
    """Folder for camera.yaml, hand_eye.yaml and results.json."""
    lens: Model = "plumb_bob"
    """Lens model: 5 coefficients, 8 of `rational_polynomial` for wide lenses, or `equidistant` for fisheyes."""
    mount: Literal["on_base", "on_hand"] = "on_base"
    """Where the camera is: standing, with the board on the flange; or on the flange, with a board that stands."""
    board: Annotated[BoardConfig, tyro.conf.arg(name="")] = field(default_factory=BoardConfig)

    def run(self) -> None:
        """Find the board, fit, and write the files."""
        from dexworld.data.camera.calibration import calibrated, find_boards

        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is no folder of pictures")
        paths = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in _PICTURES)
        poses = self.folder / "poses.json"
        robot = read_poses(poses) if poses.exists() else None
        views, left_out, size = find_boards(paths, self.board)
        for name, why in left_out.items():
            sys.stdout.write(f"left out: {name}: {why}\n")
        found = calibrated(views, size, self.lens)
        figures = {"pictures": len(views), "left_out": left_out, "rms_px": found.rms_px}
        figures |= {"rms_px_by_picture": found.rms_by_picture}
        self.output.mkdir(parents=True, exist_ok=True)
        write_camera(self.output / "camera.yaml", found.camera)
        sys.stdout.writelines(f"{line}\n" for line in camera_facts(found.camera))
        sys.stdout.write(f"misfit: {found.rms_px:.3f} pixels (RMS) in {len(views)} pictures\n")
        if found.rms_px > _MUCH_PX:
            worst = max(found.rms_by_picture, key=lambda name: found.rms_by_picture[name])
            sys.stdout.write(f"note: that is much; look at {worst}, and whether the board is flat and its size right\n")
        if robot is not None:
            figures |= self._mounted(found.boards, robot)
        write_results(self.output, figures)

    def _mounted(self, boards: dict[str, np.ndarray], robot: dict[str, np.ndarray]) -> dict[str, float]:
        """Fit and write the hand-eye pose."""
        from dexworld.data.camera.calibration import hand_eye

        names = [name for name in boards if name in robot]
        fit = hand_eye([boards[name] for name in names], [robot[name] for name in names], self.mount == "on_hand")
        mounted = HandEye(self.mount == "on_hand", fit.parent_from_camera, "base", "flange", "camera_optical_frame")
        write_hand_eye(self.output / "hand_eye.yaml", mounted)
        spread = f"the board seems to move by {fit.spread_mm:.2f} mm and {fit.spread_deg:.2f} degrees (RMS)"
        sys.stdout.write(f"hand-eye: from {len(names)} pictures; {spread}\n")
        return {"poses": len(names), "spread_mm": fit.spread_mm, "spread_deg": fit.spread_deg}


def read_poses(path: Path) -> dict[str, np.ndarray]:
    """base_from_flange (4, 4) by picture. Raises ValueError naming the file, the picture and what is wrong."""
    found = {}
    for name, value in read_json(path).items():
        try:
            numbers = np.asarray(value, float)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {name} holds no numbers") from error
        if numbers.shape == (7,) and abs(np.linalg.norm(numbers[3:]) - 1) < 1e-2:
            numbers = poses_of(rotations_of(numbers[None, 3:])[0], numbers[:3])
        if numbers.shape != (4, 4) or not is_rigid(numbers[None])[0]:
            wanted = "x, y, z, qx, qy, qz, qw with a unit quaternion, or a rigid 4 x 4 matrix, metres"
            raise ValueError(f"{path}: the pose of {name} is not {wanted}")
        if np.abs(numbers[:3, 3]).max() > 10:
            raise ValueError(f"{path}: the pose of {name} is {np.abs(numbers[:3, 3]).max():.4g} m away: give metres")
        found[name] = numbers
    return found
