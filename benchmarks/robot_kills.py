"""Where a robot ends that is left alone, and whether a server and its client run for hours.

`--kills` times the server, the client or the network is killed (kill -9), or falls silent, at a random moment while the
simulated robot moves: it has to come to rest inside its limits. `--soak-hours` simulates hours of a robot that looks
five times a second and takes 50 commands, as fast as the machine can: memory and open files have to stay as they are.
"""

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from common import memory_kb, parser, write_and_print
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld_client import Client, JointFilter
from serving import Wander

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("server killed", "client killed", "network killed", "client silent", "network silent")
STILL_BEATS, CHUNK_COMMANDS = 30, 180  # a robot that rests; commands after which a chunk of 150 is over
REST_BEATS = 3000  # of the robot, a minute of its time; one that moves after that doesn't come to rest
START_S = 60.0
LOOKS_PER_S, COMMANDS = 5, 10  # a second; for each look


def started(script: str, *words: str, quiet: bool = False) -> subprocess.Popen:
    """A script of the repository in a process of its own, with this one's modules; what it says is read from it.

    quiet: without its errors.
    """
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    errors = subprocess.DEVNULL if quiet else None
    command = [sys.executable, str(ROOT / script), *words]
    return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=errors, text=True)


class Loop:
    """A server, a client, and the network between the client and both others, each a process; a context manager."""

    def __init__(self, robot_port: int) -> None:
        self._robot_port, self._server_port = str(robot_port), "0"
        self._parts: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Start what isn't there, or has ended."""
        self.clear(*[name for name, process in self._parts.items() if process.poll() is not None])
        if "server" not in self._parts:
            self._server_port = self._started("server", "--serve", self._server_port)
        if "network" not in self._parts:
            ports = self._started("network", "--relay", self._server_port, self._robot_port).split()
            self._addresses = [f"ws://127.0.0.1:{port}" for port in ports]
        if "client" not in self._parts:
            words = ["--server", self._addresses[0], "--robot", self._addresses[1], "--chunks", "1000000"]
            self._parts["client"] = started("examples/kitchen_client.py", *words, quiet=True)

    def end(self, kind: str) -> None:
        """Kill a part, or stop it where it stands."""
        part, _, how = kind.partition(" ")
        self._parts[part].send_signal(signal.SIGSTOP if how == "silent" else signal.SIGKILL)

    def lives(self, name: str) -> bool:
        """Whether a part is there, and hasn't ended."""
        return name in self._parts and self._parts[name].poll() is None

    def clear(self, *names: str) -> None:
        """Take these parts away."""
        for name in names:
            if name in self._parts:
                process = self._parts.pop(name)
                process.kill()
                process.communicate()

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear(*list(self._parts))

    def _started(self, name: str, *words: str) -> str:
        """What a part says first, once it is there."""
        self._parts[name] = process = started("benchmarks/robot_kills.py", *words)
        assert process.stdout is not None
        return process.stdout.readline().strip()


def killed(kind: str, robot: Any, loop: Loop, rng: np.random.Generator) -> tuple[bool, bool]:
    """End one part of the loop at a random moment of motion: whether the robot moved then, and whether it came to rest.

    A client that lives carries its chunk out, however slowly; it has to hold still after that.
    """
    loop.start()
    until = time.monotonic() + START_S
    while robot.report()["at_rest"] and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 2.0))
    state = begin = robot.report()
    rests = False
    loop.end(kind)
    while not rests and state["beats"] - begin["beats"] < REST_BEATS:
        time.sleep(0.05)
        state = robot.report()
        rests = min(state["still_beats"], state["beats"] - begin["beats"]) >= STILL_BEATS
        if kind == KINDS[0] and loop.lives("client"):
            rests = rests and state["taken"] - begin["taken"] >= CHUNK_COMMANDS
    part = kind.split()[0]
    loop.clear(part, *(["client"] if part == "network" else []))  # a client whose robot is lost ends
    return not begin["at_rest"], rests


def kills(count: int, rng: np.random.Generator) -> dict[str, Any]:
    """So many kills of one robot: how often it did not come to rest, and how near its commands came to the limits."""
    from dexworld.serving.simulated_robot import RobotConfig, SimulatedRobot

    robot = SimulatedRobot(RobotConfig(seed=916_000))
    robot.start()
    moving, restless, done = 0, Counter[str](), Counter[str]()
    try:
        with SocketServer(ServerConfig(port=0), robot, "robot") as server, Loop(server.port) as loop:
            for number in range(count):
                kind = KINDS[number % len(KINDS)]
                moved, rests = killed(kind, robot, loop, rng)
                done[kind] += 1
                moving, restless[kind] = moving + moved, restless[kind] + (not rests)
                print(number + 1, kind, "moved" if moved else "stood", "rests" if rests else "goes on", flush=True)
        report = robot.report()
    finally:
        robot.stop()
    names = ("beyond_position", "share_of_velocity", "share_of_acceleration", "depth", "beats", "interventions")
    figures = {"kills": dict(done), "moving_when_killed": moving, "not_at_rest": restless.total()}
    return figures | {name: report[name] for name in names}


def relay(pairs: list[tuple[socket.socket, int]]) -> None:
    """Forward what reaches the listening sockets to the ports beside them, for ever."""
    chosen = selectors.DefaultSelector()
    for listener, port in pairs:
        chosen.register(listener, selectors.EVENT_READ, port)
    while True:
        for key, _ in chosen.select():
            one: Any = key.fileobj
            if isinstance(key.data, int):
                near = one.accept()[0]
                try:
                    far = socket.create_connection(("127.0.0.1", key.data))
                except OSError:  # nobody is there
                    near.close()
                    continue
                for end, other in ((near, far), (far, near)):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    chosen.register(end, selectors.EVENT_READ, other)
                continue
            try:
                data = one.recv(1 << 16)
                key.data.sendall(data)
            except OSError:
                data = b""
            if not data:
                for end in (one, key.data):
                    if end in chosen.get_map():
                        chosen.unregister(end)
                    end.close()
                break  # what else was ready may be closed


def soak(hours: float, seed: int) -> dict[str, Any]:
    """Memory (kB) and open files of a policy server, its client and the client's filter, after each tenth of the time.

    Clients connect anew and set another goal every five minutes.
    """
    from dexworld.robots.franka_allegro import OPEN_FINGERS
    from dexworld.serving.policy_service import PolicyConfig, PolicyService

    rng, looks = np.random.default_rng(seed), round(hours * 3600 * LOOKS_PER_S)
    service = PolicyService(PolicyConfig(policy="do_nothing"))
    ready = np.array([0.0, -0.6, 0.0, -2.3, 0.0, 1.9, 0.6, *OPEN_FINGERS])
    filtered, rows, began = JointFilter(service.limits, ready), [], time.process_time()
    standing = {
        "world_from_base": np.eye(4),
        "world_from_camera": np.eye(4),
        "intrinsics": np.diag([240.0, 240.0, 1.0]),
    }
    image = rng.integers(0, 256, (224, 392, 3), np.uint8)
    with SocketServer(ServerConfig(port=0, messages_per_second=1e5), service, "policy") as server:
        client = None
        for number in range(looks):
            if number % (300 * LOOKS_PER_S) == 0:
                if client is not None:
                    client.close()
                client = Client(f"ws://127.0.0.1:{server.port}")
                client.set_goal(image=rng.integers(0, 256, image.shape, np.uint8))
            targets = ready + rng.normal(0.0, 0.02, ready.shape)
            seen = {"image": image, "joint_positions": filtered.positions, "joint_targets": targets, **standing}
            chunk = client.observe(seen)
            for _ in range(COMMANDS):
                filtered.step(chunk.actions[0], filtered.positions)
            if (number + 1) % max(1, looks // 10) == 0:
                rows.append([memory_kb("VmRSS"), len(os.listdir("/proc/self/fd"))])
        client.close()
    figures = {"soak_hours": hours, "looks": looks, "commands": looks * COMMANDS}
    figures |= {"failures": server.metrics.counts["failures"], "soak_cpu_s": time.process_time() - began}
    return figures | {"rss_kb": [row[0] for row in rows], "open_files": [row[1] for row in rows]}


def main() -> None:
    """Measure and write results.json."""
    arguments = parser(__doc__, "outputs/bench/robot_kills")
    arguments.add_argument("--kills", type=int, default=15)
    arguments.add_argument("--soak-hours", type=float, default=0.05, help="of the robot's time; 0 for none")
    arguments.add_argument("--seed", type=int, default=916_000)
    arguments.add_argument("--serve", type=int, metavar="PORT", help="only serve a policy that wanders")
    arguments.add_argument("--relay", type=int, nargs=2, metavar="PORT", help="only forward to these ports")
    options = arguments.parse_args()
    if options.serve is not None:
        with SocketServer(ServerConfig(port=options.serve), Wander(), "wander") as server:
            print(server.port, flush=True)
            server.wait()
        return
    if options.relay is not None:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in options.relay]
        print(*(each.getsockname()[1] for each in listeners), flush=True)
        relay(list(zip(listeners, options.relay, strict=True)))
        return
    logging.getLogger("dexworld_client").setLevel(logging.ERROR)  # interventions are counted
    rng, figures = np.random.default_rng(options.seed), dict[str, Any]()
    if options.kills:
        figures |= kills(options.kills, rng)
    if options.soak_hours:
        figures |= soak(options.soak_hours, options.seed)
    write_and_print(options.output, figures)


if __name__ == "__main__":
    main()
