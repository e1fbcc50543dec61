"""Steps and samples of the video world model, on random latents: no codec and no video is needed."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dexworld.training.trainer import Trainer
from dexworld.video.model.dwm import DWM
from dexworld.video.model.generate import SampleConfig, sample
from dexworld.video.model.video_config import CodecConfig, DWMConfig
from dexworld.video.model.video_config import preset as video_preset
from dexworld.video.model.video_cost import forward_flops
from dexworld.video.model.video_task import VideoBatch, VideoTrainConfig, denoising_loss
from jobs import Figures, Slice
from machine import Machine
from training_setup import one_step

BATCHES = {"cogvideox-fun-2b": 1, "small": 64}


class OneVideoBatch:
    """The same batch of random latents at every step (a `trainer.Task`)."""

    def __init__(self, model: DWM, size: int, machine: Machine) -> None:
        self.model, self.size = model, size
        clip, channels = model.config.clip, model.config.codec.channels
        shape = (clip.latent_frames, channels, clip.latent_height, clip.latent_width)
        generator = torch.Generator().manual_seed(0)

        def latents(count: int = size) -> Tensor:
            return torch.randn(count, *shape, generator=generator).to(machine.device)

        blank = torch.zeros(1, *shape, device=machine.device)
        self.conditions = model.conditions(lambda kind: latents(), {}, None, blank)
        timestep = torch.full((size,), 500, device=machine.device)
        self.held = VideoBatch(latents(), latents(), timestep, self.conditions)

    def batch(self, index: int, device: torch.device) -> tuple[VideoBatch, int]:
        return self.held, self.size

    def losses(self, batch: VideoBatch, index: int) -> dict[str, Tensor]:
        return {"loss": denoising_loss(self.model, batch, 5.0)}

    def contents(self, batch: VideoBatch) -> dict[str, Tensor]:
        return {"clean": batch.clean}

    def broken_data(self, batch: VideoBatch) -> str:
        return ""


def video_model(now: Slice, name: str) -> DWM:
    """A model of random weights; rehearsed as the preset `debug` with the same prediction and positions."""
    config: DWMConfig = video_preset(name)
    codec = CodecConfig(channels=config.codec.channels)  # none of its own is needed for random latents
    config = replace(config, codec=codec)
    if now.rehearsed:
        tiny = video_preset("debug")
        own = replace(tiny.backbone, rotary=config.backbone.rotary, skip_maps=min(2, config.backbone.skip_maps))
        config = replace(tiny, backbone=own, prediction=config.prediction)
    torch.manual_seed(0)
    return DWM(config).to(now.machine.device)


def video_step(name: str, now: Slice) -> Figures:
    """Seconds of a training step in bfloat16, blocks recomputed where the clip is long, and where it spends them."""
    machine, size = now.machine, now.size(BATCHES[name], 1)
    model = video_model(now, name)
    recomputed = model.config.prediction == "velocity"
    model.backbone.recompute(recomputed)
    training = VideoTrainConfig(batch_size=size, bfloat16=True, warmup_steps=0)
    unused: Path = now.work / "video-step"
    trainer = Trainer(model, training, OneVideoBatch(model, size, machine), unused, device=machine.device)
    seconds = machine.seconds(lambda: one_step(trainer), repeats=now.size(3, 1))
    tflops = 3 * size * sum(forward_flops(model.config)) / seconds / 1e12
    return {
        "parameters_m": sum(each.numel() for each in model.backbone.parameters()) / 1e6,
        "clip": clip_of(model.config),
        "batch": size,
        "recomputed": recomputed,
        "step_s": seconds,
        "clips_per_second": size / seconds,
        "tflops": tflops,
        "mfu_of_matmul": tflops / now.matmul_tflops,
        "peak_memory_gib": machine.peak_gib,
        "time_shares": machine.time_shares(lambda: one_step(trainer)),
    }


def sampling(name: str, now: Slice) -> Figures:
    """Seconds of sampling clips in bfloat16, without the codec: by the model's own steps, up to five of them timed."""
    machine, size = now.machine, now.size(BATCHES[name], 1)
    model = video_model(now, name).eval()
    conditions, steps = OneVideoBatch(model, size, machine).conditions, min(5, model.config.sampling_steps)
    generators = [torch.Generator().manual_seed(number) for number in range(size)]

    def drawn() -> None:
        with torch.autocast(machine.device.type, torch.bfloat16):
            sample(model, conditions, SampleConfig(steps=steps), generators)

    seconds = machine.seconds(drawn, repeats=now.size(3, 1)) / steps / size
    return {
        "clip": clip_of(model.config),
        "batch": size,
        "step_s_a_clip": seconds,
        "steps_timed": steps,
        "steps_of_the_model": model.config.sampling_steps,
        "clip_s_at_its_steps_estimated": seconds * model.config.sampling_steps,
        "peak_memory_gib": machine.peak_gib,
        "time_shares": machine.time_shares(drawn),
    }


def clip_of(config: DWMConfig) -> str:
    """The clips that a model makes."""
    return f"{config.clip.frames} frames of {config.clip.height} x {config.clip.width}"
