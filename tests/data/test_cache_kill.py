"""kill -9 at random moments of a cache's build, 20 times: the folder that comes out is the undisturbed one's.

Python and torch take seconds to start, so one helper process (this file, run as a script) starts once and forks a real
process for every build that a test asks for.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

LENGTHS = [7, 3, 12, 1, 9]
ROWS = 4  # frames of a shard
SHARDS = 8
KILLS = 20


def fork_builds() -> None:
    """For every line `<data> <seconds or -> <kills> <cache folder>...`: fork a build for each folder, kill the first
    ones after a while, and answer with all exit codes."""
    import torch

    from dexworld.data.datasets import open_dataset
    from dexworld.data.latent_cache import compute_latents

    def encode(images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(1, 2))[:, None].expand(-1, 4, 3)

    torch.set_num_threads(1)
    for line in sys.stdin:
        data, seconds, kills, *folders = line.rstrip("\n").split("\t")
        children = []
        for folder in folders:
            child = os.fork()
            if child == 0:
                compute_latents(open_dataset(data), encode, "brightness", Path(folder), frames_per_shard=ROWS)
                os._exit(0)
            children.append(child)
        time.sleep(float(seconds))
        for child in children[: int(kills)]:
            os.kill(child, signal.SIGKILL)  # one that has finished waits for this parent: its id is still its own
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write("\t".join(map(str, codes)) + "\n")
        sys.stdout.flush()


class Builder:
    """Builds in processes of their own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def build(self, data: Path, *folders: Path, kills: int = 0, after: float = 0.0) -> list[int]:
        """Exit codes of builds that run at once, one per folder; the first `kills` are killed `after` seconds."""
        self.process.stdin.write("\t".join(map(str, (data, after, kills, *folders))) + "\n")
        return [int(word) for word in self.process.stdout.readline().split()]


@pytest.fixture(scope="module")
def builder():
    builder = Builder()
    yield builder
    builder.process.stdin.close()
    builder.process.wait(timeout=30)


@pytest.fixture
def data(tmp_path, write_dataset):
    return write_dataset(tmp_path / "data", LENGTHS).folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_twenty_kills_at_random_moments_leave_the_folder_of_an_undisturbed_build(tmp_path, builder, data):
    undisturbed = tmp_path / "undisturbed"
    assert builder.build(data, undisturbed) == [0]
    shutil.rmtree(undisturbed)
    began = time.monotonic()  # the second build is the one whose time counts: everything is warm
    assert builder.build(data, undisturbed) == [0]
    duration = time.monotonic() - began
    expected = contents(undisturbed)
    assert len(expected) == 4 + 2 * SHARDS

    generator = np.random.default_rng(0)
    progress: list[int] = []
    for attempt in range(3 * KILLS):
        folder = tmp_path / f"killed-{attempt}"
        if builder.build(data, folder, kills=1, after=generator.uniform(0.0, duration)) == [-signal.SIGKILL]:
            progress.append(len(list(folder.glob("shards/*.npy"))))
            assert builder.build(data, folder) == [0]
        else:
            duration *= 0.8  # other processes slowed the measured build down
        assert contents(folder) == expected
        if len(progress) == KILLS:
            break
    assert len(progress) == KILLS
    assert len(set(progress)) >= 4  # the kills fell into different moments


def test_two_builds_at_once_share_the_work_even_when_one_is_killed(tmp_path, builder, data):
    assert builder.build(data, tmp_path / "undisturbed") == [0]
    expected = contents(tmp_path / "undisturbed")
    for number, moment in enumerate((0.005, 0.02, 0.04, 0.06)):
        folder = tmp_path / f"shared-{number}"
        assert builder.build(data, folder, folder, kills=1, after=moment)[1] == 0
        assert contents(folder) == expected


if __name__ == "__main__":
    fork_builds()
