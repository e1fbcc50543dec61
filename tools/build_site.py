"""Build the documentation as a site: `make docs`, or

    python tools/build_site.py [--pages]

docs/ and the model cards are copied to build/pages, where the pages of commands, of public classes and of results are
added. Then `zensical` makes build/site of them. Neither needs a network, nor do readers of the site: a warning, or an
address that a browser would load from elsewhere, ends the build with exit code 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from api_pages import api_pages
from command_pages import command_pages
from result_pages import results_page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CONFIG = DOCS / "site.toml"
BUILD = ROOT / "build"
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
# What a browser loads by itself: scripts, pictures, styles and fonts. A link that a reader follows is fine.
LOADED = re.compile(
    r"""<(?:script|img|iframe|video|source)\b[^>]*\ssrc=["']?(?:https?:)?//"""
    r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|url\(["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
)


def places(pages: Path) -> dict[Path, Path]:
    """Where each page of the repository stands among the pages of the site."""
    moved = {page: pages / page.relative_to(DOCS) for page in sorted(DOCS.rglob("*.md"))}
    cards = sorted((ROOT / "src" / "dexworld" / "assets").glob("*/README.md"))
    moved |= {card: pages / "cards" / f"{card.parent.name}.md" for card in cards}
    moved[ROOT / "examples" / "my_robot" / "README.md"] = pages / "my_robot.md"
    moved |= {ROOT / f"{name.upper()}.md": pages / "about" / f"{name}.md" for name in ("contributing", "changelog")}
    return moved


def copy_pages(pages: Path) -> None:
    """docs/ and the pages elsewhere, without front matter; links lead to where what they name stands now."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.toml"))
    moved = places(pages)
    known = moved | {ROOT / "README.md": pages / "index.md"}
    for page, target in moved.items():
        text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        target.parent.mkdir(parents=True, exist_ok=True)
        led = partial(_link, page=page.parent, target=target.parent, known=known)
        target.write_text(LINK.sub(led, text), encoding="utf-8")


def _link(link: re.Match[str], page: Path, target: Path, known: dict[Path, Path]) -> str:
    """A link in a page of the folder `page`, as it is written in the folder `target`."""
    place = known.get((page / link[1]).resolve())
    return link[0] if place is None else f"]({os.path.relpath(place, target)}{link[2] or ''})"


def add_generated(pages: Path) -> dict[str, list[str]]:
    """Write the pages of commands, classes and results. Files by the mark that stands for them in the navigation."""
    commands = {f"reference/commands/{word}.md": text for word, text in command_pages().items()}
    classes = {f"reference/classes/{name}.md": text for name, text in api_pages(ROOT / "src" / "dexworld").items()}
    for name, text in (commands | classes | {"results/tables.md": results_page(DOCS / "results")}).items():
        path = pages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {"@commands": list(commands), "@classes": list(classes)}


def listed(pages: Path) -> dict[str, list[str]]:
    """Model cards, and the pages of docs/ that the navigation doesn't name, by the marks that stand for them."""
    cards = [f"cards/{path.name}" for path in sorted((pages / "cards").glob("*.md"))]
    named = CONFIG.read_text(encoding="utf-8")
    others = [path.name for path in sorted(DOCS.glob("*.md")) if f'"{path.name}"' not in named]
    return {"@cards": cards, "@others": others}


def write_config(generated: dict[str, list[str]]) -> Path:
    """build/zensical.toml: docs/site.toml with the files of generated pages in its navigation."""
    text = CONFIG.read_text(encoding="utf-8")
    for mark, files in generated.items():
        text = text.replace(f'"{mark}"', ", ".join(f'"{name}"' for name in files))
    (BUILD / "zensical.toml").write_text(text, encoding="utf-8")
    return BUILD / "zensical.toml"


def loaded_from_elsewhere(site: Path) -> list[str]:
    """file: address, for every script, style, font or picture that pages of the site load from another host."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            found += [
                f"{path.relative_to(site)}: {text[each.start() : each.end() + 60]}" for each in LOADED.finditer(text)
            ]
    return found


def main() -> int:
    """Exit status 1 if a page is wrong."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pages", action="store_true", help="write build/pages only")
    arguments = options.parse_args()
    copy_pages(BUILD / "pages")
    config = write_config(add_generated(BUILD / "pages") | listed(BUILD / "pages"))
    if arguments.pages:
        return 0
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    program = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    done = subprocess.run(program, cwd=BUILD, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sys.stdout.write(done.stdout)
    wrong = loaded_from_elsewhere(BUILD / "site")
    for each in wrong:
        print(f"loaded from elsewhere: {each}", file=sys.stderr)
    if done.returncode or wrong or "warning" in done.stdout.lower():
        return 1
    print(f"open {(BUILD / 'site' / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
