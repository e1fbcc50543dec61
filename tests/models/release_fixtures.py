"""The DexWM release's model under the release's names, written out plainly from its description, and its files.

Nothing here uses dexworld: attention is a softmax over all tokens of all frames under flat masks, each block takes its
eleven modulation vectors by name, and heatmaps go through the square that the release draws them in.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS, COLUMNS, PATCH = 4, 7, 14  # of the encoder's grid, for images of 56 x 98 pixels
TOKENS, FRAMES, SIDE = ROWS * COLUMNS, 9, 4  # SIDE: the head draws 56 x 56 pixels = 4 x 4 places
IMAGE_SIZE = (ROWS * PATCH, COLUMNS * PATCH)
ENCODER_DIM, DIM, HEAD_DIM, HEAD_WIDTH, KEYPOINT_HEADS = 64, 128, 32, 64, 16


def attention(query: Tensor, key: Tensor, value: Tensor, head_width: int, mask: Tensor | None = None) -> Tensor:
    """Softmax attention head by head; a query that may see nothing gets zero."""
    out = torch.zeros_like(query)
    for start in range(0, query.shape[-1], head_width):
        part = slice(start, start + head_width)
        scores = torch.einsum("bqd,bkd->bqk", query[..., part], key[..., part]) / math.sqrt(head_width)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        out[..., part] = torch.einsum("bqk,bkd->bqd", torch.softmax(scores, dim=-1).nan_to_num(0.0), value[..., part])
    return out


def modules(**parts: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(parts)


class PackedAttention(nn.Module):
    """One layer for query, key and value; queries and context may be different streams."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.packed_proj, self.out_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        query, _, _ = self.packed_proj(queries).chunk(3, dim=-1)
        _, key, value = self.packed_proj(context).chunk(3, dim=-1)
        return self.out_proj(attention(query, key, value, HEAD_WIDTH, mask))


class Block(nn.Module):
    """A block of the predictor over all tokens of all frames, (B, frames * tokens, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn, self.cttn = PackedAttention(dim), PackedAttention(dim)
        self.mlp = modules(fc1=nn.Linear(dim, 2 * dim), fc2=nn.Linear(2 * dim, dim))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(132, 11 * dim))

    def forward(self, y: Tensor, x: Tensor, actions: Tensor, own: Tensor, earlier: Tensor) -> Tensor:
        vectors = self.adaLN_modulation(actions).repeat_interleave(TOKENS, dim=1).chunk(11, dim=-1)
        names = "self_shift self_scale self_gate kv_shift kv_scale q_shift q_scale q_gate mlp_shift mlp_scale mlp_gate"
        m = dict(zip(names.split(), vectors, strict=True))
        inner = plain_norm(y) * (1 + m["self_scale"]) + m["self_shift"]
        y = y + m["self_gate"] * self.attn(inner, inner, own)
        queries = plain_norm(y) * (1 + m["q_scale"]) + m["q_shift"]
        context = plain_norm(x) * (1 + m["kv_scale"]) + m["kv_shift"]
        y = y + m["q_gate"] * self.cttn(queries, context, earlier)
        inner = self.mlp["fc1"](plain_norm(y) * (1 + m["mlp_scale"]) + m["mlp_shift"])
        return y + m["mlp_gate"] * self.mlp["fc2"](F.gelu(inner, approximate="tanh"))


class FinalLayer(nn.Module):
    """The last modulation and linear layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(132, 2 * dim))
        self.linear = nn.Linear(dim, dim)

    def forward(self, y: Tensor, actions: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(actions).repeat_interleave(TOKENS, dim=1).chunk(2, dim=-1)
        return self.linear(plain_norm(y) * (1 + scale) + shift)


class HeadBlock(nn.Module):
    """A pre-norm block of the keypoint head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = modules(qkv=nn.Linear(dim, 3 * dim, bias=False), proj=nn.Linear(dim, dim))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1)
        x = x + self.attn["proj"](attention(query, key, value, x.shape[-1] // KEYPOINT_HEADS))
        return x + self.mlp(self.norm2(x))


class ViTDecoder(nn.Module):
    """The keypoint head, built for a square image: features squeezed to its places, maps stretched back."""

    def __init__(self, encoder_dim: int, dim: int, depth: int, side: int) -> None:
        super().__init__()
        self.input_proj = nn.Linear(encoder_dim, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, dim))
        self.blocks = nn.ModuleList(HeadBlock(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Sequential(nn.Linear(dim, 12 * PATCH * PATCH))

    def forward(self, latents: Tensor) -> Tensor:
        """(N, tokens, E) to (N, 12, height, width)."""
        features = self.input_proj(latents).reshape(-1, ROWS, COLUMNS, self.pos_embed.shape[-1]).permute(0, 3, 1, 2)
        features = F.interpolate(features, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = features.permute(0, 2, 3, 1).reshape(len(features), SIDE * SIDE, -1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        pixels = self.head(self.norm(x)).reshape(-1, SIDE, SIDE, PATCH, PATCH, 12)
        square = torch.zeros(len(pixels), 12, SIDE * PATCH, SIDE * PATCH, dtype=x.dtype)
        for row in range(SIDE):
            for column in range(SIDE):
                top, left = row * PATCH, column * PATCH
                square[:, :, top : top + PATCH, left : left + PATCH] = pixels[:, row, column].permute(0, 3, 1, 2)
        return F.interpolate(square, size=IMAGE_SIZE, mode="bilinear", align_corners=False)


class Release(nn.Module):
    """The whole model. The encoder stands for the frozen one; the tests start from latents. With `dim` equal to the
    encoder's width there are no projections."""

    def __init__(
        self, dim=DIM, depth=2, encoder_dim=ENCODER_DIM, head_dim=HEAD_DIM, head_depth=2, tokens=TOKENS, side=SIDE
    ) -> None:
        super().__init__()
        self.image_embedder = modules(patch_embed=modules(proj=nn.Conv2d(3, encoder_dim, PATCH, PATCH)))
        self.pos_embed = nn.Parameter(torch.zeros(FRAMES, tokens, dim))
        if dim != encoder_dim:
            self.input_proj, self.output_proj = nn.Linear(encoder_dim, dim), nn.Linear(dim, encoder_dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.final_layer = FinalLayer(dim)
        self.kp_layer = modules(vit_decoder=ViTDecoder(encoder_dim, head_dim, head_depth, side))

    def heatmaps(self, latents: Tensor) -> Tensor:
        """(N, 12, height, width) of latents (N, tokens, E)."""
        return self.kp_layer["vit_decoder"](latents)

    def forward(self, latents: Tensor, actions: Tensor, last_only: bool = False) -> tuple[Tensor, Tensor]:
        """Latents (B, 8, tokens, E) and heatmaps (B, 8, 12, h, w) of frames 1 to 8.

        latents (B, 9, tokens, E); actions (B, 8, 132), the difference that leads into frames 1 to 8. last_only: masks
        that keep the last frame's queries only, as in evaluation; only the last slot means anything then.
        """
        batch = len(latents)
        stream = (self.input_proj(latents) if hasattr(self, "input_proj") else latents) + self.pos_embed
        x = stream.flatten(1, 2)
        y = torch.cat([stream[:, :1], stream[:, :-1]], dim=1).flatten(1, 2)
        conditions = torch.cat([torch.zeros(batch, 1, 132), actions], dim=1)
        frame = torch.arange(FRAMES).repeat_interleave(TOKENS)
        own, earlier = frame[:, None] == frame, frame[:, None] > frame
        if last_only:
            last = (frame == FRAMES - 1)[:, None]
            own, earlier = own & last, earlier & last
        for block in self.blocks:
            y = block(y, x, conditions, own, earlier)
        y = self.final_layer(y, conditions)
        y = self.output_proj(y) if hasattr(self, "output_proj") else y
        predicted = y.unflatten(1, (FRAMES, TOKENS))[:, 1:]
        return predicted, self.heatmaps(predicted.flatten(0, 1)).unflatten(0, (batch, FRAMES - 1))

    def rollout(self, first: Tensor, actions: Tensor) -> Tensor:
        """Latents (B, T, tokens, E) from one frame (B, tokens, E) and actions (B, T, 132), as in open-loop evaluation.

        The context starts as eight copies of the frame with zero actions between them; predictions are fed back, and
        the last eight frames are kept with the actions that led from each to the next.
        """
        frames = [first] * (FRAMES - 1)
        moves = [torch.zeros_like(actions[:, 0])] * (FRAMES - 2)
        for step in range(actions.shape[1]):
            moves.append(actions[:, step])
            window = torch.stack([*frames[-(FRAMES - 1) :], first], dim=1)  # the ninth frame is a dummy
            predicted, _ = self(window, torch.stack(moves[-(FRAMES - 1) :], dim=1), last_only=True)
            frames.append(predicted[:, -1])
        return torch.stack(frames[FRAMES - 1 :], dim=1)


def plain_norm(x: Tensor) -> Tensor:
    """Layer normalisation without parameters, written out."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-6)


def release(seed: int = 0, **sizes: int) -> Release:
    """A release model with weights that are nowhere zero (a fresh one would predict zero whatever was loaded)."""
    model, generator = Release(**sizes), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.7 * torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5)
    return model.eval()


def save_release(model: nn.Module, path: Path, prefix: str = "module.", /, **entries) -> Path:
    """The file that the release's trainer writes for a model: weights, optimiser, scheduler, arguments, epoch, steps."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-4, total_steps=10, pct_start=0.0)
    content = {
        "model": {prefix + name: value for name, value in model.state_dict().items()},
        "opt": optimiser.state_dict(),
        "scheduler": scheduler.state_dict(),
        "args": {"model": {"encoder": "dinov2"}, "debug": False},
        "epoch": 39,
        "train_steps": 800,
        "scaler": {"scale": 65536.0},
    }
    torch.save({**content, **entries}, path)
    return path
