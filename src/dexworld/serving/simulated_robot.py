"""The kitchen as a robot behind a socket: its own clock, late and lost frames, noise, and the safety filter before it.

Messages: `{"facts": True}`, `{"observe": True}`, `{"command": positions, "sequence": n}` and `{"report": True}`. A
command is answered at the robot's next beat, so that its client keeps the robot's time.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from dexworld.robots.observation import Observation
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.robots.safety import Clearance, JointLimits, Margins, SafetyFilter, joint_limits
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import Task, draw_episodes
from dexworld.sim.render import Backend

PERIOD_S = 0.02  # simulated seconds between two commands
_MISSED = 3  # beats without a command; then the robot brakes
_WAIT_S = 10.0  # for the robot's clock
# Of all commands: radians beyond a limit of position, shares of the other limits, metres in what must not be touched.
_WORST = ("beyond_position", "share_of_velocity", "share_of_acceleration", "depth")


@dataclass(frozen=True)
class RobotConfig:
    """A scene of the kitchen, and what is wrong with the line to it."""

    task: Task = "reach"
    """What is to be done."""
    seed: int = 1_000_000
    """First scene; where it gives no episode of the task, the next one that does is taken."""
    dropped: float = 0.0
    """Share of frames that are lost: the one before comes again."""
    latency_ms: float = 0.0
    """Delay of every frame, milliseconds."""
    jitter_ms: float = 0.0
    """Further delay, drawn from 0 to this."""
    joint_noise: float = 0.0
    """Spread of measured joint positions, radians."""
    pixel_noise: float = 0.0
    """Spread of pictures, grey levels."""
    pace: float = 1.0
    """Simulated seconds in a second."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    look: RobotLook = PLAIN

    def __post_init__(self) -> None:
        if not 0 <= self.dropped < 1 or not self.pace > 0:
            raise ValueError(f"dropped lies between 0 and 1 and pace above 0, not {self.dropped} and {self.pace}")


class SimulatedRobot:
    """A `Service` that acts in simulated time, in a thread of its own, from `start` to `stop`."""

    def __init__(self, config: RobotConfig) -> None:
        self.config = config
        self._tasks: SimpleQueue[tuple[Callable[[KitchenEnv], Any], Future]] = SimpleQueue()
        self._over, self._ended, self._lock = threading.Event(), threading.Event(), threading.Condition()
        self._rng = np.random.default_rng(config.seed)
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)
        self._ready: Future = Future()
        self._commander: RobotSession | None = None
        self._wanted: Any = None  # the last command
        self._missed = self._beats = self._still = 0  # beats without a command; all beats; those since it last moved
        self._taken = 0  # commands
        self._frame: dict[str, Any] | None = None
        self._frames = 0
        self.commands: deque[np.ndarray] = deque(maxlen=round(60 / PERIOD_S))  # of the last simulated minute

    def start(self) -> None:
        """Build the scene and start the clock. Raises what keeps the scene from being built."""
        self._thread.start()
        self.facts = self._ready.result()

    def stop(self) -> None:
        """Stop the clock."""
        self._over.set()
        self._ended.wait(_WAIT_S)

    def metadata(self) -> dict[str, Any]:
        """What a client is told when it connects."""
        return {"robot": "kitchen", "joints": self.facts["limits"]["names"], "period_s": PERIOD_S, "clock": True}

    def session(self) -> "RobotSession":
        """The state of a new connection."""
        return RobotSession(self)

    def report(self) -> dict[str, Any]:
        """How it goes: interventions, whether the arm rests, how near commands came to each limit, metres to go."""
        return self._in_clock(self._reported)

    def observe(self) -> dict[str, Any]:
        """`frame` (its number), `observed_at` and `observation`, late and noisy as configured; maybe the last one."""
        config = self.config
        if self._frame is None or self._rng.random() >= config.dropped:
            self._frame = self._in_clock(self._shot)
        time.sleep((config.latency_ms + config.jitter_ms * self._rng.random()) / 1000.0)
        return self._frame

    def command(self, session: "RobotSession", positions: Any) -> dict[str, Any]:
        """Take a command of the one session that may give some; answered at the next beat."""
        with self._lock:
            if self._commander not in (None, session):
                raise ValueError("another client commands this robot; it has to disconnect first")
            self._commander, self._wanted, self._missed, beat = session, positions, -1, self._beats
            self._taken += 1
            self._lock.wait_for(lambda: self._beats > beat or self._over.is_set(), _WAIT_S)
            return {"joint_positions": self._measured, "beat": self._beats}

    def released(self, session: "RobotSession") -> None:
        """A session is gone; if it commanded, the robot brakes."""
        with self._lock:
            if self._commander is session:
                self._commander = None

    def outcome(self) -> dict[str, Any]:
        """The report, and whether the task is done. Ends the episode."""
        return self.report() | {"success": self._in_clock(lambda environment: environment.success())}

    def _in_clock(self, call: Callable[[KitchenEnv], Any]) -> Any:
        """The result of a call between two beats, in the thread that simulates and draws."""
        result: Future = Future()
        self._tasks.put((call, result))
        return result.result(_WAIT_S)

    def _run(self) -> None:
        try:
            environment = self._built()
        except BaseException as error:
            self._ready.set_exception(error)
            self._ended.set()
            return
        due = time.monotonic()
        try:
            while not self._over.is_set():
                self._beat(environment)
                while True:
                    due = max(due, time.monotonic() - 1.0)
                    try:
                        call, result = self._tasks.get(timeout=max(0.0, due - time.monotonic()))
                    except Empty:
                        break
                    _settled(result, call, environment)
                due = max(due + PERIOD_S / self.config.pace, time.monotonic())
        finally:
            environment.close()
            self._ended.set()

    def _built(self) -> KitchenEnv:
        config = self.config
        (episode,) = draw_episodes(config.task, config.seed, 1, backend=config.backend, look=config.look)
        environment = KitchenEnv(backend=config.backend)
        environment.reset(options={"episode": episode})
        seen, margins = environment.observe(), Margins()
        self._limits: JointLimits = joint_limits(environment.robot, margins)
        self._clearance = Clearance(
            environment.robot, seen.world_from_base, environment.keep_out, margin=margins.distance
        )
        self._filter = SafetyFilter(self._limits, seen.joint_targets, self._clearance, PERIOD_S)
        self._measured = seen.joint_positions
        self._first = self._last = seen.joint_targets
        self._velocity, self._worst = np.zeros_like(self._first), np.full(len(_WORST), -np.inf)
        facts = {"task": config.task, "seed": episode.seed, "limits": asdict(self._limits)}
        self._ready.set_result(facts | {"goal_image": episode.goal_image})
        return environment

    def _beat(self, environment: KitchenEnv) -> None:
        """Filter the last command, and simulate one period. A late one is waited for: the client counts beats, too."""
        simulation = environment.simulation
        assert simulation is not None
        with self._lock:
            self._missed += 1
            if self._commander is None or self._missed > _MISSED:
                command = self._filter.stop("idle" if self._commander is None else "lost")
            else:
                command = self._filter.step(self._wanted, simulation.joint_positions)
            simulation.move(command, PERIOD_S)
            self._judge(command)
            self._measured, self._beats = simulation.joint_positions, self._beats + 1
            self._lock.notify_all()

    def _judge(self, command: np.ndarray) -> None:
        """Note how near a command is to each limit, from commands alone. One that rests was judged before."""
        limits, velocity = self._limits, (command - self._last) / PERIOD_S
        if velocity.any() or self._velocity.any() or not self.commands:
            acceleration = (velocity - self._velocity) / PERIOD_S
            low, high = np.minimum(limits.low, self._first), np.maximum(limits.high, self._first)
            found = [np.maximum(low - command, command - high).max(), np.abs(velocity / limits.velocity).max()]
            found += [np.abs(acceleration / limits.acceleration).max(), self._clearance.depths(command).max()]
            self._worst = np.maximum(self._worst, found)
        self._still = 0 if velocity.any() else self._still + 1
        self._last, self._velocity = command, velocity
        self.commands.append(command)

    def _shot(self, environment: KitchenEnv) -> dict[str, Any]:
        seen, config, rng = environment.observe(), self.config, self._rng
        values = {name: getattr(seen, name) for name in Observation.__dataclass_fields__}
        noise = rng.normal(0.0, config.joint_noise, seen.joint_positions.shape)
        values["joint_positions"] = seen.joint_positions + noise
        if config.pixel_noise:
            picture = seen.image + rng.normal(0.0, config.pixel_noise, seen.image.shape)
            values["image"] = picture.clip(0, 255).astype(np.uint8)
        self._frames += 1
        return {"frame": self._frames, "observed_at": time.time(), "observation": values}

    def _reported(self, environment: KitchenEnv) -> dict[str, Any]:
        worst = dict(zip(_WORST, self._worst.tolist(), strict=True))
        state: dict[str, Any] = {"beats": self._beats, "still_beats": self._still, "taken": self._taken}
        state |= {"at_rest": bool(self._filter.at_rest), "interventions": dict(self._filter.counts)}
        return state | worst | {"distance": float(environment.distance())}


class RobotSession:
    """One connection to the robot."""

    def __init__(self, robot: SimulatedRobot) -> None:
        self._robot, self._sequence = robot, -1

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """See the module. Raises ValueError for anything else, and where another client commands."""
        robot = self._robot
        if "command" in message:
            sequence = message.get("sequence")
            if not isinstance(sequence, int) or sequence <= self._sequence:
                raise ValueError(f"command {sequence!r:.40} comes after {self._sequence}; commands are counted upwards")
            self._sequence = sequence
            return robot.command(self, message["command"])
        calls: dict[str, Callable[[], dict[str, Any]]] = {
            "ping": lambda: {"time": time.time()},
            "facts": lambda: robot.facts,
            "observe": robot.observe,
            "report": robot.report,
        }
        for name, call in calls.items():
            if name in message:
                return call()
        raise ValueError(f"a message holds `command` or one of {', '.join(calls)}")

    def close(self) -> None:
        """Let go of the robot."""
        self._robot.released(self)


def _settled(result: Future, call: Callable[[KitchenEnv], Any], environment: KitchenEnv) -> None:
    try:
        result.set_result(call(environment))
    except Exception as error:  # the caller's
        result.set_exception(error)
