"""Pictures are read as what they hold; one that is cut off, damaged or not a picture is named."""

from __future__ import annotations

import io
import struct
import unicodedata

import cv2
import numpy as np
import pytest
from picture_files import grey_tiff, indexed_bmp, indexed_png, with_orientation, write_picture
from PIL import Image

from hybrid_seg_ros.data.encoded_picture import PictureError, open_picture
from hybrid_seg_ros.data.image_files import (
    DatasetError,
    list_images,
    natural_key,
    read_image,
    read_label_colors,
    read_label_ids,
)

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (7, 8, 9)]
SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (128, 96))
INDICES = np.random.default_rng(1).integers(0, 4, (13, 21), np.uint8)


def encoded(suffix: str, *settings: int) -> bytes:
    return cv2.imencode(suffix, SMOOTH, settings)[1].tobytes()


def by_pillow(image: Image.Image, kind: str, **settings) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


RGB = Image.fromarray(np.ascontiguousarray(SMOOTH[:, :, ::-1]))
FILES = {
    'jpeg': encoded('.jpg'),
    'progressive jpeg': encoded('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'jpeg with restart marks': encoded('.jpg', cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    'cmyk jpeg': by_pillow(RGB.convert('CMYK'), 'JPEG'),
    'jpeg with several pictures': by_pillow(RGB, 'MPO', save_all=True, append_images=[RGB.rotate(180)]),
    'png': encoded('.png'),
    'png of 16 bits': cv2.imencode('.png', SMOOTH.astype(np.uint16) * 257)[1].tobytes(),
    'png of a palette': by_pillow(RGB.quantize(256), 'PNG'),
    'webp': encoded('.webp', cv2.IMWRITE_WEBP_QUALITY, 90),
    'bmp': encoded('.bmp'),
    'tiff': encoded('.tif'),
    'tiff of 16 bits': cv2.imencode('.tif', SMOOTH.astype(np.uint16) * 257)[1].tobytes(),
    'tiff, jpeg within': by_pillow(RGB, 'TIFF', compression='jpeg'),
    'ppm': encoded('.ppm'),
}


def with_thumbnail(jpeg: bytes) -> bytes:
    """Put a whole small JPEG into an APP1 segment, as cameras do."""
    small = cv2.imencode('.jpg', SMOOTH[:16, :16])[1].tobytes()
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(small) + 2) + small + jpeg[2:]


@pytest.mark.parametrize('name', FILES)
def test_whole_file_is_read(tmp_path, name):
    path = tmp_path / 'picture'
    path.write_bytes(FILES[name])
    image = read_image(path)
    assert image.shape == (96, 128, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - SMOOTH[:, :, ::-1]).mean() < 8, 'RGB, not BGR'


@pytest.mark.filterwarnings('ignore:Corrupt EXIF')
@pytest.mark.parametrize('name', FILES)
def test_cut_file_is_named(tmp_path, name):
    data = FILES[name]
    if 'several' in name:  # of which the first one counts
        data = data[: data.index(b'\xff\xd9\xff\xd8') + 2]
    path = tmp_path / 'cut.jpg'
    for keep in (0.1, 0.5, 0.98):
        path.write_bytes(data[: int(keep * len(data))])
        for read in (read_image, read_label_ids, read_label_colors):
            with pytest.raises(DatasetError, match=r'cut\.jpg: .*(cut off|decode)'):
                read(path)


OLDER_FRAME = encoded('.jpg', cv2.IMWRITE_JPEG_QUALITY, 99)


PADDING = {
    'zeros': bytes(5000), 'blanks': b' ' * 5000, 'ff': b'\xff' * 5000, 'rest of an older frame': OLDER_FRAME[-900:],
    'older frame': OLDER_FRAME, 'more ends': b'\xff\xd9' * 9, 'notes': b'maker notes',
}  # fmt: skip


@pytest.mark.parametrize('name', [name for name in FILES if name.startswith(('jpeg', 'prog', 'cmyk'))])
def test_what_is_behind_a_jpeg_is_padding(name):
    jpeg = with_thumbnail(FILES[name])
    expected, half = open_picture(jpeg).rgb(turned=True), FILES[name][: int(0.7 * len(FILES[name]))]
    for what, padding in PADDING.items():
        assert np.array_equal(open_picture(jpeg + padding).rgb(turned=True), expected), what
        if what in ('older frame', 'zeros', 'ff') and 'several' not in name:
            with pytest.raises(PictureError, match='cut off'):
                open_picture(half + padding)


@pytest.mark.parametrize(
    'data, damage',
    [
        (b'', 'empty'),
        (with_thumbnail(FILES['jpeg'])[:-2], 'cut off'),
        (FILES['png'][:200] + b'\x55' + FILES['png'][201:], 'damaged .*IDAT'),
        (FILES['png'][:-12], 'cut off'),
        (by_pillow(RGB, 'PNG', save_all=True, append_images=[RGB.rotate(180)]), 'one picture, got an animation of 2'),
        (by_pillow(RGB, 'WEBP', save_all=True, append_images=[RGB.rotate(180)]), 'one picture, got an animation of 2'),
        (by_pillow(RGB, 'GIF'), r'not a readable image \(JPEG, PNG, WEBP, BMP, TIFF, PPM\)'),
        (by_pillow(Image.fromarray(SMOOTH[..., 0] / 255), 'TIFF'), 'expected 8 or 16 bits a channel, got floats'),
    ],
    ids=['empty', 'thumbnail, cut', 'flipped bits', 'no end', 'animated PNG', 'animated WebP', 'GIF', 'floats'],
)
def test_damage(data, damage):
    with pytest.raises(PictureError, match=damage):
        open_picture(data).rgb(turned=True)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_exif_turns_images_and_labels(tmp_path, kind):
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    image = np.repeat(np.kron(values * 10, np.ones((16, 16), np.uint8))[:, :, None], 3, axis=2)
    all_turned = [values, values[:, ::-1], values[::-1, ::-1], values[::-1], values.T, np.rot90(values, -1),
                  values[::-1, ::-1].T, np.rot90(values)]  # fmt: skip
    for orientation, turned in enumerate(all_turned, 1):
        (tmp_path / 'image').write_bytes(with_orientation(image, orientation, kind))
        assert np.abs(read_image(tmp_path / 'image')[8::16, 8::16, 0].astype(int) - turned * 10).max() < 5, orientation
        if kind in ('PNG', 'TIFF'):
            (tmp_path / 'labels').write_bytes(with_orientation(values, orientation, kind))
            assert np.array_equal(read_label_ids(tmp_path / 'labels'), turned), orientation
            assert np.array_equal(read_label_colors(tmp_path / 'labels'), turned), orientation


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
def test_values_are_the_stored_ones_whatever_the_depth(tmp_path, bits):
    values = np.random.default_rng(2).integers(0, min(2**bits, 256), (13, 21), np.uint8)
    shades = [(255 * index // (2**bits - 1),) * 3 for index in range(2**bits)]
    path = tmp_path / 'labels'
    files = [indexed_png(values, None, bits), grey_tiff(values, bits), grey_tiff(values, bits, white_is_zero=True)]
    if bits != 2:
        ramp, colors = ([(a * index, b * index, index) for index in range(2**bits)] for a, b in ((1, 1), (0, 0)))
        files += [indexed_bmp(values, palette, bits, bits > 1) for palette in (shades, ramp, colors)]
    for data in files:
        path.write_bytes(data)
        assert np.array_equal(read_label_ids(path), values)
    for data in (files[0], files[1]):
        path.write_bytes(data)
        assert np.array_equal(read_label_colors(path), np.array(shades, np.uint8)[values, 0]), 'as it is shown'


def test_bmp_of_8_bits_with_two_shades(tmp_path):
    path = tmp_path / 'labels.bmp'
    path.write_bytes(indexed_bmp(INDICES % 2, [(0, 0, 0), (255, 255, 255)], 8))
    assert np.array_equal(read_label_ids(path), INDICES % 2)
    assert np.array_equal(read_label_colors(path), INDICES % 2 * 255)


@pytest.mark.parametrize('compression', [None, 'tiff_lzw', 'packbits', 'group4'])
def test_compressed_tiff_of_one_bit(tmp_path, compression):
    bits = INDICES > 1
    Image.fromarray(bits).save(tmp_path / 'labels.tif', compression=compression)
    assert np.array_equal(read_label_ids(tmp_path / 'labels.tif'), bits)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_palette_file_has_indices_and_colors(tmp_path, bits):
    indices = INDICES % 2 if bits == 1 else INDICES
    path = tmp_path / 'labels.png'
    path.write_bytes(indexed_png(indices, PALETTE[: 2**bits], bits))
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
    for values in (INDICES, INDICES.astype(np.uint16) + 999):
        for suffix in ('.png', '.tif'):
            for alpha in ([], [values // 2]):
                path = tmp_path / f'labels{suffix}'
                assert cv2.imwrite(str(path), np.dstack([values] * 3 + alpha))
                assert np.array_equal(read_label_ids(path), values)
    Image.merge('LA', [Image.fromarray(INDICES), Image.fromarray(INDICES * 60)]).save(tmp_path / 'grey.png')
    assert np.array_equal(read_label_ids(tmp_path / 'grey.png'), INDICES)


@pytest.mark.parametrize('name', ['jpeg', 'webp', 'tiff, jpeg within'])
def test_lossy_files_hold_no_ids(tmp_path, name):
    (tmp_path / 'labels.png').write_bytes(FILES[name])
    with pytest.raises(DatasetError, match='expected a lossless label file, got'):
        read_label_ids(tmp_path / 'labels.png')


@pytest.mark.parametrize('values', [np.full((2, 3), -1, np.int32), np.full((2, 3), 0.5, np.float32)])
def test_numbers_that_are_no_ids(tmp_path, values):
    Image.fromarray(values).save(tmp_path / 'labels.tif')
    with pytest.raises(DatasetError, match='expected labels of 8 or 16 bits, got (int32|float32)'):
        read_label_ids(tmp_path / 'labels.tif')


@pytest.mark.parametrize('values', [INDICES.astype(np.uint16), np.dstack([INDICES.astype(np.uint16)] * 3)])
def test_colors_have_8_bits_a_channel(tmp_path, values):
    with pytest.raises(DatasetError, match='expected colours of 8 bits a channel, got more'):
        read_label_colors(write_picture(tmp_path / 'labels.png', values))


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


def test_images_of_a_folder_in_natural_order(tmp_path):
    names = ['frame_1.png', 'frame_2.jpg', 'frame_10.PNG', 'frame_10a.png', 'frame_x.tiff']
    for name in (*reversed(names), '._frame_1.png', '.hidden.png', 'notes.txt'):
        (tmp_path / name).write_bytes(b'')
    (tmp_path / 'folder.png').mkdir()
    assert [path.name for path in list_images(tmp_path)] == names
    assert natural_key('a01') != natural_key('a1')
    taken_apart = [unicodedata.normalize('NFD', name) for name in ('\u00e91', '\u00e910', '\u00e92')]
    assert sorted(taken_apart, key=natural_key) == [taken_apart[0], taken_apart[2], taken_apart[1]]


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / 'a.png').mkdir()
    with pytest.raises(DatasetError, match=r'a\.png: cannot be read: Is a directory'):
        read_image(tmp_path / 'a.png')
