"""Parameter names of other code, turned into ours: mmseg (SegViT, DToP), Segmenter (CTS), and those of plain ViTs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Optional

Rule = tuple[str, Optional[str]]

_MULTIHEAD_ATTENTION: tuple[Rule, ...] = (
    (r'(.*)in_proj_(weight|bias)', r'\1qkv.\2'),
    (r'(.*)out_proj\.(weight|bias)', r'\1proj.\2'),
)

MMSEG_VIT: tuple[Rule, ...] = (
    (r'(cls_token|pos_embed)', r'\1'),
    (r'patch_embed\.projection\.(.*)', r'patch_embed.proj.\1'),
    (r'layers\.(\d+)\.ln([12])\.(.*)', r'blocks.\1.norm\2.\3'),
    (r'layers\.(\d+)\.attn\.attn\.in_proj_(.*)', r'blocks.\1.attn.qkv.\2'),
    (r'layers\.(\d+)\.attn\.attn\.out_proj\.(.*)', r'blocks.\1.attn.proj.\2'),
    (r'layers\.(\d+)\.attn\.(qkv|proj)\.(.*)', r'blocks.\1.attn.\2.\3'),  # mmpretrain
    (r'layers\.(\d+)\.ffn\.layers\.0\.0\.(.*)', r'blocks.\1.mlp.fc1.\2'),
    (r'layers\.(\d+)\.ffn\.layers\.1\.(.*)', r'blocks.\1.mlp.fc2.\2'),
    (r'ln1\.(.*)', r'norm.\1'),
)
"""mmseg's VisionTransformer, without its `backbone.` prefix."""

TIMM_VIT: tuple[Rule, ...] = (
    (r'((?:cls_token|pos_embed)|(?:patch_embed\.proj|blocks\.\d+\.\w+(?:\.\w+)?|norm)\.(?:weight|bias))', r'\1'),
    (r'(head|head_dist|pre_logits|fc_norm)\..*', None),
)
"""timm, DeiT and Segmenter's encoder; the classifier is dropped."""

META_VIT: tuple[Rule, ...] = (
    (r'blocks\.\d+\.(\d+\.\w+(?:\.\w+)?\.(?:weight|bias))', r'blocks.\1'),  # in chunks, for FSDP
    *TIMM_VIT,
    (r'(dist_token|register_tokens)', r'\1'),
    (r'reg_token', 'register_tokens'),
    (r'mask_token|masked_embed|decoder_.*', None),
    (r'blocks\.(?:\d+\.)?(\d+)\.(?:ls([12])\.gamma|gamma_([12]))', r'blocks.\1.ls\2\3'),
)
"""The same names with what DINO, iBOT, MAE, DeiT III and DINOv2 add, and timm with them."""

_LAYER = r'encoder\.layer\.(\d+)\.'

HUGGING_FACE_VIT: tuple[Rule, ...] = (
    (r'embeddings\.(cls_token|register_tokens)', r'\1'),
    (r'embeddings\.distillation_token', 'dist_token'),
    (r'embeddings\.position_embeddings', 'pos_embed'),
    (r'embeddings\.mask_token', None),
    (r'embeddings\.patch_embeddings\.projection\.(.*)', r'patch_embed.proj.\1'),
    (_LAYER + r'norm([12])\.(.*)', r'blocks.\1.norm\2.\3'),
    (_LAYER + r'layernorm_before\.(.*)', r'blocks.\1.norm1.\2'),
    (_LAYER + r'layernorm_after\.(.*)', r'blocks.\1.norm2.\2'),
    (_LAYER + r'attention\.attention\.(query|key|value)\.(.*)', r'blocks.\1.attn.\2.\3'),
    (_LAYER + r'attention\.output\.dense\.(.*)', r'blocks.\1.attn.proj.\2'),
    (_LAYER + r'(?:mlp\.fc1|intermediate\.dense)\.(.*)', r'blocks.\1.mlp.fc1.\2'),
    (_LAYER + r'(?:mlp\.fc2|output\.dense)\.(.*)', r'blocks.\1.mlp.fc2.\2'),
    (_LAYER + r'layer_scale([12])\.lambda1', r'blocks.\1.ls\2'),
    (r'layernorm\.(.*)', r'norm.\1'),
    (r'pooler\..*', None),
)
"""ViT, DeiT, ViT-MAE and DINOv2 of Hugging Face, without the prefix; query, key and value are still apart."""

_ENCODER_LAYER = r'encoder\.layers\.encoder_layer_(\d+)\.'

TORCHVISION_VIT: tuple[Rule, ...] = (
    (r'class_token', 'cls_token'),
    (r'encoder\.pos_embedding', 'pos_embed'),
    (r'conv_proj\.(.*)', r'patch_embed.proj.\1'),
    (_ENCODER_LAYER + r'ln_([12])\.(.*)', r'blocks.\1.norm\2.\3'),
    (_ENCODER_LAYER + r'self_attention\.in_proj_(.*)', r'blocks.\1.attn.qkv.\2'),
    (_ENCODER_LAYER + r'self_attention\.out_proj\.(.*)', r'blocks.\1.attn.proj.\2'),
    (_ENCODER_LAYER + r'mlp\.(?:0|linear_1)\.(.*)', r'blocks.\1.mlp.fc1.\2'),
    (_ENCODER_LAYER + r'mlp\.(?:3|linear_2)\.(.*)', r'blocks.\1.mlp.fc2.\2'),
    (r'encoder\.ln\.(.*)', r'norm.\1'),
    (r'heads\..*', None),
)
"""torchvision's vit_b_16 and its like."""

_BLOCK = r'Transformer/encoderblock_(\d+)/'

AUGREG_VIT: tuple[Rule, ...] = (
    (r'cls', 'cls_token'),
    (r'Transformer/posembed_input/pos_embedding', 'pos_embed'),
    (r'embedding/(kernel|bias)', r'patch_embed.proj.\1'),
    (r'Transformer/encoder_norm/(scale|bias)', r'norm.\1'),
    (_BLOCK + r'LayerNorm_0/(scale|bias)', r'blocks.\1.norm1.\2'),
    (_BLOCK + r'LayerNorm_2/(scale|bias)', r'blocks.\1.norm2.\2'),
    (_BLOCK + r'MultiHeadDotProductAttention_1/(query|key|value)/(kernel|bias)', r'blocks.\1.attn.\2.\3'),
    (_BLOCK + r'MultiHeadDotProductAttention_1/out/(kernel|bias)', r'blocks.\1.attn.proj.\2'),
    (_BLOCK + r'MlpBlock_3/Dense_0/(kernel|bias)', r'blocks.\1.mlp.fc1.\2'),
    (_BLOCK + r'MlpBlock_3/Dense_1/(kernel|bias)', r'blocks.\1.mlp.fc2.\2'),
    (r'(head|pre_logits)/.*', None),
)
"""The JAX ViT of AugReg; query, key and value are still apart, and layouts Flax's. Read it with `rename_augreg`."""

ATM_HEAD: tuple[Rule, ...] = (
    (r'loss_decode\..*', None),
    (r'q\.weight', 'query.weight'),
    (r'class_embed\.(.*)', r'class_embed.\1'),
    (r'conv_seg\..*', None),
    (r'input_proj\.(.*)', r'decoder.input_proj.\1'),
    (r'proj_norm\.(.*)', r'decoder.input_norm.\1'),
    (r'decoder\.layers\.(.*)', r'decoder.layers.\1'),
    (r'input_proj_(\d+)\.(.*)', r'decoders.#\1.input_proj.\2'),
    (r'proj_norm_(\d+)\.(.*)', r'decoders.#\1.input_norm.\2'),
    (r'decoder_(\d+)\.layers\.(.*)', r'decoders.#\1.layers.\2'),
)
"""SegViT's and DToP's ATM heads, single-stage or with stages numbered from 1 (`#n` becomes n - 1)."""

SEGMENTER_DECODER: tuple[Rule, ...] = (
    (r'(head\.(?:weight|bias)|proj_\w+(?:\.\w+)?|cls_emb|blocks\..*|decoder_norm\..*|mask_norm\..*)', r'\1'),
)
"""Segmenter's linear decoder and mask transformer."""

POLICY_NETWORK: tuple[Rule, ...] = (
    (r'.*num_batches_tracked', None),
    (r'(backbone\.(?:conv_stem|bn1|blocks)\..*|head\.(?:weight|bias))', r'\1'),
)
"""CTS's policy network: timm's EfficientNet-Lite0 features and a 1x1 convolution."""


def rename(key: str, rules: Sequence[Rule]) -> Optional[str]:
    """Return our name of `key`; None if it is to be dropped. Raises KeyError if no rule knows it."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return None if replacement is None else match.expand(replacement)
    raise KeyError(key)


def rename_atm(key: str) -> Optional[str]:
    """Return our name of a key of an ATM head."""
    name = rename(key, ATM_HEAD)
    if name is None:
        return None
    name = re.sub(r'#(\d+)', lambda match: str(int(match[1]) - 1), name)
    name = name.replace('.multihead_attn.', '.mask_attention.').replace('.self_attn.', '.self_attention.')
    for pattern, replacement in _MULTIHEAD_ATTENTION:
        name = re.sub(pattern, replacement or '', name)
    return name


def rename_augreg(key: str) -> Optional[str]:
    """Return timm's name of an array of AugReg's; query, key and value keep names of their own."""
    name = rename(key, AUGREG_VIT)
    return None if name is None else re.sub(r'\.(kernel|scale)$', '.weight', name)


def renamer(rules: Sequence[Rule]) -> Callable[[str], Optional[str]]:
    """Return `rename` bound to `rules`."""
    return lambda key: rename(key, rules)
