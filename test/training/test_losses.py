"""The ATM loss from its definition, one mask at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from hybrid_seg_ros.training.losses import (
    atm_loss,
    classes_present,
    distillation_loss,
    kept_share,
    lovasz_softmax,
    pixel_cross_entropy,
    policy_loss,
    sample_masks,
)

CLASSES = 4


def case(outputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (2, 12, 20), generator=generator)  # class 3 is in no image
    labels[0, :4] = 255
    labels[1][labels[1] == 0] = 1  # class 0 only in the first
    class_logits = torch.randn(2, CLASSES, outputs, generator=generator)
    return class_logits, torch.randn(2, CLASSES, 3, 5, generator=generator), labels


@pytest.mark.parametrize('outputs', [2, CLASSES + 1])
def test_against_the_definition(outputs):
    class_logits, mask_logits, labels = case(outputs)
    upsampled = F.interpolate(mask_logits, size=labels.shape[1:], mode='bilinear', align_corners=False)
    focal = dice = entropy = weights = 0.0
    masks = 0
    for image in range(2):
        for label in range(CLASSES):
            target = labels[image] == label
            present = bool(target.any())
            index = (0 if outputs == 2 else label) if present else outputs - 1
            weight = 1.0 if present else 0.1
            entropy -= weight * float(class_logits[image, label].log_softmax(0)[index])
            weights += weight
            if not present:
                continue
            masks += 1
            p = upsampled[image, label].sigmoid()
            hit = torch.where(target, p, 1 - p)
            alpha = torch.where(target, 0.25, 0.75)
            focal += float((-alpha * (1 - hit) ** 2 * hit.log()).mean())
            dice += float(1 - (2 * p[target].sum() + 1) / (p.sum() + target.sum() + 1))
    loss = atm_loss(class_logits, mask_logits, labels)
    assert masks == 5
    assert loss.classification.item() == pytest.approx(entropy / weights, rel=1e-5)
    assert loss.mask.item() == pytest.approx(20 * focal / masks, rel=1e-4)
    assert loss.dice.item() == pytest.approx(dice / masks, rel=1e-5)
    assert loss.total.item() == pytest.approx(sum(map(float, (loss.classification, loss.mask, loss.dice))))


def test_a_head_that_is_certain_of_every_class_has_no_first_term():
    class_logits, mask_logits, labels = case(2)
    class_logits.requires_grad_(), mask_logits.requires_grad_()
    loss, whole = (atm_loss(class_logits, mask_logits, labels, classified) for classified in (False, True))
    assert loss.classification == 0 < whole.classification
    assert (loss.mask, loss.dice) == (whole.mask, whole.dice) and loss.total == loss.mask + loss.dice
    loss.total.backward()
    assert class_logits.grad is None and mask_logits.grad.abs().sum() > 0


def test_a_batch_without_any_label_is_finite():
    class_logits, mask_logits, labels = case(2)
    class_logits.requires_grad_(), mask_logits.requires_grad_()
    loss = atm_loss(class_logits, mask_logits, torch.full_like(labels, 255))
    loss.total.backward()
    assert loss.mask == loss.dice == 0 and loss.classification.isfinite()
    assert mask_logits.grad.eq(0).all() and class_logits.grad.isfinite().all()
    nothing = pixel_cross_entropy(torch.randn(2, CLASSES, 12, 20), torch.full_like(labels, 255))
    assert nothing.item() == 0


def test_a_perfect_prediction_costs_almost_nothing():
    labels = torch.tensor([[[0, 0, 1], [2, 2, 1]]])
    masks = (F.one_hot(labels, CLASSES).permute(0, 3, 1, 2) * 2.0 - 1) * 30
    present = classes_present(labels, CLASSES)
    class_logits = torch.stack([present, ~present], 2) * 30.0
    assert atm_loss(class_logits, masks, labels).total < 1e-4


def test_wrong_number_of_outputs():
    class_logits, mask_logits, labels = case(3)
    with pytest.raises(ValueError, match='expected 2 or 5 outputs per query, got 3'):
        atm_loss(class_logits, mask_logits, labels)


def test_pixel_cross_entropy():
    scores, labels = torch.zeros(2, CLASSES, 12, 20), case(2)[2]
    assert pixel_cross_entropy(scores, labels).item() == pytest.approx(math.log(CLASSES))
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0])
    known = labels[labels != 255]
    expected = math.log(CLASSES) * weights[known].mean().item()
    assert pixel_cross_entropy(scores, labels, weights).item() == pytest.approx(expected, rel=1e-5)


def test_sampled_masks_are_pixels_of_the_upsampled_ones():
    masks = torch.randn(2, CLASSES, 3, 5)
    upsampled = F.interpolate(masks, size=(12, 40), mode='bilinear', align_corners=False)
    torch.testing.assert_close(sample_masks(masks, (12, 40), (3, 1), 4), upsampled[:, :, 3::4, 1::4])
    assert torch.equal(sample_masks(masks, (3, 5), (0, 0), 1), masks)


def test_policy_loss():
    """Ignored windows do not count; logits may reach past the labels' grid."""
    logits = torch.randn(2, 2, 3, 4)
    targets = torch.tensor([[[0, 1, 255], [1, 255, 0]], [[255] * 3] * 2])
    log_p = logits.log_softmax(1)
    expected = -sum(
        log_p[0, targets[0, r, c], r, c] for r in range(2) for c in range(3) if targets[0, r, c] != 255
    ) / 4
    assert policy_loss({2: logits}, {2: targets}).item() == pytest.approx(expected.item(), rel=1e-5)
    assert policy_loss({2: logits}, {2: torch.full_like(targets, 255)}).item() == 0


def test_policy_losses_of_several_window_sizes_add_up():
    """Each is a mean over its own windows; a grid without any window of a size adds nothing."""
    logits = {2: torch.randn(2, 2, 4, 6), 4: torch.randn(2, 2, 2, 3), 8: torch.randn(2, 2, 1, 1)}
    targets = {2: torch.randint(0, 2, (2, 4, 6)), 4: torch.randint(0, 2, (2, 2, 3)), 8: torch.zeros(2, 0, 0).long()}
    each = [policy_loss({size: logits[size]}, targets).item() for size in logits]
    assert min(each[:2]) > 0 and each[2] == 0
    assert policy_loss(logits, targets).item() == pytest.approx(sum(each), rel=1e-5)


def test_kept_share():
    """Of a mixed window the most frequent class stays, the others' pixels are lost, rare classes the more."""
    labels = torch.zeros(1, 8, 10, dtype=torch.long)  # whole windows of 4 pixels: two rows, two columns
    labels[0, :2, :2] = 1
    labels[0, 4:, :3], labels[0, 4:, 3] = 255, 2
    labels[0, 4:, 4:8] = 255
    shares = kept_share(labels, 3, (2, 4), 2, torch.tensor([1.0, 2.0, 3.0]))
    assert shares[2].tolist() == [[[0.5, 1.0], [1.0, 1.0]]]  # a quarter is class 1; void does not count
    alone = kept_share(labels, 3, (2,), 2, torch.tensor([1.0, 9.0, 9.0]))[2]
    assert alone[0, 0, 0] == 0 and alone.min() == 0  # never below
    assert shares[4].shape == (1, 1, 1) and shares[4].item() == pytest.approx(1 - (2 * 4 + 3 * 4) / 36)
    assert kept_share(labels, 3, (8,), 2, torch.ones(3))[8].shape == (1, 0, 0)
    unweighted = kept_share(labels, 3, (2,), 2)[2]
    assert torch.equal(unweighted, kept_share(labels, 3, (2,), 2, torch.ones(3))[2])


def test_a_policy_that_says_the_share_loses_least():
    share = torch.rand(1, 3, 4)
    said = {2: torch.stack([torch.zeros_like(share), share.logit()], 1)}
    least = policy_loss(said, {2: share}).item()
    for change in (-0.5, 0.5):
        assert policy_loss({2: said[2] + torch.tensor([0.0, change])[:, None, None]}, {2: share}).item() > least


def test_distillation():
    """Least where the student says what the teacher says: there it is the teacher's entropy."""
    teacher, student = torch.randn(2, CLASSES, 3, 5), torch.randn(2, CLASSES, 3, 5)
    p = teacher.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    assert distillation_loss(teacher + 7.0, teacher).item() == pytest.approx(entropy.item(), rel=1e-5)
    divergence = (p * (p.log() - student.log_softmax(1))).sum(1).mean()
    assert distillation_loss(student, teacher).item() == pytest.approx((entropy + divergence).item(), rel=1e-5)


def test_lovasz_of_hard_predictions_is_one_minus_iou():
    """Over the classes that occur; void pixels do not count."""
    labels = torch.tensor([[[0, 0, 1, 1], [2, 2, 255, 1]]])
    predicted = torch.tensor([[[0, 1, 1, 1], [2, 0, 3, 1]]])
    scores = F.one_hot(predicted, CLASSES).permute(0, 3, 1, 2) * 100.0
    expected = 1 - (1 / 3 + 3 / 4 + 1 / 2) / 3
    assert lovasz_softmax(scores, labels).item() == pytest.approx(expected, abs=1e-6)


def test_lovasz_trains_and_is_finite():
    labels = case(2)[2]
    scores = torch.zeros(2, CLASSES, 12, 20, requires_grad=True)
    losses = []
    for _ in range(60):
        loss = lovasz_softmax(scores, labels)
        (gradient,) = torch.autograd.grad(loss, scores)
        scores = (scores - 20.0 * gradient).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02
    nothing = lovasz_softmax(scores, torch.full_like(labels, 255))
    assert nothing.item() == 0 and torch.autograd.grad(nothing, scores)[0].eq(0).all()
