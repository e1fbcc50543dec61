"""How fast a run is: samples and operations per second, and the share of the devices' peak (MFU).

Operations are those of the closed forms in `cost.py`, recomputation not counted, so the share is "model FLOPs
utilization" as in Chowdhery et al., "PaLM", 2022, appendix B.

Peaks are those of dense bfloat16 products that are summed in float32. Source: NVIDIA's data sheets of A100, A10, H100,
H200, L4, L40, L40S and of HGX B200, and for RTX 4090 the paper on the Ada architecture (its 330.3 are summed in
float16). Where a sheet gives the figure "with sparsity" only, it is half of that: H100 SXM and H200 1,979, H100 PCIe
1,513, H100 NVL 1,671, L4 242, eight B200 36,000.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

# 10^12 operations per second by the name that the driver gives.
PEAK_BFLOAT16_TFLOPS = {
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA A10": 125.0,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H200": 989.4,
    "NVIDIA B200": 2250.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40": 181.05,
    "NVIDIA L40S": 362.05,
    "NVIDIA GeForce RTX 4090": 165.2,
}


def known_peak(device: torch.device, bfloat16: bool) -> float | None:
    """The peak of `device` in 10^12 operations per second; None where it is not known."""
    if device.type != "cuda" or not bfloat16:
        return None
    return PEAK_BFLOAT16_TFLOPS.get(torch.cuda.get_device_name(device))


@dataclass
class Meter:
    """Counts what steps took since the last figures; batches count whole, over all devices.

    flops: operations of training on one sample of batch number i, or None where no closed form is known. devices: how
    many share a batch. peak_tflops: of one device, or None.
    """

    flops: Callable[[int], float] | None = None
    devices: int = 1
    peak_tflops: float | None = None
    seconds: float = field(default=0.0, init=False)
    samples: int = field(default=0, init=False)
    operations: float = field(default=0.0, init=False)

    def add(self, index: int, samples: int, seconds: float) -> None:
        """Count `samples` samples of batches like number `index`, which took `seconds`, loading included."""
        self.samples += samples
        self.seconds += seconds
        if self.flops is not None:
            self.operations += samples * self.flops(index)

    def figures(self) -> dict[str, float]:
        """samples_per_second, tflops (of one device) and mfu, as far as they are known; counting starts anew."""
        seconds = max(self.seconds, 1e-9)
        figures = {"samples_per_second": self.samples / seconds}
        if self.flops is not None:
            tflops = self.operations / seconds / self.devices / 1e12
            figures["tflops"] = tflops
            if self.peak_tflops is not None:
                figures["mfu"] = tflops / self.peak_tflops
        self.seconds, self.samples, self.operations = 0.0, 0, 0.0
        return figures
