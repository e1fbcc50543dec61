"""The commands that README.md shows exist, with the options that it shows; `.ci/run` also runs them."""

import ast
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load_checker():
    spec = importlib.util.spec_from_file_location("readme_commands", ROOT / ".ci" / "readme_commands.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


checker = load_checker()


def test_commands_are_read_from_bash_blocks_only_and_continued_lines_are_joined():
    python = "```python\nimport dexworld\n```\n"
    text = python + "```bash\n# note\nmake a && make b\ndexworld evaluate tasks \\\n  --seed 1\n```\n"
    found = checker.commands(text)
    assert [(command.line, command.text) for command in found] == [
        (6, "make a"),
        (6, "make b"),
        (7, "dexworld evaluate tasks --seed 1"),
    ]
    assert found[-1].verb == "evaluate tasks"
    assert found[-1].options == ["--seed"]


def test_a_command_that_nothing_runs_is_a_problem():
    assert "nothing runs this" in checker.problem(checker.Command(1, "curl example.org"))
    assert "no target" in checker.problem(checker.Command(1, "make coffee"))
    assert checker.problem(checker.Command(1, "make demo")) is None


def test_a_misspelt_option_or_verb_is_a_problem():
    assert "has no option --sed" in checker.problem(checker.Command(1, "dexworld demo --sed 1"))
    assert "no verb 'dmeo'" in checker.problem(checker.Command(1, "dexworld dmeo"))


def test_the_options_that_shrink_a_command_exist():
    for verb, options in checker.SMALL.items():
        assert checker.problem(checker.Command(0, " ".join(["dexworld", verb, *options]))) is None


def test_every_command_in_the_readme_exists_with_its_options():
    shown = checker.commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert any(command.text == "make demo" for command in shown), "the README should start with `make demo`"
    problems = [f"{command}: {why}" for command in shown if (why := checker.problem(command))]
    assert not problems, "\n".join(problems)


PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
CARDS = sorted((ROOT / "src" / "dexworld" / "assets").glob("*/README.md"))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get on a web page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES + CARDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_code_block_of_a_page_can_be_meant(page):
    text = page.read_text(encoding="utf-8")
    shown = [replace(each, text=re.sub(r"^torchrun .*--no-python ", "", each.text)) for each in checker.commands(text)]
    assert not [f"{each}: {why}" for each in shown if each.words[:1] == ["dexworld"] and (why := checker.problem(each))]
    for script in re.findall(r"python ((?:examples|benchmarks|tools)/\S+\.py)", text):
        assert (ROOT / script).is_file(), script
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_half_of_the_sentences_of_the_pages_have_at_most_fifteen_words():
    lengths = [len(sentence.split()) for page in PAGES for sentence in sentences(page)]
    assert len(lengths) > 1000
    assert median(lengths) <= 15


def sentences(page: Path) -> list[str]:
    """The sentences of a page, without headings, tables and code; a point of a list begins a new one."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    lines = [
        "" if re.match(r"\s*(\||#)", line) else re.sub(r"^\s*([-*]|\d+\.) ", "\n", line) for line in text.splitlines()
    ]
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", "\n".join(lines))]
    return [each for block in blocks for each in re.split(r"(?<=[.!?]) +", block) if " " in each]
