"""How often a robot behind sockets does its task, and a planner that moves the simulator itself, in the same scenes.

`in_process` steps the environment. `served` is a policy server in a process of its own, and here a client and a robot
with its clock, as `dexworld serve`, `examples/kitchen_client.py` and `dexworld play-robot` are. `bad_line` also loses
10 % of the frames and delays each by up to 100 ms. What was played is kept, and not played again.
"""

import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from common import interval_values, parser, write_and_print
from dexworld.evaluation.intervals import bootstrap_mean, mcnemar, wilson
from dexworld.evaluation.ledger import Ledger
from dexworld.evaluation.runner import play
from dexworld.planning.presets import PRESETS
from dexworld.serving.policy_service import PolicyConfig, PolicyService
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.simulated_robot import RobotConfig, SimulatedRobot
from dexworld.serving.socket_server import SocketServer
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import ALL_TASKS, MOVES, TaskEpisode, draw_episodes
from dexworld_client import Client, ControlLoop, JointLimits

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
from kitchen_client import RobotLink

LINES = {"served": {}, "bad_line": {"dropped": 0.1, "jitter_ms": 100.0}}
WAYS = ("in_process", *LINES)
WORST = ("beyond_position", "share_of_velocity", "share_of_acceleration", "depth")  # as a robot reports them
AGE_S = 600.0  # of a frame, on a machine that others use


def in_process(episode: TaskEpisode, service: PolicyService) -> dict[str, float]:
    """An episode of the environment's own steps."""
    environment = KitchenEnv()
    played = play(service.policy(), environment, episode.seed, {"episode": episode})
    environment.close()
    return {"success": played.success, "distance": played.distances[-1]}


def behind_sockets(episode: TaskEpisode, config: RobotConfig, policy: str) -> dict[str, float]:
    """An episode of a simulated robot and a client of the server at `policy`."""
    robot = SimulatedRobot(replace(config, task=episode.task, seed=episode.seed))
    robot.start()
    try:
        with SocketServer(ServerConfig(port=0), robot, "robot") as server, Client(policy) as client:
            link = RobotLink(f"ws://127.0.0.1:{server.port}")
            client.set_goal(image=link.facts["goal_image"], seed=episode.seed)
            loop = ControlLoop(link, client, JointLimits(**link.facts["limits"]), max_age_s=AGE_S, paced=True)
            loop.run(MOVES[episode.task])
            link.close()
            done = robot.outcome()
    finally:
        robot.stop()
    return {name: done[name] for name in ("success", "distance", *WORST)}


@contextmanager
def policy_server(config: PolicyConfig) -> Iterator[str]:
    """The address of a policy that another process serves."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(config, there), daemon=True)
    process.start()
    try:
        yield f"ws://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(config: PolicyConfig, told: Connection) -> None:
    with SocketServer(ServerConfig(port=0), PolicyService(config), "policy") as server:
        told.send(server.port)
        server.wait()


def summary(ledger: Ledger) -> dict[str, Any]:
    """Rates and distances of each way, and how far those over sockets are from the one without, in the same scenes."""
    rows = {way: [each[way] for each in ledger.results()] for way in WAYS}
    won = {way: np.array([row["success"] for row in rows[way]], bool) for way in WAYS}
    figures: dict[str, Any] = {"episodes": len(ledger.results())}
    for way in WAYS:
        distances, rng = np.array([row["distance"] for row in rows[way]]), np.random.default_rng(0)
        figures[way] = {"success": interval_values(wilson(int(won[way].sum()), len(distances)))}
        figures[way]["distance_m"] = interval_values(bootstrap_mean(distances, rng))
    for way in LINES:
        more = bootstrap_mean(won[way].astype(float) - won["in_process"], np.random.default_rng(0))
        figures[way]["success_less_in_process"] = interval_values(more)
        figures[way]["mcnemar_p"] = mcnemar(won[way], won["in_process"])
        figures[way] |= {name: max(row[name] for row in rows[way]) for name in WORST}
    return figures


def main() -> None:
    """Play all scenes and write results.json."""
    arguments = parser(__doc__, "outputs/bench/served")
    arguments.add_argument("--episodes", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=918_000, help="first scene")
    arguments.add_argument("--task", choices=ALL_TASKS, default="reach")
    arguments.add_argument("--planner", choices=PRESETS, default="realtime")
    options = arguments.parse_args()
    logging.getLogger("dexworld_client").setLevel(logging.ERROR)  # interventions are counted
    known = {name: getattr(options, name) for name in ("task", "planner", "seed")}
    ledger = Ledger(options.output / f"{options.task}.jsonl", known)
    config = PolicyConfig(task=options.task, planner=options.planner)
    service = PolicyService(config)
    with policy_server(config) as policy:
        for episode in draw_episodes(options.task, options.seed, options.episodes):
            if str(episode.seed) in ledger:
                continue
            began = time.process_time()
            rows = {"in_process": in_process(episode, service)}
            for way, line in LINES.items():
                rows[way] = behind_sockets(episode, RobotConfig(**line), policy)
            ledger.add(str(episode.seed), rows)
            done = [bool(row["success"]) for row in rows.values()]
            print(episode.seed, *done, f"{time.process_time() - began:.1f} CPU-seconds here", flush=True)
    write_and_print(options.output, known | summary(ledger))


if __name__ == "__main__":
    main()
