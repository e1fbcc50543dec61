"""What all views of one visitor share: the window, the camera into the scene, keys, dark mode, messages."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dexworld.studio.hand_drawing import Camera

NARROW = 0.8  # width by height; narrower windows have the controls in a sheet over the lower part of the scene
PANEL_PX = 400
# Letters that the viewer itself doesn't use to fly (W, A, S, D, Q, E).
HOTKEYS = {
    **{"left": "J", "right": "L", "forward": "I", "back": "K", "up": "U", "down": "O"},
    **{"close": "G", "open": "H", "undo": "Z", "outlook": "V", "dark": "N", "play": "P", "next": "X"},
    **{"cursor left": "J", "cursor right": "L", "cursor up": "I", "cursor down": "K", "pick": "C"},
    **{"plan": "F", "stop": "B", "view": "M"},
}
WHAT = {
    **{name: f"Move the hand {name}" for name in ("left", "right", "forward", "back", "up", "down")},
    **{"close": "Close the fingers", "open": "Open the fingers", "undo": "Take the last step back"},
    **{
        "outlook": "Look through the camera, or from outside",
        "dark": "Dark or light",
        "play": "Plan and move to the end",
    },
    "next": "Plan and move once",
    **{f"cursor {way}": f"Move the cursor {way}" for way in ("left", "right", "up", "down")},
    **{"pick": "Choose what is under the cursor", "plan": "Search for the next move", "stop": "Give the search up"},
    "view": "Go to the next view",
}
OUTSIDE = np.array([-0.5, 0.45, 0.6])  # metres from the hand to look from: right, back and up, as the camera sees it
OUTSIDE_FOV = 0.9  # radians
FARTHER, LOWER = 1.6, 0.42  # a narrow window looks from so much farther, and metres lower: its sheet covers that part
BRAND = (70, 120, 220)
_DARK_KEY = "dexworld-dark"


class Page:
    """A visitor's page. client: viser's handle of it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.narrow = client.camera.aspect < NARROW
        self.through = not self.narrow
        self.dark = False
        self._camera: Camera | None = None
        self._middle = np.zeros(3)
        self._looked: Any = None
        client.camera.on_update(lambda _: self._fit())

    def theme(self) -> None:
        """Dress the page, as dark as the visitor left it."""
        try:
            self.dark = self.client.local_storage.get_item(_DARK_KEY, timeout=2.0) == "1"
        except (RuntimeError, TimeoutError):  # the browser keeps nothing, or is gone
            self.dark = False
        self._dress()

    def turn_dark(self) -> None:
        """Dark to light and back; the browser remembers it."""
        self.dark = not self.dark
        self.client.local_storage.set_item(_DARK_KEY, "1" if self.dark else "0")
        self._dress()

    def key(self, name: str, act: Callable[[], None], what: str = "") -> Any:
        """A key of `HOTKEYS`, what it does in this view; its handle has `remove`."""
        command = self.client.gui.add_command(what or WHAT[name], hotkey=HOTKEYS[name])
        command.on_trigger(lambda _: self.guarded(act))
        return command

    def guarded(self, act: Callable[[], Any]) -> None:
        """Do it; what the visitor can mend is said in a note."""
        try:
            act()
        except (ValueError, OSError) as error:
            self.tell(str(error))

    def tell(self, message: str, title: str = "That doesn't work") -> None:
        """A note that goes away by itself."""
        self.client.add_notification(title, message, auto_close_seconds=8.0)

    def look(self, camera: Camera, middle: np.ndarray, follow: bool = True) -> None:
        """Where pictures are seen from, and the place (3,) to turn about; moves when another camera is given.

        follow: False lets those who look from outside stay where they are.
        """
        known, self._camera, self._middle = self._camera, camera, middle
        if known is not None and not (follow or self.through):
            return
        if known is None or not np.allclose(known.pose, camera.pose, atol=1e-3) or known.size != camera.size:
            self._go()

    def turn_outlook(self) -> None:
        """Look through the camera, or from outside; also the way back from wherever one flew."""
        self.through = not self.through
        self._go()

    def _fit(self) -> None:
        """Keep the whole picture in a window of another shape."""
        if self.through and self._camera is not None and self._looked != round(self.client.camera.aspect, 2):
            self._go()

    def _go(self) -> None:
        if self._camera is None:
            return
        rotation, place = self._camera.pose[:3, :3], self._camera.pose[:3, 3]
        self._looked = round(self.client.camera.aspect, 2)
        eye, aspect = self.client.camera, self.client.camera.aspect
        with self.client.atomic():
            eye.up_direction = -rotation[:, 1]
            if self.through:
                ahead = max(0.1, float((self._middle - place) @ rotation[:, 2]))
                eye.position, eye.look_at = place, place + ahead * rotation[:, 2]
                eye.fov = self._camera.fov(aspect)
                return
            right, back, up = OUTSIDE * (FARTHER if self.narrow else 1.0)
            eye.position = self._middle + right * rotation[:, 0] - back * rotation[:, 2] - up * rotation[:, 1]
            eye.look_at, eye.fov = self._middle + LOWER * self.narrow * rotation[:, 1], OUTSIDE_FOV

    def _dress(self) -> None:
        self.client.gui.configure_theme(
            dark_mode=self.dark, show_logo=False, show_share_button=False, brand_color=BRAND
        )
        self.client.scene.set_background_image(np.full((2, 2, 3), 24 if self.dark else 240, np.uint8), format="png")
