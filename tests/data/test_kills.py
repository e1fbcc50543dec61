"""kill -9 at any moment, several processes at once: a store and a latent cache are those of an undisturbed run."""

import multiprocessing
import random
import time
from contextlib import suppress
from functools import partial

import pytest
import torch
from prepare_fixtures import config_of, content_of, write_source

from dexworld.data.datasets import open_dataset
from dexworld.data.files import Shard
from dexworld.data.latent_cache import compute_latents
from dexworld.data.locks import claimed
from dexworld.data.prepare.job import prepare

KILLS = 20
CONTEXT = multiprocessing.get_context("forkserver")  # a clean process each, without the seconds of imports


def mean_colours(images):
    return images.float().mean(dim=(1, 2))[:, None].expand(-1, 4, 3)


def prepare_store(source, folder):
    prepare(config_of(source, folder))


def build_cache(source, folder):
    torch.set_num_threads(1)
    compute_latents(open_dataset(source), mean_colours, "colours", folder, frames_per_shard=8)


def run(job, started):
    """What is killed: tells that it has begun, then works."""
    started.send("begun")  # an Event would stay locked by whoever is killed within it
    job()


def started_process(job):
    """A process that has begun its job."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=run, args=(job, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == "begun"
    return process


@pytest.fixture(scope="module", autouse=True)
def warm():
    modules = ("prepare.job", "recordings", "latent_cache", "datasets")
    CONTEXT.set_forkserver_preload(["__main__", "pytest", *(f"dexworld.data.{name}" for name in modules)])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("kill") / "source", episodes=7, length=12)


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    """What an undisturbed preparation writes."""
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    prepare_store(source, folder)
    return content_of(folder)


@pytest.fixture(scope="module", params=[prepare_store, build_cache])
def undisturbed(request, source, tmp_path_factory):
    """The work, what it writes when nobody disturbs it, and how long that takes."""
    job, folder = partial(request.param, source), tmp_path_factory.mktemp("undisturbed") / "folder"
    process, begun = started_process(partial(job, folder)), time.monotonic()
    process.join()
    assert process.exitcode == 0
    return job, content_of(folder), time.monotonic() - begun


def test_twenty_kills_at_random_moments_leave_no_trace(undisturbed, tmp_path):
    job, expected, duration = undisturbed
    draw, kills, folders = random.Random(0), 0, 0
    while kills < KILLS:
        folder = tmp_path / str(folders)
        folders += 1
        while True:
            process, begun = started_process(partial(job, folder)), time.monotonic()
            # a run that goes on where another was killed is shorter
            process.join(draw.uniform(0, duration / 2) if kills < KILLS else None)
            if process.exitcode is not None:
                assert process.exitcode == 0
                duration = min(duration, time.monotonic() - begun)  # the machine was slower before
                break
            process.kill()
            process.join()
            kills += 1
        assert content_of(folder) == expected
    assert folders < KILLS  # some were killed more than once


def test_processes_at_once_do_no_harm_even_when_one_is_killed(undisturbed, tmp_path):
    job, expected, duration = undisturbed
    for number in range(3):
        processes = [started_process(partial(job, tmp_path / str(number))) for _ in range(3)]
        processes[0].join(number / 4 * duration)
        processes[0].kill()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes[1:]] == [0, 0]
        job(tmp_path / str(number))  # the last one to end assembles a store, unless it saw another's claim
        assert content_of(tmp_path / str(number)) == expected


def test_killing_the_main_process_of_several_workers_leaves_no_trace(source, store, tmp_path):
    process = started_process(partial(prepare, config_of(source, tmp_path / "store", workers=2)))
    while process.is_alive() and not list((tmp_path / "store").glob("staging/*pack-*")):  # its workers start slowly
        time.sleep(0.005)
    time.sleep(0.05)
    process.kill()
    process.join()
    prepare_store(source, tmp_path / "store")
    assert content_of(tmp_path / "store") == store


def test_the_leavings_of_a_killed_process_are_removed(source, store, tmp_path):
    folder = tmp_path / "store"
    prepare(config_of(source, folder, assemble=False))
    staging = folder / "staging"
    (staging / "pack-000001.json").rename(staging / ".pack-000001.json.part")  # killed before the rename ...
    for pack in ("pack-000001", "pack-000002"):  # ... and in the middle of a video
        (staging / f".{pack}.mp4.host-4242.tmp").write_bytes(b"half a video")
    prepare_store(source, folder)
    assert content_of(folder) == store


def test_shards_in_any_order_make_the_store_of_a_single_run_and_assembly_can_be_left_to_a_run_of_its_own(
    source, store, tmp_path
):
    second = prepare(config_of(source, tmp_path / "one", shard=Shard(1, 2)))
    assert (second.assembled, second.prepared, second.waiting) == (False, 3, 4)
    assert prepare(config_of(source, tmp_path / "one", shard=Shard(0, 2))).assembled
    prepare(config_of(source, tmp_path / "two", shard=Shard(0, 2), assemble=False))
    prepare(config_of(source, tmp_path / "two", shard=Shard(1, 2), assemble=False))
    assert not (tmp_path / "two" / "meta").exists()
    assert prepare(config_of(source, tmp_path / "two")).assembled
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two") == store


def test_a_pack_that_a_live_process_holds_is_left_to_it(source, tmp_path):
    folder = tmp_path / "store"
    prepare(config_of(source, folder, shard=Shard(0, 4), assemble=False))
    with suppress(FileNotFoundError), claimed(folder / "staging" / "pack-000002.json") as part:
        report = prepare(config_of(source, folder))
        part.unlink()  # the other process gives up
    assert (report.assembled, report.waiting) == (False, 2)
    assert prepare(config_of(source, folder)).assembled
