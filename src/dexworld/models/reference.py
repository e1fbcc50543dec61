"""The checkpoint that is shipped with the package, so that everything runs offline at once."""

from importlib import resources
from pathlib import Path

REFERENCE = "reference"  # the name that stands for it wherever a checkpoint is asked for


def checkpoint_path(name: str) -> str:
    """A folder or hub id for `DexWM.from_pretrained`; `reference` is the shipped checkpoint's folder.

    Raises FileNotFoundError if the installed package holds no checkpoint.
    """
    if name != REFERENCE:
        return name
    folder = Path(str(resources.files("dexworld"))) / "assets" / REFERENCE
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"this installation holds no reference checkpoint ({folder}); name one of your own with --checkpoint, or "
            "train one: `dexworld collect`, then `dexworld train`"
        )
    return str(folder)
