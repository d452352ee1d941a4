"""A team's own folder: three layouts, names that need not be equal, labels by id or by colour."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from picture_files import indexed_png, write_pair, write_picture

from hybrid_seg_ros.data.folder import LAYOUTS
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.registry import open_dataset

NAMES = '[road, grass, sky]'
COLORS = '[{name: road, color: [90, 90, 90]}, {name: grass, color: [0, 200, 0]}, {name: sky, color: [1, 2, 250]}]'
PALETTE = [(90, 90, 90), (0, 200, 0), (1, 2, 250), (0, 0, 0)]
IDS = np.random.default_rng(0).integers(0, 3, (7, 9), np.uint8)


def write_classes(root: Path, content: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / 'classes.yaml').write_text(content)
    return root


def one_sample(root: Path):
    dataset = open_dataset('folder', root, 'train')
    assert len(dataset) == 1
    return dataset[0]


@pytest.mark.parametrize(
    'images, labels, listed',
    [('train/images', 'train/labels', None), ('images/train', 'labels/train', None), ('images', 'labels', 'a\nsub/b\n'),
     ('images', 'labels', '\ufeffa.jpg\n\n# this one too\nimages/sub/b.png\n')],
)  # fmt: skip
def test_layout(tmp_path, images, labels, listed):
    write_classes(tmp_path, NAMES)
    write_pair(tmp_path / images / 'a.jpg', tmp_path / labels / 'a.png', IDS)
    write_pair(tmp_path / images / 'sub' / 'b.PNG', tmp_path / labels / 'sub' / 'b.png', IDS)
    (tmp_path / images / '._a.jpg').write_bytes(b'what a Mac leaves behind')
    if listed is not None:
        write_pair(tmp_path / images / 'not_listed.jpg', tmp_path / labels / 'not_listed.png', IDS)
        (tmp_path / 'train.txt').write_text(listed, encoding='utf-8')
    dataset = open_dataset('folder', tmp_path, 'train')
    assert [dataset[index].name for index in range(len(dataset))] == ['a', 'sub/b']
    assert dataset.classes.names == ('road', 'grass', 'sky') and np.array_equal(dataset[1].labels, IDS)


@pytest.mark.parametrize(('suffix', 'label'), [
    ('.jpg', 'x.png'), ('.jpeg', 'x.bmp'), ('.png', 'x.tiff'), ('.webp', 'x_labels.png'), ('.bmp', 'x_mask.png'),
    ('.tif', 'x_L.png'), ('.JPG', 'x-mask.png'),
])  # fmt: skip
def test_names(tmp_path, suffix, label):
    write_classes(tmp_path, NAMES)
    write_pair(tmp_path / f'train/images/x{suffix}', tmp_path / 'train/labels' / label, IDS)
    assert np.array_equal(one_sample(tmp_path).labels, IDS)


def test_exact_name_wins_over_an_ending(tmp_path):
    write_classes(tmp_path, NAMES)
    for stem in ('x', 'x_mask'):
        write_pair(tmp_path / f'train/images/{stem}.png', tmp_path / f'train/labels/{stem}.png', IDS)
    dataset = open_dataset('folder', tmp_path, 'train')
    assert [(pair.image.stem, pair.labels.stem) for pair in dataset.files.pairs] == [('x', 'x'), ('x_mask', 'x_mask')]


@pytest.mark.parametrize(
    'images, labels, complaints',
    [
        (['a.jpg', 'b.jpg'], ['a.png'], [r'b\.jpg: no label file .*train/labels/b\.png']),
        (['a.jpg'], ['a.png', 'b_mask.png'], [r'b_mask\.png: no image .*train/images/b_mask\.\*']),
        (['a.jpg'], ['a.jpg'], [r'a\.png \(\.jpg is there, but labels are \.png, \.bmp, \.tif, \.tiff\)']),
        (['a.jpg', 'a.png'], ['a.png'], [r'train/images: expected one file for a, got a\.jpg and a\.png']),
        (['a.jpg'], ['a_L.png', 'a_mask.png'], [r'expected one file for a, got a_L\.png and a_mask\.png']),
        (['a.jpg', 'b.jpg'], ['c.png', 'd.png'], ['^[^\n]*4 problems:', 'a.jpg: no label', 'c.png: no image']),
    ],
)
def test_every_file_without_its_partner_is_named(tmp_path, images, labels, complaints):
    write_classes(tmp_path, NAMES)
    for name in images:
        write_picture(tmp_path / 'train/images' / name, np.zeros((2, 3, 3), np.uint8))
    for name in labels:
        write_picture(tmp_path / 'train/labels' / name, np.zeros((2, 3), np.uint8))
    for complaint in complaints:
        with pytest.raises(DatasetError, match=complaint):
            open_dataset('folder', tmp_path, 'train')


def test_ids_of_16_bits(tmp_path):
    write_classes(tmp_path, f'{{classes: {NAMES}, ignore: [65535, 300]}}')
    values = np.where(IDS == 2, 65535, np.where(IDS == 1, 1, 300)).astype(np.uint16)
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', values)
    assert np.array_equal(one_sample(tmp_path).labels, np.where(IDS == 1, 1, 255))


@pytest.mark.parametrize('classes', [NAMES, COLORS])
def test_ids_of_few_bits(tmp_path, classes):
    """OpenCV and Pillow stretch them to 0..255, which makes other classes of them."""
    write_classes(tmp_path, classes)
    path = tmp_path / 'train/labels/a.png'
    write_pair(tmp_path / 'train/images/a.png', path, IDS)
    for bits in (2, 4):
        path.write_bytes(indexed_png(IDS, None, bits))
        assert np.array_equal(one_sample(tmp_path).labels, IDS)


def test_names_in_either_unicode_form_and_hidden_files_and_loops(tmp_path):
    write_classes(tmp_path, NAMES)
    apart, together = (unicodedata.normalize(form, 'caf\u00e9') for form in ('NFD', 'NFC'))
    write_pair(tmp_path / f'images/{together}.png', tmp_path / f'labels/{apart}_mask.png', IDS)
    write_pair(tmp_path / f'images/{apart}/b.png', tmp_path / f'labels/{together}/b.png', IDS)
    for name in ('._b.png', '.ipynb_checkpoints/b.png'):
        write_picture(tmp_path / 'images' / name, IDS)
    (tmp_path / 'images/sub').mkdir()
    (tmp_path / 'images/sub/loop').symlink_to(tmp_path / 'images')
    (tmp_path / 'images/loop').symlink_to('.')
    (tmp_path / 'elsewhere').mkdir()
    write_pair(tmp_path / 'elsewhere/c.png', tmp_path / 'labels/linked/c.png', IDS)
    (tmp_path / 'images/linked').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'train.txt').write_text(f'{apart}\n{together}/b.png\nlinked/c\n', encoding='utf-8')
    names, listed = [together, f'{together}/b', 'linked/c'], open_dataset('folder', tmp_path, 'train')
    assert [listed[index].name for index in range(len(listed))] == names
    for kind in ('images', 'labels'):
        (tmp_path / f'val/{kind}').parent.mkdir(exist_ok=True)
        (tmp_path / f'val/{kind}').symlink_to(tmp_path / kind)
    assert [pair.name for pair in open_dataset('folder', tmp_path, 'val').files.pairs] == names


@pytest.mark.parametrize(
    'classes, written, expected',
    [
        (NAMES, 'ids', IDS),
        (NAMES, 'indexed', IDS),
        (COLORS, 'ids', IDS),
        (COLORS, 'rgb', IDS),
        (COLORS, 'indexed', IDS),
        (COLORS, 'indexed from 1', IDS),
        (f'{{classes: {COLORS}, labels: ids}}', 'indexed', IDS),
        (f'{{classes: {COLORS}, labels: ids, ignore: [3]}}', 'indexed from 1', np.where(IDS == 2, 255, IDS + 1)),
    ],
)
def test_labels_by_id_or_color(tmp_path, classes, written, expected):
    write_classes(tmp_path, classes)
    path = tmp_path / 'train/labels/a.png'
    write_pair(tmp_path / 'train/images/a.png', path, IDS)
    if written == 'rgb':
        write_picture(path, np.array(PALETTE, np.uint8)[IDS])
    elif written == 'indexed':
        path.write_bytes(indexed_png(IDS, PALETTE))
    elif written == 'indexed from 1':
        path.write_bytes(indexed_png(IDS + 1, [(0, 0, 0), *PALETTE]))
    assert np.array_equal(one_sample(tmp_path).labels, expected)


@pytest.mark.parametrize('ignore', ['0', '[0]', '[0, 255]'])
def test_the_id_of_a_class_may_be_ignored(tmp_path, ignore):
    write_classes(tmp_path, f'{{classes: {NAMES}, ignore: {ignore}}}')
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', IDS)
    assert np.array_equal(one_sample(tmp_path).labels, np.where(IDS == 0, 255, IDS))


@pytest.mark.parametrize(
    'labels, expected',
    [('colors', [[0, 1, 1]]), ('either', [[0, 255, 255]]), ('ids', [[0, 255, 255]]), (None, [[0, 255, 255]])],
)
def test_black_and_white_masks(tmp_path, labels, expected):
    colored = '[{name: rest, color: [0, 0, 0]}, {name: person, color: [255, 255, 255]}]'
    write_classes(tmp_path, f'{{classes: {colored}, labels: {labels}}}' if labels else colored)
    values = np.array([[0, 255, 255]], np.uint8)
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', values)
    assert one_sample(tmp_path).labels.tolist() == expected
    write_picture(tmp_path / 'train/labels/a.png', values.astype(np.uint16))
    if labels == 'colors':
        with pytest.raises(DatasetError, match='expected colours of 8 bits a channel, got more'):
            one_sample(tmp_path)


def test_ignored_ids_and_colors(tmp_path):
    write_classes(tmp_path, f'{{classes: {COLORS}, ignore: [9, [0, 0, 0]]}}')
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', np.array([[0, 9, 2, 255]], np.uint8))
    colors = np.array([[PALETTE[1], PALETTE[3]]], np.uint8)
    write_pair(tmp_path / 'train/images/b.png', tmp_path / 'train/labels/b.png', colors)
    dataset = open_dataset('folder', tmp_path, 'train')
    assert dataset[0].labels.tolist() == [[0, 255, 2, 255]] and dataset[1].labels.tolist() == [[1, 255]]


@pytest.mark.parametrize(
    'classes, values, complaint',
    [
        (NAMES, np.full((2, 3), 3, np.uint8), r'label 3 \(6 pixels\); legal are 0 to 2, and 255 .*"ignore" in'),
        (NAMES, np.full((2, 3), 300, np.uint16), r'label 300 \(6 pixels\)'),
        (NAMES, np.full((2, 3, 3), (1, 2, 3), np.uint8), 'got colours'),
        (COLORS, np.full((2, 3, 3), (1, 2, 3), np.uint8), r'colour \(1, 2, 3\).*"ignore" in classes.yaml.*labels: ids'),
        (COLORS, np.full((2, 3), 4, np.uint8), r'label 4 \(6 pixels\)'),
    ],
)
def test_bad_label_is_named(tmp_path, classes, values, complaint):
    write_classes(tmp_path, classes)
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', values)
    with pytest.raises(DatasetError, match=rf'train/labels/a\.png: .*{complaint}'):
        one_sample(tmp_path)


@pytest.mark.parametrize(
    'content, complaint',
    [
        (None, 'classes.yaml: no such file; it lists the classes'),
        ('', 'classes: expected a list, got NoneType'),
        ('road', 'classes: expected a list, got str'),
        ('[road, road]', 'class names repeat'),
        ('[road, {name: sky, color: [1, 2, 3]}]', 'give every class a colour or none'),
        ('[{name: sky, color: [1, 2, 300]}]', 'integers 0 to 255'),
        ('[{name: sky, colour: [1, 2, 3]}]', r'expected a class as \{name: NAME, color'),
        ('{classes: [sky], ignored: [1]}', r"unknown keys \['ignored'\]; legal are classes, ignore, labels"),
        ('{classes: [sky], ignore: [65536]}', r'ignore: expected a list of ids 0 to 65535 or colors'),
        ('{classes: [{name: sky, color: [1, 2, 3]}], ignore: [[0, 0, 256]]}', r'ignore: expected .* got \[0, 0, 256\]'),
        ('{classes: [sky], ignore: }', r'ignore: expected .* got None'),
        ('{classes: [sky], ignore: void}', r"ignore: expected .* got 'void'"),
        ('{classes: [sky], ignore: [[0, 0, 0]]}', r'ignore: expected ids, as no class has a color'),
        ('{classes: [sky], labels: colors}', r'labels: expected ids, or colors or either if every class has its color'),
        ('{classes: [sky], labels: masks}', r"labels: expected ids, .* got 'masks'"),
        ('[sky', 'classes.yaml: while parsing'),
    ],
)
def test_bad_classes_are_named(tmp_path, content, complaint):
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', IDS)
    if content is not None:
        write_classes(tmp_path, content)
    with pytest.raises(DatasetError, match=complaint):
        open_dataset('folder', tmp_path, 'train')


def test_classes_of_one_color_cannot_be_told_apart_by_it(tmp_path):
    write_classes(tmp_path, '[{name: a, color: [1, 1, 1]}, {name: b, color: [1, 1, 1]}]')
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', IDS)
    with pytest.raises(DatasetError, match=r'one colour per class; several .* \[\(1, 1, 1\)\].*"labels: ids"'):
        open_dataset('folder', tmp_path, 'train')


@pytest.mark.parametrize('split', ['val', 'test'])
def test_missing_split_lists_the_layouts(tmp_path, split):
    write_classes(tmp_path, NAMES)
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', IDS)
    with pytest.raises(DatasetError, match=f"no split '{split}'") as error:
        open_dataset('folder', tmp_path, split)
    assert all(layout in str(error.value) for layout in LAYOUTS)


def test_folder_without_images_is_named(tmp_path):
    write_classes(tmp_path, NAMES)
    for kind in ('images', 'labels'):
        (tmp_path / 'train' / kind).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r'train/images: no images'):
        open_dataset('folder', tmp_path, 'train')
