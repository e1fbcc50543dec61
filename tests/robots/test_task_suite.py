"""Suites of tasks are found by name: dexworld's own, and those of installed packages."""

from types import SimpleNamespace

import pytest

from dexworld.robots import task_suite as suites
from dexworld.robots.task_suite import TaskSuite, task_suite


def test_a_suite_is_found_by_name(monkeypatch):
    garden = TaskSuite("garden", {"rake": "reach"}, ("rake",), draw=None, environment=None)
    installed = [SimpleNamespace(name="garden", load=lambda: garden)]
    monkeypatch.setattr(suites, "entry_points", lambda group: installed)
    assert task_suite("garden") is garden
    assert task_suite("kitchen").standard == ("reach", "grasp", "place", "push")
    with pytest.raises(ValueError, match="env 'gardn' is unknown; choose from kitchen, adroit, dexjoco, table, garden"):
        task_suite("gardn")
    with pytest.raises(ValueError, match=r"\['mow'\] are not in garden; choose from rake"):
        garden.check(("rake", "mow"))
