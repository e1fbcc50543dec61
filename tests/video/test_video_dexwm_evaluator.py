"""DexWM as the judge of candidates: it imagines the whole clip and is compared where no hand is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.models.config import preset
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import PCAEncoder
from dexworld.track import Track
from dexworld.video.judge.dexwm_evaluator import MEASURES, DexWMEvaluator, Imagined, without_hands
from dexworld.video.judge.goal_image import GoalView

HEIGHT, WIDTH, FRAMES = 96, 144, 17


def picture(seed: int) -> np.ndarray:
    """A smooth random picture."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, size=(1, 3, 8, 12)))
    fine = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")
    return fine[0].permute(1, 2, 0).to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def model() -> DexWM:
    """A small model with random weights and an encoder fitted on random pictures."""
    torch.manual_seed(0)
    config = preset("clip")
    small = {"predictor": replace(config.predictor, dim=32, depth=1), "encoder": replace(config.encoder, dim=24)}
    config = replace(config, **small)
    built = DexWM(config)
    assert isinstance(built.encoder, PCAEncoder)
    built.encoder.fit([torch.from_numpy(np.stack([picture(seed) for seed in range(8)]))])
    for parameter in built.predictor.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))  # its last layer starts at zero: nothing would move
    return built.eval()


def track(offset: float, frames: int = FRAMES) -> Track:
    points = np.zeros((frames, 42, 3), dtype=np.float32)
    points[..., 0] = np.linspace(0, offset, frames)[:, None] + np.linspace(0, 0.05, 42)
    points[..., 2] = 0.6
    intrinsics = np.array([[120, 0, WIDTH / 2], [0, 120, HEIGHT / 2], [0, 0, 1]], dtype=np.float32)
    columns = {"keypoints_world": points, "keypoints_valid": np.ones((frames, 42), dtype=bool)}
    return Track(np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)), intrinsics, columns)


def view(*hidden_rows: int) -> GoalView:
    """A goal, the untouched scene, and one hand a candidate that covers some rows of tokens."""
    hidden = np.zeros((len(hidden_rows), HEIGHT, WIDTH), dtype=bool)
    for index, row in enumerate(hidden_rows):
        hidden[index, 12 * row : 12 * row + 12] = True
    return GoalView(picture(1), picture(2), hidden)


def test_a_clip_of_seventeen_frames_takes_four_steps(model):
    motion = DexWMEvaluator(model).motion([track(0.1), track(-0.1)])
    assert motion.deltas.shape[:2] == (2, 4)
    assert motion.deltas[0, :, 0, 0].tolist() == pytest.approx([0.025] * 4, abs=1e-6)
    assert motion.deltas[1, :, 0, 0].tolist() == pytest.approx([-0.025] * 4, abs=1e-6)


def test_the_last_step_is_shorter_when_the_stride_does_not_divide_the_clip(model):
    motion = DexWMEvaluator(model, stride=6).motion([track(0.16)])
    assert motion.deltas[0, :, 0, 0].tolist() == pytest.approx([0.06, 0.06, 0.04], abs=1e-6)


def test_imagining_is_the_models_own_rollout_from_the_untouched_scene(model):
    evaluator = DexWMEvaluator(model)
    tracks = [track(0.1), track(-0.2), track(0.0)]
    imagined = evaluator.imagine(picture(2), tracks)
    with torch.no_grad():
        start = model.encode(torch.from_numpy(picture(2))[None, None]).expand(3, -1, -1, -1)
        expected = model.unroll(start, evaluator.motion(tracks))[:, -1]
    assert torch.allclose(imagined.final, expected, atol=1e-4)
    assert (imagined.final[0] - imagined.final[1]).abs().max() > 1e-3  # actions matter, even to random weights
    still = evaluator.imagine(picture(2), [without_hands(track(0.1))] * 2)
    assert torch.allclose(still.final[0], imagined.untouched, atol=1e-4)


def test_a_picture_is_the_predicted_change_on_the_untouched_scene(model):
    evaluator = DexWMEvaluator(model)
    latents = torch.zeros(2, 96, 24)
    latents[1, 0] = 3.0
    pictures = evaluator.pictures(Imagined(latents, torch.zeros(96, 24)), picture(2))
    assert np.array_equal(pictures[0], picture(2))
    assert np.array_equal(pictures[1, 12:], picture(2)[12:])  # only the first token, 12 x 12 pixels, changed
    assert not np.array_equal(pictures[1, :12, :12], picture(2)[:12, :12])


@pytest.mark.parametrize("rule", ["union", "own", "none"])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_candidate_that_ends_in_the_goal_wins(model, measure, rule):
    scene = view(2, 4, 6)
    goal, static = model.encode(torch.from_numpy(np.stack([scene.goal, scene.static])))
    imagined = Imagined(torch.stack([static, goal, 0.5 * (goal + static)]), static)
    scores = DexWMEvaluator(model, rule=rule).scores(imagined, scene, measure)
    assert scores.argmax() == 1 or measure == "direction"  # a faint change in the right direction is as good
    assert scores[0] < scores[2] - 1e-6
    if rule == "none":
        assert scores[1] == pytest.approx(1.0 if measure == "direction" else 0.0, abs=1e-5)


def test_under_the_union_of_all_hands_no_latent_counts(model):
    scene = view(2, 4)
    final = torch.randn(1, 96, 24, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1)
    untouched = torch.zeros(96, 24)
    changed = final.clone()
    changed.view(2, 8, 12, 24)[0, [2, 4]] += 5.0
    for measure in MEASURES:
        evaluator = DexWMEvaluator(model, measure=measure, rule="union")
        scores = evaluator.scores(Imagined(changed, untouched), scene)
        assert scores[0] == scores[1]
        assert replace(evaluator, rule="none").scores(Imagined(changed, untouched), scene)[0] != scores[0]
    own = replace(evaluator, rule="own").scores(Imagined(final, untouched), scene)
    assert own[0] != own[1]  # each candidate has its own hidden part


def test_what_does_not_fit_the_model_is_refused(model):
    evaluator = DexWMEvaluator(model)
    with pytest.raises(ValueError, match="trained on"):
        evaluator.imagine(np.zeros((64, 96, 3), dtype=np.uint8), [track(0.1)])
    with pytest.raises(ValueError, match="of one length"):
        evaluator.motion([track(0.1), track(0.1, frames=13)])
    with pytest.raises(ValueError, match="measure"):
        DexWMEvaluator(model, measure="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stride"):
        DexWMEvaluator(model, stride=0)
