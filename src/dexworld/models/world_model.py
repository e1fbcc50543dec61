"""The seam of world models: what training, evaluation, planning and pages ask of one, and which kinds there are.

B batch, N candidates, C observed frames, T predicted steps, P patches, D latent width.

A model from another package registers itself in an entry point of the group `dexworld.world_models`, whose value is
imported; `examples/my_world_model.py` shows one.
"""

from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dexworld.models.checkpoint import CheckpointError, check_prediction, checkpoint_kind, located
from dexworld.models.reference import checkpoint_path
from dexworld.track import Track

DEFAULT_KIND = "dexwm"  # of checkpoints that were written before kinds were recorded


@runtime_checkable
class WorldModel(Protocol):
    """Predicts latents of the frames that a track's hands lead to.

    config: a frozen dataclass with `image_size` (height, width), `encoder` (an `EncoderConfig`) and `num_context`, the
    frames that the model looks back. encoder: the frozen encoder behind `encode`. provenance: where the weights come
    from; evaluation uses its `training_seeds`. Models that train are also `nn.Module`s with `save_pretrained`.

    Optional members: `keypoints(latents)` to pixels (..., 12, 2) and confidences (..., 12); `keypoint_logits(latents)`
    for the hand-consistency loss; `decode(latents)` to images (..., H, W, 3) uint8; `columns`, names of the track's
    columns that `condition` and the losses read; `needs_still_camera`; `blocks`, a `Blocks` for large-scale training;
    `scaled_to(track, moving)`, a new model whose actions are scaled to the data; `cost()`, what its roll-outs took.
    """

    config: Any
    encoder: Any
    provenance: dict[str, Any]

    def encode(self, images: Tensor) -> Tensor:
        """Latents (..., P, D) of images (..., H, W, 3) uint8. Raises ValueError on another image size."""

    def condition(self, track: Track) -> Any:
        """What moves the world between the T + 1 frames of a track of tensors, with any batch dimensions."""

    def predict(self, latents: Tensor, condition: Any) -> Tensor:
        """Teacher-forced: frames 1 .. T (B, T, P, D) from latents (B, T + 1, P, D) of the true frames."""

    def unroll(self, latents: Tensor, condition: Any) -> Tensor:
        """Multistep: T frames (B, T, P, D) after observed latents (B, C, P, D); a condition of C - 1 + T steps."""

    def start(self, latents: Tensor, condition: Any) -> Any:
        """A context from observed latents (C, P, D) and the C - 1 steps between them; shared by all candidates."""

    def rollout(self, context: Any, condition: Any, max_batch: int | None = None) -> Tensor:
        """Latents (N, T, P, D) that N candidates lead to. The condition's first frame is the last observed one."""


class CheckedRollouts:
    """A model whose rollouts must be finite: ValueError names `what` was asked for, and the checkpoint."""

    def __init__(self, model: WorldModel, what: str) -> None:
        self.model, self._what = model, what

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # asked for before it is set, as when unpickling
            raise AttributeError(name)
        return getattr(self.model, name)

    def rollout(self, context: Any, condition: Any, max_batch: int | None = None) -> Tensor:
        """As the model's, (N, T, P, D)."""
        latents = self.model.rollout(context, condition, max_batch)
        check_prediction(latents, self.model, [self._what] * len(latents))
        return latents


class BFloat16Rollouts(CheckedRollouts):
    """A model whose rollouts run in bfloat16 and come back in float32; everything else is the model's own.

    Rounding moves predicted latents by about one percent of their spread, less than the model's own error. It is worth
    about 1.5 times the candidates per CPU-second, on processors with bfloat16 units.
    """

    def __init__(self, model: WorldModel, what: str = "a roll-out") -> None:
        super().__init__(model, what)

    def start(self, latents: Tensor, condition: Any) -> Any:
        """As the model's, the shared keys and values in bfloat16."""
        with torch.autocast(latents.device.type, dtype=torch.bfloat16):
            context = self.model.start(latents, condition)
        self._device = latents.device.type
        return context

    def rollout(self, context: Any, condition: Any, max_batch: int | None = None) -> Tensor:
        """As the model's, (N, T, P, D) float32."""
        with torch.autocast(self._device, dtype=torch.bfloat16):
            return super().rollout(context, condition, max_batch).float()


@dataclass(frozen=True)
class Blocks:
    """The repeated parts of a model, for recomputation and sharding. methods: called beside `forward`."""

    layers: list[nn.Module]
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of world model: its class (with `from_pretrained`), its config's class, and presets by name."""

    name: str
    model: Any
    config: Any
    presets: dict[str, Any] = field(default_factory=dict)


_KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Make a kind known. Raises ValueError when its name or a preset's is taken by another class."""
    for other in _KINDS.values():
        taken = sorted(set(kind.presets) & set(other.presets)) if other.name != kind.name else []
        if taken or (other.name == kind.name and other.model is not kind.model):
            raise ValueError(f"world model {kind.name!r}: the names {taken or [kind.name]} are taken by {other.model}")
    _KINDS[kind.name] = kind


def kinds() -> dict[str, Kind]:
    """All kinds by name: dexworld's own, those registered by hand, and those of installed packages."""
    for registers_itself in ("dexworld.models.dexwm", "dexworld.baselines.world_models"):
        import_module(registers_itself)
    for point in entry_points(group="dexworld.world_models"):
        if point.name not in _KINDS:
            point.load()
    return _KINDS


def preset(name: str) -> Any:
    """The config of that name, of whatever kind. Raises ValueError listing the names there are."""
    for kind in kinds().values():
        if name in kind.presets:
            return kind.presets[name]
    names = [name for kind in _KINDS.values() for name in kind.presets]
    raise ValueError(f"no model preset {name!r}; choose from {', '.join(names)}")


def build_world_model(config: Any, provenance: dict[str, Any] | None = None) -> Any:
    """A new model of the kind that `config` belongs to. Raises ValueError when no kind has such a config."""
    return model_class(config)(config, provenance)


def model_class(config: Any) -> Any:
    """The class of the models that `config` describes. Raises ValueError when no kind has such a config."""
    for kind in kinds().values():
        if type(config) is kind.config:
            return kind.model
    raise ValueError(f"no world model is registered with a config of {type(config).__name__}")


def load_world_model(folder_or_hub_id: str | Path, revision: str | None = None) -> Any:
    """The world model of a folder, a Hugging Face id or a shipped name, on the CPU and in evaluation mode.

    revision: of the id, which may also be written `id@revision`. Raises CheckpointError when it can't be read or is of
    a kind that is not installed.
    """
    where = located(checkpoint_path(str(folder_or_hub_id)), revision=revision)
    name = checkpoint_kind(where) or DEFAULT_KIND
    if name not in kinds():
        raise CheckpointError(f"{where} is a world model of kind {name!r}; installed are {', '.join(_KINDS)}")
    model = _KINDS[name].model.from_pretrained(where).eval()
    model.source = str(folder_or_hub_id)
    return model
