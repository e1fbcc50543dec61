"""A model that comes back from the machine: weights in half precision, in parts of less than 16 MB.

    python benchmarks/gpu/packed_weights.py OUTPUT MODEL

puts the model in a plan's output together again, as a folder for `--checkpoint` and `from_pretrained`.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from dexworld.data.files import read_json
from dexworld.writing import written_atomically

PART_BYTES = 15 * 2**20
MOST_PARTS = 4  # beside results.json, gpu.md, log.txt and config.json: eight files
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PARTS = "parts"


def pack(model: Path, output: Path, work: Path) -> dict[str, Any]:
    """Put a model's folder into `output` as config.json and weights-0, weights-1, ...; its sizes.

    Raises ValueError for a model that is too large to come back.
    """
    from half_precision import halve  # in tools/, which putting together again doesn't need

    halved = work / "halved"
    shutil.rmtree(halved, ignore_errors=True)
    halved.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copy(model / name, halved / name)
    halve(halved)
    content = (halved / WEIGHTS).read_bytes()
    parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    if len(parts) > MOST_PARTS:
        most = MOST_PARTS * PART_BYTES
        raise ValueError(f"{model}: {len(content):,} bytes of weights in half precision; {most:,} can come back")
    for old in output.glob("weights-*"):
        old.unlink()
    about = read_json(halved / CONFIG)
    digest = hashlib.sha256(content).hexdigest()
    for number, part in enumerate(parts):
        with written_atomically(output / f"weights-{number}") as temporary:
            temporary.write_bytes(part)
    with written_atomically(output / CONFIG) as temporary:
        temporary.write_text(json.dumps(about | {PARTS: {"count": len(parts), "sha256": digest}}), encoding="utf-8")
    return {"weights_mb": len(content) / 1e6, "weights_parts": len(parts)}


def unpack(output: Path, folder: Path) -> Path:
    """Put the model that `pack` wrote into `folder`, ready for `from_pretrained`.

    Raises ValueError when parts are missing or damaged, FileNotFoundError when there is no model at all.
    """
    about = read_json(output / CONFIG)
    parts = about.pop(PARTS)
    names = [output / f"weights-{number}" for number in range(parts["count"])]
    content = b"".join(path.read_bytes() for path in names if path.exists())
    if hashlib.sha256(content).hexdigest() != parts["sha256"]:
        raise ValueError(f"{output}: {parts['count']} parts of weights are not those that were written")
    folder.mkdir(parents=True, exist_ok=True)
    with written_atomically(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
    with written_atomically(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(about, indent=2), encoding="utf-8")
    return folder


def packed(output: Path) -> bool:
    """Whether a slice before this one left a model."""
    return (output / CONFIG).exists()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: packed_weights.py OUTPUT MODEL")
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
