"""Memory and time that the labels of a latent cache take, for a dataset of synthetic episodes.

    python benchmarks/latent_labels.py --episodes 2000 --output outputs/bench/latent_labels

The cache is built in one process and read in another. Its latents are tiny, so that the labels are measured. A batch is
64 windows of nine frames, drawn as DexWM does (`paper`) or as `dexworld train` does by default (`stride`, every tenth
episode with recorded motion of objects). Memory is that of the process alone; pages of mapped files are listed apart.
Milliseconds are medians over batches; the first batches, which look at every block for the first time, are apart.
"""

import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import cpu_seconds, in_a_process, memory_kb, parser, write_results
from dexworld.data.latent_cache import latent_cache
from dexworld.data.sampling import PaperSampling, StrideSampling
from dexworld.data.windows import WindowSampler
from dexworld.track import ArrayFrames, Track

BATCH = 64
SAMPLINGS = {"paper": PaperSampling(), "stride": StrideSampling(frames=9, history=4, moving_object_weight=1.0)}


@dataclass(frozen=True)
class SyntheticEpisodes:
    """A dataset that makes its episodes when they are read. frames: of each."""

    folder: Path
    episodes: int
    frames: int
    kind: str = "synthetic"
    quarantined: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return self.episodes

    def __getitem__(self, index: int) -> Track:
        generator = np.random.default_rng(index)
        moving = {"object_motion": generator.random(self.frames) * 2e-3} if index % 10 == 0 else {}
        return Track(
            frames=ArrayFrames(np.full((self.frames, 4, 4, 3), index % 256, dtype=np.uint8)),
            fps=30.0,
            world_from_camera=np.tile(np.eye(4), (self.frames, 1, 1)),
            intrinsics=np.diag([100.0, 100.0, 1.0]),
            source=f"synthetic {index}",
            columns={
                "keypoints_world": generator.random((self.frames, 42, 3), dtype=np.float32),
                "keypoints_valid": generator.random((self.frames, 42)) < 0.9,
                **moving,
            },
        )

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        return (self.frames,) * self.episodes

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.episodes)))

    @property
    def splits(self) -> tuple[str, ...]:
        return ("",) * self.episodes

    @property
    def fingerprint(self) -> str:
        return f"{self.episodes} x {self.frames}"


def brightness(images: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) to (B, 1, 8)."""
    return images.float().mean(dim=(1, 2, 3))[:, None, None].expand(-1, 1, 8)


def build(dataset: SyntheticEpisodes) -> dict[str, float]:
    """Make the cache; CPU seconds, and the most memory over that of the process before."""
    torch.set_num_threads(1)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    cache = latent_cache(dataset, brightness, "benchmark")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(path.stat().st_size for path in cache.folder.glob("*labels*"))
    return {
        "build_cpu_s": time.process_time() - began,
        "build_peak_mb": (most - before) / 1e3,
        "label_files_mb": size / 1e6,
    }


def read(dataset: SyntheticEpisodes, name: str, batches: int) -> dict[str, Any]:
    """Open the cache, draw batches; memory and milliseconds."""
    torch.set_num_threads(1)
    before = {field: memory_kb(field) for field in ("RssAnon", "RssFile")}
    began = time.perf_counter()
    cache = latent_cache(dataset, brightness, "benchmark")
    opened = time.perf_counter()
    sampler = WindowSampler([cache], SAMPLINGS[name], 0)
    made = time.perf_counter()
    wall, cpu = [], []
    for step in range(batches):
        begin = time.perf_counter()
        cpu.append(1e3 * cpu_seconds(lambda step=step: sampler.batch(step, BATCH)))
        wall.append(1e3 * (time.perf_counter() - begin))
    own, mapped = ((memory_kb(field) - kilobytes) / 1e3 for field, kilobytes in before.items())
    half = batches // 2
    return {
        "open_s": opened - began,
        "sampler_s": made - opened,
        "own_mb": own,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "mapped_mb": mapped,
        "first_batch_ms": wall[0],
        "batch_ms": statistics.median(wall[half:]),
        "batch_cpu_ms": statistics.median(cpu[half:]),
        "early_batch_cpu_ms": statistics.median(cpu[: max(1, batches // 20)]),
        "all_batches_cpu_s": sum(cpu) / 1e3,
    }


def main() -> None:
    """Build, read twice, and write results.json."""
    arguments = parser(__doc__, "outputs/bench/latent_labels")
    arguments.add_argument("--episodes", type=int, default=2000)
    arguments.add_argument("--frames", type=int, default=270, help="of an episode; EgoDex's mean is 265")
    arguments.add_argument("--batches", type=int, default=200)
    config = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=config.output.parent if config.output.parent.exists() else None) as folder:
        dataset = SyntheticEpisodes(Path(folder), config.episodes, config.frames)
        results: dict[str, Any] = {"episodes": config.episodes, "frames": config.frames}
        results |= in_a_process(build, dataset)
        for name in SAMPLINGS:
            results[name] = in_a_process(read, dataset, name, config.batches)
    write_results(config.output, results)


if __name__ == "__main__":
    main()
