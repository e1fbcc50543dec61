"""The view *Data*: look through the episodes of any folder, at the film, the hands, and what is broken."""

import html
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.report.inspection_page import Listing, listings
from dexworld.studio.data_session import DataChoice, DataSession, Seen, Which
from dexworld.studio.dataset_reader import ASIDE, SURVEY, OpenedEpisode
from dexworld.studio.film_player import FilmPlayer
from dexworld.studio.frame_overlays import shown
from dexworld.studio.hand_drawing import Camera, HandScene
from dexworld.studio.start_frame import Start
from dexworld.studio.survey_drawing import findings_list, hands_strip, histograms, tables
from dexworld.studio.view import View
from dexworld.studio.visitor_page import Page

LISTED = 60  # episodes in the list, around the one that is looked at
ROWS = 8  # of a table
LEFT_COLOUR, RIGHT_COLOUR, CAMERA_COLOUR = (92, 214, 133), (255, 122, 89), (70, 178, 255)
NO_MATCH = "no episode matches"
HELP = "Name a folder with episodes: any that `dexworld inspect` reads. Then press *Open the folder*."
WHAT = {
    **{"left": "The frame before", "right": "The next frame", "forward": "The next episode"},
    **{"back": "The episode before", "play": "Play or stop", "next": "Open the frame in Imagine"},
}


class DataView(View):
    """See the module. page: the visitor's. session: what they looked at, which outlasts the view.

    imagine: opens a start in the view *Imagine*. link: gives the address that restores the page.
    """

    name = "Data"

    def __init__(
        self, page: Page, session: DataSession, imagine: Callable[[Start], None], link: Callable[[], str]
    ) -> None:
        self.session, self._imagine, self._link_of = session, imagine, link
        self.drawing = HandScene(page.client.scene, "/dataset")
        super().__init__(page, self.drawing)
        self.player = FilmPlayer(session.advance, lambda: session.playing)
        self._drawn: dict[str, Any] = {}

    def build(self) -> None:
        """Make the controls, in the folder that the page is in."""
        gui, choice = self.page.client.gui, self.session.choice
        self._pictures, self._says = gui.add_html(""), gui.add_markdown("")
        self._frame = gui.add_slider("Frame", 0, 1, 1, 0)
        self._frame.on_update(lambda event: self._seek(event.client, int(event.target.value)))
        self._strip = gui.add_html("")
        film = gui.add_button_group("Film", ("before", "play", "next"))
        film.on_click(lambda event: self._run(event.target.value))
        steps = gui.add_button_group("Episode", ("previous", "following"), hint="of those that match")
        steps.on_click(lambda event: self.session.step(-1 if event.target.value == "previous" else 1))
        self._list = gui.add_dropdown("Those that match", (NO_MATCH,))
        self._list.on_update(lambda event: self._pick(event.client, event.target.value))
        self._wrong = gui.add_html("")
        opens = gui.add_button("Open this frame in Imagine", icon="hand-move")
        opens.on_click(lambda _: self.page.guarded(self._open_in_imagine))
        look = gui.add_button_group("Look", ("through camera, or outside", "hands, or none", "link"))
        look.on_click(lambda event: self.page.guarded(lambda: self._do(event.target.value)))
        self._kept_link = gui.add_html("", visible=False)
        self._which_controls(gui, choice)
        with gui.add_folder("How much, how fast", expand_by_default=not self.page.narrow):
            self._histograms = gui.add_html("")
        with gui.add_folder("The whole folder", expand_by_default=not self.page.narrow):
            self._account = gui.add_html("")
        acts = {
            **{"left": lambda: self._run("before"), "right": lambda: self._run("next"), "play": self._play},
            **{"forward": lambda: self.session.step(1), "back": lambda: self.session.step(-1)},
            "next": self._open_in_imagine,
        }
        self._keys = [self.page.key(name, act, WHAT[name]) for name, act in acts.items()]
        self._keys.append(self.page.key("outlook", self._turn))
        self._drawn, self._built = {}, True
        self.session.watch(True)

    def leave(self) -> None:
        """Take what is the view's own out of the scene; read and play no more."""
        self.session.watch(False)
        super().leave()

    def redraw(self) -> None:
        """Show where the session stands. From any thread."""
        with self._lock:
            if not self._built:
                return
            session, episode, choice = self.session, self.session.episode, self.session.choice
            self._says.content = said(session)
            self._once("list", (session.matches(), choice.episode, len(session.rows)), self._fill_list)
            read = session.survey.read if session.survey is not None else 0
            self._once("figures", (session.folder, read, episode), lambda: self._figures(episode))
            self._once("wrong", (session.folder, session.row), self._fill_wrong)
            if episode is None:
                self._once("frame", None, self._clear)
                return
            self._frame.max, self._frame.value = max(1, len(episode) - 1), choice.frame
            picture = session.picture
            if picture is not None:
                self._once("frame", (episode, choice.frame, session.hands), lambda: self._show(episode, picture))

    def _once(self, name: str, state: Any, draw: Callable[[], None]) -> None:
        """Draw what isn't drawn yet."""
        if name not in self._drawn or self._drawn[name] != state:
            self._drawn[name] = state
            draw()

    def _which_controls(self, gui: Any, choice: DataChoice) -> None:
        with gui.add_folder("Which episodes", expand_by_default=not (self.page.narrow and choice.folder)):
            self._folder = gui.add_text("Dataset folder", choice.folder)
            opens = gui.add_button("Open the folder", icon="folder-open")
            find = gui.add_text("Find words", choice.find, hint="of the name or the sentence")
            which = gui.add_dropdown("Show", get_args(Which), initial_value=choice.which)
            hand = gui.add_dropdown("Hand in the picture", get_args(Seen), initial_value=choice.hand)
        opens.on_click(lambda _: self.page.guarded(self._open))
        find.on_update(lambda event: self.session.filter(find=event.target.value))
        which.on_update(lambda event: self.session.filter(which=event.target.value))
        hand.on_update(lambda event: self.session.filter(hand=event.target.value))

    def _open(self) -> None:
        if not self._folder.value:
            raise ValueError("name a folder with episodes first")
        self.session.open(replace(self.session.choice, folder=self._folder.value, episode=0, frame=0))

    def _fill_list(self) -> None:
        session = self.session
        found, folder = session.matches(), session.folder
        if not found or folder is None:
            self._list.options = (NO_MATCH,)
            return
        place = int(np.searchsorted(found, session.choice.episode))
        first = max(0, min(place - LISTED // 2, len(found) - LISTED))
        names = {
            index: label(index, folder.ids[index], session.rows.get(index)) for index in found[first : first + LISTED]
        }
        here = session.choice.episode
        names.setdefault(here, label(here, folder.ids[here], session.rows.get(here)))
        self._list.options = tuple(names.values())
        self._list.value = names[here]

    def _fill_wrong(self) -> None:
        folder, row = self.session.folder, self.session.row
        self._wrong.content = findings_list(row) if folder is not None and folder.ids else ""

    def _figures(self, episode: OpenedEpisode | None) -> None:
        session = self.session
        self._histograms.content = histograms(session.figures, None if episode is None else episode.figures)
        opening = [(name, "opening", reason) for name, reason in session.folder.quarantined] if session.folder else []
        if session.survey is None:
            self._account.content = tables([Listing("Broken", "", ("File", "Fails at", "Reason"), opening)], ROWS)
            return
        broken, wrong, content, *_ = listings(session.survey.account, SURVEY.seed)
        self._account.content = tables([broken._replace(rows=[*opening, *broken.rows]), wrong, content], ROWS)

    def _clear(self) -> None:
        self.drawing.clear()
        self._pictures.content = self._strip.content = ""

    def _show(self, episode: OpenedEpisode, picture: np.ndarray) -> None:
        frame = self.session.choice.frame
        camera = Camera(episode.intrinsics, episode.size, episode.cameras[frame])
        with self.page.client.atomic():
            self.drawing.screen(picture, camera, self.page.through)
            self.drawing.hands(episode.keypoints[frame], episode.valid[frame])
            self._once("ways", episode, lambda: self._ways(episode))
            self.drawing.camera(camera)
            self.drawing.seen_through(self.page.through)
            self._pictures.content = shown(("The film", picture)) if self.page.narrow else ""
            self._strip.content = hands_strip(episode.hands, frame)
        self.page.look(camera, middle(episode, frame), follow=self._drawn.get("outlook") is not episode)
        self._drawn["outlook"] = episode

    def _ways(self, episode: OpenedEpisode) -> None:
        for name, side, colour in (("left way", LEFT, LEFT_COLOUR), ("right way", RIGHT, RIGHT_COLOUR)):
            wrist = side.start + WRIST
            places = np.where(episode.valid[:, wrist, None], episode.keypoints[:, wrist], np.nan)
            self.drawing.way(places, name, colour)
        self.drawing.way(episode.cameras[:, :3, 3], "camera way", CAMERA_COLOUR)

    def _pick(self, client: Any, name: str) -> None:
        if client is not None and name != NO_MATCH:  # a visitor's doing, and not ours
            self.session.go_to(int(name.split(":")[0]))

    def _seek(self, client: Any, frame: int) -> None:
        if client is not None:  # a visitor's doing, and not ours
            self.session.seek(frame)

    def _run(self, name: str) -> None:
        if name == "play":
            self._play()
        else:
            self.session.seek(self.session.choice.frame + (1 if name == "next" else -1))

    def _play(self) -> None:
        self.session.play()
        if self.session.playing and self.session.episode is not None:
            self.player.start(self.session.stride / self.session.episode.fps)

    def _do(self, name: str) -> None:
        if name == "link":
            self._kept_link.content, self._kept_link.visible = self._link_of(), True
        elif name.startswith("hands"):
            self.session.show_hands(not self.session.hands)
        else:
            self._turn()

    def _turn(self) -> None:
        self.page.turn_outlook()
        self.drawing.seen_through(self.page.through)

    def _open_in_imagine(self) -> None:
        choice, episode = self.session.choice, self.session.episode
        if episode is None:
            raise ValueError("there is no frame to open yet")
        left, right = episode.hands[choice.frame] >= ASIDE
        if not (left or right):
            raise ValueError(f"frame {choice.frame} has no hand to move; choose another frame")
        hand: Literal["left", "right"] = "right" if right else "left"
        self._imagine(Start(folder=choice.folder, episode=choice.episode, frame=choice.frame, hand=hand))


def said(session: DataSession) -> str:
    """Where a visitor stands, in words."""
    choice, folder, episode = session.choice, session.folder, session.episode
    if session.problem and folder is None:
        return f"**{html.escape(session.problem)}**"
    if not choice.folder:
        return HELP
    if folder is None:
        return "Opening the folder ..."
    read, total = (session.survey.read if session.survey else 0), len(folder.ids)
    known = f"{len(session.matches()):,} of {total:,} episodes match"
    known += (
        "" if read == total else f", {read:,} read so far" if read < folder.surveyed else f", a sample of {read:,} read"
    )
    if session.problem:
        return f"**{html.escape(session.problem)}** {known}."
    if episode is None:
        return f"Reading episode {choice.episode} ... {known}."
    name = f"Episode {choice.episode}, {html.escape(episode.name)}"
    sentence = f": *{html.escape(episode.task)}*" if episode.task else ""
    return f"{name}{sentence}. Frame {choice.frame} of {len(episode)}, {episode.fps:g} a second. {known}."


def label(index: int, name: str, row: dict[str, Any] | None) -> str:
    """An episode's line in the list."""
    if row is None:
        return f"{index}: {name}"
    if "broken" in row:
        return f"{index}: {name} (broken)"
    return f"{index}: {name}{' (looks wrong)' if row['findings'] else ''} {row['task']}".strip()[:80]


def middle(episode: OpenedEpisode, frame: int) -> np.ndarray:
    """The place (3,) to look at: the hands of a frame, or else half a metre ahead of the camera."""
    valid = episode.valid[frame]
    if valid.any():
        return episode.keypoints[frame][valid].mean(axis=0)
    pose = episode.cameras[frame]
    return pose[:3, 3] + 0.5 * pose[:3, 2]
