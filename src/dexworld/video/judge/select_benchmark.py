"""Action selection with a known right answer: which of N hand motions leads to the goal picture?

In each held-out scene the simulator plays N hand motions. One outcome, without hands, is the goal. Every method sees
the untouched scene, the candidates' hands and the goal picture, never an outcome, and names the candidate that it
believes leads there. Beside the video world model:

`no_hand`       the video model that sees no hands;
`dexwm`         the latent world model, on the same candidates (`dexwm_evaluator`);
`composite`     the hand videos pasted on the static video: no change of any object, so it should be at chance;
`composite_codec`  the same as the video model's codec shows it: whether the blur of a hand gives the answer away;
`hand_over_change`  no world model at all: the candidate whose hand was where the goal differs from the scene;
`oracle`        the true simulated videos under the same score: the most that any video model could reach.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F

from dexworld.data.parallel import available_cores, parallel_map
from dexworld.evaluation.guard import Split, check_seeds
from dexworld.evaluation.ledger import Ledger
from dexworld.models.world_model import load_world_model
from dexworld.sim.hands.hand_candidates import QUIET_SHARE, CandidateSet, record_candidates
from dexworld.sim.hands.hand_clips import HandClipConfig
from dexworld.sim.render import Backend, choose_backend
from dexworld.training.distributed import local_device
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.hand_video import HAND_NOISE_LEVEL
from dexworld.video.clips.synthetic_clips import triplet_of
from dexworld.video.judge.dexwm_evaluator import DexWMEvaluator
from dexworld.video.judge.evaluate_videos import NOT_AN_OPTION
from dexworld.video.judge.goal_image import GoalView
from dexworld.video.judge.references import VideoMethod, through_codec
from dexworld.video.judge.select_actions import NEUTRAL_PROMPT, image_score_name, imagined_clips, scene_view
from dexworld.video.judge.select_figures import DEXWM, MAIN, Judged, ShownScene, figures
from dexworld.video.judge.video_measures import TextScorer, given_lpips
from dexworld.video.model.clip_latents import tensors_digest
from dexworld.video.model.dwm import load_video_model
from dexworld.video.model.generate import GenerateConfig, Generator, shown, with_texts

COMPOSITE, COMPOSITE_CODEC = "composite", "composite_codec"
HAND_OVER_CHANGE, ORACLE = "hand_over_change", "oracle"
BLUR_PX = 9  # of `hand_over_change`
FREE = ("episodes", "shown", "workers", "device")  # settings that change no scene
MethodFactory = Callable[[], VideoMethod]


@dataclass(frozen=True)
class SelectConfig:
    """A benchmark run. Raises ValueError naming the field that makes no sense."""

    episodes: int = 100
    """Scenes of the benchmark."""
    seed: int = 1_000_000
    """First scene of the benchmark; also of the samples."""
    candidates: Annotated[int, *NOT_AN_OPTION] = 8
    """Hand motions in a scene."""
    rivals: bool = False
    """All motions of a scene are about one object: where a hand passes no longer gives the answer away."""
    lpips_vgg: Path | None = None
    """LPIPS weights: VGG16; without weights a distance takes its place that needs none."""
    lpips_heads: Path | None = None
    """LPIPS weights: linear heads."""
    xclip: str | None = None
    """X-CLIP folder or hub id, for goals in words."""
    dexwm: str | None = None
    """DexWM that judges the same candidates; None leaves it out."""
    shown: int = 6
    """Scenes on the page."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    split: Split = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning."""
    device: Annotated[str, *NOT_AN_OPTION] = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""
    clip: Annotated[HandClipConfig | None, *NOT_AN_OPTION] = None
    """Size, length and contents of the clips; those of the video model's when not given."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.candidates < 2 or self.workers < 0 or self.shown < 0:
            raise ValueError("episodes must be >= 1, candidates >= 2, workers and shown >= 0")
        if (self.lpips_vgg is None) != (self.lpips_heads is None):
            raise ValueError("LPIPS needs both lpips_vgg and lpips_heads")


def select_benchmark(
    config: SelectConfig,
    methods: Mapping[str, MethodFactory],
    progress: Callable[[int, int], None] | None = None,
    file: Path | None = None,
) -> tuple[dict[str, Any], list[Judged]]:
    """Play the benchmark: the figures as `results.json` holds them, and the scenes to show, in seed order.

    methods: picklable factories (`trained_method` makes them), called in every process; `dwm` is the main one,
    `no_hand` sees no hands, others are measured beside them. progress: called with (scenes done, scenes). file: ledger
    of the scenes; those in it are judged again only to be shown. Raises SeedError for seeds that must not be evaluated
    on, ValueError for a method that takes a control's name, and for a ledger of other settings.
    """
    reserved = sorted({DEXWM, COMPOSITE, COMPOSITE_CODEC, HAND_OVER_CHANGE, ORACLE} & set(methods))
    if reserved:
        raise ValueError(f"methods may not be called {', '.join(reserved)}: those are the benchmark's own")
    seeds = list(range(config.seed, config.seed + config.episodes))
    judge = Judge(config, methods)
    for provenance in [{"training_seeds": []}, *judge.provenances]:
        check_seeds(seeds, provenance, config.split)
    ledger = None if file is None else Ledger(file, judge.settings)
    known = {seed for seed in seeds if ledger is not None and str(seed) in ledger}
    missing = [seed for seed in seeds if seed not in known or seed < config.seed + config.shown]
    shown_scenes: dict[int, ShownScene | None] = {}
    rows: dict[int, dict[str, Any]] = {}
    for part in _parts(judge, dict(methods), missing):
        for each in part:
            shown_scenes[each.seed], rows[each.seed] = each.shown, each.row()
            if ledger is not None and each.seed not in known:
                ledger.add(str(each.seed), rows[each.seed])
        if progress is not None:
            progress(len(seeds) - len(missing) + len(rows), len(seeds))
    if ledger is not None:
        rows = {seed: ledger[str(seed)] for seed in seeds}
    judged = [Judged.of(seed, rows[seed], shown_scenes.get(seed)) for seed in seeds]
    found = figures(judged, 1.0 / config.candidates)
    found["chance_acting"] = 1.0 / (config.candidates - config.candidates // QUIET_SHARE)
    found["rivals"] = config.rivals
    found["score"] = image_score_name(config.lpips_vgg)
    found["dexwm_score"] = "direction (own)" if config.dexwm else None
    return found, [each for each in judged if each.shown is not None]


def _parts(judge: "Judge", methods: dict[str, MethodFactory], seeds: list[int]):
    """The judged scenes, some at a time, in any order. A GPU is used by one process."""
    config = judge.config
    workers = max(min(config.workers or available_cores(), len(seeds)), 1)
    if workers == 1 or local_device(config.device).type != "cpu":
        return ([judge(seed)] for seed in seeds)
    size = max(1, min(8, len(seeds) // (2 * workers)))  # models are loaded once for so many scenes
    starts = range(0, len(seeds), size)
    backend: Any = choose_backend(config.backend)  # once, not in every process
    job = partial(_judge_part, config=replace(config, backend=backend), methods=methods, seeds=seeds, size=size)
    return parallel_map(job, starts, workers, ordered=False)


def _judge_part(
    start: int, config: SelectConfig, methods: dict[str, MethodFactory], seeds: list[int], size: int
) -> list[Judged]:
    judge = Judge(config, methods)
    return [judge(seed) for seed in seeds[start : start + size]]


def trained_method(
    model: str | Path, config: GenerateConfig = GenerateConfig(), device: str = "auto", text_encoder: str | None = None
) -> Generator:
    """A trained video model, from its folder or hub id, as a method that is shown the neutral prompt."""
    return with_texts(Generator(load_video_model(model, device), config), [NEUTRAL_PROMPT], text_encoder)


def clips_of(config: SelectConfig, methods: Mapping[str, VideoMethod]) -> HandClipConfig:
    """The clips of a benchmark: as configured, or of the shape that the main model works on."""
    main = methods.get(MAIN)
    if config.clip is not None or not isinstance(main, Generator):
        return config.clip or HandClipConfig()
    shape = main.model.config.clip
    return HandClipConfig(frames=shape.frames, height=shape.height, width=shape.width, fps=shape.fps)


class Judge:
    """Every method of a benchmark, ready to judge scenes."""

    def __init__(self, config: SelectConfig, methods: Mapping[str, MethodFactory]) -> None:
        self.config = config
        self.methods = {name: factory() for name, factory in methods.items()}
        self.clip = clips_of(config, self.methods)
        self.evaluator = None
        if config.dexwm is not None:
            self.evaluator = DexWMEvaluator(load_world_model(config.dexwm).eval())
        self.lpips = given_lpips(config.lpips_vgg, config.lpips_heads)
        self.text = TextScorer(config.xclip) if config.xclip is not None else None

    @property
    def provenances(self) -> list[Mapping[str, Any]]:
        """Of every checkpoint that judges: a method without `provenance` was not trained."""
        judges = (*self.methods.values(), self.evaluator and self.evaluator.model)
        found = [getattr(judge, "provenance", None) for judge in judges]
        return [each for each in found if each is not None]

    @property
    def settings(self) -> dict[str, Any]:
        """What the judgement of a scene depends on, as JSON values."""
        options = {name: value for name, value in asdict(self.config).items() if name not in FREE}
        judges = self.methods | ({} if self.evaluator is None else {DEXWM + " (latent)": self.evaluator})
        models = {name: getattr(each, "model", None) for name, each in judges.items()}
        weights = {name: tensors_digest(each.state_dict()) for name, each in models.items() if each is not None}
        generation = {name: asdict(each.config) for name, each in self.methods.items() if isinstance(each, Generator)}
        return options | {"weights": weights, "generation": generation, "methods": sorted(self.methods)}

    def __call__(self, seed: int) -> Judged:
        """Record the candidates of a scene and let every method judge them; the first scenes keep their videos."""
        config = self.config
        candidates = record_candidates(seed, config.candidates, self.clip, config.backend, config.rivals)
        return self.judge(candidates, show=seed < config.seed + config.shown)

    def judge(self, candidates: CandidateSet, show: bool = False) -> Judged:
        """The scores of every method for the candidates of one scene."""
        seed, evaluator = candidates.seed, self.evaluator
        clips = candidate_clips(candidates)
        known = imagined_clips(clips)
        view = scene_view(candidates.goal_image, clips)
        videos = {name: method.generate(known, [seed] * len(known)) for name, method in self.methods.items()}
        videos[COMPOSITE] = [composite(clip) for clip in known]
        main = self.methods.get(MAIN)
        if isinstance(main, Generator):
            pasted = zip(videos[COMPOSITE], known, strict=True)
            videos[COMPOSITE_CODEC] = [as_shown_by(main, video, clip.static) for video, clip in pasted]
        videos[ORACLE] = [clip.interaction for clip in clips]
        scores = {name: view.scores(each, self.lpips) for name, each in videos.items()}
        if evaluator is not None:
            tracks = [clip.track for clip in known if clip.track is not None]  # every simulated candidate has one
            scores[DEXWM] = evaluator.scores(*evaluator.imagine(known[0].static[0], tracks), view)
        scores[HAND_OVER_CHANGE] = hand_over_change(known, view)
        text = {name: self.text(each, candidates.goal_text) for name, each in videos.items()} if self.text else {}
        kept = {name: tuple(each) for name, each in videos.items()}
        return Judged(
            seed,
            candidates.goal_index,
            np.asarray(candidates.final_distances, dtype=float),
            scores,
            text_scores=text,
            shown=ShownScene(tuple(clips), candidates.goal_image, kept) if show else None,
        )


def candidate_clips(candidates: CandidateSet) -> list[TripletClip]:
    """The candidates as clips `<seed>/<index>`, all with one neutral prompt: a candidate is its hands, no caption."""
    named = (triplet_of(clip, f"{candidates.seed:08d}/{index}") for index, clip in enumerate(candidates.clips))
    return [replace(clip, prompt=NEUTRAL_PROMPT) for clip in named]


def composite(clip: TripletClip) -> np.ndarray:
    """The hand video pasted on the static video, (F, H, W, 3) uint8: hands, and no change of any object."""
    return np.where((clip.hands.max(axis=-1) > HAND_NOISE_LEVEL)[..., None], clip.hands, clip.static)


@torch.no_grad()
def as_shown_by(method: Generator, video: np.ndarray, static: np.ndarray) -> np.ndarray:
    """A video (F, H, W, 3) uint8 of the scene `static` as a trained method would show it, had it generated this."""
    made, untouched = (torch.from_numpy(through_codec(method.model.codec, each))[None] for each in (video, static))
    return shown(made, untouched, torch.from_numpy(static.copy())[None], method.config)[0].numpy()


def hand_over_change(clips: list[TripletClip], view: GoalView) -> np.ndarray:
    """Scores (N,): the cosine of where each hand passed and where the goal differs from the scene, blurred."""
    change = np.abs(view.goal.astype(np.float32) - view.static).sum(axis=-1)
    swept = np.stack([(clip.hands.max(axis=-1) > HAND_NOISE_LEVEL).any(axis=0) for clip in clips])
    maps = torch.from_numpy(np.concatenate([swept.astype(np.float32), change[None]]))[:, None]
    smooth = F.avg_pool2d(maps, BLUR_PX, stride=1, padding=BLUR_PX // 2).flatten(1)
    return F.cosine_similarity(smooth[:-1], smooth[-1:], dim=1, eps=1e-6).double().numpy()
