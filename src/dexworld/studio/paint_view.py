"""The view *DWM*: paint a hand's path over a still scene, and see the film that the video model makes of it."""

import base64
import html
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.report.media import encode_jpeg
from dexworld.studio.film_painter import Film, GoalPicture, OpenedStill
from dexworld.studio.film_player import FilmPlayer
from dexworld.studio.frame_overlays import SCALE, enlarged, shown
from dexworld.studio.hand_drawing import Camera, HandScene
from dexworld.studio.paint_session import DIRECTIONS, Painting, PaintSession
from dexworld.studio.painted_path import PALMS, SHAPES
from dexworld.studio.start_controls import SCENES, read_picture
from dexworld.studio.still_scene import Still
from dexworld.studio.view import View
from dexworld.studio.visitor_page import Page

HELP = "Click in the large picture where the wrist should go, then where it should go from there."
STEP_M = 0.02  # that a button or a key moves a way-point
GIZMO_M = 0.1
NONE_KEPT = "none yet"
TIED = 1e-6  # candidates whose scores are as near to each other aren't told apart
WHAT = {
    **{name: f"Move the way-point {name}" for name in DIRECTIONS},
    **{"close": "The next shape of the hand", "open": "The shape before", "undo": "Take the way-point away"},
    **{"play": "Play or stop", "next": "Keep the path as a candidate"},
}


class PaintView(View):
    """See the module. page: the visitor's. session: what they painted, which outlasts the view."""

    name = "DWM"

    def __init__(self, page: Page, session: PaintSession, link: Callable[[], str]) -> None:
        self.session, self._link_of = session, link
        self.drawing = HandScene(page.client.scene, "/dwm")
        super().__init__(page, self.drawing)
        self.player = FilmPlayer(session.advance, lambda: session.playing)
        self._dragging = False
        self._drawn: dict[str, Any] = {}

    def build(self) -> None:
        """Make the controls, in the folder that the page is in."""
        gui, session = self.page.client.gui, self.session
        self._films, self._says = gui.add_html(""), gui.add_markdown("")
        for name, options in (("Way-point", ("left", "right", "up", "down")), (" ", ("forward", "back"))):
            gui.add_button_group(name, options).on_click(lambda event: session.move(event.target.value, STEP_M))
        self._point = gui.add_slider(
            "Chosen one", 1, 2, 1, 1, hint="the way-point that is moved; a click adds one after it"
        )
        self._point.on_update(lambda event: self._told(event, lambda value: session.choose(int(value) - 1)))
        self._shape = gui.add_dropdown("Shape from there on", tuple(SHAPES))
        self._shape.on_update(lambda event: self._told(event, lambda value: session.carry(shape=value)))
        self._palm = gui.add_dropdown("Palm", tuple(PALMS))
        self._palm.on_update(lambda event: self._told(event, lambda value: session.carry(palm=value)))
        self._hand = gui.add_dropdown("Hand", ("right", "left"))
        self._hand.on_update(lambda event: self._told(event, session.take_hand))
        deeds = gui.add_button_group("Path", ("keep", "take away", "clear"), hint="take away: the chosen way-point")
        deeds.on_click(lambda event: self.page.guarded(lambda: self._deed(event.target.value)))
        self._frame = gui.add_slider("Frame", 0, 1, 1, 0)
        self._frame.on_update(lambda event: self._told(event, lambda value: session.seek(int(value))))
        look = gui.add_button_group("Look", ("play", "through camera, or outside", "link"))
        look.on_click(lambda event: self.page.guarded(lambda: self._deed(event.target.value)))
        self._kept_link = gui.add_html("", visible=False)
        self._candidate_controls(gui)
        self._scene_controls(gui)
        self.page.client.scene.on_click()(self._clicked)
        acts: dict[str, Callable[[], Any]] = {name: partial(session.move, name, STEP_M) for name in DIRECTIONS}
        acts |= {"close": lambda: self._turn_shape(1), "open": lambda: self._turn_shape(-1), "undo": session.erase}
        acts |= {"play": self._play, "next": session.keep, "outlook": self._turn}
        self._keys = [self.page.key(name, act, WHAT.get(name, "")) for name, act in acts.items()]
        self._drawn, self._built, self._dragging = {}, True, False
        if session.opened is None and not session.busy:
            session.open(session.painting)
        self.redraw()

    def leave(self) -> None:
        """Take what is the view's own out of the scene, and play no more."""
        with self._lock:
            self.session.playing = False
            self.page.client.scene.remove_click_callback()
            super().leave()

    def redraw(self) -> None:
        """Show where the session stands. From any thread."""
        with self._lock:
            if not self._built:
                return
            session, opened = self.session, self.session.opened
            self._says.content = said(session)
            self._note()
            films, truth = session.film_of(session.path), session.truth_of(session.path)
            unknown, ranking = session.unknown(session.path), session.ranking
            if opened is None:
                return
            self._once("films", (opened, films, truth, unknown), self._fill_films)
            kept = session.painting.kept
            known = [session.film_of(path) for path in kept]
            self._once("candidates", (kept, known, ranking, session.unranked), self._fill_candidates)
            goal = opened.goal if session.goal is None else session.goal.picture
            self._once("goal", (opened, session.goal), lambda: self._fill_goal(goal))
            self._once("scene", (opened, films, session.path, session.point, session.frame), lambda: self._show(opened))

    def _once(self, name: str, state: Any, draw: Callable[[], None]) -> None:
        """Draw what isn't drawn yet."""
        if name not in self._drawn or self._drawn[name] != state:
            self._drawn[name] = state
            draw()

    def _candidate_controls(self, gui: Any) -> None:
        with gui.add_folder("Candidates and goal", expand_by_default=not self.page.narrow):
            self._candidates = gui.add_html("")
            self._which = gui.add_dropdown("Candidate", (NONE_KEPT,))
            acts = gui.add_button_group("Do", ("paint on", "drop"), hint="with this candidate")
            self._goal = gui.add_html("")
            upload = gui.add_upload_button("A goal picture of my own", icon="photo-up", mime_type="image/*")
            back = gui.add_button("Back to the scene's goal")
        acts.on_click(lambda event: self._with_candidate(event.target.value))
        upload.on_upload(lambda event: self.page.guarded(lambda: self.want(event.target.value.content)))
        back.on_click(lambda _: self.session.want(None))

    def _scene_controls(self, gui: Any) -> None:
        still = self.session.painting.still
        with gui.add_folder("Scene", expand_by_default=not self.page.narrow):
            other = gui.add_button("Another scene", icon="dice")
            self._seed = gui.add_number("Scene, by seed", still.seed, min=0, max=2**31 - 1, step=1)
            self._folder = gui.add_text("Triplet folder", still.folder)
            self._clip = gui.add_number("Clip", still.clip, min=0, step=1)
            opens = gui.add_button("Open the clip", icon="folder-open")
        other.on_click(lambda _: self._another())
        self._seed.on_update(lambda event: self._told(event, lambda seed: self._open(Still(seed=int(seed)))))
        opens.on_click(lambda _: self.page.guarded(self._open_clip))

    def want(self, content: bytes) -> None:
        """Take a picture file as the goal. Raises ValueError where it is none, or too large."""
        self.session.want(GoalPicture.of(read_picture(content)))

    def _another(self) -> None:
        self._seed.value = random.choice(SCENES)
        self._open(Still(seed=int(self._seed.value)))

    def _open_clip(self) -> None:
        if not self._folder.value:
            raise ValueError("name a triplet folder first")
        self._open(Still(folder=self._folder.value, clip=int(self._clip.value)))

    def _open(self, still: Still) -> None:
        self.session.open(Painting(still))

    def _told(self, event: Any, act: Callable[[Any], None]) -> None:
        if event.client is not None:  # a visitor's doing, and not ours
            self.page.guarded(lambda: act(event.target.value))

    def _deed(self, name: str) -> None:
        acts = {"keep": self.session.keep, "take away": self.session.erase, "clear": self.session.clear}
        acts |= {"play": self._play, "link": self._link}
        acts.get(name, self._turn)()

    def _link(self) -> None:
        self._kept_link.content, self._kept_link.visible = self._link_of(), True

    def _with_candidate(self, name: str) -> None:
        if self._which.value != NONE_KEPT:
            number = int(self._which.value) - 1
            self.session.take(number) if name == "paint on" else self.session.drop(number)

    def _turn_shape(self, by: int) -> None:
        if self.session.path.points:
            names = list(SHAPES)
            here = names.index(self.session.path.points[self.session.point].shape)
            self.session.carry(shape=names[(here + by) % len(names)])

    def _play(self) -> None:
        self.session.play()
        if self.session.playing and self.session.opened is not None:
            self.player.start(1.0 / self.session.opened.fps)

    def _turn(self) -> None:
        self.page.turn_outlook()
        self.drawing.seen_through(self.page.through)

    def _clicked(self, event: Any) -> None:
        if not self._dragging:
            origin, direction = np.array(event.ray_origin), np.array(event.ray_direction)
            self.page.guarded(lambda: self.session.paint_at(origin, direction))

    async def _dragged(self, event: Any) -> None:
        """Called in the order of what happens; it only notes the place."""
        self._dragging = event.phase != "end"
        self.page.guarded(lambda: self.session.put(np.array(event.target.position)))

    def _note(self) -> None:
        session, points = self.session, self.session.path.points
        self._point.max, self._point.value = max(2, len(points)), session.point + 1
        self._frame.max, self._frame.value = max(1, session.frames - 1), session.frame
        self._hand.value = session.path.hand
        if points:
            self._shape.value, self._palm.value = points[session.point].shape, points[session.point].palm
        names = tuple(str(number) for number in range(1, len(session.painting.kept) + 1)) or (NONE_KEPT,)
        if names != tuple(self._which.options):
            self._which.options = names
            self._which.value = names[-1]

    def _fill_films(self) -> None:
        session, opened = self.session, self.session.opened
        assert opened is not None
        painted, truth = session.film_of(session.path), session.truth_of(session.path)
        cards = [("Imagined", painted.film if painted else None), ("The scene", opened.static)]
        if not session.unknown(session.path):
            cards.append(("What really happens", truth))
        self._films.content = films_row(cards)

    def _fill_candidates(self) -> None:
        session = self.session
        ranking, kept = session.ranking, session.painting.kept
        cards = []
        for number, path in enumerate(kept, 1):
            painted = session.film_of(path)
            score = "" if ranking is None else f": {ranking.scores[number - 1]:.3f}"
            cards.append((f"{number}{score}", painted.film if painted else None))
        verdict = html.escape(favoured(session))
        self._candidates.content = f'<p style="padding:0 0.75em"><small>{verdict}</small></p>{films_row(cards)}'

    def _fill_goal(self, goal: np.ndarray | None) -> None:
        self._goal.content = "" if goal is None else shown(("The goal", goal))

    def _show(self, opened: OpenedStill) -> None:
        session = self.session
        painted, frame = session.film_of(session.path), session.frame
        film = opened.static.frames if painted is None else painted.film.frames
        camera = Camera(opened.intrinsics, (film.shape[1], film.shape[2]), opened.cameras[frame])
        places = np.array([point.place for point in session.path.points]).reshape(-1, 3)
        with self.page.client.atomic():
            self.drawing.screen(enlarged(film[frame], SCALE), camera, self.page.through)
            self._once(
                "counter", opened, lambda: self.drawing.objects(np.zeros((0, 3)), not session.painting.still.folder)
            )
            if painted is not None:
                self.drawing.hands(painted.keypoints[frame], painted.valid[frame])
                for name, side in (("left way", LEFT), ("right way", RIGHT)):
                    wrist = side.start + WRIST
                    seen = painted.valid[:, wrist, None]
                    self.drawing.way(np.where(seen, painted.keypoints[:, wrist], np.nan), name)
            self.drawing.marks(places, session.point)
            anchor = session.anchor
            if anchor is not None and not self._dragging:
                gizmo, made = self.drawing.gizmo(anchor, GIZMO_M, turns=False)
                gizmo.position = anchor
                if made:
                    gizmo.on_update(self._dragged)
            self.drawing.seen_through(self.page.through)
        if anchor is not None:
            self.page.look(camera, anchor, follow=self._drawn.get("outlook") is not opened)
            self._drawn["outlook"] = opened


def films_row(cards: list[tuple[str, Film | None]]) -> str:
    """Films side by side that play by themselves, with a line above each, as HTML that needs no file."""
    parts = []
    for name, film in cards:
        label = html.escape(name)
        content = '<div style="aspect-ratio:3/2;border-radius:4px;background:#8883"></div>'
        if film is not None:
            poster = f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(film.frames[-1])).decode()}"
            source = f"data:video/mp4;base64,{base64.b64encode(film.mp4).decode()}"
            how = 'autoplay loop muted playsinline style="width:100%;display:block;border-radius:4px"'
            content = f'<video {how} aria-label="{label}" poster="{poster}" src="{source}"></video>'
        parts.append(f'<div style="flex:1 1 30%;min-width:6em;max-width:50%"><small>{label}</small>{content}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.4em;padding:0 0.75em 0.5em">{"".join(parts)}</div>'


def favoured(session: PaintSession) -> str:
    """Which candidate the goal favours, in words."""
    kept, ranking = session.painting.kept, session.ranking
    if session.unranked:
        return session.unranked
    if len(kept) < 2:
        return "Keep two paths or more: then the goal says which of them it favours."
    if ranking is None:
        return "Ranking ..."
    if float(np.ptp(ranking.scores)) < TIED:
        return "The goal favours none of them: they change nothing of what it asks for, or all the same."
    best = int(ranking.order[0])
    return f"The goal favours candidate {best + 1}. Of a score, 0 is the goal's very change, -1 nothing of it."


def said(session: PaintSession) -> str:
    """Where a visitor stands, in words."""
    if session.problem:
        return f"**{html.escape(session.problem)}**"
    opened, path = session.opened, session.path
    if opened is None:
        return "Setting the scene ..."
    if not path.points:
        hands = f"Now: {html.escape(opened.name)}, with the hands of its recording"
        return f"{HELP} {hands}: *{html.escape(opened.sentence)}*" if opened.sentence else f"{HELP} {hands}."
    which = f"Way-point {session.point + 1} of {len(path.points)}, the {path.hand} hand."
    if session.film_of(path) is None:
        return f"{which} Imagining ..."
    return f"{which} Nobody knows what really happens." if session.unknown(path) else which
