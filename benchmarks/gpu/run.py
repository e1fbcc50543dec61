"""Turn minutes of a GPU into figures and models, on a machine that reaches nothing; docs/gpu_kit.md explains it.

    python benchmarks/gpu/run.py PLAN --minutes 9 --output DIR

Plans: measure, dexwm-small, dwm-small, encoder; several share the minutes. `--rehearse` does the same things at a
hundredth of the size on a CPU. What comes back lies in DIR (in DIR/PLAN for several plans): results.json, gpu.md,
log.txt and weights. The same command with the same DIR goes on.

This process only watches: the jobs run in a process of their own. A job that doesn't stop in time, or takes that
process with it, is ended and named, and the next one begins in a new process.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDERS = (ROOT / "benchmarks", ROOT / "tools")  # whose modules the plans call
PLANS = ("measure", "dexwm-small", "dwm-small", "encoder")
GRACE_S = 20.0  # after a job's deadline, for what it has to write
WORTH_S = 20.0  # with less time left no further process is started
LATE_S = 6.0  # a process that was asked to stop is ended after so long
RUNNING = "running.json"


def parsed() -> argparse.Namespace:
    """The command line."""
    arguments = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    arguments.add_argument("plans", nargs="+", choices=PLANS, metavar="PLAN", help=", ".join(PLANS))
    arguments.add_argument("--minutes", type=float, default=9.0, help="time in all (default: 9)")
    arguments.add_argument("--output", type=Path, required=True, help="folder of what comes back, at most 8 files")
    arguments.add_argument("--work", type=Path, help="folder of data and checkpoints (default: OUTPUT-work)")
    arguments.add_argument("--device", default="auto", help="cuda, cpu, or auto: a GPU where there is one")
    arguments.add_argument("--rehearse", action="store_true", help="a hundredth of the size, on the CPU")
    arguments.add_argument("--seed", type=int, default=200_000, help="first training scene (default: 200000)")
    arguments.add_argument("--validation-seed", type=int, default=917_000, help="first validation scene")
    options = arguments.parse_args()
    if options.minutes <= 0:
        arguments.error("--minutes must be positive")
    options.output = options.output.resolve()
    options.work = (options.work or options.output.with_name(f"{options.output.name}-work")).resolve()
    return options


def running(work: Path) -> dict[str, Any]:
    """The job that the other process is at, and until when; empty between jobs."""
    try:
        return json.loads((work / RUNNING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def end(child: subprocess.Popen) -> None:
    """Ask a process to stop, and end it when it doesn't."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(LATE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def watched(child: subprocess.Popen, work: Path, stop: float) -> str:
    """Wait for the process; what went wrong with it, or an empty string."""
    while child.poll() is None:
        time.sleep(0.2)
        now = running(work)
        until = min(now.get("until", stop), stop) + GRACE_S
        if time.time() > until:
            end(child)
            return f"didn't stop {GRACE_S:.0f} s after its deadline, so its process was ended"
    code = child.returncode
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return "" if code == 0 else f"its process ended with {how}"


def main() -> None:
    """Start the process of the jobs, and start it again without a job that ended it."""
    options, failures = parsed(), list[tuple[str, str, str]]()  # plan, job, what went wrong
    options.work.mkdir(parents=True, exist_ok=True)
    stop = time.time() + 60 * options.minutes
    child: subprocess.Popen | None = None
    folders = [*map(str, FOLDERS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}

    def stopped(number: int, frame: Any) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        if child is not None and child.poll() is None:
            end(child)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
    while True:
        (options.work / RUNNING).unlink(missing_ok=True)
        settings = {**vars(options), "end": stop, "failures": failures, "parent": os.getpid()}
        command = [sys.executable, str(HERE / "slice_of_time.py"), json.dumps(settings, default=str)]
        child = subprocess.Popen(command, env=environment, process_group=0)  # Ctrl-C reaches it through this one
        wrong = watched(child, options.work, stop)
        if not wrong:
            return
        now = running(options.work)
        sys.stderr.write(f"gpu: {now.get('job', 'no job')}: {wrong}\n")
        if not now or stop - time.time() < WORTH_S:
            sys.exit(1)
        failures.append((now["plan"], now["job"], wrong))


if __name__ == "__main__":
    main()
