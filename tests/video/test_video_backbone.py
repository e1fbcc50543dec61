from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from dexworld.video.model.backbone import Backbone, run_cogvideox
from dexworld.video.model.patch_embedding import patch_embedding, widen_patch_embedding
from dexworld.video.model.video_config import CONCATENATED, CONDITIONS, DWMConfig, preset

pytest.importorskip("diffusers")


@pytest.fixture
def config():
    return preset("debug")


# kind, condition, skip maps: every way through the forward pass.
BUILT = [
    ("cogvideox", "mesh", 0),
    ("cogvideox", "none", 0),
    ("cogvideox", "adaln-frame", 0),
    ("cogvideox", "adaln-global", 2),
    ("cogvideox", "control", 0),
    ("wan", "mesh", 0),
]


def built(config, kind, condition="mesh", maps=0):
    return replace(config, backbone=replace(config.backbone, kind=kind, skip_maps=maps), condition=condition)


def inputs(config, batch=2):
    clip, text = config.clip, config.backbone
    torch.manual_seed(3)
    shape = (batch, clip.latent_frames, config.in_channels, clip.latent_height, clip.latent_width)
    latents = (batch, clip.latent_frames, config.codec.channels, clip.latent_height, clip.latent_width)
    return {
        "channels": torch.randn(shape),
        "timestep": torch.arange(batch) * 400 + 100,
        "text": torch.randn(batch, text.text_tokens, text.text_dim),
        "hand_vectors": torch.randn(batch, clip.frames, 128),
        "control": torch.randn(latents),
    }


def unzeroed(backbone):
    torch.nn.init.normal_(backbone.transformer.proj_out.weight, std=0.1)
    return backbone


def test_our_loop_over_the_blocks_equals_diffusers_forward(config):
    backbone = unzeroed(Backbone(config))
    given = inputs(config)
    rotary = backbone._rotary(given["channels"])
    ours, _ = run_cogvideox(backbone.transformer, given["channels"], given["text"], given["timestep"], rotary)
    arguments = {"image_rotary_emb": rotary, "return_dict": False}
    theirs = backbone.transformer(given["channels"], given["text"], given["timestep"], **arguments)[0]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_starts_as_its_base(config, condition):
    base = unzeroed(Backbone(replace(config, condition="none")))
    changed = replace(config, condition=condition)
    transformer = widen_patch_embedding(deepcopy(base.transformer), changed.in_channels)
    given = inputs(changed)
    plain = given | {"channels": given["channels"][:, :, : base.config.in_channels]}
    torch.testing.assert_close(Backbone(changed, transformer)(**given), base(**plain), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("condition", [each for each in CONDITIONS if each != "none"])
def test_gradient_reaches_every_weight_that_lets_hands_in(config, condition):
    torch.manual_seed(0)
    backbone = unzeroed(Backbone(replace(config, condition=condition)))
    given = inputs(backbone.config)
    target = torch.randn_like(given["control"])
    optimiser = torch.optim.SGD(backbone.parameters(), lr=0.5)
    for _ in range(2):  # after one step the layers that started at zero let gradient through to those before
        optimiser.zero_grad()
        (backbone(**given) - target).square().mean().backward()
        optimiser.step()
    if condition in CONCATENATED:
        reached = [backbone.transformer.patch_embed.proj.weight.grad[:, 17:]]
    elif condition == "control":
        reached = [each.grad for each in backbone.control.parameters()]
    else:
        reached = [each.grad for each in backbone.hand_embedding.parameters()]
        reached += [
            norm.hands.weight.grad
            for block in backbone.transformer.transformer_blocks
            for norm in (block.norm1, block.norm2)
        ]
    # text outputs of the last block go nowhere, so single entries may be zero; no tensor may be
    assert all(each is not None and each.abs().sum() > 0 for each in reached[:-2])
    assert sum(float(each.abs().sum()) > 0 for each in reached[-2:] if each is not None) >= 1


def moved_frames(backbone, given, frame):
    """In which latent frames the first block's modulated norm changes when one pixel frame's hands change."""
    norm = backbone.transformer.transformer_blocks[0].norm1
    torch.nn.init.normal_(norm.hands.weight, std=0.1)
    outputs = []
    norm.register_forward_hook(lambda module, arguments, output: outputs.append(output[0].detach()))
    backbone(**given)
    changed = given["hand_vectors"].clone()
    changed[:, frame] += 1.0
    backbone(**(given | {"hand_vectors": changed}))
    difference = (outputs[0] - outputs[1]).abs().unflatten(1, (backbone.config.clip.latent_frames, -1))
    return difference.amax(dim=(0, 2, 3))


def test_adaln_modulates_each_token_by_its_own_frame_or_all_alike():
    long = replace(preset("debug"), clip=replace(preset("debug").clip, frames=17))
    own, alike = (replace(long, condition=condition) for condition in ("adaln-frame", "adaln-global"))
    change = moved_frames(Backbone(own), inputs(own), frame=14)  # in latent frame 4 of 0 to 4
    assert change[4] > 10 * change[1]
    assert (change[:3] == 0).all()  # only neighbours mix, so the first three never hear of it
    assert (moved_frames(Backbone(alike), inputs(alike), frame=14) > 0).all()


@pytest.mark.parametrize(("kind", "condition", "maps"), [*BUILT, ("cogvideox", "mesh", 2)])
def test_recomputing_changes_no_gradient(config, kind, condition, maps):
    backbone = unzeroed(Backbone(built(config, kind, condition, maps)))
    given = inputs(backbone.config)
    gradients = []
    for enabled in (False, True):
        backbone.recompute(enabled)
        backbone.zero_grad()
        backbone(**given).square().mean().backward()
        gradients.append(patch_embedding(backbone.transformer).weight.grad.clone())
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


def test_the_presets_have_the_input_channels_of_the_published_layouts():
    for name, with_hands, without in (("cogvideox-fun-5b", 49, 33), ("wan2.1-fun-14b", 52, 36)):
        assert preset(name).in_channels == with_hands
        assert replace(preset(name), condition="none").in_channels == without


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condition": "gloves"}, "choose from mesh, mask"),
        ({"prediction": "epsilon"}, "velocity"),
        ({"control_depth": 0}, "at least one block"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DWMConfig(**change)
    with pytest.raises(ValueError, match="wan backbone takes"):  # it has no place for a control branch
        built(preset("debug"), "wan", "control")
