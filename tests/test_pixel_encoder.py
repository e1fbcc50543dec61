"""The experiment with an encoder trained from pixels: its regulariser in closed form, and all of it at its smallest."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dexworld.data.recordings import EpisodeWriter
from dexworld.models.config import preset
from dexworld.track import Track
from square_fixtures import square_episode, square_frames

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import pixel_encoder  # noqa: E402
from pixel_encoder_model import (  # noqa: E402
    Training,
    Windows,
    build,
    encoded,
    epps_pulley,
    open_pictures,
    sigreg,
    spread,
    token_groups,
    train,
)
from pixel_encoder_probes import Sums, _objects, _ranking, encode, object_map, window_rows  # noqa: E402


def test_samples_that_are_all_zero_have_the_statistic_of_the_formula():
    """N times the integral of (1 - g)^2 g with g = exp(-t^2 / 2)."""
    expected = 12 * math.sqrt(2 * math.pi) * (1 - 2 / math.sqrt(2) + 1 / math.sqrt(3))
    assert float(epps_pulley(torch.zeros(12))) == pytest.approx(expected, rel=1e-4)


def test_gaussian_samples_have_the_expected_statistic():
    """The empirical characteristic function of N samples has the variance (1 - g^2) / N, whatever N is."""
    samples = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0))
    expected = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    assert float(epps_pulley(samples).mean()) == pytest.approx(expected, rel=0.05)


def test_the_regulariser_spreads_collapsed_samples_over_all_directions():
    generator = torch.Generator().manual_seed(0)
    samples = (0.01 * torch.randn(1, 64, 3, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([samples], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        sigreg(samples, generator, directions=16).backward()
        optimiser.step()
    covariance = torch.cov(samples.detach()[0].T)
    assert torch.allclose(covariance, torch.eye(3), atol=0.25)


def test_a_code_of_the_place_alone_satisfies_pooled_tokens_but_not_those_of_one_place():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 96, 8, generator=generator).expand(40, -1, -1)
    pooled, by_place = (
        float(sigreg(token_groups(latents, grouping, generator), generator)) for grouping in ("pooled", "position")
    )
    assert by_place > 4 * pooled


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Datasets of a bright square, the hand, that pushes a smaller one: train, validation and test scenes."""
    made = {}
    for name, first, count in (("train", 0, 3), ("validation", 900_000, 2), ("test", 1_900_000, 2)):
        made[name] = tmp_path_factory.mktemp(name)
        writer = EpisodeWriter(made[name], {"made by": "tests"})
        for seed in range(first, first + count):
            writer.write(f"{seed:08d}", pushing_episode(seed))
        writer.finish()
    return made


def pushing_episode(seed: int, length: int = 26) -> Track:
    generator = np.random.default_rng(seed)
    steps = generator.integers(-3, 4, 2) + generator.integers(-2, 3, (length, 2))
    corner = np.clip(50 + np.cumsum(steps, axis=0), 2, 70)  # u, v
    frames = square_frames(corner)
    for frame, (u, v) in zip(frames, corner, strict=True):
        frame[v : v + 8, u + 14 : u + 22] = (200, 30, 30)
    objects = np.full((length, 5, 2), np.nan)
    objects[:, 0] = corner + np.array([18, 4])
    motion = np.linalg.norm(np.diff(corner, axis=0, prepend=corner[:1]), axis=1) / 100.0
    return square_episode(seed, corner, frames, {"object_pixels": objects, "object_motion": motion})


@pytest.fixture(scope="module")
def pictures(folders, tmp_path_factory):
    return open_pictures(folders["train"], (96, 144), tmp_path_factory.mktemp("store"))


def test_windows_are_a_second_a_step_and_the_same_whenever_they_are_asked_for(pictures):
    windows = Windows(pictures, frames=5, history=4, seed=3)
    batch = windows.batch(7, 16)
    assert torch.equal(batch.rows, windows.batch(7, 16).rows)
    steps, fresh = batch.rows.diff(dim=1), batch.slots[1:] > batch.repeats[:, None]
    assert (steps[fresh] == 5).all()
    assert (steps[~fresh] == 0).all()
    assert set(window_rows(pictures)[:, 0] - np.repeat(pictures.starts[:-1], 3)) == {0, 2, 5}


def test_the_spread_counts_directions_and_takes_a_code_of_the_place_for_collapse(pictures):
    rows, generator = np.arange(0, 78, 2), torch.Generator().manual_seed(0)
    noise = torch.randn(39, 96, 6, generator=generator)
    cases = {"noise": noise, "one direction": noise[..., :1] * torch.ones(6), "place": noise[:1].expand(39, -1, -1)}
    found = {}
    for name, latents in cases.items():
        queue = list(latents.split([len(part) for part in np.array_split(rows, 8)]))
        found[name] = spread(SimpleNamespace(encode=lambda images, queue=queue: queue.pop(0)), pictures, rows)
    assert found["noise"]["effective_rank"] == pytest.approx(6, abs=0.1)
    assert found["noise"]["dynamic"] > 0.9
    assert found["one direction"]["effective_rank"] == pytest.approx(1, abs=0.01)
    assert found["place"]["variance"] < 1e-9


def test_the_gradient_reaches_the_encoder_through_the_frames_that_are_predicted(pictures):
    model = build("pixels", preset("clip"), seed=0)
    window, latents = encoded(model, Windows(pictures, 5, 4, 0).batch(0, 2), pictures, "pixels")
    window.latents[:, -1].square().sum().backward()
    assert latents.requires_grad
    assert float(model.encoder.stem[0].weight.grad.abs().sum()) > 0


def test_each_arm_trains_for_its_time_and_only_pca_stays_as_it_was_fitted(pictures):
    for arm in ("pca", "pixels", "unregularised"):
        done = train(arm, preset("clip"), pictures, Training(seconds=0.05, batch_size=2, points=1), 0, lambda model: {})
        assert done.steps >= 1
        assert all(math.isfinite(row.get("prediction", 0.0)) for row in done.curve)
        assert any(each.requires_grad for each in done.model.encoder.parameters()) == (arm != "pca")


def test_a_model_that_ignores_motions_ranks_at_chance(pictures):
    """A fresh predictor says that nothing changes, so all 16 motions are equally good."""
    model = build("pixels", preset("clip"), seed=0).eval()
    rows = window_rows(pictures)
    sums = Sums(pictures.episode_of[rows[:, 0]], 3)
    with torch.no_grad():
        _ranking(sums, model, pictures, rows, encode(model, pictures, rows), seed=0)
    for name in ("top1_others_1s", "top1_others_2s", "top1_near_1s"):
        above, below = sums.values[name]
        assert above.sum() / below.sum() == pytest.approx(1 / 16)


def test_an_object_map_is_one_at_an_object_and_ignores_absent_ones():
    places = np.full((1, 5, 2), np.nan)
    places[0, 0] = (12 * 3.5, 12 * 1.5)  # u, v: the centre of the fourth token of the second row
    drawn = object_map(places, (8, 12), (96, 144)).reshape(8, 12)
    assert drawn[1, 3] == 1.0
    assert drawn[2, 3] == pytest.approx(math.exp(-1 / 0.98))
    assert object_map(np.full((1, 5, 2), np.nan), (8, 12), (96, 144)).max() == 0.0


def test_objects_that_are_seen_to_move_count_whole_and_a_still_picture_not_at_all(pictures):
    rows = window_rows(pictures)
    sums = Sums(pictures.episode_of[rows[:, 0]], 3)
    truth = {
        kind: torch.from_numpy(object_map(pictures.objects[rows[:, at]], (8, 12), (96, 144)))
        for kind, at in (("still_", 0), ("true_", 4))
    }

    class Reader:  # reads the true maps, which stand for latents here
        grid = (8, 12)

        def __call__(self, maps):
            return torch.logit(maps, eps=1e-9)

    _objects(sums, "4s", truth, Reader(), pictures, rows, 4)
    shares = {name: above.sum() / below.sum() for name, (above, below) in sums.values.items()}
    assert shares["true_object_motion_4s"] == pytest.approx(1.0, abs=1e-5)
    assert shares["still_object_motion_4s"] == 0.0
    assert shares["true_objects_unexplained_4s"] == pytest.approx(0.0, abs=1e-5)


def test_the_experiment_runs_goes_on_and_compares(folders, tmp_path, monkeypatch):
    data = [item for name in ("train", "validation", "test") for item in (f"--{name}", str(folders[name]))]
    times = ["--seconds", "0.2", "--probe-seconds", "0.1", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["pixel_encoder.py", *data, *times, "--output", str(tmp_path)])
    pixel_encoder.main()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [run["arm"] for run in results["runs"]] == ["pca", "pixels", "unregularised"]
    assert results["figures"]["top1_others_1s"]["pixels_minus_pca"][0] == pytest.approx(
        results["figures"]["top1_others_1s"]["pixels"][0] - results["figures"]["top1_others_1s"]["pca"][0]
    )
    assert "true_object_motion_4s" in results["figures"]
    before = (tmp_path / "units" / "pixels-0.training.json").stat().st_mtime_ns
    (tmp_path / "units" / "pixels-0.json").unlink()  # stopped after training: only the measuring is done again
    pixel_encoder.main()
    assert (tmp_path / "units" / "pixels-0.training.json").stat().st_mtime_ns == before
