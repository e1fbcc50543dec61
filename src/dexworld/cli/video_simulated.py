"""The verbs of `dexworld video` that need the simulator: synthesize, select."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.cli.bars import counted, task_bars
from dexworld.cli.video_results import VideoModelOptions
from dexworld.evaluation.results import write_results
from dexworld.models.reference import HANDS, checkpoint_path
from dexworld.report.video_selection import write_ranking_report, write_selection_report
from dexworld.training.distributed import local_device
from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets
from dexworld.video.judge.select_actions import folder_candidates, folder_goal, rank_folder
from dexworld.video.judge.select_benchmark import SelectConfig, select_benchmark, trained_method
from dexworld.video.judge.video_measures import given_lpips
from dexworld.video.model.generate import GenerateConfig, Generator

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Synthesize:
    """Record triplets in the simulator, in parallel; start it again to go on after a kill."""

    config: Annotated[SyntheticConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Record, and write `results.json` beside the triplets."""
        config = self.config
        folder = record_triplets(config, counted("clips", config.clips))
        write_results(config.output, {"clips": len(folder), "settings": dict(folder.settings)}, seed=config.seed)
        logger.info("%d triplets in %s", len(folder), config.output)


@dataclass(frozen=True)
class VideoSelect(VideoModelOptions):
    """Choose among hand motions by imagining each: a benchmark with a known right answer, or a folder of yours.

    A benchmark that was stopped goes on with the scenes that are missing when it is started again.
    """

    output: Path
    """Folder for results.json, report.html and scenes.jsonl, which holds each scene's scores as they are known."""
    no_hand: str | None = None
    """Model that sees no hands, a control: one of `dexworld video train --condition none`."""
    folder: Path | None = None
    """Your own scene: static video, hand videos and a goal (docs/video.md); without one the benchmark is played."""
    benchmark: Annotated[SelectConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SelectConfig(dexwm=HANDS)
    )

    def run(self) -> None:
        """Choose, write `results.json` and the page."""
        if self.folder is not None:
            self._own(self.folder)
            return
        dexwm = self.benchmark.dexwm
        judge = None if dexwm is None else checkpoint_path(dexwm)
        config = replace(self.benchmark, dexwm=judge, device=self.device)
        named = {"dwm": self.checkpoint} | ({} if self.no_hand is None else {"no_hand": self.no_hand})
        methods = {name: self._method(model, replace(self.generation, batch=8)) for name, model in named.items()}
        with task_bars() as update:
            figures, judged = select_benchmark(config, methods, partial(update, "scenes"), self.output / "scenes.jsonl")
        path = write_results(self.output, figures, seed=config.seed)
        page = write_selection_report(self.output, figures, judged, about={"Checkpoint": self.checkpoint})
        rates = [100 * figures[name] for name in ("top1", "low", "high", "chance")]
        words = "right in %.0f %% of %d scenes (%.0f to %.0f), chance %.1f %%; %s, %s"
        logger.info(words, rates[0], figures["n"], *rates[1:], path, page)

    def _method(self, model: str, generation: GenerateConfig) -> Callable[[], Generator]:
        device = str(local_device(self.device))
        return partial(trained_method, checkpoint_path(model), generation, device, self.text_encoder)

    def _own(self, folder: Path) -> None:
        config, method = self.benchmark, self._method(self.checkpoint, self.generation)()
        lpips = given_lpips(config.lpips_vgg, config.lpips_heads)
        ranking = rank_folder(method, folder, lpips=lpips, text_weights=config.xclip, seed=config.seed)
        figures = {
            "ranking": [ranking.names[index] for index in ranking.order],
            "scores": dict(zip(ranking.names, ranking.scores.tolist(), strict=True)),
            "score": ranking.score_name,
        }
        path = write_results(self.output, figures, seed=config.seed)
        page = write_ranking_report(self.output, ranking, folder_candidates(folder), folder_goal(folder))
        logger.info("chosen: %s; %s, %s", ranking.names[ranking.best], path, page)
