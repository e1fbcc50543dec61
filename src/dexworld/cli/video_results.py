"""The verbs of `dexworld video` that measure and choose: evaluate, select, demo."""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro

from dexworld.cli.bars import counted, task_bars
from dexworld.data.files import read_json
from dexworld.evaluation.results import write_results
from dexworld.models.lpips import LPIPS
from dexworld.models.reference import HANDS, VIDEO, VIDEO_NO_HAND, checkpoint_path
from dexworld.report.html import number
from dexworld.report.video_demo import write_video_demo
from dexworld.report.video_evaluation_page import write_video_results
from dexworld.report.video_selection import write_ranking_report, write_selection_report
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets
from dexworld.video.clips.triplet_files import read_prompt
from dexworld.video.clips.triplets import TripletFolder, open_triplets
from dexworld.video.judge.evaluate_videos import EvaluateConfig, check_scenes, evaluate_methods
from dexworld.video.judge.gallery import shown_clip, shown_clips
from dexworld.video.judge.references import VideoMethod, reference_methods
from dexworld.video.judge.select_actions import GOAL_PICTURES, GOAL_TEXT, folder_candidates, rank_folder, read_picture
from dexworld.video.judge.select_benchmark import SelectConfig, select_benchmark, trained_method
from dexworld.video.judge.video_measures import Perceptual, PerceptualConfig
from dexworld.video.model.clip_latents import warn_of_rates
from dexworld.video.model.dwm import DWM, chosen_device, load_video_model
from dexworld.video.model.generate import GenerateConfig, Generator, SDEdit, with_texts

logger = logging.getLogger("dexworld")
SDEDIT_STEPS = 10  # of the SDEdit baseline, unless other steps are asked for


def named_checkpoint(text: str) -> tuple[str, str]:
    """`name=folder` as a pair. Raises ValueError for other text."""
    name, sign, folder = text.partition("=")
    if not (name and sign and folder):
        raise ValueError(f"{text!r} is not of the form name=folder, e.g. no_hand=runs/no_hand/model")
    return name, checkpoint_path(folder)


@dataclass(frozen=True)
class VideoEvaluate:
    """Figures of video models on held-out clips, against static copy, inside and outside where the hands act."""

    output: Path
    """Folder for results.json and report.html."""
    checkpoint: str = VIDEO
    """Model folder or hub id; `video` is the shipped one."""
    data: Path | None = None
    """Triplet folder; without one, simulated clips are made from the seeds."""
    clips: int = 100
    """Clips: so many are simulated, or at most so many of the folder are taken."""
    seed: int = 1_000_000
    """First scene of simulated clips; also of the samples and the bootstrap."""
    camera: Literal["moving", "fixed"] = "moving"
    """Of simulated clips."""
    split: Literal["evaluation", "validation"] = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning. Real clips have no seeds, and no split."""
    samples: int = 3
    """Videos drawn for each clip."""
    generation: GenerateConfig = field(default_factory=GenerateConfig)
    """How videos are sampled."""
    compare: tuple[str, ...] = ()
    """Further models, each as name=folder. Each is one row, `<name>_codec`: as its codec shows it, like `dwm_codec`."""
    sdedit: str | None = None
    """Inpainting model for the SDEdit baseline."""
    sdedit_strengths: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    """Its strengths, each a row."""
    weights: PerceptualConfig = field(default_factory=PerceptualConfig)
    """Where the weights of perceptual measures are; without them they are not reported."""
    text_encoder: str | None = None
    """Folder or hub id with `text_encoder/` and `tokenizer/`, for models that were trained with prompts."""
    workers: int = 0
    """Processes for simulating clips; 0 is one per core."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""

    def run(self) -> None:
        """Evaluate, write `results.json` and the page."""
        model = load_video_model(self.checkpoint, self.device)
        methods = self.methods(model)
        own = [method.name for method in methods if method.name in ("dwm", "dwm_codec")]
        with ExitStack() as stack:
            triplets = self._folder(model, methods, stack)
            warn_of_rates(triplets.rates(), model)
            folder = cast(Sequence[TripletClip], triplets)  # decoded clip by clip
            prompts = [read_prompt(triplets.files[name].prompt) for name in triplets.names] if self.text_encoder else []
            with_prompts = [
                with_texts(each, prompts, self.text_encoder) for each in methods if isinstance(each, Generator)
            ]
            methods = [*with_prompts, *(each for each in methods if not isinstance(each, Generator))]
            decoded = tuple(method.name for method in methods if method.name != "dwm")
            config = EvaluateConfig(self.samples, self.seed, compare_with=tuple(own), decoded=decoded, split=self.split)
            perceptual = Perceptual(self.weights, str(chosen_device(self.device)))
            with task_bars() as update:
                result = evaluate_methods(folder, methods, config, model.codec, perceptual, update)
            figures = result.figures() | {"checkpoint": self.checkpoint, "generation": asdict(self.generation)}
            path = write_results(self.output, figures, seed=self.seed, seeds=list(triplets.seeds.values()) or None)
            shown = shown_clips(result, folder, methods, own[0], model.codec, perceptual)
        page = write_video_results(self.output, result, shown, own[0], about=facts_of(model))
        for name, reference in result.headline("dwm"):
            gain = result.difference(name, reference)
            sides = [number(gain[f"psnr_{side}"], "+.2f") for side in ("inside", "outside")]
            logger.info("%s against %s: %s dB of PSNR inside the region, %s dB outside", name, reference, *sides)
        logger.info("%s, %s", path, page)

    def methods(self, model: DWM) -> list[VideoMethod]:
        """The model as users see it (`dwm`) and as its codec shows it (`dwm_codec`), and others beside `dwm_codec`."""
        plain = replace(self.generation, detail="codec")
        methods: list[VideoMethod] = [Generator(model, plain, "dwm_codec")]
        if self.generation.detail != "codec":
            methods.insert(0, Generator(model, self.generation))
        for name, folder in map(named_checkpoint, self.compare):
            methods.append(Generator(load_video_model(folder, self.device), plain, f"{name}_codec"))
        if self.sdedit is not None:
            base = load_video_model(self.sdedit, self.device)
            steps = self.generation.sampling.steps or SDEDIT_STEPS
            methods += [SDEdit(base, strength, steps, self.generation.batch) for strength in self.sdedit_strengths]
        return methods

    def _folder(self, model: DWM, methods: Sequence[VideoMethod], stack: ExitStack) -> TripletFolder:
        if self.data is not None:
            folder = open_triplets(self.data)
            return folder.subset(folder.names[: self.clips])
        check_scenes(range(self.seed, self.seed + self.clips), methods, self.split)  # before they are recorded
        temporary, shape = Path(stack.enter_context(tempfile.TemporaryDirectory())), model.config.clip
        config = SyntheticConfig(temporary, self.clips, self.seed, self.camera, shape, workers=self.workers)
        return record_triplets(config, counted("clips", self.clips))


@dataclass(frozen=True)
class VideoSelect:
    """Choose among hand motions by imagining each: a benchmark with a known right answer, or a folder of yours."""

    output: Path
    """Folder for results.json and report.html."""
    checkpoint: str = VIDEO
    """Model folder or hub id; `video` is the shipped one."""
    no_hand: str | None = VIDEO_NO_HAND
    """Model that sees no hands, a control; None leaves it out."""
    folder: Path | None = None
    """Your own scene: static video, hand videos and a goal (docs/video.md); without one the benchmark is played."""
    benchmark: Annotated[SelectConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SelectConfig(dexwm=HANDS)
    )
    generation: GenerateConfig = field(default_factory=GenerateConfig)
    """How videos are sampled."""
    text_encoder: str | None = None
    """Folder or hub id with `text_encoder/` and `tokenizer/`, for models that were trained with prompts."""

    def run(self) -> None:
        """Choose, write `results.json` and the page."""
        if self.folder is not None:
            self._own(self.folder)
            return
        dexwm = self.benchmark.dexwm
        config = replace(self.benchmark, dexwm=None if dexwm is None else checkpoint_path(dexwm))
        named = {"dwm": self.checkpoint} | ({} if self.no_hand is None else {"no_hand": self.no_hand})
        methods = {name: self._method(model, replace(self.generation, batch=8)) for name, model in named.items()}
        with task_bars() as update:
            figures, judged = select_benchmark(config, methods, progress=partial(update, "scenes"))
        path = write_results(self.output, figures, seed=config.seed)
        page = write_selection_report(self.output, figures, judged, about={"Checkpoint": self.checkpoint})
        rates = [100 * figures[name] for name in ("top1", "low", "high", "chance")]
        words = "right in %.0f %% of %d scenes (%.0f to %.0f), chance %.1f %%; %s, %s"
        logger.info(words, rates[0], figures["n"], *rates[1:], path, page)

    def _method(self, model: str, generation: GenerateConfig) -> Callable[[], Generator]:
        device = str(chosen_device(self.benchmark.device))
        return partial(trained_method, checkpoint_path(model), generation, device, self.text_encoder)

    def _own(self, folder: Path) -> None:
        config, method = self.benchmark, self._method(self.checkpoint, self.generation)()
        lpips = None
        if config.lpips_vgg is not None and config.lpips_heads is not None:
            lpips = LPIPS.from_files(config.lpips_vgg, config.lpips_heads)
        ranking = rank_folder(method, folder, lpips=lpips, text_weights=config.xclip, seed=config.seed)
        figures = {
            "ranking": [ranking.names[index] for index in ranking.order],
            "scores": dict(zip(ranking.names, ranking.scores.tolist(), strict=True)),
            "score": ranking.score_name,
        }
        path = write_results(self.output, figures, seed=config.seed)
        pictures = [folder / name for name in GOAL_PICTURES if (folder / name).exists()]
        goal = read_picture(pictures[0]) if pictures else read_prompt(folder / GOAL_TEXT)
        page = write_ranking_report(self.output, ranking, folder_candidates(folder), goal)
        logger.info("chosen: %s; %s, %s", ranking.names[ranking.best], path, page)


@dataclass(frozen=True)
class VideoDemo:
    """Imagine a few held-out clips with the shipped model and show them beside the truth, on one page."""

    output: Path = Path("outputs/video-demo")
    """Folder for report.html and results.json."""
    checkpoint: str = VIDEO
    """Model folder or hub id; `video` is the shipped one."""
    clips: int = 6
    """Clips."""
    seed: int = 1_000_000
    """First scene."""
    split: Literal["evaluation", "validation"] = "evaluation"
    """`validation` allows seeds 900,000 to 999,999."""
    generation: GenerateConfig = field(default_factory=GenerateConfig)
    """How videos are sampled."""
    workers: int = 0
    """Processes for simulating the clips; 0 is one per core."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""

    def run(self) -> None:
        """Simulate, imagine, and write the page."""
        model = load_video_model(self.checkpoint, self.device)
        methods = [*reference_methods(model.codec), Generator(model, self.generation)]
        check_scenes(range(self.seed, self.seed + self.clips), methods, self.split)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            shape, folder = model.config.clip, Path(temporary)
            config = SyntheticConfig(folder, self.clips, self.seed, shape=shape, workers=self.workers)
            triplets = record_triplets(config, counted("clips", self.clips))
            clips = [triplets[index] for index in range(len(triplets))]
        simulated = time.monotonic()
        settings = EvaluateConfig(samples=1, seed=self.seed, split=self.split)
        shown = [shown_clip(clip, methods, settings) for clip in counted("videos", len(clips))(clips)]
        timings = {"simulating": simulated - started, "imagining": time.monotonic() - simulated}
        figures = {"clips": {each.clip.name: each.figures for each in shown}, "timings": timings}
        seeds = [clip.seed for clip in clips if clip.seed is not None]
        write_results(self.output, figures, seed=self.seed, seeds=seeds)
        measured = Path(checkpoint_path(self.checkpoint)) / "evaluation.json"
        before, facts = read_json(measured) if measured.exists() else None, facts_of(model)
        page = write_video_demo(self.output, shown, "dwm", figures=before, model=facts, timings=timings, held_out=True)
        logger.info("open %s in a browser", page)


def facts_of(model: DWM) -> dict[str, str]:
    """What a page says about a model."""
    config, clip = model.config, model.config.clip
    count = sum(each.numel() for each in model.backbone.parameters())
    seconds, datasets = model.provenance.get("seconds"), model.provenance.get("datasets", [])
    facts = {
        "Model": f"{config.backbone.kind}, {count / 1e6:.1f} million parameters",
        "Hands": config.condition,
        "Predicts": config.prediction,
        "Codec": f"{config.codec.kind}, {config.codec.channels} channels",
        "Clips": f"{clip.frames} frames of {clip.height} x {clip.width} at {clip.fps:g} fps",
        "Trained on": "; ".join(f"{each['clips']} clips ({each['name']})" for each in datasets),
        "Trained for": f"{model.provenance.get('steps')} steps, {seconds / 60:.0f} minutes" if seconds else "",
    }
    return {name: value for name, value in facts.items() if value}
