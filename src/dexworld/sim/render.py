"""Pictures of a MuJoCo scene on any machine: EGL, then OSMesa, then a ray caster that needs no OpenGL.

`make_renderer` picks the backend. With `backend="auto"` the environment variable MUJOCO_GL decides if it is set, and is
refused if it can't draw. Otherwise a process tries EGL and OSMesa once. Each is tried in a child process, because a
broken OpenGL driver can crash the process that loads it. PYOPENGL_PLATFORM has no say. The environment stays as it is:
give other processes the answer of `choose_backend`.

The OpenGL context is made here rather than by `mujoco.Renderer`, whose backend is fixed by MUJOCO_GL when
mujoco is first imported anywhere in the process.
"""

import atexit
import functools
import importlib
import logging
import os
import subprocess
import sys
import weakref
from typing import Any, Literal

import numpy as np

from dexworld.sim.ray_renderer import RayRenderer
from dexworld.sim.renderer import DEFAULT_VIEW, Renderer, RendererUnavailable, View, eye_of, gl_environment, mujoco

Backend = Literal["auto", "egl", "osmesa", "ray"]
BACKENDS = ("egl", "osmesa", "ray")  # in the order in which `auto` tries them
_OFF = ("disable", "disabled", "off", "false", "0", "ray")  # the values by which MUJOCO_GL switches OpenGL off
_ON = ("", "enable", "enabled", "on", "true", "1")  # the values that leave the choice open
_INSTALL = {
    "egl": "on Debian or Ubuntu: apt install libegl1 libgl1-mesa-dri",
    "osmesa": "on Debian or Ubuntu: apt install libosmesa6",
}
_PROBE_SECONDS = 60.0
_DRIVER_ERRORS = (ImportError, AttributeError, RuntimeError, OSError, TypeError)

logger = logging.getLogger(__name__)


def make_renderer(model: mujoco.MjModel, height: int, width: int, backend: str = "auto") -> Renderer:
    """A renderer for `model` with images of `height` x `width` pixels.

    backend: `auto`, or one of `BACKENDS`.
    One renderer belongs to one process: make it after a fork, or start processes with the `spawn` method.

    Raises ValueError for an unknown backend, RendererUnavailable if one named here or by MUJOCO_GL can't run.
    """
    chosen = choose_backend(backend)
    _announce(chosen)
    if chosen == "ray":
        return RayRenderer(model, height, width)
    return GlRenderer(model, height, width, chosen)


@functools.cache
def _announce(backend: str) -> None:
    """Log, once per process, what draws."""
    logger.info("rendering with %s", backend)
    platform = os.environ.get("PYOPENGL_PLATFORM")
    if platform and platform.lower() != backend:
        logger.warning("PYOPENGL_PLATFORM=%r is not used: %s draws", platform, backend)


def choose_backend(backend: str = "auto") -> str:
    """The backend that `make_renderer(backend=...)` uses; tries what MUJOCO_GL names, or what there is.

    Raises ValueError for an unknown backend, RendererUnavailable if the one in MUJOCO_GL can't draw here.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise ValueError(f"unknown rendering backend {backend!r}; choose 'auto' or one of {', '.join(BACKENDS)}")
        return backend
    setting = os.environ.get("MUJOCO_GL", "").strip().lower()
    if setting in _OFF:
        return "ray"
    if setting in _ON:
        return first_that_draws()
    failure = _failure(setting) if setting in BACKENDS else f"dexworld draws with {', '.join(BACKENDS)}"
    if failure is None:
        return setting
    raise RendererUnavailable(
        f"MUJOCO_GL={os.environ['MUJOCO_GL']!r} can't draw here, {first_that_draws()!r} can: unset MUJOCO_GL, or "
        f"choose with --backend (in Python: backend=). The reason: {failure}"
    )


@functools.cache
def first_that_draws() -> str:
    """The first of `BACKENDS` that draws here; tried once per process."""
    for candidate in BACKENDS[:-1]:
        failure = _failure(candidate)
        if failure is None:
            return candidate
        logger.info("%s can't render here: %s", candidate, failure)
    slower = "about 8 times slower, otherwise equal in use"
    logger.warning("no OpenGL found, so the ray renderer draws (%s); %s", slower, _INSTALL["egl"])
    return "ray"


@functools.cache
def _failure(backend: str) -> str | None:
    """As `probe`, tried once per process."""
    return probe(backend)


@functools.cache
def _opengl_process() -> int:
    """The process that made the first OpenGL context. A fork inherits the answer, and can't draw."""
    return os.getpid()


def probe(backend: str) -> str | None:
    """None if `backend` draws a test picture in a child process, else why it doesn't (one line)."""
    environment = {**os.environ, "MUJOCO_GL": "disable"}  # the import must not load some other OpenGL library first
    command = [sys.executable, "-c", f"from {__name__} import draw_test_picture; draw_test_picture({backend!r})"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no picture within {_PROBE_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"the test process ended with exit code {done.returncode}"]
    return lines[-1].removeprefix(f"{RendererUnavailable.__module__}.RendererUnavailable: ")


def draw_test_picture(backend: str) -> None:
    """Draw a white sphere on black with an OpenGL backend. Raises RendererUnavailable if the picture is wrong."""
    sphere = '<geom size="1" rgba="1 1 1 1"/><camera name="c" pos="0 0 3"/>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{sphere}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with GlRenderer(model, 32, 32, backend) as renderer:
        picture = renderer.rgb(data, "c")
    if not (picture[16, 16].min() > 60 and picture[0, 0].max() < 60):
        found = f"centre {picture[16, 16]}, corner {picture[0, 0]}"
        raise RendererUnavailable(f"{backend} draws a wrong test picture ({found})")


class GlRenderer(Renderer):
    """`Renderer` on OpenGL, by MuJoCo's own drawing code.

    Images may not be larger than the model's off-screen buffer (`visual.global.offwidth`, `offheight`). Drawing cost is
    ruled by `visual.quality.shadowsize` and `offsamples`: MuJoCo's default shadow map of 4096 is slow on a CPU.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int, backend: str) -> None:
        """Raises ValueError for an image larger than the buffer, RendererUnavailable if the backend can't run here."""
        self._context: Any = None
        self._gl: Any = None
        self._at_exit = functools.partial(_close, weakref.ref(self))
        buffer = model.vis.global_
        if not (0 < width <= buffer.offwidth and 0 < height <= buffer.offheight):
            raise ValueError(
                f"images of {width} x {height} pixels don't fit the model's off-screen buffer of {buffer.offwidth} x "
                f"{buffer.offheight}; raise visual.global.offwidth/offheight in the model"
            )
        if _opengl_process() != os.getpid():
            raise RendererUnavailable(
                "this process was forked from one that had drawn with OpenGL, and would hang; start it by the 'spawn' "
                'method: AsyncVectorEnv(..., context="spawn"), or multiprocessing.get_context("spawn")'
            )
        super().__init__(model, height, width, backend)
        try:
            with gl_environment(PYOPENGL_PLATFORM=backend):
                self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except (*_DRIVER_ERRORS, mujoco.FatalError) as error:
            self.close()
            raise RendererUnavailable(
                f"the {backend!r} renderer can't run here: {error} ({_INSTALL[backend]}). backend='ray', or "
                f"MUJOCO_GL=disable, needs no OpenGL; one process can use only one OpenGL backend."
            ) from error
        # OSMesa complains when freed during interpreter shutdown, so a forgotten renderer closes just before that. This
        # comes after the backend's import, whose own exit handler must run later.
        atexit.register(self._at_exit)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def rgb(self, data: mujoco.MjData, camera: str | int, view: View = DEFAULT_VIEW) -> np.ndarray:
        """See `Renderer.rgb`."""
        return np.ascontiguousarray(self._draw(data, camera, view, False))

    def segmentation(self, data: mujoco.MjData, camera: str | int, view: View = DEFAULT_VIEW) -> np.ndarray:
        """See `Renderer.segmentation`."""
        codes = self._draw(data, camera, view, True).astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
        geom_of_code = np.full(self._scene.ngeom + 1, -1, np.int32)  # code 0 is the background
        for drawn in self._scene.geoms[: self._scene.ngeom]:
            if drawn.segid >= 0 and drawn.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                geom_of_code[drawn.segid + 1] = drawn.objid
        return geom_of_code[codes]

    def _draw(self, data, camera: str | int, view: View, coded: bool) -> np.ndarray:
        """(H, W, 3) uint8: colours, or (`coded`) a code for each geom."""
        if self._context is None:
            raise RuntimeError("this renderer is closed")
        option = mujoco.MjvOption()
        option.geomgroup[:] = view.mask()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, option, None, eye_of(self.model, camera), everything, self._scene)
        for name, on in (("SHADOW", view.shadows and not coded), ("SEGMENT", coded), ("IDCOLOR", coded)):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name}")] = on
        self._gl.make_current()
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        self._gl.make_current()  # a forgotten renderer that is collected meanwhile takes the context with it
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._context)
        return pixels[::-1]

    def close(self) -> None:
        """Give the OpenGL context back."""
        if self._context is not None:
            atexit.unregister(self._at_exit)
            self._gl.make_current()
            self._context.free()
            self._context = None
        if self._gl is not None:
            self._gl.free()
            self._gl = None

    def __del__(self) -> None:
        self.close()


def _close(renderer: "weakref.ref[GlRenderer]") -> None:
    """Close a renderer that may be gone already."""
    alive = renderer()
    if alive is not None:
        alive.close()
