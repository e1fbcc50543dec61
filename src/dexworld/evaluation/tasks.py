"""Task success: the planner and its controls on the same held-out episodes, judged by the simulator.

Protocol (DexWM paper, section C.4): the task's moves (three in the paper), then the criterion must hold for ten
consecutive ticks, one second.
Every episode is played by every policy from the same start state. Rates come with Wilson 95 % intervals.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.baselines.goal_policy import GoalPolicy, LearnedPolicy
from dexworld.data.parallel import Workers
from dexworld.evaluation.guard import Split, check_seeds
from dexworld.evaluation.intervals import mcnemar, wilson
from dexworld.evaluation.ledger import Ledger
from dexworld.evaluation.policy_setup import learned_policies, policy_setup
from dexworld.evaluation.runner import Played, play
from dexworld.models.reference import REFERENCE
from dexworld.models.world_model import WorldModel, load_world_model
from dexworld.planning.policies import POLICIES, comparable, make_policy
from dexworld.planning.presets import Planner, PlannerOptions
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.robots.task_suite import Episode, Rejection, task_suite
from dexworld.sim.render import Backend, choose_backend

OURS = "world_model"  # the policy that is evaluated; its figures have no prefix
MAX_REJECTED = 40  # seeds passed over for one that gives an episode, before something must be wrong


@dataclass(frozen=True)
class TasksConfig:
    """Success rates of a checkpoint on held-out scenes."""

    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    tasks: tuple[str, ...] = ()
    """Which tasks; by default the environment's standard ones. The kitchen also has pick_place, push_around,
    reach_clutter and grasp_unseen."""
    episodes: int = 100
    """Episodes of each task."""
    seed: int = 1_000_000
    """First held-out scene."""
    planner: Planner = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}, `realtime` is `cpu` with half its rounds."""
    planning: PlannerOptions = field(default_factory=PlannerOptions)
    simulator_episodes: int = 20
    """How many episodes of each task the search in the true simulator plays; it is slow."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    split: Split = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning."""
    policy_checkpoint: tuple[str, ...] = ()
    """Folders or hub ids of learned policies, at most one Diffusion Policy and one `bc`, to play as well."""
    policies: tuple[str, ...] = tuple(POLICIES)
    """Which policies play; the learned ones where they are given."""
    env: str = "kitchen"
    """Whose tasks: `kitchen`, `adroit` (extra `adroit`), `dexjoco` (in its own environment: docs/dexjoco.md), `table`
    or the suite of an installed package."""
    robot: str = ""
    """Who is at the table: a description that names its own `model`, or a robot that dexworld ships one of."""
    look: RobotLook = PLAIN

    def __post_init__(self) -> None:
        suite = task_suite(self.env, self.robot, self.look)
        suite.check(self.tasks)
        object.__setattr__(self, "tasks", self.tasks or suite.standard)
        strange = [name for name in self.policies if name not in POLICIES]
        if strange or not self.policies:
            raise ValueError(f"policies {strange or 'are missing'}; choose from {', '.join(POLICIES)}")
        if self.episodes < 1 or self.simulator_episodes < 0 or self.workers < 0:
            raise ValueError("episodes must be >= 1, simulator_episodes and workers >= 0")


@dataclass(frozen=True)
class EpisodeOutcome:
    """What every policy made of one episode. `played` has a key of `POLICIES` for each policy that played."""

    task: str
    seed: int
    played: dict[str, Played]


def evaluate_tasks(config: TasksConfig, file: Path, progress=None) -> dict[str, Any]:
    """Figures by task, as `results.json` holds them.

    file: keeps every episode's outcome as it is known (a `Ledger`), and what it holds of an earlier run is not played
    again. progress: called with (task, episodes done, episodes). Raises SeedError for seeds that must not be evaluated
    on.
    """
    learned = _learned(config.policy_checkpoint, config.checkpoint)
    provenances = [_model(config.checkpoint).provenance, *(policy.provenance for policy in learned.values())]
    for provenance in provenances:
        check_seeds([config.seed], provenance, config.split)  # before any scene is built
    backend: Any = choose_backend(config.backend)  # once, not in every process
    config = replace(config, backend=backend)
    same = {name: value for name, value in asdict(config).items() if name not in ("workers", "tasks", "episodes")}
    if not config.look.meshes:
        del same["look"]  # as before there were looks
    ledger = Ledger(file, same | {"checkpoints' provenance": provenances})
    figures: dict[str, Any] = {}
    with Workers(_run, config.workers) as pool:
        for task in config.tasks:
            episodes, rejections = _draw(pool, config, task, ledger)
            for provenance in provenances:
                check_seeds([each.seed for each in episodes], provenance, config.split)
            jobs = [
                partial(_play_all, episode, index < config.simulator_episodes, config)
                for index, episode in enumerate(episodes)
                if not isinstance(episode, EpisodeOutcome)
            ]
            played = [each for each in episodes if isinstance(each, EpisodeOutcome)]
            for outcome in pool.map(jobs):
                rows = {name: _row(each) for name, each in outcome.played.items()}
                ledger.add(f"{task} {outcome.seed}", {"task": task, "seed": outcome.seed, "played": rows})
                played.append(outcome)
                if progress is not None:
                    progress(task, len(played), len(episodes))
            figures[task] = summarise(sorted(played, key=lambda outcome: outcome.seed), rejections)
    return figures


def summarise(outcomes: list[EpisodeOutcome], rejections: Counter) -> dict[str, Any]:
    """One task's figures: rates are fractions 0 to 1; a policy that did not play is null, never a number."""
    figures: dict[str, Any] = {}
    for name in POLICIES:
        results = {outcome.seed: outcome.played[name] for outcome in outcomes if name in outcome.played}
        won = [seed for seed, each in results.items() if each.success]
        rate = wilson(len(won), len(results)) if results else None
        key, prefix = figure_names(name)
        figures[key] = rate.value if rate else None
        figures[f"{prefix}low"] = rate.low if rate else None
        figures[f"{prefix}high"] = rate.high if rate else None
        figures[f"{prefix}n"] = len(results)
        figures[f"{prefix}final_distance"] = (
            float(np.mean([each.distances[-1] for each in results.values()])) if results else None
        )
        figures[f"{prefix}succeeded_seeds"] = won
    for name in ("do_nothing", "random", "kinematics_only", "no_subgoals"):
        figures[f"p_against_{name}"] = _p_value(outcomes, OURS, name)
    figures["p_between"] = {
        f"{one}, {other}": p
        for one, other in combinations(POLICIES, 2)
        if (p := _p_value(outcomes, one, other)) is not None
    }
    seconds = [second for outcome in outcomes if OURS in outcome.played for second in outcome.played[OURS].seconds]
    figures["seconds_per_plan"] = float(np.mean(seconds)) if seconds else None
    first = [next(iter(outcome.played.values())) for outcome in outcomes]
    figures["start_distance"] = float(np.mean([played.distances[0] for played in first]))
    figures["excluded_seeds"] = dict(sorted(rejections.items()))
    figures["seeds"] = [outcome.seed for outcome in outcomes]
    return figures


def figure_names(policy: str) -> tuple[str, str]:
    """The key of a policy's rate in a task's figures, and what the keys of its other figures begin with."""
    return ("success", "") if policy == OURS else (policy, f"{policy}_")


def _p_value(outcomes: list[EpisodeOutcome], one: str, other: str) -> float | None:
    """McNemar's p of two policies on the episodes that both played; None without any."""
    both = [each.played for each in outcomes if one in each.played and other in each.played]
    return mcnemar(*np.array([(each[one].success, each[other].success) for each in both]).T) if both else None


def _draw(
    pool: Workers, config: TasksConfig, task: str, ledger: Ledger
) -> tuple[list[Episode | EpisodeOutcome], Counter]:
    """The first `episodes` seeds that give an episode, in the order of seeds whatever the number of processes.

    What the ledger holds is not drawn again: outcomes stand in for their episodes.
    """
    episodes: list[Episode | EpisodeOutcome] = []
    draw = task_suite(config.env, config.robot, config.look).draw
    rejections: Counter = Counter()
    seeds = iter(range(config.seed, config.seed + config.episodes * MAX_REJECTED))
    while some := list(islice(seeds, config.episodes - len(episodes))):
        new = [seed for seed in some if f"{task} {seed}" not in ledger]
        drawn = dict(zip(new, pool.map(partial(draw, task, seed, config.backend) for seed in new), strict=True))
        for seed in some:
            found = drawn[seed] if seed in drawn else _kept(ledger[f"{task} {seed}"])
            if isinstance(found, Rejection):
                rejections[found.reason] += 1
                if seed in drawn:
                    ledger.add(f"{task} {seed}", asdict(found))
            else:
                episodes.append(found)
    if len(episodes) == config.episodes:
        return episodes, rejections
    raise RuntimeError(
        f"{task}: only {len(episodes)} episodes in {config.episodes * MAX_REJECTED} scenes; "
        f"rejected: {dict(rejections)}"
    )


def _kept(result: dict[str, Any]) -> EpisodeOutcome | Rejection:
    """An outcome or a rejection, as a ledger holds it."""
    if "reason" in result:
        return Rejection(**result)
    played = {}
    for name, row in result["played"].items():
        played[name] = Played(row["success"], tuple(row["distances"]), tuple(row["seconds"]))
    return EpisodeOutcome(result["task"], result["seed"], played)


def _row(played: Played) -> dict[str, Any]:
    return {name: getattr(played, name) for name in ("success", "distances", "seconds", "moves")}


def _run(job: Callable[[], Any]) -> Any:
    return job()


@lru_cache(maxsize=1)
def _model(checkpoint: str) -> WorldModel:
    torch.set_num_threads(1)  # episodes run side by side; one thread each is fastest
    return load_world_model(checkpoint)


@lru_cache(maxsize=1)
def _learned(folders: tuple[str, ...], checkpoint: str) -> dict[str, GoalPolicy]:
    return learned_policies(folders, _model(checkpoint))


def _play_all(episode: Episode, with_simulator: bool, config: TasksConfig) -> EpisodeOutcome:
    """One episode by every policy, in one scene."""
    suite = task_suite(config.env, config.robot, config.look)
    environment = suite.environment(episode.task, config.backend)
    model, policies = _model(config.checkpoint), _learned(config.policy_checkpoint, config.checkpoint)
    learned = {name: LearnedPolicy(each, model.encode, environment.robot) for name, each in policies.items()}
    more = {"planning": config.planning, "expert_moves": episode.expert_moves, "learned": learned}
    planned_as, what = suite.tasks[episode.task], f"{episode.task} {episode.seed}"
    setup = policy_setup(planned_as, model, config.planner, environment, what, **more)
    names = [name for name in POLICIES if name in config.policies and comparable(name, setup)]
    names = [name for name in names if with_simulator or name != "true_simulator"]
    reset = {"episode": episode}
    try:
        played = {name: play(make_policy(name, setup), environment, episode.seed, reset) for name in names}
    finally:
        environment.close()
    return EpisodeOutcome(episode.task, episode.seed, played)
