"""Windows a second that all cores load from a prepared store, beside what training the largest model eats."""

import shutil
from importlib.util import find_spec

from dexworld.data.parallel import available_cores
from jobs import Figures, Slice


def loading(now: Slice) -> Figures:
    """Windows a second of the loader with a worker on each core, and how many times that is what training of XL with
    an encoder eats, where that was measured before.

    Raises ModuleNotFoundError where PyAV or h5py are missing, with what to carry.
    """
    if missing := [name for name in ("av", "h5py") if find_spec(name) is None]:
        raise ModuleNotFoundError(f"loading needs {' and '.join(missing)}: put the wheels into the folder that travels")
    from egodex_clips import ClipShape, write_clips
    from loader import prepared, with_workers

    folder = now.work / "loading"
    clips, seconds, height = now.size((8, 10.0, 270), (1, 5.0, 144))
    if not (folder / "clips").exists():
        shape = ClipShape(seconds, height, 16 * height // 18 * 2)
        shutil.rmtree(folder, ignore_errors=True)
        write_clips(folder / "part", clips, shape)
        (folder / "part").rename(folder / "clips")
    dataset, _ = prepared(folder / "clips", folder / "h264", "h264")
    workers = now.size(available_cores(), 1)
    rate = with_workers(dataset, now.size(60, 2), workers)["windows_per_second"]
    figures: Figures = {"workers": workers, "windows_per_second": rate}
    rows = [entry for name, entry in now.entries.items() if name.startswith("training: xl, online")]
    if eaten := max((row["samples_per_second"] for row in rows if "tflops" in row), default=None):
        figures |= {"xl_eats": eaten, "times_what_xl_eats": rate / eaten}
    return figures
