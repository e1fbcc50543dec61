"""The demonstration, played for real at its smallest: an untrained model, one episode."""

import json

import pytest
import torch

from dexworld.evaluation.results import write_results
from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.report import play_demo as demo
from dexworld.report.demo import write_demo_report
from dexworld.report.play_demo import DemoConfig, demo_figures, model_facts, play_demo
from dexworld.sim.kitchen.kitchen_tasks import HORIZON

SEED = 900_003  # has an episode of reach
PROVENANCE = {"training_seeds": [0, 99], "seconds": 600.0, "datasets": [{"training_episodes": 90}]}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = DexWM(PRESETS["debug"])
    model.encoder.fit([torch.randint(0, 256, (2, 224, 392, 3), dtype=torch.uint8)])
    return model


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder, PROVENANCE)
    return folder


@pytest.fixture(scope="module")
def results(checkpoint):
    measured = {
        "tasks": {"reach": {"success": 0.5, "low": 0.4, "high": 0.6, "n": 100, "expert": 0.9, "random": None}},
        "tasks_source": "100 scenes.",
    }
    (checkpoint / "evaluation.json").write_text(json.dumps(measured), encoding="utf-8")
    return play_demo(DemoConfig(str(checkpoint), ("reach",), episodes=1, seed=SEED, workers=1))


def test_an_episode_is_planned_filmed_and_imagined(results):
    (episode,) = results.episodes
    assert (episode.task, episode.seed) == ("reach", SEED)
    assert episode.outcome.shape == ((HORIZON + 1) * 5, 224, 392, 3)
    assert len(episode.plans) == HORIZON
    for number, plan in enumerate(episode.plans):
        assert plan.imagined.shape == plan.happened.shape == (HORIZON - number, 224, 392, 3)
        assert plan.seconds > 0
    assert episode.goal_keypoints.shape == (12, 2)


def test_rates_measured_for_the_checkpoint_are_shown_with_their_source(results):
    (row,) = results.success
    assert (row.task, row.success, row.n) == ("reach", 0.5, 100)
    assert row.controls == {"expert": 0.9}
    assert results.success_source == "100 scenes."


def test_page_and_figures_are_written(results, tmp_path):
    page = write_demo_report(tmp_path, results)
    assert page.stat().st_size > 10_000
    assert str(SEED) in page.read_text(encoding="utf-8")
    path = write_results(tmp_path, demo_figures(results), seed=SEED)
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert set(figures) == {"solved", "episodes", "seconds", "renderer", "drawn_by", "run"}
    assert figures["solved"] in (0, 1)
    assert set(figures["episodes"][0]) == {
        "task",
        "seed",
        "success",
        "distance_start",
        "distance_end",
        "seconds_per_plan",
    }
    assert figures["seconds"]["planning and playing"] > 0


def test_the_model_card_counts_all_parameters_and_says_what_it_was_trained_on(model, checkpoint):
    facts = model_facts(DexWM.from_pretrained(checkpoint))
    assert facts["Parameters"] == f"{model.parameter_counts()['total'] / 1e6:.1f} million"
    assert facts["Trained on"] == "90 simulated episodes"
    assert facts["Training time"] == "10 minutes"
    assert facts["Training scenes"] == "0 to 99"


@pytest.mark.parametrize(("backend", "noticed"), [("ray", True), ("egl", False)])
def test_pictures_by_the_ray_renderer_are_announced(monkeypatch, checkpoint, results, backend, noticed):
    class Pool:  # the episode was played above
        def __init__(self, *_, **__): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def submit(self, *_):
            return self

        def result(self):
            return results.episodes[0]

    monkeypatch.setattr(demo, "ProcessPoolExecutor", Pool)
    played = play_demo(DemoConfig(str(checkpoint), ("reach",), episodes=1, seed=SEED, backend=backend))
    assert played.renderer == backend
    assert any("ray renderer" in notice for notice in played.notices) == noticed


@pytest.mark.parametrize("wrong", [{"tasks": ()}, {"episodes": 0}, {"workers": -1}])
def test_a_demonstration_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one task and one episode"):
        DemoConfig(**({"checkpoint": "any", "tasks": ("reach",)} | wrong))
