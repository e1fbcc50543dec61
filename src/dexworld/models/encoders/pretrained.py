"""Pretrained vision transformers from the `transformers` library, with our own normalisation (no image processor)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.models.checkpoint import LARGEST, CheckpointError, check_finite, check_foreign, check_plausible
from dexworld.models.config import EncoderConfig
from dexworld.models.encoders.base import Encoder, normalised
from dexworld.models.encoders.families import LAYOUTS, Layout
from dexworld.models.hub import name_and_revision

MOST_LAYERS = 1000  # of a pretrained encoder; the largest known one has 40


class TransformersEncoder(Encoder):
    """Patch tokens after the last LayerNorm of a pretrained encoder of one of five families (see `families.py`).

    Raises ValueError when `config.source` can't be loaded or does not fit the configured family, dim and patch. Our
    checkpoints name the weights and don't copy them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size)
        checkpoint = read_checkpoint_config(str(config.source))
        families, found = checkpoint.layout.families, (checkpoint.dim, checkpoint.patch)
        what = f"encoder {config.source}"
        if config.family not in (None, *families):
            raise ValueError(f"{what} is of family {' or '.join(families)}, config says {config.family}")
        if found != (config.dim, config.patch):
            raise ValueError(f"{what} has (dim, patch) {found}, config says {config.dim, config.patch}")
        self.model = load_weights(checkpoint)
        self._tokens = checkpoint.layout.tokens
        checkpoint.layout.prepare(self.model, self.grid)
        if config.precision == "bfloat16":
            for module in self.model.modules():
                if isinstance(module, nn.Linear):
                    module.to(torch.bfloat16)
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    def train(self, mode: bool = True) -> "TransformersEncoder":
        """Frozen: stays in evaluation mode."""
        return super().train(False)

    def _encode(self, images: Tensor) -> Tensor:
        pixels = normalised(images, self.config.downsample, self.mean, self.std).contiguous()
        # The residual stream, LayerNorms and positions stay in float32: positions suffer most from rounding.
        rounded = self.config.precision == "bfloat16"
        with torch.autocast(pixels.device.type, torch.bfloat16) if rounded else contextlib.nullcontext():
            tokens = self._tokens(self.model, pixels, self.grid)
        patches = self.grid[0] * self.grid[1]
        if tokens.shape[1] != patches:
            raise ValueError(f"encoder {self.config.source} gave {tokens.shape[1]} tokens for a grid of {patches}")
        tokens = tokens.float()
        return F.layer_norm(tokens, tokens.shape[-1:]) if self.config.feature_norm == "layer" else tokens


@dataclass(frozen=True)
class Checkpoint:
    """What the config.json of a pretrained encoder says."""

    source: str
    layout: Layout
    settings: Any  # of its image tower, as `transformers` reads it
    dim: int  # width of a token
    patch: int  # side of a patch in pixels


def read_checkpoint_config(source: str) -> Checkpoint:
    """Read the config.json of a folder or hub id, without its weights.

    Raises ValueError when there is none or when it is of no family that we know.
    """
    library, (name, revision) = _transformers(), name_and_revision(source)
    try:
        read, _ = library.PreTrainedConfig.get_config_dict(name, revision=revision)
        check_plausible(read, MOST_LAYERS, "config.json")
        settings = library.AutoConfig.from_pretrained(name, revision=revision)
    except Exception as error:  # whatever the library trips over in a foreign file
        raise _unreadable(source, error) from error
    layout = LAYOUTS.get(settings.model_type)
    if layout is None:
        known = ", ".join(LAYOUTS)
        raise ValueError(f"encoder {source!r} is a {settings.model_type!r} model; dexworld reads the types {known}")
    tower = getattr(settings, "vision_config", settings)
    patch: Any = next(iter(tower.patch_size), None) if isinstance(tower.patch_size, list | tuple) else tower.patch_size
    for field, value, most in (("patch_size", patch, 256), ("hidden_size", tower.hidden_size, LARGEST)):
        if not isinstance(value, int) or not 1 <= value <= most:
            wrong = f"encoder {source!r}: {field} of its config.json is {value!r}"
            raise CheckpointError(f"{wrong}; it must lie between 1 and {most}")
    return Checkpoint(source, layout, tower, tower.hidden_size, patch)


def load_weights(checkpoint: Checkpoint) -> Any:
    """The image tower of a checkpoint in float32, ready for inference.

    Raises ValueError when the weights can't be read, are incomplete or don't fit the config beside them.
    """
    library = _transformers()
    # Without `dtype` it is what the file happens to have; `use_safetensors` refuses pickles.
    options = {"config": checkpoint.settings, "dtype": torch.float32, "use_safetensors": True}
    model_class = getattr(library, checkpoint.layout.model_class)
    files = Path(checkpoint.source).glob("*.safetensors")
    try:
        check_foreign(lambda: model_class(checkpoint.settings), files, f"encoder {checkpoint.source}")
        with _quiet(library.utils.logging):
            name, revision = name_and_revision(checkpoint.source)
            model, report = model_class.from_pretrained(name, revision=revision, output_loading_info=True, **options)
    except Exception as error:  # whatever the library trips over in foreign files
        raise _unreadable(checkpoint.source, error) from error
    # Missing weights are drawn at random by `transformers`, with no more than a warning.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(checkpoint.layout.unused))
    if missing:
        raise CheckpointError(
            f"encoder {checkpoint.source!r} lacks {len(missing)} weights that its config.json promises, such as "
            f"{', '.join(missing[:3])}; download it again"
        )
    check_finite(model.state_dict(), f"encoder {checkpoint.source}")
    return model.eval().requires_grad_(False)


def _transformers() -> Any:
    try:
        import transformers
        from transformers import AutoConfig, AutoModel  # noqa: F401 - this is where a broken torchvision shows
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"a pretrained encoder needs the `transformers` package, which can't be imported: {error}. Install it; a "
            "torchvision built for another torch breaks it too: uninstall that"
        ) from error
    return transformers


@contextlib.contextmanager
def _quiet(messages: Any) -> Iterator[None]:
    """No progress bars, and no table of the text tower's weights that we leave out; `load_weights` checks the rest."""
    level, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()


def _unreadable(source: str, error: Exception) -> CheckpointError:
    place, reason = Path(source).absolute(), " ".join(str(error).split())
    taken = f"Hugging Face id (there is no folder {place})"
    advice = f"Without a network, `hf download {source}` elsewhere and give the folder; DINOv3 wants a login"
    if Path(source).is_dir():
        taken, advice = "folder", "It needs the config.json and model.safetensors that transformers writes"
    elif source == str(place):
        taken, reason, advice = "folder", "it is not there.", "Put it back, or name its new place"
    return CheckpointError(
        f"can't load encoder weights from {source!r}, taken as a {taken}: {reason} {advice}. A trained model names its "
        "encoder in `encoder.source` of its config.json. The pca encoder needs no download"
    )
