"""The segmenter as modules of plain tensors, to be traced: whole, or cut where tokens leave.

With a fixed keep every shape is known beforehand, and `WholeNetwork` is one graph. With a threshold the number of
tokens depends on the image: `HeadNetwork` runs up to the first pruning layer, the caller picks the tokens that stay,
and `TailNetwork` goes on with these, as many as there are; `MiddleNetwork` stands between two pruning layers.

Which windows merge is an input, `token_source` (B, N) and `token_of_cell` (B, cells) int32 of
`network/token_merging.py`, and the policy network a graph of its own, `PolicyScores`.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead, AtmOutput
from hybrid_seg_ros.network.merge_policy import window_scores
from hybrid_seg_ros.network.segmenter import HybridSegmenter, SegmenterOutput
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.token_merging import score_name
from hybrid_seg_ros.network.token_pruning import class_confidence


class PolicyScores(nn.Module):
    """RGB images (B, H, W, 3) uint8 to what the policy network says of the windows of each side w.

    Returns `scores_w` (B, gh // w, gw // w) float32 for each of `window_sizes`: higher = rather share a token.
    """

    def __init__(self, model: HybridSegmenter, grid_hw: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.grid_hw = model, grid_hw
        self.output_names = tuple(score_name(window) for window in model.spec.window_sizes)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Score the windows of images (B, H, W, 3) uint8."""
        scores = window_scores(self.model.window_logits(self.model.normalize(image)), self.grid_hw)
        return tuple(scores[window] for window in self.model.spec.window_sizes)


class WholeNetwork(nn.Module):
    """RGB images (B, H, W, 3) uint8 to class scores, or with `labels` to a label map, and where tokens left.

    Returns a tensor for each of `output_names`: `scores` (B, S, h, w) float32 with `class_mix` (B, classes, S) for
    kind mask_logits, or `labels` (B, H, W) uint8 and `confidence` (B, H, W) float32; then, where tokens
    leave, `pruned_after_layer` (B, gh, gw) uint8. Pruning must be by a fixed keep.
    `windows` are those of the layout's table.
    """

    def __init__(
        self, model: HybridSegmenter, variant: Variant, budget: TokenBudget, grid_hw: tuple[int, int],
        windows: tuple[int, ...] = (1,), labels: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if variant.prune_layers and budget.keep is None:
            raise ValueError(f'variant {variant} in one graph: expected a fixed keep, got threshold {budget.threshold}')
        self.model, self.variant, self.budget, self.labels = model, variant, budget, labels
        self.grid_hw, self.windows = grid_hw, windows
        mixed = model.spec.head in ('segvit_atm', 'segvit_atm_v2')
        first = ('labels', 'confidence') if labels else ('scores', 'class_mix') if mixed else ('scores',)
        self.output_names: tuple[str, ...] = (*first, *(('pruned_after_layer',) if variant.prune_layers else ()))

    def forward(self, image: Tensor, *layout: Tensor) -> tuple[Tensor, ...]:
        """Segment images (B, H, W, 3) uint8; `layout` is `token_source` and `token_of_cell`, where windows merge."""
        entering = TokenLayout(self.grid_hw, self.windows, *layout) if layout else None
        output = self.model(self.model.normalize(image), self.variant, self.budget, layout=entering)
        if self.labels:
            first = label_map(output, (int(image.shape[1]), int(image.shape[2])))
        else:
            first = (output.scores.float(),)
            if output.class_mix is not None:
                first = (*first, output.class_mix.float().transpose(1, 2))
        if not self.variant.prune_layers:
            return first
        pruned_after = output.layout.unmerge(output.pruned_after_layer.float()[:, :, None])
        return (*first, pruned_after.unflatten(1, self.grid_hw)[..., 0].to(torch.uint8))


class HeadNetwork(nn.Module):
    """An RGB image (1, H, W, 3) uint8 up to the first pruning layer.

    Returns `next_tokens` (1, N, C), `masks` (1, N, classes), `confidence` (1, N) float32, `token_class` (1, N) int32,
    and where the model refines its masks `detail`.
    """

    def __init__(
        self, model: HybridSegmenter, variant: Variant, budget: TokenBudget, grid_hw: tuple[int, int],
        windows: tuple[int, ...] = (1,),
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.variant, self.budget, self.grid_hw, self.windows = model, variant, budget, grid_hw, windows
        self.layer = variant.prune_layers[0]
        self.output_names: tuple[str, ...] = (*MiddleNetwork.output_names, *refinement_inputs(model))

    def forward(self, image: Tensor, token_source: Optional[Tensor] = None) -> tuple[Tensor, ...]:
        """Run merging and the first layers; which cell gets which token is the tail's business."""
        model, layout = self.model, None
        if token_source is not None:
            layout = TokenLayout(self.grid_hw, self.windows, token_source, token_of_cell=token_source)
        entering = model.enter(model.normalize(image), self.variant, self.budget, layout=layout)
        tokens, prediction = model.advance(entering.tokens, 0, self.layer, model.auxiliary_heads[str(self.layer)])
        features = () if model.refinement is None else (entering.detail,)
        return (tokens, prediction.mask_logits.transpose(1, 2), *decision(prediction), *features)


class MiddleNetwork(nn.Module):
    """From one pruning layer to the next: `tokens` (1, N, C) and `stay` (k,) int32, the ones that go on.

    Returns `next_tokens` (1, k, C), `masks` (1, k, classes), `confidence` (1, k) float32, `token_class` (1, k) int32.
    """

    output_names = ('next_tokens', 'masks', 'confidence', 'token_class')

    def __init__(self, model: HybridSegmenter, layer: int, next_layer: int) -> None:
        super().__init__()
        self.model, self.layer, self.next_layer = model, layer, next_layer

    def forward(self, tokens: Tensor, stay: Tensor) -> tuple[Tensor, ...]:
        """Run the layers behind `layer` up to `next_layer`."""
        head = self.model.auxiliary_heads[str(self.next_layer)]
        tokens = self.model.encoder.pick(tokens, stay[None])
        tokens, prediction = self.model.advance(tokens, self.layer, self.next_layer, head)
        return (tokens, prediction.mask_logits.transpose(1, 2), *decision(prediction))


class TailNetwork(nn.Module):
    """From the last pruning layer to the class scores: `tokens` (1, N, C), `stay` (k,) int32, and what came before.

    `row_of_cell` (cells,) int32 names for each cell the row of mask logits that it gets: of `masks`, (1, M, classes)
    from each earlier head, one after the other, with those of the last head behind them. Returns `scores`
    (1, classes, h, w) float32.
    """

    output_names = ('scores',)

    def __init__(self, model: HybridSegmenter, variant: Variant, grid_hw: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.layer, self.grid_hw = model, variant.prune_layers[-1], grid_hw
        self.num_masks = len(variant.prune_layers)

    def forward(self, tokens: Tensor, stay: Tensor, row_of_cell: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Run the last layers and the last head; `others` are the earlier masks, then `detail`."""
        masks, features = others[: self.num_masks], others[self.num_masks :]
        model, depth = self.model, self.model.spec.backbone.depth
        _, prediction = model.advance(model.encoder.pick(tokens, stay[None]), self.layer, depth, model.head)
        rows = torch.cat([*masks, prediction.mask_logits.transpose(1, 2)], 1)
        cell_masks = rows.index_select(1, row_of_cell)
        scores, _ = model.class_scores(cell_masks, prediction.class_logits, self.grid_hw, *(features or (None,)))
        return (scores.float(),)


def refinement_inputs(model: HybridSegmenter) -> tuple[str, ...]:
    """Name what the last part of the network needs beside tokens and masks."""
    return () if model.refinement is None else ('detail',)


def decision(prediction: AtmOutput) -> tuple[Tensor, Tensor]:
    """Return confidence (B, N) float32 and class (B, N) int32 of each token."""
    present = AtmHead.class_probability(prediction.class_logits)
    confidence, classes = class_confidence(present, prediction.mask_logits.float())
    return confidence.float(), classes.to(torch.int32)


def label_map(output: SegmenterOutput, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return labels (B, H, W) uint8 and confidence (B, H, W) float32 in [0, 1] at the network's own size.

    Scores are upsampled bilinearly, and the highest wins. The confidence of class logits is their softmax in the cells,
    upsampled likewise.
    """
    grid_hw = tuple(int(side) for side in output.scores.shape[2:])
    padded_hw = tuple(side * output.cell_px for side in grid_hw)  # sides that are no multiple of a patch were padded

    def upsample(scores: Tensor) -> Tensor:
        full = F.interpolate(scores.float(), size=padded_hw, mode='bilinear', align_corners=False)
        return full if padded_hw == size_hw else full[:, :, : size_hw[0], : size_hw[1]]

    if output.kind == 'mask_logits':
        masks = upsample(output.scores).sigmoid().flatten(2)  # (B, S, H*W)
        scores = (output.class_mix.float().transpose(1, 2) @ masks).unflatten(2, size_hw)
    else:
        scores = upsample(output.scores)
    confidence, labels = scores.max(1)
    if output.kind == 'logits':
        probability = upsample(output.scores.float().softmax(1))
        confidence = probability.gather(1, labels[:, None])[:, 0]
    return labels.float().to(torch.uint8), confidence.clamp(0.0, 1.0)
