"""Figures are PNG files of the stated size that show what they are given, and nothing is left half written."""

import cv2
import pytest

from hybrid_seg_ros.evaluation.accuracy.sweep_figure import draw_sweep
from hybrid_seg_ros.evaluation.accuracy.sweep_results import Sweep, SweepPoint, SweepRow, SweepSubject
from hybrid_seg_ros.evaluation.pages.figures import SIZE_PX, STYLES
from hybrid_seg_ros.model_spec import Variant

pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')

SUBJECT = SweepSubject('tiny', 'a' * 64, 'camvid', 'val', 2, 'b' * 64, 'whole', 5, 'pytorch', 'cpu', 'float32')
DEFAULT = SweepPoint('hybrid@8', 'threshold', 0.9, 0.4)


def sweep_of(*points, default=DEFAULT):
    sweep = Sweep(SUBJECT, default)
    for index, (variant, rule, value, *merged) in enumerate(points):
        windows = merged[0] if merged else 0.4 if Variant.parse(variant).merges else None
        point = SweepPoint(variant, rule, value, windows)
        sweep = sweep.with_row(SweepRow(point, 60 + 0.2 * index, 90.0, {}, {}, 4 + 0.3 * index, 0.7))
    return sweep


def pixels_of(picture, color):
    rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return int((picture[:, :, ::-1] == rgb).all(2).sum())


PRUNED = [(variant, rule, value) for variant in ('dtop@8', 'hybrid@8') for rule, value in
          (('keep', 0.4), ('keep', 0.8), ('threshold', 0.8), ('threshold', 0.9))]  # fmt: skip


@pytest.mark.parametrize(
    'points, shown',
    [
        ([('dense', None, None), ('cts', None, None), *PRUNED], ('dtop@8', 'hybrid@8')),
        (PRUNED[:2], ('dtop@8',)),
        ([('dense', None, None)], ()),
        ([('dense', None, None), ('hybrid@4', 'keep', 30)], ()),
        ([(*point, merged) for point in (('cts', None, None), *PRUNED[4:]) for merged in (0.4, 0.6)], ('hybrid@8',)),
    ],
    ids=['both rules', 'one rule', 'no pruning', 'another layer', 'several numbers of merged windows'],
)
def test_sweep(tmp_path, points, shown):
    draw_sweep(sweep_of(*points), tmp_path / 'sweep.png')
    assert [path.name for path in tmp_path.iterdir()] == ['sweep.png']
    picture = cv2.imread(str(tmp_path / 'sweep.png'))
    assert picture.shape == (SIZE_PX[1], SIZE_PX[0], 3)
    for variant, (color, _) in STYLES.items():
        assert (pixels_of(picture, color) > 200) == (variant in shown), variant


def test_the_default_is_marked(tmp_path):
    pictures = []
    for default in (DEFAULT, None):
        draw_sweep(sweep_of(('dense', None, None), *PRUNED, default=default), tmp_path / 'sweep.png')
        pictures.append(cv2.imread(str(tmp_path / 'sweep.png')).astype(int))
    black = [(picture.max(2) < 30).sum() for picture in pictures]
    assert black[0] > black[1] + 200
