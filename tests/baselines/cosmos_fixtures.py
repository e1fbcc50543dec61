"""Cosmos' pipelines of diffusers with random weights, tiny: a folder as `save_pretrained` writes it."""

from pathlib import Path

import diffusers
import torch
import transformers
from diffusers.pipelines.cosmos import pipeline_cosmos2_5_predict, pipeline_cosmos2_video2world
from tokenizers import Tokenizer, models, pre_tokenizers

MODULES = {"predict2": pipeline_cosmos2_video2world, "predict2.5": pipeline_cosmos2_5_predict}
WORDS = ["<pad>", "</s>", "<unk>", "take", "the", "red", "cup", "and", "put", "it", "down"]
CHAT = "{% for message in messages %}{{ message['content'][0]['text'] }} {% endfor %}"


class Permissive:
    """Stands for NVIDIA's safety checker, which downloads its weights."""

    refused = ""  # a word

    def check_text_safety(self, text: str) -> bool:
        return not self.refused or self.refused not in text

    def check_video_safety(self, frames):
        return frames

    def to(self, device) -> None:
        pass


def tiny_pipeline(kind: str, folder: Path) -> Path:
    """Write a pipeline of random weights into `folder`; needs `Permissive` in the place of the safety checker."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 512}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **marks)
    vae = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    settings = {"in_channels": 17, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 16}
    settings |= {"num_layers": 1, "mlp_ratio": 1, "text_embed_dim": 16, "adaln_lora_dim": 4, "max_size": (4, 32, 32)}
    settings |= {"concat_padding_mask": False, "extra_pos_embed_type": None, "rope_scale": (1.0, 3.0, 3.0)}
    if kind == "predict2":
        text_settings = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1}
        text = transformers.T5EncoderModel(transformers.T5Config(**text_settings, num_heads=2))
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
        cls = diffusers.Cosmos2VideoToWorldPipeline
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"num_key_value_heads": 2, "vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1}
        sizes |= {"rope_parameters": {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e6}}
        seen = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
        config = transformers.Qwen2_5_VLConfig(text_config=sizes, vision_config=seen)
        text = transformers.Qwen2_5_VLForConditionalGeneration(config)
        tokenizer.chat_template = CHAT
        settings |= {"use_crossattn_projection": True, "crossattn_proj_in_channels": 32}
        settings |= {"encoder_hidden_states_channels": 16}
        scheduler = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, use_karras_sigmas=True)
        cls = diffusers.Cosmos2_5_PredictBasePipeline
    transformer = diffusers.CosmosTransformer3DModel(**settings)
    pipeline = cls(text, tokenizer, transformer, vae, scheduler, safety_checker=Permissive())
    pipeline.register_modules(safety_checker=None)
    pipeline.save_pretrained(folder)
    return folder
