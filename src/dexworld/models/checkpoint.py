"""Model checkpoints: a folder with `config.json` and `model.safetensors`, nothing that runs code when loaded.

Nothing in a folder is believed. Values must be finite, sizes plausible, and a config is compared with the header of its
weights before any memory is taken.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dexworld.models.hub import CARD_FILE, Shared, model_card, name_and_revision
from dexworld.models.reference import SHIPPED
from dexworld.options import from_dict
from dexworld.writing import write_text, written_atomically

FORMAT_VERSION = 1
Config = TypeVar("Config")
Shapes = Mapping[str, tuple[int, ...]]
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
LARGEST = 2**20  # of any number that counts something in a config; the largest vocabulary is a quarter of it
MOST_TABLES = 2**32  # bytes of tables, such as positions, that a model makes for itself


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message says which file, why and what to do."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all. about: its metadata. Raises OSError naming it on a full disk."""
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with written_atomically(path) as temporary:
        save_file(values, temporary, {"format": "pt", **(about or {})})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError for a missing or damaged one, and for NaN or Inf."""
    with _readable(path):
        tensors = load_file(path)
    check_finite(tensors, path)
    return tensors


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, from the header of a safetensors file. Raises CheckpointError."""
    with _readable(path), safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        wrong = f"{path} is missing, truncated or corrupt ({error})"
        raise CheckpointError(f"{wrong}; save or download it again") from error


def check_finite(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise CheckpointError naming the first tensor that holds NaN or Inf."""
    for name, value in tensors.items():
        if (value.is_floating_point() or value.is_complex()) and not torch.isfinite(value).all():
            raise CheckpointError(f"{where}: {name} holds NaN or Inf; save or download it again")


def check_positive(tensors: Mapping[str, Tensor], names: Iterable[str], where: str | Path) -> None:
    """Raise CheckpointError naming the first of these tensors that is not positive: values are divided by it."""
    for name in names:
        if name in tensors and not (tensors[name] > 0).all():
            raise CheckpointError(f"{where}: {name} must be positive, values are divided by it; save the model again")


def check_tensors(found: Shapes, expected: Shapes, where: str | Path) -> None:
    """Raise CheckpointError naming every tensor of `found` that `expected` lacks, the reverse, or another shape."""
    shapes = [
        f"{name} is {found[name]}, the model needs {expected[name]}"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    raise_if_unfit(expected.keys() - found.keys(), found.keys() - expected.keys(), shapes, where)


def raise_if_unfit(missing: Iterable[str], unexpected: Iterable[str], others: Iterable[str], where: str | Path) -> None:
    """Raise CheckpointError naming every tensor that is missing, unexpected or otherwise unfit, if there are any."""
    problems = []
    for what, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected))):
        if names:
            problems.append(f"{what} {len(names)} tensors: {', '.join(names)}")
    problems += others
    if problems:
        raise CheckpointError(f"{where} does not fit the model: " + "; ".join(problems))


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor."""
    return {name: tuple(value.shape) for name, value in tensors.items()}


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError when it is something else."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise CheckpointError(f"{path} is not valid JSON ({error}); save or download it again") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} should hold settings by name, not a {type(settings).__name__}")
    return settings


def check_plausible(settings: Any, tensors: int, where: str) -> None:
    """Raise CheckpointError naming a number, in nested settings, that no model has.

    tensors: how many the weights' files hold; no model has more layers.
    """
    if isinstance(settings, dict | list | tuple):
        for name, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
            check_plausible(value, tensors, f"{where}.{name}")
    elif isinstance(settings, float) and not math.isfinite(settings):
        raise CheckpointError(f"{where} is {settings}; it must be a finite number")
    elif isinstance(settings, int):
        name = where.rpartition(".")[2]
        layers = re.search("layers|depth|blocks", name)
        most = min(tensors, LARGEST) if layers else LARGEST
        if abs(settings) > most:
            there = f"the weights hold {tensors} tensors" if layers else "no model has such a size"
            raise CheckpointError(f"{where} is {settings}: {there}; save or download it again")
        if "heads" in name and settings < 1:
            raise CheckpointError(f"{where} is {settings}; it must be 1 or more")


def check_foreign(build: Callable[[], nn.Module], files: Iterable[Path], where: str | Path) -> None:
    """Raise CheckpointError where a library's model, built on the meta device, has other shapes than the files say.

    Names that only one of them has are left to the library, which renames some.
    """
    with understood(where), torch.device("meta"), torch.random.fork_rng(devices=[]):
        expected = shapes_of(build().state_dict())
    found = {name: shape for file in files for name, shape in read_shapes(file).items() if name in expected}
    check_tensors(found, {name: expected[name] for name in found}, where)


def config_of(config_type: type[Config], values: Any, where: str) -> Config:
    """A config's dataclass from JSON values. Raises CheckpointError naming the field that is wrong."""
    try:
        return from_dict(config_type, values, where)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise CheckpointError(f"{where} does not describe a model: {error}") from error


@contextmanager
def understood(where: str | Path) -> Iterator[None]:
    """Around a library that builds what a file describes: whatever it trips over leaves as a CheckpointError."""
    try:
        yield
    except (CheckpointError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        wrong = f"{where} can't be read ({type(error).__name__}: {reason})"
        raise CheckpointError(f"{wrong}; save or download it again") from error


def write_checkpoint(
    folder: str | Path, config: Any, weights: dict[str, Tensor], provenance: dict[str, Any], kind: str | None = None
) -> None:
    """Write a checkpoint folder for a model that the frozen dataclass `config` describes, with a model card.

    Each file appears whole or not at all, the config last. kind: of a world model (`models.world_model`). A card that
    is there is kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = {"format_version": FORMAT_VERSION, "model": asdict(config), "provenance": provenance}
    description |= {} if kind is None else {"kind": kind}
    text = json.dumps(description, indent=2, sort_keys=True)
    write_tensors(folder / WEIGHTS_FILE, weights)
    write_card(folder, config, provenance)
    write_text(folder / CONFIG_FILE, text + "\n")


def write_card(folder: Path, config: Any, provenance: Mapping[str, Any]) -> None:
    """Write the model card of a checkpoint folder, unless it has one."""
    if not (folder / CARD_FILE).exists():
        write_text(folder / CARD_FILE, model_card(type(config).__name__, asdict(config), provenance))


def read_checkpoint(
    folder: Path, config_type: type[Config], build: Callable[[Config], "Pretrained"]
) -> tuple[Config, dict[str, Tensor], dict[str, Any]]:
    """Config, weights and provenance of a checkpoint folder.

    build: makes the model of a config; it is called on the meta device, where tensors take no memory. It should compute
    in place: there, operators that make a tensor import torch's compiler, for a second. Raises
    CheckpointError when the folder is damaged, of another format version, or describes no model that fits its weights.
    """
    description, file = _description(folder), folder / CONFIG_FILE
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        known = f"this dexworld reads version {FORMAT_VERSION}; use the release that wrote it, or save the model again"
        raise CheckpointError(f"{file} has format version {version!r}, {known}")
    found, provenance = read_shapes(folder / WEIGHTS_FILE), description.get("provenance", {})
    if not isinstance(provenance, dict):
        raise CheckpointError(f"{file}: provenance should hold values by name, not a {type(provenance).__name__}")
    check_plausible(description.get("model"), len(found), f"{file}: model")
    config = config_of(config_type, description.get("model"), f"{file}: model")
    with understood(file), torch.device("meta"), torch.random.fork_rng(devices=[]):
        built = build(config)
        expected = shapes_of(built.saved_weights())
        tables = sum(each.numel() * each.element_size() for each in built.buffers())
        left_out = tuple(f"{name}." for name, each in built.named_modules() if isinstance(each, StandIn))
    found = {name: shape for name, shape in found.items() if not name.startswith(left_out)}
    check_tensors(found, expected, folder)
    if tables > MOST_TABLES:
        raise CheckpointError(f"{file}: the model makes tables of {tables} bytes for itself; no model has such a size")
    return config, read_tensors(folder / WEIGHTS_FILE), provenance


class StandIn(nn.Module):
    """In place of a part with weights of its own, such as a pretrained encoder, while only shapes are asked for."""


def shapes_only() -> bool:
    """Whether a model is being built on the meta device, to compare its shapes."""
    return torch.get_default_device().type == "meta"


class Pretrained(nn.Module, Shared):
    """A module that is made from `(config, provenance)`, saved to a checkpoint folder and loaded from one.

    config_type: the config's frozen dataclass. kind: of a world model. provenance: where the weights come from;
    evaluation uses its `training_seeds`. source: the folder or hub id that the model was loaded from. divisors: saved
    tensors that must be positive.
    """

    config_type: ClassVar[Any]
    kind: ClassVar[str | None] = None
    divisors: ClassVar[tuple[str, ...]] = ()
    config: Any
    provenance: dict[str, Any]
    source: str = "a new model"

    def saved_weights(self) -> dict[str, Tensor]:
        """The state that a checkpoint holds."""
        return self.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take in what `saved_weights` gave; names and shapes fit."""
        self.load_state_dict(weights, strict=False)  # what isn't saved is loaded by name

    def save_pretrained(
        self, folder: str | Path, provenance: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write `config.json`, `model.safetensors` and `README.md`, the model card.

        With dtype float16 the weights are half as large; they are loaded as float32 again.
        """
        if provenance is not None:
            self.provenance = dict(provenance)
        weights = {
            name: value.to(dtype) if value.dtype == torch.float32 else value
            for name, value in self.saved_weights().items()
        }
        write_checkpoint(folder, self.config, weights, self.provenance, self.kind)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path, revision: str | None = None) -> Self:
        """Load a checkpoint folder or Hugging Face model id, on the CPU and in evaluation mode.

        revision: branch, tag or commit of the id, which may also be written `id@revision`. Raises CheckpointError when
        the checkpoint is missing, damaged, holds NaN or Inf, or does not fit its config.
        """
        folder = located(folder_or_hub_id, revision=revision)
        config, weights, provenance = read_checkpoint(folder, cls.config_type, cls)
        check_positive(weights, cls.divisors, folder / WEIGHTS_FILE)
        model = cls(config, provenance=provenance)
        model.source = str(folder_or_hub_id)
        check_tensors(shapes_of(weights), shapes_of(model.saved_weights()), folder)
        model.load_weights(weights)
        return model.eval()


def checkpoint_kind(folder: Path) -> str | None:
    """The kind of world model that a checkpoint records, if any. Raises CheckpointError as `read_checkpoint`."""
    kind = _description(folder).get("kind")
    return kind if isinstance(kind, str) else None


def _description(folder: Path) -> dict[str, Any]:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            both = f"{CONFIG_FILE} and {WEIGHTS_FILE}"
            raise CheckpointError(f"{folder} holds no {name}; a checkpoint is a folder with {both}")
    return read_settings(folder / CONFIG_FILE)


def lasting_place(folder_or_hub_id: str | Path) -> str:
    """What a checkpoint records of another model: a folder's absolute path, a hub id or a shipped name as it is.

    Raises CheckpointError for a file.
    """
    if folder_or_hub_id in SHIPPED:
        return str(folder_or_hub_id)
    if Path(folder_or_hub_id).is_file():
        raise CheckpointError(f"{folder_or_hub_id} is a file; give the folder that holds it")
    return os.path.abspath(folder_or_hub_id) if Path(folder_or_hub_id).is_dir() else str(folder_or_hub_id)


def located(
    folder_or_hub_id: str | Path, files: Sequence[str] = (CONFIG_FILE, WEIGHTS_FILE), revision: str | None = None
) -> Path:
    """The folder, or the local one of these files (patterns) of a Hugging Face model id. Raises CheckpointError."""
    path, name = Path(folder_or_hub_id), lasting_place(folder_or_hub_id)
    if path.is_dir():
        return path
    name, named = name_and_revision(name)
    if isinstance(folder_or_hub_id, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"no checkpoint folder {path.absolute()}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision or named, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        wrong = f"{folder_or_hub_id} is neither a folder nor a model that could be downloaded"
        raise CheckpointError(f"{wrong}: {error}") from error


def check_prediction(prediction: Tensor, model: Any, names: Sequence[str]) -> None:
    """Raise ValueError naming clip and checkpoint where predictions (N, ...) of clips `names` hold NaN or Inf."""
    wrong = ~torch.isfinite(prediction.detach().flatten(1)).all(dim=1)
    if wrong.any():
        who = getattr(model, "source", type(model).__name__)
        raise ValueError(f"{names[int(wrong.nonzero()[0])]}: the checkpoint {who} predicts NaN or Inf; check both")
