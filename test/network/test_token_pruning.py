"""Early pruning, batched, against a plain loop over images written from the paper's rule."""

import pytest
import torch

from hybrid_seg_ros.network.token_layout import gather_tokens
from hybrid_seg_ros.network.token_merging import kept_count
from hybrid_seg_ros.network.token_pruning import (
    AliveTokens,
    class_confidence,
    drop_finished,
    finished_by_threshold,
    keep_only,
    stay_by_count,
    write_back,
)

CPU = torch.device('cpu')


def random_case(seed, batch=3, count=60, classes=4, padded=False):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(batch, count, generator=generator)
    labels = torch.randint(0, classes, (batch, count), generator=generator)
    valid = torch.arange(count) < torch.tensor([[count], [count - 7], [3]])[:batch] if padded else None
    return confidence, labels, valid


def naive_finished(confidence, classes, threshold, keep_per_class):
    """One image, as DToP says it: prune what is above the threshold, but the top k of each class among that stay."""
    finished = [value > threshold for value in confidence.tolist()]
    for label in set(classes.tolist()):
        candidates = [i for i, done in enumerate(finished) if done and classes[i] == label]
        candidates.sort(key=lambda i: -confidence[i].item())
        for i in candidates[:keep_per_class]:
            finished[i] = False
    if all(finished):
        finished[int(confidence.argmin())] = False
    return finished


@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize('keep_per_class', [5, 1, 0])
@pytest.mark.parametrize('threshold', [0.05, 0.5, 0.9])
@pytest.mark.parametrize('seed', range(4))
def test_threshold_against_a_loop(seed, threshold, keep_per_class, padded):
    confidence, classes, valid = random_case(seed, padded=padded)
    finished = finished_by_threshold(confidence, classes, threshold, keep_per_class, valid)
    for image in range(len(confidence)):
        real = slice(None) if valid is None else valid[image]
        expected = naive_finished(confidence[image][real], classes[image][real], threshold, keep_per_class)
        assert finished[image][real].tolist() == expected
        assert valid is None or not finished[image][~valid[image]].any()


@pytest.mark.parametrize('padded', [False, True])
def test_threshold_1_is_the_identity(padded):
    confidence, classes, valid = random_case(0, padded=padded)
    confidence[:, :20] = 1.0
    assert not finished_by_threshold(confidence, classes, 1.0, 0, valid).any()


def test_threshold_is_strict():
    confidence, classes = torch.full((1, 4), 0.5), torch.zeros(1, 4, dtype=torch.int64)
    assert not finished_by_threshold(confidence, classes, 0.5, 0).any()
    assert finished_by_threshold(confidence, classes, 0.4999, 0).sum() == 3


def test_one_token_stays():
    confidence = torch.tensor([[0.9, 0.8, 0.95], [0.99, 0.97, 0.98]])
    finished = finished_by_threshold(confidence, torch.zeros(2, 3, dtype=torch.int64), 0.1, 0)
    assert finished.tolist() == [[True, False, True], [True, False, True]]


def test_one_token_stays_beside_padding():
    confidence, valid = torch.tensor([[0.9, 0.8, 0.1]]), torch.tensor([[True, True, False]])
    finished = finished_by_threshold(confidence, torch.zeros(1, 3, dtype=torch.int64), 0.2, 0, valid)
    assert finished.tolist() == [[True, False, False]]


def test_every_class_keeps_its_most_confident():
    confidence = torch.tensor([[0.99, 0.98, 0.97, 0.91, 0.3]])
    classes = torch.tensor([[0, 0, 0, 1, 1]])
    assert finished_by_threshold(confidence, classes, 0.9, 2).tolist() == [[False, False, True, False, False]]


@pytest.mark.parametrize('keep', [1.0, 0.6, 0.001, 1, 7, 1000])
def test_a_fixed_count_keeps_the_least_confident(keep):
    confidence, _, _ = random_case(0)
    stay = stay_by_count(confidence, keep)
    for image in range(3):
        least = confidence[image].sort().values[: kept_count(60, keep)]
        assert sorted(confidence[image][stay[image]].tolist()) == least.tolist()
        assert stay[image].tolist() == sorted(set(stay[image].tolist()))


def test_a_fixed_count_with_ties():
    stay = stay_by_count(torch.zeros(2, 9), 4)
    assert [len(set(image)) for image in stay.tolist()] == [4, 4]


def test_class_confidence_against_a_loop():
    torch.manual_seed(0)
    present, masks = torch.rand(2, 3), torch.randn(2, 3, 5)
    confidence, classes = class_confidence(present, masks)
    for image in range(2):
        for token in range(5):
            scores = [float(present[image, c] * masks[image, c, token].sigmoid()) for c in range(3)]
            assert confidence[image, token].item() == pytest.approx(max(scores), abs=1e-7)
            assert classes[image, token] == scores.index(max(scores))


def run_drops(finished_per_stage, count=12, dim=2):
    """Drop stage after stage; tokens carry their own number."""
    batch = len(finished_per_stage[0])
    alive = AliveTokens.all(batch, count, CPU)
    tokens = torch.arange(float(count))[None, :, None].expand(batch, -1, dim)
    expected = [list(range(count)) for _ in range(batch)]
    for leaving in finished_per_stage:
        finished = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        for image in range(batch):
            finished[image, [expected[image].index(token) for token in leaving[image]]] = True
            expected[image] = [token for token in expected[image] if token not in leaving[image]]
        stay, alive = drop_finished(alive, finished, count)
        tokens = gather_tokens(tokens, stay)
        check_alive(tokens, alive, expected, count)
    return alive


def check_alive(tokens, alive, expected, count):
    lengths = [len(left) for left in expected]
    assert tokens.shape[1] == alive.index.shape[1] == max(lengths)
    assert alive.counts().tolist() == lengths
    assert (alive.valid is None) == (len(set(lengths)) == 1)
    for image, left in enumerate(expected):
        assert alive.index[image, : len(left)].tolist() == left, 'order kept'
        assert tokens[image, : len(left), 0].tolist() == left
        assert alive.index[image, len(left) :].tolist() == [count] * (max(lengths) - len(left))
        assert alive.valid is None or alive.valid[image].tolist() == [i < len(left) for i in range(max(lengths))]


@pytest.mark.parametrize(
    'stages',
    [
        [[[], []]],
        [[[0, 5], [1, 2]]],
        [[[0, 5, 11], [1]]],
        [[[], [0, 1, 2]]],  # one image keeps everything
        [[[0, 5, 11], [1]], [[], [3, 4]], [[1, 2], [0]]],
        [[[0, 1, 2], []], [[], []]],  # nothing leaves from a padded batch
        [[[0, 1, 2], []], [[], [0, 1, 2]]],  # and the padding goes again
        [[list(range(11)), []], [[], list(range(1, 12))]],
    ],
)
def test_drop_finished(stages):
    run_drops(stages)


def test_keep_only():
    alive = keep_only(AliveTokens.all(2, 6, CPU), torch.tensor([[1, 2, 4], [0, 1, 5]]))
    alive = keep_only(alive, torch.tensor([[0, 2], [1, 2]]))
    assert alive.valid is None
    assert alive.index.tolist() == [[1, 4], [1, 5]]


def test_a_fixed_count_needs_as_many_tokens_in_each_image():
    padded = AliveTokens(torch.tensor([[0, 1], [0, 2]]), torch.tensor([[True, True], [True, False]]))
    with pytest.raises(ValueError, match='cannot follow threshold pruning'):
        keep_only(padded, torch.tensor([[0], [0]]))


def test_write_back_touches_only_alive_columns():
    canvas, values = torch.zeros(2, 3, 6), torch.randn(2, 3, 4)
    alive = AliveTokens(
        torch.tensor([[0, 2, 3, 4], [1, 3, 5, 5]]), torch.tensor([[True] * 4, [True, True, False, False]])
    )
    written = write_back(canvas, values, alive)
    assert canvas.abs().sum() == 0, 'the argument is left alone'
    assert torch.equal(written[0, :, [0, 2, 3, 4]], values[0])
    assert torch.equal(written[1, :, [1, 3]], values[1, :, :2])
    assert written[0, :, [1, 5]].abs().sum() == 0 and written[1, :, [0, 2, 4]].abs().sum() == 0


def test_write_back_carries_gradients_to_both():
    canvas, values = torch.zeros(1, 2, 4, requires_grad=True), torch.zeros(1, 2, 2, requires_grad=True)
    write_back(canvas, values, AliveTokens(torch.tensor([[0, 2]]), None)).sum().backward()
    assert canvas.grad[0, 0].tolist() == [0, 1, 0, 1]
    assert values.grad.eq(1).all()
