"""Training steps of the paper's sizes: samples a second, the share of the peak, and where a step spends its time."""

from dataclasses import replace

from dexworld.models.config import ENCODERS, DexWMConfig
from dexworld.models.world_model import preset
from jobs import Figures, Slice
from training import measure_row


def paper_model(now: Slice, size: str) -> DexWMConfig:
    """The paper's model of a size; rehearsed with two narrow blocks on pictures of four tokens."""
    config = preset(f"paper-{size}")
    if not now.rehearsed:
        return config
    predictor = replace(config.predictor, dim=32, depth=2, heads=2)
    head = replace(config.keypoint_head, dim=32, depth=1, heads=2, cell=4)
    small = ENCODERS["dinov2-small"]
    return replace(config, image_size=(28, 28), encoder=small, predictor=predictor, keypoint_head=head)


def training_step(size: str, latents: str, recompute: str, compiled: bool, now: Slice) -> Figures:
    """Samples a second and the share of the peak that training steps reach, and where a step spends its time.

    mfu is the share of the data sheet's peak, mfu_of_matmul that of the product of matrices measured here.
    """
    config, machine = paper_model(now, size), now.machine
    compiler = now.size("inductor", "eager") if compiled else None
    steps = now.size(10, 1)
    row = measure_row(
        config,
        machine.device,
        now.work / "encoders",
        steps,
        latents,
        recompute,
        compiler,
        lambda step: {"time_shares": machine.time_shares(step)},
    )
    if "tflops" in row:
        row["mfu_of_matmul"] = row["tflops"] / now.matmul_tflops
    return row
