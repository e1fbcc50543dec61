"""The verb `robot retarget`: what a robot's joints do when its hand does what a person's did, or its hands."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from dexworld.cli.bars import counted
from dexworld.cli.reader_options import reader_options
from dexworld.data.readers import Kind, open_source
from dexworld.evaluation.results import write_results
from dexworld.robots.find_robot import find_robot
from dexworld.robots.retarget import RetargetConfig, Retargeted, retarget
from dexworld.robots.robot import Robot
from dexworld.track import Track
from dexworld.writing import written_atomically

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class RetargetHands:
    """Give a robot's hand the motions of the human hands in a dataset, one `.npz` an episode.

    The hand is alone: its base follows the person's hand. A robot with two hands stands still and moves its arms.
    `dexworld.robots.retarget` also moves the arm of one hand.
    """

    source: tyro.conf.Positional[Path]
    """Dataset folder with human hands."""
    output: Path
    """Folder for the joint paths."""
    robot: tuple[str, ...] = ("franka-allegro",)
    """The built-in robot, the name of one that dexworld ships a description of, a description that names its model, or
    a MJCF or URDF file. Several, such as a left and a right hand, get a folder each."""
    description: Path | None = None
    """TOML file that says what the file's hand is."""
    kind: Kind = "auto"
    """Layout of the dataset; `auto` recognises it."""
    reader: tuple[str, ...] = ()
    """How the layout is read, e.g. `egodex.split=test`, or a JSON file {layout: {field: value}}."""
    config: Annotated[RetargetConfig, tyro.conf.arg(name="")] = field(default_factory=RetargetConfig)

    def run(self) -> None:
        """Retarget every episode for every robot, and write errors and what was left out into `results.json`."""
        if not self.robot or (self.description is not None and len(self.robot) > 1):
            raise ValueError("--robot takes one robot or several, --description goes with a single file")
        robots = [find_robot(each, self.description) for each in self.robot]
        for name, robot in zip(self.robot, robots, strict=True):
            self._retarget(robot, self.output / Path(name).stem if len(robots) > 1 else self.output)

    def _retarget(self, robot: Robot, output: Path) -> None:
        source = open_source(self.source, self.kind, reader_options(self.reader))
        left_out = dict(source.quarantined)
        errors: list[np.ndarray] = []
        for number in counted("episodes", len(source.ids))(range(len(source.ids))):
            try:
                track = source[number]
                done = retarget(robot, track.keypoints_world, track.keypoints_valid, config=self.config)
            except ValueError as error:
                left_out[source.ids[number]] = str(error)
                continue
            write_motion(output / f"{source.ids[number]}.npz", robot, done, track)
            errors.append(done.tip_error[~done.tip_error.isnan()].numpy())
        if not errors:
            raise ValueError(
                f"none of {len(left_out)} episodes could be retargeted; first: {next(iter(left_out.values()))}"
            )
        median, ninth = (100 * float(np.quantile(np.concatenate(errors), share)) for share in (0.5, 0.9))
        figures: dict[str, Any] = {"episodes": len(errors), "tip_error_cm": median, "tip_error_cm_90": ninth}
        write_results(output, {**figures, "episodes_left_out": len(left_out), "left_out": left_out})
        for name, reason in list(left_out.items())[:5]:
            logger.warning("left out %s: %s", name, reason)
        text = "%d joint paths in %s; fingertips are %.1f cm off in the median, 90 %% within %.1f cm"
        logger.info(text, len(errors), output, median, ninth)


def write_motion(path: Path, robot: Robot, done: Retargeted, track: Track) -> None:
    """Write joint_positions (F, J), joint_names (J,), world_from_base (F, 4, 4), tip_error (F, n) and fps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            joint_positions=done.joint_positions.numpy(),
            joint_names=np.array(robot.joints),
            world_from_base=done.world_from_base.numpy(),
            tip_error=done.tip_error.numpy(),
            fingers=np.array(done.fingers),
            fps=np.array(track.fps),
        )
