"""The optional packages of the video world model, and a clear word when they are not installed."""

import importlib.util


def require(*packages: str) -> None:
    """Raise ImportError saying how to install the `video` extra when one of the packages is missing.

    Asks only whether they are there: importing diffusers takes seconds, so whoever needs it imports it when used.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the video world model needs {', '.join(missing)}, which is not installed; pip install 'dexworld[video]'"
        )
