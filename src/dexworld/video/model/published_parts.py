"""Where the parts of a published video model lie: `transformer/`, `vae/`, `scheduler/`, ... of a folder or a hub id.

Two layouts are found. diffusers': one subfolder per part. VideoX-Fun's: CogVideoX-Fun is laid out as diffusers does,
Wan-Fun has its transformer's `config.json` and shards directly in the model's folder.
"""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dexworld.models.checkpoint import CheckpointError, located

CONFIG_FILES = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
# What the class of a part is called, for a folder that is the part itself.
MARKS = {"transformer": ("Transformer3D", "WanModel"), "vae": ("Autoencoder",), "text_encoder": ("T5",)}
_PICKLES = " (Wan-Fun keeps its own as a pickle, which is not read: take that of Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"
_HINTS = {"vae": _PICKLES, "text_encoder": _PICKLES}
BROKEN = (OSError, SafetensorError, RuntimeError, ValueError)  # what `from_pretrained` raises for damaged weights


def require(*packages: str) -> None:
    """Raise ImportError saying how to install the `video` extra when one of the packages is missing; import none."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        what = ", ".join(missing)
        raise ImportError(f"the video world model needs {what}, which is not installed; pip install 'dexworld[video]'")


def find_part(source: str | Path, part: str) -> Path:
    """Local folder of a part, e.g. "vae", of a model folder, its own, or a hub id. Raises CheckpointError."""
    try:
        folder = find_optional_part(source, part)
    except CheckpointError as error:
        raise CheckpointError(f"{part} of {source}: {error}") from error
    if folder is not None:
        return folder
    wanted = CONFIG_FILES.get(part, "config.json")
    raise CheckpointError(
        f"{source} holds no {part}: there is no {part}/{wanted}, and it is no {part} itself; give a folder in "
        f"diffusers' layout or a Hugging Face id{_HINTS.get(part, '')}"
    )


def find_optional_part(source: str | Path, part: str) -> Path | None:
    """As `find_part`, but None for a part that the folder or id doesn't have."""
    beside = ["config.json", "*.safetensors", "*.index.json"] if part == "transformer" else []
    root = located(source, [f"{part}/*", *beside])
    wanted = CONFIG_FILES.get(part, "config.json")
    if (root / part / wanted).is_file():
        return root / part
    itself = (root / wanted).is_file() and (part not in MARKS or _is_called(read_settings(root / wanted), MARKS[part]))
    return root if itself else None


def _is_called(settings: dict[str, Any], marks: tuple[str, ...]) -> bool:
    names = [str(settings.get("_class_name", "")), *map(str, settings.get("architectures") or [])]
    return any(mark in name for mark in marks for name in names)


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError when it is something else."""
    try:
        settings = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); save or download it again") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} should hold settings by name, not a {type(settings).__name__}")
    return settings


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError for a missing or damaged one."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is missing, truncated or corrupt ({error}); save or download it again"
        ) from error


def library_model(cls: Any, folder: Path, **options: Any) -> Any:
    """A model of a library's class from a folder. Raises CheckpointError naming every unfit tensor."""
    try:
        model, report = cls.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, local_files_only=True, **options
        )
    except BROKEN as error:
        message = f"the weights in {folder} can't be read ({error}); save or download them again"
        raise CheckpointError(message) from error
    ignored = tuple(cls._keys_to_ignore_on_load_unexpected or ())
    unexpected = [name for name in report["unexpected_keys"] if not any(each in name for each in ignored)]
    raise_if_unfit(report["missing_keys"], unexpected, map(str, report["mismatched_keys"]), str(folder))
    return model


def check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    """Raise CheckpointError naming every tensor of `found` that `expected` lacks, the reverse, or another shape."""
    shapes = [
        f"{name} is {tuple(found[name].shape)}, the model needs {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]
    raise_if_unfit(expected.keys() - found.keys(), found.keys() - expected.keys(), shapes, where)


def raise_if_unfit(missing: Iterable[str], unexpected: Iterable[str], others: Iterable[str], where: str) -> None:
    """Raise CheckpointError naming every tensor that is missing, unexpected or otherwise unfit, if there are any."""
    problems = []
    for what, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected))):
        if names:
            problems.append(f"{what} {len(names)} tensors: {', '.join(names)}")
    problems += others
    if problems:
        raise CheckpointError(f"{where} does not fit the model: " + "; ".join(problems))
