"""Server, client and robot: what a socket costs, what survives nonsense, and where a robot ends that is left alone.

`--malformed` messages go to a server on loopback. `--kills` times a server or a client is killed, or a client falls
silent, at a random moment while the simulated robot moves; each time the robot has to come to rest inside its limits.
`--plans` plans have to be there after `--deadline-s`, and would take longer.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from common import parser, write_and_print
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld_client import Client, packed

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("server killed", "client killed", "client silent")
MOST_BEATS, STILL_BEATS = 300, 30  # of the robot's clock: until it stays at rest for so many; a chunk has 150
STEP = 0.25  # radians that a joint wanders
NAMES = [*(f"panda_joint{number}" for number in range(1, 8)), *(f"joint_{number}" for number in range(16))]


class Wander:
    """A policy that wants small random motions, with no model behind it."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()

    def metadata(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def session(self) -> "Wander":
        """All sessions are alike."""
        return self

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Three steps around where the arm is."""
        now = message.get("joint_targets", np.zeros(23))
        steps = now + STEP * self.rng.uniform(-1, 1, (3, len(now)))
        return {"actions": steps, "step_seconds": 1.0, "execute": 3, "joints": NAMES}

    def close(self) -> None:
        """Nothing to close."""


def nonsense(rng: np.random.Generator) -> bytes | str:
    """A message that is cut, changed, random, nested, huge in what it says, or a text."""
    whole = packed({"image": np.zeros((4, 4, 3), np.uint8), "state": np.zeros(3), "prompt": "go", "seed": 1})
    kind = int(rng.integers(7))
    if kind == 0:
        return whole[: int(rng.integers(len(whole)))]
    if kind == 1:
        changed = bytearray(whole)
        for place in rng.integers(len(whole), size=int(rng.integers(1, 6))):
            changed[place] = int(rng.integers(256))
        return bytes(changed)
    if kind == 2:
        return rng.bytes(int(rng.integers(1, 200)))
    if kind == 3:
        return bytes([int(rng.choice([0x91, 0x81, 0x92]))]) * int(rng.integers(1, 3000))
    if kind == 4:  # so many items, bytes or entries
        return bytes([int(rng.choice([0xDD, 0xDF, 0xC6, 0xDB, 0xC9]))]) + rng.bytes(4)
    if kind == 5:
        shape = [int(each) for each in rng.integers(-3, 2**31, size=int(rng.integers(1, 12)))]
        array = {b"__ndarray__": True, b"data": rng.bytes(8), b"dtype": str(rng.choice(["<f4", "|O", "<U4", "x"]))}
        return packed({"x": array | {b"shape": shape}})
    return "text" * int(rng.integers(1, 50))


def malformed(port: int, count: int, rng: np.random.Generator) -> Counter[str]:
    """Send so many messages to a server, a new connection after every refusal: how it took them."""
    done = Counter[str](unanswered=0)
    while done.total() < count:
        with connect(f"ws://127.0.0.1:{port}", compression=None) as plain:
            plain.recv(10.0)
            while done.total() < count:
                how = _taken(plain, nonsense(rng))
                done[how] += 1
                if how != "answered":
                    break
    return done


def _taken(plain: ClientConnection, message: bytes | str) -> str:
    try:
        plain.send(message)
        return "refused" if isinstance(plain.recv(10.0), str) else "answered"
    except TimeoutError:
        return "unanswered"
    except ConnectionClosed:
        return "closed"


def overhead(port: int, repeats: int) -> dict[str, float]:
    """Milliseconds of an observation there and a chunk back, that are neither the policy's nor its session's."""
    observation = {"image": np.zeros((224, 392, 3), np.uint8), "joint_targets": np.zeros(23), "state": np.zeros(23)}
    taken = []
    with Client(f"ws://127.0.0.1:{port}") as client:
        for _ in range(repeats):
            began = time.perf_counter()
            client.ask(observation)
            taken.append(1e3 * (time.perf_counter() - began))
    return dict(zip(("overhead_ms_p50", "overhead_ms_p99"), np.quantile(taken, (0.5, 0.99)).tolist(), strict=True))


def overshoot(seconds: float, plans: int, seed: int) -> dict[str, Any]:
    """How late plans are that have so many seconds, as shares of them, and how far their searches came.

    Of a session's answers after the first, which also reads the goal.
    """
    from dexworld.planning.presets import PlannerOptions
    from dexworld.serving.policy_service import PolicyConfig, PolicyService
    from dexworld.sim.kitchen.kitchen_env import KitchenEnv
    from dexworld.sim.kitchen.kitchen_tasks import draw_episodes

    (episode,) = draw_episodes("reach", seed, 1)
    environment = KitchenEnv()
    environment.reset(options={"episode": episode})
    seen = vars(environment.observe())
    environment.close()
    service = PolicyService(PolicyConfig(planning=PlannerOptions(iterations=1000, deadline_s=seconds)))
    session = service.session()
    session.answer(seen | {"goal": {"image": episode.goal_image}})
    late, searches = [], []
    for _ in range(plans):
        began = time.perf_counter()
        searches.append(session.answer(seen)["search"])
        late.append((time.perf_counter() - began) / seconds - 1.0)
    assert not any(each["complete"] for each in searches), "these searches need more candidates"
    figures = dict(
        zip(("late_p50", "late_p99", "late_worst"), np.quantile(late, (0.5, 0.99, 1.0)).tolist(), strict=True)
    )
    names = ("rounds", "candidates")
    return figures | {f"{name}_p50": float(np.median([each[name] for each in searches])) for name in names}


def started(script: str, *words: str) -> subprocess.Popen:
    """A script of the repository in a process of its own, with this one's modules; what it says is read from it."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, str(ROOT / script), *words], env=own, stdout=subprocess.PIPE, text=True)


def killed(kind: str, robot: Any, port: int, rng: np.random.Generator) -> bool:
    """Start a server and a client, end one at a random moment of motion: whether the robot came to rest."""
    server, client = started("benchmarks/serving.py", "--wander"), None
    try:
        assert server.stdout is not None
        address = f"ws://127.0.0.1:{int(server.stdout.readline())}"
        addresses = ["--server", address, "--robot", f"ws://127.0.0.1:{port}"]
        client = started("examples/kitchen_client.py", *addresses, "--chunks", "50")
        until = time.monotonic() + 60.0
        while robot.report()["at_rest"] and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 2.0))
        ended = server if kind == KINDS[0] else client
        os.kill(ended.pid, signal.SIGSTOP if kind == KINDS[2] else signal.SIGKILL)
        begin, resting = robot.report()["beats"], 0
        while (state := robot.report())["beats"] < begin + MOST_BEATS:
            resting = resting or state["beats"]
            if not state["at_rest"]:
                resting = 0
            elif state["beats"] > resting + STILL_BEATS:
                return True
            time.sleep(0.05)
        return False
    finally:
        for each in (server, client):
            if each is not None:
                each.kill()
                each.wait()


def kills(count: int, rng: np.random.Generator) -> dict[str, Any]:
    """So many kills of one robot: where it did not come to rest, and how near its commands came to the limits."""
    from dexworld.serving.simulated_robot import RobotConfig, SimulatedRobot

    robot = SimulatedRobot(RobotConfig(seed=916_000))
    robot.start()
    moving: Counter[str] = Counter()
    try:
        with SocketServer(ServerConfig(port=0), robot, "robot") as server:
            for number in range(count):
                kind = KINDS[number % len(KINDS)]
                moving[kind] += not killed(kind, robot, server.port, rng)
        report = robot.report()
    finally:
        robot.stop()
    names = ("beyond_position", "share_of_velocity", "share_of_acceleration", "depth", "beats")
    return {"kills": count, "not_at_rest": sum(moving.values())} | {name: report[name] for name in names}


def main() -> None:
    """Measure and write results.json."""
    arguments = parser(__doc__, "outputs/bench/serving")
    arguments.add_argument("--malformed", type=int, default=10_000, help="messages")
    arguments.add_argument("--kills", type=int, default=15)
    arguments.add_argument("--repeats", type=int, default=300, help="observations that the overhead is of")
    arguments.add_argument("--plans", type=int, default=100, help="plans that have a deadline")
    arguments.add_argument("--deadline-s", type=float, default=1.0, help="seconds that they have")
    arguments.add_argument("--seed", type=int, default=916_000)
    arguments.add_argument("--wander", action="store_true", help="only serve a policy that wanders, for the kills")
    options = arguments.parse_args()
    if options.wander:
        with SocketServer(ServerConfig(port=0), Wander(), "wander") as server:
            print(server.port, flush=True)
            server.wait()
        return
    rng = np.random.default_rng(options.seed)
    with SocketServer(ServerConfig(port=0, messages_per_second=1e5), Wander(), "wander") as server:
        began = time.monotonic()
        figures: dict[str, Any] = {"malformed": dict(malformed(server.port, options.malformed, rng))}
        figures |= {"malformed_s": time.monotonic() - began, "failures": server.metrics.counts["failures"]}
        figures |= overhead(server.port, options.repeats)
    if options.plans:
        figures["deadline"] = overshoot(options.deadline_s, options.plans, options.seed)
    if options.kills:
        figures |= kills(options.kills, rng)
    write_and_print(options.output, figures)


if __name__ == "__main__":
    main()
