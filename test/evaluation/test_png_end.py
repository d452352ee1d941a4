"""Whether a PNG is there to its end: whole, cut anywhere, and with bytes behind it."""

import cv2
import numpy as np
import pytest

from hybrid_seg_ros.evaluation.png_end import has_png_end

PNG = cv2.imencode('.png', np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8))[1].tobytes()


@pytest.mark.parametrize('kind', [bytes, memoryview])
def test_the_end_is_there_or_not(kind):
    assert has_png_end(kind(PNG)) and has_png_end(kind(PNG + b'and more'))
    assert not any(has_png_end(kind(PNG[:size])) for size in (0, 7, 8, 20, len(PNG) // 2, len(PNG) - 12, len(PNG) - 1))
    assert not has_png_end(kind(PNG[: len(PNG) // 2] + PNG[-12:]))
