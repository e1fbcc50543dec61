"""What a plan found as a section for docs/results/gpu.md."""

from typing import Any

SHARES = "time_shares"
_OWN = ("state", "slice", "error", "why", SHARES)


def section(results: dict[str, Any]) -> str:
    """Markdown of a plan's results.json: where and how, a table of each group of jobs, what is missing.

    Jobs of one group have one name before a colon.
    """
    run, jobs = results["run"], results["jobs"]
    minutes, rehearsal = results["minutes"], " **A rehearsal on a CPU: no figure means anything.**"
    lines = [
        f"## {results['plan']}: {results['card']}, {run['date'][:10]}",
        "",
        f"`python benchmarks/gpu/run.py {results['plan']} --minutes {minutes:g} --output DIR` at commit "
        f"{results['commit']}, slices: {results['slices']}.{rehearsal if results['rehearsed'] else ''}",
        "",
    ]
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for name, entry in jobs.items():
        if entry["state"] == "done":
            group, _, row = name.rpartition(": ")
            groups.setdefault(group or name, {})[row] = entry
    for group, rows in groups.items():
        figures = {row: flat(entry) for row, entry in rows.items()}
        if len(rows) == 1:
            lines += table([group, ""], [list(each) for each in figures[next(iter(rows))].items()])
        else:
            columns = list(dict.fromkeys(name for each in figures.values() for name in each))
            body = [[row, *(each.get(name, "") for name in columns)] for row, each in figures.items()]
            lines += table([group, *columns], body)
    shares = {name: entry[SHARES] for name, entry in jobs.items() if entry.get(SHARES)}
    if shares:
        kinds = list(next(iter(shares.values())))
        body = [[name, *(f"{each[kind]:.0%}" for kind in kinds)] for name, each in shares.items()]
        lines += table(["where time goes", *kinds], body)
    for name, entry in jobs.items():
        if entry["state"] != "done":
            lines.append(f"- {name}: not measured, {entry['state']} ({entry.get('error') or entry.get('why')})")
    return "\n".join(lines).rstrip() + "\n"


def flat(entry: dict[str, Any], before: str = "") -> dict[str, str]:
    """Figures as text, those of inner dictionaries behind a dot; without what isn't there."""
    found: dict[str, str] = {}
    for name, value in entry.items():
        if (name in _OWN and not before) or value is None:
            continue
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return found


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table, and an empty one."""
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in cells] + [""]
