"""The process that does the jobs of plans in a slice of time; `run.py` starts and watches it."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch

from dexworld.data.files import read_json
from dexworld.evaluation.results import plain, write_results
from dexworld.writing import write_json, write_text
from gpu_page import section
from jobs import DONE, FAILED, Job, Slice, deadline_of, logger, next_job, open_jobs
from machine import Machine
from run import RUNNING
from self_check import self_check

ROOT = Path(__file__).resolve().parent.parent.parent
PLANS = {  # modules, imported when they are asked for: each needs other packages
    "measure": "plan_measure",
    "dexwm-small": "plan_dexwm",
    "dwm-small": "plan_dwm",
    "encoder": "plan_encoder",
}
CHECK = Job("self-check", 1e9, 20, self_check, again=True)
RESERVE_S = 5.0  # at the end, for the page
PATIENCE = 3  # a job is ended after so many times its least
REHEARSED_TIME = 0.05  # of what a job takes on the GPU machine


def main() -> None:
    """Do the plans of the command line, one after the other, each in its share of the time."""
    options = Namespace(**json.loads(sys.argv[1]))
    command = [*options.plans, "--minutes", f"{options.minutes:g}", "--seed", str(options.seed)]
    sys.argv = ["benchmarks/gpu/run.py", *command, *["--rehearse"] * options.rehearse]  # as records name it
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    threading.Thread(target=_end_with, args=(options.parent,), daemon=True).start()
    machine = Machine("cpu" if options.rehearse else options.device)
    if not options.rehearse and not machine.is_gpu:
        sys.exit("gpu: there is no GPU here; add --rehearse to try the plan on the CPU")
    if options.rehearse:
        torch.set_num_threads(1)
    several = len(options.plans) > 1
    try:
        for place, plan in enumerate(options.plans):
            share = (options.end - RESERVE_S - time.time()) / (len(options.plans) - place)
            output, work = Path(options.output), Path(options.work)
            now = Slice(
                machine,
                output / plan if several else output,
                work / plan if several else work,
                time.time() + share,
                options.rehearse,
            )
            do_plan(plan, now, options)
    except KeyboardInterrupt as stop:
        sys.exit(128 + stop.args[0])


def _stop(number: int, frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def _end_with(parent: int) -> NoReturn:
    """End this process soon after the one that watches it, even when that one was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def do_plan(plan: str, now: Slice, options: Namespace) -> None:
    """Do a plan's jobs as long as time is left; results.json and gpu.md hold all that is finished, at any moment."""
    now.work.mkdir(parents=True, exist_ok=True)
    now.output.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(now.output / "log.txt")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger().addHandler(handler)
    found = read_json(now.output / "results.json") if (now.output / "results.json").exists() else {}
    now.entries.update(found.get("jobs", {}))
    number = found.get("slices", 0)
    now.number = number if found.get("started") != options.end else number - 1
    jobs = [CHECK, *import_module(PLANS[plan]).jobs(options)]
    if now.rehearsed:
        jobs = [replace(job, seconds=REHEARSED_TIME * job.seconds) for job in jobs]
    for failed, name, wrong in options.failures:
        if failed == plan:
            now.entries[name] = {"state": FAILED, "slice": now.number, "error": wrong}
    about = {"plan": plan, "card": now.machine.card, "commit": commit(), "slices": now.number + 1}
    about |= {"rehearsed": now.rehearsed, "minutes": options.minutes, "started": options.end}
    while True:
        tried = [name for name, entry in now.entries.items() if entry.get("slice") == now.number]
        job = next_job(jobs, now.entries, tried, now.end - time.time())
        if job is None:
            break
        waiting = open_jobs(jobs, now.entries, tried)
        now.deadline = deadline_of(job, waiting, now.end, time.time())
        late = min(max(now.deadline, time.time() + PATIENCE * job.seconds), now.end)
        write_json(Path(options.work) / RUNNING, {"plan": plan, "job": job.name, "until": late})
        now.entries[job.name] = done(job, now)
        (Path(options.work) / RUNNING).unlink()
        write(now, about)
    for job in open_jobs(jobs, now.entries, tried):
        if now.entries.get(job.name, {}).get("state") == DONE:
            continue  # in a slice before
        missing = [name for name in job.needs if now.entries.get(name, {}).get("state") != DONE]
        why = f"needs {', '.join(missing)}" if missing else f"takes {job.seconds:g} s, and less was left"
        now.entries[job.name] = {"state": "waits", "why": why}
    write(now, about)
    logging.getLogger().removeHandler(handler)
    handler.close()


def done(job: Job, now: Slice) -> dict[str, Any]:
    """The entry of a job that was just done, or of one that failed."""
    logger.info("%s: begins, with %.0f s", job.name, now.left)
    begin = time.time()
    entry: dict[str, Any] = {"slice": now.number}
    try:
        figures = plain(job.work(now), job.name)
        entry = {"state": DONE, **entry, "seconds": round(time.time() - begin, 1), **figures}
    except Exception as error:  # whatever it is, the other jobs are worth their minutes
        defect = not isinstance(error, ImportError)  # a missing package is none
        logger.error("%s: failed", job.name, exc_info=defect)
        entry = {"state": FAILED, **entry, "error": f"{type(error).__name__}: {str(error)[:500]}"}
        before = now.entries.get(job.name, {})
        entry |= {key: before[key] for key in ("stage", "finished") if key in before}  # where the next slice goes on
    now.machine.clean()
    logger.info("%s: %s", job.name, json.dumps(entry))
    return entry


def write(now: Slice, about: dict[str, Any]) -> None:
    """Write results.json and gpu.md."""
    path = write_results(now.output, {**about, "jobs": now.entries})
    write_text(now.output / "gpu.md", section(read_json(path)))


def commit() -> str:
    """The commit of this code: of the folder that `pack.py` made, or of the repository."""
    packed = ROOT / "commit.txt"
    if packed.exists():
        return packed.read_text(encoding="utf-8").strip()
    try:
        git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return git.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
