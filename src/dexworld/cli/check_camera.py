"""The verb `camera check`: can these be a camera's intrinsics, and the place where it is mounted?"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, UnidentifiedImageError

from dexworld.data.camera.camera import PinholeView
from dexworld.data.camera.camera_files import read_camera, read_hand_eye
from dexworld.data.camera.camera_findings import camera_facts, camera_findings, hand_eye_facts, hand_eye_findings
from dexworld.writing import written_atomically

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class CheckCamera:
    """Show what a camera's files say, and name what is implausible; exit code 1 if anything is.

    With a picture, draw it without its lens.
    """

    camera: tyro.conf.Positional[Path]
    """Intrinsics: ROS camera_info YAML, OpenCV YAML or JSON, or NPZ with mtx and dist."""
    hand_eye: Path | None = None
    """Where it is mounted: YAML of easy_handeye."""
    image: Path | None = None
    """A picture of this camera; it becomes undistorted.png, and gives its size where the file doesn't."""
    output: Path = Path("outputs/camera")
    """Folder for undistorted.png."""

    def run(self) -> None:
        """Check, show the findings, and draw the picture."""
        camera, image = read_camera(self.camera), None if self.image is None else _picture(self.image)
        if image is not None:
            camera = camera.of_size((image.shape[0], image.shape[1]))
        if camera.size is None:
            raise ValueError(f"{self.camera} doesn't say how large its pictures are: give one by --image")
        lines, findings = camera_facts(camera), camera_findings(camera)
        if self.hand_eye is not None:
            mounted = read_hand_eye(self.hand_eye)
            lines, findings = lines + hand_eye_facts(mounted), findings + hand_eye_findings(mounted, camera)
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.writelines(f"{finding.kind}: {finding.text}\n" for finding in findings)
        if any(finding.kind == "problem" for finding in findings):
            sys.exit(1)
        if image is not None:
            self.output.mkdir(parents=True, exist_ok=True)
            path = self.output / "undistorted.png"
            with written_atomically(path) as temporary:
                Image.fromarray(PinholeView(camera, camera.size).undistorted(image)).save(temporary, "PNG")
            logger.info("without its lens: %s", path)


def _picture(path: Path) -> np.ndarray:
    """A picture (H, W, 3) uint8. Raises ValueError naming a file that is none."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, ValueError) as error:
        raise ValueError(f"{path} can't be read as a picture: {error}") from error
