"""The view *Imagine*: move a hand in a picture, and see what the model expects."""

import html
from typing import Any

import numpy as np

from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.report.media import encode_mp4
from dexworld.studio.frame_overlays import OVERLAYS, SCALE, UNKNOWN, enlarged, painted, shown
from dexworld.studio.hand_control import HandControl
from dexworld.studio.hand_drawing import Camera, HandScene
from dexworld.studio.imagination import ImaginedFrame
from dexworld.studio.imagine_session import MOTIONS, ImagineSession
from dexworld.studio.imagined_path import ImaginedPath, PathWriter
from dexworld.studio.start_controls import StartControls
from dexworld.studio.view import View
from dexworld.studio.visitor_page import Page

FILM_FPS = 2.0
FINGERS = ("Thumb", "Index", "Middle", "Ring", "Little")
LIVE, ON_RELEASE = "live", "when I let go"
HELP = "Drag the arrows at the wrist, or press a button. The large picture is what the model expects."
NO_BRANCH = "none yet"


class ImagineView(View):
    """See the module. page: the visitor's. session: what they did, which outlasts the view. writer: of episodes."""

    name = "Imagine"

    def __init__(
        self, page: Page, session: ImagineSession, starts: StartControls, link: Any, writer: PathWriter
    ) -> None:
        self.session, self.starts, self._link_of, self.writer = session, starts, link, writer
        self.drawing = HandScene(page.client.scene, "/imagine")
        super().__init__(page, self.drawing)
        self._drawn: Any = None
        self._shown: Any = None
        self._picture = np.zeros((0, 0, 3), np.uint8)
        self._dragging = False
        self._overlay = OVERLAYS[1]
        self._recorded: list[HandControl] = []

    def build(self) -> None:
        """Make the controls, in the folder that the page is in."""
        gui = self.page.client.gui
        self._pictures = gui.add_html(shown(("", np.full((448, 784, 3), UNKNOWN, np.uint8))))
        self._says = gui.add_markdown(HELP)
        moves = gui.add_button_group("Hand", ("left", "right", "up", "down"))
        more = gui.add_button_group(" ", ("forward", "back", "close", "open"))
        for group in (moves, more):
            group.on_click(lambda event: self._move(event.target.value))
        self._step = gui.add_slider("Step", 0, 1, 1, 0, hint="Go back in time; a new motion from there is a branch")
        self._step.on_update(lambda event: self._seek(event.client, int(event.target.value)))
        deeds = gui.add_button_group("Path", ("undo", "again"))
        keeps = gui.add_button_group("Keep", ("film", "episode", "link"))
        for group in (deeds, keeps):
            group.on_click(lambda event: self.page.guarded(getattr(self, f"_{event.target.value}")))
        self._kept = gui.add_html("", visible=False)
        outlook = gui.add_button_group("Look", ("through camera, or outside", "dark, or light"))
        outlook.on_click(lambda event: self._turn() if "camera" in event.target.value else self.page.turn_dark())
        overlay = gui.add_dropdown("Drawn on top", OVERLAYS, initial_value=self._overlay)
        overlay.on_update(lambda event: self._draw_on_top(event.target.value))
        self._more(gui)
        self.starts.build(gui)
        keys = {motion: lambda motion=motion: self._move(motion) for motion in MOTIONS}
        self._keys = [self.page.key(name, act) for name, act in {**keys, "undo": self.session.undo}.items()]
        self._keys.append(self.page.key("outlook", self._turn))
        self._drawn, self._shown, self._built = None, None, True
        self.redraw()

    def redraw(self) -> None:
        """Show where the session stands. From any thread."""
        with self._lock:
            if not self._built:
                return
            session, frame = self.session, self.session.frame
            if frame is None or session.begun is None:
                self._note(frame)
                return
            state = session.start, session.here, self._overlay, frame.heat is not None
            true, other = session.true, session.other
            beside = true is None, other is None, other is not None and other.heat is None
            with self.page.client.atomic():
                self._note(frame)
                picture = self._picture if state == self._drawn else painted(frame, self._overlay)
                if state != self._drawn:
                    self._draw(frame, picture)
                if (state, beside) != self._shown:
                    self._pictures.content = shown(*self._small(picture))
                self._picture, self._drawn, self._shown = picture, state, (state, beside)

    def _small(self, picture: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The pictures beside the large one, which is `picture`; grey until they are there, so that nothing jumps."""
        session, found, other = self.session, [], self.session.other
        grey = np.full_like(picture, UNKNOWN)
        if len(names := self.writer.labels) > 1:
            found = [(names[0], picture), (names[1], grey if other is None else painted(other, self._overlay))]
        elif self.page.narrow:
            found = [("Imagined", picture)]
        if session.true is not None or session.start.simulated:
            true = session.true
            found.append(("What really happens", grey if true is None else enlarged(true, SCALE)))
        return found

    def _draw(self, frame: ImaginedFrame, picture: np.ndarray) -> None:
        size = (frame.picture.shape[0], frame.picture.shape[1])
        camera = Camera(frame.intrinsics, size, frame.world_from_camera)
        self._draw_hand(frame)
        self.drawing.screen(picture, camera, self.page.through)
        rows = LEFT if self.session.start.hand == "left" else RIGHT
        self.page.look(camera, frame.keypoints[rows][WRIST])

    def _more(self, gui: Any) -> None:
        with gui.add_folder("Fingers, branches, size of a step", expand_by_default=False):
            self._fingers = [gui.add_slider(name, -1.0, 1.0, 0.05, 0.0) for name in FINGERS]
            self._centimetres = gui.add_slider("Step, cm", 2, 12, 1, 5)
            self._when = gui.add_dropdown("While I drag, imagine", (LIVE, ON_RELEASE), initial_value=LIVE)
            self._branches = gui.add_dropdown("Branches", (NO_BRANCH,))
            go = gui.add_button("Go on along this branch", icon="git-branch")
        for number, slider in enumerate(self._fingers):
            slider.on_update(lambda event, number=number: self._finger(number, event))
        go.on_click(lambda _: self.session.branch(self._branches.options.index(self._branches.value)))

    def _draw_hand(self, frame: ImaginedFrame) -> None:
        session, rows = self.session, LEFT if self.session.start.hand == "left" else RIGHT
        assert session.begun is not None
        self.drawing.hands(frame.keypoints, session.begun.keypoints_valid)
        self.drawing.way(np.array([each.keypoints[rows][WRIST] for each in session.shown_frames()]))
        self.drawing.objects(session.begun.objects, session.start.simulated)
        anchor = session.anchor
        if anchor is None or self._dragging:
            return
        gizmo, made = self.drawing.gizmo(anchor + np.array(session.control.offset))
        gizmo.position, gizmo.wxyz = anchor + np.array(session.control.offset), session.control.turn
        if made:
            gizmo.on_update(self._dragged)

    def _note(self, frame: ImaginedFrame | None) -> None:
        session = self.session
        self._step.max, self._step.value = max(1, len(session.path)), session.shown
        if not self._dragging and not session.busy:
            for slider, closing in zip(self._fingers, session.control.closing, strict=True):
                slider.value = closing
        names = tuple(f"{number}: {len(path)} steps" for number, (_, path) in enumerate(session.branches, 1))
        if (names or (NO_BRANCH,)) != tuple(self._branches.options):
            self._branches.options = names or (NO_BRANCH,)
        if session.trouble:
            self._says.content = f"**{session.trouble}**"
        elif session.begun is None or frame is None:
            self._says.content = "Setting the scene ..."
        elif not session.shown:
            self._says.content = f"{HELP} Now: {session.begun.source}."
        else:
            what = f"Step {session.shown} of {len(session.path)}, imagined in {1000 * frame.seconds:.0f} ms"
            known = session.true is not None or session.start.simulated
            self._says.content = f"{what}. " + ("" if known else "Nobody knows what really happens here.")

    def _turn(self) -> None:
        self.page.turn_outlook()
        self.drawing.seen_through(self.page.through)

    def _move(self, motion: str) -> None:
        self.session.move(motion, self._centimetres.value / 100.0)

    def _seek(self, client: Any, shown: int) -> None:
        if client is not None:  # a visitor's doing, and not ours
            self.session.seek(shown)

    def _finger(self, number: int, event: Any) -> None:
        if event.client is not None:  # a visitor's doing, and not ours
            self.session.steer(self.session.aim.with_finger(number, float(event.target.value)))

    async def _dragged(self, event: Any) -> None:
        """Called in the order of what happens; it only notes the place."""
        anchor = self.session.anchor
        if anchor is None:
            return
        self._dragging = event.phase != "end"
        x, y, z = (float(each) for each in event.target.position - anchor)
        w, i, j, k = (float(each) for each in event.target.wxyz)
        told = HandControl((x, y, z), (w, i, j, k), self.session.aim.closing)
        if self._when.value == LIVE:
            self.session.steer(told)
        elif event.phase == "update":
            last = self._recorded[-1] if self._recorded else self.session.control
            if last.steps_to(told):
                self._recorded.append(told)
        elif event.phase == "end":
            recorded, self._recorded = self._recorded, []
            self.session.follow([*recorded])

    def _draw_on_top(self, overlay: str) -> None:
        self._overlay = overlay
        self.session.with_heat(overlay == OVERLAYS[3])
        self.redraw()

    def _undo(self) -> None:
        self.session.undo()

    def _again(self) -> None:
        self.session.open(self.session.start)

    def _film(self) -> None:
        film = encode_mp4(self._whole().film(), FILM_FPS)
        self.page.client.send_file_download("imagined.mp4", film, save_immediately=True)

    def _episode(self) -> None:
        folders = self.writer.write(self._whole(), self.session.true_track)
        commands = "".join(f"<br><code>dexworld inspect {html.escape(str(folder))}</code>" for folder in folders)
        self._kept.content, self._kept.visible = f'<p style="padding:0 1em">Saved. Look at it:{commands}</p>', True

    def _whole(self) -> ImaginedPath:
        whole = self.session.whole()
        if whole is None:
            raise ValueError("there is no path yet, or it is still to come: move the hand first")
        if len(self.writer.models) > 1 and not whole.others:
            raise ValueError("the second model is still at it; try again in a moment")
        return whole

    def _link(self) -> None:
        self._kept.content, self._kept.visible = self._link_of(), True
