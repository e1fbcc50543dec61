"""Goal-conditioned policies to hold planning against: Diffusion Policy, and behaviour cloning as its one-step control.

Both see the last frames, the joints and the goal picture, and say where to move the joint targets (DexWM paper,
sections 4.5 and C.3; Chi et al., "Diffusion Policy", IJRR 2025). Neither is told a task.

B batch, F observed frames, P patches, D latent width, J joints, T moves of a chunk, W width of a token.
"""

import importlib.util
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dexworld.baselines.denoisers import GROUPS, ActionTransformer, UNet
from dexworld.hands import NUM_TRACKED
from dexworld.models.checkpoint import Pretrained
from dexworld.models.latent_space import LatentSpace
from dexworld.robots.observation import Observation, cropped_image
from dexworld.robots.robot import Robot

Form = Literal["unet", "transformer", "bc"]
# What evaluation calls a policy of each form
NAMES: dict[str, str] = {"unet": "diffusion_policy", "transformer": "diffusion_policy", "bc": "bc"}
MAPS = 32  # that choose places in a picture; the first twelve are of the tracked keypoints
SMALLEST_SPREAD = 0.02  # radians; joints that hardly move are not blown up
FURTHEST = 5.0  # spreads that a sampled move may go; Chi et al. scale actions to [-1, 1] instead


@dataclass(frozen=True)
class PolicyNetwork:
    """Sizes. features: W. channels, kernel, step_dim: of the U-Net. dim, depth, heads: of the transformer."""

    features: int = 256
    channels: tuple[int, ...] = (128, 256)
    kernel: int = 3
    step_dim: int = 64
    dim: int = 128
    depth: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        if min(self.features, self.kernel, self.dim, self.depth, self.heads, *self.channels) < 1 or self.step_dim < 4:
            raise ValueError(f"sizes of a policy must be positive, and step_dim at least 4, not {self}")
        if self.dim % self.heads or self.kernel % 2 == 0 or any(each % GROUPS for each in self.channels):
            odd = f"dim a multiple of heads, kernel odd and channels multiples of {GROUPS}"
            raise ValueError(f"sizes of a policy must have {odd}, not {self}")


POLICY_PRESETS: dict[str, PolicyNetwork] = {
    "debug": PolicyNetwork(features=32, channels=(16, 32), step_dim=16, dim=32, depth=1, heads=2),
    "tiny": PolicyNetwork(),
    # Chi et al.: 256 M parameters of the U-Net on images, 9 M of the transformer.
    "paper": PolicyNetwork(512, (512, 1024, 2048), 5, 128, 256, 8, 4),
}


@dataclass(frozen=True)
class GoalPolicyConfig:
    """A policy on the latents of one encoder.

    joints: J. history: observed frames F, the last one included (paper: 2). horizon: moves T of a chunk (paper: 9), of
    which `execute` are carried out before it looks for new ones. step_seconds: of one move, and between observed
    frames. noise_steps: of the diffusion in training, sample_steps: of DDIM.
    """

    latents: LatentSpace
    joints: int
    form: Form
    history: int = 2
    horizon: int = 4
    execute: int = 1
    step_seconds: float = 1.0
    noise_steps: int = 100
    sample_steps: int = 10
    network: PolicyNetwork = field(default_factory=PolicyNetwork)

    def __post_init__(self) -> None:
        if self.form not in NAMES:
            raise ValueError(f"form is {self.form!r}; choose 'unet', 'transformer' or 'bc'")
        if min(self.joints, self.history, self.execute, self.sample_steps) < 1 or not self.step_seconds > 0:
            raise ValueError(f"joints, history, execute, sample_steps and step_seconds must be positive, not {self}")
        if self.execute > self.horizon or self.sample_steps > self.noise_steps:
            raise ValueError(f"execute is at most horizon, sample_steps at most noise_steps, not {self}")
        if self.form == "bc" and self.horizon > 1:
            raise ValueError(f"behaviour cloning tells one move, so its horizon is 1, not {self.horizon}")
        halved = 2 ** (len(self.network.channels) - 1)
        if self.form == "unet" and self.horizon % halved:
            raise ValueError(f"this U-Net takes chunks of a multiple of {halved} moves, not {self.horizon}")

    @classmethod
    def sized(cls, latents: LatentSpace, joints: int, form: Form, size: str) -> "GoalPolicyConfig":
        """A policy of a size in `POLICY_PRESETS`; behaviour cloning tells one move."""
        settings: dict[str, Any] = {"horizon": 1} if form == "bc" else {}
        return cls(latents, joints, form, network=POLICY_PRESETS[size], **settings)

    @property
    def name(self) -> str:
        """The policy's name in evaluation: `bc` or `diffusion_policy`."""
        return NAMES[self.form]


class PictureFeatures(nn.Module):
    """Latents (N, P, D) to features (N, W), and the maps (N, 12, h, w) in which the tracked keypoints are looked for.

    Maps choose places, as the spatial softmax of Diffusion Policy does, and features tell where that is and what is
    there. Departure from section C.3, which averages the patches of DINOv2: an average of `pca` latents says nothing of
    places.
    """

    places: Tensor

    def __init__(self, space: LatentSpace, width: int) -> None:
        super().__init__()
        channels, values = GROUPS * max(width // 40, 1), 16
        stem = [nn.Unflatten(2, space.grid), nn.Conv2d(space.dim, channels, 1), nn.ReLU()]
        for _ in range(2):
            stem += [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(GROUPS, channels), nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        self.maps, self.values = nn.Conv2d(channels, MAPS, 1), nn.Conv2d(channels, values, 1)
        self.out = nn.Sequential(nn.Linear(MAPS * (values + 2), width), nn.LayerNorm(width))
        rows, columns = ((torch.arange(side) + 0.5) / side * 2 - 1 for side in space.grid)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
        self.register_buffer("places", places, persistent=False)  # (P, 2), from -1 to 1

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) of latents (B, P, D'), and heatmap logits (B, 12, h, w) of the tracked keypoints."""
        x = self.stem(latents.transpose(1, 2))
        maps, values = self.maps(x), self.values(x).flatten(2).transpose(1, 2)
        held = torch.cat([values, self.places.expand(len(x), -1, -1)], dim=-1)
        return self.out((maps.flatten(2).softmax(-1) @ held).flatten(1)), maps[:, :NUM_TRACKED]


class GoalPolicy(Pretrained):
    """Moves of the joint targets, from what is seen and a goal. Raises ImportError where diffusers is missing.

    Moves are counted from the targets in force, and scaled by their spread in the data; see `scale_to`.
    """

    config_type, divisors = GoalPolicyConfig, ("latent_spread", "joint_spread", "move_spread")
    latent_mean: Tensor
    latent_spread: Tensor
    joint_mean: Tensor
    joint_spread: Tensor
    move_spread: Tensor

    def __init__(self, config: GoalPolicyConfig, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        if config.form != "bc" and importlib.util.find_spec("diffusers") is None:
            raise ImportError("Diffusion Policy needs diffusers, which is not installed; pip install 'dexworld[video]'")
        self.config, self.provenance = config, dict(provenance or {})
        sizes, joints, tokens = config.network, config.joints, config.history + 1
        width, chunk = sizes.features, (config.horizon, joints)
        for name, shape in (("latent", (config.latents.dim,)), ("joint", (2 * joints,))):
            self.register_buffer(f"{name}_mean", torch.zeros(shape))
            self.register_buffer(f"{name}_spread", torch.ones(shape))
        self.register_buffer("move_spread", torch.ones(chunk))
        self.pictures = PictureFeatures(config.latents, width)
        self.observed, self.goal = nn.Linear(width + 2 * joints, width), nn.Linear(width, width)
        self.network: nn.Module
        if config.form == "unet":
            self.network = UNet(joints, tokens * width, sizes.channels, sizes.kernel, sizes.step_dim)
        elif config.form == "transformer":
            network = (sizes.dim, sizes.depth, sizes.heads)
            self.network = ActionTransformer(joints, config.horizon, tokens, width, *network)
        else:
            layers = [nn.Flatten(), nn.Mish(), nn.Linear(tokens * width, 2 * width), nn.Mish()]
            self.network = nn.Sequential(*layers, nn.Linear(2 * width, joints), nn.Unflatten(1, chunk))

    @torch.no_grad()
    def scale_to(self, latents: Tensor, joints: Tensor, moves: Tensor) -> None:
        """Take the scales of data: latents (B, F + 1, P, D), joints (B, F, 2 J) and moves (B, T, J)."""
        tokens, angles = latents.flatten(0, -2), joints.flatten(0, -2)
        self.latent_mean.copy_(tokens.mean(0))
        self.latent_spread.copy_(tokens.std(0).clamp_min(SMALLEST_SPREAD))
        self.joint_mean.copy_(angles.mean(0))
        self.joint_spread.copy_(angles.std(0).clamp_min(SMALLEST_SPREAD))
        self.move_spread.copy_(moves.square().mean(0).sqrt().clamp_min(SMALLEST_SPREAD))

    def look(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F, W) of pictures with latents (B, F, P, D), and heatmap logits (B, F, 12, h, w) of the tracked
        keypoints.
        """
        scaled = (latents - self.latent_mean) / self.latent_spread
        features, maps = self.pictures(scaled.flatten(0, 1))
        return features.unflatten(0, latents.shape[:2]), maps.unflatten(0, latents.shape[:2])

    def condition(self, features: Tensor, joints: Tensor) -> Tensor:
        """Tokens (B, F + 1, W) of features (B, F + 1, W), the goal's last, and of observed joints (B, F, 2 J).

        joints: positions and targets, radians.
        """
        angles = (joints - self.joint_mean) / self.joint_spread
        observed = self.observed(torch.cat([features[:, :-1], angles], dim=-1))
        return torch.cat([observed, self.goal(features[:, -1:])], dim=1)

    def loss(self, condition: Tensor, moves: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Squared error, in spreads, of moves (B, T, J) told from the condition, and from the same moves with noise
        (B, T, J) of diffusion steps (B,) unless it is `bc`.
        """
        scaled = moves / self.move_spread
        if self.config.form == "bc":
            return (self.network(condition) - scaled).square().mean()
        noisy = _scheduler(self.config, "DDPMScheduler").add_noise(scaled, noise, steps)
        return (self.network(noisy, steps, condition) - scaled).square().mean()

    @torch.no_grad()
    def moves(self, condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Moves (B, T, J), radians from the targets in force: drawn by DDIM, or the one answer of `bc`."""
        if self.config.form == "bc":
            return self.network(condition) * self.move_spread
        scheduler = _scheduler(self.config, "DDIMScheduler")
        scheduler.set_timesteps(self.config.sample_steps)
        shape = (len(condition), *self.move_spread.shape)
        sample = torch.randn(shape, generator=generator).to(condition)
        for step in scheduler.timesteps:
            steps = step.to(condition.device).expand(len(sample))
            sample = scheduler.step(self.network(sample, steps, condition), step, sample).prev_sample
        return sample * self.move_spread


def _scheduler(config: GoalPolicyConfig, name: str) -> Any:
    """diffusers' scheduler of that name with the noise of Chi et al.: a squared cosine, and clipped samples.

    Departure: networks tell the clean moves, which is an option there, and not the noise. Where nearly all is noise, a
    small error in it sends a sample far astray, and short trainings leave more than that.
    """
    import diffusers

    options = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "clip_sample_range": FURTHEST}
    return getattr(diffusers, name)(num_train_timesteps=config.noise_steps, timestep_spacing="trailing", **options)


class LearnedPolicy:
    """Plays a `GoalPolicy`: a planning `Policy` that looks, takes a chunk of moves, and carries out some of them.

    encode: images (..., H, W, 3) uint8 to latents (..., P, D), by the encoder that the policy was trained with.
    Pictures are cropped to their middle. Raises ValueError for a robot with another number of joints.
    """

    def __init__(self, model: GoalPolicy, encode: Callable[[Tensor], Tensor], robot: Robot, seed: int = 0) -> None:
        if len(robot.joints) != model.config.joints:
            who = f"the policy {model.source} moves {model.config.joints} joints"
            raise ValueError(f"{who}, this robot has {len(robot.joints)}; train one with recordings of this robot")
        self.model, self.robot, self.seed = model, robot, seed
        self._encode = encode
        self._frames: deque[tuple[Tensor, Tensor]] = deque(maxlen=model.config.history)
        self._chunk: deque[Tensor] = deque()

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Start an episode with a goal image (H, W, 3) uint8; `seed` fixes what is drawn in it."""
        self._goal = self._features(goal_image)
        self._generator = torch.Generator().manual_seed(self.seed if seed is None else seed)
        self._frames.clear()
        self._chunk.clear()

    def act(self, observation: Observation) -> np.ndarray:
        """Absolute joint targets (J,) within the limits for the next step."""
        config, targets = self.model.config, torch.from_numpy(observation.joint_targets).float()
        joints = torch.cat([torch.from_numpy(observation.joint_positions).float(), targets])
        seen = (self._features(observation.image), joints)
        self._frames.extend([seen] * (1 if self._frames else config.history))  # nothing was seen before the first
        if not self._chunk:
            features, angles = zip(*self._frames, strict=True)
            pictures = torch.stack([*features, self._goal])[None]
            condition = self.model.condition(pictures, torch.stack(angles)[None])
            chunk = targets + self.model.moves(condition, self._generator)[0]
            self._chunk.extend(self.robot.clamp(chunk)[: config.execute])
        return self._chunk.popleft().double().numpy()

    @torch.no_grad()
    def _features(self, image: np.ndarray) -> Tensor:
        size = self.model.config.latents.image_size
        latents = self._encode(torch.from_numpy(np.ascontiguousarray(cropped_image(image, size))))
        return self.model.look(latents[None, None])[0][0, 0]
