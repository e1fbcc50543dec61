"""Model checkpoints: a folder with `config.json` and `model.safetensors`, nothing that runs code when loaded."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dexworld.models.reference import SHIPPED
from dexworld.options import from_dict

FORMAT_VERSION = 1
Config = TypeVar("Config")
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message says which file, why and what to do."""


def write_checkpoint(
    folder: str | Path, config: Any, weights: dict[str, Tensor], provenance: dict[str, Any], kind: str | None = None
) -> None:
    """Write a checkpoint folder for a model that the frozen dataclass `config` describes.

    Each file appears whole or not at all, the config last. kind: of a world model (`models.world_model`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = {"format_version": FORMAT_VERSION, "model": asdict(config), "provenance": provenance}
    description |= {} if kind is None else {"kind": kind}
    text = json.dumps(description, indent=2, sort_keys=True)
    weights = {name: value.detach().contiguous().cpu() for name, value in weights.items()}
    for name, write in (
        (WEIGHTS_FILE, lambda path: save_file(weights, path)),
        (CONFIG_FILE, lambda path: path.write_text(text + "\n")),
    ):
        partial = folder / f".{name}.partial"
        write(partial)
        os.replace(partial, folder / name)


def read_checkpoint(
    folder_or_hub_id: str | Path, config_type: type[Config]
) -> tuple[Config, dict[str, Tensor], dict[str, Any]]:
    """Config, weights and provenance of a checkpoint folder or of a Hugging Face model id.

    Raises CheckpointError when it is missing, truncated, of another format version, or not understood.
    """
    folder = located(folder_or_hub_id)
    description = _description(folder)
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        known = f"this dexworld reads version {FORMAT_VERSION}; use the release that wrote it, or save the model again"
        raise CheckpointError(f"{folder / CONFIG_FILE} has format version {version}, {known}")
    try:
        config = from_dict(config_type, description["model"], where=f"{folder / CONFIG_FILE}: model")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} does not describe a model: {error}") from error
    file = folder / WEIGHTS_FILE
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is truncated or corrupt ({error}); save or download it again") from error
    return config, weights, description.get("provenance", {})


class Pretrained(nn.Module):
    """A module that is made from `(config, provenance)`, saved to a checkpoint folder and loaded from one.

    config_type: the config's frozen dataclass. kind: of a world model. provenance: where the weights come from;
    evaluation uses its `training_seeds`.
    """

    config_type: ClassVar[Any]
    kind: ClassVar[str | None] = None
    config: Any
    provenance: dict[str, Any]

    def saved_weights(self) -> dict[str, Tensor]:
        """The state that a checkpoint holds."""
        return self.state_dict()

    def save_pretrained(
        self, folder: str | Path, provenance: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write `config.json` and `model.safetensors`; with dtype float16 half as large, loaded as float32 again."""
        if provenance is not None:
            self.provenance = dict(provenance)
        weights = {
            name: value.to(dtype) if value.dtype == torch.float32 else value
            for name, value in self.saved_weights().items()
        }
        write_checkpoint(folder, self.config, weights, self.provenance, self.kind)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path) -> Self:
        """Load a checkpoint folder or Hugging Face model id, on the CPU and in evaluation mode.

        Raises CheckpointError when it is missing, truncated, of another format version or does not fit its config.
        """
        config, weights, provenance = read_checkpoint(folder_or_hub_id, cls.config_type)
        model = cls(config, provenance)
        check_weights(model.saved_weights(), weights, folder_or_hub_id)
        model.load_state_dict(weights, strict=False)  # names were compared; what isn't saved is loaded by name
        return model.eval()


def checkpoint_kind(folder_or_hub_id: str | Path) -> str | None:
    """The kind of world model that a checkpoint records, if any. Raises CheckpointError as `read_checkpoint`."""
    description = _description(located(folder_or_hub_id))
    kind = description.get("kind") if isinstance(description, dict) else None
    return kind if isinstance(kind, str) else None


def _description(folder: Path) -> Any:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            both = f"{CONFIG_FILE} and {WEIGHTS_FILE}"
            raise CheckpointError(f"{folder} holds no {name}; a checkpoint is a folder with {both}")
    file = folder / CONFIG_FILE
    try:
        return json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}); save or download it again") from error


def check_weights(expected: dict[str, Tensor], weights: dict[str, Tensor], where: str | Path) -> None:
    """Raise CheckpointError naming tensors that are missing, unknown or of another shape than expected."""
    missing, unknown = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    wrong = [name for name in expected if name in weights and weights[name].shape != expected[name].shape]
    if missing or unknown or wrong:
        found = f"missing {missing[:5]}, unknown {unknown[:5]}, wrong shape {wrong[:5]}"
        raise CheckpointError(f"{where}: weights don't fit config.json: {found}")


def lasting_place(folder_or_hub_id: str | Path) -> str:
    """What a checkpoint records of another model: a folder's absolute path, a hub id or a shipped name as it is.

    Raises CheckpointError for a file.
    """
    if folder_or_hub_id in SHIPPED:
        return str(folder_or_hub_id)
    if Path(folder_or_hub_id).is_file():
        raise CheckpointError(f"{folder_or_hub_id} is a file; give the folder that holds it")
    return os.path.abspath(folder_or_hub_id) if Path(folder_or_hub_id).is_dir() else str(folder_or_hub_id)


def located(folder_or_hub_id: str | Path, files: Sequence[str] = (CONFIG_FILE, WEIGHTS_FILE)) -> Path:
    """The folder, or the local one of these files (patterns) of a Hugging Face model id. Raises CheckpointError."""
    path, name = Path(folder_or_hub_id), lasting_place(folder_or_hub_id)
    if path.is_dir():
        return path
    if isinstance(folder_or_hub_id, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"no checkpoint folder {path.absolute()}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{name} is neither a folder nor a model that could be downloaded: {error}") from error
