"""Pictures of a MuJoCo scene on any machine: EGL, then OSMesa, then a ray caster that needs no OpenGL.

`make_renderer` picks the backend. With `backend="auto"` the environment variable MUJOCO_GL decides if it is set;
otherwise EGL and OSMesa are each tried once in a child process (a broken OpenGL driver can crash the process that loads
it), and the answer is written to MUJOCO_GL, so that processes started later don't try again.

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
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from dexworld.errors import UsageError

Backend = Literal["auto", "egl", "osmesa", "ray"]
BACKENDS = ("egl", "osmesa", "ray")  # in the order in which `auto` tries them
_EXPLICIT_ONLY = ("glfw", "cgl")  # need a display, or macOS: used when asked for, never tried by `auto`
_OFF = ("disable", "disabled", "off", "false", "0")  # the values by which MUJOCO_GL switches OpenGL off
_ON = ("", "enable", "enabled", "on", "true", "1")  # the values that leave the choice open
_INSTALL = {
    "egl": "on Debian or Ubuntu: apt install libegl1 libgl1-mesa-dri",
    "osmesa": "on Debian or Ubuntu: apt install libosmesa6",
    "glfw": "it needs a display",
    "cgl": "it exists on macOS only",
}
_PROBE_SECONDS = 60.0
_DRIVER_ERRORS = (ImportError, AttributeError, RuntimeError, OSError, TypeError)

logger = logging.getLogger(__name__)


class RendererUnavailable(UsageError):
    """A rendering backend was asked for by name and can't run here."""


try:
    import mujoco
except (AttributeError, RuntimeError, OSError) as _error:  # importing loads MUJOCO_GL's library
    raise RendererUnavailable(
        f"MUJOCO_GL={os.environ.get('MUJOCO_GL')!r} makes `import mujoco` fail ({_error}). Unset it, or set it to "
        "'egl', 'osmesa' (with its library installed) or 'disable' (the ray renderer, which needs no OpenGL)."
    ) from _error


@dataclass(frozen=True)
class View:
    """What of a scene is drawn.

    groups: the geom groups (0 to 5) that are visible; hidden geoms cast no shadow either.
    shadows: whether lights cast shadows (RGB only).
    """

    groups: tuple[int, ...] = (0, 1, 2)
    shadows: bool = True

    def __post_init__(self) -> None:
        if any(group not in range(mujoco.mjNGROUP) for group in self.groups):
            raise ValueError(f"geom groups are 0 to {mujoco.mjNGROUP - 1}, got {self.groups}")

    def mask(self) -> np.ndarray:
        """(6,) uint8: 1 for every visible group."""
        return np.isin(np.arange(mujoco.mjNGROUP), self.groups).astype(np.uint8)


class Renderer(Protocol):
    """What every backend offers. `camera` is a camera's name or index in the model; images have row 0 at the top."""

    backend: str
    height: int
    width: int

    def rgb(self, data: mujoco.MjData, camera: str | int, view: View | None = None) -> np.ndarray:
        """(H, W, 3) uint8 colour picture of the state in `data` (after `mj_forward`)."""
        ...

    def depth(self, data: mujoco.MjData, camera: str | int, view: View | None = None) -> np.ndarray:
        """(H, W) float32 metres along the camera's optical axis; `inf` where nothing is hit."""
        ...

    def segmentation(self, data: mujoco.MjData, camera: str | int, view: View | None = None) -> np.ndarray:
        """(H, W) int32 geom ids; -1 where nothing is hit."""
        ...

    def close(self) -> None:
        """Free the graphics context. The renderer can't be used afterwards; closing twice is harmless."""
        ...

    def __enter__(self) -> "Renderer": ...

    def __exit__(self, *exception: object) -> None: ...


def make_renderer(
    model: mujoco.MjModel, height: int, width: int, backend: str = "auto", view: View | None = None
) -> Renderer:
    """A renderer for `model` with images of `height` x `width` pixels.

    backend: `auto`, or one of `egl`, `osmesa`, `ray`, `glfw` (needs a display), `cgl` (macOS).
    view: what the renderer's methods draw when they are not told otherwise.
    One renderer belongs to one process: make it after a fork, or start processes with the `spawn` method.

    Raises ValueError for an unknown backend, RendererUnavailable if one named here or by MUJOCO_GL can't run.
    """
    from dexworld.sim.ray_renderer import RayRenderer

    chosen = choose_backend(backend)
    _announce(chosen)
    if chosen == "ray":
        return RayRenderer(model, height, width, view or View())
    return GlRenderer(model, height, width, chosen, view or View())


@functools.cache
def _announce(backend: str) -> None:
    """Log, once per process, what draws."""
    logger.info("rendering with %s", backend)


def choose_backend(backend: str = "auto") -> str:
    """The backend that `make_renderer(backend=...)` uses; runs the probe if nothing else decides.

    Raises ValueError for an unknown backend name, here or in MUJOCO_GL.
    """
    known = (*BACKENDS, *_EXPLICIT_ONLY)
    if backend != "auto":
        if backend not in known:
            raise ValueError(f"unknown rendering backend {backend!r}; choose 'auto' or one of {', '.join(known)}")
        return backend
    setting = os.environ.get("MUJOCO_GL", "").strip().lower()
    if setting in _OFF:
        return "ray"
    if setting in known:
        return setting
    if setting not in _ON:
        raise ValueError(
            f"MUJOCO_GL={setting!r} is not a backend; use 'egl', 'osmesa', or 'disable' for the ray renderer"
        )
    for candidate in BACKENDS[:-1]:
        failure = probe(candidate)
        if failure is None:
            break
        logger.info("%s can't render here: %s", candidate, failure)
    else:
        candidate = "ray"
        logger.warning(
            "no OpenGL found, so the ray renderer draws (about 8 times slower, otherwise equal in use); %s",
            _INSTALL["egl"],
        )
    os.environ["MUJOCO_GL"] = "disable" if candidate == "ray" else candidate
    return candidate


def probe(backend: str) -> str | None:
    """None if `backend` draws a test picture in a child process, else why it doesn't (one line)."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    environment["MUJOCO_GL"] = "disable"  # the import must not load some other OpenGL library first
    script = f"from dexworld.sim.render import draw_test_picture; draw_test_picture({backend!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no picture within {_PROBE_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return (
        lines[-1].removeprefix("dexworld.sim.render.RendererUnavailable: ")
        if lines
        else f"the test process ended with exit code {done.returncode}"
    )


def draw_test_picture(backend: str) -> None:
    """Draw a white sphere on black with an OpenGL backend. Raises RendererUnavailable if the picture is wrong."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom size="1" rgba="1 1 1 1"/><camera name="c" pos="0 0 3"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with GlRenderer(model, 32, 32, backend, View()) as renderer:
        picture = renderer.rgb(data, "c")
    if not (picture[16, 16].min() > 60 and picture[0, 0].max() < 60):
        raise RendererUnavailable(
            f"{backend} draws a wrong test picture (centre {picture[16, 16]}, corner {picture[0, 0]})"
        )


def camera_index(model: mujoco.MjModel, camera: str | int) -> int:
    """Index of a camera given by name or index. Raises ValueError, naming the model's cameras, if there is none."""
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(camera, str) and camera in names:
        return names.index(camera)
    if isinstance(camera, (int, np.integer)) and 0 <= camera < model.ncam:
        return int(camera)
    raise ValueError(f"no camera {camera!r} in the model; it has {names or 'none'}")


class GlRenderer:
    """`Renderer` on OpenGL, by MuJoCo's own drawing code.

    Images may not be larger than the model's off-screen buffer (`visual.global.offwidth`, `offheight`). Drawing cost is
    ruled by `visual.quality.shadowsize` and `offsamples`: MuJoCo's default shadow map of 4096 is slow on a CPU.
    """

    _MAX_GEOMS = 10_000

    def __init__(self, model: mujoco.MjModel, height: int, width: int, backend: str, view: View) -> None:
        """Raises ValueError for an image larger than the buffer, RendererUnavailable if the backend can't run."""
        self._context: Any = None
        self._gl: Any = None
        self._at_exit = functools.partial(_close, weakref.ref(self))
        buffer = model.vis.global_
        if not (0 < width <= buffer.offwidth and 0 < height <= buffer.offheight):
            raise ValueError(
                f"images of {width} x {height} pixels don't fit the model's off-screen buffer of {buffer.offwidth} x "
                f"{buffer.offheight}; raise visual.global.offwidth/offheight in the model"
            )
        self.model, self.height, self.width, self.backend, self.view = model, height, width, backend, view
        try:
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
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
        self._scene = mujoco.MjvScene(model, maxgeom=self._MAX_GEOMS)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def rgb(self, data: mujoco.MjData, camera: str | int, view: View | None = None) -> np.ndarray:
        """See `Renderer.rgb`."""
        view = view or self.view
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        self._draw(data, camera, view, flags={"SHADOW": view.shadows, "SEGMENT": False, "IDCOLOR": False})
        self._gl.make_current()  # a forgotten renderer that is collected meanwhile takes the context with it
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._context)
        return np.ascontiguousarray(pixels[::-1])

    def depth(self, data: mujoco.MjData, camera: str | int, view: View | None = None) -> np.ndarray:
        """See `Renderer.depth`."""
        buffer = np.empty((self.height, self.width), np.float32)
        self._draw(data, camera, view or self.view, flags={"SHADOW": False, "SEGMENT": True, "IDCOLOR": True})
        self._gl.make_current()  # as for colours
        mujoco.mjr_readPixels(None, buffer, self._rectangle, self._context)
        near, far = (plane * self.model.stat.extent for plane in (self.model.vis.map.znear, self.model.vis.map.zfar))
        nearness = buffer[::-1].astype(np.float64)  # 1 at the near plane, 0 at the far plane, linear in 1 / depth
        depth = 1.0 / (1.0 / far + nearness * (1.0 / near - 1.0 / far))
        return np.where(nearness > 0, depth, np.inf).astype(np.float32)

    def segmentation(self, data: mujoco.MjData, camera: str | int, view: View | None = None) -> np.ndarray:
        """See `Renderer.segmentation`."""
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        self._draw(data, camera, view or self.view, flags={"SHADOW": False, "SEGMENT": True, "IDCOLOR": True})
        self._gl.make_current()  # a forgotten renderer that is collected meanwhile takes the context with it
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._context)
        codes = pixels[::-1].astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
        geom_of_code = np.full(self._scene.ngeom + 1, -1, np.int32)  # code 0 is the background
        for drawn in self._scene.geoms[: self._scene.ngeom]:
            if drawn.segid >= 0 and drawn.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                geom_of_code[drawn.segid + 1] = drawn.objid
        return geom_of_code[codes]

    def _draw(self, data: mujoco.MjData, camera: str | int, view: View, flags: dict[str, bool]) -> None:
        if self._context is None:
            raise RuntimeError("this renderer is closed")
        option = mujoco.MjvOption()
        option.geomgroup[:] = view.mask()
        eye = mujoco.MjvCamera()
        eye.type, eye.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, camera_index(self.model, camera)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, option, None, eye, everything, self._scene)
        for name, on in flags.items():
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name}")] = on
        self._gl.make_current()
        mujoco.mjr_render(self._rectangle, self._scene, self._context)

    def close(self) -> None:
        """See `Renderer.close`."""
        if self._context is not None:
            atexit.unregister(self._at_exit)
            self._gl.make_current()
            self._context.free()
            self._context = None
        if self._gl is not None:
            self._gl.free()
            self._gl = None

    def __enter__(self) -> "GlRenderer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _close(renderer: "weakref.ref[GlRenderer]") -> None:
    """Close a renderer that may be gone already."""
    alive = renderer()
    if alive is not None:
        alive.close()
