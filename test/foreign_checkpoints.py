"""Our weights under other code's names, by inverses written for the tests, and the spec fields to convert them with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import yaml
from tiny_model import tiny_spec
from torch import Tensor

from hybrid_seg_ros import cli
from hybrid_seg_ros.model_spec import Backbone, ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.merge_policy import PolicyNetwork
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.vit import VisionTransformer

MMSEG_VIT_NAMES = (
    ('patch_embed.proj.', 'patch_embed.projection.'), ('norm1', 'ln1'), ('norm2', 'ln2'),
    ('attn.qkv.', 'attn.attn.in_proj_'), ('attn.proj.', 'attn.attn.out_proj.'),
    ('mlp.fc1', 'ffn.layers.0.0'), ('mlp.fc2', 'ffn.layers.1'), ('blocks.', 'layers.'),
)  # fmt: skip
HUGGING_FACE_VIT_NAMES = (
    ('^cls_token', 'embeddings.cls_token'), ('^pos_embed', 'embeddings.position_embeddings'),
    ('^dist_token', 'embeddings.distillation_token'), ('^register_tokens', 'embeddings.register_tokens'),
    (r'^patch_embed\.proj', 'embeddings.patch_embeddings.projection'), (r'^norm\.', 'layernorm.'),
    ('norm1', 'layernorm_before'), ('norm2', 'layernorm_after'), (r'attn\.proj', 'attention.output.dense'),
    (r'mlp\.fc1', 'intermediate.dense'), (r'mlp\.fc2', 'output.dense'), (r'^blocks\.', 'encoder.layer.'),
)  # fmt: skip
TORCHVISION_VIT_NAMES = (
    ('^cls_token', 'class_token'), ('^pos_embed', 'encoder.pos_embedding'), (r'^patch_embed\.proj', 'conv_proj'),
    (r'^norm\.', 'encoder.ln.'), ('norm([12])', r'ln_\1'), (r'attn\.qkv\.', 'self_attention.in_proj_'),
    (r'attn\.proj', 'self_attention.out_proj'), (r'mlp\.fc1', 'mlp.0'), (r'mlp\.fc2', 'mlp.3'),
    (r'^blocks\.', 'encoder.layers.encoder_layer_'),
)  # fmt: skip
MMSEG_ATM_NAMES = (
    ('decoder.input_proj', 'input_proj'), ('decoder.input_norm', 'proj_norm'), ('query.', 'q.'),
    ('self_attention.qkv.', 'self_attn.in_proj_'), ('self_attention.proj', 'self_attn.out_proj'),
    ('mask_attention', 'multihead_attn'),
)  # fmt: skip


def seeded_encoder(backbone: Backbone, grid_hw: tuple[int, int], seed: int = 0) -> VisionTransformer:
    """Return an encoder whose every parameter is random."""
    generator = torch.Generator().manual_seed(seed)
    encoder = VisionTransformer(backbone, grid_hw).eval()
    for parameter in encoder.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return encoder


def policy_network(convention: str) -> PolicyNetwork:
    """Return CTS's policy network; its parameter names are those of CTS."""
    return PolicyNetwork(tiny_spec(trunk_convention=convention)).eval()


def mmseg_vit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our encoder's weights; as in mmseg's files there is a class token whether it is used or not."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in MMSEG_VIT_NAMES:
            key = key.replace(ours, theirs)
        renamed[re.sub(r'^norm\.', 'ln1.', key)] = value
    if 'cls_token' not in renamed:
        unused = torch.full_like(renamed['pos_embed'][:, :1], 9.0)
        renamed.update(cls_token=unused, pos_embed=torch.cat([unused, renamed['pos_embed']], 1))
    return renamed


def hugging_face_vit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our encoder's weights as those of Hugging Face's ViTModel."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in HUGGING_FACE_VIT_NAMES:
            key = re.sub(ours, theirs, key)
        for index, part in enumerate(('query', 'key', 'value')):
            if '.qkv.' in key:
                renamed[key.replace('attn.qkv', f'attention.attention.{part}')] = value.chunk(3)[index].clone()
        if '.qkv.' not in key:
            renamed[key] = value
    return renamed


def torchvision_vit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our encoder's weights as those of torchvision's vit_b_16."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in TORCHVISION_VIT_NAMES:
            key = re.sub(ours, theirs, key)
        renamed[key] = value
    return renamed


def mmseg_atm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our ATM head's weights, and add the buffer that mmseg's loss leaves in its files."""
    renamed = {'loss_decode.criterion.empty_weight': torch.ones(2)}
    for key, value in state.items():
        stage = re.match(r'decoders\.(\d+)\.(input_proj|input_norm|layers)', key)
        if stage:
            part = {'input_proj': 'input_proj', 'input_norm': 'proj_norm', 'layers': 'decoder'}[stage[2]]
            rest = key[stage.end() :]
            key = f'{part}_{int(stage[1]) + 1}{".layers" if part == "decoder" else ""}{rest}'
        for ours, theirs in MMSEG_ATM_NAMES:
            key = key.replace(ours, theirs)
        renamed[key] = value
    return renamed


def augreg_arrays(state: dict[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """Lay our encoder's weights out as the JAX code does, and add its classifier."""
    dim = state['cls_token'].shape[-1]
    arrays = {
        'cls': state['cls_token'],
        'Transformer/posembed_input/pos_embedding': state['pos_embed'],
        'embedding/kernel': state['patch_embed.proj.weight'].permute(2, 3, 1, 0),
        'embedding/bias': state['patch_embed.proj.bias'],
        'Transformer/encoder_norm/scale': state['norm.weight'],
        'Transformer/encoder_norm/bias': state['norm.bias'],
        'head/kernel': torch.zeros(dim, 10),
        'head/bias': torch.zeros(10),
    }
    for block in sorted({key.split('.')[1] for key in state if key.startswith('blocks.')}):
        ours, theirs = f'blocks.{block}.', f'Transformer/encoderblock_{block}/'
        for norm, number in (('norm1', 0), ('norm2', 2)):
            arrays[f'{theirs}LayerNorm_{number}/scale'] = state[f'{ours}{norm}.weight']
            arrays[f'{theirs}LayerNorm_{number}/bias'] = state[f'{ours}{norm}.bias']
        attention = f'{theirs}MultiHeadDotProductAttention_1/'
        for index, part in enumerate(('query', 'key', 'value')):
            rows = slice(index * dim, (index + 1) * dim)
            arrays[f'{attention}{part}/kernel'] = state[f'{ours}attn.qkv.weight'][rows].T.reshape(dim, num_heads, -1)
            arrays[f'{attention}{part}/bias'] = state[f'{ours}attn.qkv.bias'][rows].reshape(num_heads, -1)
        arrays[f'{attention}out/kernel'] = state[f'{ours}attn.proj.weight'].T.reshape(num_heads, -1, dim)
        arrays[f'{attention}out/bias'] = state[f'{ours}attn.proj.bias']
        for layer, number in (('fc1', 0), ('fc2', 1)):
            arrays[f'{theirs}MlpBlock_3/Dense_{number}/kernel'] = state[f'{ours}mlp.{layer}.weight'].T
            arrays[f'{theirs}MlpBlock_3/Dense_{number}/bias'] = state[f'{ours}mlp.{layer}.bias']
    return {key: value.contiguous() for key, value in arrays.items()}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix before every key."""
    return {prefix + key: value for key, value in state.items()}


def save_mmseg(path: Path, state: dict[str, Tensor]) -> Path:
    """Write a file as mmseg's runner does."""
    meta = {'epoch': 1, 'mmseg_version': '1.2.2', 'dataset_meta': {'classes': ['a', 'b']}}
    torch.save({'meta': meta, 'state_dict': state, 'optimizer': {'state': {}, 'param_groups': []}}, path)
    return path


def write_spec(path: Path, num_classes: int, size: int, **fields: Any) -> Path:
    """Write what is to be declared, as the user does."""
    content = {
        'classes': [{'name': f'class {index}'} for index in range(num_classes)],
        'input_size_hw': [size, size], 'mean': [127.5] * 3, 'std': [127.5] * 3, **fields,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content), encoding='utf-8')
    return path


def converted(source: str, file: Path, spec: Path, *options: Any) -> HybridSegmenter:
    """Convert by the command, and load what it wrote."""
    output = file.with_name('converted.yaml')
    argv = ['convert', source, file, '--spec', spec, '--output', output, *options]
    assert cli.main([str(word) for word in argv]) == 0
    return load_model(ModelSpec.load(output))
