"""The verb `plan`: one episode, planned and carried out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dexworld.cli.demo import write_demo
from dexworld.models.latent_readers import AUTO
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.report.play_demo import DemoConfig
from dexworld.sim.kitchen.kitchen_tasks import Task
from dexworld.sim.render import Backend


@dataclass(frozen=True)
class Plan:
    """Plan one episode with the world model, carry it out in the simulator, and show both on a page."""

    output: Path
    """Folder for report.html and results.json."""
    task: Task = "reach"
    """What to do."""
    seed: int = 1_000_000
    """Scene; the next one that has an episode of the task is taken."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    planner: Literal["cpu", "paper"] = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""

    def run(self) -> None:
        """Plan, carry out, and write the page."""
        config = DemoConfig(
            checkpoint_path(self.checkpoint), (self.task,), 1, self.seed, self.planner, 1, self.backend, self.decoder
        )
        write_demo(config, self.output)
