"""The plan `dexwm-small`: a larger reference of 30 M parameters on finer tokens, on scenes that are made there.

Exploration teaches the predictor; pushes, half of them grasps, and static pairs teach the point head (docs/objects.md).
"""

import time
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

from dexworld.data.datasets import open_dataset
from dexworld.models.config import DexWMConfig, EncoderConfig, PointsConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import preset
from dexworld.sim.collect_scenes import SceneRange, collect, collect_objects
from dexworld.sim.kitchen.explore import ExploreConfig
from dexworld.sim.kitchen.object_scenes import PairConfig, PushConfig
from dexworld.training.latents import LatentsConfig, cache_latents
from dexworld.training.run_data import fit_encoder
from dexworld.training.train_config import TrainConfig
from dexworld.training.train_points import PointsRunConfig, PointsTrainConfig, train_points
from dexworld.training.train_world_model import RunConfig, train
from jobs import Figures, Job, Slice
from packed_weights import pack
from stages import SCENES, by_all_cores, initial_of, run_in_time, schedule, stage_folder, stage_number

KINDS = ("allegro", "pushes", "pairs")
SWEEPS = (0.25, 0.25, 0.42, 0.08)  # of exploration, as the shipped reference's second half had them
FRAMES_FITTED = 3000


def jobs(options: Namespace) -> list[Job]:
    """Scenes, latents, predictor, points; each slice is a stage."""
    return [
        Job("scenes", 1, 120, partial(scenes, options.seed, options.validation_seed), again=True),
        Job("latents", 1, 45, latents, ("scenes",), again=True),
        Job("train", 10, 150, train_model, ("latents",), again=True),
        Job("points", 6, 90, train_head, ("train",), again=True),
    ]


def model_config(now: Slice) -> DexWMConfig:
    """The preset `tiny` on tokens of 14 pixels instead of 28, and wider."""
    small = preset("tiny")
    config = small.with_encoder(EncoderConfig(dim=now.size(96, 16), downsample=now.size(1, 4)))
    width = {"dim": now.size(384, 32), "depth": now.size(8, 1), "heads": now.size(6, 2)}
    head = {"dim": now.size(192, 32), "depth": now.size(4, 1)}
    predictor, keypoints = replace(config.predictor, **width), replace(config.keypoint_head, **head)
    return replace(config, predictor=predictor, keypoint_head=keypoints)


def scenes(seed: int, validation_seed: int, now: Slice) -> Figures:
    """Record exploration, pushes and pairs until the time is over, after a few validation scenes of the first two."""
    number = stage_number(now)
    folder, workers = stage_folder(now, number), now.size(0, 1)
    recorders = {
        "allegro": partial(collect, explore=ExploreConfig(frames=now.size(40, 12), weights=SWEEPS)),
        "pushes": partial(collect_objects, recording=PushConfig(frames=now.size(16, 5), grasps=0.5)),
        "pairs": partial(collect_objects, recording=PairConfig(frames=now.size(8, 4))),
    }
    begin, figures = time.time(), dict[str, float]()
    for place, kind in enumerate(("allegro", "pushes")):
        held_out = SceneRange(folder / f"validation-{kind}", now.size(32, 1), validation_seed + 100 * place, workers)
        recorders[kind](held_out)
    for place, (kind, share) in enumerate(zip(KINDS, (0.5, 0.7, 0.9), strict=True)):  # of the time that is left
        if (folder / f"{kind}.done").exists():  # by a slice before: its training goes on
            continue
        first = seed + (3 * number + place) * SCENES
        episodes = SceneRange(folder / kind, now.size(4000, 2), first, workers)
        recorders[kind](episodes, progress=now.until(share))
        (folder / f"{kind}.done").touch()
    for kind in KINDS:
        dataset = open_dataset(folder / kind)
        figures |= {f"{kind}_episodes": len(dataset), f"{kind}_frames": sum(dataset.lengths)}
    return {"stage": number, **figures, "frames_per_second": sum_frames(figures) / (time.time() - begin)}


def sum_frames(figures: dict[str, float]) -> float:
    """Of all kinds of data."""
    return sum(value for name, value in figures.items() if name.endswith("_frames"))


def latents(now: Slice) -> Figures:
    """Fit the encoder, or keep that of the stage before, and encode all frames with all cores."""
    number = stage_number(now)
    folder, initial = stage_folder(now, number), initial_of(now, number)
    begin = time.time()
    if initial is None:
        model, initial = DexWM(model_config(now)), folder / "start"
        fit_encoder(model.encoder, [open_dataset(folder / "allegro")], FRAMES_FITTED, number, now.machine.device)
        model.save_pretrained(initial)
    data = tuple(folder / kind for kind in (*KINDS, "validation-allegro", "validation-pushes"))
    config = LatentsConfig(data, checkpoint=str(initial), device="cpu")
    by_all_cores(now, partial(encode_share, config))
    frames = sum(sum(open_dataset(each).lengths) for each in data)
    return {"frames": frames, "frames_per_second": frames / (time.time() - begin)}


def encode_share(config: LatentsConfig, number: int) -> None:
    """This process's share of the latents."""
    cache_latents(config, lambda dataset, done, total: None)


def train_model(now: Slice) -> Figures:
    """Train the predictor and the keypoint head, and pack the model."""
    number = stage_number(now)
    folder, initial, batch = stage_folder(now, number), initial_of(now, number), now.size(64, 2)

    def run(output: Path, steps: int, seconds: float | None) -> Path:
        training = TrainConfig(
            **schedule(now, steps, seconds),
            batch_size=batch,
            learning_rate=6e-4 if initial is None else 3e-4,
            teacher_forced=0.5 if initial is None else 0.0,
            ema=0.995,
            keypoint_frames=4,
            true_keypoints=0.1,
            moving_object_weight=2.0,
            bfloat16=True,
            validation_windows=now.size(128, 2),
            validation_rollouts=now.size(((1, 5), (5, 3)), ((1, 2),)),
            seed=number,
        )
        config = RunConfig(
            data=(folder / "allegro",),
            validation_data=(folder / "validation-allegro",),
            output=output,
            encoder_frames=FRAMES_FITTED,
            initial=None if initial is None else str(initial),
            device=str(now.machine.device),
            training=training,
        )
        return train(config, None if initial else model_config(now))

    model, figures = run_in_time(now, folder / "train", run, batch)
    sizes = DexWM.from_pretrained(model).parameter_counts()
    weights = pack(model, now.output, now.work)
    return {"stage": number, "parameters_m": sizes["total"] / 1e6, **figures, **weights}


def train_head(now: Slice) -> Figures:
    """Teach the trained model points, and pack it again."""
    number = stage_number(now)
    folder, found, followed = stage_folder(now, number), now.size(16, 2), now.size(192, 2)

    def run(output: Path, steps: int, seconds: float | None) -> Path:
        training = PointsTrainConfig(
            **schedule(now, steps, seconds),
            batch_size=found,
            follow_batch=followed,
            learning_rate=1.5e-3,
            bfloat16=True,
            validation_windows=now.size(256, 2),
            seed=number,
        )
        config = PointsRunConfig(
            data=(folder / "pushes",),
            pairs=(folder / "pairs",),
            validation_data=(folder / "validation-pushes",),
            output=output,
            checkpoint=str(folder / "train" / "model"),
            points=PointsConfig(cell=now.size(2, 8), dim=now.size(128, 32), depth=now.size(2, 1)),
            device=str(now.machine.device),
            training=training,
        )
        return train_points(config)

    model, figures = run_in_time(now, folder / "points", run, 2 * found + followed)
    return {"stage": number, **figures, **pack(model, now.output, now.work)}
