"""DINOv2 as Hugging Face builds it, narrow and with random weights: what converted encoders are held to."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH, POSITIONS = 14, (4, 4)


class HuggingFaceDinov2(nn.Module):
    """Maps images (B, 3, H, W) to its final norm's output (B, 1 + registers + cells, 24).

    ONNX's exporter leaves the position embedding in rows if it sees where its width comes from (`traced_width`), else
    as a grid.
    """

    def __init__(
        self, depth: int = 2, registers: int = 0, traced_width: bool = True, dim: int = 24, heads: int = 3
    ) -> None:
        super().__init__()
        self.heads, self.traced_width = heads, traced_width
        self.embeddings = parts(
            cls_token=torch.zeros(1, 1, dim), mask_token=torch.zeros(1, dim),
            position_embeddings=torch.zeros(1, 1 + POSITIONS[0] * POSITIONS[1], dim),
            patch_embeddings=parts(projection=nn.Conv2d(3, dim, PATCH, PATCH)),
            **({'register_tokens': torch.zeros(1, registers, dim)} if registers else {}),
        )  # fmt: skip
        self.encoder = parts(layer=nn.ModuleList(
            parts(
                norm1=nn.LayerNorm(dim, eps=1e-6), norm2=nn.LayerNorm(dim, eps=1e-6),
                attention=parts(
                    attention=parts(query=nn.Linear(dim, dim), key=nn.Linear(dim, dim), value=nn.Linear(dim, dim)),
                    output=parts(dense=nn.Linear(dim, dim)),
                ),
                mlp=parts(fc1=nn.Linear(dim, 4 * dim), fc2=nn.Linear(4 * dim, dim)),
                layer_scale1=parts(lambda1=torch.zeros(dim)), layer_scale2=parts(lambda1=torch.zeros(dim)),
            )
            for _ in range(depth)
        ))  # fmt: skip
        self.layernorm = nn.LayerNorm(dim, eps=1e-6)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.normal_(std=0.3, generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        embeddings = self.embeddings
        patches = embeddings.patch_embeddings.projection(image)  # (B, C, gh, gw)
        positions = embeddings.position_embeddings
        width = patches.shape[1] if self.traced_width else -1
        cells = positions[:, 1:].reshape(1, *POSITIONS, width).permute(0, 3, 1, 2)
        cells = F.interpolate(cells, size=patches.shape[2:], mode='bicubic', align_corners=False)
        tokens = torch.cat([embeddings.cls_token.expand(len(image), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + torch.cat([positions[:, :1], cells.flatten(2).transpose(1, 2)], 1)
        if hasattr(embeddings, 'register_tokens'):
            registers = embeddings.register_tokens.expand(len(image), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        for layer in self.encoder.layer:
            attended = layer.attention.output.dense(self.attend(layer.attention.attention, layer.norm1(tokens)))
            tokens = tokens + layer.layer_scale1.lambda1 * attended
            hidden = F.gelu(layer.mlp.fc1(layer.norm2(tokens)))
            tokens = tokens + layer.layer_scale2.lambda1 * layer.mlp.fc2(hidden)
        return self.layernorm(tokens)

    def attend(self, attention: nn.Module, tokens: Tensor) -> Tensor:
        query, key, value = (
            getattr(attention, part)(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in ('query', 'key', 'value')
        )
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        return (weights @ value).transpose(1, 2).flatten(2)


class Detector(nn.Module):
    """The network as a part of another one, which has a head behind it."""

    def __init__(self, backbone: HuggingFaceDinov2) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, nn.Linear(24, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.backbone(image)
        return tokens, self.decoder(tokens)


def parts(**members: nn.Module | Tensor) -> nn.Module:
    """Return a module of parts and parameters of these names."""
    module = nn.Module()
    for name, member in members.items():
        setattr(module, name, nn.Parameter(member) if isinstance(member, Tensor) else member)
    return module


def export_detector(backbone: HuggingFaceDinov2, image: Tensor, path: Path) -> Path:
    """Write the network with its head as an ONNX graph, in which linear weights and positions have lost their names."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the tracer, on sizes that are fixed here
        torch.onnx.export(
            Detector(backbone).eval(), image, str(path), opset_version=17, dynamo=False, input_names=['image'],
            output_names=['tokens', 'importance'], dynamic_axes={'image': {0: 'batch'}},
        )  # fmt: skip
    return path


def official_names(state: dict[str, Tensor], chunked: bool = False) -> dict[str, Tensor]:
    """Return Hugging Face's weights under the names of the official repository."""
    renamed = {}
    for key, value in state.items():
        for theirs, official in (
            ('embeddings.patch_embeddings.projection', 'patch_embed.proj'),
            ('embeddings.position_embeddings', 'pos_embed'), ('embeddings.', ''), ('layernorm.', 'norm.'),
            ('encoder.layer.', 'blocks.0.' if chunked else 'blocks.'),
            ('attention.output.dense', 'attn.proj'), ('layer_scale1.lambda1', 'ls1.gamma'),
            ('layer_scale2.lambda1', 'ls2.gamma'),
        ):  # fmt: skip
            key = key.replace(theirs, official)
        renamed[key] = value
    for query in [key for key in renamed if '.query.' in key]:
        triple = [renamed.pop(query.replace('query', part)) for part in ('query', 'key', 'value')]
        renamed[query.replace('attention.attention.query', 'attn.qkv')] = torch.cat(triple)
    return renamed
