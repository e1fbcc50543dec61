"""The verb `cosmos`: a checkpoint of a video pipeline of diffusers, or what a video of it takes."""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.baselines.cosmos_pipeline import PUBLISHED, video_cost
from dexworld.baselines.world_models.cosmos import Cosmos, VideoOptions
from dexworld.models.reference import REFERENCE
from dexworld.models.world_model import load_world_model
from dexworld.training.estimate import GIB, PlanConfig

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class CosmosCheckpoint:
    """Make a checkpoint of a Cosmos-Predict2 or 2.5 pipeline, to measure it as a world model.

    It names the pipeline's folder, and holds the encoder and keypoint head of the model that it is compared with.
    """

    output: Path
    """Folder for config.json, model.safetensors and README.md, the model card."""
    pipeline: Path | None = None
    """Folder of diffusers' layout. A dry run without one shows the published sizes."""
    checkpoint: str = REFERENCE
    """The model that it is compared with: a DexWM, or a baseline of its form."""
    video: Annotated[VideoOptions, tyro.conf.arg(name="")] = field(default_factory=VideoOptions)
    peak_tflops: float = PlanConfig.peak_tflops
    """10^12 operations a second of the GPU on paper, for the dry run: an H100 or H200 in dense bfloat16."""
    mfu: float = PlanConfig.mfu
    """Share of it that is reached: an assumption, not a measurement."""
    dry_run: bool = False
    """Show parameters, memory, operations and time of a video, and stop. Nothing is loaded."""

    def __post_init__(self) -> None:
        PlanConfig(peak_tflops=self.peak_tflops, mfu=self.mfu)  # checks both
        if self.pipeline is None and not self.dry_run:
            raise ValueError("give the pipeline's folder with `--pipeline`")

    def run(self) -> None:
        """Write the checkpoint, or show the cost."""
        if self.dry_run:
            sources = [self.pipeline] if self.pipeline else [*PUBLISHED]
            sys.stdout.write("\n".join([*map(self._described, sources), self._assumed()]) + "\n")
            return
        if (self.output / "config.json").exists():
            raise FileExistsError(f"{self.output} already holds a model; choose another folder")
        assert self.pipeline is not None
        Cosmos.beside(load_world_model(self.checkpoint), self.pipeline, self.video).save_pretrained(self.output)
        logger.info("measure it: dexworld evaluate open-loop --checkpoint %s", self.output)

    def _described(self, source: Path | str) -> str:
        video = self.video
        cost = video_cost(source, video.video_size, video.frames, video.steps, video.guidance > 1)
        total, rate = sum(cost.flops.values()), 1e12 * self.peak_tflops * self.mfu
        parts = ", ".join(f"{name.replace('_', ' ')} {count / 1e9:.2f} B" for name, count in cost.parameters.items())
        rows = {"parameters": parts, "weights": f"{cost.weights_bytes / GIB:.1f} GiB in bfloat16"}
        rows |= {"activations": f"about {cost.activations_bytes / GIB:.1f} GiB"}
        rows |= {name: f"{flops / 1e15:,.4g} PFLOP" for name, flops in cost.flops.items()}
        rows |= {"a video": f"{total / 1e15:,.4g} PFLOP, {total / rate / 60:.1f} min"}
        title = f"Cosmos-Predict2 {source.upper()} Video2World" if isinstance(source, str) else str(source)
        return "\n".join([title, *(f"  {name:<18}{value}" for name, value in rows.items())])

    def _assumed(self) -> str:
        video = self.video
        passes = f"{video.steps} steps{' with guidance' if video.guidance > 1 else ''}"
        size = f"{video.frames} frames of {video.video_size[0]} x {video.video_size[1]} pixels at {video.fps} a second"
        reached = f"{self.mfu:.0%} of {self.peak_tflops:g} TFLOP/s"
        return (
            f"A video is {size}, in {passes}. Assumed: {reached}; activations are 3 copies of a block's widest tensor."
        )
