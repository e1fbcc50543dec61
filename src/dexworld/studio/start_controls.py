"""The controls that choose a start: a scene by its seed, an episode of a dataset, a picture of one's own."""

import io
import random
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from dexworld.studio.imagine_session import ImagineSession
from dexworld.studio.start_frame import Start
from dexworld.studio.visitor_page import Page

SCENES = range(900_000, 1_000_000)  # validation scenes: the shipped models never saw one
LARGEST_UPLOAD = 30_000_000  # bytes
LARGEST_SIDE = 10_000  # pixels
SHOWN_SIDE = 800  # pixels that a picture of one's own is made smaller to


class StartControls:
    """See the module. dataset: the folder that the server was started with, or none."""

    def __init__(self, page: Page, session: ImagineSession, dataset: str) -> None:
        self.page, self.session, self.dataset = page, session, dataset

    def build(self, gui: Any) -> None:
        """Make them."""
        start = self.session.start
        with gui.add_folder("Start", expand_by_default=not self.page.narrow):
            other = gui.add_button("Another scene", icon="dice")
            self._seed = gui.add_number("Scene, by seed", start.seed, min=0, max=2**31 - 1, step=1)
            upload = gui.add_upload_button("A picture of my own", icon="photo-up", mime_type="image/*")
        with gui.add_folder("Start from an episode", expand_by_default=bool(self.dataset) and not self.page.narrow):
            self._folder = gui.add_text("Dataset folder", start.folder or self.dataset)
            self._episode = gui.add_number("Episode", start.episode, min=0, step=1)
            self._frame = gui.add_number("Frame (-1: a good one)", -1 if start.frame is None else start.frame, min=-1)
            self._hand = gui.add_dropdown("Hand that I move", ("right", "left"), initial_value=start.hand)
            opens = gui.add_button("Open the episode", icon="folder-open")
            follow = gui.add_button("Do what the recording does", icon="player-track-next")
        other.on_click(lambda _: self.another())
        self._seed.on_update(lambda event: self._scene(event.client, int(event.target.value)))
        upload.on_upload(lambda event: self.page.guarded(lambda: self.picture(event.target.value.content)))
        opens.on_click(lambda _: self.page.guarded(self._open_episode))
        follow.on_click(lambda _: self.session.follow_recording())

    def _scene(self, client: Any, seed: int) -> None:
        if client is not None:  # a visitor's doing, and not ours
            self.session.open(Start(seed=seed))

    def another(self) -> None:
        """A scene drawn at random."""
        self._seed.value = random.choice(SCENES)
        self.session.open(Start(seed=int(self._seed.value)))

    def picture(self, content: bytes) -> None:
        """Start from a picture file. Raises ValueError where it is none, or too large."""
        self.session.open(pictured(self.session.start, content))

    def _open_episode(self) -> None:
        frame = int(self._frame.value)
        if not self._folder.value:
            raise ValueError("name a folder with episodes first")
        chosen = Start(folder=self._folder.value, episode=int(self._episode.value), hand=self._hand.value)
        self.session.open(replace(chosen, frame=None if frame < 0 else frame))


def pictured(start: Start, content: bytes) -> Start:
    """A start from a picture file's content, in place of the kitchen's picture."""
    picture = read_picture(content)
    kept = start if start.simulated else Start()
    return replace(kept, pixels=picture.tobytes(), size=(picture.shape[0], picture.shape[1]))


def read_picture(content: bytes) -> np.ndarray:
    """The picture (H, W, 3) in a file's content. Raises ValueError where it is none, or too large."""
    if len(content) > LARGEST_UPLOAD:
        raise ValueError(
            f"the picture has {len(content) / 1e6:.0f} MB; at most {LARGEST_UPLOAD / 1e6:.0f} MB are taken"
        )
    try:
        opened = Image.open(io.BytesIO(content))
        if max(opened.size) > LARGEST_SIDE:
            raise ValueError(f"the picture is {opened.size[0]} x {opened.size[1]}; at most {LARGEST_SIDE} are taken")
        opened.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("this file is no picture that can be read; take a JPEG or PNG") from error
