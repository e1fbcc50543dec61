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

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Damage = Callable[[Path, random.Random], None]
BAD_VALUES = (None, [], {}, "", "x", "\ud800", -1, 0, 1e300, 10**9, 10**30, True, float("nan"), float("inf"), [[]], [1])


class Unfit(Exception):
    """A damage that this file can't suffer."""


def remove(path: Path) -> None:
    """Whatever lies at `path`, gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flip(path: Path, draw: random.Random, first: int = 0, count: int | None = None, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    end = len(content) if count is None else min(first + count, len(content))
    if first >= end:
        raise Unfit
    for _ in range(bits):
        content[draw.randrange(first, end)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def overwrite(path: Path, draw: random.Random, fill: Callable[..., bytes]) -> None:
    content = bytearray(path.read_bytes())
    if not content:
        raise Unfit
    start, size = draw.randrange(len(content)), draw.choice([4, 16, 100, 512, 4096])
    size = min(size, len(content) - start)
    content[start : start + size] = fill(size, draw)
    path.write_bytes(content)


def cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.choice([1, 8, draw.randrange(len(content)), len(content) - 1])])


def other_format(path: Path, draw: random.Random) -> None:
    others = [each for each in path.parents[0].rglob("*") if each.is_file() and each.suffix != path.suffix]
    if others:
        path.write_bytes(draw.choice(sorted(others)).read_bytes())
    else:
        path.write_bytes(b"\x89HDF\r\n\x1a\n" if path.suffix == ".mp4" else b"\0\0\0\x20ftypisom\0\0\2\0")


def in_place(path: Path, make: Callable[[], object]) -> None:
    remove(path)
    make()


BYTES: dict[str, Damage] = {
    "bit flipped": flip,
    "bits flipped": lambda path, draw: flip(path, draw, bits=draw.choice([4, 16, 64])),
    "bit flipped at the start": lambda path, draw: flip(path, draw, count=2048),
    "bit flipped at the end": lambda path, draw: flip(path, draw, first=max(0, path.stat().st_size - 2048)),
    "zeroed block": partial(overwrite, fill=lambda size, draw: bytes(size)),
    "random block": partial(overwrite, fill=lambda size, draw: draw.randbytes(size)),
    "ones": partial(overwrite, fill=lambda size, draw: b"\xff" * size),
    "cut off": cut,
    "empty": lambda path, draw: path.write_bytes(b""),
    "missing": lambda path, draw: remove(path),
    "a folder": lambda path, draw: in_place(path, path.mkdir),
    "a link to nothing": lambda path, draw: in_place(path, lambda: path.symlink_to("nothing")),
    "a link to itself": lambda path, draw: in_place(path, lambda: path.symlink_to(path.name)),
    "another format": other_format,
    "garbage behind": lambda path, draw: path.write_bytes(path.read_bytes() + draw.randbytes(100)),
}
if os.geteuid():  # nothing is forbidden to root
    BYTES["forbidden"] = lambda path, draw: path.chmod(0)


def rewrite_video(
    path: Path, count: Callable[[int], int] = int, rate: Callable = lambda rate: rate, size=None, shift: int = 0
) -> None:
    """The same pictures encoded anew: another number of them, another rate, another size or others in their place."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        own_rate = Fraction(stream.average_rate)
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    height, width = size or pictures[0].shape[:2]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate(own_rate), options={"preset": "ultrafast", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.open()
        container.start_encoding()  # what writes the header of a video without frames
        for number in range(count(len(pictures))):
            picture = np.roll(pictures[(number + shift) % len(pictures)], 8 * shift, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(width=width, height=height)))
        container.mux(stream.encode())


def only_audio(path: Path, draw: random.Random) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


# where an MP4 counts frames, gives times, sizes or lengths of boxes: a box and bytes behind its name
BOXES = (
    "stsz 12,stts 8,stts 12,stts 16,stsc 8,stsc 16,stco 8,stco 12,mvhd 20,mdhd 16,mdhd 20,tkhd 80,avc1 28,"
    "moov -4,trak -4,stsd -4,mdat -4,avcC -4"
)


def absurd_box(path: Path, draw: random.Random) -> None:
    """A number of 10^9 or so in one of the boxes."""
    content = bytearray(path.read_bytes())
    name, place = draw.choice(BOXES.split(",")).split()
    at = content.find(name.encode())
    if at < 0:
        raise Unfit
    at += int(place)
    content[at : at + 4] = struct.pack(">I", draw.choice([10**9, 2**32 - 1, 2**31 - 1, 2**31, 0]))
    path.write_bytes(content)


VIDEO: dict[str, Damage] = {
    "frames missing": lambda path, draw: rewrite_video(path, lambda count: count - draw.randrange(1, count)),
    "frames too many": lambda path, draw: rewrite_video(path, lambda count: count + draw.randrange(2, 9)),
    "no frames": lambda path, draw: rewrite_video(path, lambda count: 0),
    "wrong rate": lambda path, draw: rewrite_video(path, rate=lambda rate: rate * draw.choice([2, Fraction(1, 3)])),
    "absurd rate": lambda path, draw: rewrite_video(path, rate=lambda rate: Fraction(draw.choice([5000, 90000]))),
    "another clip": lambda path, draw: rewrite_video(path, shift=3),
    "another size": lambda path, draw: rewrite_video(path, size=(16, 24)),
    "only sound": only_audio,
    "absurd numbers in boxes": absurd_box,
}


def datasets_of(node: h5py.Group) -> list[str]:
    names: list[str] = []
    node.visititems(lambda name, each: names.append(name) if isinstance(each, h5py.Dataset) else None)
    return names


def change_hdf5(path: Path, draw: random.Random, change: Callable[..., object]) -> None:
    """Replace one array by what `change` makes of it; None removes it."""
    with h5py.File(path, "r+") as file:
        key = draw.choice([name for name in datasets_of(file) if file[name].dtype.kind in "fiu"])
        values = file[key][()]
        changed = change(values, draw)
        del file[key]
        if changed is not None:
            file[key] = changed


def with_value(values: np.ndarray, draw: random.Random, bad: float) -> np.ndarray:
    changed = np.array(values, dtype=np.float64)
    if not changed.size:
        raise Unfit
    changed.reshape(-1)[draw.choice([draw.randrange(changed.size), slice(None)])] = bad  # one number, or all
    return changed


def reshaped(values: np.ndarray, draw: random.Random) -> np.ndarray:
    values = np.atleast_1d(values)
    wrong = [values[..., None], values.reshape(-1), values[None], values[:0], values[:-1], np.concatenate([values] * 2)]
    if values.ndim > 1:
        wrong += [values[..., :-1], values[:, :-1], np.swapaxes(values, 0, 1)]
    return draw.choice([each for each in wrong if each.shape != values.shape])


def retyped(values: np.ndarray, draw: random.Random) -> object:
    values = np.atleast_1d(values)
    texts = np.array([b"abc"] * max(1, len(values)))
    record = np.zeros(len(values), dtype=[("a", "f4"), ("b", "i4")])
    return draw.choice([texts, b"one text", record, values.astype(complex), h5py.Empty("f4"), "text"])


def absurd_hdf5(path: Path, draw: random.Random) -> None:
    """An array that claims 10^9 rows of which none is written."""
    with h5py.File(path, "r+") as file:
        key = draw.choice([name for name in datasets_of(file) if file[name].dtype.kind in "fiu" and file[name].ndim])
        shape, kind = file[key].shape, file[key].dtype
        del file[key]
        rows = draw.choice([10**6, 10**7, 10**9, 2**40])
        file.create_dataset(key, shape=(rows, *shape[1:]), dtype=kind, chunks=(64, *shape[1:]), maxshape=None)


def misplaced_hdf5(path: Path, draw: random.Random) -> None:
    """A group, a broken link or a loop of links where an array or a group should be."""
    with h5py.File(path, "r+") as file:
        names = datasets_of(file)
        key = draw.choice([*names, *{str(Path(name).parent) for name in names} - {"."}])
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


HDF5: dict[str, Damage] = {
    "missing key": partial(change_hdf5, change=lambda values, draw: None),
    "NaN": partial(change_hdf5, change=partial(with_value, bad=np.nan)),
    "Inf": partial(change_hdf5, change=partial(with_value, bad=-np.inf)),
    "huge value": partial(change_hdf5, change=partial(with_value, bad=1e30)),
    "wrong shape": partial(change_hdf5, change=reshaped),
    "wrong type": partial(change_hdf5, change=retyped),
    "zero rows": partial(change_hdf5, change=lambda values, draw: np.atleast_1d(values)[:0]),
    "rows in another order": partial(change_hdf5, change=lambda values, draw: np.atleast_1d(values)[::-1].copy()),
    "absurd number of rows": absurd_hdf5,
    "misplaced": misplaced_hdf5,
    "wrong attribute": attribute_hdf5,
}


def places_of(content: object, here: tuple = ()) -> list[tuple]:
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    found = [here] if here else []
    for key, value in children:
        found += places_of(value, (*here, key))
    return found


def change_json(path: Path, draw: random.Random, drop: bool = False, rename: bool = False) -> None:
    content = json.loads(path.read_text())
    *above, last = draw.choice(places_of(content))
    node = content
    for key in above:
        node = node[key]
    if drop:
        del node[last]
    elif rename and isinstance(last, str):
        node[last + "_"] = node.pop(last)
    else:
        node[last] = draw.choice(BAD_VALUES)
    path.write_text(json.dumps(content))


def text_json(path: Path, draw: random.Random) -> None:
    """Text that is no JSON, or JSON that is no object, or that a parser may choke on."""
    text = path.read_bytes()
    others = [text.replace(b'"', b"\xff", 1), text[:-3] + b"\xc3\x28" + text[-3:], text.decode().encode("utf-16")]
    others += [b"\xef\xbb\xbf" + text, b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"null", b"12", b'"text"']
    others += [b'{"version": ' + b"9" * 5000 + b"}", text + text, b"\0" * len(text)]
    path.write_bytes(draw.choice(others))


JSON: dict[str, Damage] = {
    "wrong value": change_json,
    "missing key": lambda path, draw: change_json(path, draw, drop=True),
    "renamed key": lambda path, draw: change_json(path, draw, rename=True),
    "no JSON": text_json,
}


def change_parquet(path: Path, draw: random.Random, change: Callable[..., pa.Table]) -> None:
    table = pq.read_table(path)
    groups = pq.ParquetFile(path).metadata
    size = groups.row_group(0).num_rows if groups.num_row_groups else 1
    changed = change(table, draw.choice(table.column_names), draw)
    pq.write_table(changed, path, row_group_size=max(1, size))


def replaced(table: pa.Table, name: str, values: list, kind: pa.DataType | None = None) -> pa.Table:
    try:
        array = pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise Unfit from error
    return table.set_column(table.column_names.index(name), name, array)


def bad_cell(table: pa.Table, name: str, draw: random.Random) -> pa.Table:
    kind, values = table.schema.field(name).type, table.column(name).to_pylist()
    row = draw.randrange(len(values))
    if isinstance(values[row], list) and values[row]:
        bad = draw.choice([[], None, values[row][:-1], values[row] * 2, [float("nan")] * len(values[row])])
        bad = draw.choice([bad, [1e30, *values[row][1:]], [float("inf"), *values[row][1:]]])
    else:
        bad = draw.choice([None, float("nan"), float("inf"), -1, 10**9, 2**62, 1e30, "", "x", "../../x"])
    values[row] = bad
    return replaced(table, name, values, kind)


def bad_column(table: pa.Table, name: str, draw: random.Random) -> pa.Table:
    return replaced(table, name, draw.choice([["text"] * len(table), [None] * len(table), [[1.0]] * len(table)]))


def other_rows(table: pa.Table, name: str, draw: random.Random) -> pa.Table:
    order = list(range(len(table)))
    order = draw.choice([order[:-1], order[1:], order * 2, [*order, order[-1]], order[::-1], [], [0] * len(order)])
    return table.take(pa.array(order, pa.int64()))


def renamed(table: pa.Table, name: str, draw: random.Random) -> pa.Table:
    return table.rename_columns([f"{each}_" if each == name else each for each in table.column_names])


PARQUET: dict[str, Damage] = {
    "missing column": partial(change_parquet, change=lambda table, name, draw: table.drop_columns([name])),
    "renamed column": partial(change_parquet, change=renamed),
    "bad cell": partial(change_parquet, change=bad_cell),
    "bad column": partial(change_parquet, change=bad_column),
    "other rows": partial(change_parquet, change=other_rows),
}


def change_archive(path: Path, draw: random.Random, change: Callable[..., object]) -> None:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays, draw.choice(sorted(arrays)), draw)
    np.savez(path, **arrays)


def bad_array(arrays: dict, name: str, draw: random.Random) -> None:
    values = np.atleast_1d(arrays[name])
    bad = [values.astype("U"), np.array(values.tolist(), dtype=object), values[..., None], values[:0], values[:-1]]
    if values.dtype.kind == "f":
        bad += [np.full_like(values, np.nan), np.full_like(values, np.inf), -np.abs(values) - 1, values * 1e30]
    arrays[name] = draw.choice(bad)


def header(kind: str, shape: tuple) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": kind, "fortran_order": False, "shape": shape})
    return content.getvalue()


def absurd_archive(path: Path, draw: random.Random) -> None:
    """A member whose header claims 10^9 rows."""
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            if name == chosen:
                shape = draw.choice([(10**9, 42, 3), (10**8,), (10**12,), (-1, 42), (2**62, 2**62)])
                data = header("<f8", shape) + data[128:]
            new.writestr(name, data)
    path.write_bytes(content.getvalue())


def absurd_array(path: Path, draw: random.Random) -> None:
    shape = draw.choice([(10**9, 2, 3), (1, 1), (10**12,), (-1, 2, 3), ()])
    path.write_bytes(header("<f2", shape) + path.read_bytes()[128:])


NPZ: dict[str, Damage] = {
    "missing key": partial(change_archive, change=lambda arrays, name, draw: arrays.pop(name)),
    "bad array": partial(change_archive, change=bad_array),
    "absurd number of rows": absurd_archive,
}
NPY: dict[str, Damage] = {"absurd number of rows": absurd_array}

BY_SUFFIX: dict[str, dict[str, Damage]] = {".mp4": VIDEO, ".json": JSON, ".parquet": PARQUET, ".npz": NPZ, ".npy": NPY}
BY_SUFFIX |= {".hdf5": HDF5, ".h5": HDF5}
