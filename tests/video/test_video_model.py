from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.models.checkpoint import CheckpointError
from dexworld.models.picture_metrics import psnr_of, squared_error_map
from dexworld.video.clips.clip import camera_vectors
from dexworld.video.model.dwm import DWM
from dexworld.video.model.generate import GenerateConfig, Generator, SDEdit, settled
from dexworld.video.model.sampler import SampleConfig, sample
from dexworld.video.model.video_config import CONDITIONS, preset


def psnr(left, right):
    return psnr_of(squared_error_map(left, right))


def conditions_of(model, clips):
    return model.conditions_of(
        np.stack([clip.static for clip in clips]),
        np.stack([clip.hands for clip in clips]),
        np.stack([clip.interaction[:1] for clip in clips]),
        np.stack([camera_vectors(clip.track) for clip in clips]),
    )


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_is_saved_and_generates_the_same_video_bit_for_bit(make_dwm, square_clips, tmp_path, condition):
    model = make_dwm(condition=condition)
    model.save_pretrained(tmp_path, {"training_seeds": [0, 3]})
    again = DWM.from_pretrained(tmp_path)
    assert again.provenance == {"training_seeds": [0, 3]}
    first, second = (Generator(each).generate(square_clips[:3], [1, 2, 3]) for each in (model, again))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert not np.array_equal(first[0], square_clips[0].static)


def test_without_hands_an_overlay_model_is_told_of_nothing_but_the_scene(make_dwm, square_clips):
    conditions = conditions_of(make_dwm(condition="overlay"), square_clips[:2])
    assert not torch.equal(conditions.hands, conditions.static)
    assert torch.equal(conditions.without_hands().hands, conditions.static)


def test_a_new_model_makes_the_static_video(make_dwm, square_clips):
    model = make_dwm(output_scale=0)
    made = Generator(model, GenerateConfig(detail="codec", fade=0.0)).generate(square_clips[:2], [1, 2])
    for video, clip in zip(made, square_clips, strict=False):
        assert np.array_equal(video, model.decode(model.encode(clip.static[None]))[0].numpy())


def test_kept_detail_gives_back_what_the_codec_lost(make_dwm, square_clips):
    made = Generator(make_dwm(output_scale=0)).generate(square_clips[:2], [1, 2])
    assert all(np.array_equal(video, clip.static) for video, clip in zip(made, square_clips, strict=False))


def test_large_changes_are_shown_alone_and_small_ones_mixed_with_the_scene():
    decoded, static = (torch.full((1, 1, 32, 40, 3), value, dtype=torch.uint8) for value in (100, 110))
    made = decoded.clone()
    made[..., :20, :] = 200
    made[..., 30:, :] = 104
    shown = settled(made, decoded, static, fade=0.1)
    assert (shown[..., :18, :] == 200).all()
    assert (shown[..., 22:28, :] == 110).all()  # nothing was generated: the scene itself, not the codec's picture of it
    share = (4 / 255) / 0.1
    assert abs(int(shown[0, 0, 16, 38, 0]) - (share * 104 + (1 - share) * 110)) <= 1


def test_a_video_depends_on_its_own_seed_and_not_on_its_batch(make_dwm, square_clips):
    model = make_dwm()
    together = Generator(model).generate(square_clips[:3], [5, 6, 7])
    alone = Generator(model).generate(square_clips[1:2], [6])[0]
    other = Generator(model).generate(square_clips[1:2], [8])[0]
    assert np.abs(together[1].astype(int) - alone).max() <= 1  # rounding of batched products
    assert not np.array_equal(alone, other)


def test_blank_hands_are_another_input_than_hands(make_dwm, square_clips):
    model = make_dwm()
    torch.nn.init.normal_(model.backbone.transformer.patch_embed.proj.weight, std=0.1)
    methods = [Generator(model, GenerateConfig(hands=hands)) for hands in (True, False)]
    seen, blank = (method.generate(square_clips[:1], [0])[0] for method in methods)
    assert not np.array_equal(seen, blank)


def test_more_hand_guidance_exaggerates_what_the_hands_change(make_dwm, square_clips):
    model = make_dwm()
    torch.nn.init.normal_(model.backbone.transformer.patch_embed.proj.weight, std=0.1)
    conditions = conditions_of(model, square_clips[:2])
    one_step = []
    for given, scale in ((conditions, 1.0), (conditions.without_hands(), 1.0), (conditions, 3.0)):
        generators = [torch.Generator().manual_seed(0) for _ in range(2)]
        one_step.append(sample(model, given, SampleConfig(steps=1, hand_guidance=scale), generators))
    torch.testing.assert_close(one_step[2], one_step[1] + 3 * (one_step[0] - one_step[1]), atol=1e-4, rtol=1e-3)


def test_sdedit_keeps_more_of_the_scene_the_weaker_it_is(make_dwm, square_clips):
    model = make_dwm(output_scale=0.01, condition="none", prediction="velocity")
    model.provenance = {"training": {"goal": "inpainting"}}
    clips = square_clips[:3]
    errors = []
    for strength in (0.05, 0.9):
        made = SDEdit(model, strength, steps=4).generate(clips, [0, 1, 2])
        errors.append(np.mean([psnr(video, clip.static) for video, clip in zip(made, clips, strict=True)]))
    assert errors[0] > errors[1] + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "at least one"),
        ({"strength": 0.5}, "start='static'"),
        ({"start": "static", "strength": 1.5}, r"\(0, 1\]"),
        ({"guidance": -1.0}, "negative"),
    ],
)
def test_impossible_sampling_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SampleConfig(**change)


def test_clips_and_conditions_that_do_not_fit_are_named(make_dwm, square_clips):
    clip, parts = square_clips[0], ("interaction", "static", "hands")
    wide = replace(clip, **{name: np.tile(getattr(clip, name), (1, 1, 2, 1)) for name in parts})
    with pytest.raises(ValueError, match="clip000 is 5 frames of 32 x 96, this model takes 5 of 32 x 48"):
        Generator(make_dwm()).generate([wide], [0])
    with pytest.raises(ValueError, match="clip000 has no hand_motions"):
        Generator(make_dwm(condition="adaln-frame")).generate([replace(clip, track=None)], [0])
    with pytest.raises(ValueError, match="needs the clip's hands"):
        make_dwm(condition="mesh").conditions(torch.zeros(1, 2, 8, 4, 6))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"condition": "none"',
            '"condition": "mesh"',
            r"proj.weight is \(32, 17, 2, 2\), the model needs \(32, 25, 2, 2\)",
        ),
        ('"control_depth"', '"predictor"', "unknown fields predictor"),  # of a DexWM
    ],
)
def test_a_checkpoint_of_another_condition_or_kind_does_not_load(make_dwm, tmp_path, old, new, message):
    make_dwm(condition="none").save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace(old, new))
    with pytest.raises(CheckpointError, match=message):
        DWM.from_pretrained(tmp_path)


def test_a_truncated_checkpoint_says_so(make_dwm, tmp_path):
    make_dwm().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        DWM.from_pretrained(tmp_path)


def test_velocity_models_denoise_through_the_schedule(make_dwm, square_clips):
    model = make_dwm(prediction="velocity", output_scale=0)
    torch.nn.init.zeros_(model.backbone.transformer.proj_out.weight)
    torch.nn.init.zeros_(model.backbone.transformer.proj_out.bias)
    conditions = conditions_of(model, square_clips[:1])
    noisy, timestep = torch.randn_like(conditions.static), torch.tensor([400])
    torch.testing.assert_close(model.denoise(noisy, timestep, conditions), model.process.alpha[400] * noisy)


def test_unknown_presets_are_refused():
    with pytest.raises(ValueError, match="choose from"):
        preset("huge")
