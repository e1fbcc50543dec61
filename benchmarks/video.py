"""CPU cost of the video world model: triplets, a training step, a sampled clip.

    python benchmarks/video.py --output outputs/bench/video

All figures are CPU time on one thread, which other load on the machine hardly changes. Ratios are of two ways measured
by turns in this run. results.json holds `triples_per_cpu_s` (frames of interaction, static and hand video together)
and, for each preset, `<preset>_train_step_cpu_s` (batch, both passes, AdamW, averaging),
`<preset>_sample_10_steps_cpu_s` (a clip, coding included) and the ratios.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from common import cpu_seconds, parser, write_results
from dexworld.sim.hands.hand_clips import HandClipConfig, record_hand_clip
from dexworld.sim.render import choose_backend
from dexworld.training.trainer import Trainer
from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.synthetic_clips import SyntheticConfig, clip_name, triplet_of
from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import TripletFolder, finish_triplets
from dexworld.video.model.clip_latents import encode_folder, fit_codec
from dexworld.video.model.dwm import DWM
from dexworld.video.model.generate import GenerateConfig, Generator, SampleConfig
from dexworld.video.model.video_config import preset
from dexworld.video.model.video_task import VideoTask, VideoTrainConfig

FIRST_SEED = 990_000  # validation scenes
BATCH = 8


def record(clips: int, shape: ClipShape, backend: str, root: Path) -> tuple[TripletFolder, dict[str, float]]:
    """Record clips of the models' shape, and one of the real triplets' size; frames of three passes per CPU-second."""
    small = SyntheticConfig(root, clips, FIRST_SEED, shape=shape).recording()
    frames, spent = 0, 0.0
    for seed in range(FIRST_SEED, FIRST_SEED + clips):
        before = time.process_time()
        clip = record_hand_clip(seed, small, backend)
        spent += time.process_time() - before
        frames += len(clip.interaction)
        write_triplet(root, triplet_of(clip))
    large = HandClipConfig(height=224, width=384, supersample=1)
    before = time.process_time()
    large_frames = len(record_hand_clip(FIRST_SEED, large, backend).interaction)
    figures = {
        "triples_per_cpu_s": frames / spent,
        "cpu_s_per_clip": spent / clips,
        "triples_per_cpu_s_224x384": large_frames / (time.process_time() - before),
    }
    seeds = {clip_name(seed): seed for seed in range(FIRST_SEED, FIRST_SEED + clips)}
    return finish_triplets(root, {"benchmark": "video"}, seeds), figures


def train_step(trainer: Trainer) -> None:
    """A whole training step: batch, both passes, clipping, AdamW and the averaged weights."""
    trainer._train_step()
    trainer.step += 1


def measure_training(name: str, folder: TripletFolder, repeats: int) -> tuple[DWM, dict[str, float]]:
    """A training step of a preset: float32 against bfloat16."""
    torch.manual_seed(0)
    model = DWM(preset(name))
    fit_codec(model, [folder], len(folder), 0)
    latents = [encode_folder(folder, model)]
    trainers = {}
    for bfloat16 in (False, True):
        config = VideoTrainConfig(batch_size=BATCH, bfloat16=bfloat16)
        trainers[bfloat16] = Trainer(model, config, VideoTask(model, config, latents), folder.root / "unused")
    times: dict[bool, list[float]] = {way: [] for way in trainers}
    for index in range(repeats + 1):
        for way, trainer in trainers.items():
            seconds = cpu_seconds(lambda trainer=trainer: train_step(trainer))
            if index:  # the first call of each is not counted
                times[way].append(seconds)
    middle = {way: statistics.median(values) for way, values in times.items()}
    return model, {
        "train_step_cpu_s": middle[True],
        "train_clips_per_cpu_s": BATCH / middle[True],
        "bfloat16_speedup": middle[False] / middle[True],
        "million_parameters": sum(each.numel() for each in model.backbone.parameters()) / 1e6,
    }


def measure_sampling(model: DWM, folder: TripletFolder) -> dict[str, float]:
    """A sampled clip, encoding and decoding included, in batches of eight; and with half of the steps."""
    clips = [folder[index] for index in range(BATCH)]
    figures = {}
    for steps in (10, 5):
        method = Generator(model, GenerateConfig(SampleConfig(steps=steps)))
        method.generate(clips[:1], [0])
        seconds = cpu_seconds(lambda method=method: method.generate(clips, list(range(BATCH))))
        figures[f"sample_{steps}_steps_cpu_s"] = seconds / BATCH
    return figures


def main() -> None:
    """Measure everything and write results.json."""
    arguments = parser(__doc__, "outputs/bench/video")
    arguments.add_argument("--clips", type=int, default=10, help="clips to record, at least 8")
    arguments.add_argument("--presets", nargs="+", default=["mini", "small"], help="models, all of one clip shape")
    arguments.add_argument("--repeats", type=int, default=5, help="training steps of each kind")
    options = arguments.parse_args()
    if options.clips < BATCH:
        arguments.error(f"--clips must be at least {BATCH}")
    shapes = {preset(name).clip for name in options.presets}
    if len(shapes) != 1:
        arguments.error(f"the presets {', '.join(options.presets)} work on clips of different shapes")
    torch.set_num_threads(1)
    backend = choose_backend()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder, figures = record(options.clips, *shapes, backend, Path(temporary))
        for name in options.presets:
            model, training = measure_training(name, folder, options.repeats)
            figures |= {f"{name}_{key}": value for key, value in training.items()}
            figures |= {f"{name}_{key}": value for key, value in measure_sampling(model, folder).items()}
    clip = preset(options.presets[0]).clip
    described = {"backend": backend, "clip": f"{clip.frames} frames of {clip.height} x {clip.width}", "batch": BATCH}
    rounded = {name: float(np.round(value, 4)) for name, value in figures.items()}
    write_results(options.output, rounded | described | {"wall_s": time.monotonic() - started}, seed=FIRST_SEED)


if __name__ == "__main__":
    main()
