from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.models.checkpoint import CheckpointError
from dexworld.models.picture_metrics import psnr_of, squared_error_map
from dexworld.video.clips.hand_video import painted_hands
from dexworld.video.judge.select_actions import imagined_clips
from dexworld.video.model.dwm import DWM, load_video_model, started_from
from dexworld.video.model.generate import (
    DETAIL_STEPS,
    GenerateConfig,
    Generator,
    SampleConfig,
    SDEdit,
    sample,
    settled,
    with_texts,
)
from dexworld.video.model.video_config import CONDITIONS


def psnr(left, right):
    return psnr_of(squared_error_map(left, right))


@pytest.mark.parametrize(("condition", "reference"), [*((each, False) for each in CONDITIONS), ("mesh", True)])
def test_every_condition_is_saved_and_generates_the_same_video_bit_for_bit(
    make_dwm, square_clips, tmp_path, condition, reference
):
    model = make_dwm(condition=condition, reference=reference)
    model.save_pretrained(tmp_path, {"training_seeds": [0, 3]})
    again = DWM.from_pretrained(tmp_path)
    assert again.provenance == {"training_seeds": [0, 3]}
    first, second = (Generator(each).generate(square_clips[:3], [1, 2, 3]) for each in (model, again))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert not np.array_equal(first[0], square_clips[0].static)


def test_a_new_model_makes_the_static_video_and_kept_detail_gives_back_what_the_codec_lost(make_dwm, square_clips):
    model, clips = make_dwm(output_scale=0), square_clips[:2]
    decoded = Generator(model, GenerateConfig(unchanged="codec", fade=0.0)).generate(clips, [1, 2])
    for made, kept, clip in zip(decoded, Generator(model).generate(clips, [1, 2]), clips, strict=True):
        assert np.array_equal(made, model.decode(model.encode(clip.static[None]))[0].numpy())
        assert np.array_equal(kept, clip.static)


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


def test_sdedit_keeps_more_of_the_scene_the_weaker_it_is(make_dwm, square_clips):
    model = make_dwm(output_scale=0.01, condition="none", prediction="velocity")
    model.provenance = {"training": {"goal": "inpainting"}}
    clips = square_clips[:3]
    errors = []
    for strength in (0.05, 0.9):
        made = SDEdit(model, strength, steps=4).generate(clips, [0, 1, 2])
        errors.append(np.mean([psnr(video, clip.static) for video, clip in zip(made, clips, strict=True)]))
    assert errors[0] > errors[1] + 1


def test_detail_leads_from_the_first_answer_to_a_whole_sample(make_dwm, square_clips):
    model = make_dwm()
    conditions = model.conditions_of(square_clips[:2])

    def drawn(**changes):
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return sample(model, conditions, SampleConfig(**changes), generators)

    mean, whole = drawn(steps=1), drawn(steps=DETAIL_STEPS)
    assert not torch.equal(mean, whole)
    assert torch.equal(drawn(), mean)  # of this model's own one step
    assert torch.equal(drawn(detail=0.0, steps=8), mean)
    assert torch.equal(drawn(detail=1.0), whole)
    torch.testing.assert_close(drawn(detail=0.25), 0.75 * mean + 0.25 * whole)


IMPOSSIBLE = [
    ({"steps": 0}, "at least one"),
    ({"guidance": -1.0}, "negative"),
    ({"detail": 1.5}, "between 0, the mean"),
]


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE)
def test_impossible_sampling_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SampleConfig(**change)


def test_clips_and_conditions_that_do_not_fit_are_named(make_dwm, square_clips):
    clip, parts = square_clips[0], ("interaction", "static", "hands")
    wide = replace(clip, **{name: np.tile(getattr(clip, name), (1, 1, 2, 1)) for name in parts})
    with pytest.raises(ValueError, match="clip000 is 5 frames of 32 x 96, this model takes 5 frames of 32 x 48"):
        Generator(make_dwm()).generate([wide], [0])
    with pytest.raises(ValueError, match="clip000 has no hand_motions"):
        Generator(make_dwm(condition="adaln-frame")).generate([replace(clip, track=None)], [0])


SHAPES = r"proj.weight is \(32, 17, 2, 2\), the model needs \(32, 25, 2, 2\)"
OF_A_DEXWM = ('"control_depth"', '"predictor"', "unknown fields predictor")


@pytest.mark.parametrize(
    ("old", "new", "message"), [('"condition": "none"', '"condition": "mesh"', SHAPES), OF_A_DEXWM]
)
def test_a_checkpoint_of_another_condition_or_kind_does_not_load(make_dwm, tmp_path, old, new, message):
    make_dwm(condition="none").save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace(old, new))
    with pytest.raises(CheckpointError, match=message):
        DWM.from_pretrained(tmp_path)


def test_a_model_is_loaded_ready_to_be_sampled(make_dwm, tmp_path):
    make_dwm().train().save_pretrained(tmp_path)
    model = load_video_model(tmp_path, "cpu")
    assert not model.training
    assert model.device == torch.device("cpu")


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


def test_a_reference_is_the_first_frame_s_skin_or_none_or_a_colour_of_ones_own(make_dwm, square_clips):
    model, dark = make_dwm(reference=True), np.uint8([16, 32, 48])
    torch.nn.init.normal_(model.backbone.transformer.patch_embed.proj.weight, std=0.3)
    clips = [replace(clip, skin=np.uint8([230, 180, 150])) for clip in square_clips[:2]]

    def seen(clips, **config):
        return Generator(model, GenerateConfig(**config)).conditions(clips).reference

    def painted(skin):
        return model.encode(np.stack([painted_hands(clip.hands, skin) for clip in clips]))

    assert torch.equal(seen(clips), painted(clips[0].skin))
    assert torch.equal(seen(imagined_clips(clips)), seen(clips))  # candidates keep the skin, not the outcome
    assert torch.equal(seen(clips, reference="102030"), painted(dark))
    blank = model.blank_hands().expand(2, -1, -1, -1, -1)
    for unseen in (seen(clips, reference="none"), seen(square_clips[:2])):
        torch.testing.assert_close(unseen, blank)
    shown = [Generator(model, GenerateConfig(reference=each)).generate(clips, [0, 0]) for each in ("own", "none")]
    assert not np.array_equal(*shown)


@pytest.mark.parametrize(("condition", "wanted"), [("mesh", "mesh"), ("none", "mask")])
def test_a_reference_changes_nothing_at_first_and_gradient_reaches_it(make_dwm, square_clips, condition, wanted):
    base = make_dwm(condition=condition)
    torch.nn.init.normal_(base.backbone.skip.gates.weight)
    model, _ = started_from(base, wanted, reference=True)
    assert started_from(model, wanted)[0] is model  # it keeps what it sees
    clips = [replace(clip, skin=clip.interaction[0, 8, 8]) for clip in square_clips[:2]]
    first, second = (Generator(each).generate(clips, [0, 1]) for each in (base, model))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    told = model.conditions_of(clips)
    model.denoise(told.static, torch.full((2,), 999), told).square().mean().backward()
    assert model.backbone.transformer.patch_embed.proj.weight.grad[:, -8:].any()
    assert model.backbone.skip.linear.weight.grad[:, -32:].any()


def test_painted_hands_are_shown_over_what_was_generated_by_any_model(make_dwm, square_clips):
    model, clips = make_dwm(), [replace(clip, skin=np.uint8([230, 180, 150])) for clip in square_clips[:2]]
    plain, own, given, unknown = (
        Generator(model, GenerateConfig(paint=paint, reference=shown, unchanged="codec")).generate(clips, [0, 1])
        for paint, shown in ((False, "own"), (True, "own"), (True, "102030"), (True, "none"))
    )
    for index, clip in enumerate(clips):
        hand = clip.hands.any(axis=-1)
        assert (own[index][hand] == (230, 180, 150)).all()
        assert (given[index][hand] == (16, 32, 48)).all()
        assert np.array_equal(plain[index], unknown[index])
    assert Generator(model, GenerateConfig(paint=True)).sees_first_frame
    assert not Generator(model).sees_first_frame


def test_references_that_make_no_sense_are_refused(make_dwm):
    with pytest.raises(ValueError, match="dwm takes no reference"):
        Generator(make_dwm(), GenerateConfig(reference="c8967d"))
    with pytest.raises(ValueError, match=r"reference is 'hand\.png'; choose 'own', 'none' or a colour"):
        GenerateConfig(reference="hand.png")
    with pytest.raises(ValueError, match="'control' shows none"):
        make_dwm(condition="control", reference=True)


def test_sdedit_needs_an_inpainting_model(make_dwm):
    model = make_dwm(condition="none")
    for provenance in ({}, {"training": {"goal": "interaction"}}, {"training": {"goal": "interaction"}, "base": "a/b"}):
        model.provenance = provenance
        with pytest.raises(ValueError, match="SDEdit needs an inpainting model"):
            SDEdit(model)
    for provenance in ({"training": {"goal": "inpainting"}}, {"base": "a/b"}):
        model.provenance = provenance
        assert SDEdit(model).provenance == provenance


@pytest.mark.parametrize("condition", ["adaln-frame", "mesh", "control"])
def test_a_clip_that_comes_twice_in_a_batch_is_shown_twice(make_dwm, square_clips, condition):
    model = make_dwm(condition=condition)
    clips = [square_clips[0], square_clips[1], square_clips[0]]  # several samples of a clip, or chance in training
    conditions = model.conditions_of(clips)
    clean = model.denoise(torch.zeros_like(conditions.static), torch.full((3,), 999), conditions)
    assert torch.equal(clean[0], clean[2])
    if condition == "adaln-frame":
        assert torch.equal(conditions.hand_vectors[0], conditions.hand_vectors[2])
        assert not torch.equal(conditions.hand_vectors[0], conditions.hand_vectors[1])
