"""The commands that work on files: evaluate, segment, flops, train and train-policy, from the command line's side."""

import argparse
import json
import resource
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml
from camvid_folder import write_camvid_folder
from picture_files import with_orientation
from tiny_model import write_tiny_model

from hybrid_seg_ros.cli import COMMANDS, build_parser, main
from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.evaluation.flops.count import count_flops
from hybrid_seg_ros.inference.pipeline_options import keep_value
from hybrid_seg_ros.model_spec import ModelSpec, Variant

SEGMENT = ('segment', '--backend', 'pytorch')
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=2, val=2)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


def test_evaluate_writes_the_promised_keys(root, model, tmp_path, capsys):
    out = tmp_path / 'result.json'
    command = ['evaluate', '--model', str(model), '--dataset', 'camvid', '--root', str(root), '--json', str(out)]
    assert main([*command, '--variant', 'hybrid@8', '--keep', '0.5']) == 0
    result = json.loads(out.read_text())
    assert set(result) == {
        'miou', 'pixel_accuracy', 'iou_per_class', 'tokens_mean', 'gflops_mean', 'frames', 'median_ms',
        'wrongly_merged', 'backend', 'device', 'precision',
    }  # fmt: skip
    assert (result['backend'], result['device'], result['precision']) == ('pytorch', 'cpu', 'float32')
    times = result['median_ms']
    assert list(times) == ['preprocess', 'inference', 'postprocess', 'total']
    assert 0 < times['preprocess'] and 0 < times['postprocess'] and times['inference'] < times['total']
    assert result['frames'] == 2 and 0 <= result['wrongly_merged'] <= 100
    assert list(result['iou_per_class']) == list(CAMVID_CLASSES.names)
    assert result['tokens_mean'] == {'total': 48.0, 'merged': 33.0, 'kept@8': 16.0}
    assert main([*command, '--variant', 'dense']) == 0
    dense = count_flops(ModelSpec.load(model), (96, 128), Variant(), entering=48).gflops
    assert json.loads(out.read_text())['gflops_mean'] == pytest.approx(dense)
    assert result['gflops_mean'] > 0
    printed = capsys.readouterr().out
    for said in ('mIoU', 'median ms per image preprocess', '(pytorch in float32 on cpu)'):
        assert said in printed


def test_evaluate_reads_a_folder_of_own_images(root, model, tmp_path):
    (root / 'classes.yaml').write_text(yaml.safe_dump({'classes': CAMVID_CLASSES.to_entries(), 'ignore': [11]}))
    results = []
    for dataset in ('camvid', 'folder'):
        out = tmp_path / f'{dataset}.json'
        command = ['evaluate', '--model', str(model), '--dataset', dataset, '--root', str(root), '--json', str(out)]
        assert main(command) == 0
        results.append({key: value for key, value in json.loads(out.read_text()).items() if key != 'median_ms'})
    assert results[0] == results[1]


@pytest.mark.parametrize(
    'extra, expected',
    [
        (['--variant', 'hybrid@7'], 'legal for tiny are dense'),
        (['--keep', '0.5', '--threshold', '0.9'], 'not both'),
        (['--device', 'tpu'], 'legal are cpu, cuda'),
        (['--precision', 'float16'], 'needs a CUDA device'),
        (['--split', 'nowhere'], "no split 'nowhere'"),
        (['--limit', '0'], 'at least 1 image, got 0'),
    ],
)
def test_evaluate_says_what_was_expected(root, model, capsys, extra, expected):
    assert main(['evaluate', '--model', str(model), '--root', str(root), *extra]) == 1
    assert expected in capsys.readouterr().err


def test_segment_writes_labels_and_overlay(root, model, tmp_path, capsys):
    image = root / 'val' / 'images' / '0.png'
    assert main(['segment', str(image), '--model', str(model), '--output', str(tmp_path)]) == 0
    assert capsys.readouterr().out == f'{tmp_path}/0_overlay.png and 0_labels.png\n'
    labels = cv2.imread(str(tmp_path / '0_labels.png'), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (72, 96) and labels.dtype == np.uint8 and labels.max() < 11
    assert cv2.imread(str(tmp_path / '0_overlay.png')).shape == (72, 96, 3)


def test_segment_takes_folders(root, model, tmp_path, capsys):
    arguments = ['--model', str(model), '--output', str(tmp_path / 'out')]
    assert main(['segment', str(root / 'val' / 'images'), *arguments]) == 0
    written = {path.name for path in (tmp_path / 'out').iterdir()}
    names = [path.stem for path in (root / 'val' / 'images').iterdir()]
    assert names and written == {f'{name}_{kind}.png' for name in names for kind in ('labels', 'overlay')}


def test_a_shipped_model_has_a_name(capsys):
    assert main(['flops', '--model', 'segvit_small_camvid']) == 0
    assert 'hybrid@6+8' in capsys.readouterr().out


def test_segment_writes_nothing_if_an_image_is_unreadable(root, model, tmp_path, capsys):
    bad = tmp_path / 'bad.png'
    bad.write_bytes(b'not a picture')
    loop = tmp_path / 'loop.png'
    loop.symlink_to(loop)
    for file, complaint in ((bad, 'bad.png: not a readable image'), (loop, 'loop.png: cannot be read: Too many')):
        images = [str(root / 'val' / 'images' / '0.png'), str(file)]
        assert main([*SEGMENT, *images, '--model', str(model), '--output', str(tmp_path / 'out')]) == 1
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('options', 'said'), [
    (['--variant', 'cts', '--keep', '0.5'], ['--keep has no effect: cts does not prune tokens']),
    (['--variant', 'dense', '--threshold', '0.5'], ['--threshold has no effect: dense does not prune tokens']),
    (['--variant', 'dtop@8', '--keep', '20', '0.5'], ['--keep: of 2 values only 1 have an effect']),
    (['--variant', 'dtop@6+8', '--keep', '0.7', '11'], []),
    (['--variant', 'dtop@6+8', '--keep', '20'], []),
])  # fmt: skip
def test_an_option_without_effect_is_said(root, model, tmp_path, caplog, options, said):
    image = str(root / 'val' / 'images' / '0.png')
    command = [*SEGMENT, image, '--model', str(model), '--output', str(tmp_path), *options]
    assert main(command) == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
    assert len(warnings) == len(said) and all(part in line for part, line in zip(said, warnings))


@pytest.mark.parametrize('text', ['many', 'nan', 'inf', '60%', '0.6,0.5', ''])
def test_keep_is_a_count_or_a_fraction(text):
    assert keep_value('400') == 400 and keep_value('0.6') == 0.6 and keep_value('1') == 1 and keep_value('1e-1') == 0.1
    with pytest.raises(argparse.ArgumentTypeError, match='expected a count as in 400 or a fraction as in 0.6, got'):
        keep_value(text)


@pytest.mark.parametrize('text', ['1.5', '-0.1', '1e3', '1e999', '0', '0.0'])
def test_a_keep_that_is_out_of_range_is_refused_by_the_name_of_its_option(root, model, tmp_path, capsys, text):
    assert main(['evaluate', '--model', str(model), '--root', str(root), f'--keep={text}']) == 1
    assert '--keep: expected a count >= 1 or a fraction in (0, 1], got ' in capsys.readouterr().err


@pytest.mark.parametrize('command', [
    ['benchmark', '--model', 'm'], ['check-parity', 'i', '--model', 'm'], ['evaluate', '--model', 'm', '--root', 'r'],
    ['evaluate-bag', 'b'], ['export', '--model', 'm', '--output', 'o'], ['flops'],
    ['paper', '--model', 'm', '--root', 'r'], ['segment', 'i', '--model', 'm'],
], ids=lambda command: command[0])  # fmt: skip
def test_every_command_takes_keep_in_the_same_forms(command):
    parser = build_parser(command[0], COMMANDS[command[0]].load())
    assert parser.parse_args(command).keep is None
    for words, keep in ((['0.6'], [0.6]), (['400'], [400]), (['0.7', '11'], [0.7, 11])):
        assert parser.parse_args([*command, '--keep', *words]).keep == keep


def test_segment_names_what_it_writes(root, model, tmp_path, capsys):
    stems = ['a_overlay', 'a_overlay_b', '_overlay']
    images = [shutil.copy(root / 'val/images/0.png', tmp_path / f'{stem}.png') for stem in stems]
    assert main([*SEGMENT, *map(str, images), '--model', str(model), '--output', str(tmp_path / 'out')]) == 0
    lines = [f'{tmp_path}/out/{stem}_overlay.png and {stem}_labels.png' for stem in stems]
    assert capsys.readouterr().out.splitlines() == lines
    files = {f'{stem}_{kind}.png' for stem in stems for kind in ('labels', 'overlay')}
    assert {path.name for path in (tmp_path / 'out').iterdir()} == files


@pytest.mark.parametrize(
    ('name', 'make', 'complaint'),
    [
        ('cut.jpg', lambda path: path.write_bytes(cv2.imencode('.jpg', NOISE)[1][:3000].tobytes()), 'is cut off'),
        ('empty.png', lambda path: path.touch(), 'empty.png: the file is empty'),
        ('folder.png', lambda path: path.mkdir(), 'folder.png: no image in this folder'),
        ('gone.png', lambda path: None, 'gone.png: cannot be read: No such file'),
        ('x' * 245 + '.png', lambda path: path.write_bytes(cv2.imencode('.png', NOISE)[1]), 'File name too long: '),
        ('image_labels.png', lambda path: path.write_bytes(cv2.imencode('.png', NOISE)[1]), 'write over images of its'),
    ],
    ids=['cut', 'empty', 'folder', 'gone', 'long name', 'output is an input'],
)
def test_segment_says_what_it_cannot_read_or_write(model, tmp_path, capsys, name, make, complaint):
    (tmp_path / 'image.png').write_bytes(cv2.imencode('.png', NOISE)[1])
    make(tmp_path / name)
    before = sorted(tmp_path.rglob('*'))
    images = [str(tmp_path / each) for each in (name, 'image.png')]
    assert main([*SEGMENT, *images, '--model', str(model), '--output', str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert complaint in output.err and not output.out
    assert sorted(tmp_path.rglob('*')) == before


def test_segment_on_a_full_disk(root, model, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, before[1]))
    try:
        status = main([*SEGMENT, str(root / 'val/images/0.png'), '--model', str(model), '--output', str(tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    output = capsys.readouterr()
    assert status == 1 and not output.out and f'File too large: {tmp_path}/0_' in output.err
    assert not (tmp_path / '0_overlay.png').exists() and not list(tmp_path.glob('*.partial'))


def test_segment_turns_images_as_exif_says(model, tmp_path):
    picture = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((16, 16), np.uint8))
    (tmp_path / 'a.jpg').write_bytes(with_orientation(np.dstack([picture] * 3), 6, 'JPEG'))
    assert main([*SEGMENT, str(tmp_path / 'a.jpg'), '--model', str(model), '--output', str(tmp_path)]) == 0
    assert cv2.imread(str(tmp_path / 'a_labels.png'), cv2.IMREAD_UNCHANGED).shape == (48, 32)


def test_evaluate_without_a_labelled_pixel_has_no_number(root, model, tmp_path, capsys):
    unlabelled = shutil.copytree(root / 'val', tmp_path / 'val')
    for path in (unlabelled / 'labels').iterdir():
        cv2.imwrite(str(path), np.full((72, 96), 11, np.uint8))
    command = ['evaluate', '--model', str(model), '--root', str(tmp_path), '--json', str(tmp_path / 'x.json')]
    assert main(command) == 0
    content = json.loads((tmp_path / 'x.json').read_text(), parse_constant=pytest.fail)
    assert content['miou'] is content['pixel_accuracy'] is None and content['gflops_mean'] > 0
    assert 'mIoU unknown, not a single pixel has a label, over 2 images' in capsys.readouterr().out


def test_flops_counts_the_policy_network_and_auxiliary_heads(tmp_path, capsys):
    out = tmp_path / 'flops.json'
    command = ['flops', '--backbone', 'vit_base', '--classes', '150', '--size', '512', '512', '--decoder-layers', '2']
    assert main([*command, '--json', str(out)]) == 0
    table = json.loads(out.read_text())
    assert list(table) == ['dense', 'cts', 'dtop@6+8', 'dtop@8', 'hybrid@6+8', 'hybrid@8']
    assert table['cts']['tokens'] == 715
    assert table['cts']['policy'] == pytest.approx(1.971, abs=1e-3)
    assert table['hybrid@6+8']['auxiliary_heads'] > table['hybrid@8']['auxiliary_heads'] > 0
    for row in table.values():
        parts = [value for name, value in row.items() if name != 'tokens' and '@' not in name and name != 'total']
        assert row['total'] == pytest.approx(sum(parts))
    assert 'hybrid@8' in capsys.readouterr().out
