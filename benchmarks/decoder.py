"""How good pictures of latents are: a trained pixel decoder against the way back that the encoder has by itself.

    python benchmarks/decoder.py --data val --decoder outputs/decoder/model --output outputs/bench/decoder

Every episode is rolled out as in `dexworld evaluate open-loop`. Pictures are drawn from the latents of the real frames
at 1 s and 4 s (`true`) and from predicted ones (`predicted_1s`, `predicted_4s`), and compared with the real frames.

`psnr`: dB. `gradient_distance`: 0 where edges are as in the real picture, 1 where nothing agrees (docs/training.md).
`sharpness`: length of colour gradients over the real picture's. `latent_error`: mean squared difference between the
latents and those of the drawn picture, over the variance of true latents. `gain_*`: decoder minus encoder, episodes
paired. `decode_ms`: CPU time a picture, on one thread. Intervals are 95 %, by bootstrap over episodes.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import interval_values, parser, write_results
from dexworld.data.datasets import open_dataset
from dexworld.data.resize import resized
from dexworld.evaluation.guard import check_seeds
from dexworld.evaluation.intervals import Interval, bootstrap_ratio
from dexworld.evaluation.open_loop import OpenLoopConfig, clip_of
from dexworld.models.decoder import from_pixels
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import open_decoder
from dexworld.models.perceptual import GradientDistance
from dexworld.models.picture_metrics import psnr_of_mse, squared_error_map, ssim_map
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.track import Track

Decode = Callable[[Tensor], Tensor]
FIGURES = ("psnr", "ssim", "gradient_distance", "sharpness", "latent_error")
OWN, GIVEN = "encoder", "decoder"


def gradient_lengths(images: Tensor) -> Tensor:
    """Mean length (N,) of the colour gradients of (N, 3, H, W)."""
    down, right = images.diff(dim=2)[..., :-1], images.diff(dim=3)[:, :, :-1]
    return torch.cat([down, right], dim=1).norm(dim=1).mean(dim=(1, 2))


def picture_sums(made: Tensor, true: Tensor, latents: Tensor, encode: Decode) -> dict[str, np.ndarray]:
    """Parts of the figures for every picture (N,): of (N, H, W, 3) uint8 drawn from latents (N, P, D)."""
    ours, theirs = from_pixels(made), from_pixels(true)
    return {
        "mse": squared_error_map(made.numpy(), true.numpy()).mean(axis=(1, 2)),
        "ssim": ssim_map(made.numpy(), true.numpy()).mean(axis=(1, 2)),
        "gradient_distance": GradientDistance()(ours, theirs).numpy(),
        "gradients_made": gradient_lengths(ours).numpy(),
        "gradients_true": gradient_lengths(theirs).numpy(),
        "latent_error": (encode(made) - latents).square().mean(dim=(1, 2)).numpy(),
    }


@torch.no_grad()
def measured(
    model: DexWM, episode: Track, decoders: dict[str, Decode], config: OpenLoopConfig, clock: dict[str, float]
) -> dict[str, dict[str, np.ndarray]]:
    """Sums of one episode for every "<latents>/<decoder>"; CPU seconds of decoding are added to `clock`."""
    clip = clip_of(episode, config)
    moments = config.moments
    chosen = [0, *(step + 1 for step in moments.values())]
    pictures = torch.from_numpy(np.ascontiguousarray(clip.frames.read(chosen)))
    latents = model.encode(pictures).float()
    motion = model.condition(clip).expand(1).to(dtype=torch.float32)
    context = model.start(latents[:1], motion.index(0).slice(0, 0))
    predicted = model.rollout(context, motion).float()[0, list(moments.values())]
    true, seen = pictures[1:], latents[1:]
    sums: dict[str, dict[str, np.ndarray]] = {}
    for name, decode in decoders.items():
        began = time.process_time()
        made = decode(torch.cat([seen, predicted]))
        clock[name] = clock.get(name, 0.0) + time.process_time() - began
        of_true = picture_sums(made[: len(seen)], true, seen, model.encode)
        of_predicted = picture_sums(made[len(seen) :], true, predicted, model.encode)
        spread = np.full(1, float(seen.var()))
        sums[f"true/{name}"] = {key: value.mean(keepdims=True) for key, value in of_true.items()} | {"spread": spread}
        for index, moment in enumerate(moments):
            part = {key: value[index : index + 1] for key, value in of_predicted.items()} | {"spread": spread}
            sums[f"predicted_{moment}/{name}"] = part
    return sums


def figures_of(sums: dict[str, np.ndarray], generator: np.random.Generator) -> dict[str, Interval]:
    """Figures over episodes (E,) with their intervals."""
    ones = np.ones_like(sums["mse"])
    mse = bootstrap_ratio(sums["mse"], ones, generator)
    return {
        "psnr": Interval(psnr_of_mse(float(mse.value)), psnr_of_mse(float(mse.high)), psnr_of_mse(float(mse.low))),
        "ssim": bootstrap_ratio(sums["ssim"], ones, generator),
        "gradient_distance": bootstrap_ratio(sums["gradient_distance"], ones, generator),
        "sharpness": bootstrap_ratio(sums["gradients_made"], sums["gradients_true"], generator),
        "latent_error": bootstrap_ratio(sums["latent_error"], sums["spread"], generator),
    }


def gains_of(
    given: dict[str, np.ndarray], own: dict[str, np.ndarray], generator: np.random.Generator
) -> dict[str, Interval]:
    """Decoder minus encoder, episodes paired; of PSNR from the ratio of mean squared errors."""
    ones = np.ones_like(own["mse"])
    ratio = bootstrap_ratio(given["mse"], own["mse"], generator)
    gains = {"gain_psnr": Interval(*(-10 * float(np.log10(each)) for each in (ratio.value, ratio.high, ratio.low)))}
    for key in ("ssim", "gradient_distance"):
        gains[f"gain_{key}"] = bootstrap_ratio(given[key] - own[key], ones, generator)
    return gains


def benchmark(options: argparse.Namespace) -> tuple[dict[str, object], list[int]]:
    """The figures for `results.json`, and the scenes they come from."""
    torch.set_num_threads(1)
    model = DexWM.from_pretrained(checkpoint_path(options.model)).eval()
    decoders: dict[str, Decode] = {OWN: model.decode} if model.encoder.can_decode else {}
    trained = [model.provenance]
    if options.decoder is not None:
        decoder = open_decoder(options.decoder, model.encoder)
        decoders[GIVEN] = decoder.decode
        trained.append(decoder.provenance)
    if not decoders:
        raise SystemExit("this model's encoder has no way back to pictures: give --decoder")
    dataset = resized(open_dataset(options.data), model.config.image_size)
    count = min(options.episodes or len(dataset), len(dataset))
    scenes = list(dataset.seeds[:count])
    for provenance in trained:
        check_seeds(scenes, provenance, options.split)
    config, clock = OpenLoopConfig(steps=options.steps), {}
    episodes = [measured(model, dataset[index], decoders, config, clock) for index in range(count)]
    generator = np.random.default_rng(options.seed)
    figures: dict[str, object] = {}
    gathered = {
        name: {key: np.concatenate([episode[name][key] for episode in episodes]) for key in part}
        for name, part in episodes[0].items()
    }
    for name, sums in gathered.items():
        found = figures_of(sums, generator)
        kind, drawn_by = name.split("/")
        if drawn_by == GIVEN and OWN in decoders:
            found |= gains_of(sums, gathered[f"{kind}/{OWN}"], generator)
        rows = {key: interval_values(each) for key, each in found.items()}
        figures.setdefault(kind, {})[drawn_by] = rows  # type: ignore[index]
    drawn = count * 2 * len(config.moments)
    figures["decode_ms"] = {name: 1000 * seconds / drawn for name, seconds in clock.items()}
    return figures | {"episodes": count, "pictures": drawn}, scenes


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/decoder")
    arguments.add_argument("--data", type=Path, required=True, help="dataset of held-out scenes")
    arguments.add_argument("--model", default=REFERENCE, help="world model: a folder, a hub id, or `reference`")
    arguments.add_argument("--decoder", help="pixel decoder, made by `dexworld train decoder`")
    arguments.add_argument("--episodes", type=int, default=0, help="episodes; 0 takes all")
    arguments.add_argument("--steps", type=int, default=20, help="predicted steps of 0.2 s")
    arguments.add_argument("--split", choices=("validation", "evaluation"), default="validation")
    arguments.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    options = arguments.parse_args()
    figures, scenes = benchmark(options)
    write_results(options.output, figures, seed=options.seed, seeds=scenes)


if __name__ == "__main__":
    main()
