"""Success rates: the figures follow from the outcomes, and a small evaluation runs end to end."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dexworld.baselines.goal_policy import POLICY_PRESETS, GoalPolicy, GoalPolicyConfig
from dexworld.evaluation.guard import SeedError
from dexworld.evaluation.policy_setup import policy_setup
from dexworld.evaluation.runner import Played, play
from dexworld.evaluation.tasks import EpisodeOutcome, TasksConfig, evaluate_tasks, summarise
from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.latent_space import LatentSpace, OtherEncoderError
from dexworld.planning.cem import CEM
from dexworld.planning.controls import DoNothing, KinematicsOnly, RandomTargets, Replay, TrueSimulator, true_cost
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.policies import LEARNED, POLICIES, make_policy
from dexworld.robots.environment import Environment, SearchSpace, SimulatedEnvironment
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.sim.kitchen.kitchen_env import KITCHEN, KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import HORIZON, MOVES, draw_episode

SEED = 900_003  # has an episode of reach, grasp and place


@pytest.fixture(scope="module")
def episode():
    return draw_episode("reach", SEED)


@pytest.fixture(scope="module")
def model(episode):
    torch.manual_seed(0)
    model = DexWM(PRESETS["debug"])
    model.encoder.fit([torch.from_numpy(episode.goal_image)[None]])
    return model.eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder, {"training_seeds": [0, 99]})
    return str(folder)


def played(success: bool, seconds: tuple[float, ...] = ()) -> Played:
    return Played(success, (0.4, 0.3, 0.2, 0.1 if success else 0.5), seconds)


def ten_outcomes() -> list[EpisodeOutcome]:
    """The planner solves 8 of 10, kinematics 3 of those 8, doing nothing 0; the simulator played two, random none."""
    outcomes = []
    for index in range(10):
        results = {
            "world_model": played(index < 8, (1.0, 3.0)),
            "kinematics_only": played(index < 3),
            "do_nothing": played(False),
            "expert": played(True),
        }
        if index < 2:
            results["true_simulator"] = played(index == 0)
        outcomes.append(EpisodeOutcome("reach", 1_000_000 + index, results))
    return outcomes


def test_figures_rest_on_who_played_and_carry_their_intervals():
    figures = summarise(ten_outcomes(), Counter({"too far": 2, "fell over": 1}))
    expected = {
        "success": 0.8,
        "n": 10,
        "low": 0.4902,
        "high": 0.9433,
        "do_nothing": 0.0,
        "do_nothing_low": 0.0,
        "do_nothing_high": 0.2775,
        "true_simulator": 0.5,
        "true_simulator_n": 2,
        "random_n": 0,
        "p_against_do_nothing": 2 / 2**8,  # of the episodes that exactly one of the two solved
        "p_against_kinematics_only": 2 / 2**5,
        "seconds_per_plan": 2.0,
        "start_distance": 0.4,
        "final_distance": 0.8 * 0.1 + 0.2 * 0.5,
    }
    assert {key: figures[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    never_played = ("random", "random_low", "random_high", "p_against_random")
    assert [figures[key] for key in never_played] == [None] * 4
    assert figures["excluded_seeds"] == {"fell over": 1, "too far": 2}
    assert figures["seeds"] == list(range(1_000_000, 1_000_010))
    assert figures["succeeded_seeds"] == list(range(1_000_000, 1_000_008))


def test_every_pair_that_played_the_same_episodes_is_compared_and_the_planner_may_be_absent():
    both = summarise(ten_outcomes(), Counter())["p_between"]
    assert len(both) == 10  # of five policies that played
    assert both["world_model, kinematics_only"] == 2 / 2**5
    assert both["do_nothing, expert"] == 2 / 2**10
    assert both["true_simulator, expert"] == 1.0  # of the two episodes that both played
    outcomes = ten_outcomes()
    for outcome in outcomes:
        del outcome.played["world_model"]
        outcome.played["bc"] = played(True)
    figures = summarise(outcomes, Counter())
    assert (figures["success"], figures["n"], figures["final_distance"], figures["succeeded_seeds"]) == (
        None,
        0,
        None,
        [],
    )
    assert (figures["bc"], figures["bc_n"], figures["bc_final_distance"]) == (1.0, 10, pytest.approx(0.1))
    assert figures["bc_succeeded_seeds"] == figures["seeds"]
    assert figures["kinematics_only_succeeded_seeds"] == [1_000_000, 1_000_001, 1_000_002]
    assert figures["start_distance"] == pytest.approx(0.4)
    assert figures["p_between"]["kinematics_only, bc"] == 2 / 2**7


@pytest.fixture(scope="module")
def environment():
    environment = KitchenEnv()
    yield environment
    environment.close()


def test_the_kitchen_is_an_environment_whose_state_can_be_restored(environment):
    assert isinstance(environment, Environment)
    assert isinstance(environment, SimulatedEnvironment)


def test_every_policy_has_its_name(model, environment, episode):
    kinds = {
        "world_model": MPCPolicy,
        "no_subgoals": MPCPolicy,
        "do_nothing": DoNothing,
        "random": RandomTargets,
        "kinematics_only": KinematicsOnly,
        "true_simulator": TrueSimulator,
        "expert": Replay,
        "diffusion_policy": Replay,
        "bc": Replay,
    }
    learned = dict.fromkeys(LEARNED, Replay(episode.expert_moves))
    setup = policy_setup("grasp", model, "cpu", environment, expert_moves=episode.expert_moves, learned=learned)
    assert list(kinds) == list(POLICIES)
    for name, kind in kinds.items():
        assert type(make_policy(name, setup)) is kind
    with pytest.raises(ValueError, match="'sucess' is unknown; choose from world_model"):
        make_policy("sucess", setup)
    bare = policy_setup("grasp", None, "cpu", environment)
    for name in ("world_model", "kinematics_only"):
        with pytest.raises(ValueError, match=f"'{name}' needs a model"):
            make_policy(name, bare)
    for name, message in (("expert", "no expert"), ("bc", "'bc' needs a checkpoint that `dexworld train policy` made")):
        with pytest.raises(ValueError, match=message):
            make_policy(name, bare)


def test_an_evaluation_of_nothing_is_refused():
    for wrong, message in (
        ({"tasks": ("reach", "juggle")}, r"\['juggle'\] are not in kitchen; choose from reach"),
        ({"env": "garden"}, r"env 'garden' is unknown; choose from kitchen"),
        ({"episodes": 0}, "episodes must be >= 1"),
        ({"policies": ("bc", "best")}, r"\['best'\]; choose from world_model"),
    ):
        with pytest.raises(ValueError, match=message):
            TasksConfig("checkpoint", **wrong)


def test_scenes_that_must_not_be_evaluated_on_are_refused_before_any_is_built(checkpoint, tmp_path):
    for seed, split, message in (
        (50, "evaluation", "among the checkpoint's training seeds"),
        (SEED, "evaluation", "outside the evaluation range"),
        (1_000_000, "validation", "outside the validation range"),
    ):
        with pytest.raises(SeedError, match=message):
            evaluate_tasks(TasksConfig(checkpoint, seed=seed, split=split), tmp_path / "episodes.jsonl")


def test_replayed_expert_moves_succeed_and_every_move_is_measured_and_filmed(episode, environment):
    result = play(Replay(episode.expert_moves), environment, seed=0, options={"episode": episode}, film=True)
    assert result.success
    assert len(result.distances) == HORIZON + 2
    assert result.distances[0] > result.distances[-1]
    assert np.array_equal(result.moves, episode.expert_moves)
    assert len(result.frames) == (HORIZON + 1) * 5  # 5 Hz, one second of holding still included
    assert len(result.step_frames) == HORIZON
    assert result.seconds == ()  # nothing was planned


def test_targets_outside_the_limits_end_an_episode_with_an_error(episode, environment):
    with pytest.raises(ValueError, match=r"joint 0 is asked to go to 9\.000, outside"):
        play(Replay(np.full((HORIZON, 23), 9.0)), environment, seed=0, options={"episode": episode})


def test_the_planner_knows_what_stands_around_the_robot(model, environment):
    setup = policy_setup("reach", model, "cpu", environment)
    for name in ("world_model", "kinematics_only"):
        assert make_policy(name, setup).config.keep_out == environment.keep_out


def test_a_goal_picture_of_another_size_is_refused(model, episode, environment):
    policy = make_policy("world_model", policy_setup("reach", model, "cpu", environment))
    with pytest.raises(ValueError, match="112"):
        policy.reset(np.ascontiguousarray(episode.goal_image[::2, ::2]))


def test_the_search_in_the_true_simulator_finds_moves_that_are_better_than_none(episode, environment):
    values, _ = environment.reset(options={"episode": episode})
    searching = TrueSimulator(environment, CEM(samples=4, elites=2, iterations=2))
    searching.reset(episode.goal_image, seed=0)
    assert np.array_equal(environment.get_state().physics, episode.start.physics)
    moves = np.stack([searching.act(environment.observe()) for _ in range(HORIZON)])
    still = np.tile(values["joint_targets"], (HORIZON, 1))
    costs = [true_cost(environment, episode.start, each) for each in (moves, episode.expert_moves, still)]
    assert max(costs[:2]) < costs[2]


class OneWay:
    """An environment whose moves matter along one direction only, in which its search space lies."""

    robot, goal, joints = FrankaAllegro(), 0.4, np.zeros(23)

    def search_space(self):
        directions = np.zeros((1, 23))
        directions[0, 0] = 1.0
        return SearchSpace(np.tile(self.robot.limits.mean(-1).numpy(), (5, 1)), directions, np.array([0.3]))

    def observe(self):
        return SimpleNamespace(joint_targets=self.joints)

    def get_state(self):
        return self.joints

    def set_state(self, state):
        self.joints = state

    move = set_state

    def true_cost(self):
        return abs(self.joints[0] - self.goal)


def test_the_search_in_the_true_simulator_keeps_to_the_space_that_its_environment_says():
    environment = OneWay()
    policy = TrueSimulator(environment)
    policy.reset(None, seed=0)
    moves = np.stack([policy.act(environment.observe()) for _ in range(5)])
    assert abs(moves[-1, 0] - environment.goal) < 1e-3
    np.testing.assert_allclose(moves[:, 1:], environment.search_space().moves[:, 1:])
    np.testing.assert_array_equal(environment.joints, 0.0)


class Nudge:
    """A solver whose plan is to stay where it starts, but for a thousandth of a radian and the number of the search."""

    searches = 0

    def solve(self, cost_function, initial, bounds, generator, proposals=None):
        self.searches += 1
        return SimpleNamespace(actions=initial.mean + 0.001 * self.searches)


def test_an_episode_of_more_moves_is_searched_again_in_the_true_simulator_from_where_the_last_ones_led(environment):
    episode, search = draw_episode("pick_place", 900_004), Nudge()
    result = play(TrueSimulator(environment, search), environment, seed=0, options={"episode": episode})
    assert len(result.moves) == MOVES["pick_place"] == len(episode.expert_moves)
    assert search.searches == MOVES["pick_place"] / HORIZON
    changes = np.diff([moves[0] for moves in result.moves])
    np.testing.assert_allclose(changes, [0, 0, 0.002, 0, 0, 0.003, 0, 0], atol=1e-6)


def test_an_evaluation_runs_from_checkpoint_to_figures_and_plays_nothing_twice(checkpoint, tmp_path, monkeypatch):
    seen, file = [], tmp_path / "out" / "episodes.jsonl"
    config = TasksConfig(
        checkpoint, ("reach",), episodes=1, seed=SEED, simulator_episodes=0, workers=1, split="validation"
    )
    figures = evaluate_tasks(config, file, lambda *progress: seen.append(progress))
    assert seen == [("reach", 1, 1)]
    assert list(figures) == ["reach"]
    assert figures["reach"]["seeds"] == [SEED]
    assert figures["reach"]["expert"] == 1.0
    assert figures["reach"]["do_nothing"] == 0.0
    assert figures["reach"]["true_simulator"] is None
    assert figures["reach"]["seconds_per_plan"] > 0

    outcome = json.loads(file.read_text().splitlines()[-1])["result"]
    assert set(outcome["played"]) == set(POLICIES) - {"true_simulator", "no_subgoals", *LEARNED}
    assert len(outcome["played"]["world_model"]["moves"]) == HORIZON
    with open(file, "ab") as torn:  # killed while it wrote the next line
        torn.write(b'{"name": "reach 9')
    monkeypatch.setattr("dexworld.evaluation.tasks._play_all", None)
    monkeypatch.setattr("dexworld.evaluation.tasks.task_suite", lambda *_: replace(KITCHEN, draw=None))
    assert evaluate_tasks(config, file) == figures
    with pytest.raises(ValueError, match=r"planner was 'cpu', now 'paper'"):
        evaluate_tasks(replace(config, planner="paper"), file)
    file.write_text(file.read_text().replace('"reach', "reach", 1))
    with pytest.raises(ValueError, match=r"episodes.jsonl: line 2 is damaged"):
        evaluate_tasks(config, file)


@pytest.fixture
def save_policy(model, tmp_path):
    """Saves a new policy for the model's latents, or for another encoder's, and returns its folder."""

    def save(form, seeds=(0, 99), encoder=None):
        space = LatentSpace.of(model.config, encoder or encoder_fingerprint(model.encoder))
        settings = {"horizon": 1 if form == "bc" else 2, "network": POLICY_PRESETS["debug"]}
        folder = tmp_path / f"{form}-{seeds[0]}"
        GoalPolicy(GoalPolicyConfig(space, 23, form, **settings)).save_pretrained(folder, {"training_seeds": [seeds]})
        return str(folder)

    return save


def test_learned_policies_play_the_same_episodes_beside_the_chosen_others(checkpoint, save_policy, tmp_path):
    learned = (save_policy("bc"), save_policy("transformer"))
    chosen = {"policy_checkpoint": learned, "policies": ("do_nothing", "diffusion_policy", "bc")}
    config = TasksConfig(checkpoint, ("reach",), 1, SEED, workers=1, split="validation", **chosen)
    row = evaluate_tasks(config, tmp_path / "episodes.jsonl")["reach"]
    assert [row[f"{name}_n"] for name in ("do_nothing", "diffusion_policy", "bc", "expert")] == [1, 1, 1, 0]
    assert row["bc_final_distance"] != row["diffusion_policy_final_distance"] != row["do_nothing_final_distance"]
    assert set(row["p_between"]) == {"do_nothing, diffusion_policy", "do_nothing, bc", "diffusion_policy, bc"}
    for folders, message in (
        ((learned[0], learned[0]), "hold two of kind 'bc'"),
        ((save_policy("bc", (SEED, SEED)),), "among the checkpoint's training seeds"),
        ((save_policy("bc", (5, 5), "another"),), "the policy .*bc-5 reads the latents of encoder another"),
    ):
        with pytest.raises((ValueError, OtherEncoderError), match=message):
            evaluate_tasks(replace(config, policy_checkpoint=folders), tmp_path / "other.jsonl")
