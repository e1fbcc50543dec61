"""Desks that compute at once, in this process."""

import shutil
import threading
from concurrent.futures import Future

from dexworld.studio.imagine_session import Desks


class HereDesk:
    """A `Desk` whose answers are there at once. wait: keep them until `answer` is called."""

    def __init__(self, made, wait=False):
        self.made, self.wait, self.asked, self._lock = made, wait, [], threading.RLock()

    def ask(self, request):
        future = Future()
        with self._lock:
            self.asked.append((request, future))
            if not self.wait:
                self.answer()
        return future

    def answer(self):
        (method, arguments), future = self.asked.pop(0)
        try:
            future.set_result(getattr(self.made, method)(*arguments))
        except (ValueError, OSError) as error:
            future.set_exception(error)

    def close(self):
        pass


def desks_here(model, scene, wait=False, other=None):
    others = (HereDesk(None) for _ in range(3))
    return Desks(HereDesk(model, wait), HereDesk(scene), *others, other and HereDesk(other))


class LineDesk:
    """A `Desk` of one thread, since a renderer belongs to the thread that made it. line: an executor of one thread."""

    def __init__(self, made, line):
        self.made, self.line = made, line

    def ask(self, request):
        method, arguments = request
        return self.line.submit(getattr(self.made, method), *arguments)

    def close(self):
        pass


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
COARSE = "fixedDpr=0.25"  # viser draws a coarser scene: software takes long for a fine one


def chromium():
    """The path of a Chromium on this machine, or None."""
    return next((found for name in CHROMIUM if (found := shutil.which(name))), None)
