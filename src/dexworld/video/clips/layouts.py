"""Triplets as DWM's own renderers and lists lay them out: TRUMANS and TASTE-Rob.

TRUMANS' three renderers write into three places of `<scene>/<action>/`; only one test script collects them:

    videos/<stem>.mp4    sequences/videos_static/<stem>.mp4    processed2/videos_hands/<stem>.mp4

Its lists say `trumans/ego_render_fov90/<scene>/<action>/videos/<stem>.mp4`, TASTE-Rob's
`taste_rob/<hands>/<scene>/videos/<stem>.mp4`; on a disk, leading folders may be missing. TASTE-Rob as it is downloaded,
`<hands>/<scene>/<stem>.mp4`, has no triplets yet: `prepare_fixed_camera` makes them.
"""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Literal

from dexworld.data.files import written_atomically
from dexworld.video.clips.clip import check_name
from dexworld.video.clips.triplet_files import (
    HANDS,
    MOTIONS,
    PROMPTS,
    REWRITES,
    STATIC,
    VIDEOS,
    TripletError,
    TripletFiles,
    files_of,
    find_listing,
    list_names,
)
from dexworld.video.clips.triplets import TripletFolder, open_triplets, opened

RENDERER_FOLDERS = ("", "sequences", "processed2")  # below <scene>/<action>; the collected place first


def open_layout(root: Path | str, listing: Path | str | None = None, prompts: str = PROMPTS) -> TripletFolder:
    """Open triplets of any of the layouts above, and of the plain one.

    root: the data folder, or any folder further down the lists' paths. listing: as for `open_triplets`. A file is taken
    from the collected place, else from its renderer's. Settings and seeds come from the nearest triplets.json, which
    may lie above `root` when that is inside a list's path. Raises TripletError when a clip's folder or file is missing.
    """
    root = Path(root)
    names = list_names(find_listing(root, listing)) if listing is not None else _interactions(root)
    folders = [root.absolute(), *root.absolute().parents]
    levels = max((len(PurePosixPath(name).parts) - 1 for name in names), default=0) if listing is not None else 0
    files = {name: _files_of(root, name, prompts) for name in names}
    return opened(root, listing, files, folders[min(levels, len(folders) - 1)])


def collect_triplets(folder: TripletFolder, output: Path | str, how: Literal["link", "copy"] = "link") -> TripletFolder:
    """Bring the files of opened triplets into the plain layout below `output`, and open it. link: hard links, which
    take no space and need the same disk. copy: copies. The interaction video comes last, so a kill leaves no half
    triplet. Files that are there already stay. Raises OSError when a link can't be made."""
    output = Path(output)
    for name in folder.names:
        source, target = folder.files[name], files_of(output, name)
        for part in ("static", "hands", "prompt", "motion", "interaction"):
            old, new = getattr(source, part), getattr(target, part)
            if new.exists() or (part == "motion" and not old.exists()):
                continue
            new.parent.mkdir(parents=True, exist_ok=True)
            if how == "link":
                os.link(old, new)
            else:
                with written_atomically(new) as temporary:
                    shutil.copyfile(old, temporary)
    return open_triplets(output)


def _interactions(root: Path) -> list[str]:
    if not root.is_dir():
        raise TripletError(f"{root}: is no folder")
    names = set()
    for path in root.rglob(f"{VIDEOS}/*.mp4"):
        group = path.parent.parent
        if group.name in RENDERER_FOLDERS and group != root:
            group = group.parent
        name = (group.relative_to(root) / path.stem).as_posix()
        check_name(name)
        names.add(name)
    return sorted(names)


def _files_of(root: Path, name: str, prompts: str) -> TripletFiles:
    path = PurePosixPath(name)
    group = _group(root, path.parent)

    def found(folder: str, suffix: str) -> Path:
        places = [group / below / folder / f"{path.name}{suffix}" for below in RENDERER_FOLDERS]
        return next((place for place in places if place.exists()), places[0])

    prompt = found(prompts, ".txt")
    if prompts == REWRITES and not prompt.exists():
        prompt = found(PROMPTS, ".txt")
    interaction, static, hands = (found(folder, ".mp4") for folder in (VIDEOS, STATIC, HANDS))
    return TripletFiles(interaction, static, hands, prompt, found(MOTIONS, ".npz"))


def _group(root: Path, group: PurePosixPath) -> Path:
    """The folder of a list's group: `root / group`, or without as many of its leading folders as `root` replaces."""
    parts = group.parts
    for start in range(len(parts)):
        place = root.joinpath(*parts[start:])
        if place.is_dir():
            return place
    return root if parts and root.name == parts[-1] else root / group
