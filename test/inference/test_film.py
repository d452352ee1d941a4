"""A film: what the frame before chooses, and when it is not trusted."""

import dataclasses

import cv2
import numpy as np
import pytest
from tiny_model import write_lively_model

from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference import load_pipeline
from hybrid_seg_ros.inference.film import MERGE_BY, WATCHED_FRAMES, Film
from hybrid_seg_ros.inference.preprocess import FrameGeometry
from hybrid_seg_ros.network.token_merging import choose_windows
from hybrid_seg_ros.segmentation import TokenReport

HW, GRID = (128, 192), (8, 12)
WHOLE = FrameGeometry(HW, HW, HW)
COUNTS = {4: 2, 2: 4}
SURE = np.ones(HW, np.float32)


def picture(seed=0):
    """Soft blobs, in which motion can be followed."""
    noise = np.random.default_rng(seed).integers(0, 256, (HW[0] // 8, HW[1] // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, HW[::-1], interpolation=cv2.INTER_CUBIC)


def labels_with_edge(column):
    labels = np.zeros(HW, np.uint8)
    labels[:, column:] = 1
    return labels


def step(film, image, labels, stamp_s, counts=COUNTS, geometry=WHOLE):
    """Show a frame and its answer; return the windows that the frame before chose, as sides per cell, or None."""
    scores = film.scores(image, geometry, 16, stamp_s, counts)
    if scores is None:
        sizes = np.ones(GRID, np.uint8)
    else:
        batch = {window: each[None] for window, each in scores.items()}
        sizes = choose_windows(batch, counts, GRID).window_size()[0]
    merged_by = 'policy' if scores is None else 'previous'
    film.remember(labels, SURE, TokenReport(GRID, sizes, np.zeros(GRID, np.uint8), sizes.size, merged_by=merged_by))
    return None if scores is None else sizes


def test_windows_of_one_class_merge_and_the_border_stays_single():
    film = Film('previous', look_every=1000)
    assert step(film, picture(), labels_with_edge(100), 0.0) is None
    sizes = step(film, picture(), labels_with_edge(100), 0.1)
    assert (sizes == 4).sum() == 2 * 16 and (sizes == 2).sum() == 4 * 4
    assert (sizes[:, 6] == 1).all(), 'the edge at 100 px runs through the cells of column 6'
    assert film.counts == {'policy: first frame': 1, 'previous': 1}


def test_the_answer_moves_with_the_picture():
    """All moves 32 px to the right: so does the border between the classes, and the windows that it keeps single."""
    wide = np.concatenate([picture(1), picture(2)], 1)
    film = Film('previous', look_every=1000)
    for index in range(5):
        edge = 60 + 8 * index
        sizes = step(film, np.ascontiguousarray(wide[:, 100 - 8 * index :][:, : HW[1]]), labels_with_edge(edge),
                     index / 10)  # fmt: skip
        if index:
            assert (sizes[:, edge // 16] == 1).all(), index


def test_what_appears_inside_an_even_window_is_watched():
    film = Film('previous', look_every=1000)
    labels, counts = labels_with_edge(HW[1]), {4: 4}
    for index in range(2):
        before = step(film, picture(), labels, index / 10, counts)
    row, column = np.argwhere(before == 4)[0]
    changed = picture()
    changed[row * 16 + 16 : row * 16 + 48, column * 16 + 16 : column * 16 + 48] = (255, 0, 255)
    for index in range(WATCHED_FRAMES):
        sizes = step(film, changed, labels, 0.2 + index / 10, counts)
        assert (sizes[row + 1 : row + 3, column + 1 : column + 3] == 1).all(), index
    assert film.counts['previous'] == 1 + WATCHED_FRAMES


@pytest.mark.parametrize('look_every', [4, 9])
def test_every_part_is_seen_in_single_tokens_in_time(look_every):
    film, merged_for = Film('previous', look_every), np.zeros(GRID, int)
    for index in range(4 * look_every):
        sizes = step(film, picture(), labels_with_edge(HW[1]), index / 10, {4: 1, 2: 6})
        merged_for = np.zeros(GRID, int) if sizes is None else np.where(sizes > 1, merged_for + 1, 0)
        assert merged_for.max() <= look_every


@pytest.mark.parametrize(('what', 'reason'), [
    ({'stamp_s': 0.1}, 'clock went back'), ({'stamp_s': 0.05}, 'clock went back'), ({'stamp_s': 9.0}, 'gap'),
    ({'geometry': FrameGeometry((64, 96), HW, HW)}, 'another size'), ({'image': picture(7)}, 'cut'),
], ids=['same time', 'earlier', 'gap', 'size', 'cut'])  # fmt: skip
def test_what_is_not_trusted(what, reason):
    film = Film('previous')
    for index in range(2):
        step(film, picture(), labels_with_edge(100), index / 10)
    frame = {'image': picture(), 'labels': labels_with_edge(100), 'stamp_s': 0.2, **what}
    assert step(film, **frame) is None
    assert film.counts[f'policy: {reason}'] == 1
    # the frame after it is trusted again
    assert step(film, frame['image'], frame['labels'], frame['stamp_s'] + 0.1,
                geometry=frame.get('geometry', WHOLE)) is not None  # fmt: skip


def test_auto_trusts_fresh_answers_only():
    film = Film('auto')
    found = [step(film, picture(), labels_with_edge(100), at) is None for at in (0.0, 0.1, 0.2, 0.7, 0.8)]
    assert found == [True, False, False, True, False]


def test_policy_never_asks_the_frame_before():
    film = Film('policy')
    assert [step(film, picture(), labels_with_edge(100), at / 10) for at in range(3)] == [None] * 3


@pytest.mark.parametrize(('arguments', 'complaint'), [
    (('nobody',), f'merge_by: expected {", ".join(MERGE_BY)}'), (('auto', 1), 'look_every: expected at least 2'),
])  # fmt: skip
def test_options_that_do_not_exist(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Film(*arguments)


@pytest.mark.parametrize(('backend', 'variant'), [('pytorch', 'cts'), ('onnxruntime', 'hybrid@6+8')])
def test_the_pipeline_takes_a_film(tmp_path, backend, variant):
    """The frame before rules from the second frame on; windows are those of the budget; a photograph is as before."""
    model = write_lively_model(tmp_path, policy='patch_mlp', input_size_hw=(144, 208), window_sizes=(2, 4))
    pipeline = load_pipeline(model, backend, 'cpu', 'float32', variant, keep=0.6, cache_dir=tmp_path)
    pipeline.set_operating_point(budget=dataclasses.replace(pipeline.budget, merged_windows={4: 1, 2: 5}))
    image = street_scene((144, 208))
    alone = pipeline(image)
    frames = list(pipeline.stream([image] * 4, [0.0, 0.1, 0.2, 5.0], 'auto'))
    assert [frame.tokens.merged_by for frame in frames] == ['policy', 'previous', 'previous', 'policy']
    assert np.array_equal(frames[0].labels, alone.labels) and np.array_equal(frames[3].labels, alone.labels)
    assert {tuple(frame.tokens.windows.items()) for frame in frames} == {((4, 1), (2, 5))}
    assert not np.array_equal(frames[1].tokens.window_size, alone.tokens.window_size)
    pipeline.with_confidence = False  # which the film has all the same
    without = list(pipeline.stream([image] * 2, [0.0, 0.1], 'auto'))
    assert all(np.array_equal(a.tokens.window_size, b.tokens.window_size) for a, b in zip(frames, without))
    pipeline.with_confidence = True
    films = [Film(), Film()]
    batches = [pipeline.segment_batch([image, image[::-1]], films, [at, at]) for at in (0.0, 0.1)]
    assert [one.tokens.merged_by for batch in batches for one in batch] == ['policy'] * 2 + ['previous'] * 2
    assert np.array_equal(batches[1][0].labels, frames[1].labels)
    late = pipeline.segment_batch([image, image[::-1]], films, [0.2, 9.0])
    assert [one.tokens.merged_by for one in late] == ['policy'] * 2
    assert [film.counts for film in films] == [
        {'policy: first frame': 1, 'previous': 1, f'policy: {reason}': 1} for reason in ('another camera', 'gap')]
    pipeline.close()


def test_both_backends_choose_alike(tmp_path):
    model = write_lively_model(tmp_path, policy='patch_mlp', input_size_hw=(144, 208), window_sizes=(2, 4))
    image, found = street_scene((144, 208)), []
    for backend in ('pytorch', 'onnxruntime'):
        pipeline = load_pipeline(model, backend, 'cpu', 'float32', 'cts', cache_dir=tmp_path)
        found.append(list(pipeline.stream([image] * 3, merge_by='previous')))
        with pytest.raises(ValueError, match='stamps_s: expected one for each image, got 1'):
            list(pipeline.stream([image] * 2, [0.0]))
        pipeline.close()
    for one, other in zip(*found):
        assert np.array_equal(one.tokens.window_size, other.tokens.window_size)
        assert np.mean(one.labels == other.labels) > 0.999
