"""LoRA adapters: they change nothing at first, only they and the patch embedding train, and they reload exactly."""

import pytest
import torch
from pretrained_fixtures import run_transformer, tiny_cogvideox, tiny_wan
from safetensors.torch import load_file, save_file

from dexworld.models.checkpoint import CheckpointError
from dexworld.video.model.lora import (
    LORA_FILE,
    OTHER_FILE,
    LoRAConfig,
    add_lora,
    load_adapter,
    read_adapter,
    save_adapter,
)
from dexworld.video.model.published_parts import require

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")


def cogvideox():
    return tiny_cogvideox(13)


def wan():
    return tiny_wan(16)


def trained(build, steps=2):
    model = add_lora(build(), LoRAConfig(rank=2, alpha=4))
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        run_transformer(model).square().mean().backward()
        optimiser.step()
    return model.eval()


FAMILIES = pytest.mark.parametrize("build", [cogvideox, wan])


@FAMILIES
def test_fresh_adapters_change_no_bit_and_leave_the_global_random_state(build):
    model = build().eval()
    with torch.no_grad():
        before, state = run_transformer(model), torch.get_rng_state()
        assert torch.equal(run_transformer(add_lora(model, LoRAConfig(rank=2, alpha=2))), before)
    assert torch.equal(torch.get_rng_state(), state)


@FAMILIES
def test_only_adapters_and_the_whole_patch_embedding_train(build):
    model = add_lora(build(), LoRAConfig(rank=2, alpha=2))
    names = {name for name, value in model.named_parameters() if value.requires_grad}
    other = {name for name in names if ".lora_" not in name}
    embedding = "patch_embed.proj" if build is cogvideox else "patch_embedding"
    assert other == {f"{embedding}.weight", f"{embedding}.bias"}
    attentions = 1 if build is cogvideox else 2  # Wan has a cross-attention as well
    assert len(names - other) == 2 * 2 * 4 * attentions  # two layers, A and B, four projections
    run_transformer(model).square().mean().backward()
    assert all((value.grad is not None) == value.requires_grad for value in model.parameters())


@FAMILIES
def test_a_saved_adapter_reloads_on_its_base_bit_for_bit(build, tmp_path):
    model = trained(build)
    save_adapter(model, tmp_path, base="some/base", about={"step": 2})
    again = load_adapter(build(), tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(run_transformer(again), run_transformer(model))
        assert not torch.equal(run_transformer(build().eval()), run_transformer(model))
    saved = read_adapter(tmp_path)
    assert (saved["base"], saved["step"], saved["rank"], saved["alpha"]) == ("some/base", 2, 2, 4)
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name for name, value in again.named_parameters() if value.requires_grad} == trainable


@FAMILIES
def test_diffusers_loads_a_saved_adapter_with_its_scale(build, tmp_path):
    model, theirs = trained(build), build().eval()
    save_adapter(model, tmp_path)
    theirs.load_lora_adapter(tmp_path, weight_name=LORA_FILE, prefix="transformer")
    assert not theirs.load_state_dict(load_file(tmp_path / OTHER_FILE), strict=False).unexpected_keys
    with torch.no_grad():
        assert torch.equal(run_transformer(theirs), run_transformer(model))


def test_an_adapter_in_the_releases_layout_has_alpha_equal_to_its_rank(tmp_path):
    model = trained(cogvideox)
    save_adapter(model, tmp_path)
    (tmp_path / "adapter.json").unlink()
    again = load_adapter(cogvideox(), tmp_path)
    assert again.peft_config["default"].r == again.peft_config["default"].lora_alpha == 2


PAIR = "transformer.transformer_blocks.0.attn1.to_q.lora_B.weight"


@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        (OTHER_FILE, "patch_embed.proj.bias", r"missing 1 .*proj\.bias; unexpected 1 .*strange"),
        (LORA_FILE, PAIR, r"missing 1 tensors: .*to_q\.lora_B\.weight; unexpected 1 .*strange"),
    ],
)
def test_missing_and_unexpected_tensors_are_all_named(file, name, message, tmp_path):
    save_adapter(trained(cogvideox), tmp_path)
    tensors = load_file(tmp_path / file)
    tensors["strange"] = tensors.pop(name)
    save_file(tensors, tmp_path / file)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(cogvideox(), tmp_path)


def test_an_adapter_of_another_channel_count_is_refused(tmp_path):
    save_adapter(trained(cogvideox), tmp_path)
    model = cogvideox()
    model.patch_embed.proj = torch.nn.Conv2d(9, 32, 2, 2)
    with pytest.raises(CheckpointError, match=r"proj\.weight is \(32, 13, 2, 2\), the model needs \(32, 9, 2, 2\)"):
        load_adapter(model, tmp_path)


def test_adapters_are_not_added_twice_and_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="already"):
        add_lora(add_lora(cogvideox(), LoRAConfig(rank=2, alpha=2)))
    with pytest.raises(CheckpointError, match=LORA_FILE):
        load_adapter(cogvideox(), tmp_path)
    with pytest.raises(ImportError, match=r"needs no_such_package.*pip install 'dexworld\[video\]'"):
        require("torch", "no_such_package")
