"""The checkpoints that are shipped with the package, so that everything runs offline at once."""

from importlib import resources
from pathlib import Path

REFERENCE = "reference"  # DexWM: the name that stands for it wherever a checkpoint is asked for
EVALUATOR = "evaluator"  # reads keypoints from latents of the reference's encoder, trained apart from it
DECODER = "decoder"  # draws pictures of the reference's latents on pages; planning doesn't use it
VIDEO = "video"  # DWM, the video world model
HANDS = "hands"  # DexWM for two human hands, trained on the clips of the video model
SHIPPED = {
    REFERENCE: "`dexworld collect`, then `dexworld train`",
    EVALUATOR: "`dexworld train evaluator`",
    DECODER: "`dexworld train decoder`",
    VIDEO: "`dexworld video synthesize`, then `dexworld video train`",
    HANDS: "`dexworld video episodes`, then `dexworld train`",
}


def checkpoint_path(name: str) -> str:
    """A folder or hub id for `from_pretrained`; a name in `SHIPPED` is that shipped checkpoint's folder.

    Raises FileNotFoundError if the installed package doesn't hold it.
    """
    if name not in SHIPPED:
        return name
    folder = Path(str(resources.files("dexworld"))) / "assets" / name
    if not (folder / "config.json").exists():
        missing = f"this installation holds no {name} checkpoint ({folder})"
        raise FileNotFoundError(f"{missing}; name one of your own, or train one: {SHIPPED[name]}")
    return str(folder)
