"""Pictures are read as what they hold; one that is cut off, damaged or not a picture is named."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from picture_files import indexed_png, write_picture

from hybrid_seg_ros.data.file_damage import find_damage
from hybrid_seg_ros.data.image_files import DatasetError, read_image, read_label_colors, read_label_ids
from hybrid_seg_ros.data.png_file import palette_indices

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (7, 8, 9)]
SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (128, 96))
INDICES = np.random.default_rng(1).integers(0, 4, (13, 21), np.uint8)


def encoded(suffix: str, *settings: int) -> bytes:
    return cv2.imencode(suffix, SMOOTH, settings)[1].tobytes()


FILES = {
    'jpeg': encoded('.jpg'),
    'progressive jpeg': encoded('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'jpeg with restart marks': encoded('.jpg', cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    'png': encoded('.png'),
    'webp': encoded('.webp', cv2.IMWRITE_WEBP_QUALITY, 90),
    'bmp': encoded('.bmp'),
}


def with_thumbnail(jpeg: bytes) -> bytes:
    """Put a whole small JPEG into an APP1 segment, as cameras do."""
    small = cv2.imencode('.jpg', SMOOTH[:16, :16])[1].tobytes()
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(small) + 2) + small + jpeg[2:]


@pytest.mark.parametrize('name', FILES)
def test_whole_file_is_read(tmp_path, name):
    path = tmp_path / 'picture'
    path.write_bytes(FILES[name])
    assert find_damage(FILES[name]) is None
    image = read_image(path)
    assert image.shape == (96, 128, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - SMOOTH[:, :, ::-1]).mean() < 8, 'RGB, not BGR'


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('keep', [0.1, 0.6, 0.99])
def test_cut_file_is_named(tmp_path, name, keep):
    path = tmp_path / 'cut.jpg'
    path.write_bytes(FILES[name][: int(keep * len(FILES[name]))])
    with pytest.raises(DatasetError, match=r'cut\.jpg: the file is cut off'):
        read_image(path)


@pytest.mark.parametrize(
    'data, damage',
    [
        (b'', 'empty'),
        (with_thumbnail(FILES['jpeg']), None),
        (with_thumbnail(FILES['jpeg'])[:-2], 'cut off'),
        (FILES['jpeg'] + b'maker notes after the end', None),
        (FILES['jpeg'][:-200] + bytes(200), 'cut off'),
        (FILES['jpeg'][:2] + b'astray' + FILES['jpeg'][2:], None),
        (FILES['png'][:200] + b'\x55' + FILES['png'][201:], 'IDAT fails its checksum'),
        (FILES['png'] + b'more', None),
    ],
    ids=['empty', 'thumbnail', 'thumbnail, cut', 'bytes after the end', 'zeros at the end', 'bytes between',
         'flipped bits', 'bytes after a PNG'],
)
def test_damage(data, damage):
    found = find_damage(data)
    assert found is None if damage is None else damage in found


@pytest.mark.parametrize('content', [b'not a picture', b'\xff\xd8\xff\xd9', b'\x89PNG\r\n\x1a\n'])
def test_what_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / 'odd.png'
    path.write_bytes(content)
    for read in (read_image, read_label_ids, read_label_colors):
        with pytest.raises(DatasetError, match=r'odd\.png: '):
            read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r'gone\.png: cannot be read: No such file'):
        read_image(tmp_path / 'gone.png')


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_palette_file_has_indices_and_colors(tmp_path, bits):
    indices = INDICES % 2 if bits == 1 else INDICES
    data = indexed_png(indices, PALETTE[: 2**bits], bits)
    assert np.array_equal(palette_indices(data), indices)
    path = tmp_path / 'labels.png'
    path.write_bytes(data)
    assert np.array_equal(read_label_ids(path), indices)
    assert np.array_equal(read_label_colors(path), np.array(PALETTE, np.uint8)[indices])


def test_transparent_palette_changes_nothing(tmp_path):
    path = tmp_path / 'labels.png'
    path.write_bytes(indexed_png(INDICES, PALETTE, alpha=b'\0\xff'))
    assert np.array_equal(read_label_ids(path), INDICES)
    assert np.array_equal(read_label_colors(path), np.array(PALETTE, np.uint8)[INDICES])


@pytest.mark.parametrize(
    'values, suffix',
    [
        (INDICES, '.png'),
        (INDICES, '.bmp'),
        (INDICES.astype(np.uint16) + 250, '.png'),
        (INDICES.astype(np.uint16) + 250, '.tif'),
    ],
)
def test_values_are_read_as_they_are(tmp_path, values, suffix):
    read = read_label_ids(write_picture(tmp_path / f'labels{suffix}', values))
    assert read.shape == (13, 21) and np.array_equal(read, values)


def test_three_equal_channels_are_one_value(tmp_path):
    path = write_picture(tmp_path / 'labels.png', np.stack([INDICES] * 3, axis=2))
    assert np.array_equal(read_label_ids(path), INDICES)


def test_colors_are_no_ids(tmp_path):
    path = write_picture(tmp_path / 'labels.png', np.array(PALETTE, np.uint8)[INDICES])
    with pytest.raises(DatasetError, match=r'labels\.png: expected one class id per pixel, got colours'):
        read_label_ids(path)


def test_image_with_alpha_or_grey_is_rgb(tmp_path):
    grey = write_picture(tmp_path / 'grey.png', SMOOTH[:, :, 0])
    assert np.array_equal(read_image(grey), np.repeat(SMOOTH[:, :, :1], 3, axis=2))
    bgra = np.dstack([SMOOTH, np.full((96, 128), 90, np.uint8)])
    assert cv2.imwrite(str(tmp_path / 'alpha.png'), bgra)
    assert np.array_equal(read_image(tmp_path / 'alpha.png'), SMOOTH[:, :, ::-1])
