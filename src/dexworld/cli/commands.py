"""The verbs of the command line. Each writes what it found into `--output`, `results.json` included."""

import logging
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dexworld.cli.progress import counted, task_bars
from dexworld.data.fitted import fitted, fitted_episode
from dexworld.data.store import open_dataset
from dexworld.evaluation.guard import check_seeds
from dexworld.evaluation.open_loop import OpenLoopConfig, evaluate_open_loop
from dexworld.evaluation.results import write_results
from dexworld.evaluation.tasks import TasksConfig, evaluate_tasks
from dexworld.models.dexwm import DexWM
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.report.atomic import AtomicConfig, atomic_motions, best_frame
from dexworld.report.demo import write_demo_report
from dexworld.report.imagine import imagine, write_imagine_report
from dexworld.report.play_demo import DemoConfig, demo_figures, play_demo
from dexworld.sim.kitchen.collect_exploration import CollectConfig, collect
from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration
from dexworld.sim.kitchen.kitchen_tasks import TASKS, Task
from dexworld.training.decoder_choice import drawing_of
from dexworld.training.estimate import PlanConfig, plan_run
from dexworld.training.frozen_encoder import AUTO, chosen_evaluator
from dexworld.training.recipes import epochs_on_paper, with_recipe
from dexworld.training.run import RunConfig, train

logger = logging.getLogger("dexworld")
Backend = Literal["auto", "egl", "osmesa", "ray"]
SEARCHED_FRAMES = 20  # of a recorded episode, for one that shows the hand


@dataclass(frozen=True)
class Train:
    """Train a world model on collected episodes; start it again to go on where it stopped.

    What is trained beside it has commands of its own: `dexworld train decoder` and `dexworld train evaluator`.
    """

    run_config: Annotated[RunConfig, tyro.conf.arg(name="")]
    recipe: str | None = None
    """A named way to train (`pretrain_egodex_droid`, `finetune_robocasa`, and both with `_official`): it fills in what
    is left at its default, and the steps from its epochs."""
    dry_run: bool = False
    """Show what the run takes (on paper without `--data`: EgoDex and DROID at the paper's scale), and stop."""
    machines: PlanConfig = field(default_factory=PlanConfig)

    def run(self) -> None:
        """Train, and leave the model in `<output>/model`."""
        config = self.run_config if self.recipe is None else with_recipe(self.recipe, self.run_config)
        if self.dry_run:
            machines = self.machines
            if self.recipe is not None:
                machines = replace(machines, epochs=epochs_on_paper(self.recipe, config, machines.epochs))
            sys.stdout.write("\n".join(plan_run(config, machines).lines()) + "\n")
            return
        logger.info("the model is in %s", train(config))


@dataclass(frozen=True)
class OpenLoop:
    """How well the model predicts on its own for four seconds, against copy-last and shuffled actions."""

    output: Path
    """Folder for results.json."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    episodes: int = 100
    """Held-out episodes."""
    seed: int = 1_000_000
    """First held-out scene."""
    data: Path | None = None
    """Dataset of held-out episodes; collected from the seeds when not given."""
    workers: int = 0
    """Processes for collecting; 0 is one per core."""
    split: Literal["evaluation", "validation"] = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning."""
    evaluator: str = AUTO
    """Who reads keypoints from latents: a keypoint evaluator made by `dexworld train evaluator`, or `own` for the
    model's own head, whose quality then goes into the figures. `auto` takes the shipped evaluator for models with the
    reference's encoder, and the own head for others; the results name it."""

    def run(self) -> None:
        """Evaluate and write `results.json`."""
        model = DexWM.from_pretrained(checkpoint_path(self.checkpoint)).eval()
        evaluator, reader = chosen_evaluator(self.evaluator, model.encoder)
        trained = [model.provenance] if evaluator is None else [model.provenance, evaluator.provenance]
        for provenance in trained:
            check_seeds(range(self.seed, self.seed + self.episodes), provenance, self.split)
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.data or Path(temporary)
            if self.data is None:
                collect(
                    CollectConfig(folder, self.episodes, self.seed, self.workers), counted("episodes", self.episodes)
                )
            dataset = fitted(open_dataset(folder), model.config.image_size)
            for provenance in trained:
                check_seeds(dataset.seeds, provenance, self.split)
            episodes = (dataset[index] for index in range(min(self.episodes, len(dataset))))
            config = OpenLoopConfig(seed=self.seed)
            figures = evaluate_open_loop(
                model,
                counted("roll-outs", self.episodes)(episodes),
                config,
                keypoints=None if evaluator is None else evaluator.keypoints,
            )
        figures["keypoints_read_by"] = reader
        figures["quarantined"] = len(dataset.quarantined)
        path = write_results(self.output, figures, seed=self.seed, seeds=dataset.seeds)
        logger.info(
            "squared error against copy-last: %.3f at 1 s, %.3f at 4 s; keypoints read by %s; %s",
            figures["mse_ratio_1s"],
            figures["mse_ratio_4s"],
            reader,
            path,
        )


@dataclass(frozen=True)
class Tasks:
    """Success rates of planning with the model on held-out scenes, with its controls."""

    output: Path
    """Folder for results.json."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    tasks: tuple[Task, ...] = TASKS
    """Which tasks."""
    episodes: int = 100
    """Episodes of each task."""
    seed: int = 1_000_000
    """First held-out scene."""
    planner: Literal["cpu", "paper"] = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}."""
    simulator_episodes: int = 20
    """How many episodes of each task the search in the true simulator plays; it is slow."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    split: Literal["evaluation", "validation"] = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning."""

    def run(self) -> None:
        """Evaluate and write `results.json`."""
        config = TasksConfig(
            checkpoint=checkpoint_path(self.checkpoint),
            tasks=tuple(self.tasks),
            episodes=self.episodes,
            seed=self.seed,
            planner=self.planner,
            simulator_episodes=self.simulator_episodes,
            workers=self.workers,
            backend=self.backend,
            split=self.split,
        )
        with task_bars() as update:
            figures, _ = evaluate_tasks(config, update)
        path = write_results(self.output, figures, seed=self.seed)
        for task, row in figures.items():
            logger.info("%s: %.0f %% (%.0f to %.0f)", task, *(100 * row[key] for key in ("success", "low", "high")))
        logger.info("all figures: %s", path)


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on scenes that it has never seen."""

    what: Annotated[OpenLoop, tyro.conf.subcommand("open-loop")] | Annotated[Tasks, tyro.conf.subcommand("tasks")]

    def run(self) -> None:
        """Run the chosen evaluation."""
        self.what.run()


@dataclass(frozen=True)
class Plan:
    """Plan one episode with the world model, carry it out in the simulator, and show both on a page."""

    output: Path
    """Folder for report.html and results.json."""
    task: Task = "reach"
    """What to do."""
    seed: int = 1_000_000
    """Scene; the next one that has an episode of the task is taken."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    planner: Literal["cpu", "paper"] = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""

    def run(self) -> None:
        """Plan, carry out, and write the page."""
        config = DemoConfig(
            checkpoint_path(self.checkpoint), (self.task,), 1, self.seed, self.planner, 1, self.backend, self.decoder
        )
        _demo(config, self.output)


@dataclass(frozen=True)
class Imagine:
    """Let the model imagine simple hand motions from one start frame (the paper's Figure 7)."""

    output: Path
    """Folder for imagine.html, imagine.mp4 and results.json."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    seed: int = 1_000_000
    """Simulated scene to start in, when no dataset is given."""
    data: Path | None = None
    """Dataset to take the start frame from."""
    episode: int = 0
    """Episode of the dataset."""
    frame: int | None = None
    """Frame of the episode; the first one that shows most of the hand when not given."""
    motion: AtomicConfig = field(default_factory=AtomicConfig)
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""

    def run(self) -> None:
        """Imagine, and write the page."""
        model = DexWM.from_pretrained(checkpoint_path(self.checkpoint)).eval()
        drawing = drawing_of(model, self.decoder)
        if self.data is not None:
            episode = open_dataset(self.data)[self.episode]
        else:
            frames = SEARCHED_FRAMES if self.frame is None else max(2, self.frame + 1)
            episode = record_exploration(self.seed, config=ExploreConfig(frames=frames))
        episode = fitted_episode(episode, model.config.image_size)
        frame = best_frame(episode, self.motion.hand) if self.frame is None else self.frame
        motions = atomic_motions(episode, frame, self.motion, model.config.action_convention)
        imagined = imagine(model, episode, motions, frame, decode=drawing.decode, drawn_by=drawing.by)
        logger.info("see %s", write_imagine_report(self.output, imagined, seed=self.seed))


@dataclass(frozen=True)
class Demo:
    """Plan a few episodes of every task with the shipped model and write one page that shows it all."""

    output: Path = Path("outputs/demo")
    """Folder for report.html and results.json."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    tasks: tuple[Task, ...] = TASKS
    """Which tasks."""
    episodes: int = 3
    """Episodes of each task."""
    seed: int = 1_000_000
    """First scene."""
    planner: Literal["cpu", "paper"] = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""

    def run(self) -> None:
        """Play, and write the page."""
        config = DemoConfig(
            checkpoint_path(self.checkpoint),
            tuple(self.tasks),
            self.episodes,
            self.seed,
            self.planner,
            self.workers,
            self.backend,
            self.decoder,
        )
        _demo(config, self.output)


def _demo(config: DemoConfig, output: Path) -> None:
    with task_bars() as update:
        results = play_demo(config, update)
    write_results(output, demo_figures(results), seed=config.seed)
    logger.info("open %s in a browser", write_demo_report(output, results))
