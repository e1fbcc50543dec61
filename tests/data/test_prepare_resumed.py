"""kill -9 at any moment, shards, several processes at once: the store is equal to the byte to an undisturbed one."""

import multiprocessing
import random
import time
from contextlib import suppress

import pytest
from prepare_fixtures import config_of, content_of, write_source

from dexworld.data.files import Shard
from dexworld.data.locks import claimed
from dexworld.data.prepare.job import prepare

KILLS = 20
CONTEXT = multiprocessing.get_context("forkserver")  # a clean process each, without the seconds of imports


def run(config, started):
    """What is killed: tells that it has begun, then prepares."""
    started.send("begun")  # an Event would stay locked by whoever is killed within it
    prepare(config)


def started_process(config):
    """A process that has begun to prepare."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=run, args=(config, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == "begun"
    return process


@pytest.fixture(scope="module", autouse=True)
def warm():
    CONTEXT.set_forkserver_preload(["__main__", "pytest", "dexworld.data.prepare.job", "dexworld.data.recordings"])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("kill") / "source", episodes=7, length=12)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    """The store, and how long it takes to write."""
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    process, begun = started_process(config_of(source, folder)), time.monotonic()
    process.join()
    assert process.exitcode == 0
    return content_of(folder), time.monotonic() - begun


def test_twenty_kills_at_random_moments_leave_no_trace(source, undisturbed, tmp_path):
    expected, duration = undisturbed
    draw, kills, stores = random.Random(0), 0, 0
    while kills < KILLS:
        store = tmp_path / f"store-{stores}"
        stores += 1
        while True:
            process = started_process(config_of(source, store))
            # a run that goes on where another was killed is shorter
            process.join(draw.uniform(0, duration / 2) if kills < KILLS else None)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            kills += 1
        assert content_of(store) == expected
    assert stores < KILLS  # some stores were killed more than once


def test_killing_the_main_process_of_several_workers_leaves_no_trace(source, undisturbed, tmp_path):
    expected, duration = undisturbed
    process = started_process(config_of(source, tmp_path / "store", workers=2))
    while process.is_alive() and not list((tmp_path / "store").glob("staging/*pack-*")):  # its workers start slowly
        time.sleep(0.005)
    time.sleep(random.Random(1).uniform(0, duration / 2))
    process.kill()
    process.join()
    prepare(config_of(source, tmp_path / "store"))
    assert content_of(tmp_path / "store") == expected


def test_the_leavings_of_a_killed_process_are_removed(source, undisturbed, tmp_path):
    store = tmp_path / "store"
    prepare(config_of(source, store, assemble="never"))
    staging = store / "staging"
    (staging / "pack-000001.json").rename(staging / ".pack-000001.json.part")  # killed before the rename ...
    for pack in ("pack-000001", "pack-000002"):  # ... and in the middle of a video
        (staging / f".{pack}.mp4.host-4242.tmp").write_bytes(b"half a video")
    prepare(config_of(source, store))
    assert content_of(store) == undisturbed[0]


def test_two_shards_in_any_order_make_the_store_of_a_single_run(source, undisturbed, tmp_path):
    second = prepare(config_of(source, tmp_path / "store", shard=Shard.parse("1/2")))
    assert (second.assembled, second.prepared, second.waiting) == (False, 3, 4)
    first = prepare(config_of(source, tmp_path / "store", shard=Shard.parse("0/2")))
    assert first.assembled
    assert content_of(tmp_path / "store") == undisturbed[0]


def test_assembly_can_be_left_to_a_run_of_its_own(source, undisturbed, tmp_path):
    store = tmp_path / "store"
    prepare(config_of(source, store, shard=Shard(0, 2), assemble="never"))
    with pytest.raises(ValueError, match="2 of 4 packs are missing, the first is pack 1"):
        prepare(config_of(source, store, assemble="only"))
    prepare(config_of(source, store, shard=Shard(1, 2), assemble="never"))
    assert not (store / "meta").exists()
    assert prepare(config_of(source, store, assemble="only")).assembled
    assert content_of(store) == undisturbed[0]


def test_processes_with_the_same_shard_at_once_do_no_harm(source, undisturbed, tmp_path):
    config = config_of(source, tmp_path / "store")
    processes = [started_process(config) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    prepare(config)  # the last one to end assembles, unless it saw another's claim
    assert content_of(tmp_path / "store") == undisturbed[0]


def test_a_pack_that_a_live_process_holds_is_left_to_it(source, tmp_path):
    store = tmp_path / "store"
    prepare(config_of(source, store, shard=Shard(0, 4), assemble="never"))
    with suppress(FileNotFoundError), claimed(store / "staging" / "pack-000002.json") as part:
        report = prepare(config_of(source, store))
        part.unlink()  # the other process gives up
    assert (report.assembled, report.waiting) == (False, 2)
    assert prepare(config_of(source, store)).assembled
