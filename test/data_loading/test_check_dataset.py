"""The check before training: it reads everything, counts pixels, and names every problem, not only the first."""

from __future__ import annotations

import numpy as np
import pytest
from camvid_folder import write_camvid_folder
from picture_files import write_pair, write_picture

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.data.check_dataset import balancing_weights, check_dataset, median_frequency_weights
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.registry import open_dataset


@pytest.fixture
def root(tmp_path):
    return write_camvid_folder(tmp_path / 'camvid', train=6, val=2)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def value(number):
    def spoil(path):
        write_picture(path, np.full((72, 96), number, np.uint16 if number > 255 else np.uint8))

    return spoil


SPOILED = {
    'a label out of range': ('labels/1.png', value(12), r'labels/1\.png: label 12 \(6912 pixels\); legal are 0 to 10'),
    'a label of 16 bits': ('labels/1.png', value(700), r'labels/1\.png: label 700 '),
    'a label file that is cut off': ('labels/2.png', cut, r'labels/2\.png: the file is cut off'),
    'an image that is cut off': ('images/2.png', cut, r'images/2\.png: the file is cut off'),
    'an empty image': ('images/3.png', lambda path: path.write_bytes(b''), r'images/3\.png: the file is empty'),
    'no image at all': ('images/3.png', lambda path: path.write_text('x'), r'images/3\.png: not a readable image'),
    'another size': (
        'labels/0.png', lambda path: write_picture(path, np.zeros((96, 72), np.uint8)),
        r'labels/0\.png: expected labels of the size of 0\.png, 96x72, got 72x96',
    ),
    'an image without labels': ('labels/4.png', lambda path: path.unlink(), r'images/4\.png: no label file'),
    'labels without an image': ('images/4.png', lambda path: path.unlink(), r'labels/4\.png: no image'),
}  # fmt: skip


@pytest.mark.parametrize('name', SPOILED)
def test_problem_is_named(root, name):
    place, spoil, complaint = SPOILED[name]
    spoil(root / 'train' / place)
    report = check_dataset(open_dataset('camvid', root, 'train', allow_unpaired=True), progress=False)
    assert len(report.problems) == 1
    with pytest.raises(DatasetError, match=rf'^train: 1 problem:\n  .*{complaint}'):
        report.raise_for_problems('train')


def test_cut_jpeg_is_named(root):
    write_pair(root / 'train/images/5.jpg', root / 'train/labels/5.png', np.zeros((72, 96), np.uint8))
    (root / 'train/images/5.png').unlink()
    cut(root / 'train/images/5.jpg')
    report = check_dataset(open_dataset('camvid', root, 'train'), progress=False)
    assert len(report.problems) == 1 and '5.jpg: the file is cut off' in report.problems[0]


@pytest.mark.parametrize('threads', [None, 1, 3])
def test_all_problems_are_named_in_the_order_of_files(root, threads):
    for index in range(4):
        value(20 + index)(root / f'train/labels/{index}.png')
    report = check_dataset(open_dataset('camvid', root, 'train'), threads, progress=False)
    assert [problem.split(' (')[0].split('/')[-1] for problem in report.problems] == [
        f'{index}.png: label {20 + index}' for index in range(4)]  # fmt: skip
    assert report.samples == 6
    assert report.class_pixels.sum() + report.unlabelled_pixels == 2 * 72 * 96, 'those of the readable samples'


def test_pixels_are_counted(root):
    report = check_dataset(open_dataset('camvid', root, 'val'), progress=False)
    assert not report.problems
    report.raise_for_problems()
    sky = (30 + 38) * 96  # the horizons of camvid_folder.py
    assert report.class_pixels.tolist() == [sky, 0, 0, 2 * 72 * 96 - sky - 2 * 96, *[0] * 7]
    assert report.unlabelled_pixels == 2 * 96


def test_class_254_is_a_class_and_255_is_not(tmp_path):
    (tmp_path / 'classes.yaml').write_text(str([f'class {index}' for index in range(255)]))
    values = np.array([[254, 255, 0]], np.uint8)
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', values)
    report = check_dataset(open_dataset('folder', tmp_path, 'train'), progress=False)
    assert report.class_pixels.shape == (255,) and report.class_pixels[254] == report.class_pixels[0] == 1
    assert report.unlabelled_pixels == 1


def test_balancing_weights_share_the_pass(root):
    dataset = open_dataset('camvid', root, 'train')
    report = check_dataset(dataset, progress=False)
    weights = balancing_weights(dataset, 0.5)
    assert weights.dtype == np.float32
    assert np.array_equal(weights, median_frequency_weights(report.class_pixels, 0.5))
    sky, road = report.class_pixels[[0, 3]]
    assert weights[0] / weights[3] == pytest.approx((road / sky) ** 0.5)
    assert (weights[[1, 2, *range(4, 11)]] == 1).all()


def test_balancing_weights_of_a_broken_dataset_are_an_error(root):
    cut(root / 'train/labels/0.png')
    with pytest.raises(DatasetError, match=r'labels/0\.png: the file is cut off'):
        balancing_weights(open_dataset('camvid', root, 'train'), 1.0)


@pytest.mark.parametrize(
    'pixels, exponent, weights',
    [([10, 40, 20, 0], 1.0, [2.0, 0.5, 1.0, 1.0]), ([10, 40, 20, 0], 0.0, [1.0] * 4), ([0, 0], 1.0, [1.0, 1.0])],
)
def test_median_frequency_weights(pixels, exponent, weights):
    assert median_frequency_weights(np.array(pixels), exponent).tolist() == weights


def test_command_reports(root, capsys):
    assert main(['check-dataset', '--dataset', 'camvid', '--root', str(root)]) == 1
    lines = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == 'train: 6 images, 41472 pixels'
    assert 'val: 2 images, 13824 pixels' in lines and lines[-1] == 'problems: 1'
    absent = ', '.join(name for name in CAMVID_CLASSES.names if name not in ('sky', 'road'))
    assert f'classes that never occur, and cannot be learned: {absent}' in lines
    assert main(['check-dataset', '--dataset', 'camvid', '--root', str(root), '--splits', 'val']) == 0
    assert capsys.readouterr().out.endswith('no problems\n')
    assert 'sky 6528 47.887 %' in lines and 'road 7104 52.113 %' in lines and 'building 0 absent' in lines
    assert 'unlabelled 192 1.389 % of all' in lines


def test_command_names_problems_and_fails(root, capsys):
    for index in range(5):
        value(99)(root / f'train/labels/{index}.png')
    (root / 'val/labels/1.png').unlink()
    assert main(['check-dataset', '--root', str(root), '--problems', '2', '--splits', 'train', 'val', 'test']) == 1
    out = capsys.readouterr().out
    assert '6 problems, the first 2:' in out and out.count('label 99') == 2
    assert '1.png: no label file' in out and "test: CamVid: no split 'test'" in out
    assert out.endswith('problems: 8\n')


def folder_of(root, **splits):
    (root / 'classes.yaml').write_text('[background, target]')
    for split, values in splits.items():
        write_pair(root / split / 'images/a.png', root / split / 'labels/a.png', np.array(values, np.uint8))
    return root


def test_masks_whose_255_is_meant_as_a_class_are_named(tmp_path, capsys):
    root = folder_of(tmp_path, train=[[0, 255, 0]], val=[[0, 255, 0]])
    assert main(['check-dataset', '--dataset', 'folder', '--root', str(root)]) == 1
    out = capsys.readouterr().out
    assert 'never occur, and cannot be learned: target; values of 255 are unlabelled' in out and 'labels: colors' in out
    assert out.endswith('problems: 1\n'), 'a val set may show some classes only'
    (root / 'classes.yaml').write_text('[target]')
    assert main(['check-dataset', '--dataset', 'folder', '--root', str(root)]) == 1
    assert 'expected two classes to tell apart, got one; values of 255 are unlabelled' in capsys.readouterr().out


def test_a_set_without_labelled_pixels_is_named(tmp_path, capsys):
    root = folder_of(tmp_path, train=[[0, 1]], val=[[255, 255]])
    assert main(['check-dataset', '--dataset', 'folder', '--root', str(root)]) == 1
    assert 'expected labelled pixels, got none in 1 images' in capsys.readouterr().out
    with pytest.raises(DatasetError, match='val: 1 problem:\n  expected labelled pixels, got none'):
        check_dataset(open_dataset('folder', root, 'val'), progress=False).raise_for_problems('val')


def test_command_names_images_in_two_splits(tmp_path, capsys):
    (tmp_path / 'classes.yaml').write_text('[road]')
    for stem in 'abc':
        write_pair(tmp_path / f'images/{stem}.png', tmp_path / f'labels/{stem}.png', np.zeros((2, 3), np.uint8))
    (tmp_path / 'train.txt').write_text('a\nb\n')
    (tmp_path / 'images/d.png').symlink_to('a.png')
    (tmp_path / 'labels/d.png').symlink_to('a.png')
    (tmp_path / 'images/loop.png').symlink_to('loop.png')
    (tmp_path / 'labels/loop.png').symlink_to('a.png')
    (tmp_path / 'val.txt').write_text('b\nc\nd\nloop\n')
    assert main(['check-dataset', '--dataset', 'folder', '--root', str(tmp_path)]) == 1
    assert f'train and val share 2 images, such as {tmp_path / "images" / "a.png"}' in capsys.readouterr().out


def test_command_with_a_wrong_root_fails(tmp_path, capsys):
    assert main(['check-dataset', '--dataset', 'ade20k', '--root', str(tmp_path / 'nowhere')]) == 1
    assert 'nowhere: expected the folder of dataset ade20k' in capsys.readouterr().out
