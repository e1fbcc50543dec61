"""Tiny video models in the published layouts, saved by diffusers' own `save_pretrained`."""

from pathlib import Path

import torch


def tiny_cogvideox_vae(**changes):
    """A CogVideoX VAE of 8 x 8 cells and 4 frames, with the 5B model's scaling factor."""
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(3)
    settings = {"block_out_channels": (8, 8, 8, 8), "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2}
    settings |= {"scaling_factor": 0.7, "sample_height": 32, "sample_width": 48}
    return AutoencoderKLCogVideoX(**settings | changes).eval()


def tiny_wan_vae(**changes):
    """A Wan VAE of 8 x 8 cells and 4 frames, with a mean and standard deviation per channel."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(3)
    settings = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    settings |= {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 1.0, 2.0, 1.5]}
    return AutoencoderKLWan(**settings | changes).eval()


def save_vae(vae, root: Path) -> Path:
    """Save into `root/vae`, as published models have it; gives `root`."""
    vae.save_pretrained(root / "vae")
    return root
