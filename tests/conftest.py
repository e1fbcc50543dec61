"""Every test process computes on one thread: the suite runs in parallel processes, and small matrices gain nothing."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch and NumPy load their thread pools; child processes inherit it

import torch

torch.set_num_threads(1)
