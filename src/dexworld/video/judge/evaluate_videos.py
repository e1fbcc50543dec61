"""Evaluation of video world models: every method on the same clips, against static copy, with intervals over clips.

Clips are the unit of independence: a figure of a clip is the mean over its seeded samples, a figure of a method the
mean over clips with a bootstrap interval, and methods are compared by their differences clip by clip. Like is compared
with like: a method whose every pixel went through the codec with static copy through the same codec, one that shows the
static video's own pixels with the static video itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from dexworld.evaluation.guard import Split, check_seeds
from dexworld.evaluation.intervals import bootstrap_mean
from dexworld.models.picture_metrics import masked_mean, psnr_of, squared_error_map, ssim_map
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.regions import RegionConfig, changed_pixels, interaction_region
from dexworld.video.judge.references import CODEC_TRUTH, STATIC_COPY, STATIC_COPY_CODEC, VideoMethod, reference_methods
from dexworld.video.judge.video_measures import Measures, Perceptual, preservation

NOTHING = "n/a (nothing to measure in any clip)"
HIGHER_IS_BETTER = ("psnr", "ssim", "xclip", "kept", "acted")
Progress = Callable[[str, int, int], None]  # method, clips done, clips in all


@dataclass(frozen=True)
class EvaluateConfig:
    """How videos are evaluated.

    samples: videos drawn for each clip by a method that samples. seed: of the samples and of the bootstrap. batch:
    videos made at once. compare_with: names of methods whose difference to every other is reported, besides static
    copy. decoded: names of methods whose every pixel is decoded; see `Evaluation.reference_of`. split: the range that
    the scene seeds of clips must be in; clips that no simulator made have none, and are not held to it.
    """

    samples: int = 3
    seed: int = 0
    batch: int = 8
    compare_with: tuple[str, ...] = ()
    decoded: tuple[str, ...] = ()
    split: Split = "evaluation"
    region: RegionConfig = field(default_factory=RegionConfig)

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch < 1:
            raise ValueError(f"evaluation needs at least one sample and a batch, not {self.samples} and {self.batch}")


@dataclass(frozen=True)
class Evaluation:
    """Figures of every method on every clip.

    values: method -> per clip, the mean over samples of every measure: a number, None where the clip has nothing to
    measure, or the reason as text why it isn't measured. samples: videos drawn per clip by each method. region_shares:
    share of each clip's pixels in the interaction region. simulated: clips with a scene seed, which the guard has
    checked.
    """

    config: EvaluateConfig
    clips: tuple[str, ...]
    samples: dict[str, int]
    values: dict[str, list[Measures]]
    region_shares: tuple[float, ...]
    references: tuple[str, ...]
    simulated: int = 0

    @property
    def measures(self) -> list[str]:
        """Names of everything that was asked for, in order."""
        return list(next(iter(self.values.values()))[0])

    def of(self, method: str, measure: str) -> list[float | str | None]:
        """One measure of one method, clip by clip."""
        return [values[measure] for values in self.values[method]]

    def summary(self, method: str) -> dict[str, Any]:
        """A method's means over clips: every measure with `_low`, `_high` (95 %, bootstrap) and `_n` clips."""
        figures: dict[str, Any] = {}
        for measure in self.measures:
            figures |= self._interval(measure, self.of(method, measure))
        return figures | {"n": len(self.clips), "k": self.samples[method]}

    def reference_of(self, method: str) -> str:
        """The static copy that a method is fairly held against. The one through the codec for the methods that
        `config.decoded` names and for the true video through the codec; the static video itself for all others, and
        where there is no codec."""
        decoded = method in (*self.config.decoded, CODEC_TRUTH)
        return STATIC_COPY_CODEC if decoded and STATIC_COPY_CODEC in self.values else STATIC_COPY

    def headline(self, method: str) -> list[tuple[str, str]]:
        """What the gain of `method` is read from: (method, static copy) through the codec, then as users see it."""
        names = [name for name in (f"{method}_codec", method) if name in self.values]
        return [(name, self.reference_of(name)) for name in names]

    def difference(self, method: str, reference: str) -> dict[str, Any]:
        """Mean over clips of a method's measures less those of `reference` on the same clip, as in `summary`."""
        figures: dict[str, Any] = {}
        for measure in self.measures:
            pairs = zip(self.of(method, measure), self.of(reference, measure), strict=True)
            figures |= self._interval(measure, [_difference(*pair) for pair in pairs])
        return figures

    def figures(self) -> dict[str, Any]:
        """Everything, ready for `write_results`. "methods"; "differences" (reference -> method); "like_for_like"
        (method -> the static copy to read its difference to); "clips"; counts."""
        return {
            "methods": {method: self.summary(method) for method in self.values},
            "differences": {
                reference: {method: self.difference(method, reference) for method in self.values if method != reference}
                for reference in self.references
            },
            "like_for_like": {
                method: self.reference_of(method)
                for method in self.values
                if method not in (STATIC_COPY, STATIC_COPY_CODEC)
            },
            "n": len(self.clips),
            "k": self.config.samples,
            "simulated": self.simulated,
            "seed": self.config.seed,
            "region_share": float(np.mean(self.region_shares)),
            "clips": {
                name: {"region_share": self.region_shares[index]}
                | {method: values[index] for method, values in self.values.items()}
                for index, name in enumerate(self.clips)
            },
        }

    def _interval(self, measure: str, values: list[float | str | None]) -> dict[str, Any]:
        numbers = [value for value in values if isinstance(value, int | float)]
        if not numbers:
            reason = next((value for value in values if isinstance(value, str)), NOTHING)
            return {measure: reason, f"{measure}_low": None, f"{measure}_high": None, f"{measure}_n": 0}
        found = bootstrap_mean(np.array(numbers, float), np.random.default_rng(self.config.seed))
        interval = {measure: found.value, f"{measure}_low": found.low, f"{measure}_high": found.high}
        return interval | {f"{measure}_n": len(numbers)}


def evaluate_methods(
    clips: Sequence[TripletClip],
    methods: Sequence[VideoMethod],
    config: EvaluateConfig = EvaluateConfig(),
    codec: Any | None = None,
    perceptual: Perceptual | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate methods on clips (a list, or an open triplet folder) beside the references.

    codec: the codec that the methods generate in; with it, static copy and the truth also stand in the table as that
    codec shows them. perceptual: by default, without any weights. progress: called after every batch of clips. Raises
    ValueError on no clips, methods of one name, or a video of another shape, and SeedError on clips that a method was
    trained on.
    """
    everything = [*reference_methods(codec), *methods]
    names = [method.name for method in everything]
    copies = (STATIC_COPY,) if codec is None else (STATIC_COPY_CODEC, STATIC_COPY)
    references = tuple(dict.fromkeys((*copies, *config.compare_with)))
    simulated = check_evaluation(clips, everything, references, config)
    perceptual = perceptual or Perceptual()
    values: dict[str, list[Measures]] = {name: [] for name in names}
    seen, shares = [], []
    for start in range(0, len(clips), config.batch):
        group = [clips[index] for index in range(start, min(start + config.batch, len(clips)))]
        truths = [Truth(clip, config.region) for clip in group]
        for method in everything:
            made = generated(method, group, config)
            values[method.name] += [
                mean_over_samples([truth.measure(video, perceptual) for video in videos])
                for truth, videos in zip(truths, made, strict=True)
            ]
            if progress is not None:
                progress(method.name, start + len(group), len(clips))
        seen += [clip.name for clip in group]
        shares += [float(truth.region.mean()) for truth in truths]
    samples = {method.name: samples_of(method, config) for method in everything}
    return Evaluation(config, tuple(seen), samples, values, tuple(shares), references, simulated)


class Truth:
    """A clip's true video with everything that doesn't depend on a prediction, computed once. region: (F, H, W) bool,
    the interaction region. changed: (F, H, W) bool, the pixels that really changed."""

    def __init__(self, clip: TripletClip, config: RegionConfig = RegionConfig()) -> None:
        self.clip, self.config = clip, config
        self.region = interaction_region(clip.interaction, clip.static, clip.hands, config)
        self.changed = changed_pixels(clip.interaction, clip.static, config)

    def measure(self, video: np.ndarray, perceptual: Perceptual) -> Measures:
        """Every measure of a prediction (F, H, W, 3) uint8 by its name."""
        truth, measures = self.clip.interaction, Measures()
        masks = {"": None, "_inside": self.region, "_outside": ~self.region}
        errors, similarity = squared_error_map(video, truth), ssim_map(video, truth)
        measures |= {f"psnr{suffix}": psnr_of(errors, mask) for suffix, mask in masks.items()}
        measures |= {f"ssim{suffix}": masked_mean(similarity, mask) for suffix, mask in masks.items()}
        measures |= perceptual(video, truth, self.region, self.clip.prompt)
        return measures | preservation(video, self.clip.static, self.region, self.changed, self.config)


def generated(method: VideoMethod, clips: Sequence[TripletClip], config: EvaluateConfig) -> list[list[np.ndarray]]:
    """Per clip, the samples of a method: checked videos (F, H, W, 3) uint8, drawn from `sample_seed`."""
    samples = samples_of(method, config)
    jobs = [(clip, sample_seed(config.seed, clip.name, number)) for clip in clips for number in range(samples)]
    videos: list[np.ndarray] = []
    for batch in (jobs[start : start + config.batch] for start in range(0, len(jobs), config.batch)):
        made = method.generate([clip for clip, _ in batch], [seed for _, seed in batch])
        if len(made) != len(batch):
            raise ValueError(f"{method.name}: {len(made)} videos for {len(batch)} clips")
        for (clip, _), video in zip(batch, made, strict=True):
            if video.shape != clip.interaction.shape or video.dtype != np.uint8:
                raise ValueError(
                    f"{method.name}: the video of {clip.name} is {video.shape} {video.dtype}, "
                    f"expected {clip.interaction.shape} uint8"
                )
        videos += made
    return [videos[start : start + samples] for start in range(0, len(videos), samples)]


def samples_of(method: VideoMethod, config: EvaluateConfig) -> int:
    """How many videos of a clip a method is asked for: one where its seed doesn't matter."""
    return 1 if getattr(method, "deterministic", False) else config.samples


def sample_seed(seed: int, clip: str, number: int) -> int:
    """The seed of a clip's sample: the same for every method, whatever other clips there are."""
    return int(np.random.SeedSequence([seed, number, crc32(clip.encode())]).generate_state(1)[0] >> 1)


def mean_over_samples(samples: list[Measures]) -> Measures:
    """Mean of every measure over the samples of one clip; None and reasons, which all samples share, stay."""
    first = samples[0]
    return {
        name: float(np.mean([sample[name] for sample in samples])) if isinstance(value, int | float) else value  # type: ignore[arg-type]
        for name, value in first.items()
    }


def check_evaluation(
    clips: Sequence[TripletClip], methods: Sequence[VideoMethod], references: tuple[str, ...], config: EvaluateConfig
) -> int:
    """Refuse, before anything is computed, what would fail or mislead later; see `evaluate_methods`. Returns how many
    clips have a scene seed."""
    if not len(clips):
        raise ValueError("there are no clips to evaluate on")
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"methods need names of their own; {', '.join(twice)} stands for more than one")
    unknown = [name for name in (*references, *config.decoded) if name not in names]
    if unknown:
        raise ValueError(f"compare_with or decoded names {', '.join(unknown)}, but the methods are {', '.join(names)}")
    known = getattr(clips, "seeds", None)  # an open folder knows them without decoding
    given = [clip.seed for clip in clips] if known is None else list(known.values())
    seeds = [seed for seed in given if seed is not None]
    check_scenes(seeds, methods, config.split)
    return len(seeds)


def check_scenes(seeds: Sequence[int], methods: Sequence[VideoMethod], split: Split = "evaluation") -> None:
    """Refuse scenes outside the range of `split`, and those that one of the methods was trained on (SeedError). A
    method without `provenance`, or with None, was not trained; one whose provenance doesn't name its training seeds is
    refused. No seeds, as of real clips, are no scenes, and nothing is checked."""
    provenances = [getattr(method, "provenance", None) for method in methods] if seeds else []
    for provenance in sorted(provenances, key=lambda each: each is None):  # trained ones say more when they refuse
        check_seeds(seeds, {"training_seeds": []} if provenance is None else provenance, split)


def lower_is_better(measure: str) -> bool:
    """Whether smaller values of a measure are better, as for distances."""
    return not measure.startswith(HIGHER_IS_BETTER)


def _difference(ours: float | str | None, theirs: float | str | None) -> float | str | None:
    for value in (ours, theirs):
        if isinstance(value, str):
            return value
    return None if ours is None or theirs is None else ours - theirs  # type: ignore[operator]
