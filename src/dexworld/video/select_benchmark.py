"""Action selection with a known right answer: which of N hand motions leads to the goal picture?

In each held-out scene the simulator plays N hand motions. One outcome, without hands, is the goal. Every method sees
the untouched scene, the candidates' hands and the goal picture, never an outcome, and names the candidate that it
believes leads there. Beside the video world model:

`no_hand`       the video model that sees no hands;
`dexwm`         the latent world model, on the same candidates (`dexwm_evaluator`);
`composite`     the hand videos pasted on the static video: it shows the hands and predicts no change of any object, so
                under an honest score it is at chance;
`composite_codec`  the same as the video model's codec shows it, which blurs the hand in space and in time: whether
                what is left of a hand beside its mask gives the answer away;
`hand_over_change`  no world model at all: the candidate whose hand was where the goal differs from the scene;
`oracle`        the true simulated videos under the same score: the most that any video model could reach.
"""

import logging
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dexworld.data.parallel import available_cores
from dexworld.evaluation.guard import Split, check_seeds
from dexworld.models.dexwm import DexWM
from dexworld.sim.hands.hand_candidates import QUIET_SHARE, CandidateSet, record_candidates
from dexworld.sim.hands.hand_clips import HandClipConfig
from dexworld.video.clip import HandTrack, TripletClip
from dexworld.video.dexwm_evaluator import MEASURES, STRIDE, DexWMEvaluator
from dexworld.video.generate import GenerateConfig, with_texts
from dexworld.video.generate import Generator as VideoGenerator
from dexworld.video.goal_image import DISTANCES, RULES, GoalView, Rule, distance_named
from dexworld.video.load import chosen_device, load_video_model
from dexworld.video.lpips import LPIPS
from dexworld.video.references import VideoMethod
from dexworld.video.select import (
    DISTANCE,
    MASK_FRAMES,
    NEUTRAL_PROMPT,
    RULE,
    ImageGoal,
    imagined_clips,
    scene_view,
)
from dexworld.video.select_controls import as_shown_by, composite, hand_over_change
from dexworld.video.select_figures import DEXWM, MAIN, Judged, ShownScene, figures
from dexworld.video.synthetic import triplet_of
from dexworld.video.text_goal import TextScorer

logger = logging.getLogger(__name__)
COMPOSITE, COMPOSITE_CODEC = "composite", "composite_codec"
HAND_OVER_CHANGE, ORACLE = "hand_over_change", "oracle"
TRIED_MASK_FRAMES = (1, 4)  # by all_scores
MethodFactory = Callable[[], VideoMethod]


@dataclass(frozen=True)
class SelectConfig:
    """A benchmark run. Raises ValueError naming the field that makes no sense."""

    episodes: int = 100
    """Scenes."""
    seed: int = 1_000_000
    """First scene."""
    candidates: int = 8
    """Hand motions in a scene."""
    rivals: bool = False
    """All motions of a scene are about one object: where a hand passes no longer gives the answer away."""
    distance: str = DISTANCE
    """Weight-free distance to the goal picture."""
    rule: Rule = RULE
    """What is left out of the comparison: `union`, `own` or `none` (`goal_image`)."""
    mask_frames: int = MASK_FRAMES
    """So many of the last frames make up a hand's mask; a video codec blurs hands over four."""
    lpips_vgg: Path | None = None
    """LPIPS: its VGG16 (.safetensors or .npz); with weights it takes the place of `distance`."""
    lpips_heads: Path | None = None
    """LPIPS: its linear heads."""
    xclip: str | None = None
    """X-CLIP folder or hub id: the videos are also ranked by the goal's sentence."""
    dexwm: str | None = None
    """DexWM trained on human-hand clips: a folder or hub id. Without one there is no such figure."""
    dexwm_measure: Literal["latents", "changed", "direction", "difference", "pixels"] = "direction"
    """How DexWM's latents are compared, or `pixels` for its decoded pictures under `distance`."""
    dexwm_stride: int = STRIDE
    """Video frames of one step of DexWM."""
    all_scores: bool = False
    """Also try every other distance, rule and measure; validation scenes only."""
    shown: int = 6
    """Scenes whose videos are returned for a page."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: str = "auto"
    """Renderer."""
    split: Split = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning."""
    device: str = "auto"
    """Where models run: `cpu`, `cuda`, or `auto`. A GPU is used by one process."""
    clip: HandClipConfig | None = None
    """Size, length and contents of the clips; those of the video model's when not given."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.candidates < 2 or self.mask_frames < 1 or self.workers < 0 or self.shown < 0:
            raise ValueError("episodes and mask_frames must be >= 1, candidates >= 2, workers and shown >= 0")
        distance_named(self.distance)
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}; choose from {', '.join(RULES)}")
        if self.dexwm_measure not in (*MEASURES, "pixels"):
            raise ValueError(f"dexwm_measure is {self.dexwm_measure!r}; choose from {', '.join(MEASURES)}, pixels")
        if (self.lpips_vgg is None) != (self.lpips_heads is None):
            raise ValueError("LPIPS needs both lpips_vgg and lpips_heads")
        if self.all_scores and self.split != "validation":
            raise ValueError("all_scores compares ways to score; do that on split='validation', never on final scenes")


def select_benchmark(
    config: SelectConfig,
    methods: Mapping[str, MethodFactory],
    provenances: Sequence[Mapping[str, Any]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[Judged]]:
    """Play the benchmark: the figures as `results.json` holds them, and the scenes to show, in seed order.

    methods: factories of generation methods (`trained_method` makes them), called in every process, so they must be
    picklable; `dwm` is the main one, `no_hand` the one that sees no hands, any other name is measured beside them.
    provenances: of checkpoints for the guard, beside those that the methods and DexWM name themselves. progress: called
    with (scenes done, scenes). Raises SeedError for seeds that must not be evaluated on, ValueError for a method that
    takes a control's name.
    """
    reserved = sorted({DEXWM, COMPOSITE, COMPOSITE_CODEC, HAND_OVER_CHANGE, ORACLE} & set(methods))
    if reserved:
        raise ValueError(f"methods may not be called {', '.join(reserved)}: those are the benchmark's own")
    seeds = list(range(config.seed, config.seed + config.episodes))
    judge = Judge(config, methods)
    for provenance in [{"training_seeds": []}, *provenances, *judge.provenances]:
        check_seeds(seeds, provenance, config.split)
    judged = sorted(_judge_all(judge, dict(methods), seeds, progress), key=lambda each: each.seed)
    found = figures(judged, 1.0 / config.candidates)
    found["chance_acting"] = 1.0 / (config.candidates - config.candidates // QUIET_SHARE)
    found["rivals"] = config.rivals
    found["score"] = f"-{config.distance if config.lpips_vgg is None else 'lpips'} ({config.rule})"
    found["dexwm_score"] = f"{config.dexwm_measure} ({config.rule})" if config.dexwm else None
    return found, [each for each in judged if each.shown is not None]


def trained_method(
    model: str | Path,
    config: GenerateConfig = GenerateConfig(),
    device: str = "auto",
    text_encoder: str | None = None,
) -> VideoGenerator:
    """A trained video model, from its folder or hub id, as a method; `functools.partial` makes a factory of it.

    text_encoder: the one that the model was trained with; it is shown the neutral prompt.
    """
    return with_texts(VideoGenerator(load_video_model(model, device), config), [NEUTRAL_PROMPT], text_encoder)


def clips_of(config: SelectConfig, methods: Mapping[str, VideoMethod]) -> HandClipConfig:
    """The clips of a benchmark: as configured, or of the shape that the main or the first trained model works on."""
    if config.clip is not None:
        return config.clip
    for method in (methods.get(MAIN), *methods.values()):
        if isinstance(method, VideoGenerator):
            shape = method.model.config.clip
            return HandClipConfig(frames=shape.frames, height=shape.height, width=shape.width, fps=shape.fps)
    return HandClipConfig()


def _judge_all(
    judge: "Judge", methods: dict[str, MethodFactory], seeds: list[int], progress: Callable[[int, int], None] | None
) -> list[Judged]:
    config = judge.config
    workers = min(config.workers or available_cores(), len(seeds))
    if chosen_device(config.device).type != "cpu":
        workers = 1
    shown = set(seeds[: config.shown])
    judged: list[Judged] = []
    if workers == 1:
        for seed in seeds:
            judged.append(judge(seed, seed in shown))
            if progress is not None:
                progress(len(judged), len(seeds))
        return judged
    context = multiprocessing.get_context("spawn")  # neither a graphics context nor torch's threads survive a fork
    size = max(1, min(8, len(seeds) // (2 * workers)))  # models are loaded once for so many scenes
    parts = [seeds[first : first + size] for first in range(0, len(seeds), size)]
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(_judge_part, config, methods, part, shown) for part in parts]
        try:
            for job in as_completed(jobs):
                judged += job.result()
                if progress is not None:
                    progress(len(judged), len(seeds))
        finally:
            pool.shutdown(cancel_futures=True)
    return judged


def _judge_part(
    config: SelectConfig, methods: dict[str, MethodFactory], seeds: list[int], shown: set[int]
) -> list[Judged]:
    torch.set_num_threads(1)  # scenes run side by side
    judge = Judge(config, methods)
    return [judge(seed, seed in shown) for seed in seeds]


class Judge:
    """Every method of a benchmark, ready to judge scenes."""

    def __init__(self, config: SelectConfig, methods: Mapping[str, MethodFactory]) -> None:
        self.config = config
        self.methods = {name: factory() for name, factory in methods.items()}
        self.clip = clips_of(config, self.methods)
        self.evaluator = None
        if config.dexwm is not None:
            self.evaluator = DexWMEvaluator(DexWM.from_pretrained(config.dexwm).eval(), config.dexwm_stride)
        lpips = None
        if config.lpips_vgg is not None and config.lpips_heads is not None:
            lpips = LPIPS.from_files(config.lpips_vgg, config.lpips_heads)
        self.lpips = lpips
        self.text = TextScorer(config.xclip) if config.xclip is not None else None

    @property
    def provenances(self) -> list[Mapping[str, Any]]:
        """Of every checkpoint that judges: a method without `provenance` was not trained."""
        found = [getattr(method, "provenance", None) for method in (*self.methods.values(), self.evaluator)]
        return [each for each in found if each is not None]

    def __call__(self, seed: int, show: bool = False) -> Judged:
        """Record the candidates of a scene and let every method judge them."""
        candidates = record_candidates(seed, self.config.candidates, self.clip, self.config.backend, self.config.rivals)
        return self.judge(candidates, show)

    def judge(self, candidates: CandidateSet, show: bool = False) -> Judged:
        """The scores of every method for the candidates of one scene."""
        config, seed = self.config, candidates.seed
        clips = candidate_clips(candidates)
        known = imagined_clips(clips)
        view = scene_view(candidates.goal_image, clips, config.mask_frames)
        videos = {name: method.generate(known, [seed] * len(known)) for name, method in self.methods.items()}
        videos[COMPOSITE] = [composite(clip) for clip in known]
        main = self.methods.get(MAIN)
        if isinstance(main, VideoGenerator):
            pasted = zip(videos[COMPOSITE], known, strict=True)
            videos[COMPOSITE_CODEC] = [as_shown_by(main, video, clip.static) for video, clip in pasted]
        videos[ORACLE] = [clip.interaction for clip in clips]
        last = {name: np.stack([video[-1] for video in each]) for name, each in videos.items()}
        if self.evaluator is not None:
            imagined = self.evaluator.imagine(known[0].static[0], [_track(clip) for clip in known])
            last[DEXWM] = self.evaluator.pictures(imagined, view.static)
        goal = ImageGoal(candidates.goal_image, config.distance, config.rule, lpips=self.lpips)
        scores = {name: -view.distances(frames, goal.measure(), config.rule) for name, frames in last.items()}
        text = {name: self.text(each, candidates.goal_text) for name, each in videos.items()} if self.text else {}
        scores[HAND_OVER_CHANGE] = hand_over_change(known, view)
        views = {frames: scene_view(candidates.goal_image, clips, frames) for frames in TRIED_MASK_FRAMES}
        others = self._others(last, views) if config.all_scores else {}
        if self.evaluator is not None:
            if config.dexwm_measure != "pixels":
                scores[DEXWM] = replace(self.evaluator, rule=config.rule).scores(imagined, view, config.dexwm_measure)
            if config.all_scores:
                for rule, measure, (frames, each) in product(RULES, MEASURES, views.items()):
                    way = f"latents/{measure} ({rule}, {frames})"
                    others[DEXWM, way] = replace(self.evaluator, rule=rule).scores(imagined, each, measure)
        return Judged(
            seed=seed,
            goal_index=candidates.goal_index,
            goal_text=candidates.goal_text,
            final_distances=np.asarray(candidates.final_distances, dtype=float),
            scores=scores,
            text_scores=text,
            visible_change=view.visible_change,
            covered=float(view.union.mean()),
            others=others,
            shown=_shown(clips, candidates.goal_image, videos) if show else None,
        )

    @staticmethod
    def _others(last: Mapping[str, np.ndarray], views: Mapping[int, GoalView]) -> dict[tuple[str, str], np.ndarray]:
        return {
            (name, f"{distance} ({rule}, {frames})"): -view.distances(pictures, DISTANCES[distance], rule)
            for name, pictures in last.items()
            for distance, rule, (frames, view) in product(DISTANCES, RULES, views.items())
        }


def _shown(
    clips: Sequence[TripletClip], goal_image: np.ndarray, videos: Mapping[str, Sequence[np.ndarray]]
) -> ShownScene:
    return ShownScene(tuple(clips), goal_image, {name: tuple(each) for name, each in videos.items()})


def candidate_clips(candidates: CandidateSet) -> list[TripletClip]:
    """The candidates as clips `<seed>/<index>`, all with one neutral prompt: a candidate is its hands, no caption."""
    named = (triplet_of(clip, f"{candidates.seed:08d}/{index}") for index, clip in enumerate(candidates.clips))
    return [replace(clip, prompt=NEUTRAL_PROMPT) for clip in named]


def _track(clip: TripletClip) -> HandTrack:
    assert clip.track is not None  # every simulated candidate has one
    return clip.track
