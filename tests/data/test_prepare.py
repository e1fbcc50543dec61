"""Preparing a source: everything comes out or is named, and nothing is ever mixed."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from prepare_fixtures import SETTINGS, config_of, content_of, damage_frames, make_episode, write_source

from dexworld.cli.prepare import Prepare
from dexworld.data.datasets import open_dataset
from dexworld.data.parallel import RayMissingError
from dexworld.data.prepare.account import CountMismatchError
from dexworld.data.prepare.job import prepare
from dexworld.data.recordings import EpisodeDataset, EpisodeWriter


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("prepare") / "source")


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    prepare(config_of(source, folder))
    return folder


def test_the_store_is_the_same_to_the_byte_whatever_the_number_of_processes(source, undisturbed, tmp_path):
    report = prepare(config_of(source, tmp_path / "store", workers=3))
    assert report.ok
    assert content_of(tmp_path / "store") == content_of(undisturbed)


def test_broken_episodes_are_left_out_with_their_reasons_and_the_count_is_kept(source, tmp_path):
    broken = shutil.copytree(source, tmp_path / "broken")
    damage_frames(broken, "e01")  # only decoding tells
    (broken / "episodes" / "e03.npz").write_bytes(b"no labels")
    report = prepare(config_of(broken, tmp_path / "store"))
    assert (report.counted, report.prepared, len(report.quarantined)) == (7, 5, 2)
    reasons = dict(report.quarantined)
    assert "can't be read" in reasons["episodes/e03"]
    assert "e01.mp4: frame" in reasons["e01"]
    assert "quarantined e01" in report.text()
    assert report.ok
    assert open_dataset(tmp_path / "store", verify=True).ids == ("e00", "e02", "e04", "e05", "e06")
    with pytest.raises(CountMismatchError, match="7 episodes went in, but 5 are prepared, 1 quarantined"):
        replace(report, quarantined=report.quarantined[1:])
    for labels in (broken / "episodes").glob("*.npz"):
        labels.unlink()
    with pytest.raises(ValueError, match=r"holds no episode to prepare \(7 quarantined"):
        prepare(config_of(broken, tmp_path / "nothing"))


@pytest.mark.parametrize("tries", [1, 2])
def test_a_pack_that_fails_is_tried_again_then_reported_with_its_episode(source, tmp_path, monkeypatch, tries):
    real, failed = EpisodeDataset.__getitem__, []

    def read(dataset, index):
        if index == 3 and len(failed) < tries:
            failed.append(index)
            raise RuntimeError("a defect")
        return real(dataset, index)

    monkeypatch.setattr(EpisodeDataset, "__getitem__", read)
    report = prepare(config_of(source, tmp_path / "store"))
    assert (report.ok, report.assembled) == (tries == 1, tries == 1)
    assert (report.prepared, report.failed) == ((7, 0) if tries == 1 else (5, 2))
    assert [why for _, why in report.failures] == ["RuntimeError: a defect, episode e03, 2 times"] * (tries - 1)


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_by_name(source, tmp_path, finished):
    prepare(config_of(source, tmp_path / "store", assemble=finished))
    with pytest.raises(ValueError, match=r"settings.height was 32, now 48.*settings.width was 48, now 72"):
        prepare(config_of(source, tmp_path / "store", settings=replace(SETTINGS, height=48)))


@pytest.mark.parametrize("finished", [False, True])
def test_another_state_of_the_source_is_refused(source, tmp_path, finished):
    changed = shutil.copytree(source, tmp_path / source.name)
    prepare(config_of(changed, tmp_path / "store", assemble=finished))
    EpisodeWriter(changed, {"made by": "tests"}).write("e02", make_episode(2, 30))
    with pytest.raises(ValueError, match="another state of its source"):
        prepare(config_of(changed, tmp_path / "store"))


def test_a_folder_with_something_else_in_it_and_the_source_itself_are_left_alone(source, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="choose an empty folder"):
        prepare(config_of(source, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    for inside in (source, source / "stores" / "small"):
        with pytest.raises(ValueError, match="choose a destination outside of it"):
            config_of(source, inside)


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
