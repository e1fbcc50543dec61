"""Does more search, or another, push better when the world model judges?

    python benchmarks/push_search.py --scenes 48 --output outputs/bench/push_search

In every validation scene each planner plans three moves from the start. The goal is a click: the true pixels of the
object's centre, and of where it should be. The plan is carried out in the simulator without looking again. A row tells
where the object ends (further than 20 cm counts as 20), what the forecast promised, candidates, and CPU seconds of a
plan. With `--play` the whole control loop plays the episodes instead.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from common import parser, write_results
from dexworld.evaluation.intervals import bootstrap_mean, named_values, wilson
from dexworld.models.world_model import load_world_model
from dexworld.planning.approach import Approach
from dexworld.planning.cem import CEM
from dexworld.planning.gradient import Adam, GradientSolver, Hybrid
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.presets import PlannerPreset, task_preset
from dexworld.planning.protocols import Solver
from dexworld.report.html import bounds, with_interval
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import TaskEpisode, draw_episodes

FAR_CM = 20.0  # distances above count as this: one ball that rolls away would outweigh twenty pushes


def searches() -> dict[str, PlannerPreset]:
    """Planners by name: the preset, others in its space without proposals, and the paper's in the space of joints."""
    shipped = task_preset("cpu", "push", points=True)
    assert isinstance(shipped.solver, HandSpaceSolver)
    assert isinstance(shipped.solver.solver, CEM)
    alone = replace(shipped, config=replace(shipped.config, approach=None))
    inside: dict[str, Solver] = {
        f"CEM {count} x {size}": replace(shipped.solver.solver, iterations=count, samples=size)
        for count, size in ((2, 32), (4, 64), (4, 128), (8, 256))
    }
    inside["gradient 8 x 16"] = GradientSolver(restarts=8, adam=Adam(steps=15))
    inside["hybrid 128 + 4 x 16"] = Hybrid(CEM(128, elites=8, iterations=1), top=4, adam=Adam(steps=15))
    others = {name: replace(alone, solver=replace(shipped.solver, solver=solver)) for name, solver in inside.items()}
    few = replace(shipped.solver, solver=replace(shipped.solver.solver, iterations=1))
    proposed = replace(shipped, solver=few, config=replace(shipped.config, approach=Approach(63)))
    return {
        "preset": shipped,
        "proposals 1 x 64": proposed,
        **others,
        "paper's, joints": replace(alone, solver=CEM(512, 10, 10)),
    }


def clicked(environment: KitchenEnv, episode: TaskEpisode) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1, 2) of object 0's centre now, and of where the episode wants it."""
    observation, simulation = environment.observe(), environment.simulation
    assert simulation is not None
    places = (
        np.c_[[simulation.object_position(), episode.goal_object], np.ones(2)]
        @ np.linalg.inv(observation.world_from_camera).T
    )
    pixels = places[:, :3] @ observation.intrinsics.T
    start, wanted = np.split(pixels[:, :2] / pixels[:, 2:], 2)
    return start, wanted


def tried(policy: MPCPolicy, environment: KitchenEnv, episode: TaskEpisode, play: bool) -> dict[str, float]:
    """What became of an episode, and what its first plan took and promised."""
    environment.reset(seed=episode.seed, options={"episode": episode})
    policy.reset(goal_points=clicked(environment, episode), seed=episode.seed)
    observation, began = environment.observe(), time.process_time()
    targets = policy.act(observation)
    row = {"cpu_s": time.process_time() - began, "promised": policy.statistics[0].terms["points"]}
    row["candidates"] = policy.statistics[0].model_candidates
    assert policy.plan is not None
    rest = policy.robot.clamp(policy.plan.actions[1:]).double().numpy()
    environment.move(targets)
    for planned in rest:
        environment.move(policy.act(environment.observe()) if play else planned)
    success = environment.success()
    return row | {"distance": environment.distance(), "success": float(success)}


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Means over episodes, with intervals of distance and success."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("promised", "candidates", "cpu_s")}
    distances = np.array([min(100 * row["distance"], FAR_CM) for row in rows])
    named = named_values("distance_cm", bootstrap_mean(distances, np.random.default_rng(0)))
    named |= named_values("success", wilson(sum(row["success"] > 0 for row in rows), len(rows)))
    return named | means | {"median_cm": float(np.median(distances))}


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/push_search")
    arguments.add_argument("--scenes", type=int, default=24)
    arguments.add_argument("--seed", type=int, default=901_000, help="first validation scene")
    arguments.add_argument("--checkpoint", default="reference")
    arguments.add_argument("--only", nargs="+", default=list(searches()), choices=list(searches()), metavar="SEARCH")
    arguments.add_argument("--play", action="store_true", help="look and plan again after every move")
    options = arguments.parse_args()
    torch.set_num_threads(1)

    model = load_world_model(options.checkpoint)
    tries: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    for episode in draw_episodes("push", options.seed, options.scenes):
        environment = KitchenEnv()
        for name, rows in tries.items():
            policy = searches()[name].policy(model, environment.robot, keep_out=environment.keep_out)
            rows.append(tried(policy, environment, episode, options.play))
        environment.close()
    results = {name: summary(rows) for name, rows in tries.items()}
    settings = {name: getattr(options, name) for name in ("scenes", "seed", "checkpoint", "play")}
    write_results(options.output, {"rows": results, **settings})
    for name, row in results.items():
        reached = f"{100 * row['success']:3.0f} % ({100 * row['success_low']:.0f} to {100 * row['success_high']:.0f})"
        distance, interval = with_interval(bounds(row, "distance_cm"), ".1f", " cm")
        print(
            f"{name:30s} {distance} ({interval}), "
            f"median {row['median_cm']:4.1f}; success {reached}; promised {row['promised']:.3f}; "
            f"{row['candidates']:.0f} candidates; {row['cpu_s']:.2f} CPU-s"
        )


if __name__ == "__main__":
    main()
