"""Latents of a triplet folder: encoded once, one file per clip, resumable, by several processes if there are any.

    <root>/latents/<fingerprint>/<name>.safetensors    a tensor (f, C, h, w) of each of `KINDS`, and more

The fingerprint is that of the codec and of the clip shape. A file appears whole or not at all. It is written again when
its clip's files have other contents: their signature is in its metadata.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from dexworld.data.latent_cache import place_of_latents
from dexworld.data.locks import write_missing
from dexworld.data.pace import Pace
from dexworld.data.video_frames import VideoFrames
from dexworld.models.checkpoint import write_tensors
from dexworld.video.clips.clip import TripletClip, camera_vectors
from dexworld.video.clips.hand_video import frames_with_hands
from dexworld.video.clips.regions import interaction_region
from dexworld.video.clips.triplet_files import RATE_TOLERANCE, TripletFiles
from dexworld.video.clips.triplets import TripletFolder
from dexworld.video.model.conditions import video_of
from dexworld.video.model.dwm import DWM
from dexworld.video.model.video_config import DWMConfig

logger = logging.getLogger(__name__)
KINDS = ("interaction", "static", "hands", "silhouette", "first_frame", "painted")
REGION = "region"  # beside them: where the hands act, eight pixels of a row in a byte
SIGNATURE = "clip"  # key of a file's metadata
NAVIGATION = "navigation"  # setting of a triplet folder whose clips may show no hands


@dataclass(frozen=True)
class LatentClip:
    """One clip, encoded. Latents are (f, C, h, w).

    Latents are of the videos that `video_of` names. region: (F, H, W) bool, see `regions.py`. hand_vectors: (F, 128),
    None for a clip without keypoints. text: (L, D) or None.
    """

    name: str
    interaction: Tensor
    static: Tensor
    hands: Tensor
    silhouette: Tensor
    first_frame: Tensor
    painted: Tensor
    region: Tensor
    hand_vectors: Tensor | None = None
    text: Tensor | None = None


@dataclass(frozen=True)
class LatentFolder:
    """The encoded clips of a triplet folder, read when asked for. texts: prompt embeddings (L, D) by clip name."""

    triplets: TripletFolder
    folder: Path
    fingerprint: str
    texts: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, index: int) -> LatentClip:
        """Clip `index`. Raises ValueError naming a damaged file."""
        name = self.triplets.names[index]
        path = latent_file(self.folder, name)
        try:
            tensors = load_file(path)
            arrays = {kind: tensors[kind] for kind in KINDS}
            arrays["region"] = torch.from_numpy(np.unpackbits(tensors[REGION].numpy(), axis=-1).astype(bool))
        except (SafetensorError, OSError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it, and it is written again") from error
        text = None if self.texts is None else self.texts[name]
        return LatentClip(name=name, hand_vectors=tensors.get("hand_vectors"), text=text, **arrays)


def latent_file(folder: Path, name: str) -> Path:
    """Where the latents of the clip `name` lie."""
    return folder / f"{name}.safetensors"


def codec_fingerprint(model: DWM) -> str:
    """A digest of the codec's configuration, weights and the clip shape; 16 hexadecimal digits."""
    about = repr((model.config.codec, model.config.clip))
    return tensors_digest(model.codec.state_dict(), about)


def tensors_digest(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """A digest of tensors with their names, and of a text; 16 hexadecimal digits."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_folder(triplets: TripletFolder, model: DWM, cache: Path | None = None) -> LatentFolder:
    """Encode every clip of a folder that isn't encoded yet, on the model's device; several processes share the work.

    cache: folder of latents (`place_of_latents`). Raises ValueError naming a clip of another shape than the model's, or
    one whose hand video shows no hand, unless the settings in triplets.json say `"navigation": true`.
    """
    fingerprint = codec_fingerprint(model)

    def all_whole(folder: Path) -> bool:
        return all(_fresh(latent_file(folder, name), triplets.files[name]) for name in triplets.names)

    folder = place_of_latents(triplets.root, fingerprint, cache, all_whole)
    places = {latent_file(folder, name): index for index, name in enumerate(triplets.names)}
    rates = {name: VideoFrames(triplets.files[name].interaction).fps for name in triplets.names[:1]}

    def whole(path: Path) -> bool:
        return _fresh(path, triplets.files[triplets.names[places[path]]])

    def write(path: Path, part: Path) -> None:
        clip = triplets[places[path]]
        check_shape(clip.interaction, model, clip.name)
        if not triplets.settings.get(NAVIGATION, False):
            check_hands(clip, triplets.root)
        rates[clip.name] = clip.fps
        write_tensors(part, _encoded(clip, model), {SIGNATURE: triplets.files[clip.name].signature})

    waiting = [path for path in places if not whole(path)]
    for path in waiting:
        path.parent.mkdir(parents=True, exist_ok=True)
    pace, done = Pace(), set[Path]()

    def finished(path: Path) -> None:
        done.add(path)
        pace.update(f"{triplets.root}: clips encoded", len(done), len(waiting))

    write_missing(waiting, write, finished, whole)
    warn_of_rates(rates, model)
    return LatentFolder(triplets, folder, fingerprint)


def _encoded(clip: TripletClip, model: DWM) -> dict[str, Tensor]:
    """The tensors of a clip's file."""
    # One at a time: a video VAE needs the memory.
    tensors = {kind: model.encode(video_of(clip, kind)[None])[0].cpu().contiguous() for kind in KINDS}
    region = interaction_region(clip.interaction, clip.static, clip.hands)
    tensors[REGION] = torch.from_numpy(np.packbits(region, axis=-1))
    if clip.track is not None:
        tensors["hand_vectors"] = torch.from_numpy(camera_vectors(clip.track))
    return tensors


def _fresh(path: Path, files: TripletFiles) -> bool:
    """Whether a file holds latents of what the clip's files hold now."""
    if not path.exists():
        return False
    try:
        with safe_open(path, "pt") as file:
            signature, kinds = (file.metadata() or {}).get(SIGNATURE), set(file.keys())
    except SafetensorError:
        return False  # damaged: encoded again
    return bool(kinds.issuperset({*KINDS, REGION}) and signature == files.signature)


def check_shape(video: np.ndarray, model: DWM, name: str) -> None:
    """Raise ValueError naming the clip unless `video` (F, H, W, 3) has the shape that the model works on."""
    _check_shape(video.shape[:3], model.config, name)


def _check_shape(shape: tuple[int, ...], model: DWMConfig, name: str) -> None:
    wanted = (model.clip.frames, model.clip.height, model.clip.width)
    if tuple(shape) != wanted:
        found, taken = ("{} frames of {} x {}".format(*each) for each in (shape, wanted))
        raise ValueError(f"{name} is {found}, this model takes {taken}; bring it there with `dexworld video prepare`")


def check_clips(folder: TripletFolder, model: DWMConfig) -> None:
    """Raise ValueError naming a clip of another shape than the model's or without what it needs; decodes nothing."""
    lacking = [name for name in folder.names if not folder.files[name].motion.exists()]
    if model.condition.startswith("adaln") and lacking:
        what = f"{lacking[0]} has no hand_motions file, which condition {model.condition!r} needs"
        raise ValueError(f"{folder.root}: {what}; {len(lacking)} of {len(folder)} clips lack it")
    for name in folder.names:
        video = VideoFrames(folder.files[name].interaction)
        _check_shape((len(video), *video.size), model, f"{folder.root}: {name}")


def check_hands(clip: TripletClip, root: Path) -> None:
    """Raise ValueError naming a clip without a hand in any frame: it would teach that things move by themselves."""
    if not frames_with_hands(clip.hands).any():
        raise ValueError(
            f"{root}: the hand video of {clip.name} shows no hand in any frame; render it again, take the clip out, or "
            f'put "{NAVIGATION}": true into the settings of triplets.json where pure navigation is meant'
        )


def warn_of_rates(rates: Mapping[str, float], model: DWM) -> None:
    """Log a warning when clips, by name, have another frame rate than the model was made for."""
    made_for = model.config.clip.fps
    others = {name: fps for name, fps in rates.items() if abs(fps - made_for) > RATE_TOLERANCE}
    if others:
        message = "%d of %d clips are not at %g fps, which this model is for (%s: %g fps): they look too fast or slow"
        logger.warning(message, len(others), len(rates), made_for, *next(iter(others.items())))


def fit_codec(model: DWM, folders: list[TripletFolder], clips: int, seed: int) -> None:
    """Fit a pca codec on the interactions of up to `clips` clips of the folders, and on every fourth hand video."""
    places = [(folder, index) for folder in folders for index in range(len(folder))]
    chosen = np.random.default_rng([seed, 7]).permutation(len(places))[:clips]

    def videos():
        for count, place in enumerate(sorted(chosen.tolist())):
            folder, index = places[place]
            clip = folder[index]
            check_shape(clip.interaction, model, clip.name)
            yield torch.from_numpy(clip.interaction)
            if count % 4 == 0:
                yield torch.from_numpy(clip.hands)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same bits on any number of cores
    try:
        model.codec.fit(videos())
    finally:
        torch.set_num_threads(threads)
