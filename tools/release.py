"""Make what is published, and try it in a clean environment: `make release`, or

    python tools/release.py [pip options, such as --extra-index-url URL]

dist/ then holds wheel and source archive of dexworld and of dexworld-client, and the site. They are built from the
files that git tracks. The check installs the wheels into a new environment and runs a demonstration there. It exits
with 1 at the first thing that is wrong.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

from huggingface_hub import ModelCard

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
MAX_WHEEL_BYTES = 30_000_000
BUILD = "from setuptools import build_meta as b; b.build_wheel({0!r}); b.build_sdist({0!r})"
DEMO = ("demo", "--tasks", "reach", "--episodes", "1", "--workers", "1", "--seed", "950000", "--output", "demo")


def run(*command: object, cwd: Path) -> None:
    """Run a command. Raises SystemExit with its last lines where it fails."""
    done = subprocess.run([*map(str, command)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} {command[1]} failed:\n{done.stdout[-3000:]}")


def tracked_files(folder: Path) -> None:
    """Copy the files that git tracks into a folder, so that nothing else gets into the archives."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def problems_of(wheel: Path, sources: Path) -> list[str]:
    """What is wrong with a wheel: its size, files that it lacks or that aren't the package's, and its model cards.

    sources: the folder that holds the folder of the package.
    """
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(folder)
        cards = sorted(Path(folder).rglob("assets/*/README.md"))
        problems = [f"{card.relative_to(folder)}: {why}" for card in cards if (why := problem_of_card(card))]
    files = (path for path in (sources / "dexworld").rglob("*") if path.is_file())
    wanted = {path.relative_to(sources).as_posix() for path in files}
    problems += [f"{wheel.name} lacks {name}" for name in sorted(wanted - names)]
    problems += [f"{wheel.name} holds {name}, which is no file of the package" for name in sorted(names - wanted)]
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        problems.append(f"{wheel.name} has {wheel.stat().st_size:,} bytes; {MAX_WHEEL_BYTES:,} are allowed")
    return problems


def problem_of_card(card: Path) -> str:
    """Why the hub would not know a model by its card, or an empty text."""
    data = ModelCard.load(card).data.to_dict()
    missing = [name for name in ("license", "library_name", "pipeline_tag", "tags") if not data.get(name)]
    return f"its front matter lacks {', '.join(missing)}" if missing else ""


def versions(root: Path) -> dict[str, str]:
    """The version that each file names; they must be one."""
    found = {
        name: tomllib.loads((root / name).read_text(encoding="utf-8"))["project"]["version"]
        for name in ("pyproject.toml", "client/pyproject.toml")
    }
    cited = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found | {"CITATION.cff": cited[1] if cited else "none"}


def try_out(pip_options: list[str]) -> None:
    """Install the wheels into a new environment, and run a demonstration from an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        (wheel,) = DIST.glob("dexworld-*.whl")
        constraints = ROOT / "constraints.txt"
        client = next(DIST.glob("dexworld_client-*.whl"))
        wheels = (f"{wheel}[sim,serve]", client)
        run(python, "-m", "pip", "install", "-q", *pip_options, "-c", constraints, *wheels, cwd=folder)
        run(python, "-m", "pip", "check", cwd=folder)
        run(python.with_name("dexworld"), *DEMO, cwd=folder)
        if not (folder / "demo" / "report.html").exists():
            sys.exit("the demonstration wrote no page")


def main() -> int:
    """Exit status 1 if anything is wrong."""
    if len({*versions(ROOT).values()}) > 1:
        sys.exit(f"the versions differ: {versions(ROOT)}")
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        tracked_files(copy)
        for project in (copy, copy / "client"):
            run(sys.executable, "-c", BUILD.format(str(DIST)), cwd=project)
        (wheel,) = DIST.glob("dexworld-*.whl")
        problems = problems_of(wheel, copy / "src")
    if problems:
        sys.exit("\n".join(problems))
    run(sys.executable, ROOT / "tools" / "build_site.py", cwd=ROOT)
    with tarfile.open(DIST / f"dexworld-{versions(ROOT)['pyproject.toml']}-docs.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "build" / "site", "dexworld-docs")
    try_out(sys.argv[1:])
    for path in sorted(DIST.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
