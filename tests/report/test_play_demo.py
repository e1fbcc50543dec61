"""The demonstration, played for real at its smallest: an untrained model, one episode."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.evaluation.results import write_results
from dexworld.models import text_head
from dexworld.models.config import PRESETS, PointsConfig, TextConfig
from dexworld.models.dexwm import DexWM
from dexworld.planning.presets import PlannerOptions
from dexworld.planning.sentence_goal import sentence_points
from dexworld.report import play_demo as demo
from dexworld.report.demo import write_demo_report
from dexworld.report.play_demo import DemoConfig, demo_figures, model_facts, play_demo
from dexworld.sim.kitchen.kitchen_tasks import HORIZON
from sentence_fixtures import HashedWords

SEED = 900_003  # has an episode of reach


@pytest.fixture(scope="module")
def results(checkpoint):
    return play_demo(DemoConfig(str(checkpoint), tasks=("reach",), episodes=1, seed=SEED, workers=1))


def test_an_episode_is_planned_filmed_and_imagined(results):
    (episode,) = results.episodes
    assert (episode.task, episode.seed) == ("reach", SEED)
    assert episode.outcome.shape == ((HORIZON + 1) * 5, 224, 392, 3)
    assert len(episode.plans) == HORIZON
    for plan in episode.plans:
        assert plan.imagined.shape == plan.happened.shape == (224, 392, 3)
        assert plan.seconds > 0
    assert episode.goal_keypoints.shape == (12, 2)
    assert [plan.statistics.seconds for plan in episode.plans] == [plan.seconds for plan in episode.plans]
    assert len(episode.seen) == HORIZON
    assert (episode.seen.frames.read([0])[0] == episode.start_image).all()
    assert episode.seen.keypoints_valid[:, 21:].any()


def test_a_push_follows_clicks_or_a_sentence_instead_of_its_goal_picture(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(text_head, "UniversalSentenceEncoder", HashedWords)
    text = TextConfig(words=HashedWords.width, dim=16, depth=1, channels=8, layers=1)
    model = DexWM(replace(PRESETS["debug"], points=PointsConfig(dim=16, depth=1, channels=8, width=8), text=text))
    model.encoder.fit([torch.randint(0, 256, (2, 224, 392, 3), dtype=torch.uint8)])
    model.save_pretrained(tmp_path, {"training_seeds": [0, 99]})
    planning = PlannerOptions(samples=8, iterations=1)
    config = DemoConfig(str(tmp_path), tasks=("push",), episodes=1, seed=905_200, workers=1, planning=planning)
    clicks = np.array([[200.0, 120.0]]), np.array([[230.0, 120.0]])
    results = play_demo(config, clicks=clicks)
    assert results.episodes[0].clicked.distances_px[0] == pytest.approx(30.0)
    figures = demo_figures(results)
    assert figures["solved"] is None
    assert set(figures["episodes"][0]) == {"task", "seed", "seconds_per_plan", "points_px_start", "points_px_end"}
    said = play_demo(config, clicks="push the ball to the left").episodes[0].clicked
    start = results.episodes[0].start_image
    told = sentence_points(DexWM.from_pretrained(tmp_path), start, "push the ball to the left")
    assert [each.tolist() for each in (said.pixels, said.wanted)] == [each.tolist() for each in told]


def test_page_and_figures_are_written_with_the_rates_measured_for_the_checkpoint(results, text_of, tmp_path):
    page = write_demo_report(tmp_path, results)
    text = text_of(page)
    assert page.stat().st_size > 10_000
    for part in (str(SEED), "100 scenes.", "Scripted expert", "Reach 50 % 40 to 60 % 100 72 % 90 % –"):
        assert part in text
    assert "Random motion" not in text
    figures = json.loads(write_results(tmp_path, demo_figures(results), seed=SEED).read_text(encoding="utf-8"))
    assert set(figures) == {"solved", "episodes", "seconds", "renderer", "drawn_by", "run"}
    assert figures["solved"] in (0, 1)
    measures = {"distance_start", "distance_end", "seconds_per_plan"}
    assert set(figures["episodes"][0]) == {"task", "seed", "success"} | measures
    assert figures["seconds"]["planning and playing"] > 0


def test_the_model_card_counts_all_parameters_and_says_what_it_was_trained_on(model, checkpoint):
    facts = model_facts(DexWM.from_pretrained(checkpoint))
    assert facts == {
        "Parameters": f"{model.parameter_counts()['total'] / 1e6:.1f} million",
        "Trained on": "90 simulated episodes",
        "Training time": "10 minutes",
        "Training scenes": "0 to 99",
    }


@pytest.mark.parametrize(("backend", "noticed"), [("ray", True), ("egl", False)])
def test_pictures_by_the_ray_renderer_are_announced(monkeypatch, checkpoint, results, backend, noticed):
    monkeypatch.setattr(demo, "parallel_map", lambda *_: results.episodes[:1])  # the episode was played above
    played = play_demo(DemoConfig(str(checkpoint), tasks=("reach",), episodes=1, seed=SEED, backend=backend))
    assert played.renderer == backend
    assert any("ray renderer" in notice for notice in played.notices) == noticed


@pytest.mark.parametrize("wrong", [{"tasks": ()}, {"episodes": 0}, {"workers": -1}])
def test_a_demonstration_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one task and one episode"):
        DemoConfig(**({"checkpoint": "any", "tasks": ("reach",)} | wrong))
