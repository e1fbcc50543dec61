"""The verbs of `dexworld video` that measure and show: evaluate, demo."""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from dexworld.cli.bars import counted, task_bars
from dexworld.data.files import read_json
from dexworld.evaluation.guard import Split
from dexworld.evaluation.ledger import Ledger
from dexworld.evaluation.results import write_results
from dexworld.models.reference import VIDEO, checkpoint_path
from dexworld.report.html import number
from dexworld.report.video_demo import write_video_demo
from dexworld.report.video_evaluation_page import write_video_results
from dexworld.training.distributed import local_device
from dexworld.training.train_config import check_positive
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.triplets import TripletFolder, open_triplets
from dexworld.video.judge.evaluate_videos import EvaluateConfig, check_names, check_scenes, evaluate_methods
from dexworld.video.judge.gallery import shown_clip, shown_clips
from dexworld.video.judge.references import VideoMethod, reference_methods
from dexworld.video.judge.video_measures import Perceptual, PerceptualConfig
from dexworld.video.model.clip_latents import check_clips, tensors_digest, warn_of_rates
from dexworld.video.model.dwm import DWM, load_video_model
from dexworld.video.model.generate import (
    OWN,
    GenerateConfig,
    Generator,
    PaintedScene,
    SDEdit,
    folder_prompts,
    with_texts,
)

logger = logging.getLogger("dexworld")
FIRST_SCENE = 1_000_000  # of the evaluation split
SDEDIT_STEPS = 10  # of the SDEdit baseline, unless other steps are asked for


def named_checkpoint(text: str) -> tuple[str, str]:
    """`name=folder` as a pair. Raises ValueError for other text."""
    name, sign, folder = text.partition("=")
    if not (name and sign and folder):
        raise ValueError(f"{text!r} is not of the form name=folder, e.g. no_hand=runs/no_hand/model")
    return name, checkpoint_path(folder)


@contextmanager
def simulated_clips(
    place: Path, model: DWM, methods: Sequence[VideoMethod], seeds: range, split: Split, workers: int, camera="moving"
) -> Iterator[TripletFolder]:
    """Clips of held-out scenes in the model's shape, recorded into a folder for the time of the context.

    They stay there when it is interrupted, so that a second run goes on. Scenes that a method was trained on are
    refused before anything is recorded (SeedError).
    """
    from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets

    check_scenes(seeds, methods, split)
    config = SyntheticConfig(place, len(seeds), seeds.start, camera, model.config.clip, workers=workers)
    yield record_triplets(config, counted("clips", len(seeds)))
    shutil.rmtree(place)  # the seeds bring it back


@dataclass(frozen=True, kw_only=True)
class VideoModelOptions:
    """The model that a command asks, and how."""

    checkpoint: str = VIDEO
    """Model folder or hub id; `video` is the shipped one."""
    generation: GenerateConfig = field(default_factory=GenerateConfig)
    """How videos are sampled."""
    text_encoder: str | None = None
    """Folder or hub id with `text_encoder/` and `tokenizer/`, for models that were trained with prompts."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""

    def __post_init__(self) -> None:
        check_positive(self, *(name for name in ("clips", "samples") if hasattr(self, name)))


@dataclass(frozen=True)
class VideoEvaluate(VideoModelOptions):
    """Figures of video models on held-out clips, against static copy, inside and outside where the hands act.

    A run that was stopped goes on with the clips that are missing when it is started again.
    """

    output: Path
    """Folder for results.json, report.html and clips.jsonl, which holds each clip's measures as they are known."""
    evaluation: Annotated[EvaluateConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EvaluateConfig(seed=FIRST_SCENE)
    )
    data: Path | None = None
    """Triplet folder; without one, simulated clips are made from the seeds."""
    clips: int = 100
    """Clips: so many are simulated, or at most so many of the folder are taken."""
    camera: Literal["moving", "fixed"] = "moving"
    """Of simulated clips."""
    compare: tuple[str, ...] = ()
    """Further models, each as name=folder. Each is one row, `<name>_codec`: as its codec shows it, like `dwm_codec`."""
    trade_steps: tuple[int, ...] = ()
    """Numbers of denoising steps, each a row: whole samples of the model as its codec shows them."""
    trade_details: tuple[float, ...] = ()
    """Shares of detail (`--detail`), each a row."""
    sdedit: str | None = None
    """Inpainting model for the SDEdit baseline."""
    sdedit_strengths: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    """Its strengths, each a row."""
    weights: PerceptualConfig = field(default_factory=PerceptualConfig)
    """Where the weights of perceptual measures are; without them they are not reported."""
    workers: int = 0
    """Processes for simulating clips; 0 is one per core."""

    def run(self) -> None:
        """Evaluate, write `results.json` and the page."""
        model = load_video_model(self.checkpoint, self.device)
        generators, baselines = self._methods(model)
        own = tuple(method.name for method in generators if method.name in ("dwm", "dwm_codec"))
        perceptual = Perceptual(self.weights, str(local_device(self.device)))
        everything: list[Any] = [*generators, *baselines]
        decoded = tuple(method.name for method in everything if method.name != "dwm")
        after_first = self.evaluation.after_first or any(each.sees_first_frame for each in generators)
        config = replace(self.evaluation, compare_with=own, decoded=decoded, after_first=after_first)
        check_names([method.name for method in (*reference_methods(model.codec), *everything)], own, config)
        with self._clips(model, everything) as triplets:
            warn_of_rates(triplets.rates(), model)
            for method in everything:
                check_clips(triplets, method.model.config)
            folder = cast(Sequence[TripletClip], triplets)  # decoded clip by clip
            prompts = list(folder_prompts(triplets))
            with_prompts = [with_texts(each, prompts, self.text_encoder) for each in generators]
            methods: list[VideoMethod] = [*with_prompts, *baselines]
            about = {"clips": triplets.fingerprint if self.data else dict(triplets.settings), "count": len(triplets)}
            about |= {"methods": {each.name: tensors_digest(each.model.state_dict()) for each in everything}}
            about |= {"generation": asdict(self.generation), "weights": asdict(self.weights)}
            ledger = Ledger(self.output / "clips.jsonl", asdict(config) | about | {"texts": self.text_encoder})
            with task_bars() as update:
                result = evaluate_methods(folder, methods, config, model.codec, perceptual, update, ledger)
            figures = result.figures() | {"checkpoint": self.checkpoint, "generation": asdict(self.generation)}
            path = write_results(self.output, figures, seed=config.seed, seeds=list(triplets.seeds.values()) or None)
            shown = shown_clips(result, folder, methods, own[0], model.codec, perceptual)
        page = write_video_results(self.output, result, shown, own[0], about=facts_of(model))
        for name, reference in result.headline("dwm"):
            gain = result.difference(name, reference)
            sides = [number(gain[f"psnr_{side}"], "+.2f") for side in ("inside", "outside")]
            logger.info("%s against %s: %s dB of PSNR inside the region, %s dB outside", name, reference, *sides)
        logger.info("%s, %s", path, page)

    def _methods(self, model: DWM) -> tuple[list[Generator], list[VideoMethod]]:
        """The trained models and the SDEdit baselines.

        The model stands in the table as users see it (`dwm`) and as its codec shows it (`dwm_codec`); others, and the
        model at other detail, are compared with `dwm_codec`.
        """
        plain = replace(self.generation, unchanged="codec")
        generators = [Generator(model, plain, "dwm_codec")]
        if self.generation.unchanged != "codec":
            generators.insert(0, Generator(model, self.generation))
        if plain.paint:
            shown = plain.reference if model.config.reference else OWN
            unpainted = replace(plain, paint=False, reference=shown)
            generators += [Generator(model, unpainted, "dwm_unpainted_codec"), PaintedScene(model, plain)]
        trades = {f"dwm_steps_{each}": replace(plain.sampling, steps=each, detail=1.0) for each in self.trade_steps}
        trades |= {f"dwm_detail_{each:g}": replace(plain.sampling, detail=each) for each in self.trade_details}
        for name, sampling in trades.items():
            generators.append(Generator(model, replace(plain, sampling=sampling), f"{name}_codec"))
        for name, folder in map(named_checkpoint, self.compare):
            generators.append(Generator(load_video_model(folder, self.device), plain, f"{name}_codec"))
        for each in generators:
            each.check_texts(self.text_encoder)
        if self.sdedit is None:
            return generators, []
        base = load_video_model(self.sdedit, self.device)
        steps = self.generation.sampling.steps or SDEDIT_STEPS
        return generators, [SDEdit(base, each, steps, self.generation.batch) for each in self.sdedit_strengths]

    def _clips(self, model: DWM, methods: Sequence[VideoMethod]):
        if self.data is not None:
            folder = open_triplets(self.data)
            return nullcontext(folder.subset(folder.names[: self.clips]))
        seeds = range(self.evaluation.seed, self.evaluation.seed + self.clips)
        more = (seeds, self.evaluation.split, self.workers, self.camera)
        return simulated_clips(self.output / "clips", model, methods, *more)


@dataclass(frozen=True)
class VideoDemo(VideoModelOptions):
    """Imagine a few held-out clips with the shipped model and show them beside the truth, on one page."""

    output: Path = Path("outputs/video-demo")
    """Folder for report.html and results.json."""
    clips: int = 6
    """Clips."""
    seed: int = FIRST_SCENE
    """First scene."""
    split: Split = "evaluation"
    """`validation` allows seeds 900,000 to 999,999."""
    workers: int = 0
    """Processes for simulating the clips; 0 is one per core."""

    def run(self) -> None:
        """Simulate, imagine, and write the page."""
        model = load_video_model(self.checkpoint, self.device)
        references, method = reference_methods(model.codec), Generator(model, self.generation)
        method.check_texts(self.text_encoder)
        started, place = time.monotonic(), self.output / "clips"
        seeds = range(self.seed, self.seed + self.clips)
        with simulated_clips(place, model, [*references, method], seeds, self.split, self.workers) as triplets:
            methods = [*references, with_texts(method, folder_prompts(triplets), self.text_encoder)]
            clips = [triplets[index] for index in range(len(triplets))]
        simulated = time.monotonic()
        settings = EvaluateConfig(seed=self.seed, split=self.split, after_first=method.sees_first_frame)
        shown = [shown_clip(clip, methods, settings) for clip in counted("videos", len(clips))(clips)]
        timings = {"simulating": simulated - started, "imagining": time.monotonic() - simulated}
        figures = {"clips": {each.clip.name: each.figures for each in shown}, "timings": timings}
        write_results(self.output, figures, seed=self.seed, seeds=list(triplets.seeds.values()))
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
        "Hands": config.condition + (", reference picture" if config.reference else ""),
        "Predicts": config.prediction,
        "Codec": f"{config.codec.kind}, {config.codec.channels} channels",
        "Clips": f"{clip.frames} frames of {clip.height} x {clip.width} at {clip.fps:g} fps",
        "Trained on": "; ".join(f"{each['clips']} clips ({each['name']})" for each in datasets),
        "Trained for": f"{model.provenance.get('steps')} steps, {seconds / 60:.0f} minutes" if seconds else "",
    }
    return {name: value for name, value in facts.items() if value}
