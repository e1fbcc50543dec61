"""Trained models made ready: the device, the prompts that they know, and what SDEdit asks of them."""

import numpy as np
import pytest
import torch

from dexworld.video.model.dwm import chosen_device, load_video_model
from dexworld.video.model.generate import GenerateConfig, Generator, SDEdit, with_texts
from dexworld.video.model.sampler import SampleConfig


def test_a_model_is_loaded_ready_to_be_sampled(make_dwm, tmp_path):
    make_dwm().train().save_pretrained(tmp_path)
    model = load_video_model(tmp_path, "cpu")
    assert not model.training
    assert model.device == torch.device("cpu")
    assert load_video_model(tmp_path).device.type == chosen_device().type


def test_a_model_that_knows_prompts_is_not_sampled_without_them(make_dwm, square_clips):
    generator = Generator(make_dwm())
    generator.model.provenance["text_encoder"] = "some/encoder"
    with pytest.raises(ValueError, match=r"trained with prompts \(some/encoder\)"):
        generator.generate(square_clips[:1], [0])
    with pytest.raises(ValueError, match="trained with prompts"):
        with_texts(generator, [], None)


def test_guidance_without_text_is_refused(make_dwm, square_clips):
    with pytest.raises(ValueError, match=r"guidance is 3.*no text"):
        Generator(make_dwm(), GenerateConfig(SampleConfig(guidance=3.0))).generate(square_clips[:1], [0])


def test_a_clip_is_generated_by_its_prompt(make_dwm, square_clips, monkeypatch):
    model = make_dwm()
    torch.nn.init.normal_(model.backbone.transformer.patch_embed.text_proj.weight)
    prompts = [clip.prompt for clip in square_clips[:2]]
    embedded = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    texts = dict(zip(prompts, embedded, strict=True))
    monkeypatch.setattr("dexworld.video.model.generate.embed_prompts", lambda *arguments, **options: texts)
    spoken = with_texts(Generator(model), prompts, "some/encoder")
    assert torch.equal(spoken.conditions(square_clips[:2]).text, embedded)
    told, silent = (each.generate(square_clips[:1], [0])[0] for each in (spoken, Generator(model)))
    assert not np.array_equal(told, silent)
    with pytest.raises(ValueError, match="prompt of clip005 was not embedded"):
        spoken.generate(square_clips[5:6], [0])


def test_sdedit_needs_an_inpainting_model(make_dwm):
    model = make_dwm(condition="none")
    for provenance in ({}, {"training": {"goal": "interaction"}}, {"training": {"goal": "interaction"}, "base": "a/b"}):
        model.provenance = provenance
        with pytest.raises(ValueError, match="SDEdit needs an inpainting model"):
            SDEdit(model)
    for provenance in ({"training": {"goal": "inpainting"}}, {"base": "a/b"}):
        model.provenance = provenance
        assert SDEdit(model).provenance == provenance
