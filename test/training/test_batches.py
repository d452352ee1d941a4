"""Batches: a pure function of seed and number, whoever prepares them."""

import numpy as np
import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_training import tiny_config

from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.data.segmentation_dataset import Sample
from hybrid_seg_ros.training import batches as module
from hybrid_seg_ros.training.batches import batches, build_batch, default_workers, random_view, sample_indices
from hybrid_seg_ros.training.devices import Processes

MEAN = (9.0, 9.0, 9.0)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    return open_dataset('camvid', write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=3, val=1), 'train')


def equal(first, second):
    parts = [[batch.images, batch.labels, *batch.policy_labels.values()] for batch in (first, second)]
    return first.names == second.names and all(map(torch.equal, *parts))


def test_each_epoch_sees_every_sample_once():
    seen = [index for number in range(6) for index in sample_indices(number, 2, 4, seed=3)]
    assert [sorted(seen[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert seen[:4] != seen[4:8] or seen[4:8] != seen[8:]


def test_a_batch_is_a_function_of_seed_and_number(dataset):
    first, again, other = (build_batch(dataset.__getitem__, 3, number, tiny_config(), MEAN) for number in (4, 4, 5))
    assert equal(first, again) and not torch.equal(first.images, other.images)
    assert first.number == 4 and len(first.names) == 2
    assert first.images.shape == (2, 64, 64, 3) and first.images.dtype == torch.uint8
    assert first.labels.shape == (2, 64, 64)
    windows = {side: tuple(labels.shape) for side, labels in first.policy_labels.items()}
    assert windows == {2: (2, 2, 2), 4: (2, 1, 1), 8: (2, 0, 0)}
    assert set(first.labels.unique().tolist()) <= {0, 3, 255}


def test_small_batches_hold_what_a_large_one_does(dataset):
    large = build_batch(dataset.__getitem__, 3, 3, tiny_config(batch_size=4), MEAN)
    small = [build_batch(dataset.__getitem__, 3, number, tiny_config(batch_size=2), MEAN) for number in (6, 7)]
    for part in ('images', 'labels'):
        assert torch.equal(getattr(large, part), torch.cat([getattr(each, part) for each in small]))
    assert large.names == small[0].names + small[1].names


@pytest.mark.parametrize('processes, workers', [(Processes(), 3), (Processes(1, 2), 1)])
def test_batches_come_in_order_from_any_number_of_threads(dataset, processes, workers):
    config = tiny_config(accumulate=2)
    steps = list(batches(dataset, 2, 5, config, MEAN, processes, workers))
    assert [step for step, _ in steps] == [2, 3, 4]
    for step, step_batches in steps:
        assert [batch.number for batch in step_batches] == processes.batch_numbers(step, 2)
        for batch in step_batches:
            assert equal(batch, build_batch(dataset.__getitem__, 3, batch.number, config, MEAN))
    assert list(batches(dataset, 5, 5, config, MEAN, processes, workers)) == []


@pytest.mark.parametrize('limit, reads', [(10**9, 3), (0, 12)])
def test_samples_are_kept_as_long_as_they_fit(dataset, monkeypatch, limit, reads):
    monkeypatch.setattr(module, 'CACHE_BYTES', limit)
    seen = []

    class Counting:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            seen.append(index)
            return dataset[index]

    list(batches(Counting(), 0, 6, tiny_config(), MEAN, Processes()))
    assert len(seen) == reads


def test_stretch_keeps_the_whole_image(dataset):
    labels = np.zeros((40, 90), np.uint8)
    labels[:, 45:] = 1
    sample = Sample('half', np.repeat(labels[:, :, None] * np.uint8(200), 3, 2), labels)
    views = [random_view(sample, np.random.default_rng(seed), tiny_config(augmentation='stretch'), MEAN)
             for seed in range(8)]  # fmt: skip
    assert {view.labels.shape for view in views} == {(64, 64)}
    assert {tuple(view.labels[0, [0, -1]]) for view in views} == {(0, 1), (1, 0)}
    for view in views:
        assert (view.labels == 1).mean() == 0.5
        assert (view.image[:, :, 0] > 100).mean() == pytest.approx(0.5, abs=0.02)


def test_a_broken_sample_is_not_swallowed():
    class Broken:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise ValueError('a.png: not a readable image')

    with pytest.raises(ValueError, match=r'a\.png'):
        list(batches(Broken(), 0, 3, tiny_config(), MEAN, Processes()))


def test_a_cpu_that_trains_has_one_thread_for_batches():
    assert default_workers(torch.device('cpu')) == 1
    assert 1 <= default_workers(torch.device('cuda')) <= 8
