"""Widening of the patch embedding: nothing changes at the start, and the new channels can learn."""

import pytest
import torch
from pretrained_fixtures import run_transformer, tiny_cogvideox, tiny_wan

from dexworld.video.model.patch_embedding import channel_columns, patch_embedding, widen_patch_embedding, widen_weight

diffusers = pytest.importorskip("diffusers")


# (model, latent channels 4): text-to-video and inpainting bases of both families
BASES = [(tiny_cogvideox, 4, 13), (tiny_cogvideox, 9, 13), (tiny_wan, 4, 16), (tiny_wan, 12, 16)]


@pytest.mark.parametrize(("build", "narrow", "wide"), BASES)
def test_gradient_reaches_the_new_channels_and_one_step_makes_them_matter(build, narrow, wide):
    model, state = build(narrow), torch.get_rng_state()
    bias = patch_embedding(model).bias.clone()
    widen_patch_embedding(model, wide)
    assert torch.equal(patch_embedding(model).bias, bias)
    assert torch.equal(torch.get_rng_state(), state)
    assert patch_embedding(model).in_channels == wide == model.config.in_channels
    latents = torch.randn(2, 2, wide, 4, 6, generator=torch.Generator().manual_seed(1))
    run_transformer(model, latents).square().mean().backward()
    conv = patch_embedding(model)
    assert (conv.weight.grad[:, narrow:].flatten(2).abs().amax(dim=(0, 2)) > 0).all()
    with torch.no_grad():
        before = run_transformer(model, latents)
        conv.weight -= 0.1 * conv.weight.grad
        moved = latents.clone()
        moved[:, :, narrow:] = 0
        assert not torch.equal(run_transformer(model, moved), run_transformer(model, latents))
        assert not torch.equal(run_transformer(model, latents), before)


def test_an_unknown_channel_count_is_refused_with_the_known_ones_and_channels_are_never_dropped():
    with pytest.raises(ValueError, match=r"has 40 input channels.*16 .*32 .*33 .*49"):
        channel_columns(40, latent=16, mask=1)
    with pytest.raises(ValueError, match="33 input channels does not fit into 16"):
        widen_weight(torch.zeros(2, 33, 2, 2), 16)


def test_temporal_patches_of_cogvideox_1_5_are_refused():
    model = tiny_cogvideox(4)
    model.patch_embed.proj = torch.nn.Linear(32, 32)
    with pytest.raises(ValueError, match=r"CogVideoX 1\.5"):
        widen_patch_embedding(model, 13)
