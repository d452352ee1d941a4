"""Finding a plain ViT among the keys of a file: whose names it has, behind which prefix, or what it is instead."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Optional

from torch import Tensor

from hybrid_seg_ros.model_spec import BACKBONES
from hybrid_seg_ros.network.checkpoint import CheckpointError
from hybrid_seg_ros.network.checkpoint_names import HUGGING_FACE_VIT, META_VIT, MMSEG_VIT, TORCHVISION_VIT, renamer

log = logging.getLogger(__name__)


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
