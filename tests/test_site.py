"""The pages that `make docs` adds to docs/: every option, every public class, a place in the navigation for each."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site():
    sys.path.insert(0, str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "tools" / "build_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def pages(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "pages"
    site.copy_pages(folder)
    return folder


def test_the_pages_of_commands_name_every_option_of_a_verb_and_of_what_comes_behind_it(site):
    page = site.command_pages(["collect", "imagine"])
    assert "| `--checkpoint` | `STR` | `reference` |" in page["imagine"]
    assert "| `--output` | `PATH` | **required** |" in page["imagine"]
    assert "### dexworld collect … human" in page["collect"]
    assert "`--arm-noise`" in page["collect"]
    assert "[`dexworld imagine`](imagine.md#dexworld-imagine)" in page["index"]


def test_the_pages_of_classes_have_signatures_fields_and_terms(site):
    page = site.api_pages(ROOT / "src" / "dexworld" / "robots")["robots"]
    assert "### Observation" in page
    assert re.search(r"class Observation:\n    image: np.ndarray\n", page)
    assert "- `image`: (" in page
    assert "```python\nforward(self, " in page


def test_links_lead_to_where_pages_stand_on_the_site(pages):
    for page in pages.rglob("*.md"):
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(pages)} links to {target}"


def test_every_page_has_a_place_in_the_navigation_and_the_marks_are_filled(site, pages, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "BUILD", tmp_path)
    marks = site.write_config({"@commands": ["c.md"], "@classes": [], **site.listed(pages)}).read_text()
    named = set(re.findall(r'"([^"]+\.md)"', marks))
    assert tomllib.loads(marks)["project"]["docs_dir"] == "pages"
    assert '"@' not in marks
    missing = {str(page.relative_to(pages)) for page in pages.rglob("*.md")} - named
    assert all(name.endswith("/table.md") for name in missing), missing  # those stand in results/tables.md


def test_an_address_that_a_page_would_load_is_found_and_a_link_is_not(site, tmp_path):
    (tmp_path / "a.html").write_text('<a href="https://x.org">x</a><link rel="canonical" href="https://x.org/">')
    assert not site.loaded_from_elsewhere(tmp_path)
    (tmp_path / "b.html").write_text('<script src="https://x.org/a.js"></script>')
    assert len(site.loaded_from_elsewhere(tmp_path)) == 1
