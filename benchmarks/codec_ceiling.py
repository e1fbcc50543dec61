"""What the pca codec lets through, by its channels: the most that a video model of such latents can reach.

    python benchmarks/codec_ceiling.py --data TRIPLETS --held-out TRIPLETS --output outputs/bench/codec

Fits a codec for each number of channels on the interactions of `--data` and shows those of `--held-out` through it.
results.json holds, for each number of channels, `psnr`, `psnr_inside` and `psnr_outside` of the interaction region in
dB, means over clips with `_low` and `_high` (95 %, bootstrap over clips).
"""

from pathlib import Path

import numpy as np
import torch

from common import parser, write_results
from dexworld.evaluation.intervals import bootstrap_mean, named_values
from dexworld.models.picture_metrics import psnr
from dexworld.video.clips.regions import interaction_region
from dexworld.video.clips.triplets import TripletFolder, open_triplets
from dexworld.video.judge.references import through_codec
from dexworld.video.model.pca_codec import PCACodec


def ceiling(codec: PCACodec, held_out: TripletFolder) -> dict[str, float | None]:
    """PSNR of held-out clips through a codec, with intervals."""
    values: dict[str, list[float]] = {}
    for clip in (held_out[index] for index in range(len(held_out))):
        shown, region = (
            through_codec(codec, clip.interaction),
            interaction_region(clip.interaction, clip.static, clip.hands),
        )
        for name, mask in (("psnr", None), ("psnr_inside", region), ("psnr_outside", ~region)):
            found = psnr(shown, clip.interaction, mask)
            if found is not None:
                values.setdefault(name, []).append(found)
    figures: dict[str, float | None] = {}
    for name, each in values.items():
        figures |= named_values(name, bootstrap_mean(np.array(each), np.random.default_rng(0)))
    return {name: None if value is None else round(value, 2) for name, value in figures.items()}


def main() -> None:
    """Measure everything and write results.json."""
    arguments = parser(__doc__, "outputs/bench/codec")
    arguments.add_argument("--data", type=Path, required=True, help="triplets that codecs are fitted on")
    arguments.add_argument("--held-out", type=Path, required=True, help="triplets that are shown through them")
    arguments.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 96, 128])
    options = arguments.parse_args()
    torch.set_num_threads(1)
    data, held_out = open_triplets(options.data), open_triplets(options.held_out)
    figures = {}
    for channels in options.channels:
        videos = (torch.from_numpy(data[index].interaction) for index in range(len(data)))
        figures[str(channels)] = ceiling(PCACodec(channels).fit(videos), held_out)
    counts = {"clips_fitted": len(data), "clips_shown": len(held_out)}
    write_results(options.output, {"channels": figures, **counts}, seed=0)


if __name__ == "__main__":
    main()
