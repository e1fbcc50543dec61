"""Runs that `dexworld_client.Recorder` kept: what a robot's camera saw, and what its joints did and were told.

    *.run               messages of msgpack, each behind its length of four bytes
        run             fps, task, robot, and whatever else was known before
        frame           an observation, its `stamp` (seconds), the `command` then in force, `counts` of interventions
        chunk           what a policy answered

Cameras are late and drop frames: episodes have one row every 1 / fps seconds, each with the frame that is nearest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from dexworld.data.readers.arrays import check_pinhole, check_rigid
from dexworld.data.readers.foreign_source import ForeignSource
from dexworld.data.source import CorruptEpisodeError
from dexworld.geometry import transform_points
from dexworld.robots.find_robot import find_robot
from dexworld.robots.robot import Robot
from dexworld.track import Track, frame_numbers

_STANDING = ("world_from_camera", "world_from_base", "intrinsics")  # may be left out while they don't change


@dataclass(frozen=True)
class RobotRunOptions:
    """How runs are read.

    robot: its name (`franka-allegro`), or a model file beside its `description`; None takes the name in the file.
    longest_gap_s: seconds without a frame, after which a run is corrupt.
    """

    robot: str | None = None
    description: Path | None = None
    longest_gap_s: float = 1.0


@dataclass(frozen=True)
class RunFrames:
    """The pictures (H, W, 3) of the messages at these places of a file, read on demand."""

    path: Path
    places: tuple[int, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB. Raises IndexError for an index outside [0, T)."""
        numbers = frame_numbers(indices, len(self), str(self.path))
        found = np.empty((len(numbers), *self.size, 3), np.uint8)
        with self.path.open("rb") as file:
            for row, number in enumerate(numbers.tolist()):
                file.seek(self.places[number])
                found[row] = next(_messages(file, self.path))[1]["frame"]["image"]
        return found


@dataclass(frozen=True)
class RobotRunSource(ForeignSource):
    """Every run of a folder; see `data.source.Source`. An id is the file's name without its suffix."""

    kind: ClassVar[str] = "robot-run"
    options: RobotRunOptions

    def files(self, index: int) -> tuple[Path, ...]:
        """The one file of run `index`."""
        return (self.folder / f"{self.ids[index]}.run",)

    def read(self, index: int) -> Track:
        """The robot's hand. Further columns: `interventions` (T,) of the filter since the row before."""
        (path,) = self.files(index)
        about, places, rows = _read(path)
        fps = float(about["fps"])
        chosen = _rows_at(np.array([row["stamp"] for row in rows]), fps, self.options.longest_gap_s, path)
        rows = [rows[number] for number in chosen]
        columns = {name: np.array([row[name] for row in rows], float) for name in (*_STANDING, "joint_positions")}
        for name in _STANDING[:2]:
            check_rigid(columns[name], f"{path}: {name}")
        intrinsics, size = columns["intrinsics"][0], rows[0]["size"]
        if (columns["intrinsics"] != intrinsics).any() or any(row["size"] != size for row in rows):
            raise CorruptEpisodeError(f"{path}: the camera's intrinsics or its picture's size change on the way")
        check_pinhole(intrinsics, size, f"{path}: intrinsics")
        counts = np.array([sum(row["counts"].values()) for row in rows])
        return Track(
            frames=RunFrames(path, tuple(places[number] for number in chosen), size),
            fps=fps,
            world_from_camera=columns["world_from_camera"].astype(np.float32),
            intrinsics=intrinsics,
            source=f"robot run {path.name}",
            task=str(about.get("task", "")),
            columns={
                **self._hands(about, columns, path),
                "joint_positions": columns["joint_positions"].astype(np.float32),
                "joint_targets": np.array([row["command"] for row in rows], np.float32),
                "interventions": np.diff(counts, prepend=counts[:1]),
            },
        )

    def _hands(self, about: dict[str, Any], columns: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
        robot, positions = self._robot(about, path), torch.from_numpy(columns["joint_positions"])
        if positions.shape[1] != len(robot.joints):
            raise CorruptEpisodeError(f"{path} has {positions.shape[1]} joints, its robot {len(robot.joints)}")
        pose = robot.forward(positions)
        points = transform_points(torch.from_numpy(columns["world_from_base"]), pose.keypoints)
        valid = np.tile(pose.valid.numpy(), (len(positions), 1))
        return {"keypoints_world": points.numpy().astype(np.float32), "keypoints_valid": valid}

    def _robot(self, about: dict[str, Any], path: Path) -> Robot:
        name = self.options.robot or about.get("robot")
        if not isinstance(name, str):
            raise CorruptEpisodeError(f"{path} doesn't say which robot it is of; give the option robot_run.robot")
        return find_robot(name, self.options.description)


def recognises(folder: Path) -> bool:
    """Whether `folder` holds runs."""
    return any(folder.glob("*.run"))


def open_robot_runs(folder: Path | str, options: RobotRunOptions = RobotRunOptions()) -> RobotRunSource:
    """The runs in a folder. Raises FileNotFoundError where there are none."""
    folder = Path(folder)
    names = tuple(sorted(path.stem for path in folder.glob("*.run")))
    if not names:
        raise FileNotFoundError(f"{folder} holds no *.run, which a robot's client records")
    return RobotRunSource(folder, names, (), options)


def _read(path: Path) -> tuple[dict[str, Any], list[int], list[dict[str, Any]]]:
    """What is known of a run, where its frames are in the file, and their numbers without the pictures."""
    about: dict[str, Any] = {}
    places, rows, known = list[int](), list[dict[str, Any]](), dict[str, Any]()
    with path.open("rb") as file:
        for place, message in _messages(file, path):
            if "run" in message:
                about = message["run"]
            if "frame" in message:
                frame = message["frame"]
                known |= {name: frame[name] for name in _STANDING if name in frame}
                facts = {"size": frame["image"].shape[:2], "joint_positions": frame["joint_positions"]}
                rows.append(known | facts | {name: message[name] for name in ("stamp", "command", "counts")})
                places.append(place)
    if not rows or "fps" not in about:
        raise CorruptEpisodeError(f"{path} holds no frames, or doesn't say how many a second")
    return about, places, rows


def _messages(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The place and content of each message that is whole; a run may end within one."""
    try:
        from dexworld_client.packing import unpacked
    except ModuleNotFoundError as error:
        raise ImportError("runs are read with dexworld-client; pip install ./client 'dexworld[serve]'") from error
    while len(head := file.read(4)) == 4:
        place, length = file.tell() - 4, int.from_bytes(head, "little")
        if length > path.stat().st_size:
            return
        data = file.read(length)
        if len(data) < length:
            return
        yield place, unpacked(data)


def _rows_at(stamps: np.ndarray, fps: float, longest_gap: float, path: Path) -> list[int]:
    """The frame that is nearest to each tick. Raises CorruptEpisodeError where frames are missing for too long."""
    order = np.argsort(stamps, kind="stable")
    stamps = stamps[order]
    gaps = np.diff(stamps)
    if gaps.max(initial=0.0) > longest_gap:
        where = f"{stamps[gaps.argmax()] - stamps[0]:.1f} s after the first frame"
        raise CorruptEpisodeError(
            f"{path}: no frame for {gaps.max():.1f} s, {where}; the option robot_run.longest_gap_s allows longer ones"
        )
    ticks = stamps[0] + np.arange(int((stamps[-1] - stamps[0]) * fps) + 1) / fps
    return [int(order[np.abs(stamps - tick).argmin()]) for tick in ticks]
