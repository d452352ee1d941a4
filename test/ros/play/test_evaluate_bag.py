"""`hybrid_seg evaluate-bag`: as accurate as `evaluate` says, offline without ROS 2, live through the real node."""

import csv
import functools
import json
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from bag_files import (
    CAMERA,
    COMPRESSED,
    LABELS,
    LOG_NS,
    PERIOD_NS,
    RAW,
    Sent,
    file_cdr,
    image_cdr,
    picture,
    write_messages,
)
from camvid_folder import write_camvid_folder
from picture_files import with_orientation
from tiny_model import write_tiny_model

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.play import live_answers
from hybrid_seg_ros.ros.play.running_node import running_node

FRAMES = 6
SAME = ('miou', 'pixel_accuracy', 'iou_per_class', 'tokens_mean', 'gflops_mean', 'frames')


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Return a data set whose images are JPEG, which a bag keeps byte for byte."""
    folder = write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=1, val=FRAMES)
    for path in (folder / 'val/images').iterdir():
        cv2.imwrite(str(path.with_suffix('.jpg')), cv2.imread(str(path)))
        path.unlink()
    return folder


@pytest.fixture(scope='module')
def bag(root, tmp_path_factory):
    """Return the data set's val split as a bag, with labels."""
    path = tmp_path_factory.mktemp('bag') / 'drive'
    images, labels = root / 'val/images', root / 'val/labels'
    assert main(['write-bag', str(images), str(path), '--labels', str(labels), '--classes', '11']) == 0
    return path


@pytest.fixture(scope='module')
def unlabelled(root, tmp_path_factory):
    path = tmp_path_factory.mktemp('bag') / 'unlabelled'
    assert main(['write-bag', str(root / 'val/images'), str(path)]) == 0
    return path


def run(bag, model, output, *options):
    """Run the command in this process; return its report."""
    arguments = ['evaluate-bag', bag, '--model', model, '--output', output, *options]
    assert main(list(map(str, arguments))) == 0
    return json.loads((output / 'report.json').read_text())


def evaluate(root, model, output, *options):
    arguments = ['evaluate', '--model', model, '--root', root, '--split', 'val', '--json', output, *options]
    assert main(list(map(str, arguments))) == 0
    return json.loads(output.read_text())


@pytest.mark.parametrize(
    'options', [('--threshold', '0.3'), ('--keep', '0.7', '0.5')], ids=['threshold', 'one keep per layer']
)  # fmt: skip
def test_offline_is_what_evaluate_says_of_the_same_frames(bag, root, model, tmp_path, options):
    report = run(bag, model, tmp_path / 'out', '--variants', 'hybrid@8,dense', '--json', tmp_path / 'x.json', *options)
    assert (report['mode'], report['frames'], report['damage'], report['unreadable']) == ('offline', FRAMES, None, [])
    for row in report['rows']:
        expected = evaluate(root, model, tmp_path / 'e.json', '--variant', row['variant'], *options)
        assert {name: row[name] for name in SAME} == {name: expected[name] for name in SAME}
    assert {name: report[name] for name in SAME} == {name: report['rows'][0][name] for name in SAME}
    assert json.loads((tmp_path / 'x.json').read_text()) == report
    with (tmp_path / 'out/frames.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [line['variant'] for line in lines] == ['hybrid@8'] * FRAMES + ['dense'] * FRAMES
    assert (tmp_path / 'out/index.html').read_text().count('<img') > 6


def test_a_row_for_each_who_chooses_the_windows(bag, model, tmp_path):
    options = ('--variants', 'cts,dense', '--merge-by', 'policy,previous', '--merged-windows', '5', '--every', '2')
    report = run(bag, model, tmp_path / 'out', *options)
    assert [row['name'] for row in report['rows']] == ['cts by policy', 'cts by previous', 'dense']
    assert {row['frames'] for row in report['rows']} == {FRAMES // 2} and report['frames'] == FRAMES // 2
    by_policy, by_previous, dense = report['rows']
    assert by_policy['tokens_mean'] == by_previous['tokens_mean'] == {'total': 48.0, 'merged': 33.0}
    assert by_previous['gflops_mean'] < by_policy['gflops_mean'], 'the policy network ran for the first frame alone'
    assert run(bag, model, tmp_path / 'again', *options)['rows'][1]['miou'] == by_previous['miou']


def test_labels_may_lie_in_a_folder(bag, unlabelled, root, model, tmp_path):
    with BagReader(bag) as reader:
        stamps = [message.stamp_ns for message in reader.messages([reader.select_camera_topic()])]
    labels = tmp_path / 'labels'
    labels.mkdir()
    for index, stamp_ns in enumerate(stamps):
        shutil.copy(root / f'val/labels/{index}.png', labels / f'{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}.png')
    by_topic = run(bag, model, tmp_path / 'topic')
    by_folder = run(unlabelled, model, tmp_path / 'folder', '--labels', labels, '--void', '11')
    assert {name: by_folder[name] for name in SAME} == {name: by_topic[name] for name in SAME}


def test_ground_truth_of_another_aspect_is_refused_not_stretched(unlabelled, root, model, tmp_path, capsys):
    (tmp_path / 'labels').mkdir()
    turned = np.rot90(cv2.imread(str(root / 'val/labels/0.png'), cv2.IMREAD_UNCHANGED))
    assert cv2.imwrite(str(tmp_path / 'labels/1000000000000.png'), turned)
    arguments = ['evaluate-bag', unlabelled, '--model', model, '--labels', tmp_path / 'labels', '--void', '11']
    assert main(list(map(str, [*arguments, '--output', tmp_path / 'out']))) == 1
    assert 'expected ground truth of the aspect of its image, 96x72, got 72x96' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_images_that_exif_turns_score_as_data_sets_say(root, model, tmp_path):
    """In a file EXIF says how people see it, which labels are made for; what comes from a camera nobody turns."""
    shutil.copytree(root, tmp_path / 'turned')
    for path in (tmp_path / 'turned/val/images').iterdir():
        path.write_bytes(with_orientation(cv2.imread(str(path))[::-1, ::-1, ::-1].copy(), 3, 'JPEG'))
    images, labels = (str(tmp_path / 'turned/val' / kind) for kind in ('images', 'labels'))
    assert main(['write-bag', images, str(tmp_path / 'bag'), '--labels', labels, '--classes', '11']) == 0
    expected = evaluate(tmp_path / 'turned', model, tmp_path / 'set.json')['iou_per_class']
    found = run(tmp_path / 'bag', model, tmp_path / 'out')['iou_per_class']
    assert found == pytest.approx(expected, abs=2.0)


def test_without_labels_it_is_compared_with_dense(unlabelled, model, tmp_path, capsys):
    report = run(unlabelled, model, tmp_path / 'out', '--variants', 'cts')
    (row,) = report['rows']
    assert row['miou'] is None and 0 <= row['agreement'] <= 100 and row['flicker'] is not None
    said = capsys.readouterr().out
    assert 'of pixels as dense' in said and '(pytorch in float32 on cpu): ' in said


def test_offline_needs_no_ros(bag, model, tmp_path):
    blocked = ('rclpy', 'sensor_msgs', 'std_msgs', 'ament_index_python', 'cv_bridge')
    program = (
        f'import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n'
        'from hybrid_seg_ros.cli import main; sys.exit(main(sys.argv[1:]))'
    )
    command = ['evaluate-bag', bag, '--model', model, '--output', tmp_path / 'out', '--limit', 2]
    done = subprocess.run([sys.executable, '-c', program, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'out/report.json').read_text())['frames'] == 2


def test_a_truncated_bag_is_evaluated_as_far_as_it_goes(bag, model, tmp_path, capsys):
    whole = next(bag.glob('*.mcap')).read_bytes()
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    report = run(cut, model, tmp_path / 'out')
    assert 0 < report['frames'] < FRAMES and report['damage']
    said = capsys.readouterr().out
    assert f'DAMAGED    {report["damage"]}' in said and 'mIoU' in said
    assert 'The bag is damaged' in (tmp_path / 'out/index.html').read_text()


def test_frames_that_cannot_be_decoded_are_left_out_and_named(root, model, tmp_path, capsys):
    files = [(root / f'val/images/{index}.jpg').read_bytes() for index in range(FRAMES)]
    files[2] = files[2][: len(files[2]) // 2]
    write_messages(tmp_path / 'bag', (
        Sent(CAMERA, COMPRESSED, LOG_NS + index * PERIOD_NS, file_cdr(data, 10**9 + index * PERIOD_NS, 'jpeg'))
        for index, data in enumerate(files)
    ))  # fmt: skip
    report = run(tmp_path / 'bag', model, tmp_path / 'out')
    assert report['frames'] == FRAMES - 1 and len(report['unreadable']) == 1 and 'frame 2' in report['unreadable'][0]
    assert 'UNREADABLE 1 frames' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (('--rate', '2'), 'are for --live'),
        (('--param', 'mask_size:=image'), 'are for --live'),
        (('--limit', '0'), '--limit: expected at least 1 frame'),
        (('--every', '0'), '--every: expected at least 1'),
        (('--merge-by', 'nobody'), '--merge-by: expected policy, previous, auto'),
        (('--live', '--every', '2'), '--live: expected it without --every'),
        (('--keep', '0.5', '--threshold', '0.9'), 'not both'),
        (('--variants', 'dtop@13'), 'dtop@13'),
        (('--backends', 'abacus'), "unknown backend 'abacus'; legal are pytorch"),
        (('--backends', 'pytorch-plain'), "unknown backend 'pytorch-plain'; legal are pytorch"),
        (('--topic', '/nothing'), 'no topic /nothing; it holds /camera/image/compressed'),
        (('--live', '--keep', '0.7', '0.5'), '--keep with --live: the node takes one value for all pruning layers'),
        (('--live', '--keep', '1'), 'a fraction or a count from 2 on; got 1'),
        (('--backends', 'auto'), "unknown backend 'auto'; legal are pytorch"),
        (('--live', '--rate', '-1'), '--rate: expected more than 0'),
        (('--live', '--param', 'variant:=cts'), '--param variant: expected --variants instead'),
        (('--live', '--param', 'target_fps:=5'), '--param target_fps: expected one fixed point a row'),
        (('--live', '--param', 'mask_sise:=image'), 'no parameter mask_sise (did you mean mask_size?)'),
        (('--topic', '/camera/labels/compressed'), 'got both on one'),
        (('--label-topic', '/camera/image/compressed', '--topic', '/camera/image/compressed'), 'got both on one'),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(bag, model, tmp_path, capsys, options, complaint):
    command = ['evaluate-bag', str(bag), '--model', str(model), '--output', str(tmp_path / 'out'), *options]
    assert main(command) == 1
    assert complaint in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_a_file_where_the_folder_should_be_is_told_before_anything_runs(bag, model, tmp_path, capsys):
    (tmp_path / 'out').write_text('mine')
    command = ['evaluate-bag', str(bag), '--model', str(model), '--output']
    assert main([*command, str(tmp_path / 'out/deeper')]) == 1
    assert 'expected a folder' in capsys.readouterr().err and (tmp_path / 'out').read_text() == 'mine'
    assert main([*command, str(tmp_path / 'new'), '--json', str(tmp_path)]) == 1
    assert f'--json {tmp_path}: expected a file' in capsys.readouterr().err and not (tmp_path / 'new').exists()


def test_ground_truth_that_cannot_be_decoded_counts_as_none(model, tmp_path, capsys):
    def messages(broken):
        for index in range(4):
            for topic in (CAMERA, LABELS):
                missing = 50 if topic == LABELS and index in broken else 0
                cdr = image_cdr(picture(index, topic), 10**9 + index * PERIOD_NS, missing=missing)
                yield Sent(topic, RAW, LOG_NS + index * PERIOD_NS, cdr)

    some = run(write_messages(tmp_path / 'some', messages((1, 2))), model, tmp_path / 'out')
    assert (some['frames'], some['truth'], some['truth_frames']) == (4, LABELS, 2)
    assert len(some['unreadable_truth']) == 2
    assert 'UNREADABLE ground truth of 2 frames' in capsys.readouterr().out
    bag = write_messages(tmp_path / 'all', messages(range(4)))
    assert main(['evaluate-bag', str(bag), '--model', str(model), '--output', str(tmp_path / 'none')]) == 1
    assert f'{LABELS}: no ground truth can be decoded' in capsys.readouterr().err and not (tmp_path / 'none').exists()


def test_frames_that_share_a_stamp_have_no_ground_truth(model, tmp_path, capsys):
    """Bags of drivers that leave the stamp at 0 are evaluated by their recording times, but without ground truth."""
    bag = write_messages(tmp_path / 'bag', (
        Sent(topic, RAW, LOG_NS + index * PERIOD_NS, image_cdr(picture(index, topic), stamp_ns=0))
        for index in range(5) for topic in (CAMERA, LABELS)
    ))  # fmt: skip
    command = ['evaluate-bag', str(bag), '--model', str(model), '--output', str(tmp_path / 'out')]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f'{CAMERA}: expected a header stamp of its own for each frame' in said and '--no-labels' in said
    assert main([*command, '--no-labels']) == 0
    report = json.loads((tmp_path / 'out/report.json').read_text())
    assert report['frames'] == 5 and report['duration_s'] == pytest.approx(0.4)
    assert report['truth'] is report['miou'] is None and report['rows'][0]['reference'] == 'dense, pytorch float32'


@pytest.fixture
def evaluate_live(bag, model, tmp_path, capfd, monkeypatch):
    """Run the command with --live; return its status and what it printed.

    Without the shared-memory profile: Fast DDS keeps that of a process's first node, and later tests count on none.
    """
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(live_answers, 'running_node', functools.partial(running_node, shared_memory=False))

    def run_live(*options, bag=bag):
        arguments = (bag, '--model', model, '--output', tmp_path / 'out', '--live', '--param', 'num_threads:=1')
        return main(['evaluate-bag', *map(str, (*arguments, *options))]), *capfd.readouterr()

    yield run_live
    signal.signal(signal.SIGTERM, before)


def test_live_counts_what_the_node_answers(evaluate_live, root, model, tmp_path):
    options = ('--rate', '0.3', '--variants', 'hybrid@6+8,dense', '--with-dense', '--param', 'mask_size:=image')
    status, output, errors = evaluate_live(*options)
    assert status == 0, errors
    report = json.loads((tmp_path / 'out/report.json').read_text())
    row, dense = report['rows']
    live = row['live']
    assert (report['mode'], live['sent'], live['answered'], live['dropped']) == ('live', FRAMES, FRAMES, 0)
    assert live['expected'] == 100.0 and live['busy_ms'] > 0 and row['p95_ms'] >= row['p50_ms'] > live['busy_ms'] / 2
    assert live['sent_hz'] == pytest.approx(0.3 * 15, rel=0.2) and row['device'].startswith('cpu')
    expected = evaluate(root, model, tmp_path / 'e.json')
    assert {name: row[name] for name in SAME} == {name: expected[name] for name in SAME}
    assert dense['agreement'] == 100.0 > row['agreement'] and dense['live']['answered'] == FRAMES
    assert f'{FRAMES} answered' in output and 'leaves time for 100 %' in output


def test_live_frames_that_the_node_has_no_time_for_are_dropped(evaluate_live, unlabelled, tmp_path):
    """What comes is compared with dense at the masks' own size."""
    status, output, errors = evaluate_live('--rate', '50', '--variants', 'dense', bag=unlabelled)
    assert status == 0, errors
    (row,) = json.loads((tmp_path / 'out/report.json').read_text())['rows']
    live = row['live']
    assert live['dropped'] > 0 and live['expected'] < 100.0 and live['sent'] == FRAMES and row['agreement'] == 100.0
    with (tmp_path / 'out/frames.csv').open() as file:
        answered = [line['answered'] for line in csv.DictReader(file)]
    assert answered.count('1') == live['answered'] == row['frames'] and len(answered) == FRAMES


def test_a_node_that_fails_is_an_error_with_its_log_and_nothing_is_written(evaluate_live, tmp_path):
    status, _, errors = evaluate_live('--param', 'overlay_alpha:=7.0')
    assert status == 1 and 'segmentation_node ended with status 1' in errors and 'overlay_alpha out of range' in errors
    assert not (tmp_path / 'out').exists()
