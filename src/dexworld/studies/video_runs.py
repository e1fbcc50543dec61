"""Video models as a kind of variant: trained as by `dexworld video train`, measured as by `dexworld video evaluate`.

A variant without a budget trains nothing: it shows something else of the model that it starts from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from dexworld.evaluation.guard import Split
from dexworld.evaluation.ledger import Ledger
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.studies.study import UNTRAINED, Plan, Table, Variant
from dexworld.studies.study_runs import Study
from dexworld.studies.world_model_runs import what_it_took
from dexworld.training.estimate import PlanConfig, gpu_hours
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.triplets import open_triplets
from dexworld.video.judge.evaluate_videos import EvaluateConfig, evaluate_methods
from dexworld.video.judge.references import CODEC_TRUTH, STATIC_COPY, STATIC_COPY_CODEC, Reference, VideoMethod
from dexworld.video.model.clip_latents import check_clips, tensors_digest
from dexworld.video.model.dwm import DWM, load_video_model
from dexworld.video.model.generate import GenerateConfig, Generator, SDEdit
from dexworld.video.model.train_video import VideoRunConfig, preset_config, train_video
from dexworld.video.model.video_config import Condition
from dexworld.video.model.video_cost import estimate
from dexworld.video.model.video_task import VideoTrainConfig

CODEC_CLIPS = 1000  # that a codec is fitted on: all of a miniature's, so its codec doesn't depend on the seed


def decoded(model: DWM) -> VideoMethod:
    """The model's videos, every pixel decoded: `dwm_codec` of `video evaluate`."""
    return Generator(model, GenerateConfig(unchanged="codec"))


def still(model: DWM) -> VideoMethod:
    """The static video through the model's codec."""
    return Reference(STATIC_COPY_CODEC, "static", model.codec)


def truth(model: DWM) -> VideoMethod:
    """The true video through the model's codec: the ceiling of what its latents can show."""
    return Reference(CODEC_TRUTH, "interaction", model.codec)


@dataclass(frozen=True)
class EditedBySDEdit:
    """The static video, noised to `strength` and denoised by the model."""

    strength: float

    def __call__(self, model: DWM) -> VideoMethod:
        """The method."""
        return SDEdit(model, self.strength)


@dataclass(frozen=True)
class VideoModels:
    """Video models with a condition; `shows` makes of a model what is measured.

    lora_rank: as in `VideoRunConfig`.
    """

    condition: Condition = "mesh"
    shows: Callable[[DWM], VideoMethod] = decoded
    lora_rank: int = 0

    def shared(self, study: Study, variant: Variant) -> None:
        """Nothing: what variants share is the variant that they start from."""
        return None

    def share(self, study: Study, variant: Variant) -> None:
        """Nothing."""

    def train(self, study: Study, variant: Variant, seed: int) -> dict[str, Any]:
        """Train from new weights, or from another variant's model; nothing without a budget."""
        if not variant.budget:
            return dict(UNTRAINED)
        config = self._config(study.table, variant, seed)
        initial = str(study.folder(variant.initial, seed) / "model") if variant.initial else None
        place: dict[str, Any] = {"data": study.data(*variant.data), "output": study.folder(variant.name, seed)}
        config = replace(config, **place, initial=initial, device=study.device)
        return what_it_took(partial(train_video, config), DWM.from_pretrained, config.training)

    def measure(self, study: Study, variant: Variant, seed: int) -> Sums:
        """Of every held-out clip."""
        trained = variant.name if variant.budget else str(variant.initial)
        model = load_video_model(str(study.folder(trained, seed) / "model"), study.device)
        method, sums = self.shows(model), Sums()
        for measure in study.table.measures:
            sums |= measure(model, method, study.held_out, study.folder(variant.name, seed), study.split)
        return sums

    def plan(self, table: Table, variant: Variant, machines: PlanConfig) -> Plan:
        """Of its steps; nothing for a variant without a budget."""
        if not variant.budget:
            return Plan(0, 0, 0, 0.0)
        config = self._config(table, variant, 0)
        cost, training = estimate(preset_config(config), config), config.training
        hours = gpu_hours(cost.step_flops, machines, training.steps)
        return Plan(training.steps, training.batch_size, cost.trained, hours)

    def _config(self, table: Table, variant: Variant, seed: int) -> VideoRunConfig:
        """A run from new weights and without data."""
        training = table.training_of(variant, seed, VideoTrainConfig)
        own: dict[str, Any] = {"preset": table.sizes.preset, "condition": self.condition, "lora_rank": self.lora_rank}
        return VideoRunConfig(codec_clips=CODEC_CLIPS, training=training, **own)


@dataclass(frozen=True)
class ClipMeasure:
    """Figures of videos of held-out clips (docs/video_data.md), and of the static video without any codec.

    Of clips `moving` come `moving/psnr_inside` and `moving/psnr_inside/clips`, 1 where a clip has that figure and else
    0; `moving/static_copy/psnr_inside` of the static video.
    """

    held_out: str
    samples: int = 3  # as in the paper

    def __call__(
        self, model: DWM, method: VideoMethod, held_out: Mapping[str, Path], folder: Path, split: Split
    ) -> Sums:
        """Sums (E, 1). held_out: triplet folders by name. folder: keeps what is known of each clip.

        Raises SeedError for scenes that the model was trained on, ValueError for clips of another shape.
        """
        triplets, config = open_triplets(held_out[self.held_out]), EvaluateConfig(self.samples, split=split)
        check_clips(triplets, model.config)
        about = {"clips": triplets.fingerprint, "method": method.name, "model": tensors_digest(model.state_dict())}
        ledger = Ledger(folder / f"{self.held_out}.jsonl", asdict(config) | about)
        decoded_one_by_one = cast(Sequence[TripletClip], triplets)
        result, sums = evaluate_methods(decoded_one_by_one, [method], config, ledger=ledger), Sums()
        for name, before in {method.name: self.held_out, STATIC_COPY: f"{self.held_out}/{STATIC_COPY}"}.items():
            for measure in result.measures:
                values = [value if isinstance(value, int | float) else None for value in result.of(name, measure)]
                sums[f"{before}/{measure}"] = np.array([[value or 0.0] for value in values])
                sums[f"{before}/{measure}/clips"] = np.array([[float(value is not None)] for value in values])
        return sums
