"""The DexWM release's model under the release's names, written out plainly from its description, and its files.

Nothing here uses dexworld: attention is a softmax over all tokens of all frames under flat masks, each block takes its
eleven modulation vectors in the release's order, and heatmaps go through the square that the release draws them in.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import GELU, Dropout, LayerNorm, Linear, ModuleDict, ModuleList, Parameter, Sequential, SiLU

ROWS, COLUMNS, PATCH = 4, 7, 14  # of the encoder's grid, for images of 56 x 98 pixels
TOKENS, FRAMES, SIDE = ROWS * COLUMNS, 9, 4  # SIDE: the head draws 56 x 56 pixels = 4 x 4 places
IMAGE_SIZE = (ROWS * PATCH, COLUMNS * PATCH)
ENCODER_DIM, DIM, HEAD_DIM, HEAD_WIDTH, KEYPOINT_HEADS = 64, 128, 32, 64, 16


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | bool = True) -> Tensor:
    """Softmax attention of (B, L, D); a query that may see nothing gets zero."""
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    scores = query @ key.mT / query.shape[-1] ** 0.5
    scores = scores.where(torch.as_tensor(mask), -torch.inf)
    return (scores.softmax(-1).nan_to_num(0.0) @ value).transpose(1, 2).flatten(2)


def packed(dim: int) -> ModuleDict:
    return ModuleDict({"packed_proj": Linear(dim, 3 * dim), "out_proj": Linear(dim, dim)})


class Block(nn.Module):
    """A block of the predictor over all tokens of all frames, (B, frames * tokens, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn, self.cttn, self.heads = packed(dim), packed(dim), dim // HEAD_WIDTH
        self.mlp = ModuleDict({"fc1": Linear(dim, 2 * dim), "fc2": Linear(2 * dim, dim)})
        self.adaLN_modulation = Sequential(SiLU(), Linear(132, 11 * dim))

    def forward(self, y: Tensor, x: Tensor, actions: Tensor, own: Tensor, earlier: Tensor) -> Tensor:
        vectors = self.adaLN_modulation(actions).repeat_interleave(TOKENS, dim=1).chunk(11, dim=-1)
        self_shift, self_scale, self_gate, kv_shift, kv_scale, q_shift, q_scale, q_gate = vectors[:8]
        mlp_shift, mlp_scale, mlp_gate = vectors[8:]
        query, key, value = self.attn["packed_proj"](norm(y) * (1 + self_scale) + self_shift).chunk(3, dim=-1)
        y = y + self_gate * self.attn["out_proj"](attention(query, key, value, self.heads, own))
        query, _, _ = self.cttn["packed_proj"](norm(y) * (1 + q_scale) + q_shift).chunk(3, dim=-1)
        _, key, value = self.cttn["packed_proj"](norm(x) * (1 + kv_scale) + kv_shift).chunk(3, dim=-1)
        y = y + q_gate * self.cttn["out_proj"](attention(query, key, value, self.heads, earlier))
        hidden = self.mlp["fc1"](norm(y) * (1 + mlp_scale) + mlp_shift)
        return y + mlp_gate * self.mlp["fc2"](F.gelu(hidden, approximate="tanh"))


class HeadBlock(nn.Module):
    """A pre-norm block of the keypoint head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.attn = ModuleDict({"qkv": Linear(dim, 3 * dim, bias=False), "proj": Linear(dim, dim)})
        self.mlp = Sequential(Linear(dim, 4 * dim), GELU(), Dropout(0.1), Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1)
        x = x + self.attn["proj"](attention(query, key, value, KEYPOINT_HEADS))
        return x + self.mlp(self.norm2(x))


class ViTDecoder(nn.Module):
    """The keypoint head, built for a square image: features squeezed to its places, maps stretched back."""

    def __init__(self, encoder_dim: int, dim: int, depth: int, side: int) -> None:
        super().__init__()
        self.input_proj, self.norm = Linear(encoder_dim, dim), LayerNorm(dim)
        self.pos_embed = Parameter(torch.zeros(1, side * side, dim))
        self.blocks = ModuleList(HeadBlock(dim) for _ in range(depth))
        self.head = Sequential(Linear(dim, 12 * PATCH * PATCH))

    def forward(self, latents: Tensor) -> Tensor:
        """(N, tokens, E) to (N, 12, height, width)."""
        features = self.input_proj(latents).mT.unflatten(2, (ROWS, COLUMNS))
        x = F.interpolate(features, size=(SIDE, SIDE), mode="bilinear").flatten(2).mT + self.pos_embed
        for block in self.blocks:
            x = block(x)
        pixels = self.head(self.norm(x)).reshape(-1, SIDE, SIDE, PATCH, PATCH, 12)
        square = pixels.permute(0, 5, 1, 3, 2, 4).reshape(-1, 12, SIDE * PATCH, SIDE * PATCH)
        return F.interpolate(square, size=IMAGE_SIZE, mode="bilinear")


class Release(nn.Module):
    """The whole model; the tests start from latents. With `dim` equal to the encoder's there are no projections."""

    def __init__(
        self, dim=DIM, depth=2, encoder_dim=ENCODER_DIM, head_dim=HEAD_DIM, head_depth=2, tokens=TOKENS, side=SIDE
    ) -> None:
        super().__init__()
        self.image_embedder = nn.Conv2d(3, encoder_dim, PATCH, PATCH)
        self.pos_embed = Parameter(torch.zeros(FRAMES, tokens, dim))
        if dim != encoder_dim:
            self.input_proj, self.output_proj = Linear(encoder_dim, dim), Linear(dim, encoder_dim)
        self.blocks = ModuleList(Block(dim) for _ in range(depth))
        modulation = Sequential(SiLU(), Linear(132, 2 * dim))
        self.final_layer = ModuleDict({"adaLN_modulation": modulation, "linear": Linear(dim, dim)})
        self.kp_layer = ModuleDict({"vit_decoder": ViTDecoder(encoder_dim, head_dim, head_depth, side)})

    def heatmaps(self, latents: Tensor) -> Tensor:
        """(N, 12, height, width) of latents (N, tokens, E)."""
        return self.kp_layer["vit_decoder"](latents)

    def forward(self, latents: Tensor, actions: Tensor, last_only: bool = False) -> tuple[Tensor, Tensor]:
        """Latents (B, 8, tokens, E) and heatmaps (B, 8, 12, h, w) of frames 1 to 8.

        latents (B, 9, tokens, E); actions (B, 8, 132), the difference that leads into frames 1 to 8. last_only: masks
        that keep the last frame's queries only, as in evaluation; only the last slot means anything then.
        """
        stream = (self.input_proj(latents) if hasattr(self, "input_proj") else latents) + self.pos_embed
        y = torch.cat([stream[:, :1], stream[:, :-1]], dim=1).flatten(1, 2)
        conditions = torch.cat([torch.zeros(len(latents), 1, 132).to(actions), actions], dim=1)
        frame = torch.arange(FRAMES).repeat_interleave(TOKENS)
        queries = (frame >= (FRAMES - 1 if last_only else 0))[:, None]
        own, earlier = queries & (frame[:, None] == frame), queries & (frame[:, None] > frame)
        for block in self.blocks:
            y = block(y, stream.flatten(1, 2), conditions, own, earlier)
        modulation = self.final_layer["adaLN_modulation"](conditions).repeat_interleave(TOKENS, dim=1)
        shift, scale = modulation.chunk(2, dim=-1)
        y = self.final_layer["linear"](norm(y) * (1 + scale) + shift)
        y = self.output_proj(y) if hasattr(self, "output_proj") else y
        predicted = y.unflatten(1, (FRAMES, TOKENS))[:, 1:]
        return predicted, self.heatmaps(predicted.flatten(0, 1)).unflatten(0, predicted.shape[:2])

    def rollout(self, first: Tensor, actions: Tensor) -> Tensor:
        """Latents (B, T, tokens, E) from one frame (B, tokens, E) and actions (B, T, 132), as in open-loop evaluation.

        The context starts as eight copies of the frame with zero actions between them; predictions are fed back, and
        the last eight frames are kept with the actions that led from each to the next.
        """
        frames = [first] * (FRAMES - 1)
        moves = [torch.zeros_like(actions[:, 0])] * (FRAMES - 2) + list(actions.unbind(1))
        for step in range(actions.shape[1]):
            window = torch.stack([*frames[step:], first], dim=1)  # the ninth frame is a dummy
            predicted, _ = self(window, torch.stack(moves[step : step + FRAMES - 1], dim=1), last_only=True)
            frames.append(predicted[:, -1])
        return torch.stack(frames[FRAMES - 1 :], dim=1)


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def release(seed: int = 0, **sizes: int) -> Release:
    """A release model with weights that are nowhere zero (a fresh one would predict zero whatever was loaded)."""
    model, generator = Release(**sizes), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.7 * torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5)
    return model.eval()


def save_release(model: nn.Module, path: Path, prefix: str = "module.", /, **entries) -> Path:
    """The file that the release's trainer writes for a model."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-4, total_steps=10, pct_start=0.0)
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    content = {"model": weights, "opt": optimiser.state_dict(), "scheduler": scheduler.state_dict()}
    content |= {"args": {"model": {"encoder": "dinov2"}}, "epoch": 39, "train_steps": 800, "scaler": {"scale": 65536.0}}
    torch.save({**content, **entries}, path)
    return path
