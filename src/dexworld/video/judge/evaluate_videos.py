"""Evaluation of video world models: every method on the same clips, against static copy, with intervals over clips.

A clip's figure is the mean over its seeded samples, a method's figure the mean over clips, with a bootstrap interval.
Methods are compared by their differences clip by clip. A method whose every pixel is decoded is compared with static
copy through the same codec, one that shows the static video's own pixels with the static video itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from zlib import crc32

import numpy as np
import tyro

from dexworld.evaluation.guard import Split, check_seeds
from dexworld.evaluation.intervals import Interval, bootstrap_mean, named_values
from dexworld.evaluation.ledger import Ledger
from dexworld.models.picture_metrics import masked_mean, psnr_of, squared_error_map, ssim_map
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.regions import changed_pixels, interaction_region
from dexworld.video.judge.clip_features import REGIONS, clip_features, clips_frechet
from dexworld.video.judge.detail_measures import sharpness, spread
from dexworld.video.judge.references import CODEC_TRUTH, STATIC_COPY, STATIC_COPY_CODEC, VideoMethod, reference_methods
from dexworld.video.judge.video_measures import NOT_ASKED, Measures, Perceptual, preservation

NOTHING = "n/a (nothing to measure in any clip)"
FRECHET = "lite0_frechet"  # of all clips at once
TRUTH = "truth"  # among the features of methods
HIGHER_IS_BETTER = ("psnr", "ssim", "sharpness", "xclip", "kept", "acted")
NOT_AN_OPTION = (tyro.conf.Fixed, tyro.conf.Suppress)  # fields that the command line leaves at their default


@dataclass(frozen=True)
class EvaluateConfig:
    """How videos are evaluated."""

    samples: int = 3
    """Videos drawn for each clip by a method that samples."""
    seed: int = 0
    """First scene of simulated clips; also of the samples and the bootstrap."""
    split: Split = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning. Real clips have no seeds, and no split."""
    after_first: bool = False
    """Leave the first frame out of all figures. Always so where a model has seen it as its reference picture."""
    batch: Annotated[int, *NOT_AN_OPTION] = 8
    """Videos made at once."""
    compare_with: Annotated[tuple[str, ...], *NOT_AN_OPTION] = ()
    """Methods whose difference to every other is reported, besides static copy."""
    decoded: Annotated[tuple[str, ...], *NOT_AN_OPTION] = ()
    """Methods whose every pixel is decoded; see `Evaluation.reference_of`."""

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch < 1:
            raise ValueError(f"evaluation needs at least one sample and a batch, not {self.samples} and {self.batch}")


@dataclass(frozen=True)
class Evaluation:
    """Figures of every method on every clip.

    values: by method and clip, the mean over samples of every measure: a number, None where there is nothing to
    measure, or the reason as text why it isn't measured. region_shares: share of each clip's pixels in the interaction
    region. simulated: clips with a scene seed, which the guard has checked. features: `clip_features` of all clips by
    method, those of the true ones under `TRUTH`; empty without the network.
    """

    config: EvaluateConfig
    clips: tuple[str, ...]
    samples: dict[str, int]
    values: dict[str, list[Measures]]
    region_shares: tuple[float, ...]
    references: tuple[str, ...]
    simulated: int = 0
    features: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def measures(self) -> list[str]:
        """Names of every measure of a clip, in order."""
        return list(next(iter(self.values.values()))[0])

    def of(self, method: str, measure: str) -> list[float | str | None]:
        """One measure of one method, clip by clip."""
        return [values[measure] for values in self.values[method]]

    def summary(self, method: str) -> dict[str, Any]:
        """A method's means over clips: every measure with `_low`, `_high` (95 %, bootstrap) and `_n` clips."""
        figures: dict[str, Any] = {}
        for measure in self.measures:
            figures |= self._interval(measure, self.of(method, measure))
        return figures | self._frechet(method) | {"n": len(self.clips), "k": self.samples[method]}

    def reference_of(self, method: str) -> str:
        """The static copy that a method is compared with: the one through the codec where every pixel is decoded."""
        decoded = method in (*self.config.decoded, CODEC_TRUTH)
        return STATIC_COPY_CODEC if decoded and STATIC_COPY_CODEC in self.values else STATIC_COPY

    def headline(self, method: str) -> list[tuple[str, str]]:
        """What the gain of `method` is read from: (method, static copy) through the codec, then as users see it."""
        names = [name for name in (f"{method}_codec", method) if name in self.values]
        return [(name, self.reference_of(name)) for name in names]

    def difference(self, method: str, reference: str) -> dict[str, Any]:
        """A method's measures less those of `reference` on the same clips, as in `summary`."""
        figures: dict[str, Any] = {}
        for measure in self.measures:
            pairs = zip(self.of(method, measure), self.of(reference, measure), strict=True)
            figures |= self._interval(measure, [_difference(*pair) for pair in pairs])
        return figures | self._frechet(method, reference)

    def figures(self) -> dict[str, Any]:
        """Everything, ready for `write_results`; "like_for_like" names the static copy to compare a method with."""
        names, copies = list(self.values), (STATIC_COPY, STATIC_COPY_CODEC)
        return {
            "methods": {name: self.summary(name) for name in names},
            "differences": {
                reference: {name: self.difference(name, reference) for name in names if name != reference}
                for reference in self.references
            },
            "like_for_like": {name: self.reference_of(name) for name in names if name not in copies},
            "n": len(self.clips),
            "k": self.config.samples,
            "simulated": self.simulated,
            "seed": self.config.seed,
            "after_first": self.config.after_first,
            "region_share": float(np.mean(self.region_shares)),
            "clips": {
                clip: {"region_share": self.region_shares[index]} | {name: self.values[name][index] for name in names}
                for index, clip in enumerate(self.clips)
            },
        }

    def _interval(self, measure: str, values: list[float | str | None]) -> dict[str, Any]:
        numbers = [value for value in values if isinstance(value, int | float)]
        if not numbers:
            return _named(measure, next((value for value in values if isinstance(value, str)), NOTHING), 0)
        found = bootstrap_mean(np.array(numbers, float), np.random.default_rng(self.config.seed))
        return _named(measure, found, len(numbers))

    def _frechet(self, *methods: str) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for index, region in enumerate(REGIONS):
            given = [self.features[name][:, :, index] for name in (TRUTH, *methods)] if self.features else []
            found = clips_frechet(*given) if given else NOT_ASKED
            clips = int((~np.isnan(given[0]).any(axis=(1, 2))).sum()) if given else 0
            figures |= _named(f"{FRECHET}{region}", found, clips)
        return figures


def evaluate_methods(
    clips: Sequence[TripletClip],
    methods: Sequence[VideoMethod],
    config: EvaluateConfig = EvaluateConfig(),
    codec: Any | None = None,
    perceptual: Perceptual | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    ledger: Ledger | None = None,
) -> Evaluation:
    """Evaluate methods on clips (a list, or an open triplet folder) beside the references.

    codec: of the methods; with it, static copy and the truth also stand in the table as that codec shows them.
    perceptual: by default, without any weights. ledger: keeps each clip's measures; clips in it are not evaluated
    again. progress: called with a method's name, clips done and clips in all.
    Raises ValueError on no clips, methods of one name, or a video of another shape, and SeedError on clips that a
    method was trained on.
    """
    everything = [*reference_methods(codec), *methods]
    copies = (STATIC_COPY,) if codec is None else (STATIC_COPY_CODEC, STATIC_COPY)
    references = tuple(dict.fromkeys((*copies, *config.compare_with)))
    simulated = check_evaluation(clips, everything, references, config)
    perceptual = perceptual or Perceptual()
    names = list(getattr(clips, "names", None) or [clip.name for clip in clips])
    rows: dict[str, dict[str, Any]] = {}
    for start in range(0, len(names), config.batch):  # always the same batches, so that figures are the same
        stop = min(start + config.batch, len(names))
        if ledger is None or any(name not in ledger for name in names[start:stop]):
            group = [clips[index] for index in range(start, stop)]
            truths = [Truth(clip, config.after_first) for clip in group]
            rows |= {each.clip.name: each.row(perceptual) for each in truths}
            for method in everything:
                for truth, videos in zip(truths, generated(method, group, config), strict=True):
                    row = rows[truth.clip.name]
                    measures = mean_over_samples([truth.measure(each, perceptual) for each in videos])
                    row["values"][method.name] = measures | truth.spread(videos)
                    row["features"][method.name] = [truth.features(each, perceptual) for each in videos]
                if progress is not None:
                    progress(method.name, stop, len(names))
        if ledger is not None:
            for name in names[start:stop]:
                if name not in ledger:
                    ledger.add(name, rows[name])
                rows[name] = ledger[name]
    values = {method.name: [rows[name]["values"][method.name] for name in names] for method in everything}
    shares = tuple(rows[name]["region_share"] for name in names)
    samples = {method.name: samples_of(method, config) for method in everything}
    features: dict[str, np.ndarray] = {}
    if perceptual.lite0 is not None:
        found = [rows[name]["features"] for name in names]
        features = {method: np.array([each[method] for each in found], dtype=float) for method in found[0]}
    return Evaluation(config, tuple(names), samples, values, shares, references, simulated, features)


class Truth:
    """A clip's true video, its interaction region and the pixels that really changed, both (F, H, W) bool.

    after_first: the first frame isn't measured.
    """

    def __init__(self, clip: TripletClip, after_first: bool = False) -> None:
        self.clip, self.frames = clip, slice(int(after_first), None)
        self.region = interaction_region(clip.interaction, clip.static, clip.hands)
        self.changed = changed_pixels(clip.interaction, clip.static)

    def row(self, perceptual: Perceptual) -> dict[str, Any]:
        """What is known of a clip before any method: JSON values."""
        features = {TRUTH: [self.features(self.clip.interaction, perceptual)]}
        return {"region_share": float(self.region.mean()), "values": {}, "features": features}

    def features(self, video: np.ndarray, perceptual: Perceptual) -> list[list[float | None]] | None:
        """`clip_features` of a video, None for NaN; None without the network."""
        if perceptual.lite0 is None:
            return None
        numbers = clip_features(perceptual.lite0, video[self.frames], self.region[self.frames])
        return [[None if np.isnan(number) else number for number in row] for row in numbers.tolist()]

    def measure(self, video: np.ndarray, perceptual: Perceptual) -> Measures:
        """Every measure of a prediction (F, H, W, 3) uint8 by its name."""
        measures = Measures()
        parts = video, self.clip.interaction, self.clip.static, self.region, self.changed
        video, truth, static, region, changed = (each[self.frames] for each in parts)
        masks = {"": None, "_inside": region, "_outside": ~region}
        errors, similarity = squared_error_map(video, truth), ssim_map(video, truth)
        measures |= {f"psnr{suffix}": psnr_of(errors, mask) for suffix, mask in masks.items()}
        measures |= {f"ssim{suffix}": masked_mean(similarity, mask) for suffix, mask in masks.items()}
        measures["sharpness_inside"] = sharpness(video, truth, region)
        measures |= perceptual(video, truth, region, self.clip.prompt)
        return measures | preservation(video, static, region, changed)

    def spread(self, videos: Sequence[np.ndarray]) -> Measures:
        """How far several samples of the clip are apart; None for one."""
        region, videos = self.region[self.frames], [video[self.frames] for video in videos]
        return {"spread_inside": spread(videos, region), "spread_outside": spread(videos, ~region)}


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
                found = f"{video.shape} {video.dtype}, expected {clip.interaction.shape} uint8"
                raise ValueError(f"{method.name}: the video of {clip.name} is {found}")
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
    """Refuse what `evaluate_methods` can't evaluate, before anything is computed; how many clips have a scene seed."""
    if not len(clips):
        raise ValueError("there are no clips to evaluate on")
    check_names([method.name for method in methods], references, config)
    known = getattr(clips, "seeds", None)  # an open folder knows them without decoding
    given = [clip.seed for clip in clips] if known is None else list(known.values())
    seeds = [seed for seed in given if seed is not None]
    check_scenes(seeds, methods, config.split)
    return len(seeds)


def check_names(names: Sequence[str], references: Sequence[str], config: EvaluateConfig) -> None:
    """Raise ValueError for methods of one name, and for names in `config` that no method has."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"methods need names of their own; {', '.join(twice)} stands for more than one")
    unknown = [name for name in (*references, *config.decoded) if name not in names]
    if unknown:
        raise ValueError(f"compare_with or decoded names {', '.join(unknown)}, but the methods are {', '.join(names)}")


def check_scenes(seeds: Sequence[int], methods: Sequence[VideoMethod], split: Split = "evaluation") -> None:
    """Refuse scenes outside the range of `split`, and those that one of the methods was trained on (SeedError).

    A method without `provenance`, or with None, was not trained. One that doesn't name its training seeds is refused.
    """
    provenances = [getattr(method, "provenance", None) for method in methods] if seeds else []
    for provenance in sorted(provenances, key=lambda each: each is None):  # trained ones say more when they refuse
        check_seeds(seeds, {"training_seeds": []} if provenance is None else provenance, split)


def lower_is_better(measure: str) -> bool:
    """Whether smaller values of a measure are better, as for distances."""
    return not measure.startswith(HIGHER_IS_BETTER)


def _named(measure: str, found: Interval | str, clips: int) -> dict[str, Any]:
    """A figure of so many clips as `results.json` has it, or the reason why there is none."""
    if isinstance(found, str):
        return {measure: found, f"{measure}_low": None, f"{measure}_high": None, f"{measure}_n": 0}
    return named_values(measure, found) | {f"{measure}_n": clips}


def _difference(ours: float | str | None, theirs: float | str | None) -> float | str | None:
    for value in (ours, theirs):
        if isinstance(value, str):
            return value
    return None if ours is None or theirs is None else ours - theirs  # type: ignore[operator]
