"""The plan `dwm-small`: a larger video model (25 M parameters), on triplets that are made there."""

import time
from argparse import Namespace
from functools import partial
from pathlib import Path

from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets
from dexworld.video.clips.triplets import open_triplets
from dexworld.video.model.clip_latents import encode_folder, fit_codec
from dexworld.video.model.dwm import DWM
from dexworld.video.model.train_video import VideoRunConfig, train_video
from dexworld.video.model.video_config import BackboneConfig, CodecConfig, DWMConfig
from dexworld.video.model.video_config import preset as video_preset
from dexworld.video.model.video_task import VideoTrainConfig
from jobs import Figures, Job, Slice
from packed_weights import pack
from stages import SCENES, by_all_cores, initial_of, run_in_time, schedule, stage_folder, stage_number

KINDS = ("moving", "fixed")  # cameras


def jobs(options: Namespace) -> list[Job]:
    """Clips, latents, model; each slice is a stage."""
    return [
        Job("scenes", 1, 150, partial(clips, options.seed, options.validation_seed), again=True),
        Job("latents", 1, 45, latents, ("scenes",), again=True),
        Job("train", 10, 180, train_model, ("latents",), again=True),
    ]


def model_config(now: Slice) -> DWMConfig:
    """The preset `small`, wider and deeper, on a codec of half as many channels again; rehearsed as `debug`."""
    if now.rehearsed:
        return video_preset("debug")
    backbone = BackboneConfig(heads=6, head_dim=64, depth=8, time_dim=256, skip_maps=8)
    return DWMConfig(codec=CodecConfig(channels=48), backbone=backbone)


def clips(seed: int, validation_seed: int, now: Slice) -> Figures:
    """Record clips of moving and fixed cameras until the time is over, after a few validation clips."""
    number = stage_number(now)
    folder, shape, workers = stage_folder(now, number), model_config(now).clip, now.size(0, 1)
    begin = time.time()

    def recorded(kind: str, count: int, first: int, share: float | None) -> None:
        config = SyntheticConfig(folder / kind, count, first, "fixed" if kind == "fixed" else "moving", shape, workers)
        record_triplets(config, iter if share is None else now.until(share))

    recorded("validation", now.size(48, 1), validation_seed, None)
    made: Figures = {}
    for place, (kind, share) in enumerate(zip(KINDS, (0.85, 0.9), strict=True)):  # of the time that is left
        if not (folder / f"{kind}.done").exists():
            recorded(kind, now.size(8000, 2), seed + (2 * number + place) * SCENES, share)
            (folder / f"{kind}.done").touch()
        made[f"{kind}_clips"] = len(open_triplets(folder / kind))
    return {"stage": number, **made, "clips_per_second": sum(made.values()) / (time.time() - begin)}


def latents(now: Slice) -> Figures:
    """Fit the codec of a new model, or keep that of the stage before, and encode all clips with all cores."""
    number = stage_number(now)
    folder = stage_folder(now, number)
    begin, start = time.time(), start_of(now, number)
    if not start.exists():
        model = DWM(model_config(now))
        fit_codec(model, [open_triplets(folder / "moving")], now.size(200, 2), 0)
        model.save_pretrained(start.with_name("new"))
        start.with_name("new").rename(start)
    data = [folder / kind for kind in (*KINDS, "validation")]
    by_all_cores(now, partial(encode_share, data, start))
    count = sum(len(open_triplets(each)) for each in data)
    return {"clips": count, "clips_per_second": count / (time.time() - begin)}


def start_of(now: Slice, number: int) -> Path:
    """The model that a stage's training begins from: of the stage before, or new weights around a fitted codec."""
    return initial_of(now, number) or stage_folder(now, number) / "start"


def encode_share(folders: list[Path], model: Path, number: int) -> None:
    """This process's share of the latents."""
    loaded = DWM.from_pretrained(model)
    for folder in folders:
        encode_folder(open_triplets(folder), loaded)


def train_model(now: Slice) -> Figures:
    """Train the model as the shipped one was (docs/video.md), without inpainting before, and pack it."""
    number = stage_number(now)
    folder, batch = stage_folder(now, number), now.size(32, 2)

    def run(output: Path, steps: int, seconds: float | None) -> Path:
        training = VideoTrainConfig(
            **schedule(now, steps, seconds),
            batch_size=batch,
            learning_rate=6e-4,
            timestep_shift=5.0,
            outside_weight=10.0,
            ema=0.995,
            bfloat16=True,
            validation_clips=now.size(48, 1),
            seed=number,
        )
        config = VideoRunConfig(
            data=tuple(folder / kind for kind in KINDS),
            validation_data=(folder / "validation",),
            output=output,
            initial=str(start_of(now, number)),
            device=str(now.machine.device),
            training=training,
        )
        return train_video(config)

    model, figures = run_in_time(now, folder / "train", run, batch)
    parameters = sum(each.numel() for each in DWM.from_pretrained(model).backbone.parameters())
    return {"stage": number, "parameters_m": parameters / 1e6, **figures, **pack(model, now.output, now.work)}
