"""HybridSegmenter: the whole method, from image to class scores on the patch grid (the paper's figure 1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.model_spec import PRUNING_HEADS, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead, AtmOutput, SegVitHead
from hybrid_seg_ros.network.mask_refinement import MaskRefinement
from hybrid_seg_ros.network.merge_policy import PolicyLogits, create_policy, scores_on_host
from hybrid_seg_ros.network.token_heads import LightHead, LinearHead, MaskTransformerHead
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.token_merging import choose_windows, count_merged_windows
from hybrid_seg_ros.network.token_pruning import (
    AliveTokens,
    class_confidence,
    drop_finished,
    finished_by_threshold,
    keep_only,
    stay_by_count,
    write_back,
)
from hybrid_seg_ros.network.vit import VisionTransformer


@dataclass(frozen=True)
class StageOutput:
    """What a head said after a layer; `mask_logits` (B, classes, N) covers all tokens that entered the encoder.

    Columns of tokens that left earlier hold what their own stage said. `alive` are the tokens that go on.
    """

    layer: int
    class_logits: Tensor
    mask_logits: Tensor
    alive: AliveTokens


@dataclass(frozen=True)
class SegmenterOutput:
    """Class scores on a grid of cells of `cell_px` pixels, and where the tokens went.

    The cells are the patches, or smaller where the model refines its masks: `refined_logits` (B, classes, h, w) are
    then the mask logits behind the scores. `scores` (B, S, h, w) float32. `kind` says what they are: 'probability'
    (S classes, in [0, 1], not summing to 1), 'logits' (S classes), or 'mask_logits' (S queries; the class scores at any
    resolution are `class_mix` (B, S, classes) applied to the sigmoid of the upsampled logits). `pruned_after_layer`
    (B, N) int64 is 0 for tokens that went to the end. `policy_logits` are there where the policy network ran.
    """

    scores: Tensor
    kind: str
    cell_px: int
    layout: TokenLayout
    stages: tuple[StageOutput, ...]
    pruned_after_layer: Tensor
    policy_logits: Optional[PolicyLogits] = None
    class_mix: Optional[Tensor] = None
    refined_logits: Optional[Tensor] = None


@dataclass(frozen=True)
class EnteringTokens:
    """What goes into the encoder: `tokens` (B, prefix + N, C), which cells each covers, and what was made before.

    `policy_logits` are None where the policy network did not run, `detail` (B, c, H/4, W/4), what the image shows at
    stride 4, where masks are not refined.
    """

    tokens: Tensor
    layout: TokenLayout
    detail: Optional[Tensor]
    policy_logits: Optional[PolicyLogits]


class HybridSegmenter(nn.Module):
    """Plain ViT segmenter whose tokens merge before the encoder and leave it early. Built from a ModelSpec."""

    def __init__(self, spec: ModelSpec, drop_path: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        width, classes, decoder = spec.backbone.embed_dim, len(spec.classes), spec.decoder
        self.register_buffer('mean', torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.policy = create_policy(spec)
        self.encoder = VisionTransformer(spec.backbone, spec.backbone.grid_hw(spec.input_size_hw), drop_path)
        atm_shape = (width, classes, spec.decoder_dim, decoder.layers, decoder.num_heads)
        self.auxiliary_heads = nn.ModuleDict()
        for layer in spec.auxiliary_layers if spec.head in PRUNING_HEADS else ():
            light = spec.auxiliary_head == 'light'
            self.auxiliary_heads[str(layer)] = LightHead(width, classes) if light else AtmHead(*atm_shape)
        self.refinement = MaskRefinement(classes) if spec.refinement == 'image' else None
        self.head_layers: tuple[int, ...] = (spec.backbone.depth,)
        if spec.head == 'atm':
            self.head: nn.Module = AtmHead(*atm_shape)
        elif spec.head == 'light':
            self.head = LightHead(width, classes)
        elif spec.head in ('segvit_atm', 'segvit_atm_v2'):
            self.head_layers = (*spec.auxiliary_layers, spec.backbone.depth)
            self.head = SegVitHead(*atm_shape, len(self.head_layers), self_attention=spec.head == 'segvit_atm')
        elif spec.head == 'linear':
            self.head = LinearHead(width, classes)
        else:
            self.head = MaskTransformerHead(width, classes, decoder.layers, decoder.num_heads)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn RGB images (B, H, W, 3) uint8 into the network's input (B, 3, H, W) float."""
        # row by row, channels last: three numbers for all pixels take five times as long
        width = int(images.shape[2])
        mean, std = (each.flatten().repeat(width) for each in (self.mean, self.std))
        rows = (images.to(mean.dtype).flatten(2) - mean).div_(std)  # (B, H, W * 3)
        return rows.unflatten(2, (width, 3)).permute(0, 3, 1, 2)

    def forward(
        self, image: Tensor, variant: Variant, budget: TokenBudget, supervise: bool = False,
        layout: Optional[TokenLayout] = None,
    ) -> SegmenterOutput:  # fmt: skip
        """Segment normalised images (B, 3, H, W), any size: sides are padded to whole patches, right and bottom.

        `supervise` runs every auxiliary head, also those that do not prune, so that each can be trained, and the policy
        network unless it is frozen.
        A `layout` says which windows merge; without it the policy network chooses, where the variant merges.
        """
        entering = self.enter(image, variant, budget, supervise, layout)
        tokens, layout, policy_logits = entering.tokens, entering.layout, entering.policy_logits
        if self.spec.head not in PRUNING_HEADS:
            return self._without_pruning(tokens, layout, policy_logits)

        batch, num_tokens = int(image.shape[0]), layout.num_tokens
        alive = everyone = AliveTokens.all(batch, num_tokens, image.device)
        pruned_after = torch.zeros(batch, num_tokens + 1, dtype=torch.int64, device=image.device)
        stages: list[StageOutput] = []
        layer = 0
        for head_layer, head in self._heads(variant, supervise):
            tokens, prediction = self.advance(tokens, layer, head_layer, head, alive.valid)
            layer = head_layer
            if alive is everyone:  # so it is for the first head
                canvas = F.pad(prediction.mask_logits, (0, 1)).to(entering.tokens.dtype)
            else:
                canvas = write_back(canvas, prediction.mask_logits, alive)
            if layer in variant.prune_layers:
                stage = variant.prune_layers.index(layer)
                tokens, alive, pruned_after = self._prune(tokens, alive, pruned_after, prediction, layer, stage, budget)
            stages.append(StageOutput(layer, prediction.class_logits, canvas[:, :, :num_tokens], alive))

        cell_masks = layout.unmerge(stages[-1].mask_logits.transpose(1, 2))
        scores, refined = self.class_scores(cell_masks, stages[-1].class_logits, layout.grid_hw, entering.detail)
        return SegmenterOutput(
            scores=scores,
            kind='probability',
            cell_px=self.spec.cell_px,
            layout=layout,
            stages=tuple(stages),
            pruned_after_layer=pruned_after[:, :num_tokens],
            policy_logits=policy_logits,
            refined_logits=refined,
        )

    def enter(
        self, image: Tensor, variant: Variant, budget: TokenBudget, supervise: bool = False,
        layout: Optional[TokenLayout] = None,
    ) -> EnteringTokens:  # fmt: skip
        """Score the windows, merge and embed: everything before the encoder. Arguments as of `forward`."""
        self.spec.check_variant(variant)
        image = pad_to_multiple(image, self.spec.backbone.patch_size)
        # int: sizes are constants, also while the network is traced
        grid_hw = tuple(int(side) // self.spec.backbone.patch_size for side in image.shape[2:])

        trained = supervise and self.policy is not None and any(p.requires_grad for p in self.policy.parameters())
        policy_logits = self.window_logits(image) if trained or (variant.merges and layout is None) else None
        if layout is None and variant.merges:
            scores = scores_on_host(policy_logits, grid_hw)
            choice = choose_windows(scores, count_merged_windows(grid_hw, budget.windows), grid_hw)
            layout = TokenLayout.of(choice, image.device)
        elif layout is None:
            layout = TokenLayout.identity(image.shape[0], grid_hw, image.device)

        detail = None if self.refinement is None else self.refinement.detail(image)
        tokens = self.encoder.embed(image, layout)
        return EnteringTokens(tokens, layout, detail, policy_logits)

    def advance(
        self, tokens: Tensor, layer: int, next_layer: int, head: nn.Module, valid: Optional[Tensor] = None
    ) -> tuple[Tensor, AtmOutput]:
        """Run the layers behind `layer` up to `next_layer` on (B, prefix + N, C), and the head after that one.

        `valid` (B, N) is False on padding.
        """
        prefix = self.encoder.num_prefix_tokens
        attended = F.pad(valid, (prefix, 0), value=True) if prefix and valid is not None else valid
        tokens = self.encoder.run(tokens, layer + 1, next_layer, attended)
        return tokens, head(self._patch_tokens(tokens, next_layer), valid)

    def class_scores(
        self, cell_masks: Tensor, class_logits: Tensor, grid_hw: tuple[int, int], detail: Optional[Tensor]
    ) -> tuple[Tensor, Optional[Tensor]]:
        """Turn the mask logits of all cells (B, cells, classes) into class scores (B, classes, h, w) in [0, 1].

        `class_logits` (B, classes, 2) are those of the last head: they hold for all tokens. Returns the refined mask
        logits as well, None where the model does not refine.
        """
        present = AtmHead.class_probability(class_logits)[:, :, None, None]  # (B, classes, 1, 1)
        masks = to_grid(cell_masks.float(), grid_hw)
        scores = present * masks.sigmoid()
        if self.refinement is None:
            return scores, None
        refined = self.refinement(masks, scores, detail)
        return present * refined.sigmoid(), refined

    def window_logits(self, image: Tensor) -> PolicyLogits:
        """Return the policy network's logits for a normalised image (B, 3, H, W), and run nothing else."""
        image = pad_to_multiple(image, self.spec.backbone.patch_size)
        return self.policy(image, self.encoder.patch_grid)

    def _heads(self, variant: Variant, supervise: bool) -> list[tuple[int, nn.Module]]:
        layers = self.spec.auxiliary_layers if supervise else variant.prune_layers
        auxiliary = [(layer, self.auxiliary_heads[str(layer)]) for layer in layers]
        return [*auxiliary, (self.spec.backbone.depth, self.head)]

    def _prune(
        self, tokens: Tensor, alive: AliveTokens, pruned_after: Tensor, prediction: AtmOutput, layer: int, stage: int,
        budget: TokenBudget,
    ) -> tuple[Tensor, AliveTokens, Tensor]:  # fmt: skip
        with torch.no_grad():
            present = AtmHead.class_probability(prediction.class_logits)
            confidence, classes = class_confidence(present, prediction.mask_logits.float())
            keep = budget.keep_at(stage)
            if keep is None:
                finished = finished_by_threshold(
                    confidence, classes, budget.threshold, budget.keep_per_class, alive.valid
                )
            else:
                stay = stay_by_count(confidence, keep)
                finished = torch.ones_like(alive.index).scatter(1, stay, torch.zeros_like(stay)) > 0
            marks = torch.where(finished, layer, pruned_after.gather(1, alive.index))
            pruned_after = pruned_after.scatter(1, alive.index, marks)
            if keep is None:
                stay, alive = drop_finished(alive, finished, pruned_after.shape[1] - 1)
            else:
                alive = keep_only(alive, stay)
        return self.encoder.pick(tokens, stay), alive, pruned_after

    def _patch_tokens(self, tokens: Tensor, layer: int) -> Tensor:
        """Return what a head after `layer` sees: (B, prefix + N, C) -> (B, N, C), normed after the last layer."""
        if layer == self.spec.backbone.depth:
            return self.encoder.finish(tokens)
        return tokens[:, self.encoder.num_prefix_tokens :]

    def _without_pruning(
        self, tokens: Tensor, layout: TokenLayout, policy_logits: Optional[PolicyLogits]
    ) -> SegmenterOutput:
        batch, layer, seen = tokens.shape[0], 0, []
        for head_layer in self.head_layers:
            tokens = self.encoder.run(tokens, layer + 1, head_layer)
            layer = head_layer
            seen.append(self._patch_tokens(tokens, layer))
        mix, kind = None, 'logits'
        if isinstance(self.head, SegVitHead):
            prediction = self.head(seen)
            token_scores, kind = prediction.mask_logits.transpose(1, 2), 'mask_logits'
            mix = self.head.class_mix(prediction.class_logits)
        else:
            token_scores = self.head(seen[-1])
        untouched = torch.zeros(batch, layout.num_tokens, dtype=torch.int64, device=tokens.device)
        scores = to_grid(layout.unmerge(token_scores.float()), layout.grid_hw)
        return SegmenterOutput(scores, kind, self.spec.cell_px, layout, (), untouched, policy_logits, mix)


def pad_to_multiple(image: Tensor, side: int) -> Tensor:
    """Pad (B, C, H, W) with zeros, right and bottom, to sides divisible by `side`."""
    height, width = image.shape[2:]
    if height % side == 0 and width % side == 0:
        return image
    return F.pad(image, (0, -width % side, 0, -height % side))


def to_grid(cells: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Reshape (B, cells, C) -> contiguous (B, C, gh, gw)."""
    return cells.transpose(1, 2).contiguous().unflatten(2, grid_hw)
