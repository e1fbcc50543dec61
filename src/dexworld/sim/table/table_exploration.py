"""Exploration at the table: the hand goes about over it, opens and closes, and sweeps through the thing."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dexworld.sim.kitchen.explore import recorded
from dexworld.sim.table.station import OutOfReach, station
from dexworld.sim.table.table_simulation import FRAMES_PER_SECOND, TableSimulation
from dexworld.sim.table.table_tasks import push_poses, random_pose
from dexworld.track import Track

_COLUMNS = ("keypoints_world", "keypoints_valid", "joint_positions", "joint_targets", "object_positions",
            "object_touched", "object_motion")  # fmt: skip
_SECONDS = (0.6, 1.2)  # of a move
_GAP = (0.02, 0.08)  # metres from the fingertips to the thing before a sweep
_TRIES = 20


@dataclass(frozen=True)
class TableConfig:
    """Recordings at 5 Hz of a described robot that explores a table."""

    robot: str
    """A description that names its own `model`, or a robot that dexworld ships a description of."""
    frames: int = 40
    """Frames of an episode, five a second."""
    sweeps: float = 0.5
    """Share of the moves that go through the thing."""

    def __post_init__(self) -> None:
        if self.frames < 2 or not 0.0 <= self.sweeps <= 1.0:
            raise ValueError(f"the table takes frames >= 2 and sweeps 0 to 1, got {self.frames} and {self.sweeps}")


def record_table(seed: int, config: TableConfig, backend: str = "auto") -> Track:
    """One episode in the scene of `seed`, with the columns of the kitchen's exploration but `attempt`."""
    rng, rows = np.random.default_rng([seed, 31]), list[dict[str, np.ndarray]]()
    with TableSimulation(station(config.robot), seed, backend) as simulation:

        def record(simulation: TableSimulation) -> None:
            if len(rows) < config.frames:
                rows.append(simulation.observation() | simulation.object_row())

        moves = _moves(simulation, rng, config.sweeps)
        simulation.reset(next(moves))
        while len(rows) < config.frames:
            simulation.move(next(moves), float(rng.uniform(*_SECONDS)), record)
    source = f"table exploration of {simulation.robot.description.name}, seed {seed}"
    return recorded(rows, source, "table", seed, FRAMES_PER_SECOND, _COLUMNS)


def _moves(simulation: TableSimulation, rng: np.random.Generator, sweeps: float) -> Iterator[np.ndarray]:
    """Joint targets (J,) without end. Raises OutOfReach where the hand can't be brought to any of many places."""
    failed = 0
    while failed < _TRIES:
        state = simulation.get_state()
        try:
            found = push_poses(simulation, rng, _GAP) if rng.random() < sweeps else (random_pose(simulation, rng),)
            failed = 0
        except OutOfReach:
            found, failed = (), failed + 1
        simulation.set_state(state)
        yield from found
    raise OutOfReach(
        f"{_TRIES} places over the table in a row stay out of reach of {simulation.robot.description.name}"
    )
