"""Texts of a figure stay inside its panel, and beside points and each other; matplotlib need not be there."""

import builtins
import itertools

import pytest

from hybrid_seg_ros.evaluation.pages.figures import LabelPlacer, require_matplotlib

CURVES = {
    'corner': ([0.0, 0.02], [1.0, 0.98]),
    'line': ([0.1, 0.3, 0.5, 0.7], [0.2, 0.5, 0.6, 0.9]),
    'steep': ([0.5, 0.52, 0.54], [0.1, 0.5, 0.9]),
}


@pytest.mark.parametrize('name', CURVES)
def test_texts_hide_nothing(name):
    figure = pytest.importorskip('matplotlib.figure').Figure(figsize=(5, 4), dpi=100)
    canvas = pytest.importorskip('matplotlib.backends.backend_agg').FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.set(xlim=(0, 1), ylim=(0, 1))
    labels = LabelPlacer(panel, canvas.get_renderer())
    labels.avoid_line(*CURVES[name])
    for x, y in zip(*CURVES[name]):
        labels.place(f'{x:.2f}', x, y, fontsize=8)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in panel.texts]
    inside = panel.get_window_extent(canvas.get_renderer())
    points = panel.transData.transform(list(zip(*CURVES[name])))
    assert len(boxes) == len(points)
    for box, point in zip(boxes, points):
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        assert not any(box.contains(*each) for each in points)
        assert abs((box.x0 + box.x1) / 2 - point[0]) < 60 and abs((box.y0 + box.y1) / 2 - point[1]) < 60
    for one, other in itertools.combinations(boxes, 2):
        assert not (one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1)


def test_without_matplotlib(monkeypatch):
    real = builtins.__import__

    def absent(name, *args):
        if name.partition('.')[0] == 'matplotlib':
            raise ModuleNotFoundError(f'No module named {name!r}')
        return real(name, *args)

    monkeypatch.setattr(builtins, '__import__', absent)
    with pytest.raises(ModuleNotFoundError, match='pip install matplotlib'):
        require_matplotlib()
