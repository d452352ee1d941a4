"""Names of weights in files of others, turned into ours; and which of them is a plain ViT's, behind which prefix."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from torch import Tensor

from hybrid_seg_ros.model_spec import BACKBONES
from hybrid_seg_ros.network.checkpoint import CheckpointError

log = logging.getLogger(__name__)

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


class Naming(NamedTuple):
    """Whose names a file has: found by the name of the patch embedding's weights, whatever stands before it."""

    whose: str
    patch_embedding: str
    rename: Optional[Callable[[str], Optional[str]]]


NAMINGS = (
    Naming('timm or Meta', 'patch_embed.proj.weight', renamer(META_VIT)),
    Naming('Hugging Face', 'embeddings.patch_embeddings.projection.weight', renamer(HUGGING_FACE_VIT)),
    Naming('mmseg or mmpretrain', 'patch_embed.projection.weight', renamer(MMSEG_VIT)),
    Naming('torchvision', 'conv_proj.weight', renamer(TORCHVISION_VIT)),
    Naming('AugReg', 'embedding/kernel', None),
)

OTHER_NETWORKS = (
    (r'\bmlp\.(w12|weights_in)\.', 'a ViT with SwiGLU, as ViT-g of DINOv2'),
    (r'\b(rope|rope_embed|rope_embeddings|storage_tokens)\b|\.up_proj\.', 'a ViT with rotary positions (DINOv3, EVA)'),
    (r'\blayers\.\d+\.blocks\.|\bstages\.\d+\.blocks\.\d+\.attn\.|\bfeatures\.\d+\.\d+\.attn\.', 'a Swin Transformer'),
    (r'\.rel_pos_[hw]$|\b(image_encoder|mask_decoder)\.', "SAM's image encoder, or ViTDet's (relative positions)"),
    (r'\bpos_embed_(spatial|window)\b', 'Hiera'),
    (r'\.relative_position|\.q_bias$|\.lambda_[12]$', 'BEiT or EVA (relative positions)'),
    (r'\bblocks_token_only\.', 'CaiT'),
    (r'\b(resblocks|vision_model|norm_pre|ln_pre|attn_pool)\.', 'CLIP or SigLIP (other norms or activations)'),
    (r'\bblock\d\.\d+\.|\bpatch_embeddings?\.\d+\.|\bpatch_embed\d\.', 'SegFormer, or another pyramid'),
    (r'\b(dwconv|conv_dw|depthwise_conv|downsample_layers|conv_stem)\.|\blayer1\.0\.|\b(features|stages)\.\d+\.',
     'a convolutional network (ResNet, EfficientNet, ConvNeXt)'),
    (r'\b(word_embeddings|token_embedding|embed_tokens)\.', 'a language model'),
)  # fmt: skip
"""What is given by mistake, and a name in it that no plain ViT has; the first that fits says what it is."""


def find_encoder(state: Mapping[str, Tensor], key_prefix: str) -> tuple[Naming, dict[str, Tensor]]:
    """Find the encoder among the keys; return whose names it has, and its weights without what stands before them."""
    inside = {key[len(key_prefix) :]: value for key, value in state.items() if key.startswith(key_prefix)}
    found = {
        key[: -len(naming.patch_embedding)]: naming
        for key in inside
        for naming in NAMINGS
        if re.fullmatch(r'(.*[./])?' + re.escape(naming.patch_embedding), key)
    }
    if not found:
        raise CheckpointError(_unknown(inside or state, key_prefix))
    if len(found) > 1:
        names = ' and '.join(repr(key_prefix + prefix) for prefix in found)
        raise CheckpointError(f'several encoders, whose keys start with {names}: name one with --key-prefix')
    ((prefix, naming),) = found.items()
    encoder = {
        key[len(prefix) :]: value for key, value in inside.items() if key.startswith(prefix) and not is_anonymous(key)
    }
    problem = other_network(encoder)
    if problem:
        raise CheckpointError(f'expected a plain ViT, got {problem}')
    others = [key for key in inside if not key.startswith(prefix) and not is_anonymous(key)]
    if others:
        log.info('an encoder behind the prefix %r; beside it: %s', prefix, _summary(others))
    return naming, encoder


def encoder_size(naming: Naming, encoder: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how many layers and channels an encoder has."""
    layers = re.findall(r'(?:block|layer)s?[._](?:\d+\.)?(\d+)[./]', '\n'.join(encoder))
    channels = encoder[naming.patch_embedding].shape[-1 if naming.rename is None else 0]
    return 1 + max(map(int, layers), default=-1), channels


def describe_size(depth: int, width: int) -> str:
    """Say how large an encoder is, and which preset is as large."""
    fitting = [name for name, preset in BACKBONES.items() if (preset.depth, preset.embed_dim) == (depth, width)]
    return f'the file has {depth} layers of {width} channels' + (f': --backbone {fitting[0]}' if fitting else '')


def _unknown(keys: Collection[str], key_prefix: str) -> str:
    problem = other_network(keys)
    if problem:
        return f'expected a plain ViT, got {problem}'
    where = f' behind the prefix {key_prefix!r}' if key_prefix else ''
    wanted = ', '.join(f'{naming.patch_embedding} ({naming.whose})' for naming in NAMINGS)
    return f'expected a plain ViT{where}, known by its patch embedding: {wanted}; got {_summary(keys) or "nothing"}'


def other_network(keys: Collection[str]) -> Optional[str]:
    """Say what has such keys and is no plain ViT; None if nothing of it is known."""
    for pattern, what in OTHER_NETWORKS:
        for key in keys:
            if re.search(pattern, key):
                return f'{what}: {key}'
    return None


def _summary(keys: Iterable[str], most: int = 8) -> str:
    counts = Counter(re.split(r'[./]', key)[0] for key in keys)
    named = [f'{name} ({count})' for name, count in counts.items()]
    return ', '.join(named[:most]) + (', ...' if len(named) > most else '')


def is_anonymous(key: str) -> bool:
    """Tell whether the ONNX exporter made up the name, as for what it computed from parameters."""
    return key.startswith('onnx::')
