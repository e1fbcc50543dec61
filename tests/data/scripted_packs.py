"""Work on packs that goes wrong as it is told to; apart from the tests, so that workers start fast."""

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from dexworld.data.prepare.work import PackDone


@dataclass(frozen=True)
class Scripted:
    """Work that does what is written for each pack: "kill" itself, "hang", "fail", "full", or nothing."""

    script: dict
    folder: Path
    once: bool = False

    def write(self, pack, tell):
        mark = self.folder / f"{pack.number}-tried"
        action = "" if self.once and mark.exists() else self.script.get(pack.number)
        mark.touch()
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "hang":
            time.sleep(60)
        if action == "fail":
            raise RuntimeError("a defect")
        if action == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return PackDone(pack.number, 2, 20, 0)
