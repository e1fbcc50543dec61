"""The studio's page: a server, its worker processes, and a session for every visitor."""

import html
import logging
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from dexworld.models.latent_readers import AUTO
from dexworld.models.reference import REFERENCE
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.studio.data_session import DataChoice, DataSession
from dexworld.studio.data_view import DataView
from dexworld.studio.dataset_reader import DatasetReader
from dexworld.studio.desk import Desk, Job
from dexworld.studio.film_painter import FilmPainter
from dexworld.studio.imagination import Imaginer, TrueScene
from dexworld.studio.imagine_session import Desks, ImagineSession
from dexworld.studio.imagine_view import ImagineView
from dexworld.studio.imagined_path import PathWriter
from dexworld.studio.paint_session import PaintSession
from dexworld.studio.paint_view import PaintView
from dexworld.studio.plan_session import PlanSession
from dexworld.studio.plan_view import PlanView
from dexworld.studio.planner import Planner
from dexworld.studio.start_controls import StartControls
from dexworld.studio.start_frame import Start
from dexworld.studio.state_link import Place, packed, unpacked
from dexworld.studio.visitor_page import PANEL_PX, Page

HOST = "127.0.0.1"  # the page asks nobody who they are, so only this machine reaches it
MISSING = "the studio needs the package viser: pip install 'dexworld[studio]'"
logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class StudioConfig:
    """What the page shows, and where."""

    seed: int = 900_000
    """Simulated scene that the page opens with, when no dataset is given."""
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""
    compare: str = ""
    """Second model folder or hub id, whose imagination is shown beside the first's."""
    output: Path = Path("outputs/studio")
    """Folder that saved episodes are written below."""
    port: int = 8080
    """Port on this machine; where it is taken, the next free one. 0 takes any. The address is logged."""
    look: RobotLook = PLAIN
    max_seconds: float | None = None
    """End after so many seconds; None stays until it is stopped."""

    def __post_init__(self) -> None:
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"--max-seconds is {self.max_seconds}; it must be positive")


class StudioServer:
    """A context manager: the page is there while it is open. `url` says where.

    checkpoint: of the world model. dataset: folder that the page opens with. desks: who computes, instead of worker
    processes of its own. Raises ImportError without viser.
    """

    def __init__(
        self, config: StudioConfig, checkpoint: str = REFERENCE, dataset: str = "", desks: Desks | None = None
    ) -> None:
        self.config, self.checkpoint, self.dataset, self._given = config, checkpoint, dataset, desks
        self.writer = PathWriter(config.output, tuple(filter(None, (checkpoint, config.compare))))
        self._visitors: dict[int, Visitor] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            import viser
        except ImportError as error:
            raise ImportError(MISSING) from error
        other = self.config.compare
        second = Job(partial(Imaginer, other, self.config.decoder, self.config.look))
        self.desks = self._given or Desks(
            model=Desk(Job(partial(Imaginer, self.checkpoint, self.config.decoder, self.config.look)), "of the model"),
            scene=Desk(Job(partial(TrueScene, self.config.look)), "of the simulator"),
            search=Desk(Job(partial(Planner, self.checkpoint, self.config.decoder, self.config.look)), "of searches"),
            data=Desk(Job(DatasetReader), "of datasets"),
            film=Desk(Job(FilmPainter), "of films"),
            other=Desk(second, "of the second model") if other else None,
        )
        self.first = Start(folder=self.dataset) if self.dataset else Start(seed=self.config.seed)
        for desk in filter(None, (self.desks.model, self.desks.other)):  # so that the first visitor finds it done
            desk.ask(("frame", (self.first, (), False)))
        logging.getLogger("websockets").setLevel(logging.WARNING)  # it tells of every connection
        with redirect_stdout(StringIO()):  # viser prints a box
            self.server = viser.ViserServer(HOST, self.config.port, label="dexworld studio", verbose=False)
        self.server.scene.world_axes.visible = False
        self.server.scene.configure_default_lights(cast_shadow=False)  # three maps of shadows would be drawn each frame
        self.server.scene.configure_environment_map(None)
        self.server.on_client_connect(self._came)
        self.server.on_client_disconnect(self._left)
        self.url = f"http://{HOST}:{self.server.get_port()}"
        return self

    def __exit__(self, *_: object) -> None:
        with redirect_stdout(StringIO()):
            self.server.stop()
        for desk in filter(None, self.desks):
            desk.close()

    def letters(self, client: Any) -> str:
        """What the link ended with that a visitor came by. Raises ValueError for a page of another site."""
        connection = self.server._websock_server._live_connections.get(client.client_id)  # viser says it nowhere else
        request = None if connection is None else connection.request
        if request is None:
            return ""
        origin = request.headers.get("Origin", "")
        if origin and urlsplit(origin).hostname not in (HOST, "localhost"):
            raise ValueError(f"{origin} is another site; the studio answers its own page only")
        return request.path.strip("/")

    def _came(self, client: Any) -> None:
        try:
            letters = self.letters(client)
        except ValueError as error:
            logger.warning("%s", error)
            return
        visitor = Visitor(self, client)
        with self._lock:
            self._visitors[client.client_id] = visitor
        visitor.arrive(letters)

    def _left(self, client: Any) -> None:
        with self._lock:
            visitor = self._visitors.pop(client.client_id, None)
        if visitor is not None:
            visitor.leave()


class Visitor:
    """One open page, with a session of its own."""

    def __init__(self, studio: StudioServer, client: Any) -> None:
        self.studio, self.client, self.page, self._lock = studio, client, Page(client), threading.Lock()
        self.session = ImagineSession(studio.desks, lambda: self._changed("Imagine"))
        self.planning = PlanSession(studio.desks.search, client.client_id, lambda: self._changed("Plan"))
        self.data = DataSession(studio.desks.data, lambda: self._changed("Data"))
        self.painting = PaintSession(studio.desks.film, lambda: self._changed("DWM"))
        starts = StartControls(self.page, self.session, studio.dataset)
        views = (
            ImagineView(self.page, self.session, starts, self._link, studio.writer),
            PlanView(self.page, self.planning, self._link),
            DataView(self.page, self.data, self._imagine, self._link),
            PaintView(self.page, self.painting, self._link),
        )
        self.views: dict[str, Any] = {view.name: view for view in views}
        self.view = next(iter(self.views.values()))

    def arrive(self, letters: str) -> None:
        """Show the page where a link's letters lead, or at the server's first start."""
        self.client.gui.main_panel.dock_right()
        self.client.gui.main_panel.set_width(PANEL_PX)
        self.page.theme()
        self.page.key("dark", self.page.turn_dark)
        self.page.key("view", self._show_next)
        place = Place(self.view.name, self.studio.first, ())
        if letters:
            try:
                place = unpacked(letters)
            except ValueError as error:
                self.page.tell(str(error), "The link")
        self.session.open(place.start, place.path)
        self.planning.choice = place.plan or self.planning.choice
        self.session.seek(len(place.path))
        self.data.open(place.data or DataChoice(folder=self.studio.dataset))
        if place.painting is not None:
            self.painting.painting = place.painting
        views = self.client.gui.add_button_group("View", tuple(self.views))
        views.on_click(lambda event: self.show(event.target.value))
        self.view = self.views.get(place.view, self.view)
        self._build()

    def show(self, name: str) -> None:
        """Another view."""
        with self._lock:
            if name != self.view.name:
                self.view.leave()
                self._folder.remove()
                self.view = self.views[name]
                self._build()

    def _show_next(self) -> None:
        names = [*self.views]
        self.show(names[(names.index(self.view.name) + 1) % len(names)])

    def leave(self) -> None:
        """The page was closed."""
        self.session.close()
        self.planning.close()
        self.data.close()
        self.painting.close()

    def _build(self) -> None:
        self._folder = self.client.gui.add_folder(self.view.name)
        with self._folder:
            self.view.build()

    def _changed(self, name: str) -> None:
        self.views[name].redraw()

    def _imagine(self, start: Start) -> None:
        self.session.open(start)
        self.show("Imagine")

    def _link(self) -> str:
        start, path = self.session.start, self.session.here
        if start.pixels and self.view.name != ImagineView.name:  # it stays here, and another view is shared
            start, path = self.studio.first, ()
        place = Place(self.view.name, start, path, data=self.data.choice if self.data.choice.folder else None)
        if self.view.name == PlanView.name:
            place = place._replace(plan=self.planning.kept)
        if self.view.name == PaintView.name:
            place = place._replace(painting=self.painting.shared())
        letters = packed(place)
        address = f"{self.studio.url}/?websocket={self.studio.url.replace('http', 'ws')}/{letters}"
        text = "This link opens the page as it is now. Copy it with a long press or a right click."
        return f'<p style="padding:0 1em"><a href="{html.escape(address, quote=True)}" target="_blank">{text}</a></p>'
