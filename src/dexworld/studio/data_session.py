"""One visitor's look at a dataset: a folder, which episodes of it, one episode, one frame.

It reads nothing itself: it asks the reader's desk, one request at a time, and tells `changed` when something arrived.
While nobody wants anything else it reads on what is broken, so that the filters know.
"""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dexworld.data.statistics import Figures
from dexworld.studio.dataset_reader import OpenedEpisode, OpenedFolder, SurveyNews
from dexworld.studio.desk import Desk
from dexworld.studio.desk_session import DeskSession, Request

AHEAD = 8  # frames that are asked for at once while a film plays
KEPT = 64  # pictures of a visitor
PLAYED_FPS = 10.0  # pictures a second at most
Which = Literal["all", "whole", "broken", "looks wrong"]
Seen = Literal["any", "left", "right", "both"]


@dataclass(frozen=True)
class DataChoice:
    """What a visitor looks at. find: words of an episode's name or sentence. hand: that some frame shows."""

    folder: str = ""
    episode: int = 0
    frame: int = 0
    find: str = ""
    which: Which = "all"
    hand: Seen = "any"


class DataSession(DeskSession):
    """See the module. Every method returns at once, from any thread.

    rows: what the survey and the visits found, by index. watched: whether the view is open.
    """

    def __init__(self, desk: Desk, changed: Callable[[], None]) -> None:
        super().__init__(desk, changed)
        self.choice, self.problem = DataChoice(), ""
        self.folder: OpenedFolder | None = None
        self.rows: dict[int, dict[str, Any]] = {}
        self.survey: SurveyNews | None = None
        self.episode: OpenedEpisode | None = None
        self.watched = False
        self.hands = True
        self._surveyed: set[int] = set()
        self._surveys = True  # until it fails
        self._checked: set[int] = set()
        self._pictures: OrderedDict[tuple[int, bool], np.ndarray] = OrderedDict()
        self._found: tuple[Any, list[int]] = (None, [])

    def open(self, choice: DataChoice) -> None:
        """Look at a folder, from its list of episodes on."""
        with self._lock:
            self.choice, self.problem, self.folder, self.survey = choice, "", None, None
            self.rows, self._surveyed, self._checked, self._surveys = {}, set(), set(), True
            self._leave_episode()
        self._go_on()

    def watch(self, watched: bool) -> None:
        """Whether the view is open: what isn't looked at is not read."""
        with self._lock:
            self.watched, self.playing = watched, False
        self._go_on()

    def filter(self, **changes: Any) -> None:
        """Other words to find, other episodes: fields of `DataChoice`."""
        with self._lock:
            self.choice = replace(self.choice, **changes)
        self._changed()

    def go_to(self, episode: int, frame: int = 0) -> None:
        """Another episode."""
        with self._lock:
            if episode != self.choice.episode or self.problem:
                self._leave_episode()
            self.choice, self.problem = replace(self.choice, episode=episode, frame=frame), ""
        self._go_on()

    def step(self, by: int) -> None:
        """The next of the episodes that match, or the one before."""
        found = self.matches()
        if found:
            place = int(np.searchsorted(found, self.choice.episode, side="left" if by < 0 else "right"))
            self.go_to(found[(place - (by < 0)) % len(found)])

    def seek(self, frame: int) -> None:
        """Another frame of the film."""
        with self._lock:
            if self.episode is None:
                return
            self.choice = replace(self.choice, frame=int(np.clip(frame, 0, len(self.episode) - 1)))
            self.problem = ""
        self._go_on()

    def play(self) -> None:
        """Play the film from here, or stop it; from its end it begins anew."""
        with self._lock:
            self.playing = not self.playing and self.episode is not None
            if self.playing and self.episode is not None and self.choice.frame >= len(self.episode) - self.stride:
                self.choice = replace(self.choice, frame=0)
        self._go_on()

    def advance(self) -> None:
        """Show the film's next picture, once the one before is shown."""
        with self._lock:
            episode = self.episode
            if not self.playing or episode is None or self.picture is None:
                return
            self.playing = self.choice.frame + self.stride < len(episode)
        self.seek(self.choice.frame + (self.stride if self.playing else 0))

    def show_hands(self, shown: bool) -> None:
        """Whether hands are drawn on the pictures."""
        self.hands = shown
        self._go_on()

    @property
    def stride(self) -> int:
        """Frames of the film between two that are played."""
        return 1 if self.episode is None else max(1, round(self.episode.fps / PLAYED_FPS))

    @property
    def picture(self) -> np.ndarray | None:
        """The picture that is looked at, None until it is there."""
        return self._pictures.get((self.choice.frame, self.hands))

    @property
    def row(self) -> dict[str, Any] | None:
        """What is known of the episode that is looked at, as of `EpisodeReport.row`."""
        return self.rows.get(self.choice.episode)

    @property
    def figures(self) -> Figures | None:
        """Of the episodes that the survey read."""
        return None if self.survey is None else self.survey.figures

    def matches(self) -> list[int]:
        """The episodes that the filters leave; those that weren't read yet only where no filter asks about them."""
        with self._lock:
            choice, folder = self.choice, self.folder
            if folder is None:
                return []
            key = (folder, choice.find, choice.which, choice.hand, len(self.rows), len(self._checked))
            if self._found[0] != key:
                words = choice.find.lower().split()
                self._found = key, [index for index in range(len(folder.ids)) if self._matches(index, words)]
            return self._found[1]

    def _matches(self, index: int, words: list[str]) -> bool:
        choice, row = self.choice, self.rows.get(index)
        assert self.folder is not None
        text = f"{self.folder.ids[index]} {row.get('task', '') if row else ''}".lower()
        if not all(word in text for word in words):
            return False
        if choice.which == "all" and choice.hand == "any":
            return True
        if row is None:
            return False
        broken, odd = "broken" in row, bool(row.get("findings"))
        fits = {"all": True, "whole": not broken, "broken": broken, "looks wrong": odd}[choice.which]
        wanted = {"any": (), "both": ("left", "right")}.get(choice.hand, (choice.hand,))
        return fits and all(row.get(side, 0) > 0 for side in wanted)

    def _leave_episode(self) -> None:
        self.episode, self.playing = None, False
        self._pictures.clear()

    def _wanted(self) -> Request | None:
        folder, episode, frame = self.choice.folder, self.choice.episode, self.choice.frame
        if not folder or not self.watched or (self.problem and self.folder is None):
            return None
        if self.folder is None:
            return "open", (folder,)
        if self.episode is None and not self.problem and self.folder.ids:
            return "episode", (folder, episode)
        if self.episode is not None and not self.problem:
            ahead = range(frame, len(self.episode), self.stride)[: AHEAD if self.playing else 1]
            missing = tuple(each for each in ahead if (each, self.hands) not in self._pictures)
            if missing and (len(missing) > AHEAD // 2 or missing[0] == frame):
                return "pictures", (folder, episode, missing, self.hands)
        if self.folder.ids and episode not in self._checked and not self.playing:
            return "check", (folder, episode)
        if self._surveys and len(self._surveyed) < self.folder.surveyed and not self.playing:
            return "survey", (folder, len(self._surveyed))
        return None

    def _heard(self, future: "Future[Any]", method: str, asked: tuple[Any, ...]) -> None:
        folder, *rest = asked
        if folder != self.choice.folder or (method not in ("open", "survey") and rest[0] != self.choice.episode):
            return
        if (error := future.exception()) is None:
            self._take(method, future.result(), rest)
            return
        self.problem, self.playing = str(error) or type(error).__name__, False
        self._checked |= {rest[0]} if method == "check" else set()
        self._surveys = self._surveys and method != "survey"

    def _take(self, method: str, answer: Any, asked: list[Any]) -> None:
        if method == "open":
            self.folder = answer
            if not answer.ids:
                self.problem = "no episode of this folder can be opened"
            elif self.choice.episode >= len(answer.ids):
                self.choice = replace(self.choice, episode=0, frame=0)
        elif method == "episode":
            self.episode = answer
            self.choice = replace(self.choice, frame=min(self.choice.frame, len(answer) - 1))
        elif method == "pictures":
            for frame, picture in zip(asked[1], answer, strict=True):
                self._pictures[frame, asked[2]] = picture
            while len(self._pictures) > KEPT:
                self._pictures.popitem(last=False)
        elif method == "check":
            self._checked.add(asked[0])
            self.rows[asked[0]] = self.rows.get(asked[0], {}) | answer
        elif method == "survey":
            self.survey = answer
            self._surveyed |= set(answer.rows)
            self.rows |= {index: row | self.rows.get(index, {}) for index, row in answer.rows.items()}
