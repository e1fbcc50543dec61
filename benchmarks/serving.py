"""What a socket costs, and what survives nonsense: `--malformed` messages go to a server on loopback.

The overhead stands beside that of as many bytes over a plain TCP connection between two threads, in turns, since both
wait for the machine's scheduler. `--plans` plans have to be there after `--deadline-s`, and would take longer.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from common import parser, write_and_print
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld_client import Client, packed

OBSERVATION = {"image": np.zeros((224, 392, 3), np.uint8), "joint_targets": np.zeros(23), "state": np.zeros(23)}
CANDIDATES = 64  # of a population that replicas judge
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
    """Milliseconds of an observation there and a chunk back, that are neither the policy's nor its session's, and of
    the same bytes over plain TCP.
    """
    taken: dict[str, list[float]] = {"overhead": [], "tcp": []}
    message = packed(OBSERVATION)
    with Client(f"ws://127.0.0.1:{port}") as client, plain_echo(len(message)) as plain:
        for _ in range(repeats):
            began = time.perf_counter()
            client.ask(OBSERVATION)
            between = time.perf_counter()
            plain.sendall(message)
            plain.recv(1)
            taken["overhead"].append(1e3 * (between - began))
            taken["tcp"].append(1e3 * (time.perf_counter() - between))
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {f"{n}_ms_{p}": float(np.quantile(each, q)) for n, each in taken.items() for p, q in shares.items()}


@contextmanager
def plain_echo(size: int) -> Iterator[socket.socket]:
    """A connection whose other end, in a thread, answers every `size` bytes by one."""

    def answer() -> None:
        with listener.accept()[0] as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            got = 0
            while data := peer.recv(1 << 18):
                got += len(data)
                if got == size:
                    got = 0
                    peer.sendall(b"!")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with socket.create_connection(listener.getsockname()) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield plain
        thread.join()


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


def fan_out(replicas: int, plans: int, seed: int) -> dict[str, Any]:
    """How much of `replicas` cores Ray Serve makes use of: populations of candidates that the shipped model judges in
    this process, on one thread, and in replicas, in turns.
    """
    import torch

    from dexworld.planning.presets import PlannerOptions
    from dexworld.robots.franka_allegro import OPEN_FINGERS
    from dexworld.serving.policy_service import PolicyConfig, PolicyService

    torch.set_num_threads(1)
    search = PlannerOptions(samples=CANDIDATES, elites=8, iterations=3, model_budget=CANDIDATES, horizon=3)
    service, taken, off = PolicyService(PolicyConfig(planning=search, ray="local", replicas=replicas)), [], []
    shared = service.model.candidate_costs

    def judged(cost: Any, samples: Any) -> Any:
        began = time.perf_counter()
        found = shared(cost, samples)
        between = time.perf_counter()
        here = cost.model_costs(samples)
        taken.append((between - began, time.perf_counter() - between))
        off.append(float(((found - here).abs() / here.abs()).max()))
        return found

    service.model.candidate_costs = judged
    rng, ready = np.random.default_rng(seed), np.array([0.0, -0.6, 0.0, -2.3, 0.0, 1.9, 0.6, *OPEN_FINGERS])
    camera = np.array([[0.0, -0.5, 0.866, 0.1], [-1.0, 0.0, 0.0, 0.0], [0.0, -0.866, -0.5, 0.8], [0, 0, 0, 1]])
    seen = {"joint_positions": ready, "joint_targets": ready, "world_from_base": np.eye(4), "world_from_camera": camera}
    seen |= {"intrinsics": np.array([[240.0, 0, 196], [0, 240, 112], [0, 0, 1]])}
    try:
        for number in range(plans + 1):  # the first one warms up
            taken, off = ([], []) if number == 1 else (taken, off)
            images = rng.integers(0, 256, (2, 224, 392, 3), np.uint8)
            service.session().answer(seen | {"image": images[0], "goal": {"image": images[1], "seed": number}})
    finally:
        service.close()
    there, here = np.array(taken).T
    figures = {
        "replicas": replicas,
        "candidates": CANDIDATES,
        "populations": len(taken),
        "largest_difference": max(off),
    }
    best, middle = here.min() / there.min(), np.median(here) / np.median(there)
    return figures | {
        "here_s": float(np.median(here)),
        "replicas_s": float(np.median(there)),
        "efficiency_median": float(middle / replicas),
        "efficiency_best": float(best / replicas),
    }


def main() -> None:
    """Measure and write results.json."""
    arguments = parser(__doc__, "outputs/bench/serving")
    arguments.add_argument("--malformed", type=int, default=10_000, help="messages")
    arguments.add_argument("--repeats", type=int, default=2000, help="observations that the overhead is of")
    arguments.add_argument("--ray-replicas", type=int, default=0, help="replicas that candidates are split over")
    arguments.add_argument("--ray-plans", type=int, default=5, help="of the replicas")
    arguments.add_argument("--plans", type=int, default=100, help="plans that have a deadline")
    arguments.add_argument("--deadline-s", type=float, default=1.0, help="seconds that they have")
    arguments.add_argument("--seed", type=int, default=916_000)
    options = arguments.parse_args()
    rng = np.random.default_rng(options.seed)
    with SocketServer(ServerConfig(port=0, messages_per_second=1e5), Wander(), "wander") as server:
        began = time.monotonic()
        figures: dict[str, Any] = {"malformed": dict(malformed(server.port, options.malformed, rng))}
        figures |= {"malformed_s": time.monotonic() - began, "failures": server.metrics.counts["failures"]}
        figures |= overhead(server.port, options.repeats)
    if options.ray_replicas:
        figures |= fan_out(options.ray_replicas, options.ray_plans, options.seed)
    if options.plans:
        figures["deadline"] = overshoot(options.deadline_s, options.plans, options.seed)
    write_and_print(options.output, figures)


if __name__ == "__main__":
    main()
