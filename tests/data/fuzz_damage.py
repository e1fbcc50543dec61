"""Ways to damage a file of a dataset: its bytes, or what its format says. Each is a function of (path, draw).

`draw` is the only source of chance, so a case is known by its number. A damage raises `Unfit` where it has no meaning.
"""

import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from video_fixtures import write_mp4

Damage = Callable[[Path, random.Random], object]
BAD_VALUES = (None, [], {}, "", "x", "\ud800", -1, 0, 1e300, 10**9, 10**30, True, float("nan"), float("inf"), [[]], [1])


class Unfit(Exception):
    """A damage that this file can't suffer."""


def remove(path: Path, draw: object = None) -> None:
    """Whatever lies at `path`, gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flip(path: Path, draw: random.Random) -> None:
    """Some bits, anywhere, at the start or at the end."""
    content = bytearray(path.read_bytes())
    first, end = draw.choice([(0, len(content)), (0, 2048), (max(0, len(content) - 2048), len(content))])
    for _ in range(draw.choice([1, 1, 1, 4, 16, 64])):
        content[draw.randrange(first, min(end, len(content)))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def overwrite(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start, size = draw.randrange(len(content)), draw.choice([4, 16, 100, 512, 4096])
    size = min(size, len(content) - start)
    content[start : start + size] = draw.choice([bytes(size), b"\xff" * size, draw.randbytes(size)])
    path.write_bytes(content)


def cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.choice([0, 1, 8, draw.randrange(len(content)), len(content) - 1])])


def no_file(path: Path, draw: random.Random) -> None:
    """A folder, a link to nothing, a link to itself, or a file that may not be read."""
    if os.geteuid() and draw.random() < 0.25:  # nothing is forbidden to root
        path.chmod(0)
        return
    remove(path)
    draw.choice([path.mkdir, partial(path.symlink_to, "nothing"), partial(path.symlink_to, path.name)])()


def other_format(path: Path, draw: random.Random) -> None:
    others = [each for each in path.parent.rglob("*") if each.is_file() and each.suffix != path.suffix]
    hdf5, mp4 = b"\x89HDF\r\n\x1a\n", b"\0\0\0\x20ftypisom\0\0\2\0"
    alone = hdf5 if path.suffix == ".mp4" else mp4
    path.write_bytes(draw.choice(sorted(others)).read_bytes() if others else alone)


BYTES: dict[str, Damage] = {
    "bits flipped": flip,
    "block overwritten": overwrite,
    "cut off": cut,
    "missing": remove,
    "no file": no_file,
    "another format": other_format,
    "garbage behind": lambda path, draw: path.write_bytes(path.read_bytes() + draw.randbytes(100)),
}


def rewrite_video(path: Path, draw: random.Random, count=int, rate=Fraction, size=None, shift: int = 0) -> None:
    """The same pictures encoded anew: another number of them, another rate, another size or others in their place."""
    with av.open(str(path)) as container:
        own_rate = Fraction(container.streams.video[0].average_rate)
        pictures = [frame.to_ndarray(format="rgb24", width=size, height=size) for frame in container.decode(video=0)]
    chosen = [pictures[(number + shift) % len(pictures)] for number in range(count(len(pictures)))]
    shown = [np.roll(picture, 8 * shift, axis=1) for picture in chosen]
    write_mp4(path, shown, rate(own_rate), preset="ultrafast", g="4", bf="0")


def no_frames(path: Path, draw: random.Random) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()  # writes the header


def only_audio(path: Path, draw: random.Random) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


# boxes in which an MP4 counts frames or gives times, sizes or lengths
BOXES = ("stsz", "stts", "stsc", "stco", "mvhd", "mdhd", "tkhd", "avc1", "moov", "trak", "stsd", "mdat", "avcC")


def absurd_box(path: Path, draw: random.Random) -> None:
    """A number of 10^9 or so in one of the boxes."""
    content = bytearray(path.read_bytes())
    at = content.find(draw.choice(BOXES).encode())
    if at < 0:
        raise Unfit
    at += draw.choice([-4, 8, 12, 16, 20])  # behind the box's name, or its length before it
    content[at : at + 4] = struct.pack(">I", draw.choice([10**9, 2**32 - 1, 2**31 - 1, 2**31, 0]))
    path.write_bytes(content)


VIDEO: dict[str, Damage] = {
    "frames missing": lambda path, draw: rewrite_video(path, draw, lambda count: count - draw.randrange(1, count)),
    "frames too many": lambda path, draw: rewrite_video(path, draw, lambda count: count + draw.randrange(2, 9)),
    "no frames": no_frames,
    "wrong rate": lambda path, draw: rewrite_video(path, draw, rate=lambda rate: rate * 2 / draw.choice([1, 6])),
    "absurd rate": lambda path, draw: rewrite_video(path, draw, rate=lambda rate: draw.choice([5000, 90000])),
    "another clip": partial(rewrite_video, shift=3),
    "another size": partial(rewrite_video, size=16),
    "only sound": only_audio,
    "absurd numbers in boxes": absurd_box,
}


def datasets_of(file: h5py.File) -> list[str]:
    """The numeric arrays of an HDF5 file."""
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
    return [name for name in names if file[name].dtype.kind in "fiu"]


def change_array(path: Path, draw: random.Random, change: Callable[..., Any]) -> None:
    """Replace one array of an HDF5 or .npz file by what `change` makes of it; None removes it."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        name = draw.choice(sorted(arrays))
        changed = change(np.atleast_1d(arrays.pop(name)), draw)
        np.savez(path, **arrays | ({} if changed is None else {name: changed}))
        return
    with h5py.File(path, "r+") as file:
        name = draw.choice(datasets_of(file))
        changed = change(np.atleast_1d(file[name][()]), draw)
        del file[name]
        if changed is not None:
            file[name] = changed


def bad_number(values: np.ndarray, draw: random.Random) -> np.ndarray:
    """NaN, Inf or a huge value in one place or in all."""
    if values.dtype.kind not in "fiu" or not values.size:
        raise Unfit
    changed = np.array(values, dtype=np.float64)
    bad = draw.choice([np.nan, -np.inf, 1e30])
    changed.reshape(-1)[draw.choice([draw.randrange(changed.size), slice(None)])] = bad
    return changed


def reshaped(values: np.ndarray, draw: random.Random) -> np.ndarray:
    wrong = [values[..., None], values.reshape(-1), values[None], values[:0], values[:-1], np.concatenate([values] * 2)]
    if values.ndim > 1:
        wrong += [values[..., :-1], values[:, :-1], np.swapaxes(values, 0, 1)]
    return draw.choice([each for each in wrong if each.shape != values.shape])


def retyped(values: np.ndarray, draw: random.Random) -> object:
    texts = np.array([b"abc"] * max(1, len(values)))
    record = np.zeros(len(values), dtype=[("a", "f4"), ("b", "i4")])
    return draw.choice([texts, b"one text", record, np.zeros(values.shape, complex), h5py.Empty("f4"), "text"])


ARRAYS: dict[str, Damage] = {
    "missing array": partial(change_array, change=lambda values, draw: None),
    "bad number": partial(change_array, change=bad_number),
    "wrong shape": partial(change_array, change=reshaped),
    "wrong type": partial(change_array, change=retyped),
    "rows in another order": partial(change_array, change=lambda values, draw: values[::-1].copy()),
}


def absurd_hdf5(path: Path, draw: random.Random) -> None:
    """An array that claims 10^9 rows of which none is written."""
    with h5py.File(path, "r+") as file:
        key = draw.choice([name for name in datasets_of(file) if file[name].ndim])
        shape, kind = file[key].shape, file[key].dtype
        del file[key]
        rows = draw.choice([10**6, 10**7, 10**9, 2**40])
        file.create_dataset(key, shape=(rows, *shape[1:]), dtype=kind, chunks=(64, *shape[1:]), maxshape=None)


def misplaced_hdf5(path: Path, draw: random.Random) -> None:
    """A group, a broken link or a loop of links where an array or a group should be."""
    with h5py.File(path, "r+") as file:
        names = datasets_of(file)
        key = draw.choice([*names, *sorted({str(Path(name).parent) for name in names} - {"."})])
        del file[key]
        links = (None, h5py.SoftLink("/" + key), h5py.ExternalLink("nothing.hdf5", "/x"), 1.0, h5py.SoftLink("/"))
        wrong = draw.choice(links)
        if wrong is None:
            file.create_group(key)
        else:
            file[key] = wrong


def attribute_hdf5(path: Path, draw: random.Random) -> None:
    with h5py.File(path, "r+") as file:
        nodes: list = [file]
        file.visititems(lambda _, node: nodes.append(node))
        places = [(node, name) for node in nodes for name in sorted(node.attrs)]
        if not places:
            raise Unfit
        node, name = draw.choice(places)
        bad = (None, 7, -1.5, b"\xff\xfe\xfa", "", "{", "[]", '{"env_kwargs": {"control_freq": -1}}', np.nan)
        value = draw.choice([*bad, np.zeros((3, 3)), h5py.Empty("f4")])
        del node.attrs[name]
        if value is not None:
            node.attrs[name] = value


HDF5 = {"absurd rows": absurd_hdf5, "misplaced": misplaced_hdf5, "wrong attribute": attribute_hdf5}


def header(kind: str, shape: tuple) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": kind, "fortran_order": False, "shape": shape})
    return content.getvalue()


def absurd_array(path: Path, draw: random.Random) -> None:
    """A .npy file, or a member of an .npz file, whose header claims 10^9 rows."""
    shape = draw.choice([(10**9, 42, 3), (1, 1), (10**12,), (-1, 42), (2**62, 2**62), ()])
    if path.suffix == ".npy":
        path.write_bytes(header("<f2", shape) + path.read_bytes()[128:])
        return
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = draw.choice(sorted(members))
    members[name] = header("<f8", shape) + members[name][128:]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            new.writestr(name, data)


def places_of(content: object, here: tuple = ()) -> list[tuple]:
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in children for place in ((*here, key), *places_of(value, (*here, key)))]


def change_json(path: Path, draw: random.Random) -> None:
    """A value that is wrong, gone or under another name."""
    content = json.loads(path.read_text())
    *above, last = draw.choice(places_of(content))
    node, change = content, draw.choice(["value", "drop", "rename"])
    for key in above:
        node = node[key]
    if change == "value" or isinstance(last, int):
        node[last] = draw.choice(BAD_VALUES)
    else:
        value = node.pop(last)
        node |= {} if change == "drop" else {last + "_": value}
    path.write_text(json.dumps(content))


def text_json(path: Path, draw: random.Random) -> None:
    """Text that is no JSON, or JSON that is no object, or that a parser may choke on."""
    text = path.read_bytes()
    others = [text.replace(b'"', b"\xff", 1), text[:-3] + b"\xc3\x28" + text[-3:], text.decode().encode("utf-16")]
    others += [b"\xef\xbb\xbf" + text, b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"null", b"12", b'"text"']
    others += [b'{"version": ' + b"9" * 5000 + b"}", text + text, b"\0" * len(text)]
    path.write_bytes(draw.choice(others))


def change_parquet(path: Path, draw: random.Random, change: Callable[..., pa.Table]) -> None:
    groups = pq.ParquetFile(path).metadata
    size = groups.row_group(0).num_rows if groups.num_row_groups else 1
    table = pq.read_table(path)
    name = draw.choice(table.column_names)
    try:
        changed = change(table, table.column_names.index(name), name, draw)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise Unfit from error
    pq.write_table(changed, path, row_group_size=max(1, size))


def bad_cell(table: pa.Table, place: int, name: str, draw: random.Random) -> pa.Table:
    values = table.column(name).to_pylist()
    row = draw.randrange(len(values))
    old = values[row]
    bad: list = [None, float("nan"), float("inf"), -1, 10**9, 2**62, 1e30, "", "x", "../../x"]
    if isinstance(old, list) and old:
        bad = [[], None, old[:-1], old * 2, [float("nan")] * len(old), [1e30, *old[1:]], [float("inf"), *old[1:]]]
    values[row] = draw.choice(bad)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def bad_column(table: pa.Table, place: int, name: str, draw: random.Random) -> pa.Table:
    """Gone, under another name, or of another type."""
    bad = draw.choice(["gone", "renamed", "text", None, [1.0]])
    if bad == "gone":
        return table.remove_column(place)
    if bad == "renamed":
        return table.set_column(place, f"{name}_", table.column(name))
    return table.set_column(place, name, pa.array([bad] * len(table)))


def other_rows(table: pa.Table, place: int, name: str, draw: random.Random) -> pa.Table:
    order = list(range(len(table)))
    order = draw.choice([order[:-1], order[1:], order * 2, [*order, order[-1]], order[::-1], [], [0] * len(order)])
    return table.take(pa.array(order, pa.int64()))


BY_SUFFIX: dict[str, dict[str, Damage]] = {
    ".mp4": VIDEO,
    ".hdf5": ARRAYS | HDF5,
    ".h5": ARRAYS | HDF5,
    ".npz": ARRAYS | {"absurd rows": absurd_array},
    ".npy": {"absurd rows": absurd_array},
    ".json": {"wrong value": change_json, "no JSON": text_json},
    ".parquet": {
        "bad cell": partial(change_parquet, change=bad_cell),
        "bad column": partial(change_parquet, change=bad_column),
        "other rows": partial(change_parquet, change=other_rows),
    },
}
