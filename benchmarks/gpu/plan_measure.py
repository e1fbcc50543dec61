"""The plan `measure`: how fast training, planning, loading and the video model are, and where each spends its time."""

from argparse import Namespace
from functools import partial

from jobs import Job
from measure_loading import loading
from measure_planning import plain_forward, plan_seconds
from measure_training import training_step
from measure_video import sampling, video_step

# Size, latents, recompute, whether blocks are compiled; value and seconds. Those that goals are about come first.
TRAINING = (
    ("xl", "cached", "none", True, 30, 45),
    ("xl", "cached", "none", False, 20, 30),
    ("xl", "online", "none", True, 25, 45),
    ("xl", "cached", "selective", False, 10, 30),
    ("xl", "online", "none", False, 6, 30),
    ("l", "online", "none", True, 8, 35),
    ("l", "cached", "none", True, 8, 35),
    ("b", "online", "none", True, 5, 25),
    ("b", "cached", "none", True, 5, 25),
    ("s", "online", "none", True, 5, 25),
    ("s", "cached", "none", True, 5, 25),
)


def jobs(options: Namespace) -> list[Job]:
    """All measurements, each a job of its own."""
    found = []
    rows = [row for row in TRAINING if not options.rehearse or row[0] in ("xl", "s")]
    for size, latents, recompute, compiled, value, seconds in rows:
        how = ", compiled" if compiled else ""
        how += f", recompute {recompute}" if recompute != "none" else ""
        work = partial(training_step, size, latents, recompute, compiled)
        found.append(Job(f"training: {size}, {latents}{how}", value, seconds, work))
    return [
        *found,
        Job("planning: paper, 10 x 512", 40, 60, partial(plan_seconds, "paper")),
        Job("planning: realtime, 2 x 24", 20, 25, partial(plan_seconds, "realtime")),
        Job("plain forward: nine frames", 15, 25, plain_forward),
        Job("loading: h264", 15, 40, loading),
        Job("video training: 2b", 12, 45, partial(video_step, "cogvideox-fun-2b")),
        Job("video training: small", 8, 15, partial(video_step, "small")),
        Job("video sampling: 2b", 12, 40, partial(sampling, "cogvideox-fun-2b")),
        Job("video sampling: small", 8, 15, partial(sampling, "small")),
    ]
