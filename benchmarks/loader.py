"""Training windows per CPU-second: the prepared store against reading EgoDex as it is published.

    python benchmarks/loader.py --output outputs/bench/loader

A window is nine frames within four seconds, 392 x 224, with the labels of both hands and the camera. All ways load the
same windows of the same synthetic clips (`egodex_clips.py`) by turns; CPU time is counted over all threads:

    released    the released loader's recipe in our own words: the video opened for every window, frames decoded one by
                one at full size, poses read joint by joint, heatmaps drawn point by point. With decord where it is
                installed; otherwise PyAV goes through the frames as decord does
    pyav        the best that the original files allow: one seek, frames scaled by FFmpeg, each label array read once
    store       `FrameLoader` on a store made by `dexworld prepare` (H.264), and on one of JPEG pictures
    limit       decoding alone: the packets that these windows force, from memory to RGB

results.json holds windows per CPU-second of each, the ratios, and the share of the decoding limit that the loader
reaches, alone and with two workers.
"""

import itertools
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import av
import h5py
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from common import cpu_seconds, parser, processor, write_and_print
from dexworld.data.loader import FrameLoader
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.resize import resized
from dexworld.data.sampling import PaperSampling
from dexworld.data.store.prepared_dataset import PreparedDataset, open_prepared
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.hands import KEYPOINT_NAMES, TRACKED
from egodex_clips import ClipShape, write_clips

HEIGHT, WIDTH = 224, 392
BATCH = 16
SIGMA, REACH = 2.0, 4  # of the released heatmaps, in pixels


@dataclass
class Meter:
    """CPU seconds and windows of one way."""

    seconds: float = 0.0
    windows: int = 0
    parts: list[float] = field(default_factory=list)

    def run(self, windows: int, work: Callable[[], object], counted: bool = True) -> None:
        """Count the CPU time of `work`, which loads so many windows."""
        used = cpu_seconds(work)
        if counted:
            self.seconds += used
            self.windows += windows
            self.parts.append(windows / max(used, 1e-9))

    @property
    def rate(self) -> float:
        """Windows per CPU-second."""
        return self.windows / self.seconds


class DecordLikeReader:
    """Frames one by one as decord gives them, by PyAV: on from where it stands, or back to a key frame."""

    def __init__(self, path: Path) -> None:
        self.container = av.open(str(path))
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.per_frame = 1 / (self.stream.average_rate * self.stream.time_base)
        self.keys = key_frames(self.container)
        self.position, self.frames = -1, None

    def __getitem__(self, index: int) -> np.ndarray:
        key = max(each for each in self.keys if each <= index)
        if self.frames is None or index <= self.position or key > self.position:
            self.container.seek(int(key * self.per_frame), stream=self.stream)
            self.frames = self.container.decode(self.stream)
        for frame in self.frames:
            self.position = round(frame.pts / self.per_frame)
            if self.position == index:
                return frame.to_ndarray(format="rgb24")
        raise IndexError(f"frame {index} is not in the video")


def key_frames(container: av.container.InputContainer) -> list[int]:
    """Numbers of the frames that decoding can start at, from the packets, as decord indexes a file when it opens it."""
    stream = container.streams.video[0]
    per_frame = 1 / (stream.average_rate * stream.time_base)
    packets = [packet for packet in container.demux(stream) if packet.pts is not None]
    return sorted(round(packet.pts / per_frame) for packet in packets if packet.is_keyframe)


def released_window(folder: Path, clip: str, frames: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One window by the released recipe: frames (9, 3, H, W) float, poses (8, 2, 43, 3), heatmaps (8, 12, H, W)."""
    path = folder / "part1" / "benchmark" / clip
    if find_spec("decord"):
        import decord

        video = decord.VideoReader(str(path.with_suffix(".mp4")))
        read = lambda index: video[index].asnumpy()  # noqa: E731
    else:
        video = DecordLikeReader(path.with_suffix(".mp4"))
        read = video.__getitem__
    height, width = read(0).shape[:2]
    wide = int(HEIGHT * width / height)
    left = (wide - WIDTH) // 2
    pictures = []
    for index in frames:
        image = torch.from_numpy(read(index)).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(image, (HEIGHT, wide), mode="bilinear", align_corners=False)
        pictures.append(small[0, :, :, left : left + WIDTH].float().numpy() / 255.0)
    poses, maps = [], []
    with h5py.File(path.with_suffix(".hdf5")) as file:
        transforms = file["transforms"]
        first = np.linalg.inv(transforms["camera"][frames[0]])
        for index, following in itertools.pairwise(frames):
            pair = []
            for each in (index, following):
                joints = [(first @ transforms[name][each])[:3, 3] for name in KEYPOINT_NAMES]
                pair.append(np.stack([*joints, transforms["camera"][each][:3, 3]]))
            poses.append(np.stack(pair))
            seen = np.linalg.inv(transforms["camera"][following])
            focal = 736.6339 / 1920 * width
            drawn = []
            for joint in TRACKED:
                x, y, z = (seen @ transforms[KEYPOINT_NAMES[joint]][following])[:3, 3]
                u, v = (focal * x / z + width / 2) / width * wide - left, (focal * y / z + height / 2) / height * HEIGHT
                drawn.append(drawn_heatmap(int(u), int(v)))
            maps.append(np.stack(drawn))
    return np.stack(pictures), np.stack(poses), np.stack(maps).astype(np.float32)


def drawn_heatmap(u: int, v: int) -> np.ndarray:
    """A Gaussian of peak 1 drawn pixel by pixel in a 9 x 9 square; empty where the square does not fit."""
    picture = np.zeros((HEIGHT, WIDTH))
    if REACH <= u < WIDTH - REACH and REACH <= v < HEIGHT - REACH:
        for row in range(v - REACH, v + REACH + 1):
            for column in range(u - REACH, u + REACH + 1):
                picture[row, column] = math.exp(-((row - v) ** 2 + (column - u) ** 2) / (2 * SIGMA**2))
    return picture


def pyav_window(folder: Path, clip: str, frames: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """One window from the original files as well as they allow: frames (9, H, W, 3) uint8 and positions (9, 43, 3)."""
    path = folder / "part1" / "benchmark" / clip
    wanted, pictures, scale = set(frames), [], VideoReformatter()
    with av.open(str(path.with_suffix(".mp4"))) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        per_frame = 1 / (stream.average_rate * stream.time_base)
        key = max(each for each in key_frames(container) if each <= frames[0])
        container.seek(int(key * per_frame), stream=stream)
        for frame in container.decode(stream):
            position = round(frame.pts / per_frame)
            if position in wanted:
                wide = int(HEIGHT * frame.width / frame.height)
                small = scale.reformat(frame, wide, HEIGHT, "rgb24").to_ndarray()
                pictures.append(small[:, (wide - WIDTH) // 2 :][:, :WIDTH])
            if position >= frames[-1]:
                break
    with h5py.File(path.with_suffix(".hdf5")) as file:
        names = [*KEYPOINT_NAMES, "camera"]
        labels = np.stack([file[f"transforms/{name}"][:][frames, :3, 3] for name in names], axis=1)
    return np.stack(pictures), labels


class DecodeLimit:
    """Decoding alone: packets in memory to RGB. Which packets a window forces is worked out beforehand."""

    def __init__(self, dataset: PreparedDataset) -> None:
        self.clips = [dataset[index].frames for index in range(len(dataset))]
        self.packets = []
        for frames in self.clips:
            content = frames.path.read_bytes()
            self.packets.append([content[offset : offset + size] for offset, size, _ in frames.packets.tolist()])
        self.decoder = av.CodecContext.create(self.clips[0].decoder, "r")
        self.decoder.thread_count = 1
        self.decoder.extradata = self.clips[0].extradata or None
        self.convert = VideoReformatter()

    def plan(self, clips: np.ndarray, windows: np.ndarray) -> list[tuple[bytes, bool]]:
        """(packet, whether its picture is wanted) for all windows, in order."""
        planned = []
        for clip, frames in zip(clips.tolist(), windows.tolist(), strict=True):
            wanted, group = sorted(set(frames)), self.clips[clip].group
            for start in sorted({index - index % group for index in wanted}):
                inside = [index for index in wanted if start <= index < start + group]
                planned += [(self.packets[clip][index], index in inside) for index in range(start, inside[-1] + 1)]
        return planned

    def run(self, planned: list[tuple[bytes, bool]]) -> int:
        """Decode; returns how many pictures came out in RGB."""
        pictures = 0
        for packet, wanted in planned:
            for frame in self.decoder.decode(av.Packet(packet)):
                if wanted:
                    self.convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    pictures += 1
        return pictures


def with_workers(dataset: PreparedDataset, batches: int, workers: int = 2) -> dict[str, float]:
    """Windows per second and per CPU-second, all processes together, starting and ending the workers included."""
    loader = FrameLoader([resized(dataset, (HEIGHT, WIDTH))], PaperSampling(), BATCH, 0, workers=workers)
    wall, own = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for batch in loader.batches(stop=batches):
        assert batch.frames.shape[0] == BATCH
    loader.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() - own + after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "windows_per_second": batches * BATCH / (time.perf_counter() - wall),
        "windows_per_cpu_s": batches * BATCH / cpu,
    }


def prepared(source: Path, folder: Path, codec: str) -> tuple[PreparedDataset, dict[str, float]]:
    """A store of the clips, and what making it cost."""
    before, new = time.process_time(), not folder.exists()
    settings = PrepareSettings(codec=codec)  # type: ignore[arg-type]
    prepare(PrepareConfig(source, folder, kind="egodex", settings=settings, workers=1))
    dataset = open_prepared(folder)
    frames = sum(dataset.lengths)
    size = sum(path.stat().st_size for path in folder.rglob("*.mp4"))
    cost = {f"{codec}_prepare_cpu_ms_per_frame": 1e3 * (time.process_time() - before) / frames} if new else {}
    return dataset, {**cost, f"{codec}_video_bytes_per_frame": size / frames}


def measure(source: Path, stores: dict[str, PreparedDataset], rounds: int, batches: int) -> dict[str, Meter]:
    """All ways by turns, on the windows of the same seed; the first round of each is not counted."""
    loaders = {
        codec: FrameLoader([resized(dataset, (HEIGHT, WIDTH))], PaperSampling(), BATCH, 0)
        for codec, dataset in stores.items()
    }
    limits = {codec: DecodeLimit(dataset) for codec, dataset in stores.items()}
    names = ("released", "pyav", *(f"{codec}{ending}" for codec in stores for ending in ("", "_limit")))
    meters = {name: Meter() for name in names}
    for turn in range(rounds + 1):
        picks = next(iter(loaders.values())).sampler.draw(turn, BATCH)
        clip, frames = f"{picks.clips[0]}", picks.drawn.frames[0].tolist()
        for name, read in (("released", released_window), ("pyav", pyav_window)):
            meters[name].run(1, partial(read, source, clip, frames), turn > 0)
        for (codec, loader), number in itertools.product(loaders.items(), range(turn * batches, (turn + 1) * batches)):
            meters[codec].run(BATCH, partial(loader.batch, number), turn > 0)
            picks = loader.sampler.draw(number, BATCH)
            planned = limits[codec].plan(picks.clips, picks.drawn.frames)
            meters[f"{codec}_limit"].run(BATCH, partial(limits[codec].run, planned), turn > 0)
    return meters


def figures_of(meters: dict[str, Meter]) -> dict[str, float]:
    """The documented figures."""
    rates = {name: meter.rate for name, meter in meters.items()}
    ratios = {}
    for codec, ending in (("h264", ""), ("jpeg", "_jpeg")):
        ratios[f"ratio_released{ending}"] = rates[codec] / rates["released"]
        ratios[f"ratio_pyav{ending}"] = rates[codec] / rates["pyav"]
        ratios[f"share_of_decode_limit{ending}"] = rates[codec] / rates[f"{codec}_limit"]
    return {
        **ratios,
        **{f"windows_per_cpu_s_{name}": rate for name, rate in rates.items()},
        **{f"median_windows_per_cpu_s_{name}": statistics.median(each.parts) for name, each in meters.items()},
    }


def main() -> None:
    """Measure and write results.json."""
    options = parser(__doc__, "outputs/bench/loader")
    options.add_argument("--clips", type=int, default=2, help="clips to make")
    options.add_argument("--seconds", type=float, default=20.0, help="length of a clip")
    options.add_argument("--height", type=int, default=1080, help="of the clips; their width is 16 / 9 of it")
    options.add_argument("--rounds", type=int, default=8, help="windows by the slow ways")
    options.add_argument("--batches", type=int, default=3, help="batches of 16 windows of each store in a round")
    options.add_argument("--data", type=Path, default=None, help="keep the clips and stores in this folder")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data or Path(temporary)
        shape = ClipShape(arguments.seconds, arguments.height, 16 * arguments.height // 18 * 2)
        if not (folder / "clips").exists():
            write_clips(folder / "clips", arguments.clips, shape)
        stores, costs = {}, {}
        for codec in ("h264", "jpeg"):
            stores[codec], cost = prepared(folder / "clips", folder / codec, codec)
            costs |= cost
        meters = measure(folder / "clips", stores, arguments.rounds, arguments.batches)
        workers = {
            f"{name}_two_workers{suffix}": value
            for codec, suffix in (("h264", ""), ("jpeg", "_jpeg"))
            for name, value in with_workers(stores[codec], 4 * arguments.batches).items()
        }
    results = {
        **figures_of(meters),
        **workers,
        **costs,
        "released_reader": "decord" if find_spec("decord") else "PyAV in decord's order of access",
        "windows_measured": {name: meter.windows for name, meter in meters.items()},
        "clips": f"{arguments.clips} of {shape.frames} frames, {shape.width} x {shape.height}",
        "processor": processor(),
    }
    write_and_print(arguments.output, results)


if __name__ == "__main__":
    main()
