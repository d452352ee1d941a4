"""Plain ViT encoder, run stage by stage so that tokens can leave between stages."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.model_spec import Backbone
from hybrid_seg_ros.network.token_layout import TokenLayout, gather_tokens, window_means


class Attention(nn.Module):
    """Multi-head self-attention, scale d^-0.5."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, valid: Optional[Tensor] = None) -> Tensor:
        """Attend (B, N, C) -> (B, N, C); `valid` (B, N) bool marks the tokens that may be attended to."""
        return self.proj(self.mix(tokens, valid))

    def mix(self, tokens: Tensor, valid: Optional[Tensor] = None) -> Tensor:
        """Return what the heads gather, side by side: (B, N, C)."""
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, d)
        mask = None if valid is None else valid[:, None, None, :]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return out.transpose(1, 2).reshape(batch, count, dim)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) -> (B, N, C)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth on both residual branches."""

    def __init__(self, dim: int, num_heads: int, layer_norm_eps: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor, valid: Optional[Tensor] = None) -> Tensor:
        """Map (B, N, C) -> (B, N, C)."""
        tokens = tokens + self._drop(self.attn(self.norm1(tokens), valid))
        return tokens + self._drop(self.mlp(self.norm2(tokens)))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        mask = torch.empty(branch.shape[0], 1, 1, dtype=branch.dtype, device=branch.device).bernoulli_(keep)
        return branch * (mask / keep)


class PatchEmbed(nn.Module):
    """Patch embedding: a convolution whose stride is its kernel, for the patches that are wanted."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def cut(self, image: Tensor) -> Tensor:
        """Cut an image (B, 3, H, W) into its whole patches, in raster order: (B, N, side * side * 3)."""
        side = self.patch_size
        rows, columns = int(image.shape[2]) // side, int(image.shape[3]) // side
        pixels = image[:, :, : rows * side, : columns * side].permute(0, 2, 3, 1)  # contiguous where channels are last
        return pixels.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3).flatten(3).flatten(1, 2)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches as `cut` gives them: (B, N, side * side * 3) -> (B, N, C)."""
        return F.linear(patches, self.proj.weight.permute(0, 2, 3, 1).flatten(1), self.proj.bias)


class VisionTransformer(nn.Module):
    """Plain ViT. Layers are numbered from 1, as in the paper; parameter names follow timm."""

    def __init__(self, config: Backbone, grid_hw: tuple[int, int], drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.grid_hw = grid_hw
        self.patch_embed = PatchEmbed(config.embed_dim, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim)) if config.class_token else None
        registers = config.register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, config.embed_dim)) if registers else None
        # the class token has a position, registers have none
        num_positions = int(config.class_token) + grid_hw[0] * grid_hw[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, config.embed_dim))
        rates = [drop_path * index / max(1, config.depth - 1) for index in range(config.depth)]
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.layer_norm_eps, rate) for rate in rates
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps) if config.final_norm else None
        self._initialize()

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens in front of the patch tokens: class token, then registers."""
        return self.config.num_prefix_tokens

    def embed(self, image: Tensor, layout: TokenLayout) -> Tensor:
        """Embed the tokens of a layout: image (B, 3, H, W) -> (B, prefix + N, C).

        A window of w x w patches is embedded from its w-fold averaged pixels (CTS, section 3.2).
        """
        num_cells = self.grid_hw[0] * self.grid_hw[1]
        class_position, grid = self.pos_embed.split([self.pos_embed.shape[1] - num_cells, num_cells], dim=1)
        grid = resize_grid(grid, self.grid_hw, layout.grid_hw)
        patches, before = [self.patch_embed.cut(image)], 1
        for window in layout.windows[1:]:  # powers of two, ascending
            image, before = F.avg_pool2d(image, window // before), window
            patches.append(self.patch_embed.cut(image))
        positions = [window_means(grid, layout.grid_hw, window).expand(len(image), -1, -1) for window in layout.windows]
        tokens = self.patch_embed(layout.pick(patches)) + layout.pick(positions)
        prefix = [] if self.cls_token is None else [self.cls_token + class_position]
        prefix += [] if self.register_tokens is None else [self.register_tokens]
        return torch.cat([*(part.expand(tokens.shape[0], -1, -1) for part in prefix), tokens], 1) if prefix else tokens

    def patch_grid(self, image: Tensor) -> Tensor:
        """Embed all patches of an image, without their positions: (B, 3, H, W) -> (B, C, gh, gw)."""
        grid_hw = self.config.grid_hw(tuple(int(side) for side in image.shape[2:]))
        return self.patch_embed(self.patch_embed.cut(image)).transpose(1, 2).unflatten(2, grid_hw)

    def pick(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Keep the patch tokens at `index` (B, k) int64, and the prefix: (B, prefix + N, C) -> (B, prefix + k, C)."""
        first = self.num_prefix_tokens
        if not first:
            return gather_tokens(tokens, index)
        return torch.cat([tokens[:, :first], gather_tokens(tokens[:, first:], index)], 1)

    def run(self, tokens: Tensor, first_layer: int, last_layer: int, valid: Optional[Tensor] = None) -> Tensor:
        """Run layers `first_layer` to `last_layer` (1-based, inclusive) on (B, N, C)."""
        for block in self.blocks[first_layer - 1 : last_layer]:
            tokens = block(tokens, valid)
        return tokens

    def finish(self, tokens: Tensor) -> Tensor:
        """Apply the final norm, where there is one, and take the prefix tokens off: (B, prefix + N, C) -> (B, N, C)."""
        tokens = tokens if self.norm is None else self.norm(tokens)
        return tokens[:, self.num_prefix_tokens :]

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def resize_grid(grid: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Resize position embeddings (1, H*W, C) to another grid: bicubic, align_corners=False; same grid = untouched."""
    if from_hw == to_hw:
        return grid
    image = grid.transpose(1, 2).unflatten(2, from_hw)  # (1, C, H, W)
    resized = F.interpolate(image.float(), size=to_hw, mode='bicubic', align_corners=False).to(grid.dtype)
    return resized.flatten(2).transpose(1, 2)
