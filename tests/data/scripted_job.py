"""A job that goes wrong as it is told to; apart from the tests, so that workers start fast."""

import errno
import os
import signal
import time
from dataclasses import dataclass

from dexworld.data.parallel import parallel_map
from dexworld.writing import written_atomically


@dataclass(frozen=True)
class Scripted:
    """Does what is written for each item: "kill" itself, "fail", "full", or nothing."""

    script: dict

    def __call__(self, item):
        action = self.script.get(item)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "fail":
            raise RuntimeError("a defect")
        if action == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return item * item


class NeverArrives:
    """A job that ends every process that it is sent to."""

    def __reduce__(self):
        return os._exit, (3,)

    def __call__(self, item):
        return item


def imports(name):
    """What a compiled module does that its process is asked to end in: its import fails for a reason of its own."""
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
    except BaseException as error:
        raise ImportError("initialization failed") from error
    return name


class StoppedInImport(NeverArrives):
    """A job that is asked to end while the modules that it needs are imported."""

    def __reduce__(self):
        return imports, ("job",)


def write_and_wait(item, folder):
    """A file that is never finished, beside one that says who writes it."""
    with written_atomically(folder / f"{item}.result") as temporary:
        temporary.write_text("half")
        (folder / f"{item}.pid").write_text(str(os.getpid()))
        time.sleep(60)


def wait_in_processes(job):
    """A main process to be stopped or killed; one in the background would ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(parallel_map(job, [0, 1], workers=2))
