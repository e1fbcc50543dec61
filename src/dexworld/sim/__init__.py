"""The simulators. MuJoCo is imported here, whatever MUJOCO_GL says: what draws (`render.py`) answers for its value."""

import os
from contextlib import suppress

_asked = os.environ.get("MUJOCO_GL")
os.environ["MUJOCO_GL"] = "disable"
try:
    with suppress(ImportError, RuntimeError, AttributeError, OSError):  # said by what needs it
        import mujoco  # noqa: F401
finally:
    del os.environ["MUJOCO_GL"]
    if _asked is not None:
        os.environ["MUJOCO_GL"] = _asked
