"""Play the demonstration: a few episodes of each task, filmed, with what the model imagined at every plan."""

import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.files import read_json
from dexworld.data.parallel import parallel_map
from dexworld.evaluation.guard import training_ranges
from dexworld.evaluation.policy_setup import policy_setup
from dexworld.evaluation.runner import play
from dexworld.forecast import Forecast
from dexworld.models.latent_readers import AUTO, Drawing, drawing_of
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.models.world_model import load_world_model
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.policies import world_model
from dexworld.planning.presets import Planner, PlannerOptions
from dexworld.planning.sentence_goal import sentence_points
from dexworld.report import words
from dexworld.report.demo import Clicked, DemoResults, EpisodeResult, PlanRecord
from dexworld.report.overlay import points_overlay
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_simulation import FRAMES_PER_SECOND
from dexworld.sim.kitchen.kitchen_tasks import RADIUS, TASKS, Task, draw_episodes
from dexworld.sim.kitchen.task_builders import STEP_SECONDS
from dexworld.sim.render import Backend, choose_backend
from dexworld.track import ArrayFrames, Track

Clicks = tuple[np.ndarray, np.ndarray] | str  # pixels (Q, 2) and where they should be, (Q, 2), or a sentence


@dataclass(frozen=True)
class PlayConfig:
    """How filmed episodes are planned and played."""

    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    seed: int = 1_000_000
    """First scene; where it gives no episode of the task, the next one that does is taken."""
    planner: Planner = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}, `realtime` is `cpu` with half its rounds."""
    planning: PlannerOptions = field(default_factory=PlannerOptions)
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    look: RobotLook = PLAIN
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""


@dataclass(frozen=True)
class DemoConfig(PlayConfig):
    """A few episodes of each task."""

    tasks: tuple[Task, ...] = TASKS
    """Which tasks; also pick_place, push_around, reach_clutter, grasp_unseen."""
    episodes: int = 3
    """Episodes of each task."""
    workers: int = 0
    """Processes; 0 is one per core."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.workers < 0 or not self.tasks:
            raise ValueError("a demonstration needs at least one task and one episode, and workers >= 0")


def play_demo(
    config: DemoConfig, progress: Callable[[str, int, int], None] | None = None, clicks: Clicks | None = None
) -> DemoResults:
    """Draw and play the episodes. `progress` is called with (task, done, total).

    clicks: pixels (Q, 2) of the start picture and where they should be, or a sentence that says both: the goal instead
    of each episode's picture.
    """
    timings: dict[str, float] = {}
    began = time.perf_counter()
    backend: Any = choose_backend(config.backend)  # once, not in every process
    config = replace(config, backend=backend)
    model = load_world_model(config.checkpoint)
    drawn_by = drawing_of(model, config.decoder).by  # a decoder that doesn't fit is told before the first episode
    timings["loading the model"] = time.perf_counter() - began
    began = time.perf_counter()
    results: list[EpisodeResult] = []
    done: dict[str, int] = dict.fromkeys(config.tasks, 0)
    items = [(task, index) for task in config.tasks for index in range(config.episodes)]
    for result in parallel_map(partial(_play_task, config, clicks), items, config.workers):
        results.append(result)
        done[result.task] += 1
        if progress is not None:
            progress(result.task, done[result.task], config.episodes)
    timings["planning and playing"] = time.perf_counter() - began
    measured = Path(checkpoint_path(config.checkpoint)) / "evaluation.json"
    packages = {name: version(name) for name in ("dexworld", "torch", "mujoco")}
    return DemoResults(
        episodes=tuple(results),
        measured=read_json(measured) if measured.exists() else {},
        timings=timings,
        checkpoint=model_facts(model),
        versions={"Python": platform.python_version()} | packages,
        command=shlex.join(["dexworld", *sys.argv[1:]]),
        renderer=config.backend,
        drawn_by=drawn_by,
        notices=(words.RAY_NOTICE,) if config.backend == "ray" else (),
    )


def demo_figures(results: DemoResults) -> dict[str, Any]:
    """What `results.json` says of a demonstration: every episode, and the wall seconds of each stage."""
    judged = [episode.success for episode in results.episodes if episode.clicked is None]
    return {
        "solved": sum(judged) if judged else None,
        "episodes": [_episode_figures(episode) for episode in results.episodes],
        "seconds": dict(results.timings),
        "renderer": results.renderer,
        "drawn_by": results.drawn_by,
    }


def _episode_figures(episode: EpisodeResult) -> dict[str, Any]:
    figures = {"task": episode.task, "seed": episode.seed, "seconds_per_plan": episode.seconds_per_plan}
    if episode.clicked is not None:
        return figures | dict(zip(("points_px_start", "points_px_end"), episode.clicked.distances_px, strict=True))
    distances = dict(zip(("distance_start", "distance_end"), episode.distances, strict=True))
    return figures | {"success": episode.success} | distances


def model_facts(model: Any) -> dict[str, str]:
    """The lines of the model card that a reader of the page wants."""
    provenance = model.provenance
    facts = {"Parameters": f"{sum(each.numel() for each in model.state_dict().values()) / 1e6:.1f} million"}
    if provenance.get("datasets"):
        facts["Trained on"] = f"{sum(each['training_episodes'] for each in provenance['datasets'])} simulated episodes"
    trained: dict[str, Any] | None = provenance
    seconds = 0.0
    while trained:  # the checkpoints that it was trained on from count too
        seconds, trained = seconds + trained.get("seconds", 0.0), trained.get("initial_provenance")
    if seconds:
        facts["Training time"] = f"{seconds / 60:.0f} minutes"
    if provenance.get("training_seeds"):
        facts["Training scenes"] = ", ".join(f"{low} to {high}" for low, high in training_ranges(provenance))
    return facts


def followed_points(policy: MPCPolicy, forecast: Forecast, image: np.ndarray) -> np.ndarray:
    """What the camera sees (H, W, 3), twice as large, with where the last plan takes the goal's points."""
    now, goal = policy.points, policy.goal.points
    assert now is not None
    assert goal is not None
    pixels = forecast.pixels[0].mean(dim=1)  # (T, Q, 2), over the opinions
    apart = (forecast.pixels[0, -1] - pixels[-1]).norm(dim=-1).mean(dim=0)
    spread = forecast.spread[0, -1].mean(dim=0) + apart
    path = torch.cat([now[None], pixels])
    return points_overlay(image, path.numpy(), goal.wanted.numpy(), spread.numpy())


@lru_cache(maxsize=1)
def _loaded(checkpoint: str, decoder: str) -> tuple[Any, Drawing]:
    torch.set_num_threads(1)
    model = load_world_model(checkpoint).eval()
    return model, drawing_of(model, decoder)


def _play_task(config: DemoConfig, clicks: Clicks | None, item: tuple[str, int]) -> EpisodeResult:
    """Episode `index` of a task, played and filmed. item: (task, index)."""
    task, index = item
    *_, episode = draw_episodes(task, config.seed, index + 1, backend=config.backend, look=config.look)
    model, drawing = _loaded(config.checkpoint, config.decoder)
    decode = drawing.decode
    imagined: list[np.ndarray | None] = []

    def imagine(policy: MPCPolicy) -> None:
        rollout = policy.imagined
        latents, points = rollout.latents, rollout.points
        if points is not None:
            imagined.append(followed_points(policy, points, environment.observe().image))
            return
        imagined.append(None if latents is None or decode is None else decode(latents[0, :1])[0].numpy())

    environment, options = KitchenEnv(backend=config.backend), {"episode": episode}
    try:
        policy = world_model(policy_setup(task, model, config.planner, environment, planning=config.planning))
        start_image = environment.reset(options=options)[0]["image"]
        points = sentence_points(model, start_image, clicks) if isinstance(clicks, str) else clicks
        played = play(policy, environment, episode.seed, options, True, imagine, points)
        clicked = None if points is None else _clicked(policy, environment, points)
    finally:
        environment.close()
    parts = zip(imagined, played.step_frames, policy.statistics, strict=False)  # an episode may end early
    pointed = policy.points is not None
    plans = tuple(PlanRecord(picture, happened, made.seconds, pointed, made) for picture, happened, made in parts)
    return EpisodeResult(
        task=task,
        seed=episode.seed,
        success=played.success,
        start_image=start_image,
        goal_image=episode.goal_image,
        outcome=np.stack(played.frames),
        outcome_fps=FRAMES_PER_SECOND,
        goal_keypoints=policy.goal.pixels.numpy(),
        goal_keypoints_shown=(policy.goal.confidence > 0.3).numpy(),
        distances=(played.distances[0], played.distances[-1]),
        limit=RADIUS[task],
        plans=plans,
        clicked=clicked,
        seen=seen_track(environment.robot, played.observations),
    )


def seen_track(robot: Robot, observations: Sequence[Observation]) -> Track:
    """What was seen before each move of an episode: frames, camera, and the robot's hand in the world."""
    joints, base, cameras = (
        torch.from_numpy(np.stack([getattr(each, name) for each in observations])).double()
        for name in ("joint_positions", "world_from_base", "world_from_camera")
    )
    track = robot.track(joints, base[0], cameras, torch.from_numpy(observations[0].intrinsics).double())
    columns = {name: value.numpy() for name, value in track.columns.items()}
    frames = ArrayFrames(np.stack([each.image for each in observations]))
    return Track(cameras.numpy(), observations[0].intrinsics, columns, 1 / STEP_SECONDS, frames)


def _clicked(policy: MPCPolicy, environment: KitchenEnv, clicks: tuple[np.ndarray, np.ndarray]) -> Clicked:
    """A goal of points after its episode: they are looked for once more."""
    policy.watch(environment.observe())
    points, goal = policy.points, policy.goal.points
    assert points is not None
    assert goal is not None
    start, end = (float((each - goal.wanted).norm(dim=-1).mean()) for each in (goal.pixels, points))
    return Clicked(*clicks, (start, end))
