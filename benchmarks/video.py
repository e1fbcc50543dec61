"""CPU cost of the video world model: triplets, a training step, a sampled clip, and what our attention saves.

    python benchmarks/video.py --output outputs/bench/video

All figures are CPU time on one thread, which other load on the machine hardly changes. Ratios are of two ways measured
by turns in this run.
"""

import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from common import parser, write_results
from dexworld.sim.hand_clips import HandClipConfig, record_hand_clip
from dexworld.sim.render import choose_backend
from dexworld.video.config import preset
from dexworld.video.generate import GenerateConfig, Generator
from dexworld.video.latents import encode_folder, fit_codec
from dexworld.video.model import DWM
from dexworld.video.objective import VideoTask, VideoTrainConfig
from dexworld.video.sampler import SampleConfig
from dexworld.video.synthetic import SyntheticConfig, clip_name, triplet_of
from dexworld.video.triplets import TripletFolder, finish_triplets, write_triplet

FIRST_SEED = 990_000  # validation scenes
BATCH = 8
REPEATS = 5


def cpu_seconds() -> float:
    """CPU time used so far by this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def record(clips: int, backend: str, root: Path) -> tuple[TripletFolder, dict[str, float]]:
    """Record clips of the models' shape, and two of the real triplets' size; frames of three passes per CPU-second."""
    small = SyntheticConfig(root, clips, FIRST_SEED).recording()
    frames, spent = 0, 0.0
    for seed in range(FIRST_SEED, FIRST_SEED + clips):
        before = cpu_seconds()
        clip = record_hand_clip(seed, small, backend)
        spent += cpu_seconds() - before
        frames += len(clip.interaction)
        write_triplet(root, triplet_of(clip))
    large = HandClipConfig(height=224, width=384, supersample=1)
    before = cpu_seconds()
    large_frames = sum(len(record_hand_clip(FIRST_SEED + number, large, backend).interaction) for number in range(2))
    figures = {
        "triples_per_cpu_s": frames / spent,
        "cpu_s_per_clip": spent / clips,
        "triples_per_cpu_s_224x384": large_frames / (cpu_seconds() - before),
    }
    seeds = {clip_name(seed): seed for seed in range(FIRST_SEED, FIRST_SEED + clips)}
    return finish_triplets(root, {"benchmark": "video"}, seeds), figures


def step_seconds(task: VideoTask, index: int, bfloat16: bool) -> float:
    """CPU seconds of one forward and backward pass, batch included."""
    before = cpu_seconds()
    batch, _ = task.batch(index, torch.device("cpu"))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        loss = task.losses(batch, index)["loss"]
    loss.backward()
    return cpu_seconds() - before


def measure_training(name: str, folder: TripletFolder) -> tuple[DWM, dict[str, float]]:
    """A training step of a preset: float32 against bfloat16, diffusers' attention against ours."""
    from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0

    from dexworld.video.attention import JointAttention

    torch.manual_seed(0)
    model = DWM(preset(name))
    fit_codec(model, [folder], len(folder), 0)
    task = VideoTask(model, VideoTrainConfig(batch_size=BATCH), [encode_folder(folder, model)])
    ways = {
        "float32": (False, JointAttention()),
        "bfloat16": (True, JointAttention()),
        "fused": (True, CogVideoXAttnProcessor2_0()),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for index in range(REPEATS + 1):
        for way, (bfloat16, attention) in ways.items():
            model.backbone.transformer.set_attn_processor(attention)
            seconds = step_seconds(task, index, bfloat16)
            if index:  # the first call of each is not counted
                times[way].append(seconds)
    model.backbone.transformer.set_attn_processor(JointAttention())
    middle = {way: statistics.median(values) for way, values in times.items()}
    return model, {
        "train_step_cpu_s": middle["bfloat16"],
        "train_clips_per_cpu_s": BATCH / middle["bfloat16"],
        "bfloat16_speedup": middle["float32"] / middle["bfloat16"],
        "attention_speedup": middle["fused"] / middle["bfloat16"],
        "million_parameters": sum(each.numel() for each in model.backbone.parameters()) / 1e6,
    }


def measure_sampling(model: DWM, folder: TripletFolder) -> dict[str, float]:
    """A sampled clip, encoding and decoding included, in batches of eight; and with half of the steps."""
    clips = [folder[index] for index in range(BATCH)]
    figures = {}
    for steps in (10, 5):
        method = Generator(model, GenerateConfig(SampleConfig(steps=steps)))
        method.generate(clips[:1], [0])
        before = cpu_seconds()
        method.generate(clips, list(range(BATCH)))
        figures[f"sample_{steps}_steps_cpu_s"] = (cpu_seconds() - before) / BATCH
    return figures


def main() -> None:
    """Measure everything and write results.json."""
    arguments = parser(__doc__.splitlines()[0], "outputs/bench/video")
    arguments.add_argument("--clips", type=int, default=10, help="clips to record, at least 8")
    options = arguments.parse_args()
    if options.clips < BATCH:
        arguments.error(f"--clips must be at least {BATCH}")
    torch.set_num_threads(1)
    backend = choose_backend()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder, figures = record(options.clips, backend, Path(temporary))
        for name in ("mini", "small"):
            model, training = measure_training(name, folder)
            figures |= {f"{name}_{key}": value for key, value in training.items()}
            figures |= {f"{name}_{key}": value for key, value in measure_sampling(model, folder).items()}
    clip = preset("mini").clip
    described = {"backend": backend, "clip": f"{clip.frames} frames of {clip.height} x {clip.width}", "batch": BATCH}
    rounded = {name: float(np.round(value, 4)) for name, value in figures.items()}
    write_results(options.output, rounded | described | {"wall_s": time.monotonic() - started}, seed=FIRST_SEED)


if __name__ == "__main__":
    main()
