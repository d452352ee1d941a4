"""Class ids of ground truth: which are legal, which mean unlabelled, and how they come out of a PNG."""

import cv2
import numpy as np
import pytest
from picture_files import indexed_png

from hybrid_seg_ros.evaluation.label_ids import decode_label_png, label_id_code

VALUES = np.array([[0, 10, 11], [0, 255, 3]], np.uint8)


@pytest.mark.parametrize(
    ('classes', 'void', 'expected'),
    [
        (None, None, VALUES),
        (12, None, VALUES),
        (11, 11, [[0, 10, 255], [0, 255, 3]]),
        (None, 0, [[255, 10, 11], [255, 255, 3]]),
        (12, 255, VALUES),
    ],
)
def test_ids(classes, void, expected):
    labels = label_id_code(classes, void).decode('labels', VALUES)
    assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


@pytest.mark.parametrize(
    ('classes', 'void', 'complaint'),
    [
        (11, None, r'drive/5\.png: label 11 \(1 pixels\); legal are 0 to 10, and 255 for unlabelled'),
        (0, None, 'classes: expected 1 to 255, got 0'),
        (256, None, 'classes: expected 1 to 255, got 256'),
        (11, -1, 'void: expected a label id, 0 to 255, got -1'),
    ],
)
def test_what_is_not_legal(classes, void, complaint):
    with pytest.raises(ValueError, match=complaint):
        label_id_code(classes, void).decode('drive/5.png', VALUES)


def test_a_png_gives_its_values_as_stored():
    palette = [(index, 0, 255 - index) for index in range(256)]
    for data in (cv2.imencode('.png', VALUES)[1].tobytes(), indexed_png(VALUES, palette)):
        assert np.array_equal(decode_label_png(np.frombuffer(data, np.uint8)), VALUES)
    assert decode_label_png(np.zeros(0, np.uint8)) is None
    assert decode_label_png(np.frombuffer(b'no picture', np.uint8)) is None
