"""The page of all tables: what made each, when, and in which commit it was stored."""

import json
import subprocess
from pathlib import Path


def results_page(folder: Path) -> str:
    """Every `table.md` below a folder, with the command and date of the `results.json` beside it, and its commit."""
    parts = [
        "# All tables\n\nEach table is what a command wrote. The command, the day and the commit stand above it. "
        "[Results](index.md) says what the tables mean, [the shipped models](shipped.md) how well those work."
    ]
    for table in sorted(folder.glob("*/table.md")):
        results = json.loads((table.parent / "results.json").read_text(encoding="utf-8"))
        run = results["run"]
        facts = f"{run['date'][:10]}, dexworld {run['versions']['dexworld']}, commit {commit(table)}"
        seeds = run.get("seeds", {})
        scenes = f", scenes {seeds['first']:,} to {seeds['last']:,}" if "first" in seeds else ""
        name = table.parent.name
        title = name.replace("table", "Table ").replace("figure", "Figure ").capitalize()
        parts.append(
            f"## {title}\n\n```text\n{run['command']}\n```\n\n{facts}{scenes}. "
            f"[Page]({name}/page.html), [numbers]({name}/results.json).\n\n{table.read_text(encoding='utf-8').strip()}"
        )
    return "\n\n".join(parts) + "\n"


def commit(path: Path) -> str:
    """The commit that stored a file last; `unknown` outside a checkout."""
    command = ["git", "log", "-1", "--format=%h", "--", path.name]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
