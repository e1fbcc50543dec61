"""The files of one triplet: where they lie, how they are written and read, and the lists that name them.

The folder layout is the one that DWM's release reads, so its lists and data open as they are:

    <group>/videos/<stem>.mp4          what happened; written last, so it is the mark of a complete triplet
    <group>/videos_static/<stem>.mp4   the same camera path through the untouched scene
    <group>/videos_hands/<stem>.mp4    hands alone on black, left green, right red
    <group>/prompts/<stem>.txt         (prompts_rewrite/<stem>.txt when asked for)
    <group>/hand_motions/<stem>.npz    optional: keypoints and camera (`Track`)

TRUMANS' renderers leave the second in `<group>/sequences/videos_static` and the third in
`<group>/processed2/videos_hands`. Readers look there, too.

`<group>` may be empty or any depth of folders. A triplet's name is `<group>/<stem>`.
"""

import codecs
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dexworld.data.files import read_arrays
from dexworld.data.hand_checks import check_track
from dexworld.data.video import write_video
from dexworld.errors import warn_once
from dexworld.track import Track
from dexworld.video.clips.clip import TripletClip, check_name
from dexworld.writing import write_text, written_atomically

VIDEOS, STATIC, HANDS, MOTIONS = "videos", "videos_static", "videos_hands", "hand_motions"
PROMPTS = "prompts"
SUFFIXES = {VIDEOS: ".mp4", STATIC: ".mp4", HANDS: ".mp4", PROMPTS: ".txt", "prompts_rewrite": ".txt", MOTIONS: ".npz"}
RENDERER_FOLDERS = ("", "sequences", "processed2")  # of a group: where TRUMANS' three renderers leave their videos
RATE_TOLERANCE = 0.01  # fps by which the videos of a triplet may differ
CRF = 12  # near-lossless: these files are training targets, not views
_TRACK = ("keypoints_world", "keypoints_valid", "world_from_camera", "intrinsics")


@dataclass(frozen=True)
class TripletFiles:
    """Where the files of one triplet lie. prompt may lie outside the usual folder; motion may not exist."""

    interaction: Path
    static: Path
    hands: Path
    prompt: Path
    motion: Path

    @property
    def required(self) -> tuple[Path, ...]:
        """The files without which it is no triplet."""
        return self.interaction, self.static, self.hands, self.prompt

    @property
    def signature(self) -> str:
        """Changes when a video or the hand motion is rewritten with other content; 32 hexadecimal digits."""
        paths = (self.interaction, self.static, self.hands, self.motion)
        return hashlib.sha256(b"".join(signature(path) for path in paths)).hexdigest()[:32]


def signature(path: Path) -> bytes:
    """Size and checksum of both ends: an mp4's index, which lies at one of them, holds the size of every frame."""
    if not path.exists():
        return b"-\n"
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(4096)
        file.seek(max(0, size - 4096))
        return f"{path.parent.name} {size} {zlib.crc32(head)} {zlib.crc32(file.read())}\n".encode()


def files_of(root: Path, name: str, prompts: str = PROMPTS, below: Sequence[str] = ("",)) -> TripletFiles:
    """The files of triplet `name` below `root` by the folder contract; they need not exist.

    prompts: the preferred prompt folder; a clip without a file in it keeps its plain prompt. below: folders of the
    group in which a file may lie; the first that has it counts.
    """
    check_name(name)
    group, stem = root / PurePosixPath(name).parent, PurePosixPath(name).name

    def found(folder: str) -> Path:
        places = [group / place / folder / f"{stem}{SUFFIXES[folder]}" for place in below]
        return next((place for place in places if place.exists()), places[0])

    prompt = found(prompts)
    return TripletFiles(
        found(VIDEOS), found(STATIC), found(HANDS), prompt if prompt.exists() else found(PROMPTS), found(MOTIONS)
    )


def write_triplet(root: Path | str, clip: TripletClip) -> None:
    """Write one triplet below `root`, near-lossless; the hand video keeps full colour resolution.

    The interaction video is written last, and removed first where the triplet exists: a kill leaves no half triplet
    that looks complete. Raises ValueError on odd frame sizes.
    """
    files = files_of(Path(root), clip.name)
    for path in (*files.required, *([] if clip.track is None else [files.motion])):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.interaction.unlink(missing_ok=True)
    files.motion.unlink(missing_ok=True)
    _write(files.static, clip.static, clip.fps)
    _write(files.hands, clip.hands, clip.fps, chroma="444")
    write_text(files.prompt, clip.prompt.strip() + "\n")
    if clip.track is not None:
        with written_atomically(files.motion) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{name: getattr(clip.track, name) for name in _TRACK})
    _write(files.interaction, clip.interaction, clip.fps)


def _write(path: Path, frames: np.ndarray, fps: float, chroma: str = "420") -> None:
    with written_atomically(path) as temporary:
        write_video(temporary, frames, fps, crf=CRF, chroma=chroma)


def read_track(path: Path, size: tuple[int, int]) -> Track:
    """The keypoints and the camera of a hand_motions npz, for a video of `size` (height, width).

    Raises ValueError naming the file and the key, or the likely cause where the hands can't be hands.
    """
    arrays, _ = read_arrays(path)
    if missing := [name for name in _TRACK if name not in arrays]:
        raise ValueError(f"{path}: holds no {', '.join(missing)}")
    columns = {name: arrays[name] for name in _TRACK[:2]}
    track = Track(arrays["world_from_camera"], arrays["intrinsics"], columns, source=str(path))
    try:
        check_track(track, size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return track


def read_prompt(path: Path) -> str:
    """The whole text of a prompt file, stripped. Raises ValueError for a missing or undecodable file."""
    try:
        return _text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: the prompt can't be read ({error})") from error


def _text(path: Path) -> str:
    """A text of UTF-8 or, with its byte-order mark, UTF-16; what is neither is read as Latin-1, with a warning."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if any(byte < 32 and byte not in b"\t\n\f\r" for byte in content):  # no text of any kind
            raise
        warn_once(str(path), "text", f"is not UTF-8 ({error}); read as Latin-1")
        return content.decode("latin-1")


def find_names(root: Path) -> list[str]:
    """Names of all interaction videos below `root`, sorted; hidden folders and unfinished files don't count."""
    if not root.is_dir():
        raise ValueError(f"{root}: is no folder")
    found = (path.relative_to(root) for path in root.rglob(f"{VIDEOS}/*.mp4"))
    return sorted(name_of(path) for path in found if not any(part.startswith(".") for part in path.parts))


def read_list(root: Path, listing: Path | str) -> tuple[dict[str, int], list[str]]:
    """The line number of each name in a list file, in order, and what is wrong with other lines that aren't blank.

    listing: as given or inside `root`; its paths start from `root`. Raises ValueError when there is no such file.
    """
    path = next((each for each in (Path(listing), root / listing) if each.is_file()), None)
    if path is None:
        raise ValueError(f"{listing}: no such list file, neither there nor in {root}")
    names: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        video = PurePosixPath(line.strip())
        try:
            if line.strip():
                if video.is_absolute() or video.parent.name != VIDEOS or video.suffix != ".mp4":
                    raise ValueError("is not of the form <group>/videos/<stem>.mp4, relative to the data folder")
                check_name(name_of(video))
                if name_of(video) in names:
                    raise ValueError("its clip is listed twice")
                names[name_of(video)] = number
        except ValueError as error:
            problems.append(f"line {number}: {line.strip()!r}: {error}")
    return names, problems


def list_line(name: str) -> str:
    """The line of a list file for a triplet's name."""
    path = PurePosixPath(name)
    return str(path.parent / VIDEOS / f"{path.name}.mp4")


def name_of(path: PurePosixPath | Path) -> str:
    """The name of the triplet to which a file belongs, given its path below the data folder."""
    return (path.parent.parent / path.stem).as_posix()


def few(items: Iterable[str], limit: int = 5) -> str:
    """The first of the items, and how many more there are."""
    listed = list(items)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
