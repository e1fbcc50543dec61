"""Tiny transformers in the layouts that CogVideoX-Fun, CogVideoX and Wan are published in."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from vae_fixtures import save_vae, tiny_cogvideox_vae, tiny_wan_vae

SCHEDULERS = {
    "cogvideox": {
        "_class_name": "CogVideoXDDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "set_alpha_to_one": True,
        "snr_shift_scale": 3.0,
        "steps_offset": 0,
        "timestep_spacing": "trailing",
    },
    "wan": {
        "_class_name": "UniPCMultistepScheduler",
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
}


def tiny_cogvideox(in_channels=9, **changes):
    """9 input channels: 4 noisy, 1 mask, 4 masked video, the layout of CogVideoX-Fun's inpainting models."""
    from diffusers import CogVideoXTransformer3DModel

    torch.manual_seed(in_channels)
    settings = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": in_channels, "out_channels": 4}
    settings |= {"time_embed_dim": 16, "text_embed_dim": 8, "num_layers": 2, "sample_width": 6, "sample_height": 4}
    settings |= {"sample_frames": 9, "max_text_seq_length": 3, "use_rotary_positional_embeddings": True}
    return CogVideoXTransformer3DModel(**settings | changes).eval()


def tiny_wan(in_channels=12, **changes):
    """12 input channels: 4 noisy, 4 mask, 4 masked video, the layout of Wan-Fun's inpainting models."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(in_channels)
    settings = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": in_channels, "out_channels": 4}
    settings |= {"text_dim": 8, "ffn_dim": 48, "num_layers": 2}
    return WanTransformer3DModel(**settings | changes).eval()


def save_published(root: Path, kind: str, in_channels: int, shard: str = "10GB", **changes) -> Path:
    """A whole model folder in diffusers' layout: transformer, VAE and scheduler."""
    transformer = tiny_cogvideox(in_channels, **changes) if kind == "cogvideox" else tiny_wan(in_channels, **changes)
    transformer.save_pretrained(root / "transformer", max_shard_size=shard)
    save_vae(tiny_cogvideox_vae() if kind == "cogvideox" else tiny_wan_vae(), root)
    (root / "scheduler").mkdir()
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[kind]))
    return root


# diffusers' name part -> Wan's original one
ORIGINAL_NAMES = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "attn1.": "self_attn.",
    "attn2.": "cross_attn.",
    "to_out.0": "o",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "proj_out": "head.head",
}


def save_original_wan(root: Path, transformer) -> Path:
    """The layout of Wan-Fun: `config.json` and weights with the original names directly in the folder."""
    settings = transformer.config
    weights = {}
    for name, value in transformer.state_dict().items():
        for ours, original in ORIGINAL_NAMES.items():
            name = name.replace(ours, original)
        if name.startswith("blocks."):
            name = name.replace("norm2", "norm#").replace("norm3", "norm2").replace("norm#", "norm3")
        name = "head.modulation" if name == "scale_shift_table" else name.replace("scale_shift_table", "modulation")
        weights[name] = value.contiguous()
    root.mkdir(parents=True, exist_ok=True)
    save_file(weights, root / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    description = {
        "_class_name": "WanModel",
        "dim": settings.num_attention_heads * settings.attention_head_dim,
        "eps": 1e-6,
        "ffn_dim": settings.ffn_dim,
        "freq_dim": settings.freq_dim,
        "in_dim": settings.in_channels,
        "model_type": "t2v" if settings.image_dim is None else "i2v",
        "num_heads": settings.num_attention_heads,
        "num_layers": settings.num_layers,
        "out_dim": settings.out_channels,
        "text_dim": settings.text_dim,
        "text_len": 512,
    }
    (root / "config.json").write_text(json.dumps(description))
    return root


def run_transformer(model, latents=None):
    """The answer (B, f, C, h, w) of either family to latents (B, f, channels, h, w), drawn when not given."""
    generator = torch.Generator().manual_seed(1)
    if latents is None:
        latents = torch.randn(1, 2, model.config.in_channels, 4, 6, generator=generator)
    text, step = torch.ones(len(latents), 3, 8), torch.full((len(latents),), 500)
    if hasattr(model, "condition_embedder"):
        return model(latents.transpose(1, 2), step, text, return_dict=False)[0].transpose(1, 2)
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    frames, rows, columns = latents.shape[1], latents.shape[3] // 2, latents.shape[4] // 2
    rotary = get_3d_rotary_pos_embed(16, ((0, 0), (rows, columns)), (rows, columns), frames)
    return model(latents, text, step, image_rotary_emb=rotary, return_dict=False)[0]
