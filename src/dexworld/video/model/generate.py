"""Sampling, and trained models as methods: clips in, videos of what the hands do out (`references.VideoMethod`)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.models.checkpoint import check_prediction
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.hand_video import over_video
from dexworld.video.clips.triplet_files import read_prompt
from dexworld.video.clips.triplets import TripletFolder
from dexworld.video.model.clip_latents import check_shape
from dexworld.video.model.conditions import Conditions
from dexworld.video.model.dwm import DWM
from dexworld.video.model.prompt_embeddings import check_text_encoder, embed_prompts
from dexworld.video.model.video_config import DWMConfig

DETAIL_STEPS = 4  # of a sample that is asked for with `detail`
OWN, NO_REFERENCE = "own", "none"
COLOUR = re.compile("[0-9a-fA-F]{6}")
AROUND = 0.07  # side of the window in which changes are averaged, as a share of the frame height


@dataclass(frozen=True)
class SampleConfig:
    """How a video is sampled. Raises ValueError naming the field that makes no sense.

    steps: denoising steps; the model's own number when None, at least `DETAIL_STEPS` where detail is asked for.
    detail: 0 is the mean of what may happen, the first step's answer; 1 a sample of all steps, sharper and more varied,
        with a larger error; between, a mixture of both. None is 1 in the model's own steps.
    guidance: classifier-free guidance on the text; 1 is none. (6 in the DWM release.)
    """

    steps: int | None = None
    detail: float | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; sampling takes at least one")
        if self.detail is not None and not 0 <= self.detail <= 1:
            raise ValueError(f"detail is {self.detail}; it lies between 0, the mean, and 1, a sample")
        if self.guidance < 0:
            raise ValueError("guidance can't be negative; 1 means none")

    def steps_of(self, model: DWMConfig) -> int:
        """The denoising steps for a model."""
        return self.steps or max(model.sampling_steps, 1 if self.detail is None else DETAIL_STEPS)


@torch.no_grad()
def sample(
    model: DWM,
    conditions: Conditions,
    config: SampleConfig,
    generators: list[torch.Generator],
    begin: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Latents (B, f, C, h, w); row i's noise is of `generators[i]` alone.

    begin: latents to begin in, noised to `strength`, the share of the noise schedule that is run through, (0, 1]; pure
    noise without them.
    """
    if len(generators) != len(conditions):
        raise ValueError(f"{len(conditions)} clips need as many generators, not {len(generators)}")
    static, process = conditions.static, model.process
    shape = static.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=each) for each in generators]).to(static)
    timesteps = process.timesteps(config.steps_of(model.config), strength)
    if config.detail == 0:
        timesteps = timesteps[:1]
    latents = mean = noise
    if begin is not None:
        latents = process.noisy(begin, noise, _filled(timesteps[0], latents))
    for index, timestep in enumerate(timesteps):
        now = _filled(timestep, latents)
        following = _filled(timesteps[index + 1], latents) if index + 1 < len(timesteps) else None
        clean = guided(model, latents, now, conditions, config.guidance)
        mean = mean if index else clean
        latents = process.step(latents, clean, now, following)
    return torch.lerp(mean, latents, 1.0 if config.detail is None else config.detail)


def guided(model: DWM, noisy: Tensor, timestep: Tensor, conditions: Conditions, guidance: float) -> Tensor:
    """The model's estimate of the clean latents, with guidance on the text."""
    clean = model.denoise(noisy, timestep, conditions)
    if guidance == 1.0 or conditions.text is None:
        return clean
    return clean + (guidance - 1) * (clean - model.denoise(noisy, timestep, conditions.without_text()))


def _filled(timestep: int, like: Tensor) -> Tensor:
    return torch.full((len(like),), timestep, dtype=torch.long, device=like.device)


@dataclass(frozen=True)
class GenerateConfig:
    """How videos are made. Raises ValueError naming the field that makes no sense.

    sampling: steps, guidance.
    unchanged: `kept` shows the static video's own pixels where the generated latents change nothing, so a codec's
        blur touches only what the hands change (our reading of V = static + change); `codec` shows what was decoded.
    fade: changes smaller than this (mean around a pixel, of 1) are mixed with the unchanged scene in proportion: an
        unsure model makes small changes where nothing happens. 0 shows all of them.
    hands: False blanks the hands: pure navigation.
    reference: the colour of skin, for `paint` and for a model that takes it. `own`: what the clip's first frame shows.
        `none`, or a colour as RRGGBB.
    paint: show the rendered hands in the colour of skin over the generated video. Nothing in the scene hides them.
    batch: clips that are sampled at a time.
    """

    sampling: SampleConfig = field(default_factory=SampleConfig)
    unchanged: Literal["kept", "codec"] = "kept"
    fade: float = 0.1
    hands: bool = True
    reference: str = OWN
    paint: bool = False
    batch: int = 8

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; at least one clip is sampled at a time")
        if not 0 <= self.fade < 1:
            raise ValueError(f"fade is {self.fade}; it is a difference of pixels of at least 0 and below 1")
        if self.reference not in (OWN, NO_REFERENCE) and not COLOUR.fullmatch(self.reference):
            raise ValueError(f"reference is {self.reference!r}; choose 'own', 'none' or a colour such as c8967d")
        if self.unchanged not in ("kept", "codec"):
            raise ValueError(f"unchanged is {self.unchanged!r}; choose 'kept' or 'codec'")

    @property
    def skin(self) -> np.ndarray | None:
        """The given colour (3,) uint8; None without one."""
        if self.reference in (OWN, NO_REFERENCE):
            return None
        return np.frombuffer(bytes.fromhex(self.reference), dtype=np.uint8)


@dataclass(frozen=True)
class Generator:
    """A trained video model as a `VideoMethod`. texts: prompt embeddings (L, D) by prompt (`with_texts`)."""

    model: DWM
    config: GenerateConfig = field(default_factory=GenerateConfig)
    name: str = "dwm"
    texts: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.config.skin is not None and not (self.model.config.reference or self.config.paint):
            raise ValueError(f"{self.name} takes no reference; leave out `reference`, or choose `paint`")

    @property
    def sees_first_frame(self) -> bool:
        """Whether it is told a colour of the interaction's first frame."""
        return (self.model.config.reference or self.config.paint) and self.config.reference == OWN

    @property
    def provenance(self) -> dict[str, Any]:
        """What the model was trained on."""
        return self.model.provenance

    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> list[np.ndarray]:
        """A video (F, H, W, 3) uint8 for each clip, drawn from its seed.

        Raises ValueError naming a clip of another shape or without what the condition needs, and for a model that needs
        texts and has none.
        """
        self.model.eval()
        size = self.config.batch
        parts = [slice(start, start + size) for start in range(0, len(clips), size)]
        return [video for part in parts for video in self._batch(clips[part], seeds[part])]

    @torch.no_grad()
    def _batch(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> np.ndarray:
        made = self._made(clips, seeds).numpy()
        if not (self.config.paint and self.config.hands):
            return made
        pairs = zip(made, clips, strict=True)
        return np.stack([over_video(video, clip.hands, self._skin(clip)) for video, clip in pairs])

    def _made(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> Tensor:
        """Videos (B, F, H, W, 3) uint8 before anything is painted on them."""
        model, conditions = self.model, self.conditions(clips)
        latents = sample(model, conditions, self.config.sampling, _generators(seeds))
        check_prediction(latents, model, [clip.name for clip in clips])
        made = model.decode(latents).cpu()
        if model.config.condition == "control":  # that has never seen the static video
            return made
        static = torch.from_numpy(np.stack([clip.static for clip in clips]))
        return shown(made, model.decode(conditions.static).cpu(), static, self.config)

    def conditions(self, clips: Sequence[TripletClip]) -> Conditions:
        """What the model is told about the clips."""
        for clip in clips:
            check_shape(clip.static, self.model, clip.name)
        clips = [replace(clip, skin=self._skin(clip)) for clip in clips]
        conditions = self.model.conditions_of(clips, self._texts(clips))
        return conditions if self.config.hands else conditions.without_hands()

    def _skin(self, clip: TripletClip) -> np.ndarray | None:
        return clip.skin if self.config.reference == OWN else self.config.skin

    def check_texts(self, text_encoder: str | None = None) -> None:
        """Raise ValueError when texts are needed and neither they nor their encoder are there, or it doesn't fit."""
        trained_with = self.provenance.get("text_encoder")
        if text_encoder is not None:
            check_text_encoder(text_encoder, self.model.config.backbone)
            return
        if self.texts is None and trained_with:
            raise ValueError(f"this model was trained with prompts ({trained_with}): give its text_encoder")
        if self.texts is None and self.config.sampling.guidance != 1.0:
            guidance = f"guidance is {self.config.sampling.guidance:g}"
            raise ValueError(f"{guidance}, but there is no text to be guided by: give a text_encoder, or guidance 1")

    def _texts(self, clips: Sequence[TripletClip]) -> Tensor | None:
        self.check_texts()
        if self.texts is None:
            return None
        found = [self.texts.get(clip.prompt) for clip in clips]
        for clip, text in zip(clips, found, strict=True):
            if text is None:
                raise ValueError(f"the prompt of {clip.name} was not embedded: {clip.prompt!r}")
        return torch.stack([text for text in found if text is not None]).to(self.model.device)


@dataclass(frozen=True)
class PaintedScene(Generator):
    """Nothing is generated: the scene as the model's codec shows it, for `paint` to show hands over.

    What a model with painted hands has to beat.
    """

    name: str = "painted_scene_codec"
    deterministic: ClassVar[bool] = True

    def _made(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> Tensor:
        return self.model.decode(self.model.encode(np.stack([clip.static for clip in clips]))).cpu()


def with_texts(generator: Generator, prompts: Iterable[str], text_encoder: str | None) -> Generator:
    """The generator with the embeddings of these prompts: of all clips that it will be shown.

    text_encoder: folder or hub id of the one that the model was trained with; without one the generator is returned as
    it is, for models that see no text. Raises ValueError when the model needs texts.
    """
    if text_encoder is None:
        generator.check_texts()
        return generator
    model = generator.model
    texts = embed_prompts(prompts, model.config.backbone, text_encoder, device=model.device)
    return replace(generator, texts=texts)


def folder_prompts(folder: TripletFolder) -> Iterator[str]:
    """The prompt of every clip of a folder, read when it is asked for."""
    return (read_prompt(folder.files[name].prompt) for name in folder.names)


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def shown(made: Tensor, decoded_static: Tensor, static: Tensor, config: GenerateConfig) -> Tensor:
    """What `config` shows of decoded videos; all (B, F, H, W, 3) uint8."""
    if config.unchanged == "codec" and config.fade == 0:
        return made
    still = static if config.unchanged == "kept" else decoded_static
    return settled(made, decoded_static, still, max(config.fade, 1e-6))


def settled(made: Tensor, decoded_static: Tensor, still: Tensor, fade: float) -> Tensor:
    """The generated video, and `still` where it changes nothing; all (B, F, H, W, 3) uint8.

    decoded_static: the static video through the codec that made the video. still: that same picture or the static
    video. fade: mean difference (of 1, largest channel) from `decoded_static` around a pixel from which the generated
    picture is shown alone; below, the two are mixed in proportion.
    """
    change = (made.float() - decoded_static.float()).abs().amax(dim=-1).flatten(0, 1)[:, None] / 255  # (B F, 1, H, W)
    reach = round(AROUND * made.shape[2] / 2)
    change = functional.avg_pool2d(change, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)
    share = (change / fade).clamp(0, 1).view(*made.shape[:-1], 1)
    return (share * made + (1 - share) * still).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class SDEdit:
    """Video-to-video without hands: the static video noised to `strength` and denoised by a model that knows no scene.

    The paper's CVX SDEdit baseline (Meng et al., ICLR 2022), with our inpainting pre-training in place of CogVideoX.
    Everything is masked: the model sees of the scene only what is left of it in the noise.
    """

    model: DWM
    strength: float = 0.6
    steps: int = 10
    batch: int = 8

    def __post_init__(self) -> None:
        if self.model.config.condition != "none":
            condition = f"this one has the condition {self.model.config.condition!r}"
            raise ValueError(f"SDEdit needs a model without hands, such as an inpainting pre-training; {condition}")
        training = self.provenance.get("training")
        published = training is None and self.provenance.get("base") is not None
        if not published and (training or {}).get("goal") != "inpainting":
            raise ValueError("SDEdit needs an inpainting model: one trained with goal 'inpainting', or a published one")

    @property
    def name(self) -> str:
        """With its strength."""
        return f"sdedit_{self.strength:g}"

    @property
    def provenance(self) -> dict[str, Any]:
        """What the model was trained on."""
        return self.model.provenance

    @torch.no_grad()
    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int]) -> list[np.ndarray]:
        """A video (F, H, W, 3) uint8 for each clip, drawn from its seed."""
        videos: list[np.ndarray] = []
        config, model = SampleConfig(steps=self.steps), self.model
        for start in range(0, len(clips), self.batch):
            part = clips[start : start + self.batch]
            static = model.encode(np.stack([clip.static for clip in part]))
            unknown = static.new_zeros(
                len(part), static.shape[1], model.config.backbone.mask_channels, *static.shape[3:]
            )
            conditions = Conditions(torch.zeros_like(static), unknown)
            generators = _generators(seeds[start : start + self.batch])
            latents = sample(model, conditions, config, generators, static, self.strength)
            check_prediction(latents, model, [clip.name for clip in part])
            videos += list(model.decode(latents).cpu().numpy())
        return videos
