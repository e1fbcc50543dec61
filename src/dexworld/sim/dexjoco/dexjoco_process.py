"""DexJoCo in its own environment: a process of its python plays a task, and is asked over a pipe.

DexJoCo pins MuJoCo 3.4.0 and numpy 1.26.4, which exclude ours, so it isn't imported here. DEXWORLD_DEXJOCO names the
python of its environment.
"""

import atexit
import os
import subprocess
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.robots.dexjoco_arm import dexjoco_arm
from dexworld.sim.poses import OPTICAL, focal_length, pinhole, pose
from dexworld.sim.render import choose_backend

VARIABLE = "DEXWORLD_DEXJOCO"
IMAGE_SIZE = (224, 392)
_WORKER = Path(__file__).with_name("dexjoco_worker.py")
_SETUP = "docs/dexjoco.md says how to set it up"
_idle: dict[tuple[str, str, str], list["DexJoCoProcess"]] = defaultdict(list)  # by python, task and renderer


class DexJoCoError(RuntimeError):
    """DexJoCo's process failed; it says why."""


class DexJoCoProcess:
    """A process that plays one task; calls are the methods of `dexjoco_worker.ServedTask`.

    Starting one takes seconds, so processes are kept: `borrow` takes one that is idle, `give_back` keeps it for later.
    """

    def __init__(self, python: str, task: str, backend: str) -> None:
        try:
            from dexworld_client import packing
        except ModuleNotFoundError as error:
            raise ImportError(f"DexJoCo is spoken to by dexworld-client: pip install ./client; {_SETUP}") from error
        self._key, self._packing = (python, task, backend), packing
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
        self._process = subprocess.Popen([python, str(_WORKER)], env=environment, **options)
        height, width = IMAGE_SIZE
        try:
            self.facts = self.call("open", task=task, height=height, width=width)
        except DexJoCoError as error:
            self.end()
            raise DexJoCoError(f"{error}; {_SETUP}") from error

    def call(self, name: str, **arguments: Any) -> Any:
        """The result of a call. Raises DexJoCoError with what went wrong over there."""
        message = self._packing.packed({"call": name, **arguments})
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        try:
            sink.write(len(message).to_bytes(8, "little") + message)
            sink.flush()
            answer = self._packing.unpacked(source.read(int.from_bytes(source.read(8), "little")))
        except (OSError, ValueError) as error:
            self.end()
            why = "its environment needs dexjoco and dexworld-client"
            raise DexJoCoError(f"{self._key[0]} ended without an answer; {why}") from error
        except BaseException:
            self.end()  # nobody will read the answer
            raise
        if "error" in answer:
            raise DexJoCoError(f"DexJoCo's {self._key[1]} in {self._key[0]}: {answer['error']}")
        return answer["result"]

    def give_back(self) -> None:
        """Keep the process, if it lives, for the next one who needs it."""
        if self._process.poll() is None:
            _idle[self._key].append(self)

    def end(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def borrow(task: str, backend: str = "auto") -> DexJoCoProcess:
    """A process that plays the task, in whatever state.

    Raises ImportError where DexJoCo isn't set up, ValueError without OpenGL, and DexJoCoError.
    """
    python = os.environ.get(VARIABLE, "")
    if not python:
        raise ImportError(f"DexJoCo runs in an environment of its own: set {VARIABLE} to its python; {_SETUP}")
    if not Path(python).is_file():
        raise ImportError(f"{VARIABLE} is {python!r}, which is no file; set it to the python of DexJoCo's environment")
    chosen = choose_backend(backend)
    if chosen == "ray":
        raise ValueError("DexJoCo's pictures need OpenGL: choose --backend egl or osmesa")
    waiting = _idle[python, task, chosen]
    return waiting.pop() if waiting else DexJoCoProcess(python, task, chosen)


@atexit.register
def _end_all() -> None:
    for processes in _idle.values():
        for process in processes:
            process.end()
    _idle.clear()


class DexJoCoSimulation:
    """A task of DexJoCo in motion, seen by its `ego_right` camera, controlled by joint targets (23,)."""

    def __init__(self, task: str, backend: str = "auto") -> None:
        self._process: DexJoCoProcess | None = borrow(task, backend)
        facts = self._process.facts
        self.robot = dexjoco_arm(facts["package"])
        self.world_from_base = facts["world_from_base"]
        height, width = IMAGE_SIZE
        self._standing = {
            "world_from_camera": facts["world_from_camera"] @ pose(OPTICAL, np.zeros(3)),
            "world_from_base": self.world_from_base,
            "intrinsics": pinhole(focal_length(height, facts["fovy"]), height, width),
        }

    def call(self, name: str, **arguments: Any) -> Any:
        """As `DexJoCoProcess.call`."""
        if self._process is None:
            raise ValueError("this simulation is closed")
        return self._process.call(name, **arguments)

    def places(self, *things: str) -> np.ndarray:
        """Where things are (n, 3), metres, world; named KIND:NAME, kind one of body, geom, site."""
        return self.call("places", things=list(things))

    def observation(self) -> dict[str, np.ndarray]:
        """The fields of `Observation`, and `places`, empty."""
        return self.complete(self.call("observe"))

    def complete(self, seen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What DexJoCo's process gives of an observation, with what doesn't change."""
        return self._standing | seen

    def image(self) -> np.ndarray:
        """The picture (224, 392, 3) uint8."""
        return self.call("observe")["image"]

    def get_state(self) -> dict[str, Any]:
        """The complete state, commanded targets included."""
        return self.call("get_state")

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a state of this scene."""
        self.call("set_state", state=state)

    def close(self) -> None:
        """Give the process back."""
        if self._process is not None:
            self._process.give_back()
            self._process = None

    def __enter__(self) -> "DexJoCoSimulation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
