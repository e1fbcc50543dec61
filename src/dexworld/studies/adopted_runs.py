"""A study that starts from the folder of another one: its data, encoders and trained models."""

import logging
from collections.abc import Sequence
from pathlib import Path

from dexworld.data.files import check_same_settings, read_json
from dexworld.studies.study_runs import Study
from dexworld.writing import write_json

logger = logging.getLogger(__name__)
SHARED = ("data", "readers")


def adopt(study: Study, source: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Link what the study in `source` has finished into the folder of another one that isn't open yet. Models that it
    lacks stay to be trained.

    Raises ValueError for a study whose models are others, of other sizes or another split, or without a finished one.
    """
    index, table = source / "study.json", study.table
    if not index.exists():
        raise ValueError(f"{source} holds no study.json; give the folder of {' or '.join(table.alike) or 'a study'}")
    found = read_json(index)
    if found.get("table") not in table.alike:
        others = f"those of {', '.join(table.alike)}" if table.alike else "those of no other table"
        raise ValueError(f"{source} holds {found.get('table')}; the models of {table.name} are {others}")
    check_same_settings(index, found, {**study.settings, "table": found["table"]})
    runs = [study.folder(name, seed) for name in names for seed in seeds]
    finished = [own for own in runs if (source / "runs" / own.name / "measured.json").exists()]
    if not finished:
        raise ValueError(f"{source} has finished no model of {', '.join(names)}; finish it first")
    for name in SHARED:
        _link(study.output / name, source / name)
    for own in finished:
        if not (own / "trained.json").exists():
            theirs = source / "runs" / own.name
            _link(own / "model", theirs / "model")
            record = read_json(theirs / "measured.json")
            write_json(own / "trained.json", {key: each for key, each in record.items() if key != "measure_cpu_s"})
    logger.info("%d trained models are those of %s", len(finished), source)


def _link(place: Path, there: Path) -> None:
    if not place.exists() and there.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(there.resolve(), target_is_directory=True)
