"""A narrow model that computes nearly what a trained wide one does: layer by layer the best fit, without a gradient."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import resize_position_embedding
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_heads import LightHead
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.vit import Block, VisionTransformer
from hybrid_seg_ros.training.train_config import TrainConfigError

log = logging.getLogger(__name__)

CHUNK = 8
"""So many images are run at a time; only the tokens of all are kept, 4 bytes times channels each."""

RIDGE = 1e-4
"""Of the inputs' mean variance, added to each one's."""


class LeastSquares:
    """Linear regression of targets on inputs, from sums over rows that come chunk by chunk."""

    def __init__(self, inputs: int, targets: int, device: torch.device) -> None:
        self._count = 0
        self._sums = torch.zeros(inputs + targets, dtype=torch.float64, device=device)
        self._products = torch.zeros(inputs, inputs + targets, dtype=torch.float64, device=device)
        self._inputs = inputs

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Add rows: (..., inputs) and (..., targets)."""
        inputs, targets = inputs.flatten(0, -2), targets.flatten(0, -2)
        self._count += len(inputs)
        self._sums += torch.cat([inputs.sum(0), targets.sum(0)])
        self._products += torch.cat([inputs.T @ inputs, inputs.T @ targets], 1)

    @property
    def input_mean(self) -> Tensor:
        """Return the mean of the inputs (inputs,)."""
        return self._sums[: self._inputs] / self._count

    @property
    def target_mean(self) -> Tensor:
        """Return the mean of the targets (targets,): what a layer adds whose inputs are centred."""
        return self._sums[self._inputs :] / self._count

    def weights(self, chosen: Optional[Tensor] = None) -> Tensor:
        """Return the weights (targets, inputs) of a linear layer, of the `chosen` inputs only if they are given."""
        inverse, products = self._normal_equations(chosen)
        return (inverse @ products).T

    def choose(self, groups: int, count: int) -> Tensor:
        """Return `count` of the `groups` of adjacent inputs, those whose loss costs most; int64, ascending.

        They are left out from the least important on, an eighth of the surplus at a time, by how much the squared error
        grows where the others make up for them (Hassibi and Stork, "Optimal Brain Surgeon", 1992, equation 5).
        """
        size, left = self._inputs // groups, torch.arange(groups, device=self._sums.device)
        at_once = -(-(groups - count) // 8)
        while len(left) > count:
            inverse, products = self._normal_equations(_members(left, size))
            weights = (inverse @ products).unflatten(0, (-1, size))  # (groups, size, targets)
            own = inverse.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
            cost = (weights * torch.linalg.solve(own, weights)).sum((1, 2))
            keep = cost.topk(max(count, len(left) - at_once)).indices.sort().values
            left = left[keep]
        return left

    def _normal_equations(self, chosen: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the inverse of the inputs' covariance, and theirs with the targets."""
        covariance = self._products / self._count - torch.outer(self.input_mean, self._sums / self._count)
        own, products = covariance[:, : self._inputs], covariance[:, self._inputs :]
        if chosen is not None:
            own, products = own[chosen][:, chosen], products[chosen]
        ridge = RIDGE * own.diagonal().mean() * torch.eye(len(own), dtype=own.dtype, device=own.device)
        return torch.linalg.inv(own + ridge), products


@torch.no_grad()
def fit_narrow_model(model: HybridSegmenter, source: HybridSegmenter, images: Tensor) -> None:
    """Give `model` the weights with which it comes closest to `source`, a trained model with a wider encoder.

    Its tokens are the source's in the directions in which those vary most, as in SliceGPT (Ashkboos et al., ICLR 2024,
    section 3.3), but one basis for all layers, and turned so that all channels matter alike. Then, from the first
    layer to the last, each linear layer is the least-squares fit to what the source computes there, from what the
    narrow model itself has at that place: a layer makes up for what those before it lost. Heads of attention and hidden
    channels of the perceptrons are those that such a fit misses most. What is outside of encoder and heads is copied.

    `images` (B, H, W, 3) uint8 are some hundred views, best those to train on next. Raises TrainConfigError if the two
    differ in more than their width.
    """
    check_narrower(model.spec, source.spec)
    own = model.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith(('encoder.', 'head.', 'auxiliary_heads.')):
            own[name].copy_(value)
    model.eval()
    source.eval()
    wide = torch.cat([_embed(source, chunk) for chunk in images.split(CHUNK)])
    basis = _common_directions(source.encoder, wide[::3].clone(), model.spec.backbone.embed_dim)
    basis = basis / (wide @ basis).std()  # the layer norms do not mind, and one learning rate suits all layers
    _project_embedding(model.encoder, source.encoder, basis)
    narrow = wide @ basis
    for layer, (block, source_block) in enumerate(zip(model.encoder.blocks, source.encoder.blocks), 1):
        _fit_attention(block, source_block, narrow, wide, basis)
        _fit_mlp(block, source_block, narrow, wide, basis)
        if str(layer) in model.auxiliary_heads:
            patches = slice(source.encoder.num_prefix_tokens, None)
            heads = (model.auxiliary_heads[str(layer)], source.auxiliary_heads[str(layer)])
            _fit_head(*heads, narrow[:, patches], wide[:, patches])
        error = (wide @ basis - narrow).var() / (wide @ basis).var()
        log.info('layer %d of %d fitted: %.1f %% of the variance', layer, len(model.encoder.blocks), 100 * (1 - error))
    _fit_head(model.head, source.head, model.encoder.finish(narrow), source.encoder.finish(wide))


def check_narrower(spec: ModelSpec, source: ModelSpec) -> None:
    """Raise TrainConfigError unless a model of `spec` is one of `source`'s with fewer channels, in as wide heads."""
    own, wide = spec.backbone, source.backbone
    if source.head != 'light' or (source.auxiliary_layers and source.auxiliary_head != 'light'):
        raise TrainConfigError(f'narrowed_from: expected head and auxiliary_head light, got {source.head} and '
                               f'{source.auxiliary_head}')  # fmt: skip
    if source.policy == 'patch_mlp':
        raise TrainConfigError('narrowed_from: expected a policy that does not look at the encoder, got patch_mlp')
    for name in ('depth', 'patch_size', 'num_prefix_tokens', 'final_norm', 'layer_norm_eps'):
        if getattr(own, name) != getattr(wide, name):
            raise TrainConfigError(f'narrowed_from: expected model.backbone with {name} {getattr(wide, name)}, as its '
                                   f'own, got {getattr(own, name)}')  # fmt: skip
    for name in ('head', 'auxiliary_head', 'auxiliary_layers', 'refinement', 'policy', 'window_sizes'):
        if getattr(spec, name) != getattr(source, name):
            raise TrainConfigError(f'narrowed_from: expected model.{name} {getattr(source, name)}, as its own, got '
                                   f'{getattr(spec, name)}')  # fmt: skip
    if spec.classes.names != source.classes.names:
        raise TrainConfigError(f'narrowed_from: expected the classes {source.classes.names}, got {spec.classes.names}')
    per_head = wide.embed_dim // wide.num_heads
    if own.embed_dim > wide.embed_dim or own.embed_dim != own.num_heads * per_head:
        raise TrainConfigError(f'narrowed_from: expected at most {wide.embed_dim} channels in heads of {per_head}, got '
                               f'{own.embed_dim} in {own.num_heads} heads')  # fmt: skip


def _embed(model: HybridSegmenter, images: Tensor) -> Tensor:
    grid_hw = model.spec.backbone.grid_hw(tuple(images.shape[1:3]))
    return model.encoder.embed(model.normalize(images), TokenLayout.identity(len(images), grid_hw, images.device))


def _common_directions(encoder: VisionTransformer, tokens: Tensor, count: int) -> Tensor:
    """Return (channels, count) orthonormal directions that hold most of the variance of all layer norms' outputs.

    Tokens (B, N, C), which are overwritten, are measured by them: the norms' own scales and the tokens' lengths do not
    count. The channels of the result are random mixtures of the directions, with equal variances, but for one, the sum
    of all channels, which the narrow model's layer norms take off: it is the least of the directions.
    """
    products = tokens.new_zeros(tokens.shape[-1], tokens.shape[-1], dtype=torch.float64)

    def measure() -> None:
        for chunk in tokens.split(CHUNK):
            normed = F.layer_norm(chunk, chunk.shape[-1:]).flatten(0, 1)
            products.add_(normed.T @ normed)

    for block in encoder.blocks:
        for norm, branch in ((block.norm1, block.attn), (block.norm2, block.mlp)):
            measure()
            for chunk in tokens.split(CHUNK):
                chunk += branch(norm(chunk))
    measure()
    directions = torch.linalg.eigh(products).eigenvectors[:, -count:].float()  # ascending
    directions = directions - directions.mean(0)  # a layer norm takes the mean off, so may the projection
    mixture = torch.randn(count, count, generator=torch.Generator().manual_seed(0))
    mixture[:, 0] = 1.0
    return directions @ torch.linalg.qr(mixture).Q.T.to(directions.device)  # its first row: all channels alike


def _project_embedding(encoder: VisionTransformer, source: VisionTransformer, basis: Tensor) -> None:
    weight, bias = source.patch_embed.proj.weight, source.patch_embed.proj.bias
    encoder.patch_embed.proj.weight.copy_(torch.einsum('chwd,dk->kchw', weight.permute(1, 2, 3, 0), basis))
    encoder.patch_embed.proj.bias.copy_(bias @ basis)
    prefix = source.pos_embed.shape[1] - source.grid_hw[0] * source.grid_hw[1]
    positions = resize_position_embedding(source.pos_embed, prefix, source.grid_hw, encoder.grid_hw)
    encoder.pos_embed.copy_(positions @ basis)
    for name in ('cls_token', 'register_tokens'):
        if getattr(source, name) is not None:
            getattr(encoder, name).copy_(getattr(source, name) @ basis)


def _fit_attention(block: Block, source: Block, narrow: Tensor, wide: Tensor, basis: Tensor) -> None:
    """Fit the attention of one layer, and move both models' tokens on, in place."""
    channels, width = wide.shape[-1], narrow.shape[-1]
    projected = LeastSquares(width, 3 * channels, wide.device)
    heads = LeastSquares(channels, width, wide.device)
    for own, theirs in _chunks(narrow, wide):
        normed = source.norm1(theirs)
        projected.add(block.norm1(own), source.attn.qkv(normed))
        mixed = source.attn.mix(normed)
        theirs += source.attn.proj(mixed)
        heads.add(mixed, theirs @ basis - own)
    kept = heads.choose(source.attn.num_heads, block.attn.num_heads)
    kept = _members(kept, channels // source.attn.num_heads)
    _set_linear(block.attn.qkv, projected, torch.cat([kept + part * channels for part in range(3)]), norm=block.norm1)
    outputs = LeastSquares(width, width, wide.device)
    for own, theirs in _chunks(narrow, wide):
        outputs.add(block.attn.mix(block.norm1(own)), theirs @ basis - own)
    _set_linear(block.attn.proj, outputs)
    for own in narrow.split(CHUNK):
        own += block.attn(block.norm1(own))


def _fit_mlp(block: Block, source: Block, narrow: Tensor, wide: Tensor, basis: Tensor) -> None:
    """Fit the perceptron of one layer, and move both models' tokens on, in place."""
    width, hidden = narrow.shape[-1], source.mlp.fc1.out_features
    entering = LeastSquares(width, hidden, wide.device)
    for own, theirs in _chunks(narrow, wide):
        values = source.mlp.fc1(source.norm2(theirs))
        entering.add(block.norm2(own), values)
        theirs += source.mlp.fc2(F.gelu(values))
    every = nn.Linear(width, hidden, device=wide.device)
    _set_linear(every, entering, norm=block.norm2)
    leaving = LeastSquares(hidden, width, wide.device)
    for own, theirs in _chunks(narrow, wide):
        leaving.add(F.gelu(every(block.norm2(own))), theirs @ basis - own)
    kept = leaving.choose(hidden, block.mlp.fc1.out_features)
    block.mlp.fc1.weight.copy_(every.weight[kept])
    block.mlp.fc1.bias.copy_(every.bias[kept])
    _set_linear(block.mlp.fc2, leaving, chosen=kept)
    for own in narrow.split(CHUNK):
        own += block.mlp(block.norm2(own))


def _fit_head(head: LightHead, source: LightHead, narrow: Tensor, wide: Tensor) -> None:
    """Fit a head's logits, from its tokens (B, N, C) and the source's."""
    variance, mean = torch.var_mean(narrow, (0, 1))
    head.norm.running_mean.copy_(mean)
    head.norm.running_var.copy_(variance)
    logits = LeastSquares(narrow.shape[-1], source.classify.out_features, wide.device)
    for own, theirs in _chunks(narrow, wide):
        logits.add(head.norm(own.flatten(0, 1)), source.classify(source.norm(theirs.flatten(0, 1))))
    _set_linear(head.classify, logits)


def _set_linear(
    linear: nn.Linear, fit: LeastSquares, rows: Optional[Tensor] = None, chosen: Optional[Tensor] = None,
    norm: Optional[nn.LayerNorm] = None,
) -> None:  # fmt: skip
    """Make `linear` the fit, or those `rows` of its outputs, from the `chosen` inputs; a `norm` before it centres."""
    weights, mean = fit.weights(chosen), fit.input_mean if chosen is None else fit.input_mean[chosen]
    bias = fit.target_mean
    if norm is None:
        bias = bias - weights @ mean
    else:
        norm.bias.copy_(-mean)
    linear.weight.copy_(weights if rows is None else weights[rows])
    linear.bias.copy_(bias if rows is None else bias[rows])


def _chunks(narrow: Tensor, wide: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(narrow.split(CHUNK), wide.split(CHUNK))


def _members(groups: Tensor, size: int) -> Tensor:
    """Return the indices of what the groups of `size` adjacent ones hold."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()
