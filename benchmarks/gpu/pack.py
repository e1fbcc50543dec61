"""Put all that the GPU machine needs into one folder: this code, wheels, and a script that starts a plan.

    python benchmarks/gpu/pack.py FOLDER --wheels WHEELS

FOLDER/start.sh PLAN --minutes 9 --output DIR then runs on a machine that has torch and reaches nothing. The shipped
weights stay behind: no plan needs them.
"""

import argparse
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MOST_BYTES = 64 * 2**20  # that travel
# What dexworld needs and the machine lacks, as wheels are named.
NEEDED = ("av", "h5py", "mujoco", "mujoco_core", "gymnasium", "pyopengl", "diffusers")
START = """#!/bin/bash
# Install what lies beside this script and run a plan: start.sh PLAN --minutes 9 --output DIR
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
site=${SITE:-$(mktemp -d)}
for package in "$here"/debs/*.deb; do
  if [ -e "$package" ]; then dpkg -x "$package" / && ldconfig; fi
done
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$here"/wheels/*.whl || exit
export PYTHONPATH="$here/site:$site" PYTHONUNBUFFERED=1
exec python3 "$here/benchmarks/gpu/run.py" "$@"
"""


def main() -> None:
    """Write the folder and say how large it is."""
    arguments = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    arguments.add_argument("folder", type=Path, help="new folder that is to travel")
    arguments.add_argument("--wheels", type=Path, required=True, help="folder of wheels for the machine")
    arguments.add_argument("--debs", type=Path, help="folder of Debian packages that are unpacked there: EGL's loader")
    options = arguments.parse_args()
    if options.folder.exists():
        arguments.error(f"{options.folder} exists; name a new folder")
    wheels = sorted(options.wheels.glob("*.whl"))
    if not wheels:
        arguments.error(f"{options.wheels} holds no wheels; docs/gpu_kit.md has the command that fetches them")
    fill(options.folder, wheels, sorted(options.debs.glob("*.deb")) if options.debs else [])
    there = {wheel.name.partition("-")[0].lower() for wheel in wheels}
    if lacking := [name for name in NEEDED if name not in there]:
        print(f"not among the wheels: {', '.join(lacking)}; what needs them will say so there")
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {size / 2**20:.1f} MiB of {MOST_BYTES / 2**20:.0f}")
    if size > MOST_BYTES:
        sys.exit("pack: that is more than travels; leave a wheel out (a plan says what it lacks)")


def fill(folder: Path, wheels: list[Path], debs: list[Path]) -> None:
    """Copy code and packages, name the commit, and write the script."""
    unwanted = shutil.ignore_patterns("*.safetensors", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src" / "dexworld", folder / "site" / "dexworld", ignore=unwanted)
    for name in ("benchmarks", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for name, packages in (("wheels", wheels), ("debs", debs)):
        (folder / name).mkdir()
        for package in packages:
            shutil.copy(package, folder / name / package.name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    about = folder / "site" / f"{project['name']}-{project['version']}.dist-info"
    about.mkdir()
    text = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (about / "METADATA").write_text(text, encoding="utf-8")  # `importlib.metadata` finds the version here
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    (folder / "commit.txt").write_text(f"{git.stdout.strip() or 'unknown'}\n", encoding="utf-8")
    start = folder / "start.sh"
    start.write_text(START, encoding="utf-8")
    start.chmod(0o755)


if __name__ == "__main__":
    main()
