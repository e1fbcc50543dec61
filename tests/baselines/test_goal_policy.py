"""Diffusion Policy and behaviour cloning as networks, and how they play."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.baselines.denoisers import ActionTransformer, UNet
from dexworld.baselines.goal_policy import POLICY_PRESETS, GoalPolicy, GoalPolicyConfig, LearnedPolicy, PolicyNetwork
from dexworld.models.checkpoint import CheckpointError
from dexworld.models.latent_space import LatentSpace
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot

SPACE = LatentSpace(dim=3, grid=(2, 3), image_size=(2, 3), encoder="pixels")
FORMS = {"unet": 4, "transformer": 3, "bc": 1}  # with moves of a chunk


class Slider(Robot):
    """Two joints and nothing to see."""

    joints, arm, limits = ("x", "y"), slice(0, 2), torch.tensor([[-1.0, 1.0], [-0.5, 0.5]]).double()

    def forward(self, joint_positions):
        raise NotImplementedError


def config(form: str, **changes) -> GoalPolicyConfig:
    return GoalPolicyConfig(SPACE, 2, form, **{"horizon": FORMS[form], "network": POLICY_PRESETS["debug"]} | changes)


@pytest.fixture(params=FORMS)
def policy(request):
    torch.manual_seed(0)
    model = GoalPolicy(config(request.param)).eval()
    model.scale_to(torch.randn(5, 3, 6, 3), torch.randn(5, 2, 4), 0.1 * torch.randn(5, FORMS[request.param], 2))
    return model


def encode(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(-3, -2).float() / 255


def observation(seed: int, targets=(0.2, -0.3)) -> Observation:
    generator, still = np.random.default_rng(seed), np.eye(4)
    joints = np.array(targets)
    image = generator.integers(0, 255, (4, 3, 3), dtype=np.uint8)
    return Observation(image, joints + 0.01, still, np.eye(3), still, joints)


def parameters(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_both_forms_have_the_parameters_of_diffusion_policy():
    with torch.device("meta"):
        # The authors' notebook for Push-T from its state prints 6.535322e+07; their table says 256 M for Lift from
        # pictures, and for the transformer 9 M there and 80 M in the kitchen.
        assert parameters(UNet(2, 2 * 5, (256, 512, 1024), 5, 256)) == 65_353_218
        paper = POLICY_PRESETS["paper"]
        lift = UNet(10, 2 * 137, paper.channels, paper.kernel, paper.step_dim)
        assert parameters(lift) == pytest.approx(256e6, rel=0.005)
        small = ActionTransformer(10, 10, 2, 137, paper.dim, paper.depth, paper.heads)
        assert parameters(small) == pytest.approx(9e6, rel=0.005)
        assert parameters(ActionTransformer(9, 16, 4, 60, 768, 8, 4)) == pytest.approx(80e6, rel=0.01)


def test_an_action_of_the_transformer_sees_none_after_it():
    torch.manual_seed(0)
    network, told = ActionTransformer(2, 5, 3, 4, 16, 2, 2), (torch.tensor([7, 40]), torch.randn(2, 3, 4))
    noisy = torch.randn(2, 5, 2)
    changed = torch.cat([noisy[:, :3], torch.randn(2, 2, 2)], dim=1)
    before, after = network(noisy, *told), network(changed, *told)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().min() > 1e-6


def test_a_saved_policy_gives_the_same_moves(policy, tmp_path):
    policy.save_pretrained(tmp_path, {"training_seeds": [[0, 9]]})
    loaded = GoalPolicy.from_pretrained(tmp_path)
    assert loaded.config == policy.config
    assert loaded.provenance == {"training_seeds": [[0, 9]]}
    latents, joints = torch.randn(3, 3, 6, 3), torch.randn(3, 2, 4)
    first, again = (
        each.moves(each.condition(each.look(latents)[0], joints), torch.Generator().manual_seed(1))
        for each in (policy, loaded)
    )
    assert first.shape == (3, policy.config.horizon, 2)
    assert torch.equal(first, again)
    assert "moves a robot towards a goal picture" in (tmp_path / "README.md").read_text()
    torch.nn.init.zeros_(policy.move_spread)
    policy.save_pretrained(tmp_path / "flat")
    with pytest.raises(CheckpointError, match="move_spread must be positive"):
        GoalPolicy.from_pretrained(tmp_path / "flat")


def test_the_goal_picture_moves_a_policy_and_its_seed_repeats_it(policy):
    player, goals = LearnedPolicy(policy, encode, Slider()), [observation(seed).image for seed in (1, 2)]

    def first(goal: np.ndarray, seed: int) -> np.ndarray:
        player.reset(goal, seed=seed)
        return player.act(observation(0))

    moves = first(goals[0], 5)
    assert moves.shape == (2,)
    assert moves.dtype == np.float64
    assert np.array_equal(moves, first(goals[0], 5))
    assert not np.array_equal(moves, first(goals[1], 5))
    assert np.array_equal(moves, first(goals[0], 6)) == (policy.config.form == "bc")


def test_moves_stay_within_the_limits(policy):
    policy.move_spread.fill_(50.0)
    player = LearnedPolicy(policy, encode, Slider())
    player.reset(observation(1).image)
    limits = Slider.limits.numpy()
    targets = player.act(observation(0))
    assert ((targets >= limits[:, 0]) & (targets <= limits[:, 1])).all()
    assert (np.abs(targets - limits.T) < 1e-6).any()


def test_a_chunk_is_carried_out_move_by_move_and_frames_are_remembered_all_the_while(monkeypatch):
    torch.manual_seed(0)
    model, seen = GoalPolicy(config("unet", execute=2)).eval(), []
    monkeypatch.setattr(model, "look", lambda latents: (latents.flatten(2), None))
    chunk = torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.4, 0.0]])
    monkeypatch.setattr(model, "moves", lambda condition, generator: chunk[None])
    monkeypatch.setattr(model, "condition", lambda pictures, joints: seen.append((pictures[0], joints[0])))
    player = LearnedPolicy(model, encode, Slider())
    player.reset(observation(9).image)
    views = [observation(step, (0.1 * step, 0.0)) for step in range(3)]
    # The third move begins a new chunk, from the targets in force then.
    assert [round(float(player.act(view)[0]), 6) for view in views] == [0.1, 0.2, 0.3]
    assert len(seen) == 2
    for (pictures, joints), steps in zip(seen, ((0, 0), (1, 2)), strict=True):
        for place, step in enumerate(steps):
            np.testing.assert_allclose(joints[place], [0.1 * step + 0.01, 0.01, 0.1 * step, 0.0], atol=1e-6)
        shown = [*(views[step].image for step in steps), observation(9).image]
        for picture, image in zip(pictures, shown, strict=True):
            assert torch.equal(picture, encode(torch.from_numpy(image[1:3])).flatten())


def test_settings_that_make_no_sense_are_named(policy):
    for form, changes, message in (
        ("diffuse", {"horizon": 1}, "form is 'diffuse'; choose 'unet'"),
        ("bc", {"horizon": 2}, "behaviour cloning tells one move"),
        ("unet", {"horizon": 3}, "multiple of 2 moves, not 3"),
        ("transformer", {"execute": 9}, "execute is at most horizon"),
        ("transformer", {"joints": 0}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            GoalPolicyConfig(SPACE, **{"joints": 2, "form": form, "network": POLICY_PRESETS["debug"]} | changes)
    for wrong in ({"channels": (12,)}, {"kernel": 2}, {"heads": 3}, {"features": 0}):
        with pytest.raises(ValueError, match="sizes of a policy must"):
            PolicyNetwork(**wrong)
    three = GoalPolicy(replace(policy.config, joints=3))
    with pytest.raises(ValueError, match=r"moves 3 joints, this robot has 2; train one with recordings of this robot"):
        LearnedPolicy(three, encode, Slider())


def test_diffusion_without_diffusers_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    GoalPolicy(config("bc"))
    with pytest.raises(ImportError, match=r"pip install 'dexworld\[video\]'"):
        GoalPolicy(config("unet"))
