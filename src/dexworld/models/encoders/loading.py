"""Pretrained weights from a local folder or the Hugging Face hub, with errors that say what to do."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dexworld.models.encoders.families import LAYOUTS, Layout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What the config.json of a pretrained encoder says. settings: of its image tower, as `transformers` reads it."""

    source: str
    layout: Layout
    settings: Any

    @property
    def dim(self) -> int:
        """Width of a token."""
        return int(self.settings.hidden_size)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        sides = self.settings.patch_size
        return int(sides if isinstance(sides, int) else sides[0])


def read_checkpoint_config(source: str) -> Checkpoint:
    """Read the config.json of a folder or hub id, without its weights.

    Raises ValueError when there is none or when it is of no family that we know.
    """
    library = _transformers()
    try:
        settings = library.AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(source, error) from error
    layout = LAYOUTS.get(settings.model_type)
    if layout is None:
        raise ValueError(
            f"encoder {source!r} is a {settings.model_type!r} model; dexworld reads the types {', '.join(LAYOUTS)}"
        )
    return Checkpoint(source, layout, getattr(settings, "vision_config", settings))


def load_weights(checkpoint: Checkpoint) -> Any:
    """The image tower of a checkpoint in float32, ready for inference.

    Raises ValueError when the weights can't be read, are incomplete or don't fit the config beside them.
    """
    library = _transformers()
    try:
        with _quiet(library):
            model, report = getattr(library, checkpoint.layout.model_class).from_pretrained(
                checkpoint.source,
                config=checkpoint.settings,
                dtype=torch.float32,  # without it the type that the file happens to have
                use_safetensors=True,  # never a pickle
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unreadable(checkpoint.source, error) from error
    # Missing weights are drawn at random by `transformers`, with no more than a warning.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(checkpoint.layout.unused))
    if missing:
        raise ValueError(
            f"encoder {checkpoint.source!r} lacks {len(missing)} weights that its config.json promises, such as "
            f"{', '.join(missing[:3])}; download it again"
        )
    return model.eval().requires_grad_(False)


def _transformers() -> Any:
    try:
        import transformers
        from transformers import AutoConfig, AutoModel  # noqa: F401 - this is where a broken torchvision shows
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"a pretrained encoder needs the `transformers` package, which can't be imported: {error}. Install it (pip "
            "install transformers); a torchvision built for another torch breaks it too: uninstall that"
        ) from error
    return transformers


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """No progress bars, and no table of the text tower's weights that we leave out: what matters is checked by us."""
    messages = library.utils.logging
    level, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()


def _unreadable(source: str, error: Exception) -> ValueError:
    if Path(source).is_dir():
        taken = "folder"
        advice = "It needs the config.json and model.safetensors that `save_pretrained` of transformers writes"
    else:
        taken = "Hugging Face id (no folder has this name)"
        advice = (
            f"Where there is no network, download it elsewhere (`hf download {source}`) and give the folder; DINOv3 "
            "wants its licence accepted on the hub and a login (`hf auth login`)"
        )
    reason = " ".join(str(error).split())
    return ValueError(
        f"can't load encoder weights from {source!r}, taken as a {taken}: {reason} {advice}. A trained model names its "
        "encoder in `encoder.source` of its config.json. The pca encoder needs no download"
    )
