"""Scoring a video: against the data set evaluation of the same frames, against dense, and with frames missing."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_model import write_tiny_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import evaluate
from hybrid_seg_ros.evaluation.film.best_frames import BestFrames
from hybrid_seg_ros.evaluation.film.frame import FrameResult, VideoFrame
from hybrid_seg_ros.evaluation.film.page import film_page
from hybrid_seg_ros.evaluation.film.report import FilmReport, LiveCounts
from hybrid_seg_ros.evaluation.film.scoring import Row, reference_of, row_name, score_film
from hybrid_seg_ros.evaluation.pages.html_page import render_page
from hybrid_seg_ros.model_spec import Variant

COUNT = 5


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    return open_dataset('camvid', write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=1, val=COUNT), 'val')


@pytest.fixture(scope='module')
def pipelines(tmp_path_factory):
    torch.set_num_threads(1)
    model = write_tiny_model(tmp_path_factory.mktemp('model'))
    return {name: load_pipeline(model, 'pytorch', 'cpu', variant=name) for name in ('hybrid@6+8', 'dense')}


def frames_of(dataset, truth=True):
    for index in range(len(dataset)):
        sample = dataset[index]
        truth_labels = sample.labels if truth else None
        yield VideoFrame(index, 10_000_000_000 + index * 100_000_000, 0.1 * index, sample.image, truth_labels)


def row(pipelines, name, shown=True, drops=(), live=None):
    def source(frame):
        return None if frame.index in drops else FrameResult.of(pipelines[name](frame.image))

    return Row(Variant.parse(name), 'pytorch', 'float32', 'cpu', source, live, shown)


def run(pipelines, frames, rows, focus=0):
    spec = pipelines['dense'].spec
    best_frames = BestFrames(spec.classes, [str(each.variant) for each in rows if each.shown], focus)
    return score_film(frames, rows, spec, best_frames), best_frames


def report_of(result, mode='offline', **others):
    return FilmReport(**vars(result), video='bags/x', mode=mode, model='tiny', pruning='threshold 0.3',
                      truth='/labels', **others)  # fmt: skip


def test_the_figures_are_those_of_evaluate(dataset, pipelines):
    result, _ = run(pipelines, frames_of(dataset), [row(pipelines, 'hybrid@6+8'), row(pipelines, 'dense')])
    for figures in result.rows:
        expected = evaluate(pipelines[figures.variant], dataset)
        for name in ('miou', 'pixel_accuracy', 'iou_per_class', 'tokens_mean', 'gflops_mean', 'frames'):
            assert getattr(figures, name) == getattr(expected, name), name
        assert set(figures.median_ms) == set(expected.median_ms)
    assert result.rows[0].agreement > 0 and result.rows[1].agreement is None
    assert result.frames == COUNT and result.duration_s == pytest.approx(0.4)


def test_without_ground_truth_the_dense_model_is_compared_with(dataset, pipelines):
    rows = [row(pipelines, 'hybrid@6+8'), row(pipelines, 'dense', shown=False)]
    result, best_frames = run(pipelines, frames_of(dataset, truth=False), rows)
    assert [figures.variant for figures in result.rows] == ['hybrid@6+8']
    figures, records = result.rows[0], result.records[0]
    same = [
        np.mean(pipelines['hybrid@6+8'](frame.image).labels == pipelines['dense'](frame.image).labels)
        for frame in frames_of(dataset)
    ]
    assert figures.miou is None and figures.iou_per_class == {} and figures.labelled_frames == 0
    assert [record.agreement for record in records] == pytest.approx([100 * share for share in same])
    assert figures.agreement == pytest.approx(100 * np.mean(same)) and 0 < figures.agreement_miou < 100
    assert 'agreement with dense' in render_page(film_page(report_of(result), best_frames))


def test_flicker_counts_from_the_frame_before_only(dataset, pipelines):
    still = [dataclasses.replace(frame, image=dataset[0].image) for frame in frames_of(dataset)]
    result, _ = run(pipelines, still, [row(pipelines, 'dense', drops=(2,))])
    records = result.records[0]
    assert [record.answered for record in records] == [True, True, False, True, True]
    assert [record.flicker for record in records] == [None, 0.0, None, None, 0.0] and result.rows[0].flicker == 0.0
    assert result.truth_flicker > 0  # the horizon sinks from frame to frame, while the image stands still
    assert result.rows[0].frames == 4 and records[2].tokens == {} and records[2].miou is None


def test_ground_truth_of_another_model_is_named(dataset, pipelines):
    def frames():
        for frame in frames_of(dataset):
            yield dataclasses.replace(frame, truth=np.full_like(frame.truth, 11))

    with pytest.raises(ValueError, match=r'frame 0 \(stamp 10000000000\): expected .* below 11 or 255, got 11'):
        run(pipelines, frames(), [row(pipelines, 'dense')])


def test_ground_truth_of_another_size_is_what_counts(dataset, pipelines):
    def frames():
        for frame in frames_of(dataset):
            yield dataclasses.replace(frame, truth=frame.truth[::2, ::2])

    result, _ = run(pipelines, frames(), [row(pipelines, 'dense')])
    assert result.rows[0].miou is not None and result.rows[0].labelled_frames == COUNT


def test_json_csv_and_page_hold_the_figures(dataset, pipelines):
    live = LiveCounts(sent=6, answered=4, sent_hz=10.0, answers_hz=8.0, busy_ms=125.0, unreadable=1)
    rows = [row(pipelines, 'hybrid@6+8', drops=(3,), live=live), row(pipelines, 'dense')]
    result, best_frames = run(pipelines, frames_of(dataset), rows)
    report = report_of(result, mode='live', damage='cut off after <5> messages', unreadable=('frame 9: no image',))
    content = json.loads(report.to_json())
    assert [each['variant'] for each in content['rows']] == ['hybrid@6+8', 'dense']
    for name in ('miou', 'pixel_accuracy', 'iou_per_class', 'tokens_mean', 'gflops_mean'):
        assert content[name] == content['rows'][0][name]
    assert content['rows'][0]['live']['dropped'] == 1 and content['rows'][0]['live']['expected'] == 80.0
    assert content['rows'][1]['live'] is None and content['damage'] == 'cut off after <5> messages'

    table = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(table) == 2 * COUNT and table[3]['answered'] == '0' and table[3]['miou'] == ''
    assert float(table[0]['miou']) == pytest.approx(result.records[0][0].miou, rel=1e-5)
    assert [line['tokens_kept@8'] == '' for line in table] == [i == 3 or i >= COUNT for i in range(2 * COUNT)]

    page = render_page(film_page(report, best_frames))
    assert f'<td>{content["miou"]:.1f}</td>' in page and 'cut off after &lt;5&gt; messages' in page
    assert 'frame 9: no image' in page and page.count('<img') >= 7


def test_the_best_and_the_worst_frames_are_kept(dataset, pipelines):
    result, best_frames = run_with_errors(dataset, pipelines, [5, 30, 0, 60, 20], seconds_apart=2)
    assert result.records[0][2].miou == 100.0
    assert [frame.record.index for frame in best_frames.best] == [2, 0, 4]
    assert [frame.record.index for frame in best_frames.worst] == [3, 1]  # the third is among the best
    assert [picture.caption for picture in best_frames.best[0].pictures] == [
        'image', 'ground truth', 'dense', 'dense: not as in ground truth',
    ]  # fmt: skip


def test_one_of_frames_that_look_alike_is_kept(dataset, pipelines):
    _, best_frames = run_with_errors(dataset, pipelines, [5, 30, 0, 60, 20], seconds_apart=0.1)
    assert [frame.record.index for frame in best_frames.best] == [2]
    assert [frame.record.index for frame in best_frames.worst] == [3]


def run_with_errors(dataset, pipelines, wrong_rows, seconds_apart):
    """Run a model that is right but for so many rows of each frame."""

    def source(frame):
        labels = np.where(frame.truth == 255, 0, frame.truth)
        labels[: wrong_rows[frame.index]] = 10
        return FrameResult(labels.astype(np.uint8), {'total': 48, 'merged': 48})

    frames = [dataclasses.replace(frame, time_s=frame.index * seconds_apart) for frame in frames_of(dataset)]
    return run(pipelines, frames, [Row(Variant(), 'pytorch', 'float32', 'cpu', source)])


def test_pictures_are_judged_by_the_first_row_that_is_not_the_reference(dataset, pipelines):
    rows = [row(pipelines, 'dense'), row(pipelines, 'hybrid@6+8')]
    result, best_frames = run(pipelines, frames_of(dataset, truth=False), rows, focus=1)
    assert result.rows[0].agreement is None and result.rows[1].reference == 'dense, pytorch float32'
    best = max(result.records[1], key=lambda record: record.agreement)
    assert [frame.record for frame in best_frames.best] == [best] and best_frames.judge == 'hybrid@6+8'
    assert [picture.caption for picture in best_frames.best[0].pictures][-2] == 'hybrid@6+8: not as in dense'


def test_each_row_is_compared_with_the_dense_one_of_its_backend():
    def of(name, backend, dtype='float32', live=None):
        return Row(Variant.parse(name), backend, dtype, 'cpu', lambda frame: None, live)

    rows = [
        of('cts', 'pytorch'), of('dense', 'pytorch'), of('cts', 'openvino', 'bfloat16'),
        of('dense', 'openvino', 'bfloat16'), of('cts', 'onnxruntime'),
        of('dense', 'onnxruntime', live=LiveCounts(1, 1, 1.0, 1.0, 1.0)),
    ]  # fmt: skip
    assert [reference_of(rows, index) for index in range(6)] == [1, None, 3, None, 1, 1]
    assert reference_of(rows[:1], 0) is None
    assert [row_name(rows, each) for each in rows[:3]] == ['cts, pytorch', 'dense, pytorch', 'cts, openvino']
    assert row_name(rows[:2], rows[0]) == 'cts'


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({}, '10 frames at 15.0 Hz: 8 answered (12.0 FPS), 2 dropped; 80.0 ms of work a frame leaves time for 83 %, '
         '80 % were answered'),
        ({'unreadable': 2}, '0 dropped, 2 not to be decoded; 80.0 ms of work a frame leaves time for 83 %, 100 % were'),
        ({'sent_hz': None}, '10 frames: 8 answered (12.0 FPS), 2 dropped; whether there was time for more is not'),
        ({'busy_ms': None}, 'whether there was time for more is not known'),
        ({'busy_ms': 10.0}, 'leaves time for 100 %'),
    ],
)  # fmt: skip
def test_drops_are_explained_by_the_time_that_there_is(changes, said):
    live = LiveCounts(sent=10, answered=8, sent_hz=15.0, answers_hz=12.0, busy_ms=80.0)
    assert said in str(dataclasses.replace(live, **changes))


def test_a_video_of_one_frame_has_a_page(dataset, pipelines):
    result, best_frames = run(pipelines, list(frames_of(dataset, truth=False))[:1], [row(pipelines, 'dense')])
    assert result.frames == 1 and result.duration_s == 0.0 and result.rows[0].flicker is None
    page = render_page(film_page(report_of(result), best_frames))
    assert 'Frame 0 at 0.00 s' in page and json.loads(report_of(result).to_json())['miou'] is None


def test_frames_of_changing_size_are_not_followed(dataset, pipelines):
    frames = list(frames_of(dataset))
    frames[2] = dataclasses.replace(frames[2], image=frames[2].image[:60], truth=frames[2].truth[:60])
    result, _ = run(pipelines, frames, [row(pipelines, 'dense')])
    followed = [record.flicker is not None for record in result.records[0]]
    assert followed[2] is followed[3] is False and result.rows[0].labelled_frames == COUNT


def test_tokens_that_are_not_known_leave_the_rest(dataset, pipelines):
    def source(frame):
        found = FrameResult.of(pipelines['dense'](frame.image))
        return dataclasses.replace(found, tokens={} if frame.index < 2 else found.tokens)

    result, best_frames = run(pipelines, frames_of(dataset), [Row(Variant(), 'pytorch', 'float32', 'cpu', source)])
    figures, expected = result.rows[0], evaluate(pipelines['dense'], dataset)
    assert figures.miou == expected.miou and figures.tokens_mean == expected.tokens_mean
    assert [record.gflops is None for record in result.records[0]] == [True, True, False, False, False]
    render_page(film_page(report_of(result), best_frames))


def test_many_classes_stand_in_a_table(dataset, pipelines):
    result, best_frames = run(pipelines, frames_of(dataset), [row(pipelines, 'dense')])
    ious = {f'class {index}': float(index % 100) for index in range(300)}
    many = dataclasses.replace(result, rows=[dataclasses.replace(result.rows[0], iou_per_class=ious)])
    page = render_page(film_page(report_of(many), best_frames))
    assert '<td>class 299</td><td>99.0</td>' in page
