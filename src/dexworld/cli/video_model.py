"""The verbs `video train` and `video generate`."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from dexworld.cli.bars import counted
from dexworld.cli.video_results import VideoModelOptions, facts_of
from dexworld.data.video import write_video
from dexworld.evaluation.results import write_results
from dexworld.report.video_demo import write_video_demo
from dexworld.video.clips.triplets import open_triplets
from dexworld.video.judge.evaluate_videos import EvaluateConfig, sample_seed
from dexworld.video.judge.gallery import ShownClip, shown_clip
from dexworld.video.judge.references import reference_methods
from dexworld.video.model.clip_latents import check_clips, warn_of_rates
from dexworld.video.model.dwm import load_video_model
from dexworld.video.model.generate import Generator, folder_prompts, with_texts
from dexworld.video.model.train_video import VideoRunConfig, train_video
from dexworld.video.model.video_cost import describe_run

logger = logging.getLogger("dexworld")
SHOWN = 12  # clips on the page of generated videos


@dataclass(frozen=True)
class VideoTrain:
    """Train a video world model on triplets; start it again to go on where it stopped."""

    config: Annotated[VideoRunConfig, tyro.conf.arg(name="")]
    dry_run: bool = False
    """Print what the preset costs in memory and time, check the data if there are any, and train nothing."""

    def run(self) -> None:
        """Train, and leave the model in `<output>/model`."""
        if self.dry_run:
            sys.stdout.write(describe_run(self.config) + "\n")
            return
        logger.info("the model is in %s", train_video(self.config))


@dataclass(frozen=True)
class VideoGenerate(VideoModelOptions):
    """Imagine the clips of a triplet folder and write the videos, and a page that shows them side by side."""

    data: Path
    """Triplet folder; its interaction videos are shown beside. Of them a model sees at most the first frame, where it
    starts from it (`control`) or takes it as reference."""
    output: Path
    """Folder for videos/<name>_<k>.mp4, report.html and results.json."""
    clips: int | None = None
    """Only the first so many."""
    samples: int = 1
    """Videos of each clip."""
    seed: int = 0
    """Of the noise."""

    def run(self) -> None:
        """Generate, and write videos, page and `results.json`."""
        model = load_video_model(self.checkpoint, self.device)
        folder = open_triplets(self.data)
        folder = folder.subset(folder.names[: self.clips])
        check_clips(folder, model.config)
        warn_of_rates(folder.rates(), model)
        method = with_texts(Generator(model, self.generation), folder_prompts(folder), self.text_encoder)
        methods: list[Any] = [*reference_methods(model.codec), method]
        settings = EvaluateConfig(seed=self.seed, after_first=method.sees_first_frame)
        shown: list[ShownClip] = []
        videos: dict[str, int] = {}
        for index in counted("clips", len(folder))(range(len(folder))):
            clip = folder[index]
            for number in range(self.samples):
                seed = sample_seed(self.seed, clip.name, number)
                path = self.output / "videos" / f"{clip.name}_{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_video(path, method.generate([clip], [seed])[0], clip.fps)
                videos[str(path.relative_to(self.output))] = seed
            if len(shown) < SHOWN:
                shown.append(shown_clip(clip, methods, settings))
        write_results(self.output, {"videos": videos, "checkpoint": self.checkpoint}, seed=self.seed)
        page = write_video_demo(self.output, shown, "dwm", model=facts_of(model))
        logger.info("%d videos in %s; %s", len(videos), self.output / "videos", page)
