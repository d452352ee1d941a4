"""The ATM loss of SegViT and DToP, and a plain per-pixel cross-entropy.

Source: SegViT (NeurIPS 2022), section 3.3: classification + 20 focal + 1 dice. Pixels without a label count as
negative in every mask, as in the official code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_seg_ros.label_space import UNLABELLED

ABSENT_WEIGHT = 0.1
MASK_WEIGHT = 20.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class AtmLoss:
    """The three terms, weights included."""

    classification: Tensor
    mask: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the terms."""
        return self.classification + self.mask + self.dice


def atm_loss(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, classified: bool = True) -> AtmLoss:
    """Compute the ATM loss of one head; without its first term where the head has none to learn (not `classified`).

    `class_logits` (B, C, K): query c stands for class c. K = 2 is DToP's present (0) / absent (1); K = C + 1 is
    SegViT's class c / none (C). `mask_logits` (B, C, h, w) are upsampled to `labels` (B, H, W) int64, 255 = ignored.
    """
    num_queries, num_outputs = class_logits.shape[1:]
    present = classes_present(labels, num_queries)
    if num_outputs not in (2, num_queries + 1):
        raise ValueError(f'class_logits: expected 2 or {num_queries + 1} outputs per query, got {num_outputs}')
    return AtmLoss(
        classification=_classification_loss(class_logits, present) if classified else mask_logits.new_zeros(()),
        **_mask_losses(mask_logits, labels, present),
    )


def classes_present(labels: Tensor, num_classes: int) -> Tensor:
    """Return (B, C) bool: which classes occur in labels (B, H, W)."""
    return torch.stack([(labels == index).flatten(1).any(1) for index in range(num_classes)], 1)


def pixel_cross_entropy(scores: Tensor, labels: Tensor, class_weights: Optional[Tensor] = None) -> Tensor:
    """Cross-entropy of scores (B, C, H, W), taken as logits, with labels (B, H, W); 255 is ignored.

    With `class_weights` (C,) it is the sum of weighted losses over the number of labelled pixels.
    """
    count = (labels != UNLABELLED).sum().clamp(min=1)
    return F.cross_entropy(scores.float(), labels, class_weights, ignore_index=UNLABELLED, reduction='sum') / count


def lovasz_softmax(scores: Tensor, labels: Tensor) -> Tensor:
    """Lovasz extension of 1 - IoU, averaged over the classes that the batch shows: a smooth loss for mIoU itself.

    `scores` (B, C, H, W) are logits, labels (B, H, W) class ids, 255 = ignored. 0 without any label. Source: Berman et
    al., "The Lovasz-Softmax loss" (CVPR 2018), equations 8 and 11.
    """
    known = labels != UNLABELLED
    probability = scores.float().softmax(1).permute(0, 2, 3, 1)[known]  # (P, C)
    targets = labels[known]
    losses = []
    for index in targets.unique().tolist():
        inside = (targets == index).float()
        errors, order = (inside - probability[:, index]).abs().sort(descending=True)
        inside = inside[order]
        # 1 - IoU if the pixels up to each one, worst first, are wrong
        loss = 1 - (inside.sum() - inside.cumsum(0)) / (inside.sum() + (1 - inside).cumsum(0))
        losses.append((errors * loss.diff(prepend=loss.new_zeros(1))).sum())
    return torch.stack(losses).mean() if losses else scores.float().sum() * 0.0


def sample_masks(masks: Tensor, size_hw: tuple[int, int], first: Sequence[int], stride: int) -> Tensor:
    """Return what masks (B, C, h, w), upsampled to `size_hw`, hold in every `stride`-th row and column from `first` on.

    Bilinear, as in inference, each row and column by two products. Comparing small masks with every n-th label as they
    are would teach them a shift: cell i of stride 4 lies around pixel 4 i + 1.5, which is no pixel.
    """
    rows, columns = (
        F.interpolate(torch.eye(cells, device=masks.device)[None], size=side, mode='linear')[0, :, start::stride]
        for cells, side, start in zip(masks.shape[2:], size_hw, first)
    )
    return rows.T @ masks.float() @ columns


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of the student's class distribution with the teacher's, per cell.

    Both are logits (B, C, h, w); the teacher's should be detached. Source: Hinton et al., 2015, at temperature 1, so
    that the student's confidence learns the teacher's.
    """
    return -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()


def policy_loss(logits: Mapping[int, Tensor], targets: Mapping[int, Tensor]) -> Tensor:
    """Cross-entropy of policy logits (B, 2, h, w) with window targets (B, h, w), added over the window sizes.

    Targets are probabilities to share, so 0 and 1 where they are labels (CTS, section 3.1); 255 is ignored. The
    logits' grid may reach past the labels' whole windows, at the right and at the bottom.
    """
    losses = []
    for window, pair in logits.items():
        known = targets[window] != UNLABELLED
        rows, columns = known.shape[1:]
        score = (pair[:, 1] - pair[:, 0]).float()[:, :rows, :columns][known]
        target = targets[window][known].float()
        total = F.binary_cross_entropy_with_logits(score, target, reduction='sum')
        losses.append(total / known.sum().clamp(min=1))
    return torch.stack(losses).sum()


def kept_share(
    labels: Tensor, num_classes: int, windows: Iterable[int], patch_px: int, class_weights: Optional[Tensor] = None
) -> dict[int, Tensor]:
    """Return per window size (in patches) what share of a window one class can stand for: (B, h, w) float32 in [0, 1].

    It is 1 less the share of the labelled pixels, weighted by `class_weights` (C,), that are not of the window's most
    frequent class. `labels` (B, H, W) int64, 255 = unlabelled; a window without a label has nothing to lose: 1.
    """
    patches = torch.stack(
        [F.avg_pool2d((labels == index).float(), patch_px) for index in range(num_classes)], 1
    )  # (B, C, gh, gw)
    shares = {}
    for window in windows:
        share = F.avg_pool2d(patches, window) if min(patches.shape[2:]) >= window else patches[:, :, :0, :0]
        weighted = share if class_weights is None else share * class_weights.to(labels.device)[:, None, None]
        stays = weighted.gather(1, share.argmax(1, keepdim=True))[:, 0]
        lost = (weighted.sum(1) - stays) / share.sum(1).clamp(min=1e-6)
        shares[window] = 1 - lost.clamp(0, 1)
    return shares


def _classification_loss(class_logits: Tensor, present: Tensor) -> Tensor:
    num_outputs = class_logits.shape[-1]
    if num_outputs == 2:
        targets = present.logical_not().long()
    else:
        own = torch.arange(present.shape[1], device=present.device).expand_as(present)
        targets = torch.where(present, own, torch.full_like(own, num_outputs - 1))
    weight = torch.ones(num_outputs, device=class_logits.device)
    weight[-1] = ABSENT_WEIGHT
    return F.cross_entropy(class_logits.float().flatten(0, 1), targets.flatten(), weight=weight)


def _mask_losses(mask_logits: Tensor, labels: Tensor, present: Tensor) -> dict[str, Tensor]:
    image, query = present.nonzero(as_tuple=True)
    if image.numel() == 0:
        nothing = mask_logits.float().sum() * 0.0
        return {'mask': nothing, 'dice': nothing}
    chosen = mask_logits[image, query].float()[:, None]  # (M, 1, h, w)
    if chosen.shape[2:] != labels.shape[1:]:
        chosen = F.interpolate(chosen, size=labels.shape[1:], mode='bilinear', align_corners=False)
    logits = chosen.flatten(1)
    targets = (labels[image] == query[:, None, None]).to(logits.dtype).flatten(1)  # (M, H*W)
    probability = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction='none')
    of_target = probability * targets + (1 - probability) * (1 - targets)
    alpha = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    focal = (alpha * cross_entropy * (1 - of_target) ** FOCAL_GAMMA).mean(1)
    overlap = 2 * (probability * targets).sum(1)
    dice = 1 - (overlap + 1) / (probability.sum(1) + targets.sum(1) + 1)
    return {'mask': MASK_WEIGHT * focal.sum() / len(image), 'dice': dice.sum() / len(image)}
