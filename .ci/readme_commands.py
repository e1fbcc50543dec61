"""Run every command that README.md shows, at its smallest size, so that none of them can rot.

    .venv/bin/python .ci/readme_commands.py            check and run
    .venv/bin/python .ci/readme_commands.py --check    check only: targets, scripts, verbs and options exist

Commands stand in code blocks marked ```bash. `dexworld` commands run in one temporary folder, two at a time; a command
that names a folder waits for the command above that writes it. The options of `SMALL` are added (the last of two equal
options wins). What CI runs anyway, or what only sets up the reader's shell, is in `ELSEWHERE` with who runs it.
"""

import argparse
import contextlib
import functools
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from dexworld import cli

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TIMEOUT_S = 900

# (pattern of a command, who runs it)
ELSEWHERE = (
    (r"git clone \S+( \S+)?", "the reader: fetches the repository"),
    (r"cd \S+", "the reader: moves in the shell"),
    (r"source \.venv/bin/activate|\. \.venv/bin/activate", "the reader: sets up the shell"),
    (r"(pip|python -m pip) install .*", "make setup installs the same extras"),
    (r"make (setup|test|lint|docs)", ".ci/run"),
    (r"make release", "by hand, before a version is published: it installs from the network"),
    (r"make demo", "here, as `dexworld demo`"),
    (r"make bench", "tests/test_benchmarks.py, script by script"),
    (r"python benchmarks/\w+\.py .*", "tests/test_benchmarks.py"),
    (r"python examples/\w+\.py .*", "tests/test_examples.py"),
)

# What makes a command small enough for CI, by verb; the others run as they are written.
SMALL = {
    "collect": ("--episodes", "4"),
    "train": ("--preset", "debug", "--steps", "4", "--batch-size", "2", "--validation-windows", "2"),
    "evaluate open-loop": ("--episodes", "2"),
    "evaluate tasks": ("--episodes", "1", "--simulator-episodes", "0"),
    "demo": ("--episodes", "1"),
    "video demo": ("--clips", "2"),
    "video synthesize": ("--clips", "4"),
    "video train": ("--steps", "4", "--batch-size", "2", "--codec-clips", "4"),
    "video evaluate": ("--clips", "2", "--samples", "1"),
    "video select": ("--episodes", "2"),
}


TAKE_WORDS = ("prepare", "reproduce")  # their first argument may look like a part of the verb
EMBODIMENTS = ("allegro", "human", "gripper", "adroit", "dexjoco", "table")  # stand behind the options of `collect`


@dataclass(frozen=True)
class Command:
    """One command of the README. `line` is where its first line stands."""

    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """The command split as a shell does."""
        return shlex.split(self.text, comments=True)

    @property
    def options(self) -> list[str]:
        """The long options in it, without values."""
        return [word.split("=")[0] for word in self.words if word.startswith("--")]

    @property
    def output(self) -> str:
        """The folder that it writes, as `--output` or the second path names it; "" where the command chooses."""
        if "--output" in self.words:
            return self.words[self.words.index("--output") + 1]
        return next((word for word in self.words[3:] if self.verb == "prepare" and "/" in word), "")

    def waits_for(self, other: "Command") -> bool:
        """Whether a path of this command lies in what `other` writes."""
        return bool(other.output) and any(f"{word}/".startswith(f"{other.output}/") for word in self.words)

    @property
    def verb(self) -> str:
        """`evaluate tasks` of `dexworld evaluate tasks --seed 1`: the words before the first option or path."""
        verb = []
        for word in self.words[1:]:
            if " ".join(verb) in TAKE_WORDS or not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            verb.append(word)
        return " ".join(verb)

    @property
    def small(self) -> list[str]:
        """The words behind the program's name, with what makes the command small."""
        words, extra = self.words[1:], list(SMALL.get(self.verb, ()))
        cut = len(words) - (words[-1] in EMBODIMENTS)
        return words[:cut] + extra + words[cut:]

    def __str__(self) -> str:
        return f"README.md:{self.line}: {self.text}"


def commands(text: str) -> list[Command]:
    """The commands in the ```bash blocks of a Markdown text; a backslash at a line's end continues it."""
    found: list[Command] = []
    inside, pending, start = False, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith("```"):
            inside = line.strip() == "```bash"
            continue
        stripped = line.strip()
        if not inside or not stripped or stripped.startswith("#"):
            continue
        start = start if pending else number
        if stripped.endswith("\\"):
            pending += stripped[:-1]
            continue
        found += [Command(start, part.strip()) for part in (pending + stripped).split("&&")]
        pending = ""
    return found


def problem(command: Command) -> str | None:
    """Why a command of the README can't work as written, or None."""
    words = command.words
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"the Makefile has no target {unknown}" if unknown else None
    if words[0] == "python" and len(words) > 1 and words[1].endswith(".py") and not (ROOT / words[1]).is_file():
        return f"{words[1]} doesn't exist"
    if words[0] == "dexworld":
        return _option_problem(command)
    if any(re.fullmatch(pattern, command.text) for pattern, _ in ELSEWHERE):
        return None
    return "nothing runs this command; make it a dexworld command, or name what runs it in ELSEWHERE"


def _option_problem(command: Command) -> str | None:
    inner = next((word for word in command.words if word in EMBODIMENTS), "")
    shown = help_text(command.verb) + (help_text(f"{command.verb} {inner}") if inner else "")
    if f"dexworld {command.verb} " not in shown.partition("[-h]")[0] + " ":
        return f"dexworld has no verb {command.verb!r}"
    known = set(re.findall(r"--[a-z0-9][a-z0-9.-]*", shown))
    unknown = [option for option in command.options if option not in known]
    return f"`dexworld {command.verb}` has no option {', '.join(unknown)}" if unknown else None


@functools.cache
def help_text(verb: str) -> str:
    """What `dexworld <verb> --help` shows."""
    os.environ["COLUMNS"] = "200"  # narrower help would break long option names
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written), contextlib.suppress(SystemExit):
        cli.main([*verb.split(), "--help"])
    return written.getvalue()


def dexworld(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command-line interface of this checkout's environment; stdout holds stderr too."""
    program = Path(sys.executable).with_name("dexworld")
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )


def run_all(runnable: list[Command], folder: Path) -> list[str]:
    """Run the commands, two at a time, each after those that it waits for; the failed ones with their last output."""
    begun: list[Future[str]] = []

    def run(command: Command, earlier: list[Future[str]]) -> str:
        wait(earlier)
        start = time.perf_counter()
        done = dexworld(command.small, folder)
        print(
            f"{'ok  ' if done.returncode == 0 else 'FAIL'} {time.perf_counter() - start:5.0f} s  {command}", flush=True
        )
        return f"{command}\n{done.stdout[-3000:]}" if done.returncode != 0 else ""

    with ThreadPoolExecutor(2) as pool:
        for command in runnable:
            earlier = [future for other, future in zip(runnable, begun, strict=False) if command.waits_for(other)]
            begun.append(pool.submit(run, command, earlier))
    return [failure for future in begun if (failure := future.result())]


def main() -> int:
    """Exit status 1 if any command is wrong or fails."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--check", action="store_true", help="don't run anything but --help")
    arguments = options.parse_args()
    shown = commands(README.read_text(encoding="utf-8"))
    failures = [f"{command}\n    {why}" for command in shown if (why := problem(command))]
    runnable = [command for command in shown if command.words[0] == "dexworld"]
    if not arguments.check and not failures:
        with tempfile.TemporaryDirectory() as folder:
            failures += run_all(runnable, Path(folder))
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(shown)} commands in README.md, {len(runnable)} of dexworld, {len(failures)} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
