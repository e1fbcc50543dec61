"""Triplets as DWM's own renderers and lists lay them out: TRUMANS and TASTE-Rob.

TRUMANS' three renderers write into three places of `<scene>/<action>/`; only one test script collects them:

    videos/<stem>.mp4    sequences/videos_static/<stem>.mp4    processed2/videos_hands/<stem>.mp4

Its lists say `trumans/ego_render_fov90/<scene>/<action>/videos/<stem>.mp4`, TASTE-Rob's
`taste_rob/<hands>/<scene>/videos/<stem>.mp4`; on a disk, leading folders may be missing. TASTE-Rob as it is downloaded,
`<hands>/<scene>/<stem>.mp4`, has no triplets yet: `prepare_fixed_camera` makes them.
"""

from pathlib import Path, PurePosixPath

from dexworld.video.clips.triplet_files import PROMPTS, files_in, find_listing, find_names, list_names
from dexworld.video.clips.triplets import TripletFolder, opened

RENDERER_FOLDERS = ("", "sequences", "processed2")  # below <scene>/<action>; the collected place first


def open_layout(root: Path | str, listing: Path | str | None = None, prompts: str = PROMPTS) -> TripletFolder:
    """Open triplets of any of the layouts above, and of the plain one.

    root: the data folder, or any folder further down the lists' paths. listing, prompts: as for `open_triplets`. A file
    is taken from the collected place, else from its renderer's. Settings and seeds come from the nearest triplets.json,
    which may lie above `root` inside a list's path. Raises TripletError when a clip's folder or file is missing.
    """
    root, top = Path(root), Path(root).absolute()
    if listing is None:
        names = sorted({_without_renderer(PurePosixPath(name)) for name in find_names(root)})
    else:
        names = list_names(find_listing(root, listing))
        levels = max((len(PurePosixPath(name).parts) - 1 for name in names), default=0)
        top = [top, *top.parents][min(levels, len(top.parents))]
    paths = {name: PurePosixPath(name) for name in names}
    folders = {name: _group(root, path.parent) for name, path in paths.items()}
    files = {name: files_in(folders[name], path.name, prompts, RENDERER_FOLDERS) for name, path in paths.items()}
    return opened(root, listing, files, top)


def _without_renderer(name: PurePosixPath) -> str:
    group = name.parent
    return ((group.parent if group.name in RENDERER_FOLDERS else group) / name.name).as_posix()


def _group(root: Path, group: PurePosixPath) -> Path:
    """The folder of a list's group: `root / group`, or without as many of its leading folders as `root` replaces."""
    parts = group.parts
    for start in range(len(parts)):
        place = root.joinpath(*parts[start:])
        if place.is_dir():
            return place
    return root if parts and root.name == parts[-1] else root / group
