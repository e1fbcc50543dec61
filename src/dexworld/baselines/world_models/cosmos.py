"""Cosmos-Predict2 and 2.5 as a world model: a frame and the episode's sentence in, frames out, in another's latents.

Source: Agarwal et al., "Cosmos World Foundation Model Platform for Physical AI", 2025, as DexWM's appendix C.3 takes
it: from a text prompt and a starting image. A pipeline of diffusers draws the video, as published; nothing is trained.
The encoder that its frames go through, and the head that reads keypoints, are those of the model it is compared with.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dexworld.actions import HandMotion, hand_motion
from dexworld.baselines.cosmos_pipeline import PREDICT2, open_pipeline, pipeline_class
from dexworld.models.checkpoint import CheckpointError, Pretrained, lasting_place
from dexworld.models.config import DexWMConfig, EncoderConfig, KeypointHeadConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import build_encoder
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.world_model import Kind, register
from dexworld.track import TASK_BYTES, Track

logger = logging.getLogger(__name__)
REMEMBERED = 256  # pictures that were encoded last, any of which a roll-out can start from


@dataclass(frozen=True)
class VideoOptions:
    """How the pipeline draws a video. Raises ValueError naming the option that makes no sense."""

    steps: int = 35
    """Denoising steps of a video."""
    guidance: float = 7.0
    """Scale of classifier-free guidance; 1 leaves it out, and half of the time."""
    video_size: tuple[int, int] = (704, 1280)
    """Height and width of the video, multiples of 16: those that the weights were trained on."""
    frames: int = 93
    """Frames of one video, 4 n + 1. Longer roll-outs go on from its last frame."""
    fps: int = 16
    """Frames a second of the weights: 16 or 10."""
    seed: int = 0
    """Of the noise, together with the start picture."""

    def __post_init__(self) -> None:
        if min(self.steps, self.fps) < 1 or not self.guidance >= 1:
            raise ValueError(f"steps, fps and guidance are 1 or more, not {self.steps}, {self.fps} and {self.guidance}")
        if min(self.video_size) < 16 or any(side % 16 for side in self.video_size):
            raise ValueError(f"video_size is {self.video_size}; both must be multiples of 16")
        if self.frames < 5 or self.frames % 4 != 1:
            raise ValueError(f"frames is {self.frames}; give 5, 9, 13, ... frames")


@dataclass(frozen=True)
class CosmosConfig:
    """A folder of diffusers' layout, and what reads its frames: image size, encoder and head of another model."""

    pipeline: str
    image_size: tuple[int, int]
    encoder: EncoderConfig
    keypoint_head: KeypointHeadConfig
    video: VideoOptions = field(default_factory=VideoOptions)

    @property
    def num_context(self) -> int:
        """Frames that it looks back: the picture that it starts from."""
        return 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latent tokens."""
        return self.encoder.grid(self.image_size)


class Cosmos(Pretrained):
    """A video pipeline behind the seam of world models. It is told the sentence and sees one picture; no hand.

    Roll-outs start from pictures, so `start` takes latents of pictures that this model has encoded. The pipeline is
    opened when the first video is drawn; one made otherwise can be assigned to `pipeline`.
    """

    config_type, kind = CosmosConfig, "cosmos"

    def __init__(self, config: CosmosConfig, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.provenance = config, dict(provenance or {})
        self.encoder = build_encoder(config.encoder, config.image_size).requires_grad_(False)
        self.keypoint_head = KeypointHead(config.keypoint_head, config.encoder.dim, config.grid, config.image_size)
        self.video_seconds: list[float] = []
        self._pictures: dict[bytes, Tensor] = {}

    @classmethod
    def beside(cls, other: DexWM, pipeline: Path, video: VideoOptions = VideoOptions()) -> "Cosmos":
        """The pipeline in a folder, read as `other` reads pictures. Raises CheckpointError for another folder, and for
        a model without the parts of a DexWM.
        """
        pipeline_class(pipeline)
        if not isinstance(other.config, DexWMConfig):
            raise CheckpointError(f"{other.source} is no DexWM or baseline of its form, whose encoder could be taken")
        parts = (other.config.image_size, other.config.encoder, other.config.keypoint_head)
        read_by = {"read_by": other.provenance, "training_seeds": other.provenance.get("training_seeds", [])}
        model = cls(CosmosConfig(lasting_place(pipeline), *parts, video), read_by)
        model.encoder.load_state_dict(other.encoder.state_dict())
        model.keypoint_head.load_state_dict(other.keypoint_head.state_dict())
        return model.eval()

    @cached_property
    def pipeline(self) -> Any:
        """The pipeline of diffusers, loaded when it is first asked for; see `open_pipeline` for what it raises."""
        return open_pipeline(Path(self.config.pipeline))

    def encode(self, images: Tensor) -> Tensor:
        """Latents (..., P, D) float32 of images (..., H, W, 3) uint8 RGB, which are remembered."""
        latents = self.encoder.encode(images)
        for row, image in zip(
            latents.reshape(-1, *latents.shape[-2:]), images.reshape(-1, *images.shape[-3:]), strict=True
        ):
            self._pictures[_digest(row)] = image.cpu()
        for old in list(islice(self._pictures, max(0, len(self._pictures) - REMEMBERED))):
            del self._pictures[old]
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Images (..., H, W, 3) uint8 of latents. Raises ValueError when the encoder has no way back."""
        return self.encoder.decode(latents)

    def keypoints(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Tracked keypoints (..., 12, 2) [u, v] in image pixels and confidences (..., 12) in [0, 1]."""
        return self.keypoint_head.read(self.keypoint_head(latents))

    def condition(self, track: Track) -> HandMotion:
        """T transitions (..., T) that all say the sentence's bytes and the frames a second, (..., T, 1, 385).

        Raises ValueError for a track without a rate.
        """
        if not track.fps > 0:
            lack = f"{track.source or 'the track'} has no frame rate, by which a video is cut into steps"
            raise ValueError(f"{lack}; plans have none, and nothing that Cosmos could be told")
        motion = hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
        rows = track.task_utf8[..., :1, :]
        letters = (rows if isinstance(rows, Tensor) else torch.tensor(rows)).to(motion.deltas)
        told = torch.cat([letters, torch.full_like(letters[..., :1], track.fps)], dim=-1)[..., None, :]
        return replace(motion, deltas=told.expand(*motion.deltas.shape[:-2], 1, -1))

    def predict(self, latents: Tensor, motion: HandMotion) -> Tensor:
        """Raises ValueError: nothing is trained here."""
        raise ValueError("a Cosmos pipeline is measured as it is; dexworld doesn't train it")

    unroll = predict

    def start(self, latents: Tensor, motion: HandMotion) -> Tensor:
        """The last observed picture (H, W, 3). Raises ValueError for latents that are of no remembered picture."""
        picture = self._pictures.get(_digest(latents[-1]))
        if picture is None:
            known = f"the {len(self._pictures)} pictures that this model encoded last"
            raise ValueError(f"Cosmos starts from a picture, and these latents are of none of {known}")
        return picture

    def rollout(self, context: Tensor, motion: HandMotion, max_batch: int | None = None) -> Tensor:
        """Latents (N, T, P, D) of the frames that lie nearest to the steps. Candidates of one sentence share a video.

        Raises ValueError where the safety checker refuses a sentence.
        """
        rows, rate = motion.deltas[:, 0, 0, :TASK_BYTES].cpu(), float(motion.deltas[0, 0, 0, TASK_BYTES])
        texts = [bytes(row.to(torch.uint8).tolist()).rstrip(b"\0").decode(errors="ignore") for row in rows]
        places = [round(step * self.config.video.fps / rate) for step in range(1, motion.steps + 1)]
        latents = {text: self._imagined(context, text, places) for text in dict.fromkeys(texts)}
        return torch.stack([latents[text] for text in texts])

    def _imagined(self, picture: Tensor, text: str, places: list[int]) -> Tensor:
        """Latents (T, P, D) of the frames at these places of a video that begins with a picture."""
        frames = dict(zip(range(places[-1] + 1), self._frames(picture.numpy(), text), strict=False))
        video = torch.from_numpy(np.stack([frames[place] for place in places])).permute(0, 3, 1, 2)
        video = F.interpolate(video, self.config.image_size, mode="bilinear", align_corners=False, antialias=True)
        images = (255 * video).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return self.encoder.encode(images.to(next(iter(self.keypoint_head.parameters())).device))

    def _frames(self, picture: np.ndarray, text: str) -> Iterator[np.ndarray]:
        """Frames (h, w, 3) in [0, 1] of a video, of one that goes on from its last frame, and so on."""
        seed = hashlib.sha256(picture.tobytes() + str(self.config.video.seed).encode()).digest()[:7]
        generator = torch.Generator().manual_seed(int.from_bytes(seed))
        part = self._video(Image.fromarray(picture), text, generator)
        yield from part
        while True:
            part = self._video(Image.fromarray((255 * part[-1]).round().astype(np.uint8)), text, generator)
            yield from part[1:]

    def _video(self, picture: Image.Image, text: str, generator: torch.Generator) -> np.ndarray:
        """A video (F, h, w, 3) of one call of the pipeline."""
        options, pipeline, begin = self.config.video, self.pipeline, time.monotonic()
        seen: dict[str, Any] = {"image": picture, "fps": options.fps}
        if type(pipeline).__name__ != PREDICT2:  # Predict2.5: one latent frame is seen, which is the first picture
            seen = {"video": [picture], "num_latent_conditional_frames": 1}
        size: dict[str, Any] = dict(zip(("height", "width"), options.video_size, strict=True))
        size |= {"num_frames": options.frames, "num_inference_steps": options.steps}
        drawn = pipeline(
            **seen, **size, prompt=text, guidance_scale=options.guidance, generator=generator, output_type="np"
        )
        self.video_seconds.append(time.monotonic() - begin)
        logger.info("a video of %d frames in %.1f s", options.frames, self.video_seconds[-1])
        return np.asarray(drawn.frames[0])

    def cost(self) -> dict[str, Any]:
        """What the videos of this process took: their number, seconds of each, and on a GPU its peak of memory."""
        on_gpu = torch.cuda.is_available()
        return {
            "videos": len(self.video_seconds),
            "seconds_each": float(np.mean(self.video_seconds)) if self.video_seconds else None,
            "denoising_steps": self.config.video.steps,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        }

    def saved_weights(self) -> dict[str, Tensor]:
        """Encoder and head; the pipeline is named in the config, and so is an encoder from `transformers`."""
        named = ("encoder.",) if self.config.encoder.kind == "transformers" else ()
        return {key: value for key, value in self.state_dict().items() if not key.startswith(named)}


def _digest(latents: Tensor) -> bytes:
    return hashlib.sha256(latents.detach().float().cpu().contiguous().numpy().tobytes()).digest()


register(Kind(Cosmos.kind, Cosmos, CosmosConfig))
