"""The verb `studio`: a page in the browser to play with a world model."""

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.models.checkpoint import checkpoint_kind, located
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.sim.kitchen.worn_meshes import check_look
from dexworld.sim.render import choose_backend
from dexworld.studio.start_frame import open_any
from dexworld.studio.studio_server import StudioConfig, StudioServer

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Studio:
    """Open a page in the browser: move a hand in a picture and see what the world model expects.

    Runs until it is stopped. Only this machine reaches the page.
    """

    checkpoint: tyro.conf.Positional[str] = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    dataset: tyro.conf.Positional[Path | None] = None
    """Dataset to open the page with; any layout that `dexworld inspect` reads."""
    config: Annotated[StudioConfig, tyro.conf.arg(name="")] = field(default_factory=StudioConfig)

    def run(self) -> None:
        """Serve the page."""
        check_look(self.config.look)
        choose_backend("auto")  # what can't be drawn or read is told before the page is there
        for checkpoint in filter(None, (self.checkpoint, self.config.compare)):
            checkpoint_kind(located(checkpoint_path(checkpoint)))
        if self.dataset is not None:
            open_any(self.dataset)
        with StudioServer(self.config, self.checkpoint, str(self.dataset or "")) as studio:
            logger.info("open %s in a browser", studio.url)
            threading.Event().wait(self.config.max_seconds)
