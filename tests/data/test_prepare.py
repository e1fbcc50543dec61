"""Preparing a source: everything comes out or is named, and nothing is ever mixed."""

import json
import shutil
import sys
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
from prepare_fixtures import SETTINGS, config_of, content_of, damage_frames, make_episode, write_source

from dexworld.cli.prepare import Prepare
from dexworld.data.datasets import open_dataset
from dexworld.data.parallel import RayMissingError
from dexworld.data.prepare import quality
from dexworld.data.prepare.account import Account, CountMismatchError
from dexworld.data.prepare.job import StrictError, prepare
from dexworld.data.recordings import EpisodeWriter


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("prepare") / "source")


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    prepare(config_of(source, folder))
    return folder


@pytest.fixture
def broken(source, tmp_path):
    """A copy of the source in which an episode's frames can't be decoded."""
    folder = shutil.copytree(source, tmp_path / "broken")
    damage_frames(folder, "e01")
    return folder


def test_the_store_is_the_same_to_the_byte_whatever_the_number_of_processes(source, undisturbed, tmp_path):
    report = prepare(config_of(source, tmp_path / "store", workers=3))
    assert report.ok
    assert content_of(tmp_path / "store") == content_of(undisturbed)


def test_preparing_again_changes_nothing_and_accounts_for_the_same(source, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "store")
    first, again = prepare(config_of(source, undisturbed)), prepare(config_of(source, tmp_path / "store"))
    assert again.account == first.account
    assert again.frames_now == 0
    assert content_of(tmp_path / "store") == content_of(undisturbed)


def test_broken_episodes_are_left_out_with_their_reasons_and_the_count_is_kept(broken, tmp_path):
    (broken / "episodes" / "e03.npz").write_bytes(b"no labels")
    report = prepare(config_of(broken, tmp_path / "store"))
    account = report.account
    assert (account.counted, account.prepared, len(account.quarantined)) == (7, 5, 2)
    reasons = dict(account.quarantined)
    assert "can't be read" in reasons["episodes/e03"]
    assert "e01.mp4: frame" in reasons["e01"]
    assert "quarantined e01" in report.text()
    assert report.ok
    assert open_dataset(tmp_path / "store", verify=True).ids == ("e00", "e02", "e04", "e05", "e06")


def test_strict_ends_at_the_first_broken_episode(broken, tmp_path):
    with pytest.raises(StrictError, match="e01"):
        prepare(config_of(broken, tmp_path / "store", strict=True))
    assert not (tmp_path / "store" / "meta").exists()


def test_a_source_without_a_readable_episode_is_refused(broken, tmp_path):
    for labels in (broken / "episodes").glob("*.npz"):
        labels.unlink()
    with pytest.raises(ValueError, match=r"holds no episode to prepare \(7 quarantined"):
        prepare(config_of(broken, tmp_path / "store"))


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_by_name(source, tmp_path, finished):
    prepare(config_of(source, tmp_path / "store", assemble="auto" if finished else "never"))
    with pytest.raises(ValueError, match=r"settings.height was 32, now 48.*settings.width was 48, now 72"):
        prepare(config_of(source, tmp_path / "store", settings=replace(SETTINGS, height=48)))


@pytest.mark.parametrize(
    ("finished", "message"), [(False, r"bytes of episode\.e02 was \d+, now \d+"), (True, "changed their size")]
)
def test_another_state_of_the_source_is_refused(source, tmp_path, finished, message):
    changed = shutil.copytree(source, tmp_path / source.name)
    prepare(config_of(changed, tmp_path / "store", assemble="auto" if finished else "never"))
    EpisodeWriter(changed, {"made by": "tests"}).write("e02", make_episode(2, 30))
    with pytest.raises(ValueError, match=message):
        prepare(config_of(changed, tmp_path / "store"))


def test_a_folder_with_something_else_in_it_is_left_alone(source, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="choose an empty folder"):
        prepare(config_of(source, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_store_inside_its_source_is_refused(source):
    for inside in (source, source / "stores" / "small"):
        with pytest.raises(ValueError, match="choose a destination outside of it"):
            config_of(source, inside)


def test_a_disk_that_is_too_small_is_refused_with_the_figures_unless_forced(source, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(ValueError, match=r"needs about 0\.\d MB more \(84 frames of 7 episodes\).*0.0 MB are free"):
        prepare(config_of(source, tmp_path / "store"))
    assert prepare(config_of(source, tmp_path / "store", force=True)).assembled


def test_the_quality_says_how_far_pictures_and_keypoints_are_from_the_source(source, undisturbed):
    figures = prepare(config_of(source, undisturbed, check_frames=3, check_episodes=0)).quality
    assert (figures["episodes_compared"], figures["frames_compared"]) == (7, 21)
    assert 25 < figures["psnr_5th_percentile_db"] <= figures["psnr_median_db"] < 60
    assert figures["psnr_luma_median_db"] > figures["psnr_median_db"]  # colour has half the resolution
    assert figures["keypoint_max_px"] < 1e-3
    assert figures["not_compared"] == []


def test_psnr_is_that_of_a_known_error():
    grey = np.full((4, 4, 3), 100, dtype=np.uint8)
    assert quality.psnr(grey, grey + 1) == pytest.approx(20 * np.log10(255))
    assert quality.psnr(grey, grey) == pytest.approx(58.92, abs=0.01)  # what rounding to 8 bits costs


def test_keypoints_are_compared_in_stored_pixels():
    before, settings = make_episode(0), replace(SETTINGS, width=48)
    moved = replace(before, intrinsics=before.intrinsics * [[0.5], [0.5], [1.0]])
    moved.intrinsics[0, 2] += 3.0
    found = quality._keypoint_distance(before, moved, 0, settings.fit((64, 96)))
    assert found == pytest.approx(3.0)


def test_an_account_that_does_not_add_up_is_an_error():
    with pytest.raises(CountMismatchError, match="7 episodes went in, but 5 are prepared, 1 quarantined"):
        Account(counted=7, prepared=5, frames=50, bytes=1, quarantined=(("a", "b"),))


def test_the_command_writes_its_account_and_fails_when_the_store_is_damaged(source, undisturbed, tmp_path, capsys):
    store = shutil.copytree(undisturbed, tmp_path / "store")
    command = Prepare(source, store, settings=SETTINGS, workers=1, verify=True)
    command.run()
    figures = json.loads((store / "results.json").read_text())
    assert (figures["episodes"], figures["prepared"], figures["verified"]) == (7, 7, True)
    assert "7 of 7 episodes prepared (84 frames), 0 quarantined" in capsys.readouterr().out
    video = sorted(store.rglob("*.mp4"))[0]
    video.write_bytes(video.read_bytes()[:-10])
    with pytest.raises(SystemExit) as ended:
        command.run()
    assert ended.value.code == 1
    assert "damaged e00" in capsys.readouterr().out


def test_two_ray_workers_write_the_same_packs(source, undisturbed, tmp_path):
    pytest.importorskip("ray", reason="ray is an optional extra and not installed")
    report = prepare(config_of(source, tmp_path / "store", ray="local", workers=2))
    assert report.ok
    assert content_of(tmp_path / "store") == content_of(undisturbed)


def test_ray_without_ray_says_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayMissingError, match=r"pip install \"dexworld\[ray\]\""):
        prepare(config_of(source, tmp_path / "store", ray="local", workers=2))
