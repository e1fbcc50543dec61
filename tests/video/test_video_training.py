import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dexworld.models.perceptual import Lite0Distance
from dexworld.training.checkpoints import ResumeError
from dexworld.training.trainer import Trainer, TrainingDiverged
from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import finish_triplets, open_triplets
from dexworld.video.model.clip_latents import encode_folder, latent_file
from dexworld.video.model.dwm import DWM, started_from
from dexworld.video.model.generate import GenerateConfig, Generator
from dexworld.video.model.lora import has_lora
from dexworld.video.model.perceptual_term import PerceptualTerm
from dexworld.video.model.train_video import VideoRunConfig, seed_ranges, train_video
from dexworld.video.model.video_task import VideoTask, VideoTrainConfig, denoising_loss
from encoder_fixtures import lite0_weights, save_lite0

CPU = torch.device("cpu")


def written(clips, root):
    for clip in clips:
        write_triplet(root, clip)
    return finish_triplets(root, {"generator": "test"}, {clip.name: clip.seed for clip in clips})


@pytest.fixture(scope="module")
def folder(square_clips, tmp_path_factory):
    return written(square_clips[:8], tmp_path_factory.mktemp("triplets"))


@pytest.fixture(scope="module")
def held_out(square_clips, tmp_path_factory):
    return written(square_clips[8:], tmp_path_factory.mktemp("held-out"))


@pytest.fixture
def make_run(folder, held_out, tmp_path):
    def make(output="run", training=None, **changes):
        settings = {"steps": 6, "batch_size": 4, "warmup_steps": 1, "checkpoint_every": 3, "validate_every": 3}
        training = VideoTrainConfig(**(settings | {"log_every": 2, "validation_clips": 4} | (training or {})))
        defaults = {"data": (folder.root,), "validation_data": (held_out.root,), "preset": "debug", "codec_clips": 8}
        return VideoRunConfig(output=tmp_path / output, training=training, **(defaults | changes))

    return make


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def task_of(model, folder, weights=(), **changes):
    config = VideoTrainConfig(**({"batch_size": 4} | changes))
    return VideoTask(model, config, [encode_folder(folder, model)] * max(1, len(weights)), weights)


def test_a_run_leaves_a_model_with_its_provenance(make_run):
    run = make_run()
    model = DWM.from_pretrained(train_video(run))
    assert model.provenance["training_seeds"] == [[0, 7]]
    assert model.provenance["finished"] is True
    checkpoint = DWM.from_pretrained(run.output / "checkpoints" / "step-00000003").provenance
    assert (checkpoint["training_seeds"], checkpoint["finished"]) == ([[0, 7]], False)
    assert set(model.provenance["figures"]) == {"loss", "changed", "unchanged"}
    assert model.provenance["datasets"][0]["clips"] == 8


def test_scenes_that_an_ancestor_has_seen_are_recorded_and_not_validated_on(make_run, held_out):
    first = train_video(make_run("first", data=(held_out.root,), validation_data=()))
    with pytest.raises(ValueError, match=r"4 of 4 validation clips.*first seed is 8"):
        train_video(make_run("second", initial=str(first)))
    second = DWM.from_pretrained(train_video(make_run("third", initial=str(first), validation_data=())))
    assert second.provenance["training_seeds"] == [[0, 7], [8, 11]]


def test_a_continued_run_keeps_its_codec_instead_of_fitting_another(make_run, monkeypatch):
    run = make_run(training={"checkpoint_every": 1})
    train_video(replace(run, training=replace(run.training, max_seconds=1e-9)))
    monkeypatch.setattr("dexworld.video.model.train_video.fit_codec", lambda *arguments: pytest.fail("fitted again"))
    assert DWM.from_pretrained(train_video(run)).provenance["steps"] == 6


def test_a_control_model_is_never_taught_to_stand_still(make_dwm, folder):
    batch, _ = task_of(make_dwm(condition="control"), folder, hand_dropout=1.0).batch(0, CPU)
    kept, _ = task_of(make_dwm(condition="control"), folder, hand_dropout=0.0).batch(0, CPU)
    assert torch.equal(batch.clean, kept.clean)
    assert torch.equal(batch.conditions.hands, kept.conditions.hands)


def test_inpainting_is_validated_on_masks(make_run):
    run = make_run(condition="none", training={"goal": "inpainting", "steps": 2, "validation_clips": 8})
    found = DWM.from_pretrained(train_video(run)).provenance["figures"]
    assert set(found) == {"loss", "hidden", "known"}
    assert found["hidden"] == pytest.approx(1.0, abs=0.1)  # next to untrained: the masks stay empty


def test_adapters_on_a_model_of_ours_load_again_and_resume_on_their_own_base_only(make_run, square_clips):
    base = train_video(make_run("base", condition="none"))
    run = make_run("adapter", initial=str(base), lora_rank=2, training={"learning_rate": 0.01})
    trained = train_video(run)
    model = DWM.from_pretrained(trained)
    assert has_lora(model.backbone.transformer)
    assert model.config.condition == "mesh"
    assert model.provenance["base"] == str(base)
    kept = DWM.from_pretrained(base)
    assert torch.equal(model.backbone.skip.linear.weight[:, : 4 * 17], kept.backbone.skip.linear.weight)
    interrupted = DWM.from_pretrained(run.output / "checkpoints" / "step-00000006")
    videos = [Generator(each).generate(square_clips[:2], [0, 1]) for each in (model, interrupted, kept)]
    assert all(np.array_equal(*pair) for pair in zip(videos[0], videos[1], strict=True))
    assert not np.array_equal(videos[0][0], videos[2][0])
    other = train_video(make_run("other", condition="none", training={"seed": 1}))
    with pytest.raises(ResumeError, match="frozen is"):
        train_video(replace(run, initial=str(other)))


@pytest.mark.parametrize("condition", ["adaln-frame", "adaln-global", "control"])
def test_adapters_that_would_lose_layers_are_refused(make_run, condition):
    base = train_video(make_run("base", condition="none", training={"steps": 1}))
    with pytest.raises(ValueError, match=f"{condition}.*train in full"):
        train_video(make_run("adapter", initial=str(base), condition=condition, lora_rank=2))


def test_a_run_that_is_cut_short_ends_with_the_same_bytes(make_run):
    whole = weights_of(train_video(make_run("whole")))
    run = make_run("cut")
    train_video(replace(run, training=replace(run.training, max_seconds=1e-9)))
    assert DWM.from_pretrained(run.output / "model").provenance["steps"] == 1
    (run.output / "checkpoints" / "latest").write_bytes(b"")  # as a full disk leaves it
    assert weights_of(train_video(run)) == whole


def test_the_trainer_steps_along_the_mean_gradient_of_the_batches_that_it_accumulates(make_dwm, folder, tmp_path):
    model = make_dwm()
    config = VideoTrainConfig(batch_size=4, accumulation=2, clip=1e9, ema=0.0, learning_rate=0.1, warmup_steps=0)
    task = VideoTask(model, config, [encode_folder(folder, model)])
    weight = model.backbone.transformer.proj_out.weight
    gradients = []
    for index in (0, 1):
        model.backbone.zero_grad()
        task.losses(task.batch(index, CPU)[0], index)["loss"].backward()
        gradients.append(weight.grad.clone())
    trainer = Trainer(model, config, task, tmp_path)
    trainer.optimiser = torch.optim.SGD(trainer.parameters.values(), lr=0.1)
    before = weight.detach().clone()
    _, samples = trainer._train_step()
    assert samples == 8
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)
    torch.testing.assert_close(before - weight.detach(), 0.1 * (gradients[0] + gradients[1]) / 2, atol=1e-6, rtol=1e-4)


def test_other_settings_do_not_resume(make_run):
    run = make_run()
    train_video(run)
    with pytest.raises(ResumeError, match=r"hand_dropout is 0\.5"):
        train_video(replace(run, training=replace(run.training, hand_dropout=0.5, steps=12)))


def test_a_batch_depends_on_seed_and_index_alone(make_dwm, folder):
    model = make_dwm()
    first, again, other = (task_of(model, folder).batch(index, CPU)[0] for index in (3, 3, 4))
    assert torch.equal(first.clean, again.clean)
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.noise, other.noise)


def test_without_hands_the_target_is_the_static_video(make_dwm, folder):
    model = make_dwm()
    batch, _ = task_of(model, folder, hand_dropout=1.0).batch(0, CPU)
    assert torch.equal(batch.clean, batch.conditions.static)
    assert torch.equal(batch.conditions.hands[0], model.blank_hands()[0])
    kept, _ = task_of(model, folder, hand_dropout=0.0).batch(0, CPU)
    assert not torch.equal(kept.clean, kept.conditions.static)


def test_the_loss_of_a_velocity_model_is_the_plain_error_of_the_velocity(make_dwm, folder):
    model = make_dwm(prediction="velocity")
    batch, _ = task_of(model, folder).batch(0, CPU)
    batch = replace(batch, timestep=torch.tensor([200, 400, 700, 999]))
    noisy = model.process.noisy(batch.clean, batch.noise, batch.timestep)
    with torch.no_grad():
        answer = model.backbone(batch.conditions.channels(noisy, model.config.in_channels), batch.timestep)
        expected = (answer - model.process.velocity(batch.clean, batch.noise, batch.timestep)).square().mean()
        loss = denoising_loss(model, batch, weight_cap=5.0)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_the_residual_loss_is_the_clean_error_with_capped_weights(make_dwm, folder):
    model = make_dwm()
    batch, _ = task_of(model, folder).batch(0, CPU)
    batch = replace(batch, timestep=torch.tensor([0, 0, 999, 999]))
    noisy = model.process.noisy(batch.clean, batch.noise, batch.timestep)
    with torch.no_grad():
        error = (model.denoise(noisy, batch.timestep, batch.conditions) - batch.clean).square()
        weights = model.codec.metric  # a channel counts as much as it does in pixels
        error = (error * weights[:, None, None]).flatten(1).mean(1)
        assert weights.std() > 0.1
        loss = denoising_loss(model, batch, weight_cap=5.0)
    torch.testing.assert_close(loss, (error * torch.tensor([5.0, 5.0, 1.0, 1.0])).mean(), atol=1e-5, rtol=1e-4)


def test_inpainting_pretraining_fills_masks_and_keeps_the_identity_that_dwm_starts_from(make_run, square_clips, folder):
    """With everything known the pre-trained model gives back what it is shown; so does a DWM made from it."""
    run = make_run(condition="none", training={"goal": "inpainting", "steps": 80, "learning_rate": 3e-3})
    base = DWM.from_pretrained(train_video(run))
    task = task_of(base, folder, goal="inpainting", batch_size=16, seed=99)
    batch, _ = task.batch(0, CPU)
    with torch.no_grad():
        filled = base.denoise(batch.noise, torch.full_like(batch.timestep, 999), batch.conditions)
    hidden = (batch.conditions.mask < 0.5).expand_as(batch.clean)
    assert hidden.any()
    empty = (batch.conditions.static - batch.clean).square()[hidden].mean()
    assert (filled - batch.clean).square()[hidden].mean() < 0.8 * empty
    model, ancestry = started_from(base, "mesh")
    assert ancestry["training_seeds"] == [[0, 7]]
    for each in (base, model):
        clips = square_clips[:4]
        made = Generator(each, GenerateConfig(unchanged="codec")).generate(clips, range(4))
        shown = [each.decode(each.encode(clip.static[None]))[0].numpy() for clip in clips]
        error = np.mean([np.square(a.astype(float) - b) for a, b in zip(made, shown, strict=True)])
        spread = np.mean([np.square(b.astype(float) - b.mean()) for b in shown])
        assert error < 0.1 * spread


def test_a_started_model_answers_as_its_base_whatever_the_hands(make_dwm, square_clips):
    base = make_dwm(condition="none")
    model, _ = started_from(base, "mesh")
    first, second = (Generator(each).generate(square_clips[:2], [0, 1]) for each in (base, model))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_references_are_hands_in_the_first_frame_s_colour_and_hidden_as_often_as_asked(make_dwm, folder):
    model = make_dwm(reference=True)
    shown, hidden = (task_of(model, folder, reference_dropout=each).batch(0, CPU)[0] for each in (0.0, 1.0))
    encoded = encode_folder(folder, model)
    latents = {name: encoded[index].painted for index, name in enumerate(folder.names)}
    assert torch.equal(shown.conditions.reference, torch.stack([latents[name] for name in shown.names]))
    blank = model.blank_hands().expand_as(hidden.conditions.reference)
    torch.testing.assert_close(hidden.conditions.reference, blank)
    assert not torch.equal(shown.conditions.reference, hidden.conditions.reference)
    assert torch.equal(shown.clean, hidden.clean)


def test_a_model_with_hands_can_not_be_given_other_ones_nor_weights_another_meaning(make_dwm):
    with pytest.raises(ValueError, match="only a model without hands"):
        started_from(make_dwm(condition="mask"), "mesh")
    with pytest.raises(ValueError, match="its weights can't start"):
        started_from(make_dwm(condition="none"), "mesh", "velocity")
    with pytest.raises(ValueError, match="'adaln-frame' shows none"):
        started_from(make_dwm(condition="adaln-frame"), "adaln-frame", reference=True)


def test_folders_are_drawn_by_their_weights(make_dwm, folder, held_out):
    model = make_dwm()
    encoded = [encode_folder(each, model) for each in (folder, held_out)]
    task = VideoTask(model, VideoTrainConfig(batch_size=8), encoded, (3.0, 1.0))
    names = [name for index in range(60) for name in task.batch(index, CPU)[0].names]
    share = np.mean([name in folder.names for name in names])
    assert share == pytest.approx(0.75, abs=0.06)


def test_damaged_latents_are_named(make_dwm, folder):
    encoded = encode_folder(folder, make_dwm(seed=5))
    path = latent_file(encoded.folder, folder.names[2])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=f"{folder.names[2]}.*damaged.*delete it"):
        encoded[2]
    path.unlink()


def test_clips_of_another_shape_are_refused_before_training(make_run):
    with pytest.raises(ValueError, match="this model takes 17 frames of 96 x 144"):
        train_video(make_run(preset="mini"))


def test_a_loss_that_is_not_finite_stops_training_and_names_the_clip(make_run, folder):
    run = make_run(output="nan")
    model = DWM.from_pretrained(train_video(run))
    encoded = encode_folder(folder, model)
    for name in folder.names:
        tensors = load_file(latent_file(encoded.folder, name))
        tensors["interaction"][0, 0] = float("nan")
        save_file(tensors, latent_file(encoded.folder, name), {"clip": folder.files[name].signature})
    with pytest.raises(TrainingDiverged, match=r"loss is NaN.*latents of clip clip00\d are not finite"):
        train_video(make_run(output="nan2", initial=str(run.output / "model")))
    for name in folder.names:
        latent_file(encoded.folder, name).unlink()


def test_seeds_are_ranges_without_gaps_and_the_folder_opens_again(folder):
    assert len(open_triplets(folder.root)) == 8
    assert seed_ranges(folder) == [(0, 7)]
    assert seed_ranges(folder.subset([folder.names[index] for index in (0, 1, 2, 5)])) == [(0, 2), (5, 5)]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (VideoRunConfig, {"weights": (1.0, 2.0)}, "one positive number for each of 1 data folders"),
        (VideoRunConfig, {"training": VideoTrainConfig(goal="inpainting")}, "sees no hands"),
        (VideoTrainConfig, {"hand_dropout": 1.5}, "fraction"),
        (VideoTrainConfig, {"weight_cap": 0.0}, "positive"),
        (VideoTrainConfig, {"goal": "paint"}, "inpainting"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, kind, change, message):
    own = {"data": (tmp_path,), "output": tmp_path} if kind is VideoRunConfig else {}
    with pytest.raises(ValueError, match=message):
        kind(**own | change)


def test_training_lowers_the_error_where_hands_act_and_without_hands_a_model_only_navigates(make_run, square_clips):
    run = make_run(training={"steps": 120, "learning_rate": 3e-3, "validate_every": 40, "hand_dropout": 0.3})
    model = DWM.from_pretrained(train_video(run))
    lines = [json.loads(line) for line in (run.output / "metrics.jsonl").read_text().splitlines()]
    changed = [line["validation/changed"] for line in lines if "validation/changed" in line]
    assert changed[-1] < min(0.7, changed[0])
    errors = {}
    for hands in (True, False):
        config = GenerateConfig(unchanged="codec", fade=0.0, hands=hands)
        made = Generator(model, config).generate(square_clips[8:], range(4))
        still = [model.decode(model.encode(clip.static[None]))[0].numpy() for clip in square_clips[8:]]
        errors[hands] = np.mean([np.square(a.astype(float) - b) for a, b in zip(made, still, strict=True)])
    assert errors[False] < 0.2 * errors[True]


def test_pixels_outside_the_region_count_as_often_as_asked(make_dwm, folder):
    model = make_dwm()
    batch, _ = task_of(model, folder, hand_dropout=0.0).batch(0, CPU)
    upper = torch.zeros_like(batch.region)
    upper[:, :, : upper.shape[2] // 2] = True

    def loss(region, weight):
        with torch.no_grad():
            return float(denoising_loss(model, replace(batch, region=region), 5.0, weight))

    even = loss(torch.ones_like(upper), 7.0)
    assert loss(torch.zeros_like(upper), 7.0) == pytest.approx(even)  # all outside: only the proportion counts
    of_upper = loss(upper, 1e-9)  # a weight of nearly nothing leaves the region alone
    of_lower = 2 * even - of_upper
    assert of_upper != pytest.approx(of_lower, rel=1e-3)
    assert loss(upper, 3.0) == pytest.approx((of_upper + 3 * of_lower) / 4, rel=1e-4)


@pytest.fixture(scope="module")
def lite0_package(tmp_path_factory):
    """The package of the extra `cnn`, with random weights."""
    folder = tmp_path_factory.mktemp("packages")
    save_lite0(folder, lite0_weights())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.mark.usefixtures("lite0_package")
def test_the_perceptual_term_is_the_lite0_distance_of_what_the_codec_shows(make_dwm, square_clips, monkeypatch):
    model, clips = make_dwm(), square_clips[:2]
    term = PerceptualTerm(model.codec, CPU)
    true = model.encode(np.stack([clip.interaction for clip in clips]))
    other = model.encode(np.stack([clip.static for clip in clips]))
    assert float(term(true, true, torch.Generator())) == 0.0
    monkeypatch.setattr("dexworld.video.model.perceptual_term.FRAMES", 5)  # all of them
    videos = zip(model.decode(other).numpy(), model.decode(true).numpy(), strict=True)
    expected = np.mean([Lite0Distance.from_package().distances(*pair) for pair in videos])
    assert float(term(other, true, torch.Generator())) == pytest.approx(expected, rel=2e-2)  # but for 8-bit rounding
    other.requires_grad_()
    term(other, true, torch.Generator()).backward()
    assert (other.grad.flatten(2).abs().amax(dim=2) > 0).all()


@pytest.mark.usefixtures("lite0_package")
def test_the_perceptual_term_is_part_of_the_loss_by_its_weight(make_dwm, folder):
    model = make_dwm()
    tasks = {weight: task_of(model, folder, perceptual=weight) for weight in (0.0, 0.5)}
    batch, _ = tasks[0.0].batch(0, CPU)
    with torch.no_grad():
        plain, both, again = (task.losses(batch, 3) for task in (*tasks.values(), tasks[0.5]))
    assert set(plain) == {"loss"}
    assert both["lite0_distance"] > 0
    assert both["loss"] == pytest.approx(float(plain["loss"] + 0.5 * both["lite0_distance"]))
    assert again == both  # the frames are the step's: a run that goes on draws the same ones


def test_a_clip_whose_hands_are_blanked_has_no_outside(make_dwm, folder):
    kept, _ = task_of(make_dwm(), folder, hand_dropout=0.0).batch(0, CPU)
    blanked, _ = task_of(make_dwm(), folder, hand_dropout=1.0).batch(0, CPU)
    assert 0 < kept.region.float().mean() < 1
    assert blanked.region.all()


def test_an_outside_weight_is_refused_where_pixels_are_not_linear_in_latents(make_run):
    with pytest.raises(ValueError, match="outside_weight needs residual predictions through a pca codec"):
        train_video(make_run(prediction="velocity", training={"outside_weight": 4.0}))
