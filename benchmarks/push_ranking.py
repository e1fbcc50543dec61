"""Where does pushing fail: in what the world model predicts, or in how predictions are judged?

    python benchmarks/push_ranking.py --scenes 50 --checkpoints reference --output outputs/bench/push_ranking

In every validation scene the same candidates are carried out in the simulator, as the planner's first population draws
them. The planner's objective ranks them by the predictions of each checkpoint and by the true pictures of how they
ended. The rows tell how far from the target the cheapest really leaves the object; the best candidate is what is
possible, standing still the start.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import parser, write_results
from dexworld.actions import HandMotion
from dexworld.evaluation.intervals import bootstrap_mean, named_values, wilson
from dexworld.forecast import Forecast
from dexworld.models.dexwm import DexWM
from dexworld.models.points import PointHead
from dexworld.models.reference import checkpoint_path
from dexworld.planning.cem import CEM
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.objectives import Objective, as_sum
from dexworld.planning.presets import task_preset
from dexworld.planning.protocols import CostFunction, Gaussian, Plan
from dexworld.report.html import bounds, with_interval
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.observation import Observation
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import RADIUS, TaskEpisode, draw_episodes


@dataclass(frozen=True)
class Candidates:
    """What N candidates did in one scene, the first of which stands still.

    moves: (N, 3, J) joint targets, radians. pictures: (N, H, W, 3) uint8 at the end. distances: (N,) metres from the
    object to its target at the end.
    """

    observation: Observation
    goal_image: np.ndarray
    moves: np.ndarray
    pictures: np.ndarray
    distances: np.ndarray


def carried_out(episode: TaskEpisode, count: int) -> Candidates:
    """Carry out `count` candidates from the episode's start, one after the other."""
    solver = task_preset("cpu", "push").solver
    assert isinstance(solver, HandSpaceSolver)
    assert isinstance(solver.solver, CEM)
    environment = KitchenEnv()
    try:
        environment.reset(options={"episode": episode})
        observation, robot = environment.observe(), environment.robot
        noise = torch.randn((count, 3, 3), generator=torch.Generator().manual_seed(episode.seed))
        displacements = (noise * torch.tensor(solver.std)).clamp(-solver.farthest, solver.farthest)
        displacements[0] = 0.0
        bound = solver.bind(robot, torch.as_tensor(observation.world_from_base, dtype=torch.float32))
        here = torch.as_tensor(observation.joint_targets, dtype=torch.float32).expand(3, -1)
        moves = bound.joints(here, robot.limits.float(), displacements).double().numpy()
        pictures, distances = [], []
        for candidate in moves:
            environment.set_state(episode.start)
            for targets in candidate:
                environment.move(targets)
            pictures.append(environment.render())
            distances.append(environment.distance())
    finally:
        environment.close()
    return Candidates(observation, episode.goal_image, moves, np.stack(pictures), np.array(distances))


@dataclass
class Judge:
    """A solver that asks for the cost of given candidates (N, T, J), and keeps it."""

    candidates: Tensor
    costs: Tensor = field(default_factory=lambda: torch.empty(0))

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """See `Solver`."""
        with torch.no_grad():
            self.costs = cost_function(self.candidates)
        order = self.costs.argsort()
        best = self.candidates[order[0]]
        return Plan(best, float(self.costs[order[0]]), initial, self.candidates[order], self.costs[order], ())


class TruePictures:
    """A dynamics that knows how each candidate ended; `model` encodes what is observed and finds points in it."""

    def __init__(self, model: DexWM, pictures: np.ndarray) -> None:
        self.encode, self.condition, self.start = model.encode, model.condition, model.start
        self.rollout, self.keypoints = model.rollout, model.keypoints
        self.pictures = torch.from_numpy(pictures)
        if model.config.points is not None:
            self.points = TruePoints(model.points, model.encode(self.pictures))

    def decode(self, latents: Tensor) -> Tensor:
        """The true pictures of all candidates, whatever was predicted; of a single plan, the first one's."""
        return self.pictures[: len(latents)]


class TruePoints:
    """A point head that finds points in the pictures in which candidates ended, instead of following them."""

    def __init__(self, head: PointHead, latents: Tensor) -> None:
        self.head, self.maps = head, head.maps
        self.look, self.find, self.read, self.movable = head.look, head.find, head.read, head.movable
        self.map_size, self.image_size = head.map_size, head.image_size
        self.ends = head.maps(latents)  # (N, C, h, w)

    @torch.no_grad()
    def follow(self, looks: Tensor, pixels: Tensor, motion: HandMotion) -> Forecast:
        """The points' places (N, T, 1, Q, 2) at the end, for every step; of hidden ones a guess."""
        maps = self.ends[: len(looks), None]
        logits, _ = self.find(looks[: len(maps)], maps)
        places = self.read(logits)[:, None].expand(-1, motion.steps, -1, -1, -1)
        return Forecast(places, places.new_zeros(places.shape[:-1]))


def judged(dynamics: Any, scene: Candidates, objective: Objective | None = None) -> np.ndarray:
    """Costs (N,) of the candidates as the planner sees them at the start of the episode."""
    judge = Judge(torch.as_tensor(scene.moves, dtype=torch.float32))
    planner = replace(task_preset("cpu", "push", hasattr(dynamics, "points")), solver=judge)
    planner = planner if objective is None else replace(planner, objective=as_sum(objective))
    policy = planner.policy(dynamics, FrankaAllegro())
    policy.reset(scene.goal_image)
    policy.act(scene.observation)
    return judge.costs.numpy()


def outcome(distances: np.ndarray) -> dict[str, float | None]:
    """What distances (E,) in metres, one of a scene, amount to: centimetres and success, with intervals."""
    reached = wilson(int((distances < RADIUS["push"]).sum()), len(distances))
    mean = bootstrap_mean(100 * distances, np.random.default_rng(0))
    return named_values("distance_cm", mean) | named_values("success", reached)


def ranking(costs: list[np.ndarray], scenes: list[Candidates]) -> dict[str, float | None]:
    """The outcome of each scene's cheapest candidate, and how costs and distances correlate by rank."""
    chosen = np.array([scene.distances[np.argmin(cost)] for cost, scene in zip(costs, scenes, strict=True)])
    ranks = [np.argsort(np.argsort([cost, scene.distances])) for cost, scene in zip(costs, scenes, strict=True)]
    correlations = np.array([np.corrcoef(*each)[0, 1] for each in ranks])
    return outcome(chosen) | named_values("rank_correlation", bootstrap_mean(correlations, np.random.default_rng(0)))


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/push_ranking")
    arguments.add_argument("--scenes", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=900_400, help="first validation scene")
    arguments.add_argument("--candidates", type=int, default=40)
    arguments.add_argument("--checkpoints", nargs="+", default=["reference"])
    options = arguments.parse_args()
    torch.set_num_threads(1)

    scenes = [carried_out(each, options.candidates) for each in draw_episodes("push", options.seed, options.scenes)]
    rows = {
        "standing still": outcome(np.array([scene.distances[0] for scene in scenes])),
        "best candidate": outcome(np.array([scene.distances.min() for scene in scenes])),
    }
    for name in options.checkpoints:
        model = DexWM.from_pretrained(checkpoint_path(name)).eval()
        rows[f"predictions of {name}"] = ranking([judged(model, scene) for scene in scenes], scenes)
    truths = [judged(TruePictures(model, scene.pictures), scene) for scene in scenes]
    rows["true pictures"] = ranking(truths, scenes)
    settings = {name: getattr(options, name) for name in ("scenes", "seed", "candidates")}
    write_results(options.output, {"rows": rows, **settings})
    for name, row in rows.items():
        correlation = f"  rank correlation {row['rank_correlation']:.2f}" if "rank_correlation" in row else ""
        distance, interval = with_interval(bounds(row, "distance_cm"), ".1f", " cm")
        print(f"{name:32s} {distance} ({interval})  within 5 cm {100 * row['success']:3.0f} %{correlation}")


if __name__ == "__main__":
    main()
