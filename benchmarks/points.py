"""How well does a world model know points of objects, on scenes that it has not seen?

    python benchmarks/points.py --checkpoint reference --pushes 40 --pairs 24 --output outputs/bench/points

Pushes and static pairs of validation scenes are recorded first. Errors are medians in pixels, beside those of standing
still; the interval of a moved object's centre after three steps is a bootstrap over the centres.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import parser, write_and_print
from dexworld.data.sampling import StrideSampling
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.world_model import load_world_model
from dexworld.sim.collect_scenes import SceneRange, collect_objects
from dexworld.sim.kitchen.kitchen_simulation import MAX_OBJECTS
from dexworld.sim.kitchen.object_scenes import PairConfig, PushConfig
from dexworld.training.distributed import Processes
from dexworld.training.run_data import RunData
from dexworld.training.sources import WindowSource, open_data
from dexworld.training.train_points import (
    CHUNK,
    COLUMNS,
    MOVED_PX,
    PointsRunConfig,
    PointsTrainConfig,
    followed,
    points_figures,
)

STEPS, BOOTSTRAP = 3, 1000


def windows_of(
    folder: Path, model, training: PointsTrainConfig | None = None, moving_object_weight: float = 0.0
) -> WindowSource:
    """Windows of a start frame and the frames after it, of all episodes of a folder; always the same ones, or those of
    a training run.
    """
    config, device = PointsRunConfig(data=(folder,), validation_fraction=0.0), next(model.predictor.parameters()).device
    run, fingerprint = RunData.open(config).resized(model.config.image_size), encoder_fingerprint(model.encoder)
    settings = training or PointsTrainConfig()
    data, _ = open_data(config, settings, run, model.encoder, fingerprint, device, Processes())
    strategy = StrideSampling(STEPS + 1, 1, (1.0,), 0.0, moving_object_weight=moving_object_weight)
    return data.source(strategy, run.training, COLUMNS, shown=training is None)


@torch.no_grad()
def centre_errors(model, source: WindowSource, windows: int) -> tuple[Tensor, Tensor]:
    """Pixels (M,) between where centres of moved objects are forecast and are at the end, and how far they went."""
    errors, gone = [], []
    for step in range(-(-windows // CHUNK)):
        forecast, places, counted, number = followed(model, source.batch(step, CHUNK))
        far = (places[:, -1] - places[:, 0]).norm(dim=-1)
        chosen = counted[:, -1] & (far > MOVED_PX) & (number < MAX_OBJECTS)
        errors.append((forecast.pixels[:, -1, :, 0].mean(dim=1) - places[:, -1]).norm(dim=-1)[chosen])
        gone.append(far[chosen])
    return torch.cat(errors), torch.cat(gone)


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/points")
    arguments.add_argument("--checkpoint", default="reference")
    arguments.add_argument("--pushes", type=int, default=40, help="validation scenes from 910,000 on")
    arguments.add_argument("--pairs", type=int, default=24, help="validation scenes from 911,000 on")
    arguments.add_argument("--windows", type=int, default=512)
    options = arguments.parse_args()
    torch.set_num_threads(1)

    model = load_world_model(options.checkpoint)
    pushes, pairs = options.output / "pushes", options.output / "pairs"
    collect_objects(SceneRange(pushes, options.pushes, 910_000), PushConfig())
    collect_objects(SceneRange(pairs, options.pairs, 911_000), PairConfig())
    results: dict[str, object] = {"checkpoint": options.checkpoint, "windows": options.windows}
    for name, folder in (("pushes", pushes), ("pairs", pairs)):
        figures = points_figures([windows_of(folder, model)], options.windows, model, torch.device("cpu"))
        kept = {key: value for key, value in figures.items() if name == "pushes" or not key.startswith("followed")}
        results |= {f"{name}_{key}": value for key, value in kept.items()}
    errors, gone = (each.numpy() for each in centre_errors(model, windows_of(pushes, model), options.windows))
    draws = np.random.default_rng(0).integers(0, len(errors), (BOOTSTRAP, len(errors)))
    low, high = np.percentile(np.median(errors[draws], axis=1), [2.5, 97.5])
    results |= {"centres": len(errors), "centre_px": float(np.median(errors)), "centre_px_low": float(low)}
    results |= {"centre_px_high": float(high), "centre_still_px": float(np.median(gone))}
    write_and_print(options.output, results)


if __name__ == "__main__":
    main()
