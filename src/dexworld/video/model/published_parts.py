"""Where the parts of a published video model lie: `transformer/`, `vae/`, `scheduler/`, ... of a folder or a hub id.

Two layouts are found. diffusers': one subfolder per part. VideoX-Fun's: CogVideoX-Fun is laid out as diffusers does,
Wan-Fun has its transformer's `config.json` and shards directly in the model's folder.
"""

import importlib.util
from pathlib import Path
from typing import Any

from dexworld.models.checkpoint import (
    LARGEST,
    CheckpointError,
    check_finite,
    check_foreign,
    check_plausible,
    located,
    raise_if_unfit,
    read_settings,
    read_shapes,
    understood,
)

CONFIG_FILES = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
# What the class of a part is called, for a folder that is the part itself.
MARKS = {"transformer": ("Transformer3D", "WanModel"), "vae": ("Autoencoder",), "text_encoder": ("T5",)}
_PICKLES = " (Wan-Fun keeps its own as a pickle, which is not read: take that of Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"
_HINTS = {"vae": _PICKLES, "text_encoder": _PICKLES}


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
    architectures = settings.get("architectures")
    names = [str(settings.get("_class_name", "")), *map(str, architectures if isinstance(architectures, list) else [])]
    return any(mark in name for mark in marks for name in names)


def part_settings(folder: Path) -> dict[str, Any]:
    """The `config.json` of a part. Raises CheckpointError for one that no model of these weights can have."""
    settings = read_settings(folder / "config.json")
    tensors = sum(len(read_shapes(path)) for path in folder.glob("*.safetensors"))
    check_plausible(settings, tensors or LARGEST, f"{folder / 'config.json'}: settings")
    return settings


def library_model(cls: Any, folder: Path, **options: Any) -> Any:
    """A model of a library's class from a folder.

    Raises CheckpointError naming every unfit tensor, and a tensor with NaN or Inf.
    """
    settings = part_settings(folder)
    from_settings = cls.from_config if hasattr(cls, "from_config") else lambda _: cls(cls.config_class(**settings))
    check_foreign(lambda: from_settings(settings), folder.glob("*.safetensors"), folder)
    with understood(folder):
        model, report = cls.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, local_files_only=True, **options
        )
    ignored = tuple(cls._keys_to_ignore_on_load_unexpected or ())
    unexpected = [name for name in report["unexpected_keys"] if not any(each in name for each in ignored)]
    raise_if_unfit(report["missing_keys"], unexpected, map(str, report["mismatched_keys"]), str(folder))
    check_finite(model.state_dict(), folder)
    return model
